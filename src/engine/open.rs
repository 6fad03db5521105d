//! Opens a checkpoint or a Hugging Face directory as a usable model: weights, shape and tokenizer.
//!
//! Needs no training text. Start at [`LoadedModel::open`], or at [`ModelFiles::find`] for everything except
//! the weights.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::advice::{Advice, Audience, FAILED, USAGE};
use crate::config::{CONFIG_FILE, ConfigError, LlamaConfig, PatchSize, RunConfig, load_resolved};
use crate::data::{DataError, Tokenizer};
use crate::engine::checkpoint::load_model;
use crate::engine::compute::Compute;
use crate::engine::hugging_face::{HuggingFaceError, TOKENIZER_FILE, WeightFiles, end_tokens};
use crate::engine::model::LlamaForCausalLM;
use crate::engine::tensor_file::{TensorFile, TensorFileError};
use crate::plan::ModelShape;
use crate::record::files::read_small;
use crate::record::{
    Checkpoint, FindCheckpointError, FoundCheckpoint, MODEL_FILE, PlanFile, Rejected, RunDirectory,
};

/// A trained network with everything needed to use it.
#[derive(Debug)]
pub struct LoadedModel {
    /// The network.
    pub model: LlamaForCausalLM,
    /// Its origin and properties.
    pub files: ModelFiles,
}

/// Everything about a trained network except its weights.
#[derive(Debug)]
pub struct ModelFiles {
    /// Sizes of the network.
    pub shape: ModelShape,
    /// Encodes and decodes its text.
    pub tokenizer: Tokenizer,
    /// Context length in tokens, as trained at K = 1.
    pub context_length: usize,
    /// EOS tokens, in ascending order.
    pub ends: Vec<u32>,
    /// Whether its training texts began with the BOS token, so that prompts must, too.
    pub add_bos: bool,
    /// Patch size (K) of the stage that the weights come from; only at 1 is it a token-level
    /// model.
    pub patch_size: PatchSize,
    /// Origin.
    pub origin: ModelOrigin,
}

/// Origin of a network.
#[derive(Debug)]
pub enum ModelOrigin {
    /// A checkpoint, the run that trained it, and newer checkpoints of the run that cannot be used.
    Checkpoint(Box<FoundCheckpoint>),
    /// A Hugging Face directory.
    HuggingFace {
        /// The directory, absolute.
        path: PathBuf,
    },
}

impl ModelOrigin {
    /// A short name for tables: `books/step-00000300`, `Llama-2-7b-hf`.
    pub fn name(&self) -> String {
        let last =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match self {
            Self::Checkpoint(found) => {
                format!("{}/{}", found.run.name(), last(&found.checkpoint.path))
            }
            Self::HuggingFace { path } => last(path),
        }
    }

    /// The checkpoint, with its step and stage.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        match self {
            Self::Checkpoint(found) => Some(&found.checkpoint),
            Self::HuggingFace { .. } => None,
        }
    }

    /// The run that trained it.
    pub fn run(&self) -> Option<&RunDirectory> {
        match self {
            Self::Checkpoint(found) => Some(&found.run),
            Self::HuggingFace { .. } => None,
        }
    }

    /// Newer checkpoints of the run that cannot be used.
    pub fn rejected(&self) -> &[Rejected] {
        match self {
            Self::Checkpoint(found) => &found.rejected,
            Self::HuggingFace { .. } => &[],
        }
    }

    /// The directory with the weights.
    pub fn path(&self) -> &Path {
        match self {
            Self::Checkpoint(found) => &found.checkpoint.path,
            Self::HuggingFace { path } => path,
        }
    }
}

