//! Checkpoints as files: content, validity, save order, pruning.
//!
//! The engine writes and reads the tensors through closures, and they are hashed on the way. Checkpoints are published atomically by a
//! single rename, and nothing is trusted that the manifest does not confirm. Start at
//! [`Checkpoints::save`].

mod error;
mod find;
mod folder;
mod hashed;
mod list;
mod manifest;
mod name;
mod prune;
mod state;

pub use error::CheckpointError;
pub use find::{FindCheckpointError, FoundCheckpoint};
pub use folder::{Checkpoints, NewCheckpoint, Rejected};
pub use hashed::{FileEntry, HashedReader, HashedWriter};
pub use list::{CheckpointProblem, ListedCheckpoint};
pub use manifest::{Checkpoint, LineHashes, Manifest, ReadTensors};
pub use prune::{Choice, KeepRule};
pub use state::{DataOrder, Difference, Fork, TrainerState};

/// Weights, under their Hugging Face names.
pub const MODEL_FILE: &str = "model.safetensors";
/// Optimizer moments, under the same names.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const TRAINER_FILE: &str = "trainer.json";
const MANIFEST_FILE: &str = "manifest.json";
