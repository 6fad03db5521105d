//! Named tensors in safetensors files: written as f32 from the device and read, one at a time.
//!
//! Neither direction holds more than one tensor in host memory apart from the file system's cache.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, View, serialize_to_file};
use thiserror::Error;

use crate::engine::error::device_reason;
use crate::engine::named_tensor::NamedTensor;
use crate::engine::tensor_header::{Entry, Header, NumberFormat};
use crate::record::files::open_regular;

/// A larger header counts as damage, before anything is allocated.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Bytes converted at a time, a multiple of the size of every number format: only the result needs
/// the memory of a whole tensor.
const PIECE_BYTES: usize = 1 << 20;
/// The square root of the largest f32: norms square their input, so no network computes with a
/// larger weight.
const LARGEST_WEIGHT: f32 = 1.844_674_3e19;

/// Why named tensors could not be written or read.
#[derive(Debug, Error)]
pub enum TensorFileError {
    /// The file cannot be written or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Operating system error.
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{}: {problem}", path.display())]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// Description of the damage.
        problem: String,
    },
    /// A tensor contains a number that no network can compute with.
    #[error("{}: {tensor} holds {value:?}{}", path.display(), if value.is_finite() { ", which is too large to compute with" } else { "" })]
    Unusable {
        /// Path of the file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// The first such number.
        value: f32,
    },
    /// A tensor could not be copied from the device.
    #[error("cannot read {name} from the device: {problem}")]
    Device {
        /// Name of the tensor.
        name: String,
        /// Message of the device.
        problem: String,
    },
}

/// Writes `tensors` with the one metadata key that Hugging Face requires, so that equal tensors
/// give equal bytes.
///
/// # Errors
/// When the device or the file system fails; an incomplete file may remain, in a folder that is not
/// valid yet.
pub fn write_tensors(path: &Path, tensors: Vec<NamedTensor>) -> Result<(), TensorFileError> {
    let failure = RefCell::new(None);
    let views = tensors
        .into_iter()
        .map(|tensor| (tensor.name.clone(), DeviceView { tensor, failure: &failure }));
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let written = serialize_to_file(views.collect::<Vec<_>>(), Some(metadata), path);
    if let Some((name, problem)) = failure.into_inner() {
        return Err(TensorFileError::Device { name, problem });
    }
    written.map_err(|error| match error {
        safetensors::SafeTensorError::IoError(source) => {
            TensorFileError::Io { path: path.to_owned(), source }
        }
        other => TensorFileError::Damaged { path: path.to_owned(), problem: other.to_string() },
    })
}

/// A tensor that is copied from the device only when it is written.
struct DeviceView<'a> {
    tensor: NamedTensor,
    failure: &'a RefCell<Option<(String, String)>>,
}

impl View for DeviceView<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.dims
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.tensor.values.clone().try_into_data() {
            Ok(data) => Cow::Owned(data.iter::<f32>().flat_map(f32::to_le_bytes).collect()),
            Err(error) => {
                self.failure.replace(Some((self.tensor.name.clone(), device_reason(&error))));
                Cow::Owned(vec![0; self.data_len()])
            }
        }
    }

    fn data_len(&self) -> usize {
        self.tensor.dims.iter().product::<usize>() * size_of::<f32>()
    }
}

/// A file of named tensors, read as f32 whatever their number format.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    header: Header,
}

impl TensorFile {
    /// Opens a file and checks its header against its length.
    ///
    /// # Errors
    /// When the file is missing, shorter or longer than its header says, or its header is damaged.
    pub fn open(path: &Path) -> Result<Self, TensorFileError> {
        let io = |source| TensorFileError::Io { path: path.to_owned(), source };
        let damaged = |problem: String| TensorFileError::Damaged { path: path.to_owned(), problem };
        let mut file = open_regular(path).map_err(io)?;
        let file_bytes = file.metadata().map_err(io)?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES || length > file_bytes.saturating_sub(8) {
            return Err(damaged(format!("its header claims {length} bytes")));
        }
        let data_start = 8 + length;
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(io)?;
        let header = Header::read(&header, file_bytes - data_start).map_err(damaged)?;
        Ok(Self { path: path.to_owned(), file, data_start, header })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.header.0.keys()
    }

