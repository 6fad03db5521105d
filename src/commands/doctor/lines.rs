//! The findings of `patchtui doctor` as lines for people: at most 80 columns, no colors,
//! independent of the terminal.
//!
//! Start at [`lines`].

use crate::commands::doctor::findings::{Finding, Findings};
use crate::machine::memory::Memory;
use crate::text::fold::fold;
use crate::text::format::counted;
use crate::text::{format, sanitize_line};

/// Columns of the labels, including the space around them.
const INDENT: usize = 13;

/// The whole report.
#[must_use]
pub fn lines(found: &Findings) -> String {
    let mut text = format!("patchtui {}\n", found.version);
    machine(found, &mut text);
    devices(found, &mut text);
    session(found, &mut text);
    #[cfg(feature = "engine")]
    if let Some(report) = &found.check {
        check(report, &mut text);
    }
    for note in &found.notes {
        advice("note", note, &mut text);
    }
    for problem in &found.problems {
        advice("problem", problem, &mut text);
    }
    let verdict =
        if found.can_run { "Ready to train: patchtui run demo" } else { "Not ready to train." };
    text + "\n" + verdict + "\n"
}

fn machine(found: &Findings, text: &mut String) {
    text.push_str("\nmachine\n");
    let processor = &found.processor;
    let cores =
        processor.cores.map_or(String::new(), |cores| format!(", {}", counted(cores, "core")));
    let threads = format!(", {} usable", counted(processor.usable_threads, "thread"));
    row(
        "processor",
        &format!("{}{cores}{threads}", processor.model.as_deref().unwrap_or("unknown")),
        text,
    );
    row(
        "vectors",
        &format!(
            "{}; kernels: {}",
            processor.vectors(),
            found.kernels.unwrap_or("none, this build has no engine")
        ),
        text,
    );
    row("memory", &memory(&found.memory), text);
    let network = found.disk.network.map_or(String::new(), |kind| format!(" ({kind})"));
    let free = found.disk.free.map_or_else(|| "unknown".to_owned(), format::bytes);
    row("disk", &format!("{free} free{network} for {}", found.disk.folder.display()), text);
}

/// `24.9 GB available of 25.3 GB, and 11.5 GB of swap`.
fn memory(memory: &Memory) -> String {
    let Some(available) = memory.available else { return "unknown".to_owned() };
    let swap = memory.swap.unwrap_or(0);
    let total =
        memory.total.map_or_else(String::new, |total| format!(" of {}", format::bytes(total)));
    let and_swap =
        if swap > 0 { format!(", and {} of swap", format::bytes(swap)) } else { String::new() };
    let limit = memory.limit.filter(|limit| memory.total.is_none_or(|total| *limit < total));
    let limit = limit.map_or_else(String::new, |limit| {
        format!("; control group limit {}", format::bytes(limit))
    });
    format!("{} available{total}{and_swap}{limit}", format::bytes(available - swap))
}

fn devices(found: &Findings, text: &mut String) {
    text.push_str("\ndevices\n");
    let devices = &found.devices;
    row(
        "built in",
        &if devices.built_in.is_empty() { "none".to_owned() } else { devices.built_in.join(", ") },
        text,
    );
    for gpu in &devices.probe.gpus {
        let what = gpu.opened.as_ref().map_or_else(
            || "listed, but could not be opened".to_owned(),
            |opened| {
                format!(
                    "{}{}",
                    opened.description,
                    if opened.has_bf16 { "; f32, bf16" } else { "; f32" }
                )
            },
        );
        row(&gpu.name, &what, text);
    }
    if let Some(auto) = &devices.auto {
        row("auto", &format!("{}: {}", auto.device, auto.reason), text);
    }
}

fn session(found: &Findings, text: &mut String) {
    text.push_str("\nsession\n");
    let linger = found
        .logout
        .linger
        .map_or("", |linger| if linger { "; Linger=yes" } else { "; Linger=no" });
    let outcome =
        if found.logout.survives { "runs survive logout" } else { "runs will not survive logout" };
    row("logout", &format!("{outcome} ({}){linger}", found.logout.reason), text);
    let folder = found.sockets.folder.as_ref().map_or_else(
        || "in the run directories".to_owned(),
        |folder| format!("{} (usable)", folder.display()),
    );
    row("sockets", &folder, text);
    let terminal = &found.terminal;
    let colours = if terminal.is_coloured { "colors" } else { "no colors" };
    let dots = if terminal.has_braille { "braille" } else { "ASCII" };
    let term = terminal.term.as_deref().unwrap_or("TERM is not set");
    let what = if terminal.is_terminal {
        format!("{term}; {colours}, {dots}")
    } else {
        "output is not a terminal".to_owned()
    };
    row("terminal", &what, text);
}

#[cfg(feature = "engine")]
fn check(report: &crate::engine::self_check::Report, text: &mut String) {
    use std::fmt::Write;
    let _ = writeln!(text, "\nchecked: {}", sanitize_line(&report.subject()));
    for (numbers, worst) in report.rows() {
        push_wrapped(&format!("  {numbers}"), &worst, numbers.chars().count() + 2, text);
    }
}

fn row(label: &str, what: &str, text: &mut String) {
    push_wrapped(&format!("  {label:<width$} ", width = INDENT - 3), what, INDENT, text);
}

fn advice(kind: &str, advice: &Finding, text: &mut String) {
    text.push('\n');
    push_wrapped(&format!("{kind}: "), &advice.message, kind.len() + 2, text);
    push_wrapped(
        &format!("{:>width$}: ", "hint", width = kind.len()),
        &advice.hint,
        kind.len() + 2,
        text,
    );
}

/// Adds `words` after `head`, wrapped, with `indent` spaces before every further line.
fn push_wrapped(head: &str, words: &str, indent: usize, text: &mut String) {
    for line in fold(head, &sanitize_line(words), indent) {
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::text::fold::WIDTH;

    #[test]
    fn long_texts_are_broken_between_words() {
        let mut text = String::new();
        row("label", &"words and ".repeat(20), &mut text);
        assert!(
            text.lines().count() > 2 && text.lines().all(|line| line.width() <= WIDTH),
            "{text}"
        );
        assert!(
            text.lines().skip(1).all(|line| line.starts_with(&" ".repeat(INDENT))
                && !line.starts_with(&" ".repeat(INDENT + 1))),
            "{text}"
        );
    }

    #[test]
    fn no_more_memory_is_available_than_there_is() {
        let gb = |gigabytes: u64| Some(gigabytes * 1_000_000_000);
        let all = Memory { available: gb(36), swap: gb(11), limit: None, total: gb(26) };
        assert_eq!(memory(&all), "25.0 GB available of 26.0 GB, and 11.0 GB of swap");
        assert_eq!(
            memory(&Memory { swap: gb(0), available: gb(25), ..all }),
            "25.0 GB available of 26.0 GB"
        );
        assert_eq!(
            memory(&Memory { swap: gb(0), available: gb(3), limit: gb(4), ..all }),
            "3.00 GB available of 26.0 GB; control group limit 4.00 GB"
        );
        assert_eq!(memory(&Memory { available: None, ..all }), "unknown");
    }

    #[test]
    fn a_path_stays_whole() {
        let mut text = String::new();
        let path = "/a/long/folder".repeat(10);
        row("disk", &format!("1 GB free for {path}"), &mut text);
        assert!(text.contains(&path), "{text}");
    }

    #[test]
    fn text_from_outside_is_made_harmless() {
        let mut text = String::new();
        row("processor", "bad\u{1b}[2Jname", &mut text);
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
