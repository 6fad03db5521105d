//! What `patchtui doctor` finds out. Never fails: what cannot be determined is reported as such.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::control::socket_path;
use crate::machine::devices::{Chosen, Probe};
use crate::machine::logout::Logout;
use crate::machine::memory::Memory;
use crate::machine::processor::Processor;
use crate::machine::storage::Storage;
use crate::record::RunDirectory;
use crate::text::format;
use crate::tui::{Markers, Theme};

/// Less free disk than this hardly holds one checkpoint of the demo.
const LITTLE_DISK: u64 = 1 << 30;
/// The demo needs about half of this.
const LITTLE_MEMORY: u64 = 512 << 20;

/// The findings.
#[derive(Debug, Clone, Serialize)]
pub struct Findings {
    /// Version of patchtui.
    pub version: &'static str,
    /// Whether a run can start on this machine.
    pub can_run: bool,
    /// What prevents a run from starting.
    pub problems: Vec<Finding>,
    /// What may cause trouble later.
    pub notes: Vec<Finding>,
    /// The CPU.
    pub processor: Processor,
    /// Instruction set of the kernels; `None` without an engine.
    pub kernels: Option<&'static str>,
    /// Memory in bytes.
    pub memory: Memory,
    /// Where runs are kept.
    pub disk: Storage,
    /// Devices.
    pub devices: Devices,
    /// Whether a run survives logout.
    pub logout: Logout,
    /// Where engines listen.
    pub sockets: Sockets,
    /// Properties of the terminal.
    pub terminal: Terminal,
    /// Result of the comparison with the CPU, if requested.
    #[cfg(feature = "engine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<crate::engine::self_check::Report>,
}

/// A finding and what to do about it, both without a full stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The finding.
    pub message: String,
    /// What to type or change.
    pub hint: String,
}

/// Devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Devices {
    /// Kinds of devices in this build; empty without an engine.
    pub built_in: Vec<&'static str>,
    /// Result of the driver probe.
    #[serde(flatten)]
    pub probe: Probe,
    /// What `--device auto` selects; `None` without an engine.
    pub auto: Option<Chosen>,
}

/// Where engines listen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sockets {
    /// The private folder.
    pub folder: Option<PathBuf>,
    /// Why it cannot be used; sockets are then in the run directories.
    pub problem: Option<String>,
}

/// Properties of the terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Terminal {
    /// Whether standard output is a terminal.
    pub is_terminal: bool,
    /// The value of TERM.
    pub term: Option<String>,
    /// Whether colors are used.
    pub is_coloured: bool,
    /// Whether charts use braille dots instead of ASCII.
    pub has_braille: bool,
}

/// Examines everything.
pub(super) fn examine(runs_dir: &Path) -> Findings {
    let theme = Theme::from_env();
    let built_in = built_in();
    let probe = Probe::of_this_machine(&built_in);
    let auto = (!built_in.is_empty()).then(|| probe.choose(&built_in));
    let mut findings = Findings {
        version: env!("CARGO_PKG_VERSION"),
        can_run: false,
        problems: Vec::new(),
        notes: Vec::new(),
        processor: Processor::of_this_machine(),
        #[cfg(feature = "engine")]
        kernels: Some(crate::engine::instruction_set::vector_instructions()),
        #[cfg(not(feature = "engine"))]
        kernels: None,
        memory: Memory::of_this_machine(),
        disk: Storage::of(runs_dir),
        devices: Devices { built_in, probe, auto },
        logout: Logout::of_this_process(),
        sockets: Sockets::of(runs_dir),
        terminal: Terminal {
            is_terminal: std::io::stdout().is_terminal(),
            term: std::env::var("TERM").ok().filter(|term| !term.is_empty()),
            is_coloured: theme.is_coloured,
            has_braille: theme.markers == Markers::Braille,
        },
        #[cfg(feature = "engine")]
        check: None,
    };
    findings.judge();
    findings
}

#[cfg(feature = "engine")]
fn built_in() -> Vec<&'static str> {
    crate::engine::device::BUILT_IN.to_vec()
}

#[cfg(not(feature = "engine"))]
fn built_in() -> Vec<&'static str> {
    Vec::new()
}

impl Sockets {
    fn of(runs_dir: &Path) -> Self {
        match socket_path(&RunDirectory::new(runs_dir.join("doctor"))) {
            Ok(path) => Self { folder: path.parent().map(Path::to_owned), problem: None },
            Err(error) => Self { folder: None, problem: Some(error.to_string()) },
        }
    }
}

