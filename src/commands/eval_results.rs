//! Output of `patchtui eval`: each completed task goes to the table and to the samples file at
//! once, all of them to the JSON document at the end. If one output cannot be written, the others
//! still are.
//!
//! Start at [`Results`].

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::advice::Failure;
use crate::cli::EvalArgs;
use crate::commands::result_path::result_path_error;
use crate::engine::LoadedModel;
use crate::engine::device::ComputeDevice;
use crate::record::{ResultFile, RunDirectory};
use crate::report::{
    ComparedRow, Output, ScoreRow, ScoresTable, comparison_table, complain, reader_is_gone, stdout,
};
use crate::tasks::{
    Group, GroupResult, LoadedTask, Metric, PAPER_COLUMNS, PaperRow, Selection, Task, TaskResult,
    published_rows, results_document, sample_lines,
};
use crate::text::{sanitize, sanitize_line};

/// The evaluated model and the settings that all tasks share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub args: &'a EvalArgs,
    pub model: &'a LoadedModel,
    /// Context length.
    pub max_length: usize,
    pub device: &'a ComputeDevice,
}

/// The results so far, and their outputs.
pub(super) struct Results<'a> {
    subject: Subject<'a>,
    table: ScoresTable,
    tasks: Vec<TaskResult>,
    out: Output,
    samples: Option<Samples<'a>>,
    /// The first output that could not be written.
    lost: Option<Failure>,
}

/// The file of `--output`.
pub(super) struct Samples<'a> {
    path: &'a Path,
    file: ResultFile,
}

impl<'a> Samples<'a> {
    /// Opens the path before anything is computed.
    pub(super) fn open(path: &'a Path) -> Result<Self, Failure> {
        let file = ResultFile::open(path).map_err(|error| result_path_error(path, &error))?;
        Ok(Self { path, file })
    }
}

impl<'a> Results<'a> {
    /// Prints the title of the table; `tasks` will follow.
    pub(super) fn new(
        subject: Subject<'a>,
        selection: &Selection,
        samples: Option<Samples<'a>>,
    ) -> Self {
        let names = selection
            .tasks
            .iter()
            .map(Task::name)
            .chain(selection.groups.iter().map(|group| group.name.to_owned()));
        let table = ScoresTable::new(names);
        let mut results =
            Self { subject, table, tasks: Vec::new(), out: stdout(), samples, lost: None };
        if !subject.args.json {
            let head = sanitize_line(&subject.title()) + "\n\n" + &results.table.head();
            results.print(&head);
        }
        results
    }

    /// Outputs the result of a completed task.
    pub(super) fn add(&mut self, task: &LoadedTask, result: TaskResult) {
        if !self.subject.args.json {
            let rows = task_rows(&result);
            self.print(&self.table.rows(&rows));
        }
        // After a lost part, later parts would hide the gap.
        if let Some(mut samples) = self.samples.take() {
            match samples.file.append(sample_lines(task, &result).as_bytes()) {
                Ok(()) => self.samples = Some(samples),
                Err(error) => self.lose(&Failure::io(samples.path, &error)),
            }
        }
        self.tasks.push(result);
    }

    /// Whether no output is left that further results could reach.
    pub(super) fn are_unwanted(&self) -> bool {
        self.samples.is_none() && (!self.out.is_open() || reader_is_gone())
    }

