//! Trial steps, a few micro-batches of every stage before training: a stage that does not fit into
//! memory fails now, not after two thirds of the run, and the speed of later stages is known from
//! the start.

use std::time::{Duration, Instant};

use crate::engine::batch::Batch;
use crate::engine::error::EngineError;
use crate::engine::gradients::Gradients;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::scalar::read;
use crate::engine::step::{StepInput, micro_step};
use crate::engine::workers::Workers;
use crate::plan::RunPlan;

/// After this long no further shape is tried before training.
const TRIAL_LIMIT: Duration = Duration::from_mins(2);

/// Tokens per second of each stage, without the optimizer's update; `None` if the run should end.
/// With `recompute`, layers recompute their activations in the backward pass.
///
/// Tries each shape of micro-batches once; after the time limit, the speeds of the rest are derived
/// from their operations per token.
///
/// # Errors
/// When the device fails.
pub(super) fn try_stages(
    workers: &Workers,
    plan: &RunPlan,
    model: &LlamaForCausalLM,
    recompute: bool,
) -> Result<Option<Vec<f64>>, EngineError> {
    let begun = Instant::now();
    let alike = plan.first_stages_alike();
    let flops_per_token =
        |idx: usize| plan.stages[idx].flops_per_position / plan.stages[idx].patch_size.get() as f64;
    let mut speeds: Vec<f64> = Vec::new();
    for (idx, stage) in plan.stages.iter().enumerate() {
        if let Some(speed) = speeds.get(alike[idx]) {
            speeds.push(*speed);
            continue;
        }
        if idx > 0 && begun.elapsed() > TRIAL_LIMIT {
            speeds.push(speeds[0] * flops_per_token(0) / flops_per_token(idx));
            continue;
        }
        let tokens = vec![0; stage.micro_batch_size * stage.sequence_tokens()];
        let mut seconds = 0.0;
        // The first time pays for compiling, tuning and page faults; only the second counts.
        for _ in 0..2 {
            let started = Instant::now();
            let batch = Batch::new(&tokens, stage.micro_batch_size, stage.patch_size);
            let scale = 1.0 / batch.num_targets.max(1) as f64;
            let input =
                StepInput { shared: model.model.shared_input(batch.positions()), scale, recompute };
            let (model, mut gradients) = (model.clone(), Gradients::new(&workers.compute));
            let job = move || {
                micro_step(&model, &batch, &input, &|| false, &mut gradients)
                    .map(|loss| (loss, gradients.norm()))
            };
            let Some((loss, norm)) = workers.run(job).flatten() else { return Ok(None) };
            for number in [loss].into_iter().chain(norm) {
                read(&number)?;
            }
            seconds = started.elapsed().as_secs_f64();
        }
        speeds.push(tokens.len() as f64 / seconds);
    }
    Ok(Some(speeds))
}
