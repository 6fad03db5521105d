//! Results of evaluations as tables for people.
//!
//! Takes names and numbers as they were measured. Start at [`ScoresTable`].

use crate::report::format::grouped;
use crate::report::table::{aligned, in_columns, width};
use crate::run::sanitize_line;

/// Heads of the columns.
const HEAD: [&str; 7] = ["TASK", "DOCUMENTS", "SHOTS", "METRIC", "VALUE", "STDERR", "CHANCE"];

/// One measured number.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRow {
    /// Name of the task, indented where it belongs to the one above.
    pub task: String,
    /// Documents that were evaluated.
    pub num_documents: u64,
    /// Worked examples before each question.
    pub num_fewshot: u64,
    /// Name of the number.
    pub metric: &'static str,
    /// Its value; a share of right answers is between 0 and 1.
    pub value: f64,
    /// Its standard error, if it can be said.
    pub stderr: Option<f64>,
    /// What random choices would give, where there are choices.
    pub chance: Option<f64>,
}

/// One row of numbers to be compared with others.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparedRow {
    /// What the numbers are of.
    pub label: String,
    /// Numbers in the order of the columns.
    pub values: [f64; 8],
}

/// A table of numbers that is printed row by row, as they are measured.
#[derive(Debug, Clone)]
pub struct ScoresTable {
    widths: [usize; 7],
}

impl ScoresTable {
    /// For tasks of these names.
    pub fn new(tasks: impl Iterator<Item = String>) -> Self {
        let task = tasks.map(|task| width(&indented(&task))).chain([width(HEAD[0])]).max().unwrap_or(0);
        // The longest count, metric and value that fit without moving a column.
        Self { widths: [task, HEAD[1].len(), HEAD[2].len(), "word_perplexity".len(), "1.0000e99".len(), "0.0000".len(), HEAD[6].len()] }
    }

    /// The heads of the columns.
    #[must_use]
    pub fn head(&self) -> String {
        in_columns(&[HEAD.map(str::to_owned)], self.widths)
    }

    /// The numbers of a task, one line for each; its name stands on the first.
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

/// Rows of the same eight columns, the first of which is a perplexity and the others are percentages.
#[must_use]
pub fn comparison_table(columns: [&str; 8], rows: &[ComparedRow]) -> String {
    let line = |label: &str, cells: [String; 8]| -> [String; 9] {
        let mut cells = cells.into_iter();
        std::array::from_fn(|idx| if idx == 0 { sanitize_line(label) } else { cells.next().unwrap_or_default() })
    };
    let head = line("", columns.map(str::to_owned));
    let lines = rows.iter().map(|row| line(&row.label, row.values.map(|value| format!("{value:.1}"))));
    aligned(&std::iter::once(head).chain(lines).collect::<Vec<_>>())
}

/// A name that is safe for a terminal, with its indentation.
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
        ScoreRow { task: task.into(), num_documents: 1838, num_fewshot: 0, metric, value, stderr, chance }
    }

    #[test]
    fn a_task_is_named_once_and_columns_do_not_move_between_tasks() {
        let piqa = [row("piqa", "acc", 0.519_042, Some(0.011_657)), row("piqa", "acc_norm", 0.51, None)];
        let text = row("  text:\u{1b}[2Ja", "word_perplexity", 12.345, None);
        let table = ScoresTable::new([&piqa[0], &text].into_iter().map(|row| row.task.clone()));
        let expected = "TASK      DOCUMENTS  SHOTS  METRIC           VALUE      STDERR  CHANCE\n\
                        piqa      1 838      0      acc              0.5190     0.0117  0.5000\n\
                        \u{20}                           acc_norm         0.5100     -       0.5000\n\
                        \u{20} text:a  1 838      0      word_perplexity  12.3450    -       -\n";
        assert_eq!(table.head() + &table.rows(&piqa) + &table.rows(&[text]), expected);
    }

    #[test]
    fn rows_are_compared_column_by_column() {
        let rows = [ComparedRow { label: "this network".into(), values: [10.94, 22.9, 40.8, 67.5, 53.1, 44.3, 24.7, 42.216] }];
        let columns = ["PPL", "MMLU", "HellaSwag", "PIQA", "WinoGrande", "ARC-E", "ARC-C", "average"];
        let expected = "              PPL   MMLU  HellaSwag  PIQA  WinoGrande  ARC-E  ARC-C  average\n\
                        this network  10.9  22.9  40.8       67.5  53.1        44.3   24.7   42.2\n";
        assert_eq!(comparison_table(columns, &rows), expected);
    }
}
