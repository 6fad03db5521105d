//! `patchtui eval`: scores of a model on tasks and texts.
//!
//! Reads every file before the model, and encodes every document before computing, so that a broken
//! one is found at once. Start at [`eval`].

use std::io::{self, IsTerminal};
use std::time::Instant;

use crate::advice::Audience;
use crate::advice::Failure;
use crate::cli::EvalArgs;
use crate::commands::Runs;
use crate::commands::eval_results::{Results, Samples, Subject};
use crate::commands::model::{choose_device, open_model};
use crate::config::Precision;
use crate::engine::compute::Compute;
use crate::engine::score::Scorer;
use crate::engine::workers::Workers;
use crate::engine::{EngineError, LoadedModel};
use crate::machine::terminal::{cut, window_size};
use crate::report::{Output, complain, stderr, warn};
use crate::steer::{StopFlag, StopLevel};
use crate::tasks::{
    EvaluateError, LoadOptions, LoadedTask, Selection, Task, TaskEncoder, TaskError, TaskFiles,
    TaskProgress, TaskResult, check_fit, evaluate,
};
use crate::text::format;
use crate::text::sanitize_line;

/// Evaluates a model and prints its scores. Returns the exit code.
///
/// A failed task is named; the other tasks are still evaluated, printed and written.
///
/// # Errors
/// When a task is unknown, a file is broken or missing, or the model cannot be opened; at the end,
/// if a task has failed.
pub fn eval(args: &EvalArgs, runs: &Runs) -> Result<u8, Failure> {
    let selection = Selection::parse(&args.tasks)?;
    let samples = args.output.as_deref().map(Samples::open).transpose()?;
    let options = LoadOptions { limit: args.limit.map(usize::from), num_fewshot: args.num_fewshot };
    let tasks = TaskFiles::new(args.task_data.as_deref()).load_all(&selection, options)?;
    choose_threads(args)?;
    let compute = Compute::new(choose_device(args.device.as_deref())?, Precision::F32);
    let model = open_model(&args.checkpoint, &compute, runs)?;
    let encoder =
        TaskEncoder::new(&model.files.tokenizer, args.add_bos, max_length(args, &model)?)?;
    let subject =
        Subject { args, model: &model, max_length: encoder.max_length(), device: &compute.device };
    if let Some(warning) = subject.warning() {
        warn(&warning);
    }
    let mut failed = Vec::new();
    let mut possible = Vec::new();
    for task in &tasks {
        match check_fit(task, &encoder) {
            Ok(()) => possible.push(task),
            Err(error) if tasks.len() == 1 => return Err(explained(error, &subject)),
            Err(error) => failed.push(say_failed(&task.task, &explained(error, &subject))),
        }
    }
    if possible.is_empty() {
        return all_done(&failed, tasks.len());
    }
    let stop = StopFlag::default();
    let workers = Workers::start(compute.clone(), stop.clone())?;
    let mut scorer =
        Scorer { model: &model.model, workers: &workers, batch_tokens: args.batch_tokens.get() };
    let mut results = Results::new(subject, &selection, samples);
    for task in possible {
        match evaluate_task(task, &encoder, &mut scorer, &mut || {
            stop_if(results.are_unwanted(), &stop);
        }) {
            Ok(Some(result)) => results.add(task, result),
            // Nobody reads the results any more.
            Ok(None) => break,
            Err(error) if tasks.len() == 1 => return Err(explained_failure(error, &subject)),
            Err(error) => failed.push(say_failed(&task.task, &explained_failure(error, &subject))),
        }
    }
    results.finish(&selection)?;
    all_done(&failed, tasks.len())
}

/// The exit code after `total` tasks, of which those in `failed` failed.
fn all_done(failed: &[String], total: usize) -> Result<u8, Failure> {
    if failed.is_empty() {
        return Ok(0);
    }
    let message = format!("{} of {total} tasks failed: {}", failed.len(), failed.join(", "));
    Err(Failure::failed(
        message,
        "see the errors above; the results of the other tasks are complete",
    ))
}

fn stop_if(is_unwanted: bool, stop: &StopFlag) {
    if is_unwanted {
        stop.raise(StopLevel::Now);
    }
}

