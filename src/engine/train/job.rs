//! From a run directory to a trained model: prepare the text, initialize or restore the model, try
//! each stage, train.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::config::{Budget, RunConfig, TextSource, ValidationSource};
use crate::data::{
    BlockOrder, HeldOut, Loader, PrepareRequest, Prepared, TextRules, Tokenizer, prepare_on,
};
use crate::disk::Disk;
use crate::engine::compute::Compute;
use crate::engine::device::{ComputeDevice, find_device};
use crate::engine::error::EngineError;
use crate::engine::faults::guarded;
use crate::engine::self_check::{self, Cache, shapes};
use crate::engine::train::decisions::decisions;
use crate::engine::train::facts::RunFacts;
use crate::engine::train::measure::MeasuredText;
use crate::engine::train::start::Start;
use crate::engine::train::trainer::{Equipment, Trainer};
use crate::engine::train::wall_time::first_deadline;
use crate::engine::trial::try_stages;
use crate::engine::workers::{Workers, run_unless_stopped};
use crate::plan::{Corpus, GENERATED_TOKENS, RunPlan, block_tokens};
use crate::record::{
    Checkpoint, CheckpointError, Checkpoints, EventSender, FORMAT_VERSION, Note, Outcome, PlanFile,
    Progress, Rejected, RunDirectory, RunEnd, RunEvent, RunHeader, TrialSteps, Trouble, Warning,
    replace_file,
};
use crate::steer::Inbox;
use crate::tasks::Suite;
use crate::text::format;

/// How long a stop waits for the preparation to remove its partial files, which takes much less
/// unless one document is huge.
const PREPARATION_GRACE: Duration = Duration::from_millis(500);

/// A final evaluation that takes a greater share of the run's work than this is mentioned.
const MAX_FINAL_SHARE: f64 = 0.05;

/// A run to train.
#[derive(Debug, Clone)]
pub struct Job {
    /// Configuration of the run.
    pub config: RunConfig,
    /// The run's directory, absolute.
    pub directory: PathBuf,
    /// Cache of prepared text for this and other runs.
    pub cache: PathBuf,
    /// Cache of passed device checks.
    pub checks: Cache,
    /// Why this device, if the configuration did not name one.
    pub device_reason: Option<String>,
    /// Where prepared text and checkpoints are written.
    pub disk: Disk,
}

impl Job {
    fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(&RunDirectory::new(&self.directory), self.config.checkpoint.keep)
            .keeping_best(self.config.checkpoint.keep_best)
            .on(self.disk.clone())
    }
}

/// Trains, starting from the newest valid checkpoint if there is one. All results are reported
/// through `events`.
pub fn execute(job: Job, inbox: Inbox, events: &EventSender) -> RunEnd {
    let (checkpoints, name) = (job.checkpoints(), job.config.name.clone());
    let reached = || checkpoints.newest_claimed();
    match begin(job, inbox, events) {
        Ok(Some(mut trainer)) => match guarded(trainer.is_on_cpu(), || trainer.train()) {
            Ok(outcome) => trainer.end_of_run(outcome, None),
            Err(error) => {
                // After any failure: tensors on a device that is gone must not be touched again.
                if !trainer.is_on_cpu() {
                    trainer.leave_device();
                }
                trainer.end_of_run(Outcome::Failed, Some(Trouble::of(&error, &name)))
            }
        },
        Ok(None) => end_before_training(reached(), Outcome::Interrupted, None),
        Err(error) => {
            end_before_training(reached(), Outcome::Failed, Some(Trouble::of(&error, &name)))
        }
    }
}

/// Everything before the first step; `None` if the run was told to end in the meantime.
fn begin(job: Job, inbox: Inbox, events: &EventSender) -> Result<Option<Trainer>, EngineError> {
    let started = Instant::now();
    if let Some(deadline) = first_deadline(started, &job.config) {
        inbox.stop_flag().set_deadline(deadline);
    }
    use_threads(job.config.threads, events);
    let device = find_device(job.config.device)?;
    device.check_precision(job.config.training.precision)?;
    guarded(device.is_cpu, || begin_on(device.clone(), started, job, inbox, events))
}

