//! The same steps in `PyTorch`: `assets/bench/reference_step.py` in a Python that has torch.
//!
//! Request and report are JSON; the script does the timing. Start at [`Reference::run`].

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde::{Deserialize, Serialize};

use crate::advice::Failure;
use crate::cli::ReferenceMode;
use crate::config::{OptimizerState, RunConfig};
use crate::plan::{ModelShape, RunPlan, StagePlan};
use crate::text::format::shell_word;

/// The script, embedded in the executable.
const SCRIPT: &str = include_str!("../../assets/bench/reference_step.py");
/// Exit codes of the script.
const NO_TORCH: i32 = 3;
const CANNOT: i32 = 4;

/// A Python interpreter that runs the script.
#[derive(Debug)]
pub(super) struct Reference {
    python: PathBuf,
    script: PathBuf,
}

/// The request to the script.
#[derive(Debug, Serialize)]
pub(super) struct StepsRequest {
    model: ModelShape,
    optimizer: Rule,
    /// Stages in order; weights, and optimizer state if kept, carry over from one to the next.
    stages: Vec<Stage>,
    recompute: bool,
    threads: usize,
    /// Device, as torch names it.
    device: String,
    mode: &'static str,
    warmup: usize,
    steps: usize,
    /// A safetensors file; without it, random weights.
    weights: Option<PathBuf>,
    /// A file of little-endian ids; without it, random ids.
    tokens: Option<PathBuf>,
    num_tokens: u64,
    token_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Rule {
    betas: [f64; 2],
    epsilon: f64,
    weight_decay: f64,
    gradient_clip: f64,
}

#[derive(Debug, Serialize)]
struct Stage {
    /// Counted from 1.
    #[serde(rename = "stage")]
    number: usize,
    patch_size: usize,
    context_length: usize,
    micro_batch_size: usize,
    num_micro_batches: usize,
    learning_rate: f64,
    resets_moments: bool,
}

/// The report of the script.
#[derive(Debug, Deserialize)]
pub(super) struct ReferenceReport {
    /// Threads that torch used.
    pub threads: usize,
    /// Parameters; tied embeddings are counted once.
    pub num_parameters: u64,
    /// Peak memory of the whole process, or of torch's allocator on a GPU.
    pub peak_memory_bytes: Option<u64>,
    pub stages: Vec<ReferenceStage>,
}

/// One stage of a report.
#[derive(Debug, Deserialize)]
pub(super) struct ReferenceStage {
    /// Seconds of each measured step.
    pub step_seconds: Vec<f64>,
    /// Loss of each step, warm-up included.
    pub losses: Vec<f64>,
    pub forward_seconds: f64,
    pub backward_seconds: f64,
    pub optimizer_seconds: f64,
    /// Operations per step, counted by the script from its own weights.
    pub flops_per_position: f64,
}

/// Versions of Python and torch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Versions {
    pub torch: String,
    pub python: String,
}

