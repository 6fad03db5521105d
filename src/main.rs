//! Parses, calls, prints the error and its hint, and returns the exit code.

use std::process::ExitCode;

use clap::Parser;
use patchtui::cli::Cli;
use patchtui::commands;
use patchtui::report::complain;

fn main() -> ExitCode {
    match commands::dispatch(Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error.message, error.hint.as_deref());
            ExitCode::from(error.exit_code)
        }
    }
}
