//! A Hugging Face directory: a file of tensors, the list of shards, `config.json` and
//! `generation_config.json`.
//!
//! The file of tensors gets the length of its header in front, unless it does not begin with one.
//! The tensors of a file that is accepted fill it exactly, and each is read in full or refused.

use std::fs;
use std::path::Path;

use patchtui::advice::{Advice, Audience};
use patchtui::engine::ModelFiles;
use patchtui::engine::hugging_face::WeightFiles;
use patchtui::engine::tensor_file::{TensorFile, TensorFileError};
use patchtui::engine::tensor_header::NumberFormat;

use super::{parts, scratch};

/// A vocabulary of four tokens.
const TOKENIZER: &str = r#"{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"</s>":3},"merges":["a b"]}}"#;

pub(super) fn read(bytes: &[u8]) {
    let [header, data, index, config, generation] = parts(bytes);
    let folder = scratch("tensors");
    let length = if header.starts_with(b"{") {
        (header.len() as u64).to_le_bytes().to_vec()
    } else {
        Vec::new()
    };
    let tensors = [&length, header, data].concat();
    let path = folder.join("model-00001-of-00001.safetensors");
    let files = [
        ("config.json", config),
        ("generation_config.json", generation),
        ("tokenizer.json", TOKENIZER.as_bytes()),
    ];
    for (name, content) in files {
        fs::write(folder.join(name), content).unwrap();
    }
    fs::write(&path, &tensors).unwrap();
    let single = folder.join("model.safetensors");
    let _ = fs::remove_file(&single);
    if index.is_empty() {
        fs::write(single, &tensors).unwrap();
    } else {
        fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    }
    check_file(&path, &tensors);
    check_directory(&folder);
}

fn check_file(path: &Path, tensors: &[u8]) {
    let Ok(mut file) = TensorFile::open(path) else { return };
    let is_known = file.formats().iter().all(|format| NumberFormat::from_name(format).is_some());
    let mut numbers = 0_u64;
    for (name, dims) in file.shapes() {
        let checked = file.check(&name, &dims);
        let read = file.read(&name, &dims);
        assert_eq!(
            checked.is_ok(),
            matches!(read, Ok(_) | Err(TensorFileError::Unusable { .. })),
            "{name}: {checked:?}, {read:?}"
        );
        let product = dims.iter().fold(1_u64, |product, dim| product.saturating_mul(*dim as u64));
        assert!(read.is_err() || read.is_ok_and(|values| values.len() as u64 == product));
        numbers = numbers.saturating_add(product);
    }
    // Numbers have two or four bytes.
    assert!(!is_known || (2 * numbers..=4 * numbers).contains(&data_bytes(tensors)));
}

/// Bytes after the header.
fn data_bytes(tensors: &[u8]) -> u64 {
    let length = tensors.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    (tensors.len() as u64).saturating_sub(8).saturating_sub(length)
}

fn check_directory(folder: &Path) {
    if let Ok(weights) = WeightFiles::of_directory(folder) {
        assert_eq!(weights.num_files(), 1);
        weights.formats();
    }
    match ModelFiles::find(folder) {
        Err(error) => {
            assert!(!error.to_string().is_empty() && !error.hint(Audience::Command).is_empty());
        }
        Ok(files) => assert!(files.ends.iter().all(|id| (*id as usize) < files.shape.vocab_size)),
    }
}
