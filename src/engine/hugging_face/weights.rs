//! The weights of a network, in one file or in shards: found, checked against the sizes, read one
//! tensor at a time.
//!
//! No name or number in the files is trusted. Start at [`WeightFiles::of_directory`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::data::bytes_without_mark;
use crate::engine::hugging_face::{HuggingFaceError, INDEX_FILE, WEIGHTS_FILE, weight_dims};
use crate::engine::tensor_file::TensorFile;
use crate::plan::ModelShape;
use crate::record::files::read_tokenizer as read_large;

/// More files than any model has.
const MAX_SHARDS: usize = 4096;
/// Tables of rotary angles saved by old versions; they follow from the sizes.
const IGNORED_ENDING: &str = ".rotary_emb.inv_freq";
const TABLE: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Prefixes that `PyTorch` adds to the tensor names of a compiled or distributed module that was
/// saved without unwrapping.
const WRAPPERS: [&str; 4] =
    ["_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// Opened weight files.
#[derive(Debug)]
pub struct WeightFiles {
    path: PathBuf,
    files: Vec<TensorFile>,
    /// Location of each tensor, by its name without prefixes.
    places: BTreeMap<String, TensorPlace>,
}

/// Location of a tensor.
#[derive(Debug)]
struct TensorPlace {
    file: usize,
    /// Its name in the file.
    name: String,
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl WeightFiles {
    /// The one file at `path`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of_file(path: &Path) -> Result<Self, HuggingFaceError> {
        Self::of_files(path, vec![TensorFile::open(path)?])
    }

    /// The weights of the Hugging Face directory `path`; one file wins over shards, as in
    /// `transformers`.
    ///
    /// # Errors
    /// When there are none, or the index of shards is wrong.
    pub fn of_directory(path: &Path) -> Result<Self, HuggingFaceError> {
        let (single, index) = (path.join(WEIGHTS_FILE), path.join(INDEX_FILE));
        if single.exists() {
            Self::of_files(path, vec![TensorFile::open(&single)?])
        } else if index.exists() {
            Self::of_shards(path, &index)
        } else {
            Err(pickled(path).map_or_else(
                || HuggingFaceError::NoWeights { path: path.to_owned() },
                |name| HuggingFaceError::Pickled { path: path.to_owned(), name },
            ))
        }
    }

    fn of_shards(path: &Path, index: &Path) -> Result<Self, HuggingFaceError> {
        let problem = |problem: String| HuggingFaceError::Index { path: index.to_owned(), problem };
        let bytes = read_large(index).map_err(|error| problem(error.to_string()))?;
        let Index { weight_map } = serde_json::from_slice(bytes_without_mark(&bytes))
            .map_err(|error| problem(format!("it has no usable weight_map: {error}")))?;
        let names: BTreeSet<&String> = weight_map.values().collect();
        if names.len() > MAX_SHARDS {
            return Err(problem(format!("it names {} files", names.len())));
        }
        if let Some(name) = names.iter().find(|name| !is_inside(name)) {
            return Err(problem(format!(
                "it names the file {name:?}, which is not a plain name in this directory"
            )));
        }
        let files = names
            .iter()
            .map(|name| TensorFile::open(&path.join(name)))
            .collect::<Result<Vec<_>, _>>()?;
        let found = Self::of_files(path, files)?;
        for (tensor, file) in &weight_map {
            if found
                .places
                .get(&unwrapped(tensor))
                .is_none_or(|place| found.files[place.file].path() != path.join(file))
            {
                return Err(problem(format!("{tensor} is not in {file}")));
            }
        }
        Ok(found)
    }

    fn of_files(path: &Path, files: Vec<TensorFile>) -> Result<Self, HuggingFaceError> {
        let mut places = BTreeMap::new();
        for (idx, file) in files.iter().enumerate() {
            for name in file.names() {
                if let Some(other) =
                    places.insert(unwrapped(name), TensorPlace { file: idx, name: name.clone() })
                {
                    let problem = if other.file == idx {
                        format!("{} and {name} are the same tensor", other.name)
                    } else {
                        format!("two of its files have a tensor {name}")
                    };
                    return Err(HuggingFaceError::OtherTensors { path: path.to_owned(), problem });
                }
            }
        }
        Ok(Self { path: path.to_owned(), files, places })
    }

    /// Checks that the tensors are exactly those of a network of this `shape`.
    ///
    /// # Errors
    /// The first tensor that is missing, unexpected, has another shape, or an unsupported format.
    pub fn check(&mut self, shape: &ModelShape) -> Result<(), HuggingFaceError> {
        let expected = weight_dims(shape);
        for (name, dims) in &expected {
            let place = self.place_of(name)?;
            self.files[place.file].check(&place.name, dims)?;
        }
        let expected: BTreeSet<&String> = expected.iter().map(|(name, _)| name).collect();
        let is_tied_head = |name: &str| shape.tie_word_embeddings && name == HEAD;
        let is_extra = |name: &&String| {
            !expected.contains(name) && !name.ends_with(IGNORED_ENDING) && !is_tied_head(name)
        };
        if let Some(name) = self.places.keys().find(is_extra) {
            return Err(self.other(format!(
                "unexpected tensor {name}: the network of config.json does not have it"
            )));
        }
        if self.places.contains_key(HEAD) && shape.tie_word_embeddings {
            self.check_tied(shape)
        } else {
            Ok(())
        }
    }

    /// Some files also contain a tied head; one that differs from the table would be silently lost.
    fn check_tied(&mut self, shape: &ModelShape) -> Result<(), HuggingFaceError> {
        let dims = [shape.vocab_size, shape.hidden_size];
        let (table, head) = (self.read(TABLE, &dims)?, self.read(HEAD, &dims)?);
        let is_same = table.iter().zip(&head).all(|(a, b)| a.to_bits() == b.to_bits());
        if is_same {
            Ok(())
        } else {
            Err(self.other(format!("tie_word_embeddings is true, but {HEAD} differs from {TABLE}")))
        }
    }

    /// Reads the tensor `name`, which must have shape `dims`.
    ///
    /// # Errors
    /// When it is missing, has another shape, cannot be read, or contains a number that no network
    /// can compute with.
    pub fn read(&mut self, name: &str, dims: &[usize]) -> Result<Vec<f32>, HuggingFaceError> {
        match self.places.get(name) {
            Some(place) => Ok(self.files[place.file].read_weight(&place.name, dims)?),
            None => Err(self.missing(name)),
        }
    }

    /// The distinct number formats.
    pub fn formats(&self) -> BTreeSet<String> {
        self.files.iter().flat_map(TensorFile::formats).collect()
    }

    /// Number of files.
    pub fn num_files(&self) -> usize {
        self.files.len()
    }

    fn place_of(&self, name: &str) -> Result<&TensorPlace, HuggingFaceError> {
        self.places.get(name).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> HuggingFaceError {
        self.other(format!("tensor {name} is missing"))
    }

    fn other(&self, problem: String) -> HuggingFaceError {
        HuggingFaceError::OtherTensors { path: self.path.clone(), problem }
    }
}

/// The name of a tensor without wrapper prefixes: `_orig_mod.model.norm.weight` becomes
/// `model.norm.weight`.
fn unwrapped(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    parts.join(".")
}

/// Whether `name` is a plain file name, which cannot lead out of its directory.
fn is_inside(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
        && !name.contains(['\\', '\0'])
}

/// The name of a weight file in the directory that is not a safetensors file.
fn pickled(path: &Path) -> Option<String> {
    let names = fs::read_dir(path)
        .ok()?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names
        .filter(|name| {
            name.starts_with("pytorch_model")
                || [".bin", ".pth", ".pt"].iter().any(|end| name.ends_with(end))
        })
        .collect();
    names.sort();
    names.into_iter().next()
}
