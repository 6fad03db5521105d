//! The activation study: the share of active neurons per layer on a text, and which neurons are
//! never active.
//!
//! Uses the definition of the run's probe (`probe.rs`), over any amount of text. The device counts
//! within a batch, the host adds up the batches in order, so that equal input gives equal numbers.
//! Start at [`study`].

use burn::tensor::{ExecutionError, Tensor, Transaction};

use crate::config::{ActivationTensor, ActivationThreshold, PatchSize};
use crate::engine::batch::Batch;
use crate::engine::error::EngineError;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::probe::for_each_layer;
use crate::engine::workers::Workers;

/// Positions per forward pass, unless one sequence has more.
const BATCH_POSITIONS: usize = 2048;

/// What to measure, and on which text.
#[derive(Debug, Clone, Copy)]
pub struct StudyInput<'a> {
    /// The text; an incomplete sequence at its end is dropped.
    pub tokens: &'a [u32],
    /// Tokens per position (K).
    pub patch_size: PatchSize,
    /// Positions per sequence (T).
    pub context_length: usize,
    /// Neurons to measure.
    pub tensor: ActivationTensor,
    /// Threshold above which a neuron counts as active.
    pub threshold: ActivationThreshold,
}

/// The measurement of one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerActivity {
    /// Threshold on |x|.
    pub threshold: f64,
    /// Share of active values over all positions and neurons, in percent.
    pub rate: f64,
    /// Share of neurons that are not active at any position, in percent.
    pub never: f64,
    /// Mean |x|.
    pub mean_abs: f64,
}

impl StudyInput<'_> {
    /// Tokens of one sequence.
    #[must_use]
    pub fn sequence_tokens(&self) -> usize {
        self.patch_size.get() * self.context_length
    }

    /// Number of complete sequences in the text.
    #[must_use]
    pub fn num_sequences(&self) -> usize {
        self.tokens.len() / self.sequence_tokens()
    }

    /// The sequences, batch by batch.
    fn batches(&self) -> impl Iterator<Item = Batch> {
        let sequence = self.sequence_tokens();
        let whole = &self.tokens[..self.num_sequences() * sequence];
        let per_batch = (BATCH_POSITIONS / self.context_length).max(1) * sequence;
        whole
            .chunks(per_batch)
            .map(move |tokens| Batch::new(tokens, tokens.len() / sequence, self.patch_size))
    }
}

/// Measures every layer of `model` on at least one sequence; `None` if the run should end.
///
/// # Errors
/// When the device fails, or an activation is not finite.
pub fn study(
    workers: &Workers,
    model: &LlamaForCausalLM,
    input: &StudyInput<'_>,
) -> Result<Option<Vec<LayerActivity>>, EngineError> {
    let num_layers = model.model.layers.len();
    let thresholds = match input.threshold {
        ActivationThreshold::Absolute(threshold) => vec![threshold; num_layers],
        ActivationThreshold::TimesMean(factor) => {
            match count(workers, model, input, &vec![0.0; num_layers])? {
                Some(tallies) => tallies.iter().map(|tally| factor * tally.mean_abs()).collect(),
                None => return Ok(None),
            }
        }
    };
    let Some(tallies) = count(workers, model, input, &thresholds)? else { return Ok(None) };
    if !tallies.iter().all(|tally| tally.mean_abs().is_finite()) {
        return Err(EngineError::NonFinitePrediction);
    }
    Ok(Some(
        tallies
            .iter()
            .zip(thresholds)
            .map(|(tally, threshold)| tally.activity(threshold))
            .collect(),
    ))
}

/// Per neuron of one layer in one batch: the number of positions at which it is active, and the sum
/// of |x|.
type Sums = [Vec<f64>; 2];

/// Sums per neuron of one layer.
#[derive(Debug, Default)]
struct Tally {
    positions: f64,
    /// Number of positions at which each neuron was active.
    activated: Vec<f64>,
    /// Sum of |x| of each neuron.
    sizes: Vec<f64>,
}

impl Tally {
    fn add(&mut self, positions: usize, [activated, sizes]: &Sums) {
        self.positions += positions as f64;
        for (sums, new) in [(&mut self.activated, activated), (&mut self.sizes, sizes)] {
            sums.resize(new.len(), 0.0);
            sums.iter_mut().zip(new).for_each(|(sum, new)| *sum += new);
        }
    }

    fn mean_abs(&self) -> f64 {
        self.sizes.iter().sum::<f64>() / self.positions / self.sizes.len() as f64
    }

    fn activity(&self, threshold: f64) -> LayerActivity {
        let neurons = self.activated.len() as f64;
        let never = self.activated.iter().filter(|count| **count == 0.0).count() as f64;
        let rate = 100.0 * self.activated.iter().sum::<f64>() / self.positions / neurons;
        LayerActivity { threshold, rate, never: 100.0 * never / neurons, mean_abs: self.mean_abs() }
    }
}

fn count(
    workers: &Workers,
    model: &LlamaForCausalLM,
    input: &StudyInput<'_>,
    thresholds: &[f64],
) -> Result<Option<Vec<Tally>>, EngineError> {
    let mut tallies: Vec<Tally> = thresholds.iter().map(|_| Tally::default()).collect();
    for batch in input.batches() {
        let positions = batch.num_sequences * batch.num_positions;
        let (model, tensor, thresholds) = (model.clone(), input.tensor, thresholds.to_vec());
        let Some(layers) = workers.run(move || count_batch(&model, &batch, tensor, &thresholds))
        else {
            return Ok(None);
        };
        tallies.iter_mut().zip(layers?).for_each(|(tally, layer)| tally.add(positions, &layer));
    }
    Ok(Some(tallies))
}

/// The sums of every layer. A batch is small enough for 32-bit counts.
fn count_batch(
    model: &LlamaForCausalLM,
    batch: &Batch,
    tensor: ActivationTensor,
    thresholds: &[f64],
) -> Result<Vec<Sums>, ExecutionError> {
    let mut sums: Vec<[Tensor<2>; 2]> = Vec::new();
    for_each_layer(model, batch, tensor, &mut |size| {
        let activated = size.clone().greater_scalar(thresholds[sums.len()]).float();
        sums.push([activated.sum_dim(0), size.sum_dim(0)]); // [1, D] each
    });
    let read = sums
        .into_iter()
        .flatten()
        .fold(Transaction::default(), Transaction::register)
        .try_execute()?;
    let values = |idx: usize| read[idx].iter::<f64>().collect();
    Ok((0..thresholds.len()).map(|layer| [values(2 * layer), values(2 * layer + 1)]).collect())
}
