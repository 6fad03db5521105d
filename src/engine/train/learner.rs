//! Weights, optimizer and the non-finite guard, which keeps numbers that are not finite out of
//! both.
//!
//! Start at [`Learner::update`].

use std::mem::{forget, take};

use burn::tensor::{Bool, Tensor};

use crate::config::Precision;
use crate::engine::compute::Compute;
use crate::engine::error::EngineError;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::optimizer::{AdamW, Update};
use crate::engine::scalar::read;
use crate::engine::train::accumulate::StepGradients;

/// Weights and optimizer.
#[derive(Debug)]
pub(super) struct Learner {
    /// `None` only during an update, so that there is no second copy of the weights.
    model: Option<LlamaForCausalLM>,
    /// Where and how it is computed.
    compute: Compute,
    /// A copy with narrower products, made after each update; `None` in f32.
    narrow: Option<LlamaForCausalLM>,
    optimizer: AdamW,
    /// On a GPU: true once a loss or gradient was not finite; no updates are made after that.
    poisoned: Option<Tensor<1, Bool>>,
}

/// Settings of one update, apart from the gradients.
#[derive(Debug, Clone, Copy)]
pub(super) struct UpdateRule {
    /// The step that it completes.
    pub(super) step: u64,
    /// Learning rate.
    pub(super) learning_rate: f64,
    /// Whether the optimizer state is reset first.
    pub(super) resets_moments: bool,
}

/// Loss and gradient norm of one update, still on the device.
#[derive(Debug)]
pub(super) struct Measured {
    loss: Tensor<1>,
    norm: Tensor<1>,
    learning_rate: f64,
}

/// The same as numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StepNumbers {
    /// Mean over scored targets, before the update.
    pub(super) loss: f64,
    /// Global gradient norm before clipping.
    pub(super) norm: f64,
    /// Learning rate of the update.
    pub(super) learning_rate: f64,
}

impl Learner {
    /// Continues with `model` and `optimizer`. Gradients are computed in the precision of the
    /// model's [`Compute`]; weights and optimizer state are always f32.
    pub(super) fn new(model: LlamaForCausalLM, optimizer: AdamW) -> Self {
        let compute = model.compute().clone();
        let mut learner =
            Self { model: Some(model), compute, narrow: None, optimizer, poisoned: None };
        learner.narrow_again();
        learner
    }

    fn narrow_again(&mut self) {
        let precision = self.compute.precision;
        self.narrow = (precision != Precision::F32).then(|| self.model().in_precision(precision));
    }

    /// Clips the gradients and takes one optimizer step.
    ///
    /// # Errors
    /// When the device fails, or loss or norm is not finite: nothing has changed then.
    pub(super) fn update(
        &mut self,
        step: StepGradients,
        rule: UpdateRule,
    ) -> Result<Measured, EngineError> {
        let norm = step.gradients.norm().expect("a network has at least one weight");
        let measured = Measured { loss: step.loss, norm, learning_rate: rule.learning_rate };
        let skip = self.guard(&measured, rule.step)?;
        let update =
            Update { learning_rate: rule.learning_rate, norm: measured.norm.clone(), skip };
        if rule.resets_moments {
            self.optimizer.reset();
        }
        self.narrow = None;
        self.model =
            self.model.take().map(|model| self.optimizer.step(model, step.gradients, &update));
        self.narrow_again();
        Ok(measured)
    }

    /// Keeps non-finite numbers out of the weights: on the CPU at once, on a GPU by a flag that
    /// stays on the device.
    fn guard(
        &mut self,
        measured: &Measured,
        step: u64,
    ) -> Result<Option<Tensor<1, Bool>>, EngineError> {
        // On a GPU the first numbers are read too: they distinguish unusable initial weights from
        // diverged training.
        // On a CPU reading a number is free.
        let is_cpu = self.compute.device.is_cpu;
        if is_cpu || step == 1 {
            measured.read()?.check_finite(step)?;
        }
        if is_cpu {
            return Ok(None);
        }
        let broken = (measured.loss.clone() + measured.norm.clone()).is_finite().bool_not();
        let poisoned = self
            .poisoned
            .take()
            .map_or_else(|| broken.clone(), |poisoned| poisoned.bool_or(broken.clone()));
        self.poisoned = Some(poisoned.clone());
        Ok(Some(poisoned))
    }

    /// Fails if a loss or gradient up to `step` was not finite: all updates since then were
    /// skipped.
    pub(super) fn check_poison(&self, step: u64) -> Result<(), EngineError> {
        let Some(flag) = &self.poisoned else { return Ok(()) };
        let is_poisoned = flag.clone().try_into_data()?.iter::<bool>().any(|is_true| is_true);
        if is_poisoned { Err(EngineError::Poisoned { step }) } else { Ok(()) }
    }

    /// Forgets all tensors without freeing their memory: on a lost device, that could panic again
    /// or never return. Only the end of the run may follow.
    pub(super) fn leak(&mut self) {
        forget((
            self.model.take(),
            self.narrow.take(),
            take(&mut self.optimizer.moments),
            self.poisoned.take(),
        ));
    }

    /// The model in the form used for gradients.
    pub(super) fn computing(&self) -> &LlamaForCausalLM {
        self.narrow.as_ref().unwrap_or_else(|| self.model())
    }

    /// The model.
    pub(super) fn model(&self) -> &LlamaForCausalLM {
        self.model.as_ref().expect("the model is absent only inside an update")
    }

    /// The optimizer and its state.
    pub(super) fn optimizer(&self) -> &AdamW {
        &self.optimizer
    }
}

#[cfg(test)]
impl Learner {
    /// Whether it keeps a flag for non-finite numbers.
    pub(super) fn keeps_flag(&self) -> bool {
        self.poisoned.is_some()
    }

    /// Changes the weights without an update.
    pub(super) fn change_model(
        &mut self,
        change: impl FnOnce(LlamaForCausalLM) -> LlamaForCausalLM,
    ) {
        self.model = self.model.take().map(change);
        self.narrow_again();
    }
}

impl Measured {
    /// Waits for the device.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn read(&self) -> Result<StepNumbers, EngineError> {
        Ok(StepNumbers {
            loss: read(&self.loss)?,
            norm: read(&self.norm)?,
            learning_rate: self.learning_rate,
        })
    }
}

impl StepNumbers {
    /// Fails if a number of `step` is not finite.
    ///
    /// # Errors
    /// [`EngineError::NonFinite`].
    pub(super) fn check_finite(self, step: u64) -> Result<(), EngineError> {
        for (what, value) in [("loss", self.loss), ("gradient norm", self.norm)] {
            if !value.is_finite() {
                return Err(EngineError::NonFinite { what, step, value });
            }
        }
        Ok(())
    }
}