/// As [`begin`], on the given device.
pub(super) fn begin_on(
    device: ComputeDevice,
    started: Instant,
    job: Job,
    inbox: Inbox,
    events: &EventSender,
) -> Result<Option<Trainer>, EngineError> {
    let (device_reason, checks) = (job.device_reason.clone(), job.checks.clone());
    let Some(prepared) = prepare_text(&job, &inbox, events)? else { return Ok(None) };
    let (checkpoints, directory) = (job.checkpoints(), job.directory.clone());
    let facts = Arc::new(planned(job, &device, &prepared)?);
    let compute = Compute::new(device, facts.config.training.precision);
    let workers = Workers::start(compute, inbox.stop_flag().clone())?;
    let Some((start, rejected)) = find_start(&facts, &checkpoints, &workers)? else {
        return Ok(None);
    };
    let RunFacts { config, plan, .. } = &*facts;
    let warn = |message: String| events.send(RunEvent::Warning(Warning { message }));
    for rejected in rejected {
        warn(format!("{} is not used: {}", rejected.path.display(), rejected.reason));
    }
    events.send(RunEvent::RunStarted(Box::new(RunHeader {
        name: config.name.clone(),
        directory,
        device: workers.compute.device.description.clone(),
        threads: rayon::current_num_threads(),
        resumed_from: start.resumed_from,
        decisions: decisions(&facts, device_reason.as_deref()),
        plan: plan.into(),
    })));
    report_remarks(&facts, &prepared, events);
    warn_about_start(&start, &warn);
    warn_about_room(
        &checkpoints,
        config.checkpoint.keep + usize::from(config.checkpoint.keep_best),
        plan,
        events,
    );
    if !workers.compute.device.is_cpu && !trust_device(&workers, plan, config, &checks, events)? {
        return Ok(None);
    }
    let Some(tokens_per_second) = try_stages(
        &workers,
        plan,
        &start.model.in_precision(workers.compute.precision),
        config.training.recompute,
    )?
    else {
        return Ok(None);
    };
    walltime_warning(&facts, &start, &tokens_per_second).into_iter().for_each(warn);
    events.send(RunEvent::TrialStepsTaken(TrialSteps { tokens_per_second }));
    let tasks = Suite::load(
        &facts.config.tasks.names,
        facts.config.tasks.data.as_deref(),
        facts.config.tasks.limit,
    )?;
    let equipment = Equipment {
        loader: Loader::new(prepared.train, facts.order.clone()),
        text: MeasuredText {
            validation: prepared.validation,
            tokenizer: prepared.tokenizer,
            tasks,
        },
        facts,
        workers,
        checkpoints,
        events: events.clone(),
        started,
    };
    Ok(Some(Trainer::new(equipment, inbox, start)))
}

/// The plan of a run on `prepared` text, which it writes into the run's directory, and what follows
/// from it.
fn planned(job: Job, device: &ComputeDevice, prepared: &Prepared) -> Result<RunFacts, EngineError> {
    let corpus = Corpus {
        tokenizer_vocab_size: prepared.tokenizer.rows_for(job.config.model.vocab_size),
        train_tokens: Some(prepared.train.len()),
        entropy_rate: prepared.entropy_rate,
        device_is_cpu: device.is_cpu,
    };
    let plan = RunPlan::new(&job.config, &corpus)?;
    write_plan(&job, &plan)?;
    write_held_out(&job, prepared)?;
    Ok(RunFacts {
        order: BlockOrder::new(
            prepared.train.len(),
            plan.block_tokens,
            job.config.seed,
            job.config.data.shuffle,
        ),
        text_rules: prepared.rules,
        data_fingerprint: prepared.fingerprint.clone(),
        tokenizer: prepared.tokenizer.fingerprint().to_owned(),
        special_tokens: [prepared.tokenizer.bos(), prepared.tokenizer.eos()],
        config: job.config,
        plan,
        initial_weights: OnceLock::new(),
        fork: OnceLock::new(),
    })
}

/// Where the run begins, and the checkpoints that are not used; `None` if it was told to end in the
/// meantime.
fn find_start(
    facts: &Arc<RunFacts>,
    checkpoints: &Checkpoints,
    workers: &Workers,
) -> Result<Option<(Start, Vec<Rejected>)>, EngineError> {
    let (facts, checkpoints, compute, stop) =
        (Arc::clone(facts), checkpoints.clone(), workers.compute.clone(), workers.stop.clone());
    match workers.run(move || Start::find(&facts, &checkpoints, &compute, &stop)) {
        None | Some(Err(EngineError::Checkpoint(CheckpointError::Interrupted))) => Ok(None),
        Some(found) => found.map(Some),
    }
}

