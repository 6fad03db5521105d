//! The gated activation of the feed-forward block: `y = silu(g) u`, where `silu(g) = g s` and `s =
//! sigmoid(g)`.
//!
//! ```text
//! du = dy silu(g)        dg = dy u (s + silu(g) (1 - s))
//! ```

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;

use crate::engine::compute::{Compute, Path};
use crate::engine::kernels::swiglu;
use crate::engine::ops::cpu::{Floats, changed, into_vec, tensor};
use crate::engine::ops::format::{to_type, wide};

/// Saved for the backward pass, all `[N, F]`.
#[derive(Debug, Clone)]
pub struct Saved {
    gate: Tensor<2>,
    up: Tensor<2>,
}

/// `gate`, `up`: `[N, F]`. Returns `[N, F]`.
pub fn forward(compute: &Compute, gate: Tensor<2>, up: Tensor<2>) -> (Tensor<2>, Saved) {
    let out = match compute.path(&gate) {
        Path::Cpu(team) => {
            tensor(swiglu::forward(team, &Floats::of(&gate), &Floats::of(&up)), gate.dims())
        }
        Path::Composed => {
            let values = wide(gate.clone());
            let out = values.clone() * sigmoid(values) * wide(up.clone());
            to_type(out, gate.dtype())
        }
    };
    (out, Saved { gate, up })
}

/// `d_out`: `[N, F]`. Returns the gradients of gate and up, `[N, F]` each.
pub fn backward(compute: &Compute, saved: Saved, d_out: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let Saved { gate, up } = saved;
    match compute.path(&gate) {
        Path::Cpu(team) => {
            let (mut up, dims, d_out) = (into_vec(up), gate.dims(), Floats::from(d_out));
            let d_gate = changed(gate, |gate| swiglu::backward(team, gate, &mut up, &d_out));
            (d_gate, tensor(up, dims))
        }
        Path::Composed => {
            let dtype = gate.dtype();
            let [gate, up, d_out] = [gate, up, d_out].map(wide);
            let sigmoid = sigmoid(gate.clone());
            let activated = gate * sigmoid.clone();
            let d_up = d_out.clone() * activated.clone();
            let slope = activated.clone() - activated * sigmoid.clone() + sigmoid;
            (to_type(d_out * up * slope, dtype), to_type(d_up, dtype))
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::activation::silu;

    use super::*;
    use crate::engine::ops::testing::{assert_same, dtypes, noise, recorded};

    #[test]
    fn gradients_are_those_that_burn_derives() {
        let compute = Compute::cpu();
        for dtype in dtypes() {
            let (gate, up, d_out) =
                (noise([7, 5], 1, dtype) * 8.0, noise([7, 5], 2, dtype), noise([7, 5], 3, dtype));
            let (out, saved) = forward(&compute, gate.clone(), up.clone());
            let (d_gate, d_up) = backward(&compute, saved, d_out.clone());

            let (gate, up) = (recorded(&gate), recorded(&up));
            let expected = silu(gate.clone()) * up.clone();
            let gradients = (expected.clone() * Tensor::from_inner(d_out)).sum().backward();
            assert_same("out", out, expected.inner());
            assert_same("d_gate", d_gate, gate.grad(&gradients).unwrap());
            assert_same("d_up", d_up, up.grad(&gradients).unwrap());
        }
    }
}
