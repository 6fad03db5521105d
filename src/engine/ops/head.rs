//! The head and the loss of patch-level training, in one operation.
//!
//! One set of logits `z` per position is scored against all K tokens of the next patch (arXiv
//! 2407.12665, equation 3); targets whose mask is 0 do not count. With `l = logsumexp(z)` and `c`
//! the number of scored targets of a position:
//!
//! ```text
//! loss of target k = mask_k (l - z[k])
//! dz = weight (c softmax(z) - sum over k of mask_k one_hot(k))        dx = dz W        dW = dz^T x
//! ```
//!
//! Loss and gradient come from a single softmax, chunk by chunk of rows, so that no `[N, V]` tensor
//! outlives its chunk: instead of using `Saved`, [`forward_backward`] does both at once.

use burn::tensor::activation::softmax;
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};

use crate::engine::compute::{Compute, Path};
use crate::engine::kernels::cross_entropy;
use crate::engine::ops::cpu::{Rows, into_vec, tensor};
use crate::engine::ops::format::id_tensor;
use crate::plan::HEAD_ROWS;

/// Targets of the trunk's rows, row after row.
#[derive(Debug, Clone)]
pub struct Targets {
    /// Token ids, `[N, K]`; any valid id if not scored.
    pub ids: Vec<u32>,
    /// Targets per row (K).
    pub per_row: usize,
    /// `[N, K]`: 1 if the target is scored, else 0; `None` if all are.
    pub mask: Option<Vec<f32>>,
}

/// What is scored.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The trunk's output, `[N, D]`.
    pub rows: &'a Tensor<2>,
    /// The head's matrix, `[V, D]`.
    pub weight: &'a Tensor<2>,
    /// The targets of the rows.
    pub targets: &'a Targets,
}

/// Losses and gradients of the head.
#[derive(Debug, Clone)]
pub struct HeadStep {
    /// Sum of the losses of all scored targets: `[1]`.
    pub loss_sum: Tensor<1>,
    /// Gradient of the input, `[N, D]`.
    pub d_rows: Tensor<2>,
    /// Gradient of the head's matrix, `[V, D]`, plus the previous sum.
    pub d_weight: Tensor<2>,
}

/// Losses of all targets, `[N, K]`, 0 if not scored.
pub fn forward(compute: &Compute, input: Input<'_>) -> Tensor<2> {
    match compute.path(input.rows) {
        Path::Cpu(team) => {
            let (rows, weight) = (Rows::of(input.rows), Rows::of(input.weight));
            let losses = cross_entropy::forward(team, input.targets.of(&rows, &weight));
            tensor(losses, [rows.dims[0], input.targets.per_row])
        }
        Path::Composed => {
            let losses =
                input.chunks().map(|(rows, targets)| score(&rows, input.weight, &targets).0);
            Tensor::cat(losses.collect(), 0)
        }
    }
}

/// Sum of the losses, and gradients of that sum times `scale`; that of the weight is added to
/// `d_weight`, if given.
pub fn forward_backward(
    compute: &Compute,
    input: Input<'_>,
    scale: f64,
    d_weight: Option<Tensor<2>>,
) -> HeadStep {
    match compute.path(input.rows) {
        Path::Cpu(team) => {
            let (rows, weight) = (Rows::of(input.rows), Rows::of(input.weight));
            let (scored, sum) = (input.targets.of(&rows, &weight), d_weight.map(into_vec));
            let step = cross_entropy::forward_backward(team, scored, scale, sum);
            HeadStep {
                loss_sum: tensor(vec![step.loss_sum as f32], [1]),
                d_rows: tensor(step.d_rows, rows.dims),
                d_weight: tensor(step.d_weight, weight.dims),
            }
        }
        Path::Composed => composed(input, scale, d_weight),
    }
}

fn composed(input: Input<'_>, scale: f64, mut d_weight: Option<Tensor<2>>) -> HeadStep {
    let weight = input.weight;
    let mut losses = Vec::new();
    let mut d_rows = Vec::new();
    for (rows, targets) in input.chunks() {
        let (chunk_losses, probabilities) = score(&rows, weight, &targets);
        let counts = targets.mask.clone().sum_dim(1); // [rows, 1]
        let d_logits = (probabilities * counts.mul_scalar(scale)).scatter(
            1,
            targets.ids,
            targets.mask.mul_scalar(-scale),
            IndexingUpdateOp::Add,
        ); // [rows, V]
        let d_weight_part = d_logits.clone().transpose().matmul(rows); // [V, D]
        losses.push(chunk_losses);
        d_rows.push(d_logits.matmul(weight.clone())); // [rows, D]
        d_weight = Some(match d_weight {
            Some(sum) => sum + d_weight_part,
            None => d_weight_part,
        });
    }
    let d_weight = d_weight.unwrap_or_else(|| weight.zeros_like());
    HeadStep { loss_sum: sum(Tensor::cat(losses, 0)), d_rows: Tensor::cat(d_rows, 0), d_weight }
}

/// Sum of losses, `[1]`: row by row and then over rows, since a full sum on the CPU combines its
/// parts in the order in which threads finish (burn-flex 0.22.1, reduce.rs), so that runs would
/// differ in the last bit.
pub fn sum(losses: Tensor<2>) -> Tensor<1> {
    losses.sum_dim(1).sum_dim(0).reshape([1])
}

/// Sums of the losses of `num_groups` groups of equally many consecutive rows: `[num_groups]`, in
/// the order of [`sum`].
pub fn sums(losses: Tensor<2>, num_groups: usize) -> Tensor<1> {
    let rows = losses.dims()[0] / num_groups;
    losses.sum_dim(1).reshape([num_groups, rows]).sum_dim(1).reshape([num_groups])
}

