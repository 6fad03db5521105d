//! `patchtui checkpoint`: lists, verifies and prunes the checkpoints of a run.

use std::fmt::Write;
use std::num::NonZero;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::advice::Failure;
use crate::cli::{AlsoPrune, CheckpointCommand, PruneArgs};
use crate::commands::Runs;
use crate::host::run_config;
use crate::record::{
    Checkpoints, Choice, KeepRule, ListedCheckpoint, LockError, RunDirectory, RunLock,
};
use crate::report::{checkpoints_table, print, print_json, tell};
use crate::text::format;
use crate::text::format::shell_word;
use crate::text::sanitize_line;

/// Periodic checkpoints to keep if the run's configuration cannot be read.
const KEEP: usize = 3;

/// Runs a subcommand of `checkpoint`. Returns the exit code.
///
/// # Errors
/// When there is no such run, or its checkpoints cannot be read or deleted.
pub fn checkpoint(command: &CheckpointCommand, runs: &Runs) -> Result<u8, Failure> {
    match command {
        CheckpointCommand::Ls { run, json } => ls(&runs.find(run)?, *json),
        CheckpointCommand::Verify { run, json } => verify(&runs.find(run)?, *json),
        CheckpointCommand::Prune(args) => prune(&runs.find(&args.run)?, args),
    }
}

fn ls(directory: &RunDirectory, json: bool) -> Result<u8, Failure> {
    let listed = Checkpoints::new(directory, 0).list()?;
    if json {
        print_json(&json!({ "run": directory.name(), "checkpoints": listed.iter().map(document).collect::<Vec<_>>() }).to_string())?;
    } else if listed.is_empty() {
        tell(&no_checkpoints(directory));
    } else {
        print(&checkpoints_table(&listed, Timestamp::now()))?;
        tell(&format!(
            "Checked names and sizes; to check every byte: patchtui checkpoint verify {}",
            shell_word(&directory.name())
        ));
    }
    Ok(0)
}

/// Checks every byte of every checkpoint. Returns 1 if one is not valid.
fn verify(directory: &RunDirectory, json: bool) -> Result<u8, Failure> {
    let checkpoints = Checkpoints::new(directory, 0);
    let (mut documents, mut num_checked, mut is_valid) = (Vec::new(), 0, true);
    for path in checkpoints.candidates()? {
        let problem = match checkpoints.verify(&path, &|| false) {
            Ok(_) => None,
            // The engine has pruned it in the meantime.
            Err(_) if !path.exists() => continue,
            Err(error) => Some(error.to_string()),
        };
        num_checked += 1;
        is_valid &= problem.is_none();
        let name = file_name(&path);
        match (json, problem) {
            (true, problem) => documents.push(json!({ "name": name, "path": path.to_string_lossy(), "valid": problem.is_none(), "problem": problem })),
            (false, None) => print(&format!("{name}  valid\n"))?,
            (false, Some(problem)) => print(&(sanitize_line(&format!("{name}  not valid: {problem}")) + "\n"))?,
        }
    }
    if json {
        print_json(
            &json!({ "run": directory.name(), "valid": is_valid, "checkpoints": documents })
                .to_string(),
        )?;
    } else if num_checked == 0 {
        tell(&no_checkpoints(directory));
    }
    Ok(u8::from(!is_valid))
}

fn prune(directory: &RunDirectory, args: &PruneArgs) -> Result<u8, Failure> {
    let keep = args.keep.map_or_else(
        || run_config(directory).map_or(KEEP, |config| config.checkpoint.keep),
        NonZero::get,
    );
    let also = |what| args.also.contains(&what);
    let rule = KeepRule {
        keep,
        prunes_permanent: also(AlsoPrune::Permanent),
        prunes_best: also(AlsoPrune::Best),
        prunes_damaged: also(AlsoPrune::Damaged),
    };
    // The engine prunes after every save by the run's own rule; two concurrent prunes could keep
    // too few.
    let _lock = RunLock::acquire(directory).map_err(|error| running(directory, error))?;
    let checkpoints = Checkpoints::new(directory, keep);
    let chosen = checkpoints.choose(&rule)?;
    if !args.dry_run {
        for (checkpoint, _) in chosen.iter().filter(|(_, choice)| choice.deletes()) {
            checkpoints.delete(&checkpoint.path)?;
        }
    }
    let freed = chosen
        .iter()
        .filter(|(_, choice)| choice.deletes())
        .map(|(checkpoint, _)| checkpoint.bytes)
        .sum();
    if args.json {
        let documents: Vec<_> = chosen
            .iter()
            .map(|(checkpoint, choice)| pruned_document(checkpoint, *choice))
            .collect();
        print_json(&json!({ "run": directory.name(), "dry_run": args.dry_run, "keep": keep, "freed_bytes": freed, "checkpoints": documents }).to_string())?;
    } else {
        print(&pruned_lines(&chosen, args.dry_run, freed))?;
    }
    Ok(0)
}

/// What pruning has deleted or would delete, line by line.
fn pruned_lines(chosen: &[(ListedCheckpoint, Choice)], dry_run: bool, freed: u64) -> String {
    let (delete, free) =
        if dry_run { ("would delete", "would free") } else { ("deleted", "freed") };
    let mut text = String::new();
    for (checkpoint, choice) in chosen {
        let done = if choice.deletes() { delete } else { "kept" };
        let _ = writeln!(
            text,
            "{done}  {}  {}  ({})",
            file_name(&checkpoint.path),
            format::bytes(checkpoint.bytes),
            choice.reason()
        );
    }
    let deleted = chosen.iter().filter(|(_, choice)| choice.deletes()).count();
    text + &format!(
        "{free} {} in {deleted} of {} checkpoints\n",
        format::bytes(freed),
        chosen.len()
    )
}

fn document(checkpoint: &ListedCheckpoint) -> Value {
    let manifest = checkpoint.manifest.as_ref();
    json!({
        "name": file_name(&checkpoint.path),
        "path": checkpoint.path.to_string_lossy(),
        "step": checkpoint.step,
        "stage": manifest.map(|manifest| manifest.stage),
        "patch_size": manifest.map(|manifest| manifest.patch_size),
        "token_loss": manifest.and_then(|manifest| manifest.token_loss),
        "permanent": checkpoint.is_permanent(),
        "best": checkpoint.is_best,
        "bytes": checkpoint.bytes,
        "created_at": manifest.map(|manifest| manifest.created_at.as_str()),
        "valid": checkpoint.problem.is_none(),
        "problem": checkpoint.problem.as_ref().map(ToString::to_string),
    })
}

fn pruned_document(checkpoint: &ListedCheckpoint, choice: Choice) -> Value {
    json!({
        "name": file_name(&checkpoint.path),
        "step": checkpoint.step,
        "bytes": checkpoint.bytes,
        "deleted": choice.deletes(),
        "reason": choice.reason(),
    })
}

fn running(directory: &RunDirectory, error: LockError) -> Failure {
    match error {
        LockError::Alive { .. } => {
            let hint = format!(
                "a running run prunes its own checkpoints (checkpoint.keep); stop it first: \
                 patchtui ctl {} stop",
                shell_word(&directory.name())
            );
            Failure::usage(error.to_string(), hint)
        }
        error => error.into(),
    }
}

fn no_checkpoints(directory: &RunDirectory) -> String {
    format!("{} has no checkpoints", sanitize_line(&directory.name()))
}

fn file_name(path: &Path) -> String {
    sanitize_line(&path.file_name().unwrap_or_default().to_string_lossy())
}
