//! The loss of patch-level training and its gradient at the head.
//!
//! One set of logits per position is scored against all K tokens of the next patch: the cross-entropy with their uniform
//! mixture. Its gradient with respect to the logits is known in closed form, (softmax - mixture), so head and loss are
//! computed without recording a graph: one softmax serves value and gradient, and no `[N, V]` tensor outlives its chunk.
//! Axes: `N` scored positions, `K` targets of each, `D` hidden, `V` vocabulary.

use burn::tensor::activation::softmax;
use burn::tensor::{IndexingUpdateOp, Int, Tensor};

/// Rows of logits that are held at once; bounds the memory of the head.
const CHUNK_ROWS: usize = 4096;

/// Sum of the losses of a batch, with gradients of `sum * weight`.
#[derive(Debug)]
pub struct HeadLoss {
    /// Summed over positions, averaged over the K targets of each: `[1]`.
    pub sum: Tensor<1>,
    /// Gradient at the head's input, `[N, D]`.
    pub hidden_gradient: Tensor<2>,
    /// Gradient of the head's matrix, `[V, D]`.
    pub head_gradient: Tensor<2>,
}

/// Loss and gradients of the head. `hidden`: `[N, D]`, `head`: `[V, D]`, `targets`: `[N, K]`, none of them recorded.
pub fn head_loss(hidden: &Tensor<2>, head: &Tensor<2>, targets: &Tensor<2, Int>, weight: f64) -> HeadLoss {
    let [num_rows, _] = hidden.dims();
    let [_, k] = targets.dims();
    let mut parts: Option<(Tensor<1>, Tensor<2>)> = None;
    let mut hidden_gradients = Vec::new();
    for start in (0..num_rows).step_by(CHUNK_ROWS) {
        let rows = CHUNK_ROWS.min(num_rows - start);
        let hidden = hidden.clone().narrow(0, start, rows);
        let targets = targets.clone().narrow(0, start, rows);
        let (losses, probabilities) = scored(hidden.clone().matmul(head.clone().transpose()), targets.clone());
        let mixture = Tensor::full([rows, k], -weight / k as f64, &losses.device());
        let logit_gradient = probabilities.mul_scalar(weight).scatter(1, targets, mixture, IndexingUpdateOp::Add); // [rows, V]
        let sum = losses.sum_dim(0).reshape([1]);
        let head_gradient = logit_gradient.clone().transpose().matmul(hidden); // [V, D]
        hidden_gradients.push(logit_gradient.matmul(head.clone())); // [rows, D]
        parts = Some(match parts {
            Some((sums, gradients)) => (sums + sum, gradients + head_gradient),
            None => (sum, head_gradient),
        });
    }
    let (sum, head_gradient) = parts.unwrap_or_else(|| (Tensor::zeros([1], &hidden.device()), head.zeros_like()));
    HeadLoss { sum, hidden_gradient: Tensor::cat(hidden_gradients, 0), head_gradient }
}

/// Summed loss alone, `[1]`, for evaluation. Shapes as in [`head_loss`].
pub fn head_loss_value(hidden: &Tensor<2>, head: &Tensor<2>, targets: &Tensor<2, Int>) -> Tensor<1> {
    let [num_rows, _] = hidden.dims();
    let mut sum = Tensor::zeros([1], &hidden.device());
    for start in (0..num_rows).step_by(CHUNK_ROWS) {
        let rows = CHUNK_ROWS.min(num_rows - start);
        let logits = hidden.clone().narrow(0, start, rows).matmul(head.clone().transpose());
        let (losses, _) = scored(logits, targets.clone().narrow(0, start, rows));
        sum = sum + losses.sum_dim(0).reshape([1]);
    }
    sum
}

/// Loss of each row, `[rows, 1]`, and softmax, `[rows, V]`, of `logits` against the mean over `targets`, `[rows, K]`.
fn scored(logits: Tensor<2>, targets: Tensor<2, Int>) -> (Tensor<2>, Tensor<2>) {
    let highest = logits.clone().max_dim(1); // [rows, 1]
    let mean_target_logit = logits.clone().gather(1, targets).mean_dim(1); // [rows, 1]
    let probabilities = softmax(logits, 1); // [rows, V], one pass where the backend has it
    // The greatest probability is 1 / sum(exp(logit - highest)), so the log of the sum needs no second pass of exponentials.
    let log_sum = probabilities.clone().max_dim(1).log().neg(); // [rows, 1]
    (log_sum + highest - mean_target_logit, probabilities)
}
