//! From a checkpoint to a model that can be used: its weights, its shape and its tokenizer.
//!
//! The one way in which weights come out of a checkpoint, for a run that resumes as well; never trains, and never looks for the
//! text that was trained on. Start at [`LoadedModel::open`].

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use thiserror::Error;

use crate::config::{ConfigError, RunConfig, load_resolved};
use crate::data::{DataError, Tokenizer};
use crate::engine::checkpoint::load_model;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::tensor_file::{TensorFile, TensorFileError};
use crate::plan::ModelShape;
use crate::run::files::read_small;
use crate::run::{Checkpoint, FindCheckpointError, FoundCheckpoint, MODEL_FILE, PlanFile, Rejected, RunDirectory};

/// A trained network with all that its use needs.
#[derive(Debug)]
pub struct LoadedModel {
    /// The network.
    pub model: LlamaForCausalLM,
    /// Its sizes.
    pub shape: ModelShape,
    /// Turns text into its ids and back.
    pub tokenizer: Tokenizer,
    /// Length of the sequences that it was trained on at token level; more than that it has never seen at once.
    pub context_length: usize,
    /// Whether the texts that it was trained on begin with the begin-of-text token, so that prompts must, too.
    pub add_bos: bool,
    /// Where it comes from, with the step and the stage.
    pub checkpoint: Checkpoint,
    /// The run that trained it.
    pub run: RunDirectory,
    /// Newer checkpoints of the run that cannot be used.
    pub rejected: Vec<Rejected>,
}

/// Why a checkpoint cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is no valid checkpoint.
    #[error(transparent)]
    Find(#[from] FindCheckpointError),
    /// Its run has no configuration.
    #[error("{} is missing, which says how the network was trained", path.display())]
    NoConfig {
        /// The configuration of the run.
        path: PathBuf,
    },
    /// The configuration of its run cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Neither the checkpoint nor its run says the sizes of the network.
    #[error("{} does not say the sizes of the network: {problem}", path.display())]
    NoShape {
        /// The plan of the run.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The tokenizer cannot be loaded.
    #[error(transparent)]
    Tokenizer(#[from] DataError),
    /// The tokenizer is another one than in training.
    #[error("the tokenizer {tokenizer} is not the one that {} was trained with", checkpoint.display())]
    OtherTokenizer {
        /// Name or path of the tokenizer.
        tokenizer: String,
        /// The checkpoint.
        checkpoint: PathBuf,
    },
    /// The weights cannot be read.
    #[error("checkpoint: {0}")]
    Weights(#[from] TensorFileError),
}

impl OpenError {
    /// What to type or change next.
    pub fn hint(&self) -> String {
        match self {
            Self::Find(error) => error.hint(),
            Self::NoConfig { .. } | Self::Config(_) => "restore the run's config.toml from a copy".into(),
            Self::NoShape { .. } => "restore the run's plan.json from a copy".into(),
            Self::Tokenizer(_) | Self::OtherTokenizer { .. } => "restore the run's tokenizer.json from a copy".into(),
            Self::Weights(_) => "restore the checkpoint from a copy".into(),
        }
    }
}

impl LoadedModel {
    /// Opens what `path` names, a run or a checkpoint of one, on `device`.
    ///
    /// A run stands for its newest valid checkpoint. A checkpoint that was copied without its run cannot be opened, since only
    /// the run has the tokenizer.
    ///
    /// # Errors
    /// When there is no valid checkpoint, or its run does not say how to use it.
    pub fn open(path: &Path, device: &Device) -> Result<Self, OpenError> {
        let FoundCheckpoint { checkpoint, run, rejected } = FoundCheckpoint::at(path)?;
        let path = run.config();
        let config = if path.is_file() { load_resolved(&path)? } else { return Err(OpenError::NoConfig { path }) };
        let shape = shape_of(&checkpoint, &run)?;
        let tokenizer = tokenizer_of(&checkpoint, &run, &config, &shape)?;
        let model = read_weights(&checkpoint, &shape, device)?;
        Ok(Self { model, shape, tokenizer, context_length: config.training.context_length, add_bos: config.data.add_bos, checkpoint, run, rejected })
    }
}

/// The weights of `checkpoint`, on `device`.
///
/// # Errors
/// When they cannot be read, or are not those of a network of this `shape`.
pub(super) fn read_weights(checkpoint: &Checkpoint, shape: &ModelShape, device: &Device) -> Result<LlamaForCausalLM, TensorFileError> {
    let path = checkpoint.path.join(MODEL_FILE);
    let found = TensorFile::open(&path)?.shapes().values().map(|dims| dims.iter().product::<usize>() as u64).sum::<u64>();
    let model = load_model(checkpoint, shape, device)?;
    // Every weight of the network was there; there must not be others, of layers that the shape does not know.
    let expected = shape.num_parameters();
    if found == expected { Ok(model) } else { Err(TensorFileError::Damaged { path, problem: format!("it has {found} weights instead of {expected}") }) }
}

/// The sizes of the network: of the checkpoint itself, or of the run's plan where an older version did not write them there.
fn shape_of(checkpoint: &Checkpoint, run: &RunDirectory) -> Result<ModelShape, OpenError> {
    if let Some(outline) = &checkpoint.state.model {
        return Ok(outline.into());
    }
    let path = run.plan();
    let read = || -> Result<PlanFile, String> {
        let bytes = read_small(&path).map_err(|error| error.to_string())?;
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    };
    match read() {
        Ok(file) if file.plan.model.vocab_size > 0 => Ok((&file.plan.model).into()),
        Ok(_) => Err(OpenError::NoShape { path, problem: "it has no \"model\"".into() }),
        Err(problem) => Err(OpenError::NoShape { path, problem }),
    }
}

/// The run's own copy of its tokenizer, or the one that its configuration names, if that is the one of training.
fn tokenizer_of(checkpoint: &Checkpoint, run: &RunDirectory, config: &RunConfig, shape: &ModelShape) -> Result<Tokenizer, OpenError> {
    let copy = run.tokenizer();
    let choice = if copy.is_file() { copy.to_string_lossy().into_owned() } else { config.data.tokenizer.clone() };
    let tokenizer = Tokenizer::load(&choice)?;
    let is_of_training = match &checkpoint.state.tokenizer {
        Some(fingerprint) => tokenizer.fingerprint() == fingerprint,
        // Older versions did not write which one it was.
        None => tokenizer.vocab_size() <= shape.vocab_size,
    };
    if is_of_training { Ok(tokenizer) } else { Err(OpenError::OtherTokenizer { tokenizer: choice, checkpoint: checkpoint.path.clone() }) }
}
