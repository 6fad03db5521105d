//! From a run directory to a trained model: prepare the text, build or restore the model, try each stage, train.

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::Device;

use crate::config::{Budget, RunConfig, TextSource};
use crate::data::{BlockOrder, Loader, PrepareRequest, Prepared, Tokenizer, prepare};
use crate::engine::checkpoint::{Checkpoint, Checkpoints, free_bytes};
use crate::engine::decisions::decisions;
use crate::engine::device::{ComputeDevice, find_device};
use crate::engine::error::EngineError;
use crate::engine::model::{LlamaForCausalLM, random_weights};
use crate::engine::obey::first_deadline;
use crate::engine::optimizer::AdamW;
use crate::engine::trainer::{Progress as Reached, Setting, Trainer};
use crate::engine::warmup::try_stages;
use crate::plan::{Corpus, RunPlan, block_tokens};
use crate::run::{EventSender, Inbox, Outcome, Progress, RunEnd, RunEvent, RunHeader, Trouble, Warmup, Warning};

/// Training tokens that a generator makes when the budget does not say how many are read.
const GENERATED_TOKENS: u64 = 2_000_000;

/// What is to be trained, and where.
#[derive(Debug, Clone)]
pub struct Job {
    /// What was asked.
    pub config: RunConfig,
    /// The run's directory, absolute.
    pub directory: PathBuf,
    /// Where prepared text is kept for this and other runs.
    pub cache: PathBuf,
}

/// Trains, from the newest valid checkpoint if there is one. Everything that happens is said through `events`.
pub fn execute(job: Job, inbox: Inbox, events: &EventSender) -> RunEnd {
    let (checkpoints, keep) = (job.directory.join("checkpoints"), job.config.checkpoint.keep);
    let reached = || Checkpoints::new(checkpoints, keep).newest_valid().0;
    match begin(job, inbox, events) {
        Ok(Some(mut trainer)) => match trainer.train() {
            Ok(outcome) => end_of(&trainer, outcome, None),
            Err(error) => end_of(&trainer, Outcome::Failed, Some(error.trouble())),
        },
        Ok(None) => end_before_training(reached(), Outcome::Interrupted, None),
        Err(error) => end_before_training(reached(), Outcome::Failed, Some(error.trouble())),
    }
}

/// Everything before the first step; `None` if the run was told to end meanwhile.
fn begin(job: Job, inbox: Inbox, events: &EventSender) -> Result<Option<Trainer>, EngineError> {
    let started = Instant::now();
    if let Some(deadline) = first_deadline(started, &job.config) {
        inbox.stop_flag().set_deadline(deadline);
    }
    let threads = use_threads(job.config.threads, events);
    let device = find_device(job.config.device)?.with_threads(threads);
    let Some(prepared) = prepare_text(&job, &inbox, events)? else { return Ok(None) };
    let corpus = Corpus {
        tokenizer_vocab_size: prepared.tokenizer.vocab_size(),
        train_tokens: Some(prepared.train.len()),
        entropy_rate: prepared.entropy_rate,
        device_is_cpu: device.is_cpu,
    };
    let plan = RunPlan::new(&job.config, &corpus)?;
    write_plan(&job, &plan)?;
    let checkpoints = Checkpoints::new(job.directory.join("checkpoints"), job.config.checkpoint.keep);
    let (newest, rejected) = checkpoints.newest_valid();
    let warn = |message: String| events.send(RunEvent::Warning(Warning { message }));
    for rejected in rejected {
        warn(format!("{} is not used: {}", rejected.path.display(), rejected.reason));
    }
    let start = Start::from(newest, &job.config, &plan, &device, &prepared.fingerprint)?;
    events.send(RunEvent::RunStarted(Box::new(RunHeader {
        name: job.config.name.clone(),
        directory: job.directory.clone(),
        device: device.description.clone(),
        threads,
        resumed_from: start.resumed_from,
        decisions: decisions(&job.config, &plan),
        plan: plan.clone(),
    })));
    plan.warnings.iter().cloned().for_each(warn);
    warn_about_room(&job, &plan, events);
    if prepared.validation.len().min(job.config.evaluation.max_tokens.0) < job.config.training.context_length as u64 {
        warn("the token-level loss is not measured: validation text or evaluation.max_tokens is shorter than training.context_length".to_owned());
    }
    let order = BlockOrder::new(prepared.train.len(), plan.block_tokens, job.config.seed, job.config.data.shuffle);
    let setting = Setting {
        loader: Loader::new(prepared.train, order),
        validation: prepared.validation,
        tokenizer: prepared.tokenizer,
        data_fingerprint: prepared.fingerprint,
        config: job.config,
        plan,
        device,
        checkpoints,
        events: events.clone(),
        started,
    };
    let Some(tokens_per_second) = try_stages(&setting.plan, &setting.device, &start.model, inbox.stop_flag())? else { return Ok(None) };
    events.send(RunEvent::Warmed(Warmup { tokens_per_second }));
    Ok(Some(Trainer::new(setting, inbox, start.model, start.optimizer, start.progress)))
}

/// What training starts from.
struct Start {
    model: LlamaForCausalLM,
    optimizer: AdamW,
    resumed_from: Option<u64>,
    progress: Reached,
}

