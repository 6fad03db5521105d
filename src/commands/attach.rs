//! `patchtui attach`: finds a run and shows it until the user leaves.

use std::io;

use crate::commands::{CommandError, Runs, sender_name};
use crate::control::{check_reachable, connect};
use crate::report::format::shell_word;
use crate::report::{end_text, print};
use crate::run::RunDirectory;
use crate::tui::{self, TuiExit, TuiOptions};

/// The run that `run` means; without a name the newest that is alive, or else the newest.
pub fn find(run: Option<&str>, runs: &Runs) -> Result<RunDirectory, CommandError> {
    Ok(match run {
        Some(text) => runs.index.find(text, &runs.folder)?,
        None => runs.index.newest(&runs.folder)?,
    })
}

/// Shows `directory` on the terminal until the user leaves. Returns the exit code: 0 on leaving a run that goes on, else the run's.
///
/// # Errors
/// When the run listens to signals only, or the terminal cannot be used.
pub fn watch(directory: &RunDirectory) -> Result<u8, CommandError> {
    check_reachable(directory)?;
    let broken = |error: io::Error| {
        CommandError::failed(format!("the terminal: {error}"), format!("the run is not touched by this; try: patchtui ctl {} status", directory.name()))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
    let exit = runtime.block_on(async { tui::run(connect(directory.clone(), sender_name("keyboard")), TuiOptions::new(directory.name())).await });
    // Nothing behind the screen may hold the process up.
    runtime.shutdown_background();
    let again = format!("patchtui attach {}", shell_word(&directory.name()));
    match exit.map_err(broken)? {
        TuiExit::Detached => {
            print(&format!("{} goes on in the background. Come back with: {again}\n", directory.name()));
            Ok(0)
        }
        TuiExit::RunEnded(end) => {
            print(&end_text(Some(directory.path()), None, &end));
            Ok(end.outcome.exit_code())
        }
        TuiExit::EngineGone => Err(CommandError::failed(
            format!("the engine of {} is gone and did not say why", directory.name()),
            format!("read its log: less {}", shell_word(&directory.engine_log().display().to_string())),
        )),
    }
}
