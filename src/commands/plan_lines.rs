//! A plan as lines that people read.

use crate::config::{OptimizerState, RunConfig, ScheduleKind};
use crate::plan::{MemoryNeed, RunPlan, Schedule, StagePlan};
use crate::report::format;

/// More stages than this are not all listed.
const MOST_LISTED: usize = 10;
/// Of a longer list, these many are shown at its start and at its end.
const FIRST: usize = 7;
const LAST: usize = 2;

/// The plan of a configuration; `speeds` are the tokens per second of its stages, or nothing.
#[must_use]
pub fn lines(config: &RunConfig, plan: &RunPlan, speeds: &[f64]) -> Vec<String> {
    let mut lines = vec![model_line(plan), run_line(plan)];
    lines.push(format!("cost     {:.3} of token-level training on the same tokens", plan.relative_cost()));
    let (first, last) = shown(plan.stages.len());
    for (idx, stage) in plan.stages.iter().enumerate() {
        if idx < first || idx >= last {
            lines.extend(stage_lines(idx, stage, speeds.get(idx).copied()));
        } else if idx == first {
            lines.push(format!("         ... {} more (stages {} to {last}); --json lists them all", last - first, first + 1));
        }
    }
    lines.push(format!(
        "memory   {} for weights, gradients and moments, about {} for the activations of a micro-batch; on the CPU about {} in all",
        format::bytes(plan.memory.state),
        format::bytes(plan.memory.activations),
        format::bytes(MemoryNeed::new(plan, config).expected)
    ));
    lines.push(format!("disk     {} per checkpoint, the newest {} and one per stage are kept", format::bytes(plan.memory.checkpoint), config.checkpoint.keep));
    if let Some(rate) = plan.entropy_rate {
        lines.push(format!("text     true entropy rate {rate:.4} nats per token: no model can get below it"));
    }
    let (first, last) = shown(plan.warnings.len());
    for (idx, warning) in plan.warnings.iter().enumerate() {
        if idx < first || idx >= last {
            lines.push(format!("warning  {warning}"));
        } else if idx == first {
            lines.push(format!("         ... {} more warnings like these; --json lists them all", last - first));
        }
    }
    lines
}

/// Which entries of a list of `length` are shown: those before the first number, and from the second on.
fn shown(length: usize) -> (usize, usize) {
    if length <= MOST_LISTED { (length, length) } else { (FIRST, length - LAST) }
}

fn model_line(plan: &RunPlan) -> String {
    let model = &plan.model;
    format!(
        "model    {} parameters: {}, hidden {}, intermediate {}, {} ({} for keys and values), vocabulary {}",
        format::count(plan.num_parameters),
        counted(model.num_hidden_layers as u64, "layer"),
        model.hidden_size,
        model.intermediate_size,
        counted(model.num_attention_heads as u64, "head"),
        model.num_key_value_heads,
        model.vocab_size
    )
}

fn run_line(plan: &RunPlan) -> String {
    format!(
        "run      {}, {} tokens, {} positions, {}",
        counted(plan.steps, "step"),
        format::count(plan.cost.tokens),
        format::count(plan.cost.positions),
        format::flops(plan.cost.flops)
    )
}

fn stage_lines(idx: usize, stage: &StagePlan, speed: Option<f64>) -> [String; 2] {
    let cost = stage.cost(stage.steps);
    let time = speed.map_or_else(String::new, |speed| format!(", {} at {} tok/s", format::duration(cost.tokens as f64 / speed), format::rate(speed)));
    let work = format!(
        "stage {}  K = {}: {} of {} tokens ({} of {} positions, {} at a time), {}{time}",
        idx + 1,
        stage.patch_size,
        counted(stage.steps, "step"),
        stage.tokens_per_step,
        counted(stage.sequences_per_step() as u64, "sequence"),
        stage.context_length,
        stage.micro_batch_size,
        format::flops(cost.flops)
    );
    let moments = match stage.optimizer_state {
        OptimizerState::Keep if idx > 0 => "moments are kept",
        OptimizerState::Keep | OptimizerState::Reset => "moments start at zero",
    };
    [work, format!("         {}; {moments}", schedule_in_words(&stage.schedule))]
}

