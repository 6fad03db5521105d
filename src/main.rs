//! Parses, calls, prints the error and its hint, and returns the exit code.

use std::process::ExitCode;

use clap::Parser;
use patchtui::advice::{Advice, Audience};
use patchtui::cli::Cli;
use patchtui::commands;
use patchtui::report::{complain, print_help};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => return answer_directly(&answer),
    };
    match commands::dispatch(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error.message, error.hint.as_deref());
            ExitCode::from(error.exit_code)
        }
    }
}

/// Prints the help, the version, or what is wrong with the command line.
fn answer_directly(answer: &clap::Error) -> ExitCode {
    match print_help(answer) {
        Ok(()) => ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(1)),
        Err(error) => {
            complain(&error.to_string(), Some(&error.hint(Audience::Command)));
            ExitCode::FAILURE
        }
    }
}
