//! Rotary position embedding in Hugging Face's half-split form: each pair (i, i + H/2) of a head is
//! rotated by an angle that grows with the position (patch index in a patch stage).
//!
//! ```text
//! y1 = x1 cos - x2 sin        dx1 =  dy1 cos + dy2 sin
//! y2 = x2 cos + x1 sin        dx2 =  dy2 cos - dy1 sin
//! ```

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::engine::compute::{Compute, Path};
use crate::engine::kernels::rotary::{Turn, turn};
use crate::engine::ops::cpu::{Floats, changed};
use crate::engine::ops::format::{to_type, wide};

/// Cosines and sines of the angles of some positions.
#[derive(Debug, Clone)]
pub struct Angles {
    /// `[1, T, 1, H/2]`.
    cos: Tensor<4>,
    /// `[1, T, 1, H/2]`.
    sin: Tensor<4>,
}

impl Angles {
    /// The angles of `positions`, for heads of width `head_dim`.
    pub fn at(positions: &[usize], head_dim: usize, rope_theta: f64, device: &Device) -> Self {
        let half = head_dim / 2;
        // In f32, as the reference computes it.
        let frequency =
            |pair: usize| 1.0 / (rope_theta as f32).powf(2.0 * pair as f32 / head_dim as f32);
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let table = |f: fn(f32) -> f32| {
            let of_position = |position: &usize| {
                let position = *position as f32;
                frequencies.iter().map(move |frequency| f(position * frequency))
            };
            let values: Vec<f32> = positions.iter().flat_map(of_position).collect();
            Tensor::<4>::from_data(TensorData::new(values, [1, positions.len(), 1, half]), device)
        };
        Self { cos: table(f32::cos), sin: table(f32::sin) }
    }

    /// The same angles in another number format.
    #[must_use]
    pub fn in_type(self, dtype: DType) -> Self {
        if self.cos.dtype() == dtype {
            self
        } else {
            Self { cos: self.cos.cast(dtype), sin: self.sin.cast(dtype) }
        }
    }
}

/// Rotates `heads`, `[B, T, heads, H]`, by the `angles` of its T positions.
pub fn forward(compute: &Compute, heads: Tensor<4>, angles: &Angles) -> Tensor<4> {
    turned(compute, heads, angles, 1.0)
}

/// Rotates the gradient back. `d_out`: `[B, T, heads, H]`.
pub fn backward(compute: &Compute, d_out: Tensor<4>, angles: &Angles) -> Tensor<4> {
    turned(compute, d_out, angles, -1.0)
}

fn turned(compute: &Compute, heads: Tensor<4>, angles: &Angles, direction: f32) -> Tensor<4> {
    match compute.path(&heads) {
        Path::Cpu(team) => {
            let [.., num_heads, width] = heads.dims();
            let (cos, sin) = (Floats::of(&angles.cos), Floats::of(&angles.sin));
            let by = Turn { cos: &cos, sin: &sin, direction };
            changed(heads, |heads| turn(team, heads, [num_heads, width], by))
        }
        Path::Composed => {
            let dtype = heads.dtype();
            let (first, second) = halves(wide(heads));
            let (cos, sin) = (angles.cos.clone(), angles.sin.clone());
            let sin = if direction < 0.0 { sin.neg() } else { sin };
            let turned_first = first.clone() * cos.clone() - second.clone() * sin.clone();
            let turned_second = second * cos + first * sin;
            to_type(Tensor::cat(vec![turned_first, turned_second], 3), dtype) // [B, T, heads, H]
        }
    }
}

/// `[B, T, heads, H/2]` each.
fn halves(heads: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
    let half = heads.dims()[3] / 2;
    (heads.clone().narrow(3, 0, half), heads.narrow(3, half, half))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::testing::{assert_same, dtypes, noise, recorded};

    #[test]
    fn gradients_are_those_that_burn_derives() {
        for dtype in dtypes() {
            let (heads, d_out) = (noise([2, 5, 3, 6], 1, dtype), noise([2, 5, 3, 6], 2, dtype));
            let angles = Angles::at(&[4, 5, 6, 7, 8], 6, 100.0, &heads.device()).in_type(dtype);
            let compute = Compute::cpu();
            let out = forward(&compute, heads.clone(), &angles);
            let d_heads = backward(&compute, d_out.clone(), &angles);

            let heads = recorded(&heads);
            let (cos, sin) = (Tensor::from_inner(angles.cos), Tensor::from_inner(angles.sin));
            // Hugging Face's formula: x cos + rotate_half(x) sin, with identical halves of cos and
            // sin.
            let twice = |table: &Tensor<4>| Tensor::cat(vec![table.clone(), table.clone()], 3);
            let (first, second) = halves(heads.clone());
            let expected = heads.clone() * twice(&cos)
                + Tensor::cat(vec![second.neg(), first], 3) * twice(&sin);
            let gradients = (expected.clone() * Tensor::from_inner(d_out)).sum().backward();
            assert_same("out", out, expected.inner());
            assert_same("d_heads", d_heads, heads.grad(&gradients).unwrap());
        }
    }
}
