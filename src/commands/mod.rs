//! One file per subcommand: wiring only, nothing that decides.
//!
//! May know every layer, and is known by none but `main`. Start at the file that is named like the subcommand.

pub mod config;
pub mod tokenizer;
//! What the subcommands do: wiring only. The only place that knows that engines, screens and scripts all exist.
//! Start at the file with the name of the subcommand.
pub mod attach;
pub mod ctl;
pub mod engine_process;
pub mod launch;
pub mod runs;
use std::path::PathBuf;
use thiserror::Error;
use crate::control::ControlError;
use crate::run::{FindError, RunIndex};
/// Where runs are looked for.
#[derive(Debug, Clone)]
pub struct Runs {
    /// The folder of runs: `--runs-dir`.
    pub folder: PathBuf,
    /// The index of runs elsewhere.
    pub index: RunIndex,
}
/// Why a subcommand that looks at runs failed.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The run was not found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Its engine could not be asked.
    #[error(transparent)]
    Control(#[from] ControlError),
}
impl Runs {
    /// The runs in `folder` and in the user's index.
    #[must_use]
    pub fn of_user(folder: PathBuf) -> Self {
        Self { folder, index: RunIndex::of_user() }
    }
}
impl CommandError {
    /// What to type next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Find(error) => error.hint(),
            Self::Control(error) => error.hint(),
        }
    }
}
/// Who sends a command from this process through `face`, like `"keyboard of alice"`.
#[must_use]
pub fn sender_name(face: &str) -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()).filter(|user| !user.is_empty());
    user.map_or_else(|| face.to_owned(), |user| format!("{face} of {user}"))
}
