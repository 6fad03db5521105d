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

#[cfg(test)]
mod tests {
    use burn::tensor::activation::log_softmax;
    use burn::tensor::{Device, TensorData};

    use super::*;

    /// Numbers that look random, in -1..1.
    fn noise(dims: [usize; 2], seed: u64, device: &Device) -> Tensor<2> {
        let number = |idx: u64| {
            let mixed = (idx + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            ((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let values: Vec<f32> = (0..(dims[0] * dims[1]) as u64).map(number).collect();
        Tensor::from_data(TensorData::new(values, dims), device)
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().iter::<f32>().collect()
    }

    #[track_caller]
    fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len(), "{what}");
        let largest = expected.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        let worst = found.iter().zip(expected).fold(0.0_f32, |a, (x, y)| a.max((x - y).abs()));
        assert!(worst <= 1e-5 * largest, "{what}: differs by {worst:e} where the largest value is {largest:e}");
    }

    /// Against the plain expression, whose gradients Burn derives: three chunks, the last one short, for one and several targets.
    #[test]
    fn chunks_add_up_to_the_loss_and_the_gradients_of_all_rows() {
        let (n, vocabulary, width) = (2 * CHUNK_ROWS + 37, 13, 6);
        for k in [1, 3] {
            let device = Device::flex();
            let (hidden, head) = (noise([n, width], 1, &device), noise([vocabulary, width], 2, &device));
            let ids: Vec<i32> = values(noise([n, k], 3, &device)).iter().map(|x| ((x + 1.0) * 6.4) as i32).collect();
            let targets = Tensor::<2, Int>::from_data(TensorData::new(ids, [n, k]), &device);
            let weight = 1.0 / n as f64;
            let found = head_loss(&hidden, &head, &targets, weight);

            let recorded = |tensor: &Tensor<2>| Tensor::from_inner(tensor.clone()).require_grad();
            let (recorded_hidden, recorded_head) = (recorded(&hidden), recorded(&head));
            let logits = recorded_hidden.clone().matmul(recorded_head.clone().transpose());
            let picked = log_softmax(logits, 1).gather(1, Tensor::from_inner(targets.clone()));
            let sum = picked.mean_dim(1).sum().neg();
            let gradients = (sum.clone() * weight).backward();

            assert_close("loss", &values(found.sum), &values(sum.clone().inner()));
            assert_close("loss without gradients", &values(head_loss_value(&hidden, &head, &targets)), &values(sum.inner()));
            assert_close("gradient of the input", &values(found.hidden_gradient), &values(recorded_hidden.grad(&gradients).unwrap()));
            assert_close("gradient of the head", &values(found.head_gradient), &values(recorded_head.grad(&gradients).unwrap()));
        }
    }
}