impl Reference {
    /// Writes the script into `folder`, to be run by `python`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn new(python: &Path, folder: &Path) -> Result<Self, Failure> {
        let script = folder.join("reference_step.py");
        fs::write(&script, SCRIPT).map_err(|error| Failure::io(&script, &error))?;
        Ok(Self { python: python.to_owned(), script })
    }

    /// Asks for the versions before anything is measured.
    ///
    /// # Errors
    /// When there is no such Python interpreter, or it has no torch.
    pub(super) fn versions(&self) -> Result<Versions, Failure> {
        self.ask("null")
    }

    /// Runs the steps.
    ///
    /// # Errors
    /// When the script fails.
    pub(super) fn run(&self, request: &StepsRequest) -> Result<ReferenceReport, Failure> {
        let request = serde_json::to_string(request).map_err(|error| {
            Failure::failed(error.to_string(), "set TMPDIR to a folder whose path is valid UTF-8")
        })?;
        self.ask(&request)
    }

    fn ask<Answer: for<'a> Deserialize<'a>>(&self, request: &str) -> Result<Answer, Failure> {
        let output = self.output(request).map_err(|error| self.not_started(&error))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        let reason = errors
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("no error message")
            .trim();
        let python = self.python.display();
        match output.status.code() {
            Some(0) => {}
            Some(NO_TORCH) => {
                let typed = shell_word(&self.python.to_string_lossy());
                let hint = format!(
                    "run: {typed} -m pip install torch; or name a Python that has it with \
                     --python PATH"
                );
                return Err(Failure::usage(format!("{python} has no torch: {reason}"), hint));
            }
            Some(CANNOT) => {
                return Err(Failure::usage(
                    reason,
                    "name another Python with --python PATH, or use --device cpu",
                ));
            }
            _ => {
                return Err(Failure::failed(
                    format!("the step in PyTorch failed: {reason}"),
                    "name another Python with --python PATH",
                ));
            }
        }
        let broken = |error: serde_json::Error| {
            Failure::failed(
                format!("{python} returned invalid JSON: {error}"),
                "name another Python with --python PATH",
            )
        };
        serde_json::from_slice(&output.stdout).map_err(broken)
    }

    fn output(&self, request: &str) -> std::io::Result<Output> {
        let mut command = Command::new(&self.python);
        command
            .arg(&self.script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A child that does not read its input has ended and reports why.
            let _ = stdin.write_all(request.as_bytes());
        }
        child.wait_with_output()
    }

    fn not_started(&self, error: &std::io::Error) -> Failure {
        let python = self.python.display();
        let message = match error.kind() {
            ErrorKind::NotFound => format!("there is no Python {python}"),
            _ => format!("{python} cannot be started: {error}"),
        };
        Failure::usage(message, "name a Python that has torch with --python PATH")
    }
}

impl StepsRequest {
    /// The steps of the stages `idxs` as patchtui takes them.
    pub(super) fn new(
        config: &RunConfig,
        plan: &RunPlan,
        idxs: &[usize],
        computing: Computing<'_>,
    ) -> Self {
        let optimizer = &config.optimizer;
        Self {
            model: plan.model.clone(),
            optimizer: Rule {
                betas: optimizer.betas,
                epsilon: optimizer.epsilon,
                weight_decay: optimizer.weight_decay,
                gradient_clip: optimizer.gradient_clip,
            },
            stages: idxs.iter().map(|idx| stage(&plan.stages[*idx])).collect(),
            recompute: config.training.recompute,
            threads: computing.threads,
            device: computing.device.to_owned(),
            mode: mode_word(computing.mode),
            warmup: computing.warmup,
            steps: computing.steps,
            weights: None,
            tokens: None,
            num_tokens: 0,
            token_bytes: if plan.model.vocab_size <= 1 << 16 { 2 } else { 4 },
        }
    }

    /// The same, with initial weights and ids from these files.
    ///
    /// # Errors
    /// When the ids are not there.
    pub(super) fn with_input(self, weights: PathBuf, tokens: PathBuf) -> Result<Self, Failure> {
        let bytes = fs::metadata(&tokens).map_err(|error| Failure::io(&tokens, &error))?.len();
        Ok(Self {
            num_tokens: bytes / self.token_bytes,
            weights: Some(weights),
            tokens: Some(tokens),
            ..self
        })
    }
}

/// Execution mode of the script.
#[derive(Debug, Clone, Copy)]
pub(super) struct Computing<'a> {
    pub threads: usize,
    /// Device, as torch names it.
    pub device: &'a str,
    pub mode: ReferenceMode,
    pub warmup: usize,
    pub steps: usize,
}

pub(super) fn mode_word(mode: ReferenceMode) -> &'static str {
    match mode {
        ReferenceMode::Eager => "eager",
        ReferenceMode::Compile => "compile",
        ReferenceMode::Bf16 => "bf16",
    }
}

fn stage(stage: &StagePlan) -> Stage {
    Stage {
        number: stage.idx + 1,
        patch_size: stage.patch_size.get(),
        context_length: stage.context_length,
        micro_batch_size: stage.micro_batch_size,
        num_micro_batches: stage.num_micro_batches,
        learning_rate: stage.schedule.peak,
        resets_moments: stage.optimizer_state == OptimizerState::Reset,
    }
}
