//! Log-likelihoods of the ends of sequences, for evaluation tasks.
//!
//! Sequences of different lengths are stacked without padding: everything but attention works on
//! rows alone. Adjacent sequences with a common prefix, like the choices of one question, share the
//! rows of the prefix. Only rows with targets go through the head. Start at [`Scorer::score`].

use std::ops::Range;

use burn::tensor::Tensor;

use crate::config::PatchSize;
use crate::engine::compute::Compute;
use crate::engine::error::EngineError;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::ops::attention::{self, Heads};
use crate::engine::ops::format::id_tensor;
use crate::engine::ops::head::{self, Targets};
use crate::engine::positions::Positions;
use crate::engine::workers::Workers;
use crate::tasks::{Score, Scored};

/// A shorter common prefix is recomputed for each sequence: splitting the attention costs more than
/// it saves.
const LEAST_SHARED: usize = 8;

/// Scores sequences with one network.
#[derive(Debug)]
pub struct Scorer<'a> {
    /// The network.
    pub model: &'a LlamaForCausalLM,
    /// Compute threads.
    pub workers: &'a Workers,
    /// Maximum number of rows per batch, unless one sequence has more.
    pub batch_tokens: usize,
}

impl Scorer<'_> {
    /// For each of `requests` the sum of the log-probabilities (natural logarithm) of its targets;
    /// `None` if the work should end.
    ///
    /// Cheapest if sequences with a common prefix are adjacent. The result of a sequence does not
    /// depend on the others, except for rounding.
    ///
    /// # Errors
    /// When the device fails.
    pub fn score(&self, requests: &[Scored]) -> Result<Option<Vec<f64>>, EngineError> {
        let mut scores = Vec::with_capacity(requests.len());
        for groups in batches(groups(requests), requests, self.batch_tokens) {
            let (model, layout) = (self.model.clone(), Layout::new(&groups, requests));
            let Some(found) = self.workers.run(move || layout.scores(&model)) else {
                return Ok(None);
            };
            scores.extend(found?);
        }
        Ok(Some(scores))
    }
}

impl Score for Scorer<'_> {
    type Error = EngineError;

    fn score(&mut self, requests: &[Scored]) -> Result<Option<Vec<f64>>, EngineError> {
        Scorer::score(self, requests)
    }
}

/// Adjacent requests whose inputs begin with the same `shared` ids.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    requests: Range<usize>,
    shared: usize,
}

impl Group {
    /// Number of rows of the group.
    fn rows(&self, requests: &[Scored]) -> usize {
        self.shared
            + requests[self.requests.clone()]
                .iter()
                .map(|request| request.input().len() - self.shared)
                .sum::<usize>()
    }
}

/// Groups `requests`: an adjacent request joins if the common prefix stays long, and most of the
/// rows would be shared.
fn groups(requests: &[Scored]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for idx in 0..requests.len() {
        let input = requests[idx].input();
        if let Some(group) = groups.last_mut() {
            let common =
                common_beginning(requests[group.requests.start].input(), input).min(group.shared);
            // A single request shares its whole input with itself.
            let is_worth =
                common >= LEAST_SHARED && (group.requests.len() == 1 || 2 * common >= group.shared);
            if is_worth {
                *group = Group { requests: group.requests.start..idx + 1, shared: common };
                continue;
            }
        }
        groups.push(Group { requests: idx..idx + 1, shared: input.len() });
    }
    groups
}

fn common_beginning(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Combines whole groups, up to `batch_tokens` rows.
fn batches(groups: Vec<Group>, requests: &[Scored], batch_tokens: usize) -> Vec<Vec<Group>> {
    let mut batches: Vec<Vec<Group>> = Vec::new();
    let mut rows = 0;
    for group in groups {
        let more = group.rows(requests);
        match batches.last_mut() {
            Some(batch) if rows + more <= batch_tokens => {
                batch.push(group);
                rows += more;
            }
            _ => {
                batches.push(vec![group]);
                rows = more;
            }
        }
    }
    batches
}

/// Consecutive rows of one sequence, after the rows of a prefix shared with others.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    /// Rows of the shared prefix; empty if this is the prefix.
    prefix: Range<usize>,
    /// Its own rows.
    rows: Range<usize>,
}

