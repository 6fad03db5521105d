//! The results of `bench train` as a table for people: at most 80 columns wide.

use crate::bench::document::{CpuDocument, StageDocument, TrainDocument};
use crate::text::fold::fold;
use crate::text::format::counted;
use crate::text::{format, sanitize_line};

/// Stages per block of columns.
const SIDE_BY_SIDE: usize = 4;
/// Width of the row labels, and of a column.
const LABEL: usize = 24;
const COLUMN: usize = 14;

/// The document as lines.
pub(super) fn train_text(document: &TrainDocument) -> String {
    let mut lines = head_lines(document);
    for stages in document.stages.chunks(SIDE_BY_SIDE) {
        lines.push(String::new());
        lines.extend(stage_lines(stages));
    }
    lines.push(String::new());
    let sources: Vec<&str> =
        document.stages.iter().map(|stage| stage.peak_memory_source.as_str()).collect();
    if let Some(source) = sources.first() {
        lines.extend(folded("memory", source));
    }
    for warning in &document.warnings {
        lines.extend(folded("warning", warning));
    }
    joined(&lines)
}

fn head_lines(document: &TrainDocument) -> Vec<String> {
    let steps = steps_text(document.rounds, document.measured_steps, document.warmup_steps);
    let computing = format!("{}, {}", document.device, counted(document.threads, "thread"));
    let mut lines = folded(
        "bench",
        &format!(
            "{}, {} parameters, on {computing}; {steps}",
            document.config,
            format::count(document.num_parameters)
        ),
    );
    lines.extend(cpu_lines(&document.cpu));
    let peak = &document.matmul_peak;
    let speed = format::flops(peak.flops_per_second);
    lines.extend(folded(
        "peak",
        &format!("{speed}/s in an f32 product of {0} x {0} x {0}", peak.size),
    ));
    if let Some(sheet) = &document.data_sheet {
        let [single, half] =
            [sheet.f32_flops_per_second, sheet.bf16_flops_per_second].map(format::flops);
        lines.extend(folded(
            "sheet",
            &format!("{}: {single}/s in f32, {half}/s in bf16", sheet.gpu),
        ));
    }
    lines
}

/// How many steps were measured.
pub(super) fn steps_text(rounds: usize, measured: usize, warmup: usize) -> String {
    let steps = format!("{} after {}", counted(measured, "step"), counted(warmup, "warm-up step"));
    if rounds == 1 { steps } else { format!("{} of {steps} each", counted(rounds, "round")) }
}

/// The CPU and the instruction sets used on it.
pub(super) fn cpu_lines(cpu: &CpuDocument) -> Vec<String> {
    let model = cpu.model.as_deref().unwrap_or("unknown model");
    let mut lines = folded("cpu", &format!("{model}: {}", cpu.flags.join(" ")));
    lines.extend(folded("kernels", &format!("{}; matrix products {}", cpu.kernels, cpu.matmul)));
    lines
}

fn stage_lines(stages: &[StageDocument]) -> Vec<String> {
    let row = |label: &str, cell: &dyn Fn(&StageDocument) -> String| {
        stages.iter().fold(format!("{label:<LABEL$}"), |line, stage| {
            line + &format!("{:>COLUMN$}", cell(stage))
        })
    };
    let mut lines = vec![
        row("", &|stage| format!("stage {}", stage.stage)),
        row("patch size K", &|stage| stage.patch_size.to_string()),
        row("tokens per step", &|stage| stage.tokens_per_step.to_string()),
        row("micro-batches", &|stage| {
            format!(
                "{} of {}x{}",
                stage.num_micro_batches, stage.micro_batch_size, stage.context_length
            )
        }),
        row("step, median", &|stage| milliseconds(stage.step_seconds)),
    ];
    for (idx, (name, _)) in stages[0].parts.named().into_iter().enumerate() {
        let part = |stage: &StageDocument| {
            let seconds = stage.parts.named()[idx].1;
            format!("{} {:>3.0}%", milliseconds(seconds), 100.0 * seconds / stage.step_seconds)
        };
        lines.push(row(&format!("  {name}"), &part));
    }
    lines.push(row("tokens/s", &|stage| format::rate(stage.tokens_per_second)));
    lines.push(row("positions/s", &|stage| format::rate(stage.positions_per_second)));
    lines.push(row("compute", &|stage| format!("{}/s", format::flops(stage.flops_per_second))));
    lines.push(row("  of measured peak", &|stage| percent(Some(stage.share_of_matmul_peak))));
    if stages[0].mfu_f32.is_some() {
        lines.push(row("  of f32 data sheet", &|stage| percent(stage.mfu_f32)));
        lines.push(row("  of bf16 data sheet", &|stage| percent(stage.mfu_bf16)));
    }
    lines.push(row("peak memory", &|stage| {
        stage.peak_memory_bytes.map_or_else(|| "-".into(), format::bytes)
    }));
    if stages[0].speed_to_token_stage.is_some() {
        lines.push(row("tokens/s against K = 1", &|stage| {
            stage.speed_to_token_stage.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"))
        }));
    }
    lines
}

/// `12.3 ms`, `1.23 s`: three significant digits.
pub(super) fn milliseconds(seconds: f64) -> String {
    match seconds * 1e3 {
        ms if ms < 0.0995 => format!("{ms:.3} ms"),
        ms if ms < 999.5 => format!("{} ms", format::significant(ms)),
        _ => format!("{} s", format::significant(seconds)),
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".into(), |share| format!("{:.1} %", 100.0 * share))
}

/// `text` after its `label`, wrapped.
pub(super) fn folded(label: &str, text: &str) -> Vec<String> {
    fold(&format!("{label:<9}"), text, 9)
}

/// The lines as one text, safe for a terminal.
pub(super) fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| sanitize_line(line).trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::fold::WIDTH;

    #[test]
    fn long_lines_are_folded_between_words() {
        let text = vec!["word"; 40].join(" ");
        let lines = folded("cpu", &text);
        assert!(lines.len() > 1 && lines.iter().all(|line| line.len() <= WIDTH), "{lines:?}");
        assert!(
            lines[0].starts_with("cpu      word word") && lines[1].starts_with("         word"),
            "{lines:?}"
        );
        assert_eq!(lines.join(" ").split_whitespace().count(), 41);
    }

    #[test]
    fn times_have_three_digits() {
        assert_eq!(
            [0.000_012, 0.000_4, 0.012_34, 0.9994, 12.3].map(milliseconds),
            ["0.012 ms", "0.40 ms", "12.3 ms", "999 ms", "12.3 s"]
        );
    }
}