/// Reports why a task has no result. Returns its name.
fn say_failed(task: &Task, error: &Failure) -> String {
    complain(&error.message, error.hint.as_deref());
    task.name()
}

/// The error of a task; suggests `--max-length` only where it helps.
fn explained(error: TaskError, subject: &Subject<'_>) -> Failure {
    let context_length = subject.model.files.context_length;
    match error {
        TaskError::ContinuationTooLong { tokens, .. }
            if subject.max_length < tokens && tokens <= context_length =>
        {
            Failure::usage(
                error.to_string(),
                format!("use --max-length {context_length}, the model's context length"),
            )
        }
        _ => error.into(),
    }
}

fn explained_failure(error: EvaluateError<EngineError>, subject: &Subject<'_>) -> Failure {
    match error {
        EvaluateError::Task(error) => explained(error, subject),
        EvaluateError::Score(error) => Failure::told_to(Audience::Evaluation, &error),
    }
}

fn choose_threads(args: &EvalArgs) -> Result<(), Failure> {
    let Some(threads) = args.threads else { return Ok(()) };
    let built = rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build_global();
    built.map_err(|error| {
        Failure::failed(format!("cannot use {threads} threads: {error}"), "retry without --threads")
    })
}

fn max_length(args: &EvalArgs, model: &LoadedModel) -> Result<usize, Failure> {
    let positions = model.files.context_length;
    match args.max_length {
        None => Ok(positions),
        Some(length) if length as usize <= positions => Ok(length as usize),
        Some(length) => Err(Failure::usage(
            format!(
                "--max-length {length} exceeds the context length of the model ({positions} \
                 tokens)"
            ),
            format!("use at most {positions}, or no --max-length"),
        )),
    }
}

/// Evaluates a task; `None` if it was stopped. Calls `heartbeat` now and then.
fn evaluate_task(
    task: &LoadedTask,
    encoder: &TaskEncoder<'_>,
    scorer: &mut Scorer<'_>,
    heartbeat: &mut dyn FnMut(),
) -> Result<Option<TaskResult>, EvaluateError<EngineError>> {
    let mut shown = ProgressLine::new(&task.task);
    let result = evaluate(task, encoder, scorer, &mut |progress| {
        heartbeat();
        shown.show(progress);
    });
    match &result {
        Ok(Some(result)) => shown.end(result.num_documents),
        Ok(None) | Err(_) => shown.clear(),
    }
    result
}

/// Progress of a task: on a terminal one line that is updated in place, elsewhere one line at the
/// end.
struct ProgressLine {
    task: String,
    started: Instant,
    is_terminal: bool,
    out: Output,
}

impl ProgressLine {
    fn new(task: &Task) -> Self {
        Self {
            task: sanitize_line(&task.name()),
            started: Instant::now(),
            is_terminal: io::stderr().is_terminal(),
            out: stderr(),
        }
    }

    fn show(&mut self, progress: TaskProgress) {
        if self.is_terminal {
            let seconds = self.started.elapsed().as_secs_f64();
            let left = format::duration(seconds / progress.share - seconds);
            let line = format!(
                "{}: {:.0} %, {} of {}, ETA {left}",
                self.task,
                100.0 * progress.share,
                progress.done,
                progress.total
            );
            let columns = window_size(io::stderr()).map_or(80, |(columns, _)| usize::from(columns));
            self.out.try_write(&format!("\r\x1b[K{}", cut(&line, columns.saturating_sub(1))));
        }
    }

    fn clear(&mut self) {
        if self.is_terminal {
            self.out.try_write("\r\x1b[K");
        }
    }

    fn end(&mut self, num_documents: usize) {
        self.clear();
        // On a terminal the row of the table says it, and a line here would stand between two rows.
        if io::stdout().is_terminal() {
            return;
        }
        let (documents, time) = (
            format::grouped(num_documents as u64),
            format::duration(self.started.elapsed().as_secs_f64()),
        );
        let noun = if num_documents == 1 { "document" } else { "documents" };
        self.out.try_write(&format!("{}: {documents} {noun} in {time}\n", self.task));
    }
}