    /// Prints what depends on all tasks together.
    ///
    /// # Errors
    /// The first output that could not be written.
    pub(super) fn finish(mut self, selection: &Selection) -> Result<(), Failure> {
        // A group with a failed task has no result.
        let is_whole = |group: &&'static Group| {
            let of_group =
                |task: &Task| matches!(task, Task::Mmlu(subject) if group.contains(subject));
            selection.tasks.iter().filter(|task| of_group(task)).count()
                == self.tasks.iter().filter(|result| of_group(&result.task)).count()
        };
        let groups: Vec<GroupResult> = selection
            .groups
            .iter()
            .copied()
            .filter(is_whole)
            .filter_map(|group| GroupResult::new(group, &self.tasks))
            .collect();
        let paper = if selection.is_paper() { PaperRow::new(&self.tasks, &groups) } else { None };
        let text = if self.subject.args.json {
            sanitize::json(&format!("{:#}\n", self.document(&groups, paper.as_ref()))).into_owned()
        } else {
            let rows: Vec<ScoreRow> = groups.iter().flat_map(group_rows).collect();
            self.table.rows(&rows) + &paper.map(|row| self.comparison(&row)).unwrap_or_default()
        };
        self.print(&text);
        self.lost.map_or(Ok(()), Err)
    }

    fn print(&mut self, text: &str) {
        if let Err(error) = self.out.write(text) {
            self.lose(&error.into());
        }
    }

    /// Reports at once what could not be written, since the evaluation continues.
    fn lose(&mut self, error: &Failure) {
        complain(&error.message, error.hint.as_deref());
        self.lost
            .get_or_insert(Failure::failed("a result could not be written", "see the error above"));
    }

    fn comparison(&self, row: &PaperRow) -> String {
        let label =
            if self.subject.args.limit.is_some() { "this model (subset)" } else { "this model" };
        let this = ComparedRow { label: label.into(), values: row.0 };
        let published = published_rows(&self.subject.model.files.shape).iter();
        let published = published.map(|published| ComparedRow {
            label: published.label.into(),
            values: published.row.0,
        });
        let table = comparison_table(
            PAPER_COLUMNS,
            &std::iter::once(this).chain(published).collect::<Vec<_>>(),
        );
        format!(
            "\n{table}WikiText-103 perplexity and zero-shot accuracy (%): acc for MMLU and \
             WinoGrande, acc_norm for the others\n"
        )
    }

    fn document(&self, groups: &[GroupResult], paper: Option<&PaperRow>) -> Value {
        let mut document = results_document(&self.tasks, groups, self.subject.config());
        let of_tasks = self
            .tasks
            .iter()
            .filter_map(|result| Some((result.task.name(), json!(result.chance?))));
        let of_groups = groups
            .iter()
            .filter_map(|group| Some((group.group.name.to_owned(), json!(group.chance?))));
        document["chance"] = Value::Object(of_tasks.chain(of_groups).collect::<Map<_, _>>());
        document["warnings"] = json!(self.subject.warning().into_iter().collect::<Vec<_>>());
        if let Some(row) = paper {
            let row_json = |row: &PaperRow| -> Value {
                PAPER_COLUMNS.into_iter().map(str::to_owned).zip(row.0).collect()
            };
            let published = published_rows(&self.subject.model.files.shape).iter();
            let published: Vec<Value> = published.map(|published| json!({ "label": published.label, "row": row_json(&published.row) })).collect();
            document["paper"] = json!({ "row": row_json(row), "published": published });
        }
        document
    }
}

impl Subject<'_> {
    /// Why these scores are not comparable with those of other models, if so.
    pub(super) fn warning(&self) -> Option<String> {
        let patch_size = self.model.files.patch_size.get();
        (patch_size > 1).then(|| {
            format!(
                "this checkpoint is from a patch stage (K = {patch_size}), but tasks are scored \
                 token by token: its scores mean little before the K = 1 stage"
            )
        })
    }

    fn step(&self) -> Option<u64> {
        self.model.files.origin.checkpoint().map(|checkpoint| checkpoint.state.step)
    }

    /// The model and the settings that all rows of the table share.
    fn title(&self) -> String {
        let files = &self.model.files;
        let name = files.origin.run().map_or_else(|| files.origin.name(), RunDirectory::name);
        let step = self.step().map_or_else(String::new, |step| format!(", step {step}"));
        let stage = if files.patch_size.get() > 1 { " (patch stage: not comparable)" } else { "" };
        let bos = if self.args.add_bos { "with BOS" } else { "without BOS" };
        format!(
            "{name}{step}, K = {}{stage}, context {} tokens, {bos}, {}",
            files.patch_size, self.max_length, self.device.description
        )
    }

    fn config(&self) -> Value {
        let files = &self.model.files;
        json!({
            "model": "patchtui",
            "model_args": {
                "checkpoint": files.origin.path().to_string_lossy(),
                "step": self.step(),
                "patch_size": files.patch_size.get(),
                "add_bos_token": self.args.add_bos,
            },
            "max_length": self.max_length,
            "batch_tokens": self.args.batch_tokens,
            "device": self.device.description,
            "limit": self.args.limit,
            "patchtui_version": env!("CARGO_PKG_VERSION"),
        })
    }
}

/// The rows of a task.
fn task_rows(result: &TaskResult) -> Vec<ScoreRow> {
    let TaskResult { num_documents, num_fewshot, chance, metrics, .. } = result;
    score_rows(&result.task.name(), [*num_documents, *num_fewshot], *chance, metrics)
}

/// The rows of a group of tasks.
fn group_rows(result: &GroupResult) -> Vec<ScoreRow> {
    let GroupResult { num_documents, num_fewshot, chance, metrics, .. } = result;
    score_rows(result.group.name, [*num_documents, *num_fewshot], *chance, metrics)
}

/// A row for each metric of what is called `task`; all have the same numbers of documents and of
/// shots.
fn score_rows(
    task: &str,
    [num_documents, num_fewshot]: [usize; 2],
    chance: Option<f64>,
    metrics: &[Metric],
) -> Vec<ScoreRow> {
    let row = |metric: &Metric| ScoreRow {
        task: task.to_owned(),
        num_documents: num_documents as u64,
        num_fewshot: num_fewshot as u64,
        metric: metric.name,
        value: metric.value,
        stderr: metric.stderr,
        chance,
    };
    metrics.iter().map(row).collect()
}