/// `learning rate 3e-4 after 12 warm-up steps, then cosine to 0`.
fn schedule_in_words(schedule: &Schedule) -> String {
    let (peak, minimum) = (rate_in_words(schedule.peak), rate_in_words(schedule.minimum));
    let start = match schedule.warmup_steps {
        0 => "from the start".to_owned(),
        steps => format!("after {}", counted(steps, "warm-up step")),
    };
    let then = match schedule.kind {
        ScheduleKind::Constant => "then constant".to_owned(),
        ScheduleKind::Linear => format!("then linear to {minimum}"),
        ScheduleKind::Cosine => format!("then cosine to {minimum}"),
        ScheduleKind::Wsd => format!("then constant, and linear to {minimum} over the last {}", counted(schedule.decay_steps, "step")),
    };
    format!("learning rate {peak} {start}, {then}")
}

/// As people type it: `3e-4`, `0`.
fn rate_in_words(rate: f64) -> String {
    if rate == 0.0 { "0".into() } else { format!("{rate:e}") }
}

/// `1 step`, `12 steps`.
fn counted(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{LoadRequest, load};
    use crate::plan::Corpus;

    fn text(sets: &[&str], speeds: &[f64]) -> String {
        let sets: Vec<String> = ["threads=2"].iter().chain(sets).map(ToString::to_string).collect();
        let config = load(&LoadRequest { source: "demo", sets: &sets, current_dir: Path::new("/") }).unwrap().config;
        let corpus = Corpus { tokenizer_vocab_size: 1024, train_tokens: None, entropy_rate: None, device_is_cpu: true };
        lines(&config, &RunPlan::new(&config, &corpus).unwrap(), speeds).join("\n")
    }

    #[test]
    fn the_plan_of_the_demo_reads_like_sentences() {
        insta::assert_snapshot!(text(&[], &[20_000.0, 5_000.0]));
    }

    #[test]
    fn schedules_are_said_in_words() {
        let table = [
            (&["schedule.warmup_steps=0"] as &[&str], "learning rate 3e-3 from the start, then cosine to 0; moments start at zero"),
            (&["schedule.warmup_steps=1", "schedule.kind=linear"], "learning rate 3e-3 after 1 warm-up step, then linear to 0;"),
            (&["schedule.warmup_steps=12", "schedule.min_learning_rate=1e-5"], "learning rate 3e-3 after 12 warm-up steps, then cosine to 1e-5;"),
            (&["schedule.warmup_steps=0", "schedule.kind=constant"], "learning rate 3e-3 from the start, then constant;"),
            (&["training.steps=300", "schedule.kind=wsd"], "then constant, and linear to 0 over the last 20 steps;"),
            (&["stages=[{patch_size=4,share=0.5},{patch_size=1,optimizer_state=\"keep\"}]"], "; moments are kept"),
            (
                &["training.steps=2", "stages=[{patch_size=4,share=0.5},{patch_size=1}]"],
                "K = 1: 1 step of 4096 tokens (64 sequences of 64 positions, 8 at a time)",
            ),
        ];
        for (sets, expected) in table {
            let text = text(sets, &[]);
            assert!(text.contains(expected), "{sets:?}: {expected:?} is not in\n{text}");
            assert!(!text.contains("0e0") && !text.contains("Reset") && !text.contains("Cosine"), "{text}");
        }
    }

    #[test]
    fn of_many_stages_the_first_and_the_last_are_listed() {
        let stages = vec!["{patch_size=1,share=0.01}"; 100].join(",");
        let text = text(&[&format!("stages=[{stages}]"), "training.steps=1000", "schedule.warmup_steps=50"], &[]);
        let listed = text.lines().filter(|line| line.starts_with("stage ")).count();
        assert_eq!(listed, FIRST + LAST);
        assert!(text.contains("... 91 more (stages 8 to 98); --json lists them all"), "{text}");
        assert!(text.contains("stage 100  K = 1"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("warning ")).count(), FIRST + LAST);
        assert!(text.contains("... 91 more warnings like these; --json lists them all"), "{text}");
    }
}
