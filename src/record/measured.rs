//! Measurements that earlier attempts have already made after the step that a run resumes from.
//!
//! A stop does not wait for measurements, so a checkpoint may be saved when only some of those due
//! at its step are done. The attempt that resumes makes only the missing ones. Start at
//! [`MeasuredStep::read`].

use std::io;

use crate::record::read::read_kinds;
use crate::record::{LineFile, MeasuredLoss, Record, RunDirectory, RunEvent};

/// The files of measurements, and the one that tells which of their lines a resume has superseded.
const FILES: [LineFile; 4] =
    [LineFile::Events, LineFile::Evals, LineFile::Activations, LineFile::Samples];

/// The valid measurements of one step: those that no later attempt has superseded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MeasuredStep {
    /// Token loss (K = 1) in nats per token.
    pub token_loss: Option<f64>,
    /// The loss on the whole validation text.
    pub whole: Option<MeasuredLoss>,
    /// Whether activations were measured.
    pub activations: bool,
    /// Sampled prompts, one entry per line.
    pub prompts: Vec<String>,
    /// Whether evaluation tasks were scored.
    pub tasks: bool,
}

impl MeasuredStep {
    /// Reads the measurements of the model after `step` updates from the files of `directory`.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(directory: &RunDirectory, step: u64) -> io::Result<Self> {
        let mut found = Self::default();
        read_kinds(directory, &FILES, |record| found.apply(step, record))?;
        Ok(found)
    }

    fn apply(&mut self, step: u64, record: Record) {
        match record.event {
            // An attempt supersedes everything beyond the step that it resumes from, or everything
            // if it starts over.
            RunEvent::RunStarted(header) if header.resumed_from.is_none_or(|from| from < step) => {
                *self = Self::default();
            }
            RunEvent::Evaluated(evaluation) if evaluation.step == step => {
                self.token_loss = Some(evaluation.token_loss);
                self.whole = evaluation.whole.or(self.whole);
            }
            RunEvent::ActivationsMeasured(activations) if activations.step == step => {
                self.activations = true;
            }
            RunEvent::Sampled(sample) if sample.step == step => self.prompts.push(sample.prompt),
            RunEvent::TasksScored(scores) if scores.step == step => self.tasks = true,
            _ => {}
        }
    }
}
