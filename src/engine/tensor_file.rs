//! Named tensors in safetensors files: written as f32 from the device, and read as f32.
//!
//! Apart from [`TensorFile::load`], nothing holds more than one tensor in host memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use thiserror::Error;

use crate::engine::device::device_reason;
use crate::engine::named_tensor::NamedTensor;
use crate::engine::tensor_header::{Entry, Header, NumberFormat, header_bytes};
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

/// Writes `tensors` to the file at `path`, as [`write_tensors_to`].
///
/// # Errors
/// As [`write_tensors_to`].
pub fn write_tensors(path: &Path, tensors: Vec<NamedTensor>) -> Result<(), TensorFileError> {
    let io = |source| TensorFileError::Io { path: path.to_owned(), source };
    let mut file = BufWriter::with_capacity(PIECE_BYTES, File::create(path).map_err(io)?);
    write_tensors_to(&mut file, path, tensors)?;
    file.flush().map_err(io)
}

/// Writes `tensors` to `file`, which is at `path`, in the order of their names, so that equal tensors
/// give equal bytes; each is copied from the device when it is written.
///
/// # Errors
/// When the device or the file system fails; the file is then incomplete.
pub(super) fn write_tensors_to(
    file: &mut dyn Write,
    path: &Path,
    mut tensors: Vec<NamedTensor>,
) -> Result<(), TensorFileError> {
    let io = |source| TensorFileError::Io { path: path.to_owned(), source };
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let list =
        tensors.iter().map(|tensor| (tensor.name.clone(), tensor.dims.clone())).collect::<Vec<_>>();
    file.write_all(&header_bytes(&list, NumberFormat::F32)).map_err(io)?;
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    for NamedTensor { name, values, .. } in tensors {
        let device = |problem| TensorFileError::Device { name: name.clone(), problem };
        let data = values.try_into_data().map_err(|error| device(device_reason(&error)))?;
        let values = data
            .convert::<f32>()
            .try_into_vec::<f32>()
            .map_err(|error| device(format!("{error:?}")))?;
        for values in values.chunks(PIECE_BYTES / size_of::<f32>()) {
            piece.resize(size_of_val(values), 0);
            for (bytes, value) in piece.as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = value.to_le_bytes();
            }
            file.write_all(&piece).map_err(io)?;
        }
    }
    Ok(())
}

/// A file of named tensors, read as f32 whatever their number format.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    header: Header,
    data: Data,
}

/// Where the numbers are.
#[derive(Debug)]
enum Data {
    /// In the file, from this byte on.
    File(File, u64),
    /// In memory, until they are asked for.
    Loaded(BTreeMap<String, Vec<f32>>),
}

impl TensorFile {
    /// Opens a file and checks its header against its length.
    ///
    /// # Errors
    /// When the file is missing, shorter or longer than its header says, or its header is damaged.
    pub fn open(path: &Path) -> Result<Self, TensorFileError> {
        let io = |source| TensorFileError::Io { path: path.to_owned(), source };
        let mut file = open_regular(path).map_err(io)?;
        let file_bytes = file.metadata().map_err(io)?.len();
        let (header, data_start) = read_header(path, &mut file, file_bytes)?;
        Ok(Self { path: path.to_owned(), header, data: Data::File(file, data_start) })
    }

