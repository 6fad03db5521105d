//! `patchtui bench train --against pytorch`: alternates the same steps in patchtui and in another
//! framework.
//!
//! Each turn runs in its own process, for patchtui too, so that the peak memory of each is its own.
//! Start at [`against`].

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::advice::Failure;
use crate::cli::{BenchTrainArgs, ReferenceMode};
use crate::commands::bench::against_lines::{check_text, race_text};
use crate::commands::bench::document::{CpuDocument, FORMAT_VERSION, StageDocument, TrainDocument};
use crate::commands::bench::reference::{
    Computing, Reference, ReferenceReport, StepsRequest, Versions,
};
use crate::commands::bench::scratch::ScratchFolder;
use crate::commands::bench::train::{Planned, TOKENS_FILE, WEIGHTS_FILE};
use crate::commands::bench::{median, print_json};
use crate::commands::model::choose_device;
use crate::report::{print, tell};

/// Default number of rounds.
const ROUNDS: usize = 3;
/// Largest difference of two f32 losses that rounding explains, in nats.
const TOLERANCE: f64 = 1e-4;

/// Versions and execution modes of both frameworks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Contest {
    /// Version of this format.
    pub(super) format_version: u32,
    /// `against` or `check`.
    pub(super) bench: &'static str,
    /// Version of patchtui.
    pub(super) patchtui: String,
    /// Name of the configuration.
    pub(super) config: String,
    pub(super) pytorch: Versions,
    /// `eager`, `compile` or `bf16`; patchtui computes as its configuration says.
    pub(super) mode: &'static str,
    /// Device that patchtui uses.
    pub(super) device: String,
    /// CPU threads of each framework.
    pub(super) threads: usize,
    pub(super) cpu: CpuDocument,
    /// Parameters; both frameworks must agree.
    pub(super) num_parameters: u64,
    pub(super) warmup_steps: usize,
    pub(super) measured_steps: usize,
}

/// Times of both frameworks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct RaceDocument {
    #[serde(flatten)]
    pub(super) contest: Contest,
    pub(super) stages: Vec<RaceStage>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct RaceStage {
    /// Counted from 1.
    pub(super) stage: usize,
    /// Tokens per patch (K).
    pub(super) patch_size: usize,
    /// Positions per sequence.
    pub(super) context_length: usize,
    pub(super) tokens_per_step: u64,
    pub(super) micro_batch_size: usize,
    pub(super) num_micro_batches: usize,
    /// Floating-point operations of a step; both frameworks must agree.
    pub(super) flops_per_step: f64,
    pub(super) rounds: Vec<Round>,
    /// Median of the rounds' ratios.
    pub(super) median_ratio: f64,
    /// Peak memory of patchtui divided by that of `PyTorch`; for each the maximum over the rounds.
    pub(super) memory_ratio: Option<f64>,
}

/// One round of both frameworks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Round {
    pub(super) patchtui: Turn,
    pub(super) pytorch: Turn,
    /// Tokens per second of patchtui divided by those of `PyTorch`.
    pub(super) ratio: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Turn {
    /// Median step.
    pub(super) step_seconds: f64,
    pub(super) forward_seconds: f64,
    /// Includes the gradient of the head, which patchtui computes together with the loss.
    pub(super) backward_seconds: f64,
    pub(super) optimizer_seconds: f64,
    pub(super) tokens_per_second: f64,
    /// Peak memory of the whole process.
    pub(super) peak_memory_bytes: Option<u64>,
    /// Loss of the first step, before its update.
    pub(super) first_loss: f64,
}

/// Losses of both frameworks, from the same weights and tokens.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct CheckDocument {
    #[serde(flatten)]
    pub(super) contest: Contest,
    pub(super) stages: Vec<CheckStage>,
    /// Largest difference of all losses, in nats.
    pub(super) largest_difference: f64,
    /// Null in bf16, where losses are shown and not compared.
    pub(super) tolerance: Option<f64>,
    /// Whether all differences are within the tolerance.
    pub(super) is_within: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct CheckStage {
    /// Counted from 1.
    pub(super) stage: usize,
    /// Tokens per patch (K).
    pub(super) patch_size: usize,
    /// Losses of patchtui before the update of each step.
    pub(super) patchtui_losses: Vec<f64>,
    pub(super) pytorch_losses: Vec<f64>,
    /// Losses of `PyTorch`, in nats.
    pub(super) largest_difference: f64,
}

/// Both frameworks, ready to run.
struct Contestants<'a> {
    args: &'a BenchTrainArgs,
    planned: &'a Planned,
    scratch: ScratchFolder,
    reference: Reference,
    versions: Versions,
    mode: ReferenceMode,
    /// Device, as torch names it.
    device: String,
}

/// Compares times or losses. Returns the exit code: 1 if the losses differ.
///
/// # Errors
/// When Python or torch is missing, or one of the two fails.
pub(super) fn against(args: &BenchTrainArgs, planned: &Planned) -> Result<u8, Failure> {
    let both = Contestants::new(args, planned)?;
    if args.check {
        let document = both.check()?;
        if args.json {
            print_json(&document)?;
        } else {
            print(&check_text(&document))?;
        }
        return Ok(u8::from(document.is_within == Some(false)));
    }
    let document = both.race()?;
    if args.json {
        print_json(&document)?;
    } else {
        print(&race_text(&document))?;
    }
    Ok(0)
}

