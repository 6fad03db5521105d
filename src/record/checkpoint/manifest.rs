//! `manifest.json`: written last, lists the files of a checkpoint with their hashes, and contains
//! its own hash.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{PatchSize, RecordedConfig};
use crate::record::checkpoint::name::step_of;
use crate::record::checkpoint::{
    CheckpointError, FileEntry, HashedReader, MANIFEST_FILE, MODEL_FILE, OPTIMIZER_FILE,
    TRAINER_FILE, TrainerState,
};
use crate::record::files::{open_regular, read_small};

/// The field with the manifest's own hash: the hash of the whole text with [`NO_HASH`] in its
/// place.
const OWN_HASH: &str = "manifest_blake3";
const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Content of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format: version 1 has no hash of the manifest itself.
    pub format_version: u32,
    /// Completed updates.
    pub step: u64,
    /// Stage of the last completed update, counted from 0.
    pub stage: usize,
    /// Patch size (K) of that stage.
    pub patch_size: PatchSize,
    /// Whether pruning keeps it: stage ends and the run's end.
    pub permanent: bool,
    /// When it was written, RFC 3339.
    pub created_at: String,
    /// Time in steps per stage so far, in seconds.
    pub active_seconds: Vec<f64>,
    /// Token loss (K = 1) of exactly this step in nats per token, if it was measured. Pruning
    /// keeps the checkpoint with the lowest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_loss: Option<f64>,
    /// Fingerprint of the token stream.
    pub data_fingerprint: String,
    /// Size and hash of every other file.
    pub files: BTreeMap<String, FileEntry>,
    /// Configuration at the save, as TOML text by key; empty in checkpoints of older versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: RecordedConfig,
    /// Size and hash of the run's lines before the save, by file; empty in checkpoints of older
    /// versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lines: LineHashes,
}

/// Size and hash of the start of a file of lines.
pub type LineHashes = BTreeMap<String, FileEntry>;

/// A valid checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Path of its directory.
    pub path: PathBuf,
    /// Content of its `manifest.json`.
    pub manifest: Manifest,
    /// Content of its `trainer.json`.
    pub state: TrainerState,
}

/// Reads a tensor file of a checkpoint.
pub type ReadTensors<'a> = dyn FnMut(&mut HashedReader<'_>) + 'a;

impl Manifest {
    /// Version of the format that is written today.
    pub(super) const FORMAT_VERSION: u32 = 2;

    /// The text of the file, including the hash of everything else in it.
    ///
    /// # Errors
    /// When a number in it is not finite.
    pub(super) fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut fields = Map::from_iter([(OWN_HASH.to_owned(), Value::from(NO_HASH))]);
        if let Value::Object(own) = serde_json::to_value(self)? {
            fields.extend(own);
        }
        let text = serde_json::to_string_pretty(&fields)? + "\n";
        Ok(text.replacen(NO_HASH, &hash_of(&text), 1))
    }

    /// Reads the manifest of the checkpoint in `folder`; other files are not read.
    ///
    /// # Errors
    /// When it is missing, damaged, or of a newer version.
    pub(super) fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(MANIFEST_FILE);
        let damaged = |problem: String| CheckpointError::damaged(&path, problem);
        let bytes = read_small(&path).map_err(CheckpointError::at(&path))?;
        let text = String::from_utf8(bytes).map_err(|_| damaged("it is not UTF-8 text".into()))?;
        let is_whole = matches_own_hash(&text);
        if is_whole == Some(false) {
            return Err(damaged("its content does not match its hash".into()));
        }
        let manifest: Self =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        match (manifest.format_version, is_whole) {
            (1, None) | (2, Some(_)) => {}
            (1 | 2, _) => return Err(damaged("it has no hash of itself".into())),
            (version, _) => {
                return Err(damaged(format!(
                    "format {version} is not supported by this version of patchtui"
                )));
            }
        }
        if let Some(name) = [MODEL_FILE, OPTIMIZER_FILE, TRAINER_FILE]
            .iter()
            .find(|name| !manifest.files.contains_key(**name))
        {
            return Err(damaged(format!("it does not list {name}")));
        }
        if let Some(name) =
            manifest.files.keys().find(|name| name.contains('/') || name.as_str() == "..")
        {
            return Err(damaged(format!("it lists {name:?}, which is not a file of a checkpoint")));
        }
        Ok(manifest)
    }

    /// The files of lines in `run` whose start has changed since the checkpoint was written, a
    /// sentence each.
    #[must_use]
    pub fn changed_lines(&self, run: &Path) -> Vec<String> {
        let is_unchanged = |(name, written): &(&String, &FileEntry)| {
            hash_start(&run.join(name), written.bytes).is_ok_and(|found| found == written.blake3)
        };
        let changed = self.lines.iter().filter(|entry| !is_unchanged(entry));
        let sentence = |name: &String| {
            format!(
                "{name} was changed after the checkpoint at step {} was saved: it does not match \
                 what this run wrote",
                self.step
            )
        };
        changed.map(|(name, _)| sentence(name)).collect()
    }

    /// Checks that its step matches the name of `folder`, its directory.
    pub(super) fn check_name(&self, folder: &Path) -> Result<(), CheckpointError> {
        if step_of(folder) == Some(self.step) {
            return Ok(());
        }
        let problem =
            format!("it is for step {}, which does not match the name of its directory", self.step);
        Err(CheckpointError::damaged(&folder.join(MANIFEST_FILE), problem))
    }

    /// Checks that the files in `folder` have the listed lengths; their content is not read.
    fn check_lengths(&self, folder: &Path) -> Result<(), CheckpointError> {
        for (name, expected) in &self.files {
            let file = folder.join(name);
            let found = open_regular(&file)
                .and_then(|file| file.metadata())
                .map_err(CheckpointError::at(&file))?
                .len();
            if found != expected.bytes {
                return Err(CheckpointError::damaged(
                    &file,
                    format!("it has {found} bytes instead of {}", expected.bytes),
                ));
            }
        }
        Ok(())
    }

    /// Bytes of all files that it lists.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.values().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }
}