/// Compares the device with the CPU, unless a passed check is cached; returns false if the run was
/// told to end in the meantime.
fn trust_device(
    workers: &Workers,
    plan: &RunPlan,
    config: &RunConfig,
    checks: &Cache,
    events: &EventSender,
) -> Result<bool, EngineError> {
    let mut progress = |done: usize, all: usize| {
        let activity = "comparing the device with the CPU".to_owned();
        events.send(RunEvent::Progress(Progress {
            activity,
            done: done as u64,
            total: Some(all as u64),
        }));
        !workers.stop.is_raised()
    };
    let Some(report) = self_check::check(
        &workers.compute.device,
        &shapes(plan, config.training.precision),
        checks,
        &mut progress,
    )?
    else {
        return Ok(false);
    };
    report.failure().map_or(Ok(true), |failure| Err(failure.into()))
}

/// Prepares the tokens; `None` if the run was told to end in the meantime. Uses the cache of other
/// runs.
fn prepare_text(
    job: &Job,
    inbox: &Inbox,
    events: &EventSender,
) -> Result<Option<Prepared>, EngineError> {
    let block_tokens = block_tokens(&job.config)?;
    let generated_tokens = generated_tokens(&job.config)?.next_multiple_of(block_tokens);
    let rules = job
        .checkpoints()
        .text_rules(job.config.training.fork_from.as_deref())
        .and_then(TextRules::of_version)
        .unwrap_or_default();
    let trained_on =
        job.checkpoints().newest_claimed().map(|checkpoint| checkpoint.state.data_fingerprint);
    let (job, events, stop) = (job.clone(), events.clone(), inbox.stop_flag().clone());
    let prepared = run_unless_stopped(inbox.stop_flag(), PREPARATION_GRACE, move || {
        let request = PrepareRequest {
            data: &job.config.data,
            seed: job.config.seed,
            generated_tokens,
            block_tokens,
            cache: &job.cache,
            trained_on: trained_on.as_deref(),
            rules,
        };
        prepare_on(&job.disk, &request, &mut |activity: &str, done: u64, total: Option<u64>| {
            events.send(RunEvent::Progress(Progress {
                activity: activity.to_owned(),
                done,
                total,
            }));
            if stop.is_raised() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    });
    match prepared? {
        Some(Ok(prepared)) => Ok(Some(prepared)),
        Some(Err(error)) if !inbox.stop_flag().is_raised() => Err(error.into()),
        Some(Err(_)) | None => Ok(None),
    }
}

/// Number of tokens to generate so that none is read twice.
fn generated_tokens(config: &RunConfig) -> Result<u64, EngineError> {
    match (config.data.source(), config.training.budget()) {
        (TextSource::Files(_), _) => Ok(0),
        (TextSource::Generated(_), Budget::Epochs(_)) => Ok(GENERATED_TOKENS),
        (TextSource::Generated(_), _) => {
            let tokenizer = Tokenizer::load(&config.data.tokenizer)?;
            let corpus = Corpus {
                tokenizer_vocab_size: tokenizer.rows_for(config.model.vocab_size),
                train_tokens: None,
                entropy_rate: None,
                device_is_cpu: true,
            };
            Ok(RunPlan::new(config, &corpus)?.cost.tokens)
        }
    }
}

/// Sets the number of compute threads of this process to `threads`, or to that of the CPU if 0.
fn use_threads(threads: usize, events: &EventSender) {
    if rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().is_err() {
        let message = format!(
            "threads = {threads} has no effect: this process already has {} threads",
            rayon::current_num_threads()
        );
        if threads != 0 && threads != rayon::current_num_threads() {
            events.send(RunEvent::Warning(Warning { message }));
        }
    }
}

fn write_plan(job: &Job, plan: &RunPlan) -> Result<(), EngineError> {
    let path = RunDirectory::new(&job.directory).plan();
    let io = |source| EngineError::Io { path: path.display().to_string(), source };
    let file = PlanFile { format_version: FORMAT_VERSION, plan: plan.into() };
    let text = serde_json::to_string_pretty(&file).map_err(|error| io(error.into()))?;
    replace_file(&path, (text + "\n").as_bytes()).map_err(io)
}

/// Writes which tokens are held out for validation, so that other programs can read the same text
/// in the same way.
fn write_held_out(job: &Job, prepared: &Prepared) -> Result<(), EngineError> {
    let Some((tokens, ranges)) = prepared.held_out_ranges() else { return Ok(()) };
    let path = RunDirectory::new(&job.directory).held_out();
    let ranges: Vec<[u64; 2]> = ranges.into_iter().map(|range| [range.start, range.end]).collect();
    let file = serde_json::json!({ "format_version": FORMAT_VERSION, "tokens": tokens.to_string_lossy(), "validation": ranges });
    replace_file(&path, format!("{file}\n").as_bytes())
        .map_err(|source| EngineError::Io { path: path.display().to_string(), source })
}

/// Warns about differences that a resume cannot undo.
fn warn_about_start(start: &Start, warn: &dyn Fn(String)) {
    if start.is_inexact {
        let checkpoint = "the checkpoint was written by a version of patchtui with another order \
                          of floating-point sums";
        warn(format!("{checkpoint}: the run resumes, but its results may not be bit-identical"));
    }
    start.changed_lines.iter().cloned().for_each(warn);
}

/// What plan and text tell the user.
fn report_remarks(facts: &RunFacts, text: &Prepared, events: &EventSender) {
    let (plan, validation_tokens) = (&facts.plan, text.validation.len());
    let changed =
        "the text has changed since this run began: the run continues with the original tokens";
    let changed = text.text_has_changed.then(|| changed.to_owned());
    let warnings = plan
        .warnings
        .iter()
        .cloned()
        .chain(text.report.warnings())
        .chain(changed)
        .chain(warning_about_validation(validation_tokens, facts));
    let notes = plan
        .notes
        .iter()
        .chain(&text.report.notes)
        .cloned()
        .chain(text.held_out.map(HeldOut::note))
        .chain(note_about_final_evaluation(validation_tokens, facts));
    warnings.for_each(|message| events.send(RunEvent::Warning(Warning { message })));
    notes.for_each(|message| events.send(RunEvent::Note(Note { message })));
}

/// The warning about a wall-time limit that is shorter than the run; not on a resume, where several
/// attempts are intended.
fn walltime_warning(facts: &RunFacts, start: &Start, tokens_per_second: &[f64]) -> Option<String> {
    let limit = facts.config.training.max_walltime.filter(|_| start.resumed_from.is_none())?;
    facts.plan.walltime_warning(limit.0, tokens_per_second)
}

/// What to say if the main curve will have no points.
fn warning_about_validation(validation_tokens: u64, facts: &RunFacts) -> Option<String> {
    let is_short = validation_tokens.min(facts.plan.evaluation_tokens)
        < facts.config.training.context_length as u64;
    is_short.then(|| {
        "the token loss will not be measured: validation text or evaluation.max_tokens is shorter \
         than training.context_length"
            .to_owned()
    })
}

/// What to say about a final evaluation that is a good part of the run.
fn note_about_final_evaluation(validation_tokens: u64, facts: &RunFacts) -> Option<String> {
    facts.plan.cadences.evaluation?;
    // A position of training costs about three of an evaluation.
    let share = validation_tokens as f64 / (3.0 * facts.plan.cost.positions as f64);
    let remedy = match facts.config.data.validation() {
        ValidationSource::Files(_) => "less text in data.validation_files shortens it",
        ValidationSource::Share(_) => "a smaller data.validation_share shortens it",
    };
    let part =
        if share < 1.0 { format!("{:.0} %", 100.0 * share) } else { format!("{share:.1} times") };
    let tokens = format::count(validation_tokens);
    (share > MAX_FINAL_SHARE && validation_tokens > facts.plan.evaluation_tokens).then(|| {
        format!(
            "the final evaluation reads all {tokens} validation tokens, about {part} of this \
             run's work; {remedy}"
        )
    })
}

/// Warns early if the disk will be full later.
fn warn_about_room(checkpoints: &Checkpoints, keep: usize, plan: &RunPlan, events: &EventSender) {
    let kept = (keep + plan.stages.len() + 1) as u64;
    let needed = kept * plan.memory.checkpoint;
    if let Ok(free) = checkpoints.free_bytes()
        && free < needed
    {
        let message = format!(
            "{kept} checkpoints need {}, but only {} are free on their disk",
            format::bytes(needed),
            format::bytes(free)
        );
        events.send(RunEvent::Warning(Warning { message }));
    }
}

/// The end of an attempt that took no step; earlier attempts may have taken some.
fn end_before_training(
    reached: Option<Checkpoint>,
    outcome: Outcome,
    error: Option<Trouble>,
) -> RunEnd {
    let (state, manifest) =
        reached.map(|checkpoint| (checkpoint.state, checkpoint.manifest)).unzip();
    RunEnd {
        outcome,
        step: state.as_ref().map_or(0, |state| state.step),
        tokens: state.map_or(0, |state| state.tokens),
        active_seconds: manifest.map_or(0.0, |manifest| manifest.active_seconds.iter().sum()),
        token_loss: None,
        whole: None,
        error,
    }
}
