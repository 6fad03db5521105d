//! Checkpoints as files: content, validity, order of writing, pruning.
//!
//! Knows directories, hashes and JSON; never tensors, which the engine writes through a closure. A checkpoint becomes valid by
//! one rename, and nothing is trusted that its manifest does not confirm. Start at [`Checkpoints::save`].

mod error;
mod find;
mod folder;
mod list;
mod manifest;
mod name;
mod prune;
mod state;

pub use error::CheckpointError;
pub use find::{FindCheckpointError, FoundCheckpoint};
pub use folder::{Checkpoints, NewCheckpoint, Rejected};
pub use list::{CheckpointProblem, ListedCheckpoint};
pub use manifest::{Checkpoint, FileEntry, LineHashes, Manifest};
pub use prune::{Choice, KeepRule};
pub use state::{DataOrder, Difference, Fork, TrainerState};

/// Weights, by Hugging Face's names.
pub const MODEL_FILE: &str = "model.safetensors";
/// Moments, by the same names.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const TRAINER_FILE: &str = "trainer.json";
const MANIFEST_FILE: &str = "manifest.json";
