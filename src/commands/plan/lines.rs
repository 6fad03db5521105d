//! A plan as lines for people.

use crate::config::{OptimizerState, RunConfig, ScheduleKind, TextSource};
use crate::plan::{CostedStage, Measured, MemoryNeed, RunPlan, Schedule, StagePlan, StageSpeed};
use crate::text::format;
use crate::text::format::counted;

/// Lists with more stages than this are shortened.
const MOST_LISTED: usize = 10;
/// A shortened list shows this many entries at its start and at its end.
const FIRST: usize = 7;
const LAST: usize = 2;

/// The plan of a configuration, with its `measured` speeds.
#[must_use]
pub fn lines(config: &RunConfig, plan: &RunPlan, measured: &Measured) -> Vec<String> {
    let mut lines = vec![model_line(plan), run_line(plan), text_line(config, plan)];
    lines.push(format!(
        "cost     {:.3} of the compute of token-level training on the same tokens",
        plan.relative_cost()
    ));
    lines.push(time_line(plan, measured));
    let (first, last) = shown(plan.stages.len());
    for stage in &plan.stages {
        if stage.idx < first || stage.idx >= last {
            lines.extend(stage_lines(stage, measured.speeds.get(stage.idx)));
        } else if stage.idx == first {
            lines.push(format!(
                "         ... {} more (stages {} to {last}); --json lists them all",
                last - first,
                first + 1
            ));
        }
    }
    lines.push(format!(
        "memory   {} for weights, gradients and optimizer state, about {} for the activations of \
         a micro-batch; about {} in total on the CPU",
        format::bytes(plan.memory.state),
        format::bytes(plan.memory.activations),
        format::bytes(MemoryNeed::new(plan, config).expected)
    ));
    lines.push(format!(
        "disk     {} per checkpoint; keeps the newest {} and one per stage",
        format::bytes(plan.memory.checkpoint),
        config.checkpoint.keep
    ));
    if let Some(rate) = plan.entropy_rate {
        lines.push(format!(
            "floor    the text's true entropy rate is {rate:.4} nats per token: no model can do \
             better"
        ));
    }
    lines.extend(listed("warning", &plan.warnings));
    lines.extend(listed("note", &plan.notes));
    lines
}

/// Warnings or notes; of a long list the first and the last.
fn listed(kind: &str, texts: &[String]) -> Vec<String> {
    let (first, last) = shown(texts.len());
    let line = |(idx, text): (usize, &String)| match idx {
        idx if idx < first || idx >= last => Some(format!("{kind:<8} {text}")),
        idx if idx == first => Some(format!(
            "         ... {} more {kind}s like these; --json lists them all",
            last - first
        )),
        _ => None,
    };
    texts.iter().enumerate().filter_map(line).collect()
}

/// Which entries of a list of `length` are shown: those before the first number, and from the
/// second number on.
fn shown(length: usize) -> (usize, usize) {
    if length <= MOST_LISTED { (length, length) } else { (FIRST, length - LAST) }
}

fn model_line(plan: &RunPlan) -> String {
    let model = &plan.model;
    format!(
        "model    {} parameters: {}, hidden {}, FFN {}, {} ({} KV), vocabulary {}",
        format::count(plan.num_parameters),
        counted(model.num_hidden_layers, "layer"),
        model.hidden_size,
        model.intermediate_size,
        counted(model.num_attention_heads, "attention head"),
        model.num_key_value_heads,
        model.vocab_size
    )
}

fn run_line(plan: &RunPlan) -> String {
    format!(
        "run      {}, {} tokens ({} per parameter), {} positions, {}",
        counted(plan.steps, "step"),
        format::count(plan.cost.tokens),
        per_parameter(plan.tokens_per_parameter()),
        format::count(plan.cost.positions),
        format::flops(plan.cost.flops)
    )
}

/// `975`, `2.53`, `2e-4`.
fn per_parameter(tokens: f64) -> String {
    match tokens {
        tokens if tokens >= 1000.0 => format::rate(tokens),
        tokens if tokens >= 0.1 => format::significant(tokens),
        tokens => format!("{tokens:.0e}"),
    }
}