impl Checkpoint {
    /// Reads the checkpoint in `path` and checks every byte of it against its manifest, and the
    /// name of its directory. `read` may read the tensor files; what it has read counts only if
    /// this succeeds.
    ///
    /// # Errors
    /// With the reason; [`CheckpointError::Interrupted`] when `stop` returns true.
    pub(super) fn read(
        path: &Path,
        read: &mut ReadTensors<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self, CheckpointError> {
        let manifest = Manifest::read(path)?;
        manifest.check_name(path)?;
        // The lengths are checked first, so that a truncated file is found without reading the
        // others.
        manifest.check_lengths(path)?;
        for (name, expected) in &manifest.files {
            let file = path.join(name);
            let mut checked =
                HashedReader::open(&file, stop).map_err(CheckpointError::at(&file))?;
            if name == MODEL_FILE || name == OPTIMIZER_FILE {
                read(&mut checked);
            }
            if checked.finish()? != expected.blake3 {
                return Err(CheckpointError::damaged(&file, "its content does not match its hash"));
            }
        }
        Self::read_claims(path)
    }

    /// The directory of its run.
    #[must_use]
    pub fn run(&self) -> Option<&Path> {
        self.path.parent()?.parent()
    }

    /// The checkpoint in `path`, checked as far as possible without reading its tensors: names,
    /// lengths, and small files.
    ///
    /// # Errors
    /// With the reason.
    pub(super) fn read_quickly(path: &Path) -> Result<Self, CheckpointError> {
        let checkpoint = Self::read_claims(path)?;
        checkpoint.manifest.check_name(path)?;
        checkpoint.manifest.check_lengths(path)?;
        Ok(checkpoint)
    }

    /// The checkpoint in `path` according to its manifest; its tensors are not checked.
    pub(super) fn read_claims(path: &Path) -> Result<Self, CheckpointError> {
        let checkpoint = Self {
            path: path.to_owned(),
            manifest: Manifest::read(path)?,
            state: read_state(path)?,
        };
        checkpoint.check_agreement()?;
        Ok(checkpoint)
    }

    /// Checks that manifest and `trainer.json` agree.
    fn check_agreement(&self) -> Result<(), CheckpointError> {
        let (manifest, state) = (&self.manifest, &self.state);
        let agrees = manifest.step == state.step
            && manifest.stage == state.stage
            && manifest.patch_size == state.patch_size
            && manifest.data_fingerprint == state.data_fingerprint;
        if !agrees {
            return Err(CheckpointError::damaged(
                &self.path.join(MANIFEST_FILE),
                format!("it is for step {}, but {TRAINER_FILE} is not", manifest.step),
            ));
        }
        if manifest.active_seconds.is_empty()
            || manifest.active_seconds.iter().any(|seconds| !seconds.is_finite() || *seconds < 0.0)
        {
            return Err(CheckpointError::damaged(
                &self.path.join(MANIFEST_FILE),
                "its active_seconds do not match its stages",
            ));
        }
        Ok(())
    }
}

/// Hash of the first `bytes` bytes of the file at `path`, or of the whole file if it is shorter.
fn hash_start(path: &Path, bytes: u64) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(open_regular(path)?.take(bytes))?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn read_state(folder: &Path) -> Result<TrainerState, CheckpointError> {
    let path = folder.join(TRAINER_FILE);
    let bytes = read_small(&path).map_err(CheckpointError::at(&path))?;
    let state: TrainerState = serde_json::from_slice(&bytes)
        .map_err(|error| CheckpointError::damaged(&path, error.to_string()))?;
    if state.format_version > TrainerState::FORMAT_VERSION {
        return Err(CheckpointError::damaged(
            &path,
            format!("format {} is not supported by this version of patchtui", state.format_version),
        ));
    }
    Ok(state)
}

/// Whether `text` matches its own hash; `None` if it has no hash. The text itself is hashed, since
/// the formatting of numbers may differ between versions.
fn matches_own_hash(text: &str) -> Option<bool> {
    let field = format!("\"{OWN_HASH}\": \"");
    let start = text.find(&field)? + field.len();
    let Some(own) = text.get(start..start + NO_HASH.len()) else { return Some(false) };
    Some(hash_of(&format!("{}{NO_HASH}{}", &text[..start], &text[start + NO_HASH.len()..])) == own)
}

fn hash_of(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}
