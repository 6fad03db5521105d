//! Writes the files that a run directory needs before its engine starts: the configuration and a
//! copy of the tokenizer.

use std::fs;
use std::io;
use std::path::Path;

use crate::advice::Failure;
use crate::config::{
    RecordedConfig, RunConfig, config_texts, identity_changes, inexact_changes, load_resolved,
    to_toml, trained_config,
};
use crate::data::{TOKENIZER_COMPANIONS, Tokenizer};
use crate::host::{ClaimedRun, HostError};
use crate::record::files::{create_directory, open_regular, read_tokenizer, remove_leftovers};
use crate::record::{Checkpoints, RunDirectory, RunIndex, RunLock, replace_file};

/// Checks a run before anything is written, given its future directory. Returns warnings for the
/// user.
pub type Check = fn(&RunConfig, &RunDirectory) -> Result<Vec<String>, Failure>;

impl ClaimedRun {
    /// Prepares the directory for an engine of `config`, after `check` has accepted it.
    ///
    /// Returns the directory, its lock, and warnings for the user. On an error, everything that was
    /// created is removed.
    ///
    /// # Errors
    /// When `check` fails, the existing run has another configuration, or the directory cannot be
    /// written.
    pub fn prepare(
        self,
        mut config: RunConfig,
        index: &RunIndex,
        check: Check,
    ) -> Result<(RunDirectory, RunLock, Vec<String>), Failure> {
        config.name = self.directory.name();
        let prepared = self.write(&config, check).map(|mut warnings| {
            if let Err(error) = index.add(&self.directory) {
                warnings.push(format!("the run will only be found from this folder: {error}"));
            }
            warnings
        });
        match prepared {
            Ok(warnings) => Ok((self.directory, self.lock, warnings)),
            Err(error) => {
                self.abandon();
                Err(error)
            }
        }
    }

    fn write(&self, config: &RunConfig, check: Check) -> Result<Vec<String>, Failure> {
        let directory = &self.directory;
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| HostError::Io { path, source }
        };
        let mut warnings = if directory.is_run() {
            check_identity(directory, config)?
        } else {
            // A start that died before its configuration was written may have left another
            // tokenizer.
            let companions = TOKENIZER_COMPANIONS.map(|name| directory.path().join(name));
            for leftover in companions.into_iter().chain([directory.tokenizer()]) {
                let _ = fs::remove_file(leftover);
            }
            Vec::new()
        };
        warnings.extend(check(&with_own_tokenizer(config.clone(), directory), directory)?);
        remove_leftovers(directory.path());
        create_directory(&directory.checkpoints()).map_err(io(&directory.checkpoints()))?;
        // Before the configuration, so that a run with a configuration also has its tokenizer.
        warnings.extend(keep_tokenizer(config, directory).map_err(io(&directory.tokenizer()))?);
        replace_file(&directory.config(), to_toml(config).as_bytes())
            .map_err(io(&directory.config()))?;
        Ok(warnings)
    }
}

/// The configuration that the run in `directory` was started with.
///
/// # Errors
/// When it is missing, or cannot be read.
pub fn run_config(directory: &RunDirectory) -> Result<RunConfig, HostError> {
    let path = directory.config();
    // Opening a pipe would wait for its other end.
    open_regular(&path).map_err(|source| HostError::Io { path: path.clone(), source })?;
    Ok(load_resolved(&path)?)
}

/// The same, with the run's own copy of its tokenizer.
///
/// # Errors
/// As [`run_config`].
pub fn engine_config(directory: &RunDirectory) -> Result<RunConfig, HostError> {
    Ok(with_own_tokenizer(run_config(directory)?, directory))
}

fn with_own_tokenizer(mut config: RunConfig, directory: &RunDirectory) -> RunConfig {
    if directory.tokenizer().is_file() {
        config.data.tokenizer = directory.tokenizer().to_string_lossy().into_owned();
    }
    config
}

/// Copies the tokenizer into the run, unless it already exists; a checkpoint then needs no file
/// outside the run.
fn keep_tokenizer(config: &RunConfig, directory: &RunDirectory) -> io::Result<Option<String>> {
    let asked = match config.data.tokenizer.as_str() {
        built_in @ ("bytes" | "demo") => Tokenizer::load(built_in)
            .ok()
            .and_then(|tokenizer| tokenizer.json().map(|json| json.as_bytes().to_vec())),
        path => read_tokenizer(Path::new(path)).ok(),
    };
    match (asked, read_tokenizer(&directory.tokenizer())) {
        (Some(asked), Ok(own)) if asked != own => Ok(Some(
            "the tokenizer has changed since the run began: the run continues with its own copy \
             of the original"
                .into(),
        )),
        (_, Ok(_)) | (None, Err(_)) => Ok(None),
        (Some(asked), Err(_)) => {
            replace_file(&directory.tokenizer(), &asked)?;
            if !matches!(config.data.tokenizer.as_str(), "bytes" | "demo") {
                keep_companions(Path::new(&config.data.tokenizer), directory)?;
            }
            Ok(None)
        }
    }
}

/// Copies the files that name the tokenizer's special tokens: without them, the copy might have
/// other BOS and EOS tokens.
fn keep_companions(tokenizer: &Path, directory: &RunDirectory) -> io::Result<()> {
    for name in TOKENIZER_COMPANIONS {
        if let Ok(bytes) = read_tokenizer(&tokenizer.with_file_name(name)) {
            replace_file(&directory.path().join(name), &bytes)?;
        }
    }
    Ok(())
}

/// Refuses changes that would turn a resumed run into a different one; returns warnings about
/// changes that make it inexact.
fn check_identity(directory: &RunDirectory, config: &RunConfig) -> Result<Vec<String>, HostError> {
    // Without a configuration nothing was ever started here.
    if !directory.config().is_file() {
        return Ok(Vec::new());
    }
    let (old, new) = (original_config(directory)?, config_texts(config));
    let mut changes = identity_changes(&old, &new).into_iter();
    if let Some(first) = changes.next() {
        return Err(HostError::OtherRun {
            directory: directory.clone(),
            first,
            more: changes.count(),
        });
    }
    let warning = |key: String| {
        format!("{key} has changed: the run resumes, but its results may not be bit-identical")
    };
    Ok(inexact_changes(&old, &new).into_iter().map(warning).collect())
}

/// The configuration of the run as recorded by its newest checkpoint, since config.toml can be
/// edited.
fn original_config(directory: &RunDirectory) -> Result<RecordedConfig, HostError> {
    let file = run_config(directory)?;
    let recorded = Checkpoints::new(directory, 0)
        .newest_claimed()
        .map(|checkpoint| checkpoint.manifest.config);
    Ok(match recorded.filter(|recorded| !recorded.is_empty()) {
        Some(recorded) => trained_config(recorded, &file),
        // Nothing was saved yet, or by a version that did not record the configuration.
        None => config_texts(&file),
    })
}