/// The ids of a batch and the targets of its rows.
#[derive(Debug, Default)]
struct Layout {
    ids: Vec<u32>,
    positions: Vec<usize>,
    segments: Vec<Segment>,
    /// Row and id of each target, request by request.
    targets: Vec<(usize, u32)>,
    /// Number of targets of each request.
    counts: Vec<usize>,
}

impl Layout {
    fn new(groups: &[Group], requests: &[Scored]) -> Self {
        let mut layout = Self::default();
        for group in groups {
            let requests = &requests[group.requests.clone()];
            let prefix = layout.push(0..0, 0, &requests[0].input()[..group.shared]);
            for request in requests {
                let input = request.input();
                let own = layout.push(prefix.clone(), group.shared, &input[group.shared..]);
                // The row of a position of an input: in the shared part or in its own.
                let row = |position: usize| {
                    if position < group.shared {
                        prefix.start + position
                    } else {
                        own.start + position - group.shared
                    }
                };
                let first = input.len() - request.num_scored;
                layout
                    .targets
                    .extend((first..input.len()).map(row).zip(request.targets().iter().copied()));
                layout.counts.push(request.num_scored);
            }
        }
        layout
    }

    /// Adds `ids` from `position` on, after `prefix`. Returns their rows.
    fn push(&mut self, prefix: Range<usize>, position: usize, ids: &[u32]) -> Range<usize> {
        let rows = self.ids.len()..self.ids.len() + ids.len();
        self.ids.extend(ids);
        self.positions.extend(position..position + ids.len());
        if !ids.is_empty() {
            self.segments.push(Segment { prefix, rows: rows.clone() });
        }
        rows
    }

    /// The sum over the targets of each request.
    fn scores(&self, model: &LlamaForCausalLM) -> Result<Vec<f64>, EngineError> {
        let losses = self.losses(model).try_into_data()?;
        let mut losses = losses.iter::<f64>();
        Ok(self.counts.iter().map(|count| -losses.by_ref().take(*count).sum::<f64>()).collect())
    }

    /// Loss of each target, `[targets, 1]`.
    fn losses(&self, model: &LlamaForCausalLM) -> Tensor<2> {
        let (trunk, compute) = (&model.model, model.compute());
        let embedded = trunk.embed(&self.ids, PatchSize::ONE); // [N, D]
        let shared = trunk.shared_input_at(&self.positions);
        let hidden = trunk.infer(embedded, &shared, &mut |_, heads| self.mix(compute, heads)); // [N, D]
        let (rows, ids): (Vec<u32>, Vec<u32>) =
            self.targets.iter().map(|(row, id)| (*row as u32, *id)).unzip();
        let rows = id_tensor(&rows, [rows.len()], &compute.device.device);
        let rows = hidden.select(0, rows); // [targets, D]
        let targets = Targets { ids, per_row: 1, mask: None };
        let input = head::Input { rows: &rows, weight: &model.head().values, targets: &targets };
        head::forward(compute, input)
    }