impl<'a> Contestants<'a> {
    fn new(args: &'a BenchTrainArgs, planned: &'a Planned) -> Result<Self, Failure> {
        let device = choose_device(Some(&planned.config.device.to_string()))?.description;
        if device != "cpu" && !device.starts_with("cuda") {
            return Err(Failure::usage(
                format!("PyTorch has no device {device}"),
                "use --device cpu",
            ));
        }
        let scratch = ScratchFolder::new()?;
        let reference =
            Reference::new(args.python.as_deref().unwrap_or(Path::new("python3")), scratch.path())?;
        let versions = reference.versions()?;
        Ok(Self {
            args,
            planned,
            scratch,
            reference,
            versions,
            mode: args.mode.unwrap_or(ReferenceMode::Eager),
            device,
        })
    }

    fn race(&self) -> Result<RaceDocument, Failure> {
        let (mut stages, mut contest) = (Vec::new(), None);
        for &idx in &self.planned.stages {
            let (mut rounds, mut described) = (Vec::new(), None);
            for round in 0..self.args.rounds.map_or(ROUNDS, usize::from) {
                self.say(&format!("stage {}, round {}: patchtui", idx + 1, round + 1));
                let ours = self.our_turn(Some(idx), None)?;
                self.say(&format!("stage {}, round {}: PyTorch", idx + 1, round + 1));
                let theirs = self.reference.run(&self.request(&[idx], ours.threads))?;
                check_sizes(&ours, &theirs)?;
                rounds.push(Round::new(&ours, &theirs));
                contest.get_or_insert_with(|| self.contest("against", &ours));
                described.get_or_insert_with(|| ours.stages[0].clone());
            }
            stages.push(RaceStage::new(&described.expect("there is a round"), rounds));
        }
        Ok(RaceDocument { contest: contest.expect("there is a stage"), stages })
    }

    fn check(&self) -> Result<CheckDocument, Failure> {
        let folder = self.scratch.path();
        self.say("running the steps in patchtui");
        let ours = self.our_turn(self.args.stage.map(|stage| stage.get() - 1), Some(folder))?;
        self.say("running the steps in PyTorch");
        let request = self
            .request(&self.planned.stages, ours.threads)
            .with_input(folder.join(WEIGHTS_FILE), folder.join(TOKENS_FILE))?;
        let theirs = self.reference.run(&request)?;
        check_sizes(&ours, &theirs)?;
        let pairs = ours.stages.iter().zip(&theirs.stages);
        let stages: Vec<CheckStage> =
            pairs.map(|(ours, theirs)| CheckStage::new(ours, &theirs.losses)).collect();
        let largest_difference =
            stages.iter().map(|stage| stage.largest_difference).fold(0.0, f64::max);
        // The matrix units of a GPU round f32 to fewer bits.
        let tolerance =
            (self.mode != ReferenceMode::Bf16 && self.device == "cpu").then_some(TOLERANCE);
        let is_within = tolerance.map(|tolerance| largest_difference <= tolerance);
        Ok(CheckDocument {
            contest: self.contest("check", &ours),
            stages,
            largest_difference,
            tolerance,
            is_within,
        })
    }

    /// Prints progress, except with --json.
    fn say(&self, text: &str) {
        if !self.args.json {
            tell(text);
        }
    }

    fn request(&self, idxs: &[usize], threads: usize) -> StepsRequest {
        let steps = self.planned.steps;
        let computing = Computing {
            threads,
            device: &self.device,
            mode: self.mode,
            warmup: steps.warmup,
            steps: steps.measured,
        };
        StepsRequest::new(&self.planned.config, &self.planned.plan, idxs, computing)
    }