impl Start {
    fn from(checkpoint: Option<Checkpoint>, config: &RunConfig, plan: &RunPlan, device: &ComputeDevice, data_fingerprint: &str) -> Result<Self, EngineError> {
        let recording: Device = device.device.clone().autodiff();
        let Some(checkpoint) = checkpoint else {
            let Ok(model) = LlamaForCausalLM::new(&plan.model, &mut random_weights(config.seed, &plan.model), &recording);
            let optimizer = AdamW::new(config.optimizer.clone());
            return Ok(Self {
                model,
                optimizer,
                resumed_from: None,
                progress: Reached { step: 0, active_seconds: vec![0.0; plan.stages.len()], has_looked: false },
            });
        };
        let step = checkpoint.manifest.step;
        if checkpoint.manifest.data_fingerprint != data_fingerprint {
            return Err(EngineError::OtherData { step });
        }
        Ok(Self {
            model: checkpoint.model(&plan.model, &recording)?,
            optimizer: checkpoint.optimizer(config.optimizer.clone(), &device.device)?,
            resumed_from: Some(step),
            progress: Reached { step, has_looked: checkpoint.state()?.has_looked, active_seconds: checkpoint.manifest.active_seconds },
        })
    }
}

/// Text to tokens; `None` if the run was told to end meanwhile. What was prepared for another run is used again.
fn prepare_text(job: &Job, inbox: &Inbox, events: &EventSender) -> Result<Option<Prepared>, EngineError> {
    let block_tokens = block_tokens(&job.config)?;
    let request = PrepareRequest {
        data: &job.config.data,
        seed: job.config.seed,
        generated_tokens: generated_tokens(&job.config)?.next_multiple_of(block_tokens),
        block_tokens,
        cache: &job.cache,
    };
    let mut watch = |activity: &str, done: u64, total: Option<u64>| {
        events.send(RunEvent::Progress(Progress { activity: activity.to_owned(), done, total }));
        if inbox.stop_flag().is_raised() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    match prepare(&request, &mut watch) {
        Ok(prepared) => Ok(Some(prepared)),
        Err(_) if inbox.stop_flag().is_raised() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Tokens that a generator must make so that none is read twice.
fn generated_tokens(config: &RunConfig) -> Result<u64, EngineError> {
    match (config.data.source(), config.training.budget()) {
        (TextSource::Files(_), _) => Ok(0),
        (TextSource::Generated(_), Budget::Epochs(_)) => Ok(GENERATED_TOKENS),
        (TextSource::Generated(_), _) => {
            let tokenizer = Tokenizer::load(&config.data.tokenizer)?;
            let corpus = Corpus { tokenizer_vocab_size: tokenizer.vocab_size(), train_tokens: None, entropy_rate: None, device_is_cpu: true };
            Ok(RunPlan::new(config, &corpus)?.cost.tokens)
        }
    }
}

/// Gives the computing crates `threads` threads, all for 0. Returns how many there are.
fn use_threads(threads: usize, events: &EventSender) -> usize {
    if rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().is_err() {
        let message = format!("threads = {threads} has no effect: this process already computes with {}", rayon::current_num_threads());
        if threads != 0 && threads != rayon::current_num_threads() {
            events.send(RunEvent::Warning(Warning { message }));
        }
    }
    rayon::current_num_threads()
}

fn write_plan(job: &Job, plan: &RunPlan) -> Result<(), EngineError> {
    let path = job.directory.join("plan.json");
    let io = |source| EngineError::Io { path: path.display().to_string(), source };
    let text = serde_json::to_string_pretty(plan).map_err(|error| io(error.into()))?;
    let scratch = path.with_extension("json.tmp");
    fs::write(&scratch, text + "\n").and_then(|()| fs::rename(&scratch, &path)).map_err(io)
}

/// Says early what a full disk would say late.
fn warn_about_room(job: &Job, plan: &RunPlan, events: &EventSender) {
    let kept = (job.config.checkpoint.keep + plan.stages.len() + 1) as u64;
    let needed = kept * plan.memory.checkpoint;
    if let Ok(free) = free_bytes(&job.directory)
        && free < needed
    {
        let message = format!("{kept} checkpoints take {needed} bytes and {free} are free in {}", job.directory.display());
        events.send(RunEvent::Warning(Warning { message }));
    }
}

fn end_of(trainer: &Trainer, outcome: Outcome, error: Option<Trouble>) -> RunEnd {
    RunEnd {
        outcome,
        step: trainer.step(),
        tokens: trainer.setting().plan.cost_after(trainer.step()).tokens,
        active_seconds: trainer.active_seconds(),
        token_loss: trainer.last_token_loss(),
        error,
    }
}

/// The end of an attempt that took no step; earlier ones may have.
fn end_before_training(reached: Option<Checkpoint>, outcome: Outcome, error: Option<Trouble>) -> RunEnd {
    let state = reached.as_ref().and_then(|checkpoint| checkpoint.state().ok());
    RunEnd {
        outcome,
        step: state.as_ref().map_or(0, |state| state.step),
        tokens: state.map_or(0, |state| state.tokens),
        active_seconds: reached.map_or(0.0, |checkpoint| checkpoint.manifest.active_seconds.iter().sum()),
        token_loss: None,
        error,
    }
}
