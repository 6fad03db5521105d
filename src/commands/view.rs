//! `patchtui view`: shows a run from its files, whether or not it is running.

use std::io::{self, IsTerminal};

use crate::advice::Failure;
use crate::commands::attach::{show, terminal_error};
use crate::control::follow;
use crate::host::altered;
use crate::record::{History, RunDirectory, RunSummary};
use crate::report::{print, status_text};
use crate::tui::{Access, Opening};

/// Shows `directory` until the user quits; without a terminal, prints its status. Returns the exit
/// code.
///
/// # Errors
/// When the files cannot be read, the terminal cannot show a screen, or it fails.
pub fn view(directory: &RunDirectory) -> Result<u8, Failure> {
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        let name = directory.name();
        show(|| Opening::Run {
            name,
            access: Access::Read,
            link: follow(directory.clone(), altered),
        })
        .map_err(|error| terminal_error(directory, &error))?;
    } else {
        let files_error = |error: io::Error| Failure::io(directory.path(), &error);
        let summary = RunSummary::read(directory).map_err(files_error)?;
        let (history, _) = History::read(directory).map_err(files_error)?;
        let history = History { altered: altered(directory), ..history };
        print(&status_text(&summary, &history, None))?;
    }
    Ok(0)
}
