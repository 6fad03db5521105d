//! Compares a whole layer with a plain expression, whose gradients Burn derives; tests what a step
//! does with layers.

use std::cell::Cell;
use std::collections::BTreeMap;

use burn::tensor::activation::{silu, softmax};
use burn::tensor::{Bool, DType, Device, Tensor};

use super::*;
use crate::config::{PatchSize, Precision};
use crate::engine::batch::Batch;
use crate::engine::gradients::Gradients;
use crate::engine::named_tensor::NamedTensor;
use crate::engine::ops::positions::Positions;
use crate::engine::ops::testing::{assert_same, dtypes, noise, recorded};
use crate::engine::step::{StepInput, micro_step};
use crate::plan::ModelShape;

const HEADS: usize = 4;
const GROUPS: usize = 2;
const WIDTH: usize = 6;
const SEQUENCES: usize = 2;
const LENGTH: usize = 5;

fn shape(num_hidden_layers: usize) -> ModelShape {
    ModelShape {
        vocab_size: 19,
        hidden_size: HEADS * WIDTH,
        intermediate_size: 10,
        num_hidden_layers,
        num_attention_heads: HEADS,
        num_key_value_heads: GROUPS,
        max_position_embeddings: 16,
        rope_theta: 100.0,
        rms_norm_eps: 1e-6,
        initializer_range: 0.3,
        tie_word_embeddings: false,
    }
}

fn network(num_hidden_layers: usize) -> LlamaForCausalLM {
    let shape = shape(num_hidden_layers);
    let Ok(model) = LlamaForCausalLM::new(&shape, &mut random_weights(3, &shape), &Device::flex());
    model
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
    let shape = shape(1);
    let model = network(1).map(&mut |weight| {
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
    let shared = SharedInput { angles: shared.angles.cast(dtype), ..shared };
    let rows = noise([SEQUENCES * LENGTH, HEADS * WIDTH], 1, dtype);
    let d_out = noise(rows.dims(), 2, dtype);
    let mut gradients = Gradients::default();
    let (out, saved) = layer.forward(rows.clone(), &shared);
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
    assert_eq!(gradients.0.len(), weights.len());
    for (name, gradient) in gradients.0 {
        assert_same(&name, gradient, weights[&short(&name).unwrap()].grad(&derived).unwrap());
    }
}

#[test]
fn a_layer_has_the_gradients_that_burn_derives() {
    for dtype in dtypes() {
        check_layer(dtype);
    }
}

/// A batch, and the settings that its step shares with others.
fn batch(model: &LlamaForCausalLM, recompute: bool) -> (Batch, StepInput) {
    let tokens: Vec<u32> = (0..24).map(|idx| idx * 5 % 19).collect();
    let batch = Batch::new(&tokens, 2, PatchSize::new(2).unwrap(), &Device::flex());
    let input = StepInput {
        shared: model.model.shared_input(batch.positions()),
        scale: 1.0 / batch.num_targets as f64,
        recompute,
    };
    (batch, input)
}

#[test]
fn recomputing_changes_no_bit() {
    let model = network(3);
    let [kept, recomputed] = [false, true].map(|recompute| {
        let (batch, input) = batch(&model, recompute);
        let mut gradients = Gradients::default();
        let loss = micro_step(&model, &batch, &input, &|| false, &mut gradients).unwrap();
        let bits = |tensor: Tensor<2>| {
            tensor.into_data().iter::<f32>().map(f32::to_bits).collect::<Vec<_>>()
        };
        let gradients: BTreeMap<String, Vec<u32>> =
            gradients.0.into_iter().map(|(name, gradient)| (name, bits(gradient))).collect();
        (bits(loss.unsqueeze()), gradients)
    });
    assert_eq!(kept, recomputed);
}

#[test]
fn a_stop_is_seen_before_each_layer() {
    let model = network(3);
    let (batch, input) = batch(&model, false);
    let run_until = |limit: usize| {
        let asked = Cell::new(0);
        let is_stopped = || {
            asked.set(asked.get() + 1);
            asked.get() > limit
        };
        let is_complete =
            micro_step(&model, &batch, &input, &is_stopped, &mut Gradients::default()).is_some();
        (is_complete, asked.get())
    };
    assert_eq!(run_until(usize::MAX), (true, 6), "three layers, forwards and backwards");
    for limit in 0..6 {
        assert_eq!(run_until(limit), (false, limit + 1));
    }
}

#[test]
fn a_step_in_bf16_has_the_loss_and_gradients_of_f32_up_to_its_rounding() {
    // Roundings of 2^-9 as a number passes through two layers and back: ten per direction and
    // layer.
    const PATH: f32 = 40.0;
    let model = network(2);
    for k in [1, 2] {
        let tokens: Vec<u32> =
            (0..(SEQUENCES * LENGTH * k) as u32).map(|idx| idx * 7 % 19).collect();
        let batch =
            Batch::new(&tokens, SEQUENCES, PatchSize::new(k as u64).unwrap(), &Device::flex());
        let step = |precision: Precision| {
            let model = model.in_precision(precision);
            let input = StepInput {
                shared: model.model.shared_input(batch.positions()),
                scale: 1.0 / batch.num_targets as f64,
                recompute: k == 2,
            };
            let mut gradients = Gradients::default();
            let loss = micro_step(&model, &batch, &input, &|| false, &mut gradients)
                .unwrap()
                .into_scalar::<f32>();
            // A second micro-batch adds to existing sums.
            micro_step(&model, &batch, &input, &|| false, &mut gradients).unwrap();
            (loss, gradients.0)
        };
        let ((expected_loss, expected), (loss, found)) =
            (step(Precision::F32), step(Precision::Bf16));
        let of_loss = (loss - expected_loss).abs() / expected_loss;
        assert!(of_loss > 0.0 && of_loss < 5e-3, "K = {k}: the loss differs by {of_loss:e}");
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, gradient) in found {
            assert_eq!(gradient.dtype(), DType::F32, "{name}: sums of gradients stay in f32");
            let length = |tensor: Tensor<2>| tensor.square().sum().sqrt().into_scalar::<f32>();
            let difference =
                length(gradient - expected[&name].clone()) / length(expected[&name].clone());
            assert!(
                difference < PATH * 2.0_f32.powi(-9),
                "K = {k}: the gradient of {name} differs by {difference:e}"
            );
        }
    }
}
