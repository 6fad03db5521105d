//! Checkpoints: directories that become valid by one rename, and hold everything that decides the future of a run.
//!
//! `model.safetensors` has Hugging Face's names, `optimizer.safetensors` the moments by the same names, `trainer.json` where
//! the run is; equal states give equal bytes. `manifest.json`, written last, holds sizes and hashes of the others, and what
//! may differ between equal states (times). Discovery believes nothing that the manifest does not confirm.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::{OptimizerConfig, PatchSize};
use crate::engine::gradients::as_matrix;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::optimizer::{AdamW, Moments};
use crate::engine::tensor_file::{Entry, TensorFile, TensorFileError, write_tensors};
use crate::plan::ModelShape;

/// Version of the files in a checkpoint.
const FORMAT_VERSION: u32 = 1;
const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const TRAINER: &str = "trainer.json";
const MANIFEST: &str = "manifest.json";
/// What a checkpoint takes besides its tensors, generously.
const SMALL_FILES_BYTES: u64 = 1 << 20;

/// Where a run is, as `trainer.json` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Version of this file.
    pub format_version: u32,
    /// Completed updates.
    pub step: u64,
    /// Stage of the last completed update, counted from 0.
    pub stage: usize,
    /// Completed updates of that stage.
    pub stage_step: u64,
    /// K of that stage.
    pub patch_size: PatchSize,
    /// Updates since the moments were zero.
    pub optimizer_count: u64,
    /// Tokens read.
    pub tokens: u64,
    /// Where the next update begins in the order of the data, in tokens.
    pub data_position: u64,
    /// The same as passes begun, block of the pass and tokens into the block.
    pub cursor: [u64; 3],
    /// Seed of the data order.
    pub seed: u64,
    /// Fingerprint of the token stream.
    pub data_fingerprint: String,
    /// Whether everything that was due after the last update was measured.
    #[serde(alias = "has_looked")]
    pub has_measured: bool,
}

/// What `manifest.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the directory.
    pub format_version: u32,
    /// Completed updates.
    pub step: u64,
    /// Stage of the last completed update, counted from 0.
    pub stage: usize,
    /// K of that stage.
    pub patch_size: PatchSize,
    /// Whether it is kept for ever: stage ends and the run's end.
    pub permanent: bool,
    /// When it was written, RFC 3339.
    pub created_at: String,
    /// Time in steps of each stage so far, in seconds.
    pub active_seconds: Vec<f64>,
    /// Fingerprint of the token stream.
    pub data_fingerprint: String,
    /// Size and hash of every other file.
    pub files: BTreeMap<String, FileEntry>,
}

/// Size and hash of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Size.
    pub bytes: u64,
    /// BLAKE3 of the content, in hex.
    pub blake3: String,
}

/// What is to be saved.
#[derive(Debug)]
pub struct Snapshot<'a> {
    /// Weights.
    pub model: &'a LlamaForCausalLM,
    /// Moments.
    pub optimizer: &'a AdamW,
    /// Where the run is.
    pub state: TrainerState,
    /// Time in steps of each stage so far, in seconds.
    pub active_seconds: Vec<f64>,
    /// Whether it is kept for ever.
    pub permanent: bool,
}

/// The checkpoints of one run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    directory: PathBuf,
    keep: usize,
}

/// A valid checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Its directory.
    pub path: PathBuf,
    /// What its manifest says.
    pub manifest: Manifest,
}