impl Findings {
    fn problem(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Finding { message: message.into(), hint: hint.into() });
    }

    fn note(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        self.notes.push(Finding { message: message.into(), hint: hint.into() });
    }

    /// Turns the findings into problems and notes.
    fn judge(&mut self) {
        if self.devices.built_in.is_empty() {
            self.problem(
                "this patchtui was built without its engine: it can attach to runs, but not train",
                "build it without --no-default-features",
            );
        }
        if let Some(problem) = self.disk.problem.clone() {
            self.problem(problem, "choose another folder: --runs-dir DIR, or PATCHTUI_RUNS_DIR");
        }
        if let Some(free) = self.disk.free.filter(|free| *free < LITTLE_DISK) {
            self.note(
                format!("only {} of disk space is free for runs", format::bytes(free)),
                "see what a run will write: patchtui plan CONFIG",
            );
        }
        if let Some(kind) = self.disk.network {
            self.note(
                format!("runs would be kept on {kind}, whose locks may not hold between machines"),
                "keep them on a local disk: --runs-dir DIR",
            );
        }
        if let Some(available) =
            self.memory.available.filter(|available| *available < LITTLE_MEMORY)
        {
            self.note(
                format!("only {} of memory is available", format::bytes(available)),
                "see what a run needs: patchtui plan CONFIG",
            );
        }
        if let Some(problem) = self.devices.probe.problem.clone() {
            self.note(problem, "check the GPU driver; the CPU works without it");
        }
        if !self.logout.survives {
            let hint = self.logout.hint.clone().unwrap_or_default();
            self.note(format!("runs will not survive logout: {}", self.logout.reason), hint);
        }
        if let Some(problem) = self.sockets.problem.clone() {
            self.note(
                format!("{problem}; engines listen in their run directories instead"),
                "set PATCHTUI_SOCKET_DIR to a folder of your own",
            );
        }
    }
}

#[cfg(feature = "engine")]
mod with_engine {
    use super::{Finding, Findings};
    use crate::advice::{Advice, Audience, Failure};
    use crate::cli::{ConfigArgs, DoctorArgs};
    use crate::commands::Runs;
    use crate::commands::check::check_device;
    use crate::config::DeviceChoice;
    use crate::engine::device::find_device;

    impl Findings {
        /// Opens the requested device and, with --check, compares it with the CPU.
        pub(in crate::commands::doctor) fn try_out(
            &mut self,
            args: &DoctorArgs,
            choice: DeviceChoice,
            runs: &Runs,
        ) -> Result<(), Failure> {
            self.look_at(choice);
            self.check(args, choice, runs)
        }

        /// Reports a problem with the requested device.
        fn look_at(&mut self, choice: DeviceChoice) {
            let (objection, found) =
                (self.devices.probe.objection(choice), find_device_unless_auto(choice));
            match (objection, found) {
                (Some(problem), _) => self.problem(
                    format!("device \"{choice}\" cannot be used: {problem}"),
                    "check the GPU driver, or use --device cpu",
                ),
                (None, Some(advice)) => self.problems.push(advice),
                (None, None) => {}
            }
        }

        /// Compares the requested device with the CPU, with --check.
        fn check(
            &mut self,
            args: &DoctorArgs,
            choice: DeviceChoice,
            runs: &Runs,
        ) -> Result<(), Failure> {
            let Some(config) = args.check.as_ref().filter(|_| self.problems.is_empty()) else {
                return Ok(());
            };
            let choice = match (&self.devices.auto, choice) {
                (Some(chosen), DeviceChoice::Auto) => {
                    chosen.device.parse().unwrap_or(DeviceChoice::Cpu)
                }
                (_, named) => named,
            };
            let report = check_device(
                &ConfigArgs { config: config.clone(), sets: args.sets.clone() },
                choice,
                runs,
            )?;
            self.problems.extend(report.failure().map(|failure| Finding {
                message: failure.to_string(),
                hint: failure.hint(Audience::Command),
            }));
            self.check = Some(report);
            Ok(())
        }
    }

    /// Why the device does not exist; the drivers were probed before, in a separate process.
    fn find_device_unless_auto(choice: DeviceChoice) -> Option<Finding> {
        let named = Some(choice).filter(|choice| *choice != DeviceChoice::Auto)?;
        find_device(named).err().map(|error| Finding {
            message: error.to_string(),
            hint: error.hint(Audience::Command),
        })
    }
}