    /// Names and shapes of all tensors.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.header.0.iter().map(|(name, entry)| (name.clone(), entry.shape.clone())).collect()
    }

    /// The distinct number formats.
    pub fn formats(&self) -> BTreeSet<String> {
        self.header.0.values().map(|entry| entry.dtype.clone()).collect()
    }

    /// Checks that the tensor `name` exists, has shape `dims` and can be read.
    ///
    /// # Errors
    /// When it is missing, or has another shape or an unsupported number format.
    pub fn check(&self, name: &str, dims: &[usize]) -> Result<(), TensorFileError> {
        self.find(name, dims).map(drop)
    }

    /// Reads the tensor `name`, which must have shape `dims`, in row-major order.
    ///
    /// # Errors
    /// As [`TensorFile::check`], when the file cannot be read, and when a number is not finite.
    pub fn read(&mut self, name: &str, dims: &[usize]) -> Result<Vec<f32>, TensorFileError> {
        self.read_up_to(f32::MAX, name, dims)
    }

    /// Reads the tensor `name` like [`TensorFile::read`], for a network that will compute with it.
    ///
    /// # Errors
    /// As [`TensorFile::read`], and when a number is so large that its square is infinite.
    pub fn read_weight(&mut self, name: &str, dims: &[usize]) -> Result<Vec<f32>, TensorFileError> {
        self.read_up_to(LARGEST_WEIGHT, name, dims)
    }

    /// Reads a tensor whose numbers must all be between `-limit` and `limit`.
    fn read_up_to(
        &mut self,
        limit: f32,
        name: &str,
        dims: &[usize],
    ) -> Result<Vec<f32>, TensorFileError> {
        let (format, start, bytes) = self.find(name, dims)?;
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| TensorFileError::Io { path, source }
        };
        self.file.seek(SeekFrom::Start(self.data_start + start)).map_err(io(&self.path))?;
        let mut values = Vec::with_capacity(bytes / format.size());
        let mut piece = vec![0; bytes.min(PIECE_BYTES)];
        let mut left = bytes;
        while left > 0 {
            let piece = &mut piece[..left.min(PIECE_BYTES)];
            self.file.read_exact(piece).map_err(io(&self.path))?;
            decode(piece, format, &mut values);
            left -= piece.len();
        }
        match values.iter().find(|value| value.is_nan() || value.abs() > limit) {
            Some(value) => Err(TensorFileError::Unusable {
                path: self.path.clone(),
                tensor: name.to_owned(),
                value: *value,
            }),
            None => Ok(values),
        }
    }

    /// Format, offset in the data and number of bytes.
    fn find(
        &self,
        name: &str,
        dims: &[usize],
    ) -> Result<(NumberFormat, u64, usize), TensorFileError> {
        let damaged =
            |problem: String| TensorFileError::Damaged { path: self.path.clone(), problem };
        let Entry { dtype, shape, data_offsets: (start, end) } =
            self.header.0.get(name).ok_or_else(|| damaged(format!("it has no tensor {name}")))?;
        if shape != dims {
            return Err(damaged(format!("{name} has shape {shape:?} instead of {dims:?}")));
        }
        let format = NumberFormat::from_name(dtype).ok_or_else(|| {
            damaged(format!("{name} is {dtype}, but only F32, BF16 and F16 are supported"))
        })?;
        Ok((format, *start, (end - start) as usize))
    }
}

/// Appends the numbers in `bytes`, which must be complete.
fn decode(bytes: &[u8], format: NumberFormat, values: &mut Vec<f32>) {
    let halves = || bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    match format {
        NumberFormat::F32 => values
            .extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        NumberFormat::Bf16 => values.extend(halves().map(|bits| bf16::from_bits(bits).to_f32())),
        NumberFormat::F16 => values.extend(halves().map(|bits| f16::from_bits(bits).to_f32())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;

    #[test]
    fn every_kind_of_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let entry = || {
            let values = Tensor::from_data(
                TensorData::new(vec![1.0_f32, 2.0, 3.0, 4.0], [2, 2]),
                &Device::flex(),
            );
            NamedTensor { name: "a.weight".into(), dims: vec![2, 2], values }
        };
        write_tensors(&path, vec![entry()]).unwrap();
        let whole = fs::read(&path).unwrap();
        let read = |bytes: &[u8], name: &str, dims: &[usize]| {
            fs::write(&path, bytes).unwrap();
            TensorFile::open(&path).and_then(|mut file| file.read(name, dims))
        };
        assert_eq!(read(&whole, "a.weight", &[2, 2]).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        let problem = |bytes: &[u8], name: &str, dims: &[usize]| {
            let message = read(bytes, name, dims).unwrap_err().to_string();
            message.strip_prefix(&format!("{}: ", path.display())).unwrap().to_owned()
        };
        assert_eq!(problem(&whole, "b.weight", &[2, 2]), "it has no tensor b.weight");
        assert_eq!(
            problem(&whole, "a.weight", &[4, 1]),
            "a.weight has shape [2, 2] instead of [4, 1]"
        );
        assert_eq!(
            problem(&whole[..whole.len() - 1], "a.weight", &[2, 2]),
            "it has 15 bytes of data instead of 16"
        );
        assert_eq!(
            problem(&[whole.as_slice(), b"x"].concat(), "a.weight", &[2, 2]),
            "it has 17 bytes of data instead of 16"
        );
        assert_eq!(problem(&whole[..4], "a.weight", &[2, 2]), "failed to fill whole buffer");
        assert_eq!(
            problem(&[0xFF; 16], "a.weight", &[2, 2]),
            format!("its header claims {} bytes", u64::MAX)
        );
        let mut broken = whole.clone();
        broken[8] = b'[';
        assert!(problem(&broken, "a.weight", &[2, 2]).starts_with("its header cannot be used: "));
        fs::remove_file(&path).unwrap();
        assert!(matches!(TensorFile::open(&path), Err(TensorFileError::Io { .. })));
        assert!(
            matches!(write_tensors(folder.path(), vec![entry()]), Err(TensorFileError::Io { .. })),
            "a folder is no file"
        );
    }
}