/// How often the training text is read.
fn text_line(config: &RunConfig, plan: &RunPlan) -> String {
    let epochs = plan.train_tokens.zip(plan.epochs()).map(|(tokens, epochs)| {
        format!("{} epochs of {} training tokens", epochs_text(epochs), format::count(tokens))
    });
    let text = match (config.data.source(), epochs) {
        (TextSource::Generated(_), None) => {
            "generated for this run, each token is read once".to_owned()
        }
        (TextSource::Generated(_), Some(epochs)) => format!("{epochs}, generated for this run"),
        (TextSource::Files(_), Some(epochs)) => {
            format!("about {epochs}, estimated from the first bytes of the files")
        }
        (TextSource::Files(_), None) => "number of training tokens unknown".to_owned(),
    };
    format!("text     {text}")
}

/// Time for all steps, and how it was measured.
fn time_line(plan: &RunPlan, measured: &Measured) -> String {
    let Some(seconds) = plan.seconds(&measured.speeds) else {
        return "time     not measured".to_owned();
    };
    let is_stable = measured.speeds.iter().all(|speed| speed.is_stable);
    let [least, expected, most] =
        [seconds.least, seconds.expected, seconds.most].map(format::duration);
    let time = if is_stable || least == most {
        format!("about {expected}")
    } else {
        format!("{least} to {most}")
    };
    let repetitions = measured.speeds.iter().map(|speed| speed.repetitions);
    let (fewest, most) = (
        repetitions.clone().filter(|count| *count > 0).min().unwrap_or(0),
        repetitions.max().unwrap_or(0),
    );
    let count = if fewest == most {
        counted(most, "repetition")
    } else {
        format!("{fewest} to {most} repetitions")
    };
    let quality =
        if is_stable { "agreeing within 5 %" } else { "not stable: the machine may be busy" };
    let scaled = measured
        .scaled_from
        .as_ref()
        .map_or_else(String::new, |from| format!(", scaled up from {from}"));
    format!(
        "time     {time} for the training steps, without evaluations and checkpoints; measured on \
         random tokens, {count} per stage, {quality}{scaled}"
    )
}

fn stage_lines(stage: &StagePlan, speed: Option<&StageSpeed>) -> [String; 2] {
    let cost = stage.cost(stage.steps);
    let time = speed
        .map_or_else(String::new, |speed| format!(", {}", stage_time(cost.tokens as f64, speed)));
    let work = format!(
        "stage {}  K = {}: {} of {} tokens ({} of {} positions, {} at a time), {}{time}",
        stage.idx + 1,
        stage.patch_size,
        counted(stage.steps, "step"),
        stage.tokens_per_step,
        counted(stage.sequences_per_step(), "sequence"),
        stage.context_length,
        stage.micro_batch_size,
        format::flops(cost.flops)
    );
    let moments = match stage.optimizer_state {
        OptimizerState::Keep if stage.idx > 0 => "optimizer state kept",
        OptimizerState::Keep | OptimizerState::Reset => "optimizer state reset",
    };
    [work, format!("         {}; {moments}", schedule_in_words(&stage.schedule))]
}

/// `1m 30s at 20.0k tok/s`, or a range of both.
fn stage_time(tokens: f64, speed: &StageSpeed) -> String {
    let [slow, median, fast] = [speed.slowest, speed.median, speed.fastest]
        .map(|speed| (format::duration(tokens / speed), format::rate(speed)));
    if speed.is_stable || slow == fast {
        return format!("{} at {} tok/s", median.0, median.1);
    }
    format!("{} to {} at {} to {} tok/s", fast.0, slow.0, slow.1, fast.1)
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
        ScheduleKind::Wsd => format!(
            "then constant, and linear to {minimum} over the last {}",
            counted(schedule.decay_steps, "step")
        ),
    };
    format!("learning rate {peak} {start}, {then}")
}

/// As people type it: `3e-4`, `0.01`, `0`.
fn rate_in_words(rate: f64) -> String {
    if rate == 0.0 || rate >= 0.01 { format!("{rate}") } else { format!("{rate:e}") }
}

