//! Results of evaluations as tables for people.
//!
//! Knows names and numbers; never how they were measured. Start at [`scores_table`].

use crate::report::format::grouped;
use crate::report::table::aligned;
use crate::run::sanitize_line;

/// One measured number.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRow {
    /// Name of the task, indented where it belongs to the one above.
    pub task: String,
    /// Documents that were evaluated.
    pub num_documents: u64,
    /// Name of the number.
    pub metric: &'static str,
    /// Its value; a share of right answers is between 0 and 1.
    pub value: f64,
    /// Its standard error, if it can be said.
    pub stderr: Option<f64>,
}

/// One row of numbers to be compared with others.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparedRow {
    /// What the numbers are of.
    pub label: String,
    /// Numbers in the order of the columns.
    pub values: [f64; 8],
}

/// The numbers of all tasks, one line for each; a task's name stands on its first.
#[must_use]
pub fn scores_table(rows: &[ScoreRow]) -> String {
    let mut lines = vec![["TASK", "DOCUMENTS", "METRIC", "VALUE", "STDERR"].map(str::to_owned)];
    let mut last_task = None;
    for row in rows {
        let is_first = last_task != Some(&row.task);
        last_task = Some(&row.task);
        lines.push([
            if is_first { indented(&row.task) } else { String::new() },
            if is_first { grouped(row.num_documents) } else { String::new() },
            row.metric.into(),
            value(row.value),
            row.stderr.map_or_else(|| "-".into(), |stderr| format!("{stderr:.4}")),
        ]);
    }
    aligned(&lines)
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
        ScoreRow { task: task.into(), num_documents: 1838, metric, value, stderr }
    }

    #[test]
    fn a_task_is_named_once() {
        let rows = [row("piqa", "acc", 0.519_042, Some(0.011_657)), row("piqa", "acc_norm", 0.51, None), row("  text:\u{1b}[2Ja", "perplexity", 12.345, None)];
        let expected = "TASK      DOCUMENTS  METRIC      VALUE    STDERR\n\
                        piqa      1 838      acc         0.5190   0.0117\n\
                        \u{20}                    acc_norm    0.5100   -\n\
                        \u{20} text:a  1 838      perplexity  12.3450  -\n";
        assert_eq!(scores_table(&rows), expected);
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
