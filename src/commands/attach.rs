//! `patchtui attach`: finds a run and shows it until the user detaches.

use std::io;

use crate::advice::Failure;
use crate::commands::{Runs, sender_name};
use crate::control::{check_reachable, connect};
use crate::machine::terminal::screen_problem;
use crate::record::RunDirectory;
use crate::report::{end_text, print};
use crate::text::format::shell_word;
use crate::text::sanitize_line;
use crate::tui::{self, Access, Opening, TuiExit, TuiOptions};

/// Finds the run `run`; without a name the newest running run, else the newest run.
pub fn find(run: Option<&str>, runs: &Runs) -> Result<RunDirectory, Failure> {
    Ok(match run {
        Some(text) => runs.find(text)?,
        None => runs.index.newest(&runs.folder)?,
    })
}

/// Shows `directory` on the terminal until the user detaches. Returns the exit code: 0 after
/// detaching, else the run's.
///
/// # Errors
/// When no screen can be shown here, the run accepts signals only, or the terminal fails.
pub fn watch(directory: &RunDirectory) -> Result<u8, Failure> {
    // Before the engine is asked for anything.
    if let Some(problem) = screen_problem() {
        return Err(terminal_error(
            directory,
            &io::Error::new(io::ErrorKind::Unsupported, problem),
        ));
    }
    check_reachable(directory)?;
    let (name, link) = (directory.name(), || connect(directory.clone(), sender_name("keyboard")));
    let exit = show(|| Opening::Run { name, access: Access::Steer, link: link() })
        .map_err(|error| terminal_error(directory, &error))?;
    match exit {
        TuiExit::Left | TuiExit::Detached => {
            let again = format!("patchtui attach {}", shell_word(&directory.name()));
            print(
                &(sanitize_line(&format!(
                    "{} continues in the background. Reattach with: {again}",
                    directory.name()
                )) + "\n"),
            )?;
            Ok(0)
        }
        TuiExit::RunEnded(end) => {
            print(&end_text(Some(directory.path()), None, &end))?;
            Ok(end.outcome.exit_code())
        }
        TuiExit::EngineGone => Err(engine_gone(directory)),
    }
}

/// Runs the screen that `opening` makes, in its own runtime, until the user detaches.
pub(crate) fn show(opening: impl FnOnce() -> Opening) -> io::Result<TuiExit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exit = runtime.block_on(async { tui::run(opening(), TuiOptions::new()).await });
    // No background task may delay the exit.
    runtime.shutdown_background();
    exit
}

/// The screen of a run cannot be shown: the terminal is unsuitable, or it failed.
pub(crate) fn terminal_error(directory: &RunDirectory, error: &io::Error) -> Failure {
    let status = format!("patchtui ctl {} status", shell_word(&directory.name()));
    match error.kind() {
        io::ErrorKind::Unsupported => {
            no_screen(&error.to_string(), &format!("print the state of the run with: {status}"))
        }
        _ => Failure::failed(
            format!("cannot use the terminal: {error}"),
            format!("the run is not affected; print its state with: {status}"),
        ),
    }
}

/// The error if the terminal cannot show a screen.
pub(crate) fn no_screen(problem: &str, instead: &str) -> Failure {
    let message = format!("cannot show a screen: {problem}");
    Failure::usage(
        message,
        format!("use a terminal and set TERM to its type, e.g. TERM=xterm-256color; or {instead}"),
    )
}

/// The engine's process ended without a last event.
fn engine_gone(directory: &RunDirectory) -> Failure {
    let log = directory.engine_log();
    let has_log = std::fs::metadata(&log).is_ok_and(|metadata| metadata.len() > 0);
    let look = if has_log {
        format!("; its log: less {}", shell_word(&log.to_string_lossy()))
    } else {
        String::new()
    };
    Failure::failed(
        format!(
            "the engine of {} ended without reporting why: it was killed or ran out of memory",
            directory.name()
        ),
        format!(
            "resume from its last checkpoint: patchtui resume {}{look}",
            shell_word(&directory.name())
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_kill_the_hint_says_how_to_go_on_and_names_only_a_log_that_says_something() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::create(folder.path().join("my books")).unwrap();
        let hint = || engine_gone(&directory).hint.unwrap();
        std::fs::write(directory.engine_log(), "").unwrap();
        assert_eq!(hint(), "resume from its last checkpoint: patchtui resume 'my books'");
        std::fs::write(directory.engine_log(), "out of memory").unwrap();
        assert!(
            hint().starts_with(
                "resume from its last checkpoint: patchtui resume 'my books'; its log: less "
            ),
            "{}",
            hint()
        );
    }
}
