//! Compares a whole layer with a plain expression, whose gradients Burn derives.

use std::collections::BTreeMap;

use burn::tensor::activation::{silu, softmax};
use burn::tensor::{Bool, DType, Device, Tensor};

use super::*;
use crate::engine::compute::Compute;
use crate::engine::gradients::Gradients;
use crate::engine::named_tensor::NamedTensor;
use crate::engine::ops::testing::{assert_same, dtypes, noise, recorded};
use crate::engine::positions::Positions;
use crate::plan::ModelShape;

const HEADS: usize = 4;
const GROUPS: usize = 2;
const WIDTH: usize = 6;
const SEQUENCES: usize = 2;
const LENGTH: usize = 5;

fn shape() -> ModelShape {
    ModelShape {
        vocab_size: 19,
        hidden_size: HEADS * WIDTH,
        intermediate_size: 10,
        num_hidden_layers: 1,
        num_attention_heads: HEADS,
        num_key_value_heads: GROUPS,
        max_position_embeddings: 16,
        rope_theta: 100.0,
        rms_norm_eps: 1e-6,
        initializer_range: 0.3,
        tie_word_embeddings: false,
    }
}

/// A textbook layer: all keys at once, keys and values repeated, no partial sums. `weights` by the
/// last parts of their names.
fn textbook_layer(
    rows: Tensor<2>,
    weights: &BTreeMap<String, Tensor<2>>,
    shape: &ModelShape,
) -> Tensor<2> {
    let weight = |name: &str| weights[name].clone();
    let dtype = rows.dtype();
    let norm = |rows: Tensor<2>, name: &str| {
        let mean_square = rows.clone().square().mean_dim(1);
        rows / mean_square.add_scalar(shape.rms_norm_eps).sqrt() * weight(name)
    };
    let linear = |rows: Tensor<2>, name: &str| rows.matmul(weight(name).transpose());
    let heads = |rows: Tensor<2>, count: usize| {
        rows.reshape([SEQUENCES, LENGTH, count, WIDTH]).swap_dims(1, 2)
    };
    // In f32, as the reference computes them.
    let frequency = |idx: usize| {
        1.0 / (shape.rope_theta as f32)
            .powf(2.0 * (idx % WIDTH % (WIDTH / 2)) as f32 / WIDTH as f32)
    };
    let table = |of_angle: fn(f32) -> f32| {
        let values: Vec<f32> = (0..LENGTH * WIDTH)
            .map(|idx| of_angle((idx / WIDTH) as f32 * frequency(idx)))
            .collect();
        let table = Tensor::<1>::from_floats(values.as_slice(), &Device::flex())
            .reshape([1, 1, LENGTH, WIDTH]);
        Tensor::<4>::from_inner(table.cast(dtype))
    };
    let (cos, sin) = (table(f32::cos), table(f32::sin));
    let rotate = |x: Tensor<4>| {
        let half = Tensor::cat(
            vec![
                x.clone().narrow(3, WIDTH / 2, WIDTH / 2).neg(),
                x.clone().narrow(3, 0, WIDTH / 2),
            ],
            3,
        );
        x * cos.clone() + half * sin.clone()
    };
    let repeat = |x: Tensor<4>| {
        let wide =
            x.unsqueeze_dim::<5>(2).expand([SEQUENCES, GROUPS, HEADS / GROUPS, LENGTH, WIDTH]);
        wide.reshape([SEQUENCES, HEADS, LENGTH, WIDTH])
    };

    let normed = norm(rows.clone(), "input_layernorm.weight");
    let queries = rotate(heads(linear(normed.clone(), "self_attn.q_proj.weight"), HEADS));
    let keys = repeat(rotate(heads(linear(normed.clone(), "self_attn.k_proj.weight"), GROUPS)));
    let values = repeat(heads(linear(normed, "self_attn.v_proj.weight"), GROUPS));
    // A product, since the gradient of a division by a number is derived in f32 only (burn-autodiff
    // 0.22.1).
    let scores = queries.matmul(keys.transpose()) * (WIDTH as f64).powf(-0.5);
    let future =
        Tensor::<2, Bool>::tril_mask([LENGTH, LENGTH], 0, &scores.device()).unsqueeze::<4>();
    let scores =
        scores.mask_fill(future.expand([SEQUENCES, HEADS, LENGTH, LENGTH]), f32::NEG_INFINITY);
    let mixed = softmax(scores, 3)
        .matmul(values)
        .swap_dims(1, 2)
        .reshape([SEQUENCES * LENGTH, HEADS * WIDTH]);
    let rows = rows + linear(mixed, "self_attn.o_proj.weight");
    let normed = norm(rows.clone(), "post_attention_layernorm.weight");
    let intermediate =
        silu(linear(normed.clone(), "mlp.gate_proj.weight")) * linear(normed, "mlp.up_proj.weight");
    rows + linear(intermediate, "mlp.down_proj.weight")
}

fn check_layer(dtype: DType) {
    let shape = shape();
    let Ok(model) = LlamaForCausalLM::new(&shape, &mut random_weights(3, &shape), &Compute::cpu());
    let model = model.map(&mut |weight| {
        // Norms are 1 at first, which would hide the dependence of their gradient on them.
        let values = if weight.dims.len() == 1 {
            noise(weight.values.dims(), 9, DType::F32) + 1.5
        } else {
            weight.values
        };
        NamedTensor { values: values.cast(dtype), ..weight }
    });
    let layer = &model.model.layers[0];
    let shared = model.model.shared_input(Positions::of_sequence(LENGTH));
    let shared = SharedInput { angles: shared.angles.clone().in_type(dtype), ..shared };
    let rows = noise([SEQUENCES * LENGTH, HEADS * WIDTH], 1, dtype);
    let d_out = noise(rows.dims(), 2, dtype);
    let mut gradients = Gradients::new(&model.model.compute);
    let LayerOut { output, around, saved } =
        layer.forward(rows.clone(), &shared, &mut |heads| shared.mix(heads));
    let out = output + around;
    let d_rows = layer.backward(saved, &shared, d_out.clone(), &mut gradients);

    let rows = recorded(&rows);
    let short = |name: &str| name.strip_prefix("model.layers.0.").map(str::to_owned);
    let weights: BTreeMap<String, Tensor<2>> = model
        .weights()
        .filter_map(|weight| Some((short(&weight.name)?, recorded(&weight.values))))
        .collect();
    let expected = textbook_layer(rows.clone(), &weights, &shape);
    let derived = (expected.clone() * Tensor::from_inner(d_out)).sum().backward();
    assert_same("out", out, expected.inner());
    assert_same("d_rows", d_rows, rows.grad(&derived).unwrap());
    assert_eq!(gradients.sums.len(), weights.len());
    for (name, gradient) in gradients.sums {
        assert_same(&name, gradient, weights[&short(&name).unwrap()].grad(&derived).unwrap());
    }
}

#[test]
fn a_layer_has_the_gradients_that_burn_derives() {
    for dtype in dtypes() {
        check_layer(dtype);
    }
}
