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
use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use crate::engine::kernels::{cross_entropy, on_host};
use crate::plan::HEAD_ROWS;

/// Targets of the trunk's rows.
#[derive(Debug, Clone)]
pub struct Targets {
    /// Token ids, `[N, K]`; any valid id if not scored.
    pub ids: Tensor<2, Int>,
    /// `[N, K]`: 1 if the target is scored, else 0.
    pub mask: Tensor<2>,
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

/// Losses of all targets, `[N, K]`, 0 if not scored. `rows`: `[N, D]`, `weight`: `[V, D]`.
pub fn forward(rows: &Tensor<2>, weight: &Tensor<2>, targets: &Targets) -> Tensor<2> {
    if on_host(rows) {
        return cross_entropy::forward(rows, weight, targets);
    }
    let losses = chunks(rows, targets)
        .map(|(rows, targets)| score(rows.matmul(weight.clone().transpose()), &targets).0);
    Tensor::cat(losses.collect(), 0)
}

/// Sum of the losses, and gradients of that sum times `scale`; that of the weight is added to
/// `d_weight`, if given. Shapes as in [`forward`].
pub fn forward_backward(
    rows: &Tensor<2>,
    weight: &Tensor<2>,
    targets: &Targets,
    scale: f64,
    mut d_weight: Option<Tensor<2>>,
) -> HeadStep {
    if on_host(rows) {
        return cross_entropy::forward_backward(rows, weight, targets, scale, d_weight);
    }
    let mut losses = Vec::new();
    let mut d_rows = Vec::new();
    for (rows, targets) in chunks(rows, targets) {
        let (chunk_losses, probabilities) =
            score(rows.clone().matmul(weight.clone().transpose()), &targets);
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

/// Cuts rows and targets into chunks.
fn chunks(rows: &Tensor<2>, targets: &Targets) -> impl Iterator<Item = (Tensor<2>, Targets)> {
    let num_rows = rows.dims()[0];
    (0..num_rows).step_by(HEAD_ROWS).map(move |start| {
        let count = HEAD_ROWS.min(num_rows - start);
        let targets = Targets {
            ids: targets.ids.clone().narrow(0, start, count),
            mask: targets.mask.clone().narrow(0, start, count),
        };
        (rows.clone().narrow(0, start, count), targets)
    })
}

/// Losses, `[rows, K]`, and softmax, `[rows, V]`, of `logits`.
fn score(logits: Tensor<2>, targets: &Targets) -> (Tensor<2>, Tensor<2>) {
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
    use burn::tensor::activation::log_softmax;

    use super::*;
    use crate::engine::ops::testing::{assert_same, dtypes, noise, random_ids, recorded};

    /// Several chunks, the last one short, for one and several targets, a third of them masked, in
    /// one row all.
    #[test]
    fn losses_and_gradients_are_those_that_burn_derives() {
        let (n, vocabulary, width) = (2 * HEAD_ROWS + 37, 13, 6);
        for dtype in dtypes() {
            for k in [1, 3] {
                let (rows, weight) =
                    (noise([n, width], 1, dtype), noise([vocabulary, width], 2, dtype));
                let mask = noise([n, k], 3, dtype).greater_scalar(-0.3).float();
                let mask = mask
                    .slice_assign([5..6, 0..k], Tensor::<2>::zeros([1, k], &rows.device()))
                    .cast(dtype);
                let targets = Targets { ids: random_ids([n, k], vocabulary as i32), mask };
                let scale = 1.0 / n as f64;
                let losses = forward(&rows, &weight, &targets);
                let found = forward_backward(&rows, &weight, &targets, scale, None);
                let again = forward_backward(&rows, &weight, &targets, scale, Some(weight.clone()));
                assert_same(
                    "d_weight and the sum before",
                    again.d_weight,
                    found.d_weight.clone() + weight.clone(),
                );

                let (rows, weight) = (recorded(&rows), recorded(&weight));
                let logits = rows.clone().matmul(weight.clone().transpose());
                let picked =
                    log_softmax(logits, 1).gather(1, Tensor::from_inner(targets.ids.clone()));
                let expected = picked.neg() * Tensor::from_inner(targets.mask.clone());
                let gradients = (expected.clone().sum() * scale).backward();
                assert_same("losses", losses, expected.clone().inner());
                assert_same("sum", found.loss_sum, expected.sum().inner());
                assert_same("d_rows", found.d_rows, rows.grad(&gradients).unwrap());
                assert_same("d_weight", found.d_weight, weight.grad(&gradients).unwrap());
            }
        }
    }
}
