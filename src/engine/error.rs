//! Why a run broke, and what to do about it.

use burn::tensor::ExecutionError;
use thiserror::Error;

use crate::data::DataError;
use crate::engine::checkpoint::CheckpointError;
use crate::engine::device::DeviceError;
use crate::plan::PlanError;
use crate::run::Trouble;

/// Why a run broke.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The device that was asked for.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The text.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The numbers do not fit together.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A checkpoint.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// A computation on the device.
    #[error("the device failed: {0}")]
    Execution(#[from] ExecutionError),
    /// A loss or gradient is not a number; the update was not made.
    #[error("the {what} of step {step} is {value}, so the update was not made")]
    NonFinite {
        /// Loss or gradient norm.
        what: &'static str,
        /// The step that would have been completed.
        step: u64,
        /// What it is.
        value: f64,
    },
    /// As [`Self::NonFinite`], noticed later, on a device that the host does not wait for.
    #[error("a loss or gradient up to step {step} is not finite, so no update was made since")]
    Poisoned {
        /// The step at which it was noticed.
        step: u64,
    },
    /// The text is not the one that the checkpoint was trained on.
    #[error("the text has changed since the checkpoint at step {step}: its tokens are others")]
    OtherData {
        /// Step of the checkpoint.
        step: u64,
    },
    /// A file of the run directory.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

impl EngineError {
    /// What to type next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Device(error) => Some(error.hint()),
            Self::Data(error) => Some(error.hint()),
            Self::Plan(error) => Some(error.hint()),
            Self::Checkpoint(_) | Self::Io { .. } => Some("check the disk's room and permissions, then go on with: patchtui resume RUN".into()),
            Self::Execution(_) => Some("lower training.micro_batch_size if the memory is full, then go on with: patchtui resume RUN".into()),
            Self::NonFinite { .. } | Self::Poisoned { .. } => {
                Some("start a new run with a lower optimizer.learning_rate or a longer warm-up; the last checkpoint is still valid".into())
            }
            Self::OtherData { .. } => Some("put the old text back, or start a new run under another --name".into()),
        }
    }

    /// As the last event of a run has it.
    pub fn trouble(&self) -> Trouble {
        Trouble { message: self.to_string(), hint: self.hint() }
    }
}
