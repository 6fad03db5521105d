//! The decisions of this run where paper and code leave a choice; shown in the start header.

use crate::config::{ActivationTensor, OptimizerState, Precision, RunConfig};
use crate::engine::train::facts::RunFacts;
use crate::plan::{RunPlan, StagePlan};
use crate::record::Decision;
use crate::text::format::counted;

/// Digits of a hash that are enough to distinguish two.
const HASH_DIGITS: usize = 16;

/// The decisions of a run, most important first. `device_reason`: why this device, if it was chosen
/// automatically.
pub(super) fn decisions(facts: &RunFacts, device_reason: Option<&str>) -> Vec<Decision> {
    let (config, plan) = (&facts.config, &facts.plan);
    let lines = [
        (
            "loss",
            "mean over the K tokens of the next patch of -log p; the first patch of a sequence \
             has none; nats per scored token"
                .to_owned(),
        ),
        (
            "patch",
            "mean of K token embeddings in f32; positions count patches from 0; causal over \
             patches"
                .to_owned(),
        ),
        ("switch", switch(plan)),
        ("batch", batches(plan)),
        ("context", contexts(plan)),
        ("documents", documents(config)),
        ("order", order(config, plan)),
        ("precision", precision(config.training.precision).to_owned()),
        (
            "evaluation",
            format!(
                "always token by token (K = 1), sequences of {} tokens, the first token of each \
                 unscored; at most {} tokens each time",
                config.training.context_length, plan.evaluation_tokens
            ),
        ),
        ("activations", activations(config)),
    ];
    let start = config.model.init_from.as_ref().map(|path| {
        let hash = facts.initial_weights.get().map_or("", String::as_str);
        let hash = hash.get(..HASH_DIGITS).unwrap_or(hash);
        (
            "start",
            format!(
                "the trained weights of {} (blake3 {hash}) instead of random ones; optimizer \
                 state reset",
                path.display()
            ),
        )
    });
    let fork = facts.fork.get().map(|fork| {
        (
            "fork",
            format!(
                "weights, optimizer state and position of step {} of the run {}",
                fork.step, fork.run
            ),
        )
    });
    let device = device_reason.map(|reason| ("device", reason.to_owned()));
    lines
        .into_iter()
        .chain(start)
        .chain(fork)
        .chain(device)
        .map(|(label, text)| Decision { label: label.to_owned(), text })
        .collect()
}

fn batches(plan: &RunPlan) -> String {
    per_stage(plan, |stage| {
        let positions = stage.tokens_per_step / stage.patch_size.get() as u64;
        format!("{} tokens = {positions} positions per step", stage.tokens_per_step)
    })
}

fn contexts(plan: &RunPlan) -> String {
    per_stage(plan, |stage| {
        format!("{} positions = {} tokens", stage.context_length, stage.sequence_tokens())
    })
}

fn per_stage(plan: &RunPlan, text: impl Fn(&StagePlan) -> String) -> String {
    let line = |stage: &StagePlan| format!("K = {}: {}", stage.patch_size, text(stage));
    plan.stages.iter().map(line).collect::<Vec<_>>().join("; ")
}

fn precision(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32 weights, optimizer state and arithmetic",
        Precision::Bf16 => {
            "bf16 products and activations of the layers; f32 weights, optimizer state, gradient \
             sums, norms, softmax, head and loss; evaluation in f32"
        }
    }
}

fn switch(plan: &RunPlan) -> String {
    let switches = plan.stages.iter().skip(1).map(|stage| {
        let moments = match stage.optimizer_state {
            OptimizerState::Reset => "optimizer state reset",
            OptimizerState::Keep => "optimizer state kept",
        };
        format!(
            "before stage {}: {moments}, learning rate restarted, {}",
            stage.idx + 1,
            counted(stage.schedule.warmup_steps, "warm-up step")
        )
    });
    let text = switches.collect::<Vec<_>>().join("; ");
    if text.is_empty() { "none: one stage".to_owned() } else { text }
}

fn documents(config: &RunConfig) -> String {
    let mark = |on: bool, name: &str| format!("{name} {}", if on { "on" } else { "off" });
    format!(
        "{}, {}; packed into one stream, patches and sequences straddle documents, no document \
         mask; tokenized in parts above {} words",
        mark(config.data.add_bos, "BOS"),
        mark(config.data.add_eos, "EOS"),
        config.data.max_document_words.0
    )
}

fn order(config: &RunConfig, plan: &RunPlan) -> String {
    let how = if config.data.shuffle {
        format!("reshuffled each epoch with seed {}", config.seed)
    } else {
        "in file order".to_owned()
    };
    format!(
        "blocks of {} tokens, {how}; the corpus tail shorter than a block is dropped",
        plan.block_tokens
    )
}

fn activations(config: &RunConfig) -> String {
    let tensor = match config.activations.tensor {
        ActivationTensor::FfnOutput => "FFN output before the residual addition",
        ActivationTensor::Intermediate => "product of gate and up projection",
    };
    format!(
        "share of |{tensor}| > {}, in percent, on fixed validation text at the stage's K",
        config.activations.threshold
    )
}