    /// Attention of each segment to its prefix and to itself. All heads: `[1, N, heads, H]`.
    fn mix(&self, compute: &Compute, heads: &Heads) -> Tensor<4> {
        let rows = |tensor: &Tensor<4>, rows: &Range<usize>| {
            tensor.clone().narrow(1, rows.start, rows.len())
        };
        let mixed = self.segments.iter().map(|segment| {
            let all = |tensor: &Tensor<4>| match segment.prefix.len() {
                0 => rows(tensor, &segment.rows),
                _ => {
                    Tensor::cat(vec![rows(tensor, &segment.prefix), rows(tensor, &segment.rows)], 1)
                }
            };
            let (start, queries) = (segment.prefix.len(), segment.rows.len());
            let positions = Positions { start, queries, keys: start + queries };
            let heads = Heads {
                queries: rows(&heads.queries, &segment.rows),
                keys: all(&heads.keys),
                values: all(&heads.values),
            };
            attention::forward(compute, &heads, positions)
        });
        Tensor::cat(mixed.collect(), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::batch::Batch;
    use crate::engine::evaluate::token_losses;
    use crate::engine::model::random_weights;
    use crate::plan::ModelShape;
    use crate::steer::StopFlag;

    fn model() -> LlamaForCausalLM {
        let shape = ModelShape {
            vocab_size: 50,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            max_position_embeddings: 256,
            rope_theta: 1e4,
            rms_norm_eps: 1e-6,
            initializer_range: 0.5,
            tie_word_embeddings: true,
        };
        let Ok(model) =
            LlamaForCausalLM::new(&shape, &mut random_weights(3, &shape), &Compute::cpu());
        model
    }

    fn ids(seed: usize, count: usize) -> Vec<u32> {
        (0..count).map(|idx| ((idx * idx + 7 * idx + seed * 13) % 50) as u32).collect()
    }

    fn scored(parts: &[Vec<u32>], num_scored: usize) -> Scored {
        Scored { ids: parts.concat(), num_scored }
    }

    /// Scores a single sequence like the evaluation during training.
    fn plain(model: &LlamaForCausalLM, request: &Scored) -> f64 {
        let losses = token_losses(model, &Batch::new(&request.ids, 1, PatchSize::ONE));
        let losses: Vec<f64> = losses.into_data().iter::<f64>().collect();
        // The last position of a batch has no target.
        let end = request.ids.len() - 1;
        -losses[end - request.num_scored..end].iter().sum::<f64>()
    }

    fn requests() -> Vec<Scored> {
        let (question, other) = (ids(1, 30), ids(2, 70));
        vec![
            // Choices of one question, one with a single id, one with a common prefix.
            scored(&[question.clone(), ids(3, 5)], 5),
            scored(&[question.clone(), ids(4, 1)], 1),
            scored(&[question.clone(), ids(3, 9)], 9),
            // Nothing in common, everything scored, the shortest request.
            scored(&[ids(5, 12)], 11),
            scored(&[ids(6, 2)], 1),
            // Choices with one id: their inputs are equal.
            scored(&[other.clone(), vec![7]], 1),
            scored(&[other.clone(), vec![8]], 1),
            scored(&[other.clone(), vec![9]], 1),
            // Too short a common prefix.
            scored(&[other[..5].to_vec(), ids(8, 20)], 4),
            // The scored ids extend into the common prefix.
            scored(&[ids(9, 40), vec![1, 2]], 20),
            scored(&[ids(9, 40), vec![3, 4, 5]], 20),
        ]
    }

    #[test]
    fn scores_are_those_of_each_sequence_alone() {
        let (model, requests) = (model(), requests());
        let workers = Workers::start(Compute::cpu(), StopFlag::default()).unwrap();
        let expected: Vec<f64> = requests.iter().map(|request| plain(&model, request)).collect();
        for batch_tokens in [1, 64, 100, 10_000] {
            let found = Scorer { model: &model, workers: &workers, batch_tokens }
                .score(&requests)
                .unwrap()
                .unwrap();
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!(
                    (found - expected).abs() < 1e-5 * expected.abs(),
                    "{batch_tokens}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn a_common_beginning_is_computed_once() {
        let requests = requests();
        let rows: Vec<(Range<usize>, usize)> = groups(&requests)
            .into_iter()
            .map(|group| (group.requests.clone(), group.rows(&requests)))
            .collect();
        assert_eq!(
            rows,
            [
                (0..3, 30 + 4 + 8),
                (3..4, 11),
                (4..5, 1),
                (5..8, 70),
                (8..9, 24),
                (9..11, 40 + 1 + 2)
            ]
        );
    }

    #[test]
    fn batches_are_whole_groups() {
        let requests = requests();
        let rows = |batch_tokens| -> Vec<usize> {
            let batches = batches(groups(&requests), &requests, batch_tokens);
            batches
                .iter()
                .map(|groups| groups.iter().map(|group| group.rows(&requests)).sum())
                .collect()
        };
        assert_eq!(rows(1), [42, 11, 1, 70, 24, 43]);
        assert_eq!(rows(80), [54, 70, 67]);
        assert_eq!(rows(1000), [191]);
    }

    #[test]
    fn nothing_is_asked_and_nothing_answered() {
        let workers = Workers::start(Compute::cpu(), StopFlag::default()).unwrap();
        assert_eq!(
            Scorer { model: &model(), workers: &workers, batch_tokens: 10 }.score(&[]).unwrap(),
            Some(Vec::new())
        );
    }
}
