//! `patchtui eval`: a model's numbers on tasks and texts.
//!
//! Every file is read before the model is, so that a broken one costs no time. Start at [`eval`].

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::cli::EvalArgs;
use crate::commands::model::{choose_device, open_model};
use crate::commands::{CommandError, Runs};
use crate::engine::LoadedModel;
use crate::engine::device::ComputeDevice;
use crate::engine::score::Scorer;
use crate::engine::workers::Workers;
use crate::report::{ComparedRow, Output, ScoreRow, comparison_table, format, print, scores_table};
use crate::run::terminal::{cut, window_size};
use crate::run::{StopFlag, replace_file, sanitize, sanitize_line};
use crate::tasks::{
    Encoder, EvaluateError, GroupResult, LoadOptions, LoadedTask, Metric, PaperRow, Progress, PublishedRow, Selection, Task, TaskFiles, TaskResult, evaluate,
    published_rows, results_document, sample_lines,
};

/// What was measured.
struct Results {
    tasks: Vec<TaskResult>,
    groups: Vec<GroupResult>,
    /// The paper's row, with the published ones, if all of its tasks were measured.
    paper: Option<(PaperRow, &'static [PublishedRow])>,
}

/// Evaluates a model and prints its numbers. Returns the exit code.
///
/// # Errors
/// When a task is unknown, a file is broken or missing, the model cannot be opened, or the device fails.
pub fn eval(args: &EvalArgs, runs: &Runs) -> Result<u8, CommandError> {
    let selection = Selection::parse(&args.tasks)?;
    if let Some(path) = &args.output {
        check_output(path)?;
    }
    let options = LoadOptions { limit: args.limit.map(usize::from), num_fewshot: args.num_fewshot };
    let mut files = TaskFiles::new(args.task_data.as_deref());
    let tasks = selection.tasks.iter().map(|task| files.load(task, options)).collect::<Result<Vec<_>, _>>()?;
    drop(files);
    choose_threads(args)?;
    let device = choose_device(args.device.as_deref())?;
    let model = open_model(&args.checkpoint, &device, runs)?;
    let encoder = Encoder::new(&model.files.tokenizer, args.add_bos, max_length(args, &model)?)?;
    let workers = Workers::start(device.clone(), StopFlag::default())?;
    let mut scorer = Scorer { model: &model.model, workers: &workers, batch_tokens: args.batch_tokens.get() };
    let tasks_with_results = tasks.iter().map(|task| Ok((task, evaluate_task(task, &encoder, &mut scorer)?)));
    let (tasks, results): (Vec<_>, Vec<_>) = tasks_with_results.collect::<Result<Vec<_>, CommandError>>()?.into_iter().unzip();
    if let Some(path) = &args.output {
        let lines: String = tasks.iter().zip(&results).map(|(task, result)| sample_lines(task, result)).collect();
        replace_file(path, lines.as_bytes()).map_err(|error| CommandError::io(path, &error))?;
    }
    let groups: Vec<GroupResult> = selection.groups.iter().filter_map(|group| GroupResult::new(group, &results)).collect();
    let paper = if selection.is_paper() { PaperRow::new(&results, &groups) } else { None };
    let results = Results { paper: paper.map(|row| (row, published_rows(&model.files.shape))), tasks: results, groups };
    if args.json {
        let document = results_json(&results, config_json(args, &model, &encoder, &device));
        print(&sanitize::json(&format!("{document:#}\n")));
    } else {
        print(&results_text(&results, args));
    }
    Ok(0)
}

/// Refuses a place where nothing can be written before hours are spent on what is to be written there.
fn check_output(path: &Path) -> Result<(), CommandError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        return Err(CommandError::usage(format!("{} is a folder", path.display()), "name a file after --output"));
    }
    if folder.is_dir() {
        return Ok(());
    }
    Err(CommandError::usage(format!("there is no folder {}", folder.display()), "make it, or name a file in another folder after --output"))
}

fn choose_threads(args: &EvalArgs) -> Result<(), CommandError> {
    let Some(threads) = args.threads else { return Ok(()) };
    let built = rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build_global();
    built.map_err(|error| CommandError::failed(format!("cannot compute with {threads} threads: {error}"), "leave out --threads"))
}

fn max_length(args: &EvalArgs, model: &LoadedModel) -> Result<usize, CommandError> {
    let positions = model.files.context_length;
    match args.max_length {
        None => Ok(positions),
        Some(length) if length as usize <= positions => Ok(length as usize),
        Some(length) => Err(CommandError::usage(
            format!("--max-length {length} is more than the {positions} tokens that the model was trained to read at once"),
            "use a smaller one, or leave it out",
        )),
    }
}

