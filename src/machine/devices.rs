//! Probes devices in a separate process, since a broken driver can hang or kill its caller.
//!
//! Returns names and descriptions. A build without GPU support starts no process. Start at
//! [`Probe::of_this_machine`] for the list of devices, and at [`Probe::choose`] for the one that a
//! run uses.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::advice::{Advice, Audience};
use crate::config::DeviceChoice;

/// A driver that takes longer counts as hung; starting one takes a second or two.
const LIMIT: Duration = Duration::from_secs(20);
/// Polling interval for the end of the process once it has closed its output.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// A GPU listed by its driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundGpu {
    /// Its name for `--device`, e.g. `cuda:0`.
    pub name: String,
    /// Its description; `None` if it could not be opened.
    pub opened: Option<OpenedGpu>,
}

/// A GPU that could be opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedGpu {
    /// Name, target and driver.
    pub description: String,
    /// Whether it is real hardware and not a software renderer.
    pub is_card: bool,
    /// Whether it supports bf16.
    pub has_bf16: bool,
}

/// A line of output of the probing process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeLine {
    /// The driver lists this device.
    Listed(String),
    /// The device was opened.
    Opened(String, OpenedGpu),
}

/// The result of the probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// GPUs, best first.
    pub gpus: Vec<FoundGpu>,
    /// Why the list may be incomplete: the probing process crashed or hung.
    pub problem: Option<String>,
}

/// The device that a run uses, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chosen {
    /// Its name for `--device`.
    pub device: String,
    /// One sentence without a full stop.
    pub reason: String,
}

/// A driver crashed or hung on the requested device.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("device \"{choice}\" cannot be used: {problem}")]
pub struct DriverError {
    /// The device.
    pub choice: DeviceChoice,
    /// What the driver did.
    pub problem: String,
}

impl Advice for DriverError {
    fn hint(&self, _audience: Audience<'_>) -> String {
        "check the GPU driver, or use --device cpu".into()
    }
}

impl Probe {
    /// Probes the drivers of this machine for the kinds of devices in `built_in`.
    #[must_use]
    pub fn of_this_machine(built_in: &[&str]) -> Self {
        if !has_gpus(built_in) {
            return Self::default();
        }
        match std::env::current_exe() {
            Ok(program) => {
                let mut command = Command::new(program);
                command.arg("probe-devices");
                Self::of(command, LIMIT)
            }
            Err(error) => Self {
                gpus: Vec::new(),
                problem: Some(format!("cannot find the patchtui executable: {error}")),
            },
        }
    }

    /// The output of `command` within `limit`, parsed.
    #[must_use]
    pub fn of(mut command: Command, limit: Duration) -> Self {
        let mut probe = Self::default();
        let mut child =
            match command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
            {
                Ok(child) => child,
                Err(error) => {
                    return Self {
                        problem: Some(format!("cannot probe the drivers: {error}")),
                        ..probe
                    };
                }
            };
        let (send, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            // This thread ends with the process; other lines that a driver prints are ignored.
            thread::spawn(move || {
                BufReader::new(stdout)
                    .lines()
                    .map_while(Result::ok)
                    .try_for_each(|line| send.send(line))
            });
        }
        let deadline = Instant::now() + limit;
        let is_complete = loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => probe.read(&line),
                Err(RecvTimeoutError::Disconnected) => break true,
                Err(RecvTimeoutError::Timeout) => break false,
            }
        };
        let mut status = child.try_wait().ok().flatten();
        while is_complete && status.is_none() && Instant::now() < deadline {
            thread::sleep(BETWEEN_LOOKS);
            status = child.try_wait().ok().flatten();
        }
        if status.is_none() {
            let _ = child.kill();
            // Not awaited here: a process stuck in a driver does not even react to SIGKILL.
            thread::spawn(move || child.wait());
        }
        probe.problem = probe.trouble(status, limit);
        probe
    }

    fn read(&mut self, line: &str) {
        match serde_json::from_str(line) {
            Ok(ProbeLine::Listed(name)) => self.gpus.push(FoundGpu { name, opened: None }),
            Ok(ProbeLine::Opened(name, opened)) => {
                if let Some(gpu) = self.gpus.iter_mut().find(|gpu| gpu.name == name) {
                    gpu.opened = Some(opened);
                }
            }
            Err(_) => {}
        }
    }

    /// Why a process failed that ended with `status`, or did not end within `limit`.
    fn trouble(&self, status: Option<ExitStatus>, limit: Duration) -> Option<String> {
        let at = self
            .gpus
            .iter()
            .find(|gpu| gpu.opened.is_none())
            .map_or_else(|| "listed devices".to_owned(), |gpu| format!("opened {}", gpu.name));
        match status {
            Some(status) if status.success() => None,
            Some(status) => Some(format!("a driver crashed when it {at} ({status})")),
            None => Some(format!(
                "a driver did not answer within {} s when it {at}",
                limit.as_secs_f64()
            )),
        }
    }

    /// The device of `--device auto`: CUDA before wgpu before the CPU; never a software renderer.
    #[must_use]
    pub fn choose(&self, built_in: &[&str]) -> Chosen {
        let usable = |gpu: &&FoundGpu| gpu.opened.as_ref().is_some_and(|opened| opened.is_card);
        if let Some(gpu) = self.gpus.iter().find(usable) {
            let description = gpu.opened.as_ref().map_or("", |opened| &opened.description);
            return Chosen {
                device: gpu.name.clone(),
                reason: format!("the first GPU that works: {description}"),
            };
        }
        let reason = match (has_gpus(built_in), &self.problem, self.gpus.first()) {
            (false, ..) => "this build has no GPU support".to_owned(),
            (true, Some(problem), _) => problem.clone(),
            (true, None, Some(gpu)) => {
                format!("{} is not a real GPU: it is a software renderer", gpu.name)
            }
            (true, None, None) => {
                format!(
                    "no driver lists a GPU (tried {})",
                    built_in
                        .iter()
                        .filter(|kind| **kind != "cpu")
                        .copied()
                        .collect::<Vec<_>>()
                        .join(" and ")
                )
            }
        };
        Chosen { device: "cpu".into(), reason }
    }

    /// Why `choice` cannot be used, if the probe has shown that; whether it exists is for the
    /// engine to find out.
    #[must_use]
    pub fn objection(&self, choice: DeviceChoice) -> Option<String> {
        let (kind, index) = match choice {
            DeviceChoice::Auto | DeviceChoice::Cpu => return None,
            DeviceChoice::Cuda(index) => ("cuda", index),
            DeviceChoice::Wgpu(index) => ("wgpu", index),
        };
        let name = format!("{kind}:{}", index.unwrap_or(0));
        let is_dead = self.gpus.iter().any(|gpu| gpu.name == name && gpu.opened.is_none());
        self.problem.clone().filter(|_| is_dead || !self.gpus.iter().any(|gpu| gpu.name == name))
    }
}

