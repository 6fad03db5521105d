//! Writes weights as safetensors files, one tensor in memory at a time, in shards of limited size.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde_json::{Map, Value, json};

use crate::engine::export::ExportError;
use crate::engine::hugging_face::{INDEX_FILE, WEIGHTS_FILE, WeightFiles};
use crate::engine::tensor_header::{NumberFormat, header_bytes};

/// A tensor's name and shape.
type Named = (String, Vec<usize>);

/// Writes the tensors of `list` from `weights` into `folder`. Returns the files and the total size
/// of the data in bytes.
///
/// # Errors
/// When a number is out of range of `format`, or a file cannot be read or written.
pub(super) fn write_weights(
    list: &[Named],
    weights: &mut WeightFiles,
    format: NumberFormat,
    max_shard_bytes: u64,
    folder: &Path,
) -> Result<(Vec<PathBuf>, u64), ExportError> {
    let shards = into_shards(list, format, max_shard_bytes);
    let mut files = Vec::new();
    let mut places = Map::new();
    for (idx, shard) in shards.iter().enumerate() {
        let name = if shards.len() == 1 {
            WEIGHTS_FILE.to_owned()
        } else {
            format!("model-{:05}-of-{:05}.safetensors", idx + 1, shards.len())
        };
        places.extend(shard.iter().map(|(tensor, _)| (tensor.clone(), Value::from(name.clone()))));
        let path = folder.join(name);
        write_file(&path, shard, weights, format)?;
        files.push(path);
    }
    let total = list.iter().map(|(_, dims)| bytes_of(dims, format)).sum();
    if shards.len() > 1 {
        let path = folder.join(INDEX_FILE);
        let index = json!({ "metadata": { "total_size": total }, "weight_map": places });
        write_text(&path, &format!("{index:#}\n"))?;
    }
    Ok((files, total))
}

/// Writes a small file and syncs it to disk.
pub(super) fn write_text(path: &Path, text: &str) -> Result<(), ExportError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(ExportError::at(path))
}

/// Splits the list before each tensor that would make a shard too large; a larger tensor gets its
/// own shard.
fn into_shards(list: &[Named], format: NumberFormat, max_bytes: u64) -> Vec<&[Named]> {
    let (mut shards, mut begin, mut bytes) = (Vec::new(), 0, 0_u64);
    for (idx, (_, dims)) in list.iter().enumerate() {
        let more = bytes_of(dims, format);
        if idx > begin && bytes.saturating_add(more) > max_bytes {
            shards.push(&list[begin..idx]);
            (begin, bytes) = (idx, 0);
        }
        bytes = bytes.saturating_add(more);
    }
    shards.push(&list[begin..]);
    shards
}

fn bytes_of(dims: &[usize], format: NumberFormat) -> u64 {
    (dims.iter().product::<usize>() * format.size()) as u64
}

fn write_file(
    path: &Path,
    shard: &[Named],
    weights: &mut WeightFiles,
    format: NumberFormat,
) -> Result<(), ExportError> {
    let io = || ExportError::at(path);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(io())?);
    file.write_all(&header_bytes(shard, format)).map_err(io())?;
    for (name, dims) in shard {
        let values = weights.read(name, dims)?;
        if let Some(value) = write_values(&mut file, &values, format).map_err(io())? {
            return Err(ExportError::Overflow {
                tensor: name.clone(),
                value,
                format: format.name(),
            });
        }
    }
    file.into_inner()
        .map_err(io::IntoInnerError::into_error)
        .and_then(|file| file.sync_all())
        .map_err(io())
}

/// Writes `values` in `format`, rounded to nearest, ties to even. Stops at a number that would
/// become infinite and returns it.
fn write_values(
    file: &mut impl Write,
    values: &[f32],
    format: NumberFormat,
) -> io::Result<Option<f32>> {
    for value in values {
        let is_lost = match format {
            NumberFormat::F32 => {
                file.write_all(&value.to_le_bytes())?;
                false
            }
            NumberFormat::Bf16 => {
                let half = bf16::from_f32(*value);
                file.write_all(&half.to_le_bytes())?;
                value.is_finite() && !half.is_finite()
            }
            NumberFormat::F16 => {
                let half = f16::from_f32(*value);
                file.write_all(&half.to_le_bytes())?;
                value.is_finite() && !half.is_finite()
            }
        };
        if is_lost {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_cut_before_they_become_too_large() {
        let list: Vec<Named> = [4, 4, 100, 1, 1]
            .iter()
            .enumerate()
            .map(|(idx, len)| (idx.to_string(), vec![*len]))
            .collect();
        let lengths = |max| {
            into_shards(&list, NumberFormat::F32, max)
                .iter()
                .map(|shard| shard.len())
                .collect::<Vec<_>>()
        };
        assert_eq!(lengths(u64::MAX), [5]);
        assert_eq!(lengths(32), [2, 1, 2]);
        assert_eq!(lengths(31), [1, 1, 1, 2]);
        assert_eq!(lengths(0), [1, 1, 1, 1, 1]);
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest_and_ties_to_even() {
        let bits = |value: f32, format| {
            let mut bytes = Vec::new();
            assert_eq!(write_values(&mut bytes, &[value], format).unwrap(), None);
            u16::from_le_bytes([bytes[0], bytes[1]])
        };
        // Exactly between two adjacent numbers, and just above; the spacing at 1 is 2^-7 and 2^-10.
        let (bf16, f16) = (NumberFormat::Bf16, NumberFormat::F16);
        assert_eq!(
            [bits(1.0 + 1.0 / 256.0, bf16), bits(1.0 + 3.0 / 256.0, bf16), bits(1.003_907, bf16)],
            [0x3F80, 0x3F82, 0x3F81]
        );
        assert_eq!(
            [bits(1.0 + 1.0 / 2048.0, f16), bits(1.0 + 3.0 / 2048.0, f16), bits(1.000_489, f16)],
            [0x3C00, 0x3C02, 0x3C01]
        );
        // The smallest positive number, half of it, and a little more than half.
        assert_eq!(
            [bits(5.960_464_5e-8, f16), bits(2.980_232_2e-8, f16), bits(2.980_233e-8, f16)],
            [1, 0, 1]
        );
        assert_eq!(bits(65_519.0, f16), 0x7BFF);
        let lost =
            |value: f32, format| write_values(&mut Vec::new(), &[1.0, value], format).unwrap();
        assert_eq!(
            (lost(65_520.0, f16), lost(-65_520.0, f16), lost(65_520.0, bf16)),
            (Some(65_520.0), Some(-65_520.0), None)
        );
        assert_eq!(
            (lost(f32::MAX, bf16), lost(f32::MAX, NumberFormat::F32), lost(f32::INFINITY, f16)),
            (Some(f32::MAX), None, None)
        );
    }
}
