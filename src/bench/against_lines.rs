//! Two frameworks side by side, as lines for people: at most 80 columns wide.

use crate::bench::against_document::{CheckDocument, CheckStage, Contest, RaceDocument, RaceStage};
use crate::bench::lines::{cpu_lines, folded, joined, steps_text};
use crate::bench::median;
use crate::text::format;

/// Times of both frameworks.
pub(super) fn race_text(document: &RaceDocument) -> String {
    let rounds = document.stages.first().map_or(0, |stage| stage.rounds.len());
    let contest = &document.contest;
    let mut lines =
        contest_lines(contest, &steps_text(rounds, contest.measured_steps, contest.warmup_steps));
    for stage in &document.stages {
        lines.push(String::new());
        lines.extend(race_lines(stage));
    }
    joined(&lines)
}

/// Losses of both frameworks.
pub(super) fn check_text(document: &CheckDocument) -> String {
    let contest = &document.contest;
    let mut lines = contest_lines(contest, "losses from the same weights and tokens");
    for stage in &document.stages {
        lines.push(String::new());
        lines.extend(check_lines(stage));
    }
    let judged = match (document.tolerance, document.is_within) {
        (Some(tolerance), Some(true)) => format!("within {tolerance:e}: the losses agree"),
        (Some(tolerance), _) => format!("above {tolerance:e}: the losses differ"),
        (None, _) => "not judged: bf16 and GPU tensor cores round differently".to_owned(),
    };
    lines.push(String::new());
    lines.extend(folded(
        "largest",
        &format!("difference {:.2e} nats, {judged}", document.largest_difference),
    ));
    joined(&lines)
}

fn contest_lines(contest: &Contest, what: &str) -> Vec<String> {
    let Contest { pytorch, mode, config, device, .. } = contest;
    let computing = format!("{device}, {} each", format::counted(contest.threads, "thread"));
    let parameters = format::count(contest.num_parameters);
    let mut lines = folded(
        "against",
        &format!("PyTorch {} ({mode}), Python {}", pytorch.torch, pytorch.python),
    );
    lines.extend(folded(
        "bench",
        &format!("{config}, {parameters} parameters, on {computing}; {what}"),
    ));
    lines.extend(cpu_lines(&contest.cpu));
    lines
}

fn race_lines(stage: &RaceStage) -> Vec<String> {
    let row = |label: &str, cells: [String; 5]| {
        let [ours, theirs, ratio, our_memory, their_memory] = cells;
        format!("{label:<18}{ours:>15}{theirs:>14}{ratio:>7}{our_memory:>12}{their_memory:>12}")
    };
    let memory = |bytes: Option<u64>| bytes.map_or_else(|| "-".into(), format::bytes);
    let head =
        ["patchtui tok/s", "PyTorch tok/s", "ratio", "memory", "PyTorch mem"].map(str::to_owned);
    let mut lines = vec![row(&format!("stage {}, K = {}", stage.stage, stage.patch_size), head)];
    for (idx, round) in stage.rounds.iter().enumerate() {
        let (ours, theirs) = (&round.patchtui, &round.pytorch);
        let cells = [
            format::rate(ours.tokens_per_second),
            format::rate(theirs.tokens_per_second),
            format!("{:.2}", round.ratio),
            memory(ours.peak_memory_bytes),
            memory(theirs.peak_memory_bytes),
        ];
        lines.push(row(&format!("  round {}", idx + 1), cells));
    }
    let [ours, theirs] = [
        median(stage.rounds.iter().map(|round| round.patchtui.tokens_per_second)),
        median(stage.rounds.iter().map(|round| round.pytorch.tokens_per_second)),
    ];
    let share = stage.memory_ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2} of"));
    lines.push(row(
        "  median",
        [
            format::rate(ours),
            format::rate(theirs),
            format!("{:.2}", stage.median_ratio),
            share,
            "PyTorch's".into(),
        ],
    ));
    lines
}

fn check_lines(stage: &CheckStage) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<18}{:>14}{:>14}{:>14}",
        format!("stage {}, K = {}", stage.stage, stage.patch_size),
        "patchtui",
        "PyTorch",
        "difference"
    )];
    for (idx, (ours, theirs)) in stage.patchtui_losses.iter().zip(&stage.pytorch_losses).enumerate()
    {
        lines.push(format!(
            "{:<18}{ours:>14.6}{theirs:>14.6}{:>14.2e}",
            format!("  step {}", idx + 1),
            (ours - theirs).abs()
        ));
    }
    lines
}