/// The device that `choice` selects on this machine, and the reason if it was chosen automatically;
/// `built_in` are the kinds of devices that this build supports.
///
/// # Errors
/// When a driver crashed or hung on the requested device.
pub fn resolve(
    choice: DeviceChoice,
    built_in: &[&str],
) -> Result<(DeviceChoice, Option<String>), DriverError> {
    static PROBE: OnceLock<Probe> = OnceLock::new();
    if choice == DeviceChoice::Cpu || !has_gpus(built_in) {
        return Ok((choice, None));
    }
    let probe = PROBE.get_or_init(|| Probe::of_this_machine(built_in));
    if let Some(problem) = probe.objection(choice) {
        return Err(DriverError { choice, problem });
    }
    if choice != DeviceChoice::Auto {
        return Ok((choice, None));
    }
    let Chosen { device, reason } = probe.choose(built_in);
    Ok((device.parse().unwrap_or(DeviceChoice::Cpu), Some(reason)))
}

/// Whether one of the kinds is a GPU.
#[must_use]
pub fn has_gpus(built_in: &[&str]) -> bool {
    built_in.iter().any(|kind| *kind != "cpu")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUDA: &str =
        r#"{"opened":["cuda:0",{"description":"H100, ptx_sm90","is_card":true,"has_bf16":true}]}"#;
    const SOFTWARE: &str =
        r#"{"opened":["wgpu:0",{"description":"SwiftShader","is_card":false,"has_bf16":false}]}"#;
    const ALL: &[&str] = &["cuda", "wgpu", "cpu"];

    /// Output of a shell script in place of the probing process.
    fn probe(script: &str, limit: Duration) -> Probe {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Probe::of(command, limit)
    }

    fn patient(script: &str) -> Probe {
        probe(script, Duration::from_mins(5))
    }

    #[test]
    fn the_first_card_that_could_be_opened_is_taken() {
        let found = patient(&format!(
            "echo noise; echo '{{\"listed\":\"cuda:0\"}}'; echo '{{\"listed\":\"wgpu:0\"}}'; echo \
             '{CUDA}'; echo '{SOFTWARE}'"
        ));
        assert_eq!((found.gpus.len(), &found.problem), (2, &None));
        assert_eq!(found.choose(ALL).device, "cuda:0");
        assert_eq!(found.objection(DeviceChoice::Cuda(None)), None);
    }

    #[test]
    fn a_gpu_that_the_cpu_imitates_is_not_taken_unasked() {
        let found = patient(&format!("echo '{{\"listed\":\"wgpu:0\"}}'; echo '{SOFTWARE}'"));
        let chosen = found.choose(ALL);
        assert_eq!(
            (chosen.device.as_str(), chosen.reason.as_str()),
            ("cpu", "wgpu:0 is not a real GPU: it is a software renderer")
        );
        assert_eq!(found.objection(DeviceChoice::Wgpu(Some(0))), None);
    }

    #[test]
    fn a_driver_that_kills_its_process_leaves_the_cpu() {
        let found = patient("echo '{\"listed\":\"cuda:0\"}'; kill -SEGV $$");
        let problem = found.problem.clone().unwrap();
        assert!(
            problem.starts_with("a driver crashed when it opened cuda:0 (signal: 11"),
            "{problem}"
        );
        assert_eq!(found.choose(ALL), Chosen { device: "cpu".into(), reason: problem.clone() });
        assert_eq!(found.objection(DeviceChoice::Cuda(None)), Some(problem));
        assert_eq!(found.objection(DeviceChoice::Auto), None);
    }

    #[test]
    fn a_driver_that_hangs_is_given_up() {
        let found = probe("exec sleep 1000", Duration::from_millis(50));
        assert_eq!(
            found.problem.as_deref(),
            Some("a driver did not answer within 0.05 s when it listed devices")
        );
        let closed = probe("exec >&-; exec sleep 1000", Duration::from_millis(50));
        assert_eq!(closed.problem, found.problem);
    }

    #[test]
    fn a_program_that_cannot_be_started_is_a_problem_and_no_panic() {
        let found = Probe::of(Command::new("/nonexistent/program"), LIMIT);
        assert!(found.problem.unwrap().starts_with("cannot probe the drivers: "));
    }

    #[test]
    fn the_reason_for_the_cpu_says_what_was_looked_for() {
        let nothing = Probe::default();
        assert_eq!(nothing.choose(&["cpu"]).reason, "this build has no GPU support");
        assert_eq!(nothing.choose(ALL).reason, "no driver lists a GPU (tried cuda and wgpu)");
    }
}
