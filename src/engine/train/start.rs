//! Finds the start of training: initial weights, or the newest checkpoint of this run.

use std::cell::RefCell;
use std::path::Path;

use crate::engine::checkpoint::{LoadedTensors, load_model, load_optimizer};
use crate::engine::compute::Compute;
use crate::engine::error::{EngineError, ForkError};
use crate::engine::hugging_face::HuggingFaceError;
use crate::engine::model::{LlamaForCausalLM, random_weights};
use crate::engine::open::{ModelFiles, OpenError};
use crate::engine::optimizer::AdamW;
use crate::engine::train::facts::RunFacts;
use crate::record::{
    Checkpoint, Checkpoints, Fork, FoundCheckpoint, MODEL_FILE, MeasuredStep, OPTIMIZER_FILE,
    Rejected, RunDirectory, TrainerState,
};
use crate::steer::StopFlag;

/// The start of training.
pub(super) struct Start {
    /// The weights.
    pub(super) model: LlamaForCausalLM,
    /// The optimizer and its state.
    pub(super) optimizer: AdamW,
    /// Step of the checkpoint, if there is one.
    pub(super) resumed_from: Option<u64>,
    /// Whether that checkpoint was computed with another order of sums than this version's.
    pub(super) is_inexact: bool,
    /// What was found about files of lines that have changed since that checkpoint was written.
    pub(super) changed_lines: Vec<String>,
    /// Current position.
    pub(super) reached: Reached,
}

/// The position that earlier attempts reached.
#[derive(Debug, Clone)]
pub(super) struct Reached {
    /// Completed updates.
    pub(super) step: u64,
    /// Time in steps per stage, in seconds.
    pub(super) active_seconds: Vec<f64>,
    /// Whether all measurements due after the last update were made.
    pub(super) has_measured: bool,
    /// If not, what was measured before the stop.
    pub(super) measured: MeasuredStep,
    /// Token loss (K = 1) after the last update, if it was measured.
    pub(super) token_loss: Option<f64>,
}

impl Start {
    /// Finds the start, and the checkpoints that are not used, with the reasons.
    ///
    /// # Errors
    /// When there are checkpoints but none is valid and of this run, or one cannot be loaded.
    pub(super) fn find(
        facts: &RunFacts,
        checkpoints: &Checkpoints,
        compute: &Compute,
        stop: &StopFlag,
    ) -> Result<(Self, Vec<Rejected>), EngineError> {
        let first = RefCell::new(None);
        let accepts = |checkpoint: &Checkpoint| {
            let Some(difference) = facts.differences(checkpoint).into_iter().next() else {
                return Ok(());
            };
            let reason = format!(
                "it belongs to another run: its {} is {}, but this run's is {}",
                difference.what, difference.found, difference.expected
            );
            first.borrow_mut().get_or_insert((checkpoint.state.step, difference));
            Err(reason)
        };
        let mut tensors = LoadedTensors::default();
        let (newest, rejected) =
            checkpoints
                .read_newest(&accepts, &mut |file| tensors.read(file), &|| stop.is_raised())?;
        match (newest, first.into_inner()) {
            (Some(checkpoint), _) => {
                let mut start = Self::from_checkpoint(&checkpoint, tensors, facts, compute)?;
                start
                    .reached
                    .add_measurements(&RunDirectory::new(checkpoints.run()), facts.plan.steps);
                Ok((start, rejected))
            }
            (None, None) if rejected.is_empty() => Ok((Self::first(facts, compute)?, rejected)),
            // Starting over would discard the trained weights, which only the user may decide.
            (None, None) => Err(EngineError::NoUsableCheckpoint { rejected }),
            (None, Some((at_step, difference)))
                if matches!(difference.what.as_str(), "data_fingerprint" | "tokenizer") =>
            {
                Err(EngineError::OtherData { step: at_step })
            }
            (None, Some((at_step, difference))) => {
                Err(EngineError::OtherRun { step: at_step, difference })
            }
        }
    }

    /// The start of a run that has not saved anything yet.
    fn first(facts: &RunFacts, compute: &Compute) -> Result<Self, EngineError> {
        match &facts.config.training.fork_from {
            Some(path) => Self::fork(path, facts, compute),
            None => Self::anew(facts, compute),
        }
    }

    /// Starts at the checkpoint of another run. Measurements due at that step are made again: the
    /// new run is complete on its own.
    fn fork(path: &Path, facts: &RunFacts, compute: &Compute) -> Result<Self, EngineError> {
        let mut tensors = LoadedTensors::default();
        let FoundCheckpoint { checkpoint, run, .. } =
            FoundCheckpoint::read(path, &mut |file| tensors.read(file)).map_err(ForkError::Find)?;
        let fork = Fork {
            run: run.name(),
            step: checkpoint.state.step,
            optimizer_count: checkpoint.state.optimizer_count,
        };
        check_fork(&checkpoint.state, facts)?;
        facts.fork.get_or_init(|| fork);
        let start = Self::from_checkpoint(&checkpoint, tensors, facts, compute)?;
        let mut active_seconds = checkpoint.manifest.active_seconds;
        active_seconds.resize(facts.plan.stages.len(), 0.0);
        // Its loss may have been measured on another text.
        let reached =
            Reached { active_seconds, has_measured: false, token_loss: None, ..start.reached };
        Ok(Self { resumed_from: None, changed_lines: Vec::new(), reached, ..start })
    }