    /// Reads the whole of `file`, of `file_bytes` bytes at `path`, from its start to its end; each
    /// tensor can be read from memory once.
    ///
    /// # Errors
    /// As [`TensorFile::open`].
    pub(super) fn load(
        path: &Path,
        file: &mut dyn Read,
        file_bytes: u64,
    ) -> Result<Self, TensorFileError> {
        let io = |source| TensorFileError::Io { path: path.to_owned(), source };
        let (header, _) = read_header(path, file, file_bytes)?;
        let mut places = header.0.iter().collect::<Vec<_>>();
        places.sort_by_key(|(_, entry)| entry.data_offsets);
        let mut loaded = BTreeMap::new();
        for (name, Entry { dtype, data_offsets: (start, end), .. }) in places {
            // A format that cannot be read is reported when the tensor is asked for.
            let Some(format) = NumberFormat::from_name(dtype) else {
                io::copy(&mut file.take(end - start), &mut io::sink()).map_err(io)?;
                continue;
            };
            let values = read_values(file, format, (end - start) as usize).map_err(io)?;
            loaded.insert(name.clone(), values);
        }
        Ok(Self { path: path.to_owned(), header, data: Data::Loaded(loaded) })
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
        let values = match &mut self.data {
            Data::File(file, data_start) => file
                .seek(SeekFrom::Start(*data_start + start))
                .and_then(|_| read_values(file, format, bytes)),
            Data::Loaded(values) => {
                values.remove(name).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
        };
        let values =
            values.map_err(|source| TensorFileError::Io { path: self.path.clone(), source })?;
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

/// The header of a file of `file_bytes` bytes, and where its data starts.
fn read_header(
    path: &Path,
    file: &mut dyn Read,
    file_bytes: u64,
) -> Result<(Header, u64), TensorFileError> {
    let io = |source| TensorFileError::Io { path: path.to_owned(), source };
    let damaged = |problem: String| TensorFileError::Damaged { path: path.to_owned(), problem };
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
    Ok((header, data_start))
}

/// Reads a tensor of `bytes` bytes.
fn read_values(file: &mut dyn Read, format: NumberFormat, bytes: usize) -> io::Result<Vec<f32>> {
    let mut values = Vec::with_capacity(bytes / format.size());
    let mut piece = vec![0; bytes.min(PIECE_BYTES)];
    let mut left = bytes;
    while left > 0 {
        let piece = &mut piece[..left.min(PIECE_BYTES)];
        file.read_exact(piece)?;
        decode(piece, format, &mut values);
        left -= piece.len();
    }
    Ok(values)
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
    use std::collections::HashMap;
    use std::fs;

    use burn::tensor::{Device, Tensor, TensorData};
    use safetensors::tensor::{Dtype, TensorView};

    use super::*;
    use crate::engine::named_tensor::matrix_dims;

    fn tensor(name: &str, dims: &[usize], values: &[f32]) -> NamedTensor {
        let data = TensorData::new(values.to_vec(), matrix_dims(dims));
        let values = Tensor::from_data(data, &Device::default());
        NamedTensor { name: name.into(), dims: dims.to_vec(), values }
    }

    #[test]
    fn the_bytes_are_those_of_the_safetensors_crate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let list = [
            ("b.weight", vec![2, 3], vec![1.0, -2.5, f32::MIN_POSITIVE, 0.0, -0.0, f32::MAX]),
            ("a.norm \u{e9}\"", vec![2], vec![f32::NAN, f32::INFINITY]),
            ("a.10", vec![1, 1], vec![3.0]),
            ("a.2", vec![1, 1], vec![4.0]),
        ];
        let bytes = list.iter().map(|(_, _, values)| {
            values.iter().flat_map(|one| one.to_le_bytes()).collect::<Vec<u8>>()
        });
        let bytes = bytes.collect::<Vec<_>>();
        let views = list.iter().zip(&bytes).map(|((name, dims, _), bytes)| {
            (*name, TensorView::new(Dtype::F32, dims.clone(), bytes).unwrap())
        });
        let metadata = || Some(HashMap::from([("format".to_owned(), "pt".to_owned())]));
        let expected = safetensors::serialize(views.collect::<Vec<_>>(), metadata()).unwrap();
        let tensors = list.iter().map(|(name, dims, values)| tensor(name, dims, values));
        write_tensors(&path, tensors.collect()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), expected);
        write_tensors(&path, Vec::new()).unwrap();
        let none = Vec::<(&str, TensorView<'_>)>::new();
        assert_eq!(fs::read(&path).unwrap(), safetensors::serialize(none, metadata()).unwrap());
    }

    #[test]
    fn a_file_read_as_a_whole_has_the_tensors_of_one_read_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let large = (0..PIECE_BYTES).map(|idx| idx as f32).collect::<Vec<_>>();
        let tensors = [tensor("z", &[1 << 10, 1 << 10], &large), tensor("a", &[2], &[1.0, 2.0])];
        write_tensors(&path, tensors.to_vec()).unwrap();
        let bytes = fs::read(&path).unwrap();
        let load = |bytes: &[u8]| TensorFile::load(&path, &mut &*bytes, bytes.len() as u64);
        let (mut loaded, mut opened) = (load(&bytes).unwrap(), TensorFile::open(&path).unwrap());
        for (name, dims) in [("z", &[1 << 10, 1 << 10][..]), ("a", &[2])] {
            assert_eq!(loaded.read(name, dims).unwrap(), opened.read(name, dims).unwrap());
            assert!(loaded.read(name, dims).is_err(), "its memory is given away");
        }
        assert!(load(&bytes[..bytes.len() - 1]).is_err());
    }

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
