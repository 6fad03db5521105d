//! The tasks that a run is scored on repeatedly: loaded once.
//!
//! Start at [`Suite::load`].

use std::path::Path;

use crate::tasks::{
    EvaluateError, GroupResult, LoadOptions, LoadedTask, Metric, Score, Selection, Task,
    TaskEncoder, TaskError, TaskFiles, TaskProgress, evaluate,
};

/// Some tasks with their documents.
#[derive(Debug, Clone, Default)]
pub struct Suite {
    selection: Selection,
    tasks: Vec<LoadedTask>,
}

/// A metric of a task or of a group of tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct SuiteScore {
    /// Name of the task or the group.
    pub task: String,
    /// Metric.
    pub metric: Metric,
    /// Documents evaluated.
    pub num_documents: usize,
}

impl Suite {
    /// Loads the tasks `names` from `folder`, the first `limit` documents of each; empty for no
    /// names.
    ///
    /// # Errors
    /// When a name is unknown, a file is missing, or a document is malformed.
    pub fn load(names: &[String], folder: Option<&Path>, limit: usize) -> Result<Self, TaskError> {
        if names.is_empty() {
            return Ok(Self::default());
        }
        let selection = Selection::parse(&names.join(","))?;
        let options = LoadOptions { limit: Some(limit), num_fewshot: 0 };
        let tasks = TaskFiles::new(folder).load_all(&selection, options)?;
        Ok(Self { selection, tasks })
    }

    /// Whether the suite is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Scores a model on all tasks; `None` if stopped. Subjects of MMLU are reported only in their
    /// groups, if groups were selected.
    ///
    /// # Errors
    /// When a document does not fit the model, or the model fails.
    pub fn evaluate<S: Score>(
        &self,
        encoder: &TaskEncoder<'_>,
        scorer: &mut S,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Option<Vec<SuiteScore>>, EvaluateError<S::Error>> {
        let total: usize = self.tasks.iter().map(|task| task.documents.len()).sum();
        let mut results = Vec::new();
        let mut before = 0;
        for task in &self.tasks {
            let of_task = task.documents.len();
            let mut tell = |now: TaskProgress| {
                progress((before as f64 + now.share * of_task as f64) as u64, total as u64);
            };
            let Some(result) = evaluate(task, encoder, scorer, &mut tell)? else { return Ok(None) };
            results.push(result);
            before += of_task;
        }
        let is_grouped = |task: &Task| matches!(task, Task::Mmlu(subject) if self.selection.groups.iter().any(|group| group.contains(subject)));
        let groups =
            self.selection.groups.iter().filter_map(|group| GroupResult::new(group, &results));
        let all_of = |task: String, metrics: &[Metric], num_documents: usize| -> Vec<SuiteScore> {
            metrics
                .iter()
                .map(|metric| SuiteScore { task: task.clone(), metric: *metric, num_documents })
                .collect()
        };
        let of_groups = groups.flat_map(|group| {
            all_of(group.group.name.to_owned(), &group.metrics, group.num_documents)
        });
        let of_tasks = results.iter().filter(|result| !is_grouped(&result.task));
        let of_tasks = of_tasks
            .flat_map(|result| all_of(result.task.name(), &result.metrics, result.num_documents));
        Ok(Some(of_tasks.chain(of_groups).collect()))
    }
}