impl Targets {
    /// As targets of `rows`, for the kernels.
    fn of<'a>(&'a self, rows: &'a Rows, weight: &'a Rows) -> cross_entropy::Scored<'a> {
        cross_entropy::Scored {
            rows: rows.matrix(),
            weight: weight.matrix(),
            ids: &self.ids,
            k: self.per_row,
            mask: self.mask.as_deref(),
        }
    }
}

/// Targets on the device.
struct DeviceTargets {
    /// `[N, K]`.
    ids: Tensor<2, Int>,
    /// `[N, K]`.
    mask: Tensor<2>,
}

impl Input<'_> {
    /// Cuts rows and targets into chunks.
    fn chunks(self) -> impl Iterator<Item = (Tensor<2>, DeviceTargets)> {
        let (rows, targets) = (self.rows.clone(), self.targets);
        let (dims, device) = ([rows.dims()[0], targets.per_row], rows.device());
        let ids = id_tensor(&targets.ids, dims, &device);
        let options = (&device, rows.dtype());
        let mask = match &targets.mask {
            Some(mask) => Tensor::from_data(TensorData::new(mask.clone(), dims), options),
            None => Tensor::ones(dims, options),
        };
        (0..dims[0]).step_by(HEAD_ROWS).map(move |start| {
            let count = HEAD_ROWS.min(dims[0] - start);
            let ids = ids.clone().narrow(0, start, count);
            let mask = mask.clone().narrow(0, start, count);
            (rows.clone().narrow(0, start, count), DeviceTargets { ids, mask })
        })
    }
}

/// Losses, `[rows, K]`, and softmax of the logits, `[rows, V]`.
fn score(rows: &Tensor<2>, weight: &Tensor<2>, targets: &DeviceTargets) -> (Tensor<2>, Tensor<2>) {
    let logits = rows.clone().matmul(weight.clone().transpose()); // [rows, V]
    let highest = logits.clone().max_dim(1); // [rows, 1]
    let target_logits = logits.clone().gather(1, targets.ids.clone()); // [rows, K]
    let probabilities = softmax(logits, 1); // one pass where the backend has it
    // The largest probability is 1 / sum(exp(logit - highest)), so log-sum-exp needs no second pass
    // of exponentials.
    let log_sum = highest - probabilities.clone().max_dim(1).log(); // [rows, 1]
    ((log_sum - target_logits) * targets.mask.clone(), probabilities)
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;
    use burn::tensor::activation::log_softmax;

    use super::*;
    use crate::engine::ops::testing::{assert_same, dtypes, noise, random_ids, recorded};

    #[test]
    fn without_a_mask_all_targets_are_scored() {
        for dtype in dtypes() {
            let (rows, weight) = (noise([5, 4], 1, dtype), noise([7, 4], 2, dtype));
            let compute = Compute::cpu();
            let [plain, masked] = [None, Some(vec![1.0; 10])].map(|mask| {
                let targets = Targets { ids: random_ids(10, 7), per_row: 2, mask };
                let input = Input { rows: &rows, weight: &weight, targets: &targets };
                let step = forward_backward(&compute, input, 0.1, None);
                let losses = forward(&compute, input).into_data();
                (losses, step.d_rows.into_data(), step.d_weight.into_data())
            });
            assert_eq!(plain, masked);
        }
    }

    /// Several chunks, the last one short, for one and several targets, a third of them masked, in
    /// one row all.
    #[test]
    fn losses_and_gradients_are_those_that_burn_derives() {
        let (n, vocabulary, width) = (2 * HEAD_ROWS + 37, 13, 6);
        for dtype in dtypes() {
            for k in [1, 3] {
                let (rows, weight) =
                    (noise([n, width], 1, dtype), noise([vocabulary, width], 2, dtype));
                let mask = noise([n, k], 3, DType::F32).greater_scalar(-0.3).float();
                let mask =
                    mask.slice_assign([5..6, 0..k], Tensor::<2>::zeros([1, k], &rows.device()));
                let ids = random_ids(n * k, vocabulary as u32);
                let targets =
                    Targets { ids, per_row: k, mask: Some(mask.to_data().try_to_vec().unwrap()) };
                let input = Input { rows: &rows, weight: &weight, targets: &targets };
                let (compute, scale) = (Compute::cpu(), 1.0 / n as f64);
                let losses = forward(&compute, input);
                let found = forward_backward(&compute, input, scale, None);
                let again = forward_backward(&compute, input, scale, Some(weight.clone()));
                assert_same(
                    "d_weight and the sum before",
                    again.d_weight,
                    found.d_weight.clone() + weight.clone(),
                );

                let (rows, weight) = (recorded(&rows), recorded(&weight));
                let logits = rows.clone().matmul(weight.clone().transpose());
                let ids = id_tensor(&targets.ids, [n, k], &mask.device());
                let picked = log_softmax(logits, 1).gather(1, Tensor::from_inner(ids));
                let expected = picked.neg() * Tensor::from_inner(mask.cast(dtype));
                let gradients = (expected.clone().sum() * scale).backward();
                assert_same("losses", losses, expected.clone().inner());
                assert_same("sum", found.loss_sum, expected.sum().inner());
                assert_same("d_rows", found.d_rows, rows.grad(&gradients).unwrap());
                assert_same("d_weight", found.d_weight, weight.grad(&gradients).unwrap());
            }
        }
    }
}