    /// Measures one stage or all in a separate process; keeps its input in `keep_input`.
    fn our_turn(
        &self,
        stage: Option<usize>,
        keep_input: Option<&Path>,
    ) -> Result<TrainDocument, Failure> {
        let program = env::current_exe().map_err(|error| {
            Failure::failed(
                format!("cannot find the patchtui executable: {error}"),
                "start it by its full path",
            )
        })?;
        let steps = self.planned.steps;
        let mut command = Command::new(program);
        command.args(["bench", "train", "--json", "--device", &self.device]);
        command.args([
            "--steps",
            &steps.measured.to_string(),
            "--warmup",
            &steps.warmup.to_string(),
        ]);
        command.args(stage.map(|idx| format!("--stage={}", idx + 1)));
        command.args(keep_input.map(|_| "--keep-input")).args(keep_input);
        command
            .args(self.args.sets.iter().map(|set| format!("--set={set}")))
            .arg("--")
            .args(&self.args.config);
        let output = command.stdin(Stdio::null()).output();
        let output = output.map_err(|error| {
            Failure::failed(
                format!("cannot start patchtui: {error}"),
                "raise the limit on processes (ulimit -u)",
            )
        })?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            let after = |label: &str| {
                errors
                    .lines()
                    .find_map(|line| line.trim_start().strip_prefix(label))
                    .map(|text| text.trim().to_owned())
            };
            let message = after("error:")
                .unwrap_or_else(|| format!("the benchmark process ended with {}", output.status));
            let exit_code = output
                .status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .filter(|code| *code == 2)
                .unwrap_or(1);
            return Err(Failure { message, hint: after("hint:"), exit_code });
        }
        serde_json::from_slice(&output.stdout).map_err(|error| {
            Failure::failed(error.to_string(), "this is a bug in patchtui: please report it")
        })
    }

    fn contest(&self, bench: &'static str, ours: &TrainDocument) -> Contest {
        Contest {
            format_version: FORMAT_VERSION,
            bench,
            patchtui: ours.patchtui.clone(),
            config: ours.config.clone(),
            pytorch: self.versions.clone(),
            mode: match self.mode {
                ReferenceMode::Eager => "eager",
                ReferenceMode::Compile => "compile",
                ReferenceMode::Bf16 => "bf16",
            },
            device: ours.device.clone(),
            threads: ours.threads,
            cpu: ours.cpu.clone(),
            num_parameters: ours.num_parameters,
            warmup_steps: ours.warmup_steps,
            measured_steps: ours.measured_steps,
        }
    }
}

/// Both frameworks must compute the same, or their times mean nothing.
fn check_sizes(ours: &TrainDocument, theirs: &ReferenceReport) -> Result<(), Failure> {
    let bug = |what: &str, ours: f64, theirs: f64| {
        Failure::failed(
            format!("{what}: {ours} in patchtui, {theirs} in PyTorch"),
            "this is a bug in patchtui: please report it",
        )
    };
    if ours.num_parameters != theirs.num_parameters {
        return Err(bug(
            "the numbers of parameters differ",
            ours.num_parameters as f64,
            theirs.num_parameters as f64,
        ));
    }
    if ours.threads != theirs.threads {
        return Err(bug(
            "the numbers of threads differ",
            ours.threads as f64,
            theirs.threads as f64,
        ));
    }
    for (ours, theirs) in ours.stages.iter().zip(&theirs.stages) {
        let flops =
            theirs.flops_per_position * (ours.tokens_per_step / ours.patch_size as u64) as f64;
        if (ours.flops_per_step - flops).abs() > 1e-9 * flops {
            return Err(bug("the operations per step differ", ours.flops_per_step, flops));
        }
    }
    Ok(())
}

impl Round {
    fn new(ours: &TrainDocument, theirs: &ReferenceReport) -> Self {
        let (stage, reference) = (&ours.stages[0], &theirs.stages[0]);
        let parts = &stage.parts;
        let patchtui = Turn {
            step_seconds: stage.step_seconds,
            forward_seconds: parts.forward_seconds,
            backward_seconds: parts.head_seconds + parts.backward_seconds,
            optimizer_seconds: parts.optimizer_seconds,
            tokens_per_second: stage.tokens_per_second,
            peak_memory_bytes: stage.peak_memory_bytes,
            first_loss: stage.losses.first().copied().unwrap_or(0.0),
        };
        let step_seconds = median(reference.step_seconds.iter().copied());
        let pytorch = Turn {
            step_seconds,
            forward_seconds: reference.forward_seconds,
            backward_seconds: reference.backward_seconds,
            optimizer_seconds: reference.optimizer_seconds,
            tokens_per_second: stage.tokens_per_step as f64 / step_seconds,
            peak_memory_bytes: theirs.peak_memory_bytes,
            first_loss: reference.losses.first().copied().unwrap_or(0.0),
        };
        Self { ratio: patchtui.tokens_per_second / pytorch.tokens_per_second, patchtui, pytorch }
    }
}

impl RaceStage {
    fn new(stage: &StageDocument, rounds: Vec<Round>) -> Self {
        let greatest = |of: fn(&Round) -> Option<u64>| rounds.iter().filter_map(of).max();
        let [ours, theirs] = [
            greatest(|round| round.patchtui.peak_memory_bytes),
            greatest(|round| round.pytorch.peak_memory_bytes),
        ];
        Self {
            stage: stage.stage,
            patch_size: stage.patch_size,
            context_length: stage.context_length,
            tokens_per_step: stage.tokens_per_step,
            micro_batch_size: stage.micro_batch_size,
            num_micro_batches: stage.num_micro_batches,
            flops_per_step: stage.flops_per_step,
            median_ratio: median(rounds.iter().map(|round| round.ratio)),
            memory_ratio: ours.zip(theirs).map(|(ours, theirs)| ours as f64 / theirs as f64),
            rounds,
        }
    }
}

impl CheckStage {
    fn new(ours: &StageDocument, theirs: &[f64]) -> Self {
        let differences =
            ours.losses.iter().zip(theirs).map(|(ours, theirs)| (ours - theirs).abs());
        Self {
            stage: ours.stage,
            patch_size: ours.patch_size,
            largest_difference: differences.fold(0.0, f64::max),
            patchtui_losses: ours.losses.clone(),
            pytorch_losses: theirs.to_vec(),
        }
    }
}
