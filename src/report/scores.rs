//! Results of evaluations as tables for people.
//!
//! Formats names and numbers as they were measured. Start at [`ScoresTable`].

use crate::report::table::{aligned, in_columns, width};
use crate::text::format::grouped;
use crate::text::sanitize_line;

/// Column heads.
const HEAD: [&str; 7] = ["TASK", "DOCUMENTS", "SHOTS", "METRIC", "VALUE", "STDERR", "CHANCE"];

/// One score.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRow {
    /// Name of the task, indented if it is part of a group.
    pub task: String,
    /// Documents evaluated.
    pub num_documents: u64,
    /// Few-shot examples per question.
    pub num_fewshot: u64,
    /// Name of the metric.
    pub metric: &'static str,
    /// Value; accuracies are between 0 and 1.
    pub value: f64,
    /// Standard error, if known.
    pub stderr: Option<f64>,
    /// Chance level, if the task has choices.
    pub chance: Option<f64>,
}

/// One row of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparedRow {
    /// The model.
    pub label: String,
    /// Values in column order.
    pub values: [f64; 8],
}

/// A table of scores that is printed row by row, as they are measured.
#[derive(Debug, Clone)]
pub struct ScoresTable {
    widths: [usize; 7],
}

impl ScoresTable {
    /// The table for tasks with these names.
    pub fn new(tasks: impl Iterator<Item = String>) -> Self {
        let task =
            tasks.map(|task| width(&indented(&task))).chain([width(HEAD[0])]).max().unwrap_or(0);
        // The longest count, metric and value that fit their columns.
        Self {
            widths: [
                task,
                HEAD[1].len(),
                HEAD[2].len(),
                "word_perplexity".len(),
                "1.0000e99".len(),
                "0.0000".len(),
                HEAD[6].len(),
            ],
        }
    }

    /// The column heads.
    #[must_use]
    pub fn head(&self) -> String {
        in_columns(&[HEAD.map(str::to_owned)], self.widths)
    }

    /// The scores of a task, one per line; the first line has its name.
    #[must_use]
    pub fn rows(&self, rows: &[ScoreRow]) -> String {
        let mut lines = Vec::new();
        let mut last_task = None;
        for row in rows {
            let is_first = last_task != Some(&row.task);
            last_task = Some(&row.task);
            lines.push([
                if is_first { indented(&row.task) } else { String::new() },
                if is_first { grouped(row.num_documents) } else { String::new() },
                if is_first { grouped(row.num_fewshot) } else { String::new() },
                row.metric.into(),
                value(row.value),
                row.stderr.map_or_else(|| "-".into(), |stderr| format!("{stderr:.4}")),
                row.chance.map_or_else(|| "-".into(), |chance| format!("{chance:.4}")),
            ]);
        }
        in_columns(&lines, self.widths)
    }
}

/// Rows with the same eight columns: a perplexity, then percentages.
#[must_use]
pub fn comparison_table(columns: [&str; 8], rows: &[ComparedRow]) -> String {
    let line = |label: &str, cells: [String; 8]| -> [String; 9] {
        let mut cells = cells.into_iter();
        std::array::from_fn(|idx| {
            if idx == 0 { sanitize_line(label) } else { cells.next().unwrap_or_default() }
        })
    };
    let head = line("", columns.map(str::to_owned));
    let lines =
        rows.iter().map(|row| line(&row.label, row.values.map(|value| format!("{value:.1}"))));
    aligned(&std::iter::once(head).chain(lines).collect::<Vec<_>>())
}

/// A name, sanitized, with its indentation.
fn indented(name: &str) -> String {
    let indent = name.len() - name.trim_start_matches(' ').len();
    format!("{}{}", &name[..indent], sanitize_line(&name[indent..]))
}

fn value(value: f64) -> String {
    if value.abs() < 1e6 { format!("{value:.4}") } else { format!("{value:.4e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(task: &str, metric: &'static str, value: f64, stderr: Option<f64>) -> ScoreRow {
        let chance = metric.starts_with("acc").then_some(0.5);
        ScoreRow {
            task: task.into(),
            num_documents: 1838,
            num_fewshot: 0,
            metric,
            value,
            stderr,
            chance,
        }
    }

    #[test]
    fn a_task_is_named_once_and_columns_do_not_move_between_tasks() {
        let piqa =
            [row("piqa", "acc", 0.519_042, Some(0.011_657)), row("piqa", "acc_norm", 0.51, None)];
        let text = row("  text:\u{1b}[2Ja", "word_perplexity", 12.345, None);
        let table = ScoresTable::new([&piqa[0], &text].into_iter().map(|row| row.task.clone()));
        let expected = "TASK      DOCUMENTS  SHOTS  METRIC           VALUE      STDERR  CHANCE\n\
                        piqa      1,838      0      acc              0.5190     0.0117  0.5000\n\
                        \u{20}                           acc_norm         0.5100     -       0.5000\n\
                        \u{20} text:a  1,838      0      word_perplexity  12.3450    -       -\n";
        assert_eq!(table.head() + &table.rows(&piqa) + &table.rows(&[text]), expected);
    }

    #[test]
    fn rows_are_compared_column_by_column() {
        let rows = [ComparedRow {
            label: "this model".into(),
            values: [10.94, 22.9, 40.8, 67.5, 53.1, 44.3, 24.7, 42.216],
        }];
        let columns =
            ["PPL", "MMLU", "HellaSwag", "PIQA", "WinoGrande", "ARC-E", "ARC-C", "average"];
        let expected = "            PPL   MMLU  HellaSwag  PIQA  WinoGrande  ARC-E  ARC-C  average\nthis \
             model  10.9  22.9  40.8       67.5  53.1        44.3   24.7   42.2\n";
        assert_eq!(comparison_table(columns, &rows), expected);
    }
}