/// A directory that looks like a checkpoint and is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The directory.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// Why a checkpoint could not be written or read.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is too little room, noticed before anything was written.
    #[error("{}: {needed} bytes are needed and {free} are free", path.display())]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// Bytes of the checkpoint.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A file of named tensors.
    #[error(transparent)]
    Tensors(#[from] TensorFileError),
    /// A JSON file.
    #[error("{}: {problem}", path.display())]
    Json {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl Checkpoints {
    /// The checkpoints in `directory`, of which pruning leaves the newest `keep` besides the permanent ones.
    pub fn new(directory: PathBuf, keep: usize) -> Self {
        Self { directory, keep }
    }

    /// Saves, then prunes; a valid checkpoint of the same step is left as it is. Returns the bytes written.
    ///
    /// # Errors
    /// When the device or the disk fails. Earlier checkpoints are untouched then, and nothing half-written stays.
    pub fn save(&self, snapshot: Snapshot<'_>) -> Result<(Checkpoint, u64), CheckpointError> {
        let path = self.directory.join(format!("step-{:08}", snapshot.state.step));
        // A checkpoint that was written before its step was measured is replaced by one that is.
        let is_as_good = |existing: &Checkpoint| existing.state().is_ok_and(|state| state.has_measured || !snapshot.state.has_measured);
        if let Some(existing) = verify(&path).ok().filter(is_as_good) {
            return Ok((existing, 0));
        }
        let scratch = path.with_extension("tmp");
        let written = self.write(&scratch, snapshot).and_then(|manifest| {
            remove_if_present(&path)?;
            fs::rename(&scratch, &path).map_err(at(&path))?;
            sync(&self.directory)?;
            Ok(manifest)
        });
        let manifest = written.inspect_err(|_| {
            // What is left of a failed save only takes room that the next try needs.
            let _ = fs::remove_dir_all(&scratch);
        })?;
        if let Err(error) = self.prune(manifest.step) {
            // The new checkpoint is valid whether or not an old one could be removed.
            tracing::warn!("an old checkpoint stays: {error}");
        }
        let bytes = manifest.files.values().map(|file| file.bytes).sum();
        Ok((Checkpoint { path, manifest }, bytes))
    }

    /// The newest checkpoint whose every byte is as its manifest says, and the newer ones that are not.
    pub fn newest_valid(&self) -> (Option<Checkpoint>, Vec<Rejected>) {
        let mut rejected = Vec::new();
        for path in self.candidates() {
            match verify(&path) {
                Ok(checkpoint) => return (Some(checkpoint), rejected),
                Err(error) => rejected.push(Rejected { path, reason: error.to_string() }),
            }
        }
        (None, rejected)
    }

    /// The newest checkpoint whose manifest can be read. Its files are not checked, which takes long for a large network: enough to
    /// say how far a run came, never to train from.
    pub fn newest_listed(&self) -> Option<Checkpoint> {
        self.candidates().into_iter().find_map(|path| read_manifest(&path).ok().map(|manifest| Checkpoint { path, manifest }))
    }

    fn write(&self, scratch: &Path, snapshot: Snapshot<'_>) -> Result<Manifest, CheckpointError> {
        remove_if_present(scratch)?;
        fs::create_dir_all(&self.directory).map_err(at(&self.directory))?;
        let (weights, moments) = entries(snapshot.model, snapshot.optimizer);
        let needed = SMALL_FILES_BYTES + weights.iter().chain(&moments).map(|entry| 4 * entry.dims.iter().product::<usize>() as u64).sum::<u64>();
        let free = free_bytes(&self.directory)?;
        if free < needed {
            return Err(CheckpointError::NoRoom { path: self.directory.clone(), needed, free });
        }
        fs::create_dir(scratch).map_err(at(scratch))?;
        write_tensors(&scratch.join(MODEL), weights)?;
        write_tensors(&scratch.join(OPTIMIZER), moments)?;
        write_json(&scratch.join(TRAINER), &snapshot.state)?;
        let mut files = BTreeMap::new();
        for name in [MODEL, OPTIMIZER, TRAINER] {
            sync(&scratch.join(name))?;
            files.insert(name.to_owned(), describe(&scratch.join(name))?);
        }
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            step: snapshot.state.step,
            stage: snapshot.state.stage,
            patch_size: snapshot.state.patch_size,
            permanent: snapshot.permanent,
            created_at: jiff::Timestamp::now().to_string(),
            active_seconds: snapshot.active_seconds,
            data_fingerprint: snapshot.state.data_fingerprint,
            files,
        };
        write_json(&scratch.join(MANIFEST), &manifest)?;
        sync(&scratch.join(MANIFEST))?;
        sync(scratch)?;
        Ok(manifest)
    }

    /// Deletes all but the newest `keep` periodic checkpoints up to `newest`, and what saves and deletions that never ended
    /// left behind. Later steps are from before a fallback; training will write them anew.
    fn prune(&self, newest: u64) -> Result<(), CheckpointError> {
        let (whole, broken): (Vec<_>, Vec<_>) = self.candidates().into_iter().partition(|path| path.join(MANIFEST).is_file());
        let is_periodic = |path: &PathBuf| read_manifest(path).is_ok_and(|manifest| !manifest.permanent && manifest.step <= newest);
        for path in whole.into_iter().filter(is_periodic).skip(self.keep).chain(broken).chain(self.directories("tmp")) {
            fs::remove_dir_all(&path).map_err(at(&path))?;
        }
        Ok(())
    }

    /// Directories with a checkpoint's name, newest first.
    fn candidates(&self) -> Vec<PathBuf> {
        self.directories("")
    }

    fn directories(&self, extension: &str) -> Vec<PathBuf> {
        let Ok(listing) = fs::read_dir(&self.directory) else { return Vec::new() };
        let is_checkpoint = |path: &PathBuf| {
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let digits = name.strip_prefix("step-").unwrap_or_default();
            let wanted = path.extension().map_or(extension.is_empty(), |found| found == extension);
            wanted && digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit())
        };
        let mut found: Vec<PathBuf> = listing.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(is_checkpoint).collect();
        found.sort_by(|a, b| (b.as_os_str().len(), b).cmp(&(a.as_os_str().len(), a)));
        found
    }
}

