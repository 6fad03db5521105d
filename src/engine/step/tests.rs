//! What a step does with layers: recomputing, stopping, number formats.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{DType, Tensor};

use super::*;
use crate::config::{PatchSize, Precision};
use crate::engine::compute::Compute;
use crate::engine::kernels::team::Team;
use crate::engine::model::random_weights;
use crate::plan::ModelShape;

const SEQUENCES: usize = 2;
const LENGTH: usize = 5;

fn network(num_hidden_layers: usize) -> LlamaForCausalLM {
    let shape = ModelShape {
        vocab_size: 19,
        hidden_size: 24,
        intermediate_size: 10,
        num_hidden_layers,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 16,
        rope_theta: 100.0,
        rms_norm_eps: 1e-6,
        initializer_range: 0.3,
        tie_word_embeddings: false,
    };
    let Ok(model) = LlamaForCausalLM::new(&shape, &mut random_weights(3, &shape), &Compute::cpu());
    model
}

/// A batch, and the settings that its step shares with others.
fn batch(model: &LlamaForCausalLM, recompute: bool) -> (Batch, StepInput) {
    let tokens: Vec<u32> = (0..24).map(|idx| idx * 5 % 19).collect();
    let batch = Batch::new(&tokens, 2, PatchSize::new(2).unwrap());
    let input = StepInput {
        shared: model.model.shared_input(batch.positions()),
        scale: 1.0 / batch.num_targets as f64,
        recompute,
    };
    (batch, input)
}

/// Loss and gradients of a step, as bits.
fn bits_of_step(model: &LlamaForCausalLM, recompute: bool) -> BTreeMap<String, Vec<u32>> {
    let (batch, input) = batch(model, recompute);
    let mut gradients = Gradients::new(model.compute());
    let loss = micro_step(model, &batch, &input, &|| false, &mut gradients).unwrap();
    gradients.sums.insert("loss".into(), loss.unsqueeze());
    let bits = |tensor: Tensor<2>| tensor.into_data().iter::<f32>().map(f32::to_bits).collect();
    gradients.sums.into_iter().map(|(name, gradient)| (name, bits(gradient))).collect()
}

#[test]
fn recomputing_changes_no_bit() {
    let model = network(3);
    assert_eq!(bits_of_step(&model, false), bits_of_step(&model, true));
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let mut model = network(3);
    let [one, five] = [1, 5].map(|threads| {
        model.model.compute.team = Arc::new(Team::new(threads));
        bits_of_step(&model, false)
    });
    assert_eq!(one, five);
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
        let is_complete = micro_step(
            &model,
            &batch,
            &input,
            &is_stopped,
            &mut Gradients::new(&model.model.compute),
        )
        .is_some();
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
        let batch = Batch::new(&tokens, SEQUENCES, PatchSize::new(k as u64).unwrap());
        let step = |precision: Precision| {
            let model = model.in_precision(precision);
            let input = StepInput {
                shared: model.model.shared_input(batch.positions()),
                scale: 1.0 / batch.num_targets as f64,
                recompute: k == 2,
            };
            let mut gradients = Gradients::new(&model.model.compute);
            let loss = micro_step(&model, &batch, &input, &|| false, &mut gradients)
                .unwrap()
                .into_scalar::<f32>();
            // A second micro-batch adds to existing sums.
            micro_step(&model, &batch, &input, &|| false, &mut gradients).unwrap();
            (loss, gradients.sums)
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
