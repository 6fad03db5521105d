//! Sums loss and gradients over micro-batches that are computed at the same time.
//!
//! On the CPU most operations use one thread only, so several micro-batches are computed side by side, each on a thread of its
//! own with a set of gradients of its own. Which thread computes which micro-batch, and the order of all additions, depends on
//! their number alone: a step gives the same bytes each time.

use burn::tensor::Tensor;

use crate::engine::batch::Batch;
use crate::engine::error::EngineError;
use crate::engine::gradients::Gradients;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::step::{StepInput, micro_step};
use crate::engine::workers::{Computation, Workers};

/// What a step has summed up so far.
#[derive(Debug, Default)]
pub struct SideBySide {
    /// One sum for each micro-batch that is computed at the same time.
    lanes: Vec<StepSum>,
}

/// Loss and gradients of some micro-batches of a step.
#[derive(Debug, Default)]
pub struct StepSum {
    /// Summed over scored targets: `[1]`; `None` before the first micro-batch.
    pub loss: Option<Tensor<1>>,
    /// Gradients of the loss times the scale of the step.
    pub gradients: Gradients,
}

impl SideBySide {
    /// Adds `batches`, computed at the same time; whether that was completed, or the run is to end.
    ///
    /// # Errors
    /// When a computation cannot be started.
    pub fn add(&mut self, workers: &Workers, model: &LlamaForCausalLM, input: &StepInput, batches: Vec<Batch>) -> Result<bool, EngineError> {
        let missing = batches.len().saturating_sub(self.lanes.len());
        self.lanes.extend((0..missing).map(|_| StepSum::default()));
        let job = |(batch, mut lane): (Batch, StepSum)| {
            let (model, input, stop) = (model.clone(), input.clone(), workers.stop.clone());
            Box::new(move || {
                let loss = micro_step(&model, &batch, &input, &|| stop.is_raised(), &mut lane.gradients)?;
                Some(StepSum { loss: Some(plus(lane.loss, loss)), ..lane })
            }) as Computation<Option<StepSum>>
        };
        let idle = self.lanes.split_off(batches.len());
        let busy = std::mem::take(&mut self.lanes);
        let results = workers.run(batches.into_iter().zip(busy).map(job).collect())?;
        let Some(lanes) = results.and_then(|lanes| lanes.into_iter().collect::<Option<Vec<_>>>()) else { return Ok(false) };
        self.lanes = lanes;
        self.lanes.extend(idle);
        Ok(true)
    }

    /// The sum over all micro-batches.
    pub fn finish(self) -> StepSum {
        self.lanes.into_iter().fold(StepSum::default(), |sum, lane| {
            let mut gradients = sum.gradients;
            gradients.accumulate(lane.gradients);
            let loss = match lane.loss {
                Some(loss) => Some(plus(sum.loss, loss)),
                None => sum.loss,
            };
            StepSum { loss, gradients }
        })
    }
}

fn plus(sum: Option<Tensor<1>>, loss: Tensor<1>) -> Tensor<1> {
    match sum {
        Some(sum) => sum + loss,
        None => loss,
    }
}