/// Why a checkpoint cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is no valid checkpoint.
    #[error(transparent)]
    Find(#[from] FindCheckpointError),
    /// Its run has no configuration.
    #[error("{} is missing: it is the configuration that the model was trained with", path.display())]
    NoConfig {
        /// The configuration of the run.
        path: PathBuf,
    },
    /// The configuration of its run cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Neither the checkpoint nor its run records the sizes of the network.
    #[error("{} does not contain the sizes of the network: {problem}", path.display())]
    NoShape {
        /// The plan of the run.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The tokenizer cannot be loaded.
    #[error(transparent)]
    Tokenizer(#[from] DataError),
    /// The tokenizer differs from the one used in training.
    #[error("the tokenizer {tokenizer} is not the one that {} was trained with", checkpoint.display())]
    OtherTokenizer {
        /// Name or path of the tokenizer.
        tokenizer: String,
        /// The checkpoint.
        checkpoint: PathBuf,
    },
    /// The tokenizer is the one used in training, but the files beside it name other tokens.
    #[error(
        "the tokenizer {tokenizer} is not the one that {} was trained with: its BOS or EOS token \
         has changed",
        checkpoint.display()
    )]
    OtherSpecialTokens {
        /// Name or path of the tokenizer.
        tokenizer: String,
        /// The checkpoint.
        checkpoint: PathBuf,
    },
    /// The weights cannot be read.
    #[error("checkpoint: {0}")]
    Weights(#[from] TensorFileError),
    /// The Hugging Face directory cannot be used.
    #[error(transparent)]
    HuggingFace(#[from] HuggingFaceError),
}

impl Advice for OpenError {
    fn hint(&self, audience: Audience<'_>) -> String {
        match self {
            Self::Find(error) => error.hint(audience),
            Self::NoConfig { .. } | Self::Config(_) => {
                "restore the run's config.toml from a copy".into()
            }
            Self::NoShape { .. } => "restore the run's plan.json from a copy".into(),
            Self::OtherSpecialTokens { .. } => {
                "restore the run's tokenizer_config.json and special_tokens_map.json from a copy"
                    .into()
            }
            Self::Tokenizer(_) | Self::OtherTokenizer { .. } => {
                "restore the run's tokenizer.json from a copy".into()
            }
            Self::Weights(TensorFileError::Unusable { .. }) => {
                "its training had diverged: use an earlier checkpoint of the run".into()
            }
            Self::Weights(_) => "restore the checkpoint from a copy".into(),
            Self::HuggingFace(error) => error.hint(audience),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            // The model itself is broken, not the request or the directory.
            Self::Weights(TensorFileError::Unusable { .. }) => FAILED,
            Self::HuggingFace(error) => error.exit_code(),
            _ => USAGE,
        }
    }
}

impl LoadedModel {
    /// Opens `path`, which names a run, a checkpoint or a Hugging Face directory, for `compute`.
    ///
    /// For a run, the newest valid checkpoint is used. A checkpoint that was copied without its run
    /// cannot be opened, since only the run has the tokenizer.
    ///
    /// # Errors
    /// When there is no valid checkpoint, its run lacks files, or the directory is not a `LLaMA`
    /// model.
    pub fn open(path: &Path, compute: &Compute) -> Result<Self, OpenError> {
        ModelFiles::find(path)?.load(compute)
    }
}

impl ModelFiles {
    /// Finds what `path` names; the weights of a checkpoint are compared with its manifest, others
    /// are not read yet.
    ///
    /// # Errors
    /// As [`LoadedModel::open`].
    pub fn find(path: &Path) -> Result<Self, OpenError> {
        if path.join(CONFIG_FILE).exists() && !RunDirectory::new(path).is_run() {
            Self::of_hugging_face(path)
        } else {
            Self::of_checkpoint(path)
        }
    }

    fn of_checkpoint(path: &Path) -> Result<Self, OpenError> {
        let found = FoundCheckpoint::at(path)?;
        let FoundCheckpoint { checkpoint, run, .. } = &found;
        let path = run.config();
        let config = if path.is_file() {
            load_resolved(&path)?
        } else {
            return Err(OpenError::NoConfig { path });
        };
        let shape = shape_of(checkpoint, run)?;
        let tokenizer = tokenizer_of(checkpoint, run, &config, &shape)?.of_table(shape.vocab_size);
        Ok(Self {
            shape,
            ends: all_ends(&tokenizer, Vec::new()),
            tokenizer,
            context_length: config.token_context_length(checkpoint.state.stage),
            add_bos: config.data.add_bos,
            patch_size: checkpoint.state.patch_size,
            origin: ModelOrigin::Checkpoint(Box::new(found)),
        })
    }

    fn of_hugging_face(path: &Path) -> Result<Self, OpenError> {
        let config = LlamaConfig::read(&path.join(CONFIG_FILE)).map_err(HuggingFaceError::from)?;
        let file = path.join(TOKENIZER_FILE);
        if !file.exists() {
            return Err(HuggingFaceError::NoTokenizer { path: file }.into());
        }
        let tokenizer = Tokenizer::load(&file.to_string_lossy())?;
        let tokenizer = tokenizer.of_table(config.shape.vocab_size);
        if tokenizer.vocab_size() > config.shape.vocab_size {
            return Err(HuggingFaceError::TokenizerTooLarge {
                path: file,
                largest: tokenizer.vocab_size() - 1,
                rows: config.shape.vocab_size,
            }
            .into());
        }
        Ok(Self {
            ends: all_ends(&tokenizer, end_tokens(path, &config)?),
            context_length: config.shape.max_position_embeddings,
            shape: config.shape,
            add_bos: tokenizer.adds_bos(),
            patch_size: config.patch_size,
            tokenizer,
            origin: ModelOrigin::HuggingFace { path: RunDirectory::new(path).path().to_owned() },
        })
    }

    /// Opens the weights and checks their names, shapes and number formats.
    ///
    /// # Errors
    /// When they do not match a network of this shape.
    pub fn weights(&self) -> Result<WeightFiles, OpenError> {
        let mut weights = match &self.origin {
            ModelOrigin::Checkpoint(found) => {
                WeightFiles::of_file(&found.checkpoint.path.join(MODEL_FILE))?
            }
            ModelOrigin::HuggingFace { path } => WeightFiles::of_directory(path)?,
        };
        weights.check(&self.shape)?;
        Ok(weights)
    }

    /// Reads the weights, one tensor at a time.
    ///
    /// # Errors
    /// As [`LoadedModel::open`].
    pub fn load(self, compute: &Compute) -> Result<LoadedModel, OpenError> {
        let model = match &self.origin {
            ModelOrigin::Checkpoint(found) => {
                let file = TensorFile::open(&found.checkpoint.path.join(MODEL_FILE))?;
                load_model(file, &self.shape, compute)?
            }
            ModelOrigin::HuggingFace { .. } => {
                let mut weights = self.weights()?;
                LlamaForCausalLM::new(
                    &self.shape,
                    &mut |name, dims| weights.read(name, dims),
                    compute,
                )?
            }
        };
        Ok(LoadedModel { model, files: self })
    }
}

/// The EOS tokens of the tokenizer, and those of the directory.
fn all_ends(tokenizer: &Tokenizer, mut ends: Vec<u32>) -> Vec<u32> {
    ends.extend(tokenizer.ends_of_text());
    ends.sort_unstable();
    ends.dedup();
    ends
}

/// The sizes of the network: from the checkpoint itself, or from the run's plan if an older version
/// did not record them there.
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

/// The run's own copy of its tokenizer, or the configured one if it is the one used in training.
fn tokenizer_of(
    checkpoint: &Checkpoint,
    run: &RunDirectory,
    config: &RunConfig,
    shape: &ModelShape,
) -> Result<Tokenizer, OpenError> {
    let copy = run.tokenizer();
    let choice = if copy.is_file() {
        copy.to_string_lossy().into_owned()
    } else {
        config.data.tokenizer.clone()
    };
    let tokenizer = Tokenizer::load(&choice)?;
    let is_of_training = match &checkpoint.state.tokenizer {
        Some(fingerprint) => tokenizer.fingerprint() == fingerprint,
        // Older versions did not record which one it was.
        None => tokenizer.vocab_size() <= shape.vocab_size,
    };
    let path = checkpoint.path.clone();
    if !is_of_training {
        return Err(OpenError::OtherTokenizer { tokenizer: choice, checkpoint: path });
    }
    match checkpoint.state.special_tokens {
        Some(trained) if trained != [tokenizer.bos(), tokenizer.eos()] => {
            Err(OpenError::OtherSpecialTokens { tokenizer: choice, checkpoint: path })
        }
        _ => Ok(tokenizer),
    }
}
