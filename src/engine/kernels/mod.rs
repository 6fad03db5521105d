//! CPU kernels: the implementations of the operations in `ops`, over slices, for f32.
//!
//! An operation checks [`on_host`] and then either calls its kernel here or composes its result
//! from Burn's operations, which GPUs use and the tests compare the kernels with. A kernel makes
//! one pass over its data on all threads, and loops are compiled for several instruction sets, of
//! which the best is chosen at run time ([`vector::best`]).
//!
//! Results do not depend on the number of threads ([`team`]): rows are split into blocks whose size
//! depends on the shape alone ([`rows`]), a block is computed by one thread, and sums over blocks
//! are added in block order. Products are split into as many parts as the threads need, but their
//! sums are not ([`matmul`]).

pub mod adamw;
pub mod attention;
pub mod cross_entropy;
pub mod embedding;
mod host;
pub mod linear;
pub mod matmul;
pub mod rms_norm;
pub mod rotary;
mod rows;
mod small;
mod sum;
pub mod swiglu;
mod team;
mod tiles;
mod vector;

pub use host::on_host;
pub use sum::{add, sum_of_squares};

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Tensor};

    use super::*;
    use crate::engine::ops::head::Targets;
    use crate::engine::ops::positions::Positions;
    use crate::engine::ops::testing::{noise, random_ids};

    /// Magnitude of the gradients of a loss over a million tokens.
    const SLOPE: f32 = 1e-9;

    #[track_caller]
    fn assert_normal<const D: usize>(what: &str, tensor: Tensor<D>) {
        let values: Vec<f32> = tensor.into_data().iter::<f32>().collect();
        let subnormal = values.iter().filter(|value| value.is_subnormal()).count();
        assert_eq!(subnormal, 0, "{what}: of {} values", values.len());
        assert!(values.iter().any(|value| *value != 0.0), "{what}: nothing is left");
    }

    fn values<const D: usize>(dims: [usize; D], seed: u64, scale: f32) -> Tensor<D> {
        noise(dims, seed, DType::F32).mul_scalar(scale)
    }

    #[test]
    fn saturated_attention_has_no_subnormal_gradients() {
        let [queries, keys] = [1, 2].map(|seed| values([1, 96, 2, 8], seed, 10.0));
        let positions = Positions::of_sequence(96);
        let values = [3, 4].map(|seed| values([1, 96, 2, 8], seed, 1.0));
        assert_normal("out", attention::forward(&queries, &keys, &values[0], positions));
        let found = attention::backward(
            &queries,
            &keys,
            &values[0],
            positions,
            &values[1].clone().mul_scalar(SLOPE),
        );
        for (what, gradient) in ["d_queries", "d_keys", "d_values"].into_iter().zip(found) {
            assert_normal(what, gradient);
        }
    }

    #[test]
    fn closed_gates_have_no_subnormal_gradients() {
        let [gate, up, d_out] =
            [(1, 85.0), (2, 1.0), (3, SLOPE)].map(|(seed, scale)| values([64, 64], seed, scale));
        assert_normal("out", swiglu::forward(&gate, &up));
        let (d_gate, d_up) = swiglu::backward(gate, up, d_out);
        assert_normal("d_gate", d_gate);
        assert_normal("d_up", d_up);
    }

    #[test]
    fn a_certain_head_has_no_subnormal_gradients() {
        let (rows, weight) = (values([4, 8], 1, 16.0), values([96, 8], 2, 4.0));
        let targets =
            Targets { ids: random_ids([4, 1], 96), mask: Tensor::ones([4, 1], &rows.device()) };
        let found =
            cross_entropy::forward_backward(&rows, &weight, &targets, f64::from(SLOPE), None);
        assert_normal("d_rows", found.d_rows);
        assert_normal("d_weight", found.d_weight);
    }

    #[test]
    fn moments_without_gradients_vanish() {
        let mut state = [1.0, 1e-5, 1e-10]
            .map(|value| Tensor::<2>::full([2, 8], value, &burn::tensor::Device::flex()));
        let rule = adamw::Rule {
            clip: 1.0,
            betas: [0.9, 0.95],
            root_bias: 1.0,
            epsilon: 1e-8,
            step_size: 1e-3,
            decay: 1.0,
        };
        for _ in 0..2000 {
            let [parameter, exp_avg, exp_avg_sq] = state;
            let gradient = parameter.zeros_like();
            state = adamw::update(parameter, exp_avg, exp_avg_sq, gradient, rule);
        }
        let [_, exp_avg, exp_avg_sq] =
            state.map(|tensor| tensor.into_data().iter::<f32>().collect::<Vec<_>>());
        // Rounding would keep the smallest numbers forever.
        assert_eq!((exp_avg, exp_avg_sq), (vec![0.0; 16], vec![0.0; 16]));
    }
}
