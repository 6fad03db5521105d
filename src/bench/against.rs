//! `patchtui bench train --against pytorch`: alternates the same steps in patchtui and in another
//! framework.
//!
//! Each turn runs in its own process, for patchtui too, so that the peak memory of each is its own.
//! Start at [`against`].

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::advice::Failure;
use crate::bench::against_document::{
    CheckDocument, CheckStage, Contest, RaceDocument, RaceStage, Round,
};
use crate::bench::against_lines::{check_text, race_text};
use crate::bench::document::{FORMAT_VERSION, TrainDocument};
use crate::bench::reference::{
    Computing, Reference, ReferenceReport, StepsRequest, Versions, mode_word,
};
use crate::bench::scratch::ScratchFolder;
use crate::bench::show;
use crate::bench::steps::{Planned, TOKENS_FILE, WEIGHTS_FILE};
use crate::cli::{BenchTrainArgs, ReferenceMode};
use crate::engine::device::ComputeDevice;
use crate::report::tell;

/// Default number of rounds.
const ROUNDS: usize = 3;
/// Largest difference of two f32 losses that rounding explains, in nats.
const TOLERANCE: f64 = 1e-4;

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
pub(super) fn against(
    args: &BenchTrainArgs,
    planned: &Planned,
    device: &ComputeDevice,
) -> Result<u8, Failure> {
    let both = Contestants::new(args, planned, device.description.clone())?;
    if args.check {
        let document = both.check()?;
        show(&document, args.json, check_text)?;
        return Ok(u8::from(document.is_within == Some(false)));
    }
    let document = both.race()?;
    show(&document, args.json, race_text)?;
    Ok(0)
}

impl<'a> Contestants<'a> {
    fn new(
        args: &'a BenchTrainArgs,
        planned: &'a Planned,
        device: String,
    ) -> Result<Self, Failure> {
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
            mode: mode_word(self.mode),
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
