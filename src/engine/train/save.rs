//! Saves the state of a run between two updates.
//!
//! When a checkpoint is due, and what a failure means, is decided by the caller.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::config::recorded_config;
use crate::engine::checkpoint::{Snapshot, save};
use crate::engine::error::EngineError;
use crate::engine::train::facts::RunFacts;
use crate::engine::train::learner::Learner;
use crate::record::{CheckpointInfo, Checkpoints, EventSender, TrainerState};
use crate::steer::StopFlag;

/// Writes the checkpoints of a run.
#[derive(Debug)]
pub(super) struct Saving {
    facts: Arc<RunFacts>,
    checkpoints: Checkpoints,
    /// Events whose lines must be on disk before a checkpoint.
    events: EventSender,
    stop: StopFlag,
}

/// Content of a checkpoint, apart from weights and optimizer state.
#[derive(Debug)]
pub(super) struct SavePoint {
    /// Completed updates.
    pub(super) step: u64,
    /// Whether all measurements due after the last update were made.
    pub(super) has_measured: bool,
    /// Time in steps per stage so far, in seconds.
    pub(super) active_seconds: Vec<f64>,
    /// Token loss (K = 1) of this step, if it was measured.
    pub(super) token_loss: Option<f64>,
    /// Whether pruning keeps it.
    pub(super) permanent: bool,
}

/// A valid checkpoint of the requested state.
#[derive(Debug)]
pub(super) struct Saved {
    /// The checkpoint.
    pub(super) info: CheckpointInfo,
    /// Whether it was written now; otherwise it already existed.
    pub(super) is_new: bool,
}

impl Saving {
    /// Saves to `checkpoints`, after all lines sent to `events`, unless `stop` forbids it.
    pub(super) fn new(
        facts: Arc<RunFacts>,
        checkpoints: Checkpoints,
        events: EventSender,
        stop: StopFlag,
    ) -> Self {
        Self { facts, checkpoints, events, stop }
    }

    /// Saves the state of `learner` at `point`.
    ///
    /// # Errors
    /// When the disk or the device fails, or non-finite numbers have reached the learner. Earlier
    /// checkpoints stay valid.
    pub(super) fn save(&self, learner: &Learner, point: SavePoint) -> Result<Saved, EngineError> {
        learner.check_poison(point.step)?;
        let started = Instant::now();
        let state = TrainerState {
            optimizer_count: learner.optimizer().count,
            has_measured: point.has_measured,
            ..self.facts.state_after(point.step)
        };
        let snapshot = Snapshot {
            model: learner.model(),
            optimizer: learner.optimizer(),
            state,
            active_seconds: point.active_seconds,
            token_loss: point.token_loss,
            permanent: point.permanent,
            config: recorded_config(&self.facts.config),
        };
        let (checkpoint, is_new) = save(&self.checkpoints, snapshot, &self.events, &self.stop)?;
        let info = CheckpointInfo {
            step: point.step,
            path: checkpoint
                .path
                .file_name()
                .map_or_else(Default::default, |name| Path::new("checkpoints").join(name)),
            bytes: checkpoint.manifest.bytes(),
            seconds: started.elapsed().as_secs_f64(),
            permanent: checkpoint.manifest.permanent,
        };
        Ok(Saved { info, is_new })
    }
}