impl Checkpoint {
    /// Where the run was.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn state(&self) -> Result<TrainerState, CheckpointError> {
        read_json(&self.path.join(TRAINER))
    }

    /// The weights, on `device`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than `shape` asks for.
    pub fn model(&self, shape: &ModelShape, device: &Device) -> Result<LlamaForCausalLM, CheckpointError> {
        let mut file = TensorFile::open(&self.path.join(MODEL))?;
        Ok(LlamaForCausalLM::new(shape, &mut |name, dims| file.read(name, dims), device)?)
    }

    /// The optimizer, with its moments on `device` (without autodiff).
    ///
    /// # Errors
    /// When a moment is missing or has another shape than the weight of its name.
    pub fn optimizer(&self, config: OptimizerConfig, device: &Device) -> Result<AdamW, CheckpointError> {
        let mut file = TensorFile::open(&self.path.join(OPTIMIZER))?;
        let mut optimizer = AdamW::new(config);
        optimizer.count = self.state()?.optimizer_count;
        for (key, dims) in file.shapes() {
            let Some(name) = key.strip_suffix(".exp_avg") else { continue };
            let columns = dims.last().copied().unwrap_or(1);
            let rows = dims.iter().product::<usize>() / columns.max(1);
            let mut moment =
                |key: &str| -> Result<Tensor<2>, CheckpointError> { Ok(Tensor::from_data(TensorData::new(file.read(key, &dims)?, [rows, columns]), device)) };
            let moments = Moments { exp_avg: moment(&key)?, exp_avg_sq: moment(&format!("{name}.exp_avg_sq"))? };
            optimizer.moments.insert(name.to_owned(), moments);
        }
        Ok(optimizer)
    }
}

/// Checks every file of a checkpoint against its manifest.
///
/// # Errors
/// With what is wrong.
pub fn verify(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let manifest = read_manifest(path)?;
    for (name, expected) in &manifest.files {
        let path = path.join(name);
        let found = fs::metadata(&path).map_err(at(&path))?.len();
        if found != expected.bytes {
            return Err(CheckpointError::Json { path, problem: format!("it has {found} bytes instead of {}", expected.bytes) });
        }
        if describe(&path)?.blake3 != expected.blake3 {
            return Err(CheckpointError::Json { path, problem: "its content is not what was written".into() });
        }
    }
    Ok(Checkpoint { path: path.to_owned(), manifest })
}

/// Bytes that an ordinary user can still write below `path`.
///
/// # Errors
/// When the file system does not say.
pub fn free_bytes(path: &Path) -> Result<u64, CheckpointError> {
    let stat = rustix::fs::statvfs(path).map_err(|error| at(path)(error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn read_manifest(path: &Path) -> Result<Manifest, CheckpointError> {
    let file = path.join(MANIFEST);
    let manifest: Manifest = read_json(&file)?;
    if manifest.format_version != FORMAT_VERSION {
        return Err(CheckpointError::Json { path: file, problem: format!("format {} is not known to this version", manifest.format_version) });
    }
    match [MODEL, OPTIMIZER, TRAINER].iter().find(|name| !manifest.files.contains_key(**name)) {
        Some(name) => Err(CheckpointError::Json { path: file, problem: format!("it does not list {name}") }),
        None => Ok(manifest),
    }
}

/// Weights and moments as named entries.
fn entries(model: &LlamaForCausalLM, optimizer: &AdamW) -> (Vec<Entry>, Vec<Entry>) {
    struct Collect<'a> {
        path: Vec<String>,
        optimizer: &'a AdamW,
        weights: Vec<Entry>,
        moments: Vec<Entry>,
    }
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let name = self.path.join(".");
            let tensor = param.val().inner();
            let dims = tensor.dims().to_vec();
            if let Some(moments) = self.optimizer.moments.get(&name) {
                let mut push = |suffix: &str, tensor: &Tensor<2>| {
                    self.moments.push(Entry { name: format!("{name}.{suffix}"), dims: dims.clone(), tensor: tensor.clone() });
                };
                push("exp_avg", &moments.exp_avg);
                push("exp_avg_sq", &moments.exp_avg_sq);
            }
            self.weights.push(Entry { name, dims, tensor: as_matrix(tensor) });
        }
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
    }
    let mut collect = Collect { path: Vec::new(), optimizer, weights: Vec::new(), moments: Vec::new() };
    model.visit(&mut collect);
    (collect.weights, collect.moments)
}

fn at(path: &Path) -> impl Fn(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { path: path.clone(), source }
}

fn sync(path: &Path) -> Result<(), CheckpointError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(at(path))
}

fn remove_if_present(path: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

fn describe(path: &Path) -> Result<FileEntry, CheckpointError> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).map_err(at(path))?;
    hasher.update_reader(file).map_err(at(path))?;
    Ok(FileEntry { bytes: hasher.count(), blake3: hasher.finalize().to_hex().to_string() })
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), CheckpointError> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| CheckpointError::Json { path: path.to_owned(), problem: error.to_string() })?;
    text.push('\n');
    fs::write(path, text).map_err(at(path))
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, CheckpointError> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    serde_json::from_str(&text).map_err(|error| CheckpointError::Json { path: path.to_owned(), problem: error.to_string() })
}
