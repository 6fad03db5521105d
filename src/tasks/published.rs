//! The row of the paper's main table, for this model and as published.
//!
//! Published numbers are only shown for comparison. Start at [`PaperRow::new`].

use crate::config::Preset;
use crate::plan::ModelShape;
use crate::tasks::{GroupResult, TaskResult};

/// Columns of the table: the perplexity on the test text of WikiText-103, then accuracies in
/// percent.
///
/// Those of `HellaSwag`, PIQA and ARC are by log-likelihood per character, those of MMLU and
/// `WinoGrande` by log-likelihood; the average is the unweighted mean of the six tasks.
pub const PAPER_COLUMNS: [&str; 8] =
    ["PPL", "MMLU", "HellaSwag", "PIQA", "WinoGrande", "ARC-E", "ARC-C", "average"];

/// One row of the table: a number for each of [`PAPER_COLUMNS`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaperRow(pub [f64; 8]);

/// A row that the paper published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PublishedRow {
    /// How that model was trained.
    pub label: &'static str,
    /// Its numbers.
    pub row: PaperRow,
}

impl PaperRow {
    /// The row computed from the results of the seven tasks, if all are available.
    ///
    /// The paper does not say which accuracy it uses; its numbers match `acc_norm` (per character)
    /// where available.
    #[must_use]
    pub fn new(results: &[TaskResult], groups: &[GroupResult]) -> Option<Self> {
        let value = |task: &str, metric: &str| {
            results.iter().find(|result| result.task.name() == task)?.value(metric)
        };
        let percent = |task: &str, metric: &str| value(task, metric).map(|share| 100.0 * share);
        let mmlu = groups
            .iter()
            .find(|result| result.group.name == "mmlu")
            .map(|result| 100.0 * result.metrics[0].value)?;
        let (hellaswag, piqa) = (percent("hellaswag", "acc_norm")?, percent("piqa", "acc_norm")?);
        let (arc_easy, arc_challenge) =
            (percent("arc_easy", "acc_norm")?, percent("arc_challenge", "acc_norm")?);
        let winogrande = percent("winogrande", "acc")?;
        let average = (mmlu + hellaswag + piqa + winogrande + arc_easy + arc_challenge) / 6.0;
        let perplexity = value("wikitext-paper", "perplexity")?;
        Some(Self([
            perplexity,
            mmlu,
            hellaswag,
            piqa,
            winogrande,
            arc_easy,
            arc_challenge,
            average,
        ]))
    }
}

/// The published rows for a model of this shape.
#[must_use]
pub fn published_rows(shape: &ModelShape) -> &'static [PublishedRow] {
    let is_of = |preset: &str| {
        Preset::find(preset).is_some_and(|preset| {
            let sizes = [
                preset.hidden_size,
                preset.intermediate_size,
                preset.num_hidden_layers,
                preset.num_attention_heads,
            ];
            sizes.map(|size| size as usize)
                == [
                    shape.hidden_size,
                    shape.intermediate_size,
                    shape.num_hidden_layers,
                    shape.num_attention_heads,
                ]
        })
    };
    PUBLISHED.iter().find(|(preset, _)| is_of(preset)).map_or(&[], |(_, rows)| rows)
}

const fn published(label: &'static str, numbers: [f64; 8]) -> PublishedRow {
    PublishedRow { label, row: PaperRow(numbers) }
}

const TOKENS_ONLY: &str = "published, tokens only";
const PATCHES_1_2: &str = "published, 1/2 of the data as patches";
const PATCHES_2_3: &str = "published, 2/3 of the data as patches";
const PATCHES_4_5: &str = "published, 4/5 of the data as patches";

/// Source: arXiv 2407.12665, main table (the Pile, 360B tokens, patches of 4 tokens).
const PUBLISHED: [(&str, &[PublishedRow]); 4] = [
    (
        "paper-370m",
        &[
            published(TOKENS_ONLY, [10.9, 22.9, 40.8, 67.5, 53.1, 44.3, 24.7, 42.2]),
            published(PATCHES_1_2, [10.6, 23.5, 42.0, 67.9, 52.1, 46.1, 25.6, 42.9]),
            published(PATCHES_2_3, [10.7, 23.7, 41.1, 68.0, 51.9, 46.0, 24.2, 42.5]),
            published(PATCHES_4_5, [11.0, 23.3, 40.5, 67.5, 51.7, 44.9, 24.5, 42.1]),
        ],
    ),
    (
        "paper-780m",
        &[
            published(TOKENS_ONLY, [9.2, 24.4, 48.5, 69.0, 55.4, 49.0, 26.7, 45.5]),
            published(PATCHES_2_3, [9.1, 24.1, 49.1, 70.6, 54.8, 51.3, 28.2, 46.3]),
        ],
    ),
    (
        "paper-1.3b",
        &[
            published(TOKENS_ONLY, [8.2, 23.9, 54.5, 71.2, 57.3, 55.1, 28.9, 48.5]),
            published(PATCHES_2_3, [8.2, 24.3, 54.1, 71.6, 57.8, 55.6, 30.4, 49.0]),
        ],
    ),
    (
        "paper-2.7b",
        &[
            published(TOKENS_ONLY, [7.1, 25.3, 62.2, 74.3, 61.5, 61.2, 34.3, 53.1]),
            published(PATCHES_2_3, [7.2, 25.4, 61.9, 74.9, 62.4, 61.9, 34.6, 53.5]),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_average_is_that_of_its_row() {
        for (preset, rows) in PUBLISHED {
            for PublishedRow { label, row: PaperRow(numbers) } in rows {
                let mean = numbers[1..7].iter().sum::<f64>() / 6.0;
                assert!((mean - numbers[7]).abs() < 0.101, "{preset}, {label}: {mean}");
            }
        }
    }
}
