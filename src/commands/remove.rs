//! `patchtui runs rm`: removes runs after asking.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};

use crate::advice::Failure;
use crate::cli::RemoveArgs;
use crate::commands::Runs;
use crate::record::{Removal, RunSummary};
use crate::report::{print, warn};
use crate::text::{format, sanitize_line};

/// Removes runs. Returns the exit code.
///
/// Checks all of them first: if one cannot be removed, none is.
///
/// # Errors
/// When one is running or is not a run, or the file system refuses.
pub fn remove(args: &RemoveArgs, runs: &Runs) -> Result<u8, Failure> {
    let mut removals: Vec<Removal> = Vec::new();
    let mut lines = Vec::new();
    for text in &args.runs {
        let directory = runs.find(text)?;
        if removals.iter().any(|removal| *removal.directory() == directory) {
            continue;
        }
        // Read before locking: a locked run would look running.
        let summary =
            RunSummary::read(&directory).map_err(|error| Failure::io(directory.path(), &error))?;
        let removal = Removal::begin(&directory)?;
        check_others(&removal, args)?;
        lines.push(format!(
            "{} ({}, {}) in {}",
            summary.name,
            summary.state.word(),
            format::bytes(summary.bytes),
            directory.path().display()
        ));
        removals.push(removal);
    }
    if !args.yes && !ask(&lines)? {
        print("nothing removed\n")?;
        return Ok(0);
    }
    for (removal, line) in removals.into_iter().zip(lines) {
        let followed = removal.links().to_vec();
        let name = runs.folder.join(removal.directory().name());
        removal.finish(&runs.index)?;
        // The folder of runs may have held a link to the run, which is dangling now.
        if name.is_symlink() && !name.exists() {
            let _ = fs::remove_file(name);
        }
        print(&(sanitize_line(&format!("removed {line}")) + "\n"))?;
        for (link, target) in followed {
            warn(&format!(
                "{} was a link to {}, which was not removed",
                link.display(),
                target.display()
            ));
        }
    }
    Ok(0)
}

/// Refuses a directory that holds more than a run, unless asked.
fn check_others(removal: &Removal, args: &RemoveArgs) -> Result<(), Failure> {
    let others = removal.others();
    if others.is_empty() || args.all_files {
        return Ok(());
    }
    let path = removal.directory().path().display();
    let message =
        format!("{path} also contains files that patchtui did not write: {}", others.join(", "));
    Err(Failure::usage(message, "move them elsewhere, or add --all-files to remove them as well"))
}

/// Asks whether to remove the runs in `lines`.
fn ask(lines: &[String]) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(
            "cannot ask for confirmation without a terminal",
            "add --yes to remove without asking",
        ));
    }
    let failed = |error: io::Error| {
        Failure::failed(
            format!("cannot ask on this terminal: {error}"),
            "add --yes to remove without asking",
        )
    };
    let mut out = io::stderr();
    for line in lines {
        writeln!(out, "{}", sanitize_line(line)).map_err(failed)?;
    }
    let what = if lines.len() == 1 {
        "this run".to_owned()
    } else {
        format!("these {} runs", lines.len())
    };
    write!(out, "Remove {what} with all checkpoints? This cannot be undone. [y/N] ")
        .and_then(|()| out.flush())
        .map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
