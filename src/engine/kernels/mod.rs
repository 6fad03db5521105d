//! CPU kernels: the operations in `ops` over slices, for f32. They know no tensor: `ops/cpu.rs`
//! turns tensors into slices and back.
//!
//! A kernel makes one pass over its data on all threads of a [`team::Team`], and loops are compiled
//! for several instruction sets, of which the best is chosen at run time ([`vector::best`]).
//!
//! Results do not depend on the number of threads: rows are split into blocks whose size depends on
//! the shape alone ([`rows`]), a block is computed by one thread, and sums over blocks are added in
//! block order. Products are split into as many parts as the threads need, but their sums are not
//! ([`matmul`]).

pub mod team;

mod rows;
mod vector;

pub mod matmul;
pub mod matrix;
mod small;
mod tiles;

pub mod adamw;
pub mod attention;
pub mod cross_entropy;
pub mod embedding;
pub mod rms_norm;
pub mod rotary;
pub mod sum;
pub mod swiglu;

#[cfg(test)]
mod tests {
    use super::attention::{Heads, Sizes};
    use super::cross_entropy::Scored;
    use super::matrix::Matrix;
    use super::team::Team;
    use super::*;
    use crate::engine::positions::Positions;

    /// Magnitude of the gradients of a loss over a million tokens.
    const SLOPE: f32 = 1e-9;

    #[track_caller]
    fn assert_normal(what: &str, values: &[f32]) {
        let subnormal = values.iter().filter(|value| value.is_subnormal()).count();
        assert_eq!(subnormal, 0, "{what}: of {} values", values.len());
        assert!(values.iter().any(|value| *value != 0.0), "{what}: nothing is left");
    }

    /// Pseudorandom numbers in -scale..scale.
    fn noise(count: usize, seed: u64, scale: f32) -> Vec<f32> {
        let number = |idx: u64| {
            let mixed = (idx + (seed << 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40;
            (mixed as f32 / (1 << 23) as f32 - 1.0) * scale
        };
        (0..count as u64).map(number).collect()
    }

    #[test]
    fn saturated_attention_has_no_subnormal_gradients() {
        let (team, positions) = (Team::new(2), Positions::of_sequence(96));
        let sizes = Sizes { heads: 2, groups: 2, width: 8, positions, keys: 96 };
        let [queries, keys] = [1, 2].map(|seed| noise(96 * 16, seed, 10.0));
        let values = noise(96 * 16, 3, 1.0);
        let inputs = Heads { queries: &*queries, keys: &*keys, values: &*values };
        assert_normal("out", &attention::forward(&team, inputs, sizes));
        let found = attention::backward(&team, inputs, sizes, &noise(96 * 16, 4, SLOPE));
        assert_normal("d_queries", &found.queries);
        assert_normal("d_keys", &found.keys);
        assert_normal("d_values", &found.values);
    }

    #[test]
    fn closed_gates_have_no_subnormal_gradients() {
        let team = Team::new(2);
        let [mut gate, mut up, d_out] =
            [(1, 85.0), (2, 1.0), (3, SLOPE)].map(|(seed, scale)| noise(64 * 64, seed, scale));
        assert_normal("out", &swiglu::forward(&team, &gate, &up));
        swiglu::backward(&team, &mut gate, &mut up, &d_out);
        assert_normal("d_gate", &gate);
        assert_normal("d_up", &up);
    }

    #[test]
    fn a_certain_head_has_no_subnormal_gradients() {
        let (rows, weight) = (noise(4 * 8, 1, 16.0), noise(96 * 8, 2, 4.0));
        let scored = Scored {
            rows: Matrix::new(&rows, 4, 8),
            weight: Matrix::new(&weight, 96, 8),
            ids: &[0, 7, 15, 24],
            k: 1,
            mask: None,
        };
        let found = cross_entropy::forward_backward(&Team::new(2), scored, f64::from(SLOPE), None);
        assert_normal("d_rows", &found.d_rows);
        assert_normal("d_weight", &found.d_weight);
    }

    #[test]
    fn moments_without_gradients_vanish() {
        let (team, gradient) = (Team::new(1), [0.0; 16]);
        let [mut parameter, mut exp_avg, mut exp_avg_sq] =
            [1.0, 1e-5, 1e-10].map(|value| [value; 16]);
        let rule = adamw::Rule {
            clip: 1.0,
            betas: [0.9, 0.95],
            root_bias: 1.0,
            epsilon: 1e-8,
            step_size: 1e-3,
            decay: 1.0,
        };
        for _ in 0..2000 {
            let state = adamw::State {
                parameter: &mut parameter,
                exp_avg: &mut exp_avg,
                exp_avg_sq: &mut exp_avg_sq,
            };
            adamw::update(&team, state, &gradient, rule);
        }
        // Rounding would keep the smallest numbers forever.
        assert_eq!((exp_avg, exp_avg_sq), ([0.0; 16], [0.0; 16]));
    }
}