fn evaluate_task(task: &LoadedTask, encoder: &Encoder<'_>, scorer: &mut Scorer<'_>) -> Result<TaskResult, CommandError> {
    let mut shown = ProgressLine::new(&task.task);
    match evaluate(task, encoder, scorer, &mut |progress| shown.show(progress)) {
        Ok(Some(result)) => {
            shown.end(result.num_documents);
            Ok(result)
        }
        Ok(None) => Err(CommandError::failed("the evaluation was interrupted", "run the same command again")),
        Err(error) => {
            shown.clear();
            Err(match error {
                EvaluateError::Task(error) => error.into(),
                EvaluateError::Score(error) => CommandError::failed(error.to_string(), "use a smaller --batch-tokens, or --device cpu"),
            })
        }
    }
}

/// How far a task is: one line that is written again and again on a terminal; elsewhere a line at the end.
struct ProgressLine {
    task: String,
    started: Instant,
    is_terminal: bool,
    out: Output,
}

impl ProgressLine {
    fn new(task: &Task) -> Self {
        let stderr = io::stderr();
        Self { task: sanitize_line(&task.name()), started: Instant::now(), is_terminal: stderr.is_terminal(), out: Output::new(Box::new(stderr)) }
    }

    fn show(&mut self, progress: Progress) {
        if self.is_terminal {
            let seconds = self.started.elapsed().as_secs_f64();
            let left = format::duration(seconds / progress.share - seconds);
            let line = format!("{}: {:.0} %, {} of {}, ETA {left}", self.task, 100.0 * progress.share, progress.done, progress.total);
            let columns = window_size(io::stderr()).map_or(80, |(columns, _)| usize::from(columns));
            self.out.write(&format!("\r\x1b[K{}", cut(&line, columns.saturating_sub(1))));
        }
    }

    fn clear(&mut self) {
        if self.is_terminal {
            self.out.write("\r\x1b[K");
        }
    }

    fn end(&mut self, num_documents: usize) {
        self.clear();
        let (documents, time) = (format::grouped(num_documents as u64), format::duration(self.started.elapsed().as_secs_f64()));
        let noun = if num_documents == 1 { "document" } else { "documents" };
        self.out.write(&format!("{}: {documents} {noun} in {time}\n", self.task));
    }
}

fn results_text(results: &Results, args: &EvalArgs) -> String {
    let mut rows = Vec::new();
    for result in &results.groups {
        rows.extend(score_rows(result.group.name, result.num_documents, &result.metrics));
    }
    for result in &results.tasks {
        rows.extend(score_rows(&result.task.name(), result.num_documents, &result.metrics));
    }
    let mut text = scores_table(&rows);
    if let Some((row, published)) = &results.paper {
        let this = ComparedRow { label: if args.limit.is_some() { "this network, first documents only" } else { "this network" }.into(), values: numbers(row) };
        let published = published.iter().map(|published| ComparedRow { label: published.label.into(), values: numbers(&published.row) });
        text.push('\n');
        text += &comparison_table(row.columns().map(|(head, _)| head), &std::iter::once(this).chain(published).collect::<Vec<_>>());
        text += "perplexity of WikiText-103 and percent of right answers without examples: acc of MMLU and WinoGrande, acc_norm of the others\n";
    }
    text
}

fn score_rows(task: &str, num_documents: usize, metrics: &[Metric]) -> Vec<ScoreRow> {
    let row =
        |metric: &Metric| ScoreRow { task: task.into(), num_documents: num_documents as u64, metric: metric.name, value: metric.value, stderr: metric.stderr };
    metrics.iter().map(row).collect()
}

fn numbers(row: &PaperRow) -> [f64; 8] {
    row.columns().map(|(_, number)| number)
}

fn results_json(results: &Results, config: Value) -> Value {
    let mut document = results_document(&results.tasks, &results.groups, config);
    if let Some((row, published)) = &results.paper {
        let row_json = |row: &PaperRow| -> Value { row.columns().into_iter().map(|(head, value)| (head.to_owned(), json!(value))).collect() };
        let published: Vec<Value> = published.iter().map(|published| json!({ "label": published.label, "row": row_json(&published.row) })).collect();
        document["paper"] = json!({ "row": row_json(row), "published": published });
    }
    document
}

fn config_json(args: &EvalArgs, model: &LoadedModel, encoder: &Encoder<'_>, device: &ComputeDevice) -> Value {
    let step = model.files.origin.checkpoint().map(|checkpoint| checkpoint.state.step);
    json!({
        "model": "patchtui",
        "model_args": { "checkpoint": model.files.origin.path().to_string_lossy(), "step": step, "add_bos_token": args.add_bos },
        "max_length": encoder.max_length(),
        "batch_tokens": args.batch_tokens,
        "device": device.description,
        "limit": args.limit,
        "patchtui_version": env!("CARGO_PKG_VERSION"),
    })
}
