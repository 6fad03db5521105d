//! `patchtui doctor`: describes this machine and what a run would use, and finds what would prevent
//! one.
//!
//! Changes nothing except creating a private folder for sockets. Start at [`doctor`].

pub mod findings;
pub mod lines;

use crate::advice::Failure;
use crate::cli::DoctorArgs;
use crate::commands::{Runs, parse_device};
use crate::report::{print, print_json};

/// Examines this machine and prints the findings. Returns 0 if a run can start, else 1.
///
/// # Errors
/// When the arguments name something that does not exist.
pub fn doctor(args: &DoctorArgs, runs: &Runs) -> Result<u8, Failure> {
    let choice = parse_device(args.device.as_deref().unwrap_or("auto"))?;
    let mut findings = findings::examine(&runs.folder);
    #[cfg(feature = "engine")]
    findings.try_out(args, choice, runs)?;
    #[cfg(not(feature = "engine"))]
    let _ = choice;
    findings.can_run = findings.problems.is_empty();
    if args.json {
        let document = serde_json::to_string_pretty(&findings)
            .map_err(|error| Failure::failed(error.to_string(), "retry without --json"))?;
        print_json(&document)?;
    } else {
        print(&lines::lines(&findings))?;
    }
    Ok(u8::from(!findings.can_run))
}