/// A number of epochs: two decimals, unless there are so many that these say nothing.
fn epochs_text(epochs: f64) -> String {
    if epochs < 1000.0 { format!("{epochs:.2}") } else { format::rate(epochs) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{LoadRequest, load};
    use crate::plan::{Corpus, DeviceKind};

    fn text(sets: &[&str], speeds: &[f64]) -> String {
        let sets: Vec<String> = ["threads=2"].iter().chain(sets).map(ToString::to_string).collect();
        let config =
            load(&LoadRequest { source: "demo", sets: &sets, current_dir: Path::new("/") })
                .unwrap()
                .config;
        let corpus = Corpus { tokenizer_vocab_size: 1024, train_tokens: None, entropy_rate: None };
        let speed = |median: &f64| StageSpeed {
            median: *median,
            slowest: 0.8 * median,
            fastest: 1.25 * median,
            repetitions: 4,
            is_stable: *median > 1000.0,
        };
        let measured = Measured { speeds: speeds.iter().map(speed).collect(), scaled_from: None };
        lines(&config, &RunPlan::new(&config, &corpus, DeviceKind::Cpu).unwrap(), &measured)
            .join("\n")
    }

    #[test]
    fn the_plan_of_the_demo_reads_like_sentences() {
        insta::assert_snapshot!(text(&[], &[20_000.0, 5_000.0]));
    }

    #[test]
    fn a_speed_that_is_not_stable_is_a_range() {
        let text = text(&["training.steps=300"], &[20_000.0, 500.0]);
        assert!(text.contains(" tok/s\n") && text.contains(" at 400 to 625 tok/s\n"), "{text}");
        assert!(
            text.lines().any(|line| line.starts_with("time     ")
                && line.contains(" to ")
                && line.contains("not stable")),
            "{text}"
        );
    }

    #[test]
    fn schedules_are_said_in_words() {
        let table = [
            (
                &["schedule.warmup_steps=0"] as &[&str],
                "learning rate 3e-3 from the start, then cosine to 0; optimizer state reset",
            ),
            (
                &["schedule.warmup_steps=1", "schedule.kind=linear"],
                "learning rate 3e-3 after 1 warm-up step, then linear to 0;",
            ),
            (
                &["schedule.warmup_steps=12", "schedule.min_learning_rate=1e-5"],
                "learning rate 3e-3 after 12 warm-up steps, then cosine to 1e-5;",
            ),
            (
                &["schedule.warmup_steps=0", "schedule.kind=constant"],
                "learning rate 3e-3 from the start, then constant;",
            ),
            (&["optimizer.learning_rate=3"], "learning rate 3 after 9 warm-up steps"),
            (
                &["training.steps=1", "stages=[{patch_size=1}]"],
                "1 step, 4.10k tokens (4e-3 per parameter)",
            ),
            (
                &["training.steps=300", "schedule.kind=wsd"],
                "then constant, and linear to 0 over the last 20 steps;",
            ),
            (
                &["stages=[{patch_size=4,share=0.5},{patch_size=1,optimizer_state=\"keep\"}]"],
                "; optimizer state kept",
            ),
            (
                &["training.steps=2", "stages=[{patch_size=4,share=0.5},{patch_size=1}]"],
                "K = 1: 1 step of 4096 tokens (64 sequences of 64 positions, 8 at a time)",
            ),
        ];
        for (sets, expected) in table {
            let text = text(sets, &[]);
            assert!(text.contains(expected), "{sets:?}: {expected:?} is not in\n{text}");
            assert!(
                !text.contains("0e0") && !text.contains("Reset") && !text.contains("Cosine"),
                "{text}"
            );
        }
    }

    #[test]
    fn of_many_stages_the_first_and_the_last_are_listed() {
        let stages = vec!["{patch_size=1,share=0.01}"; 100].join(",");
        let text = text(
            &[&format!("stages=[{stages}]"), "training.steps=1000", "schedule.warmup_steps=50"],
            &[],
        );
        let listed = text.lines().filter(|line| line.starts_with("stage ")).count();
        assert_eq!(listed, FIRST + LAST);
        assert!(text.contains("... 91 more (stages 8 to 98); --json lists them all"), "{text}");
        assert!(text.contains("stage 100  K = 1"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("warning ")).count(), FIRST + LAST);
        assert!(text.contains("... 91 more warnings like these; --json lists them all"), "{text}");
    }
}