    fn anew(facts: &RunFacts, compute: &Compute) -> Result<Self, EngineError> {
        let shape = &facts.plan.model;
        let model = if let Some(path) = &facts.config.model.init_from {
            trained_weights(path, facts, compute)?
        } else {
            let Ok(model) = LlamaForCausalLM::new(
                shape,
                &mut random_weights(facts.config.seed, shape),
                compute,
            );
            model
        };
        let active_seconds = vec![0.0; facts.plan.stages.len()];
        let reached = Reached {
            step: 0,
            active_seconds,
            has_measured: false,
            measured: MeasuredStep::default(),
            token_loss: None,
        };
        Ok(Self {
            model,
            optimizer: AdamW::new(facts.config.optimizer.clone()),
            resumed_from: None,
            is_inexact: false,
            changed_lines: Vec::new(),
            reached,
        })
    }

    fn from_checkpoint(
        checkpoint: &Checkpoint,
        mut tensors: LoadedTensors,
        facts: &RunFacts,
        compute: &Compute,
    ) -> Result<Self, EngineError> {
        let state = &checkpoint.state;
        let model = load_model(tensors.take(MODEL_FILE)?, &facts.plan.model, compute)?;
        let optimizer = load_optimizer(
            tensors.take(OPTIMIZER_FILE)?,
            state.optimizer_count,
            facts.config.optimizer.clone(),
            &model,
        )?;
        if let Some(hash) = &state.initial_weights {
            facts.initial_weights.get_or_init(|| hash.clone());
        }
        if let Some(fork) = &state.fork {
            facts.fork.get_or_init(|| fork.clone());
        }
        let reached = Reached {
            step: state.step,
            has_measured: state.has_measured,
            active_seconds: checkpoint.manifest.active_seconds.clone(),
            measured: MeasuredStep::default(),
            token_loss: checkpoint.manifest.token_loss,
        };
        Ok(Self {
            model,
            optimizer,
            resumed_from: Some(state.step),
            is_inexact: state.arithmetic != TrainerState::ARITHMETIC,
            changed_lines: checkpoint
                .run()
                .map_or_else(Vec::new, |run| checkpoint.manifest.changed_lines(run)),
            reached,
        })
    }
}

impl Reached {
    /// Adds what the files of the run say about measurements that a stop cut short, or that the end
    /// of the run at `steps` reports; what cannot be read is measured again.
    fn add_measurements(&mut self, directory: &RunDirectory, steps: u64) {
        if !self.has_measured || self.step == steps {
            self.measured = MeasuredStep::read(directory, self.step).unwrap_or_default();
            self.token_loss = self.measured.token_loss.or(self.token_loss);
        }
    }
}

/// Refuses a fork whose history does not match the plan of this run.
fn check_fork(state: &TrainerState, facts: &RunFacts) -> Result<(), ForkError> {
    let step = state.step;
    if step >= facts.plan.steps {
        return Err(ForkError::PlanEnds { step, steps: facts.plan.steps });
    }
    let expected = facts.state_after(step);
    let past = [
        state
            .model
            .as_ref()
            .zip(expected.model.as_ref())
            .is_some_and(|(found, planned)| found != planned)
            .then_some("model"),
        state
            .tokenizer
            .as_ref()
            .zip(expected.tokenizer.as_ref())
            .is_some_and(|(found, planned)| found != planned)
            .then_some("data.tokenizer"),
    ];
    if let Some(section) = past.into_iter().flatten().next() {
        return Err(ForkError::OtherNetwork { section });
    }
    if state.tokens != expected.tokens {
        return Err(ForkError::OtherTokens { step, found: state.tokens, planned: expected.tokens });
    }
    Ok(())
}

/// The weights in the directory `path`, and their hash for the checkpoints of this run.
fn trained_weights(
    path: &Path,
    facts: &RunFacts,
    compute: &Compute,
) -> Result<LlamaForCausalLM, EngineError> {
    let initial = |source: OpenError| EngineError::InitialWeights(Box::new(source));
    let mut weights =
        ModelFiles { shape: facts.plan.model.clone(), ..ModelFiles::find(path).map_err(initial)? }
            .weights()
            .map_err(initial)?;
    let mut hasher = blake3::Hasher::new();
    let mut read = |name: &str, dims: &[usize]| {
        let values = weights.read(name, dims)?;
        hasher.update(name.as_bytes());
        // Hash of the numbers, not of the files: shards and number formats do not make it another
        // model.
        for piece in values.chunks(1 << 14) {
            hasher.update(&piece.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
        }
        Ok(values)
    };
    let model = LlamaForCausalLM::new(&facts.plan.model, &mut read, compute)
        .map_err(|error: HuggingFaceError| initial(error.into()))?;
    facts.initial_weights.get_or_init(|| hasher.finalize().to_hex().to_string());
    Ok(model)
}
