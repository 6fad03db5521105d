//! Numbers compared with the reference implementations, `PyTorch` and transformers, by
//! `tests/golden/make_golden.py`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::slice;

use burn::tensor::{Int, Tensor, TensorData};
use patchtui::config::{
    ActivationTensor, ActivationsConfig, Cadence, OptimizerConfig, PatchSize, ScheduleKind,
};
use patchtui::engine::batch::Batch;
use patchtui::engine::compute::Compute;
use patchtui::engine::evaluate::token_losses;
use patchtui::engine::generate::{
    Continuation, GenerationRules, Generator, Heard, Sampling, Verdict,
};
use patchtui::engine::gradients::Gradients;
use patchtui::engine::model::{LlamaForCausalLM, random_weights};
use patchtui::engine::optimizer::{AdamW, Update};
use patchtui::engine::positions::Positions;
use patchtui::engine::probe::layer_activations;
use patchtui::engine::step::{StepInput, micro_step};
use patchtui::engine::workers::Workers;
use patchtui::plan::{ModelShape, Schedule};
use patchtui::steer::StopFlag;
use safetensors::SafeTensors;

/// A file of named tensors, all read as f32 (ids are small enough).
pub(crate) struct Golden(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Golden {
    pub(crate) fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let bytes = std::fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let value = |dtype: safetensors::Dtype, bytes: [u8; 4]| match dtype {
            safetensors::Dtype::I32 => i32::from_le_bytes(bytes) as f32,
            _ => f32::from_le_bytes(bytes),
        };
        let four_bytes = |dtype| matches!(dtype, safetensors::Dtype::F32 | safetensors::Dtype::I32);
        let read =
            tensors.iter().filter(|(_, view)| four_bytes(view.dtype())).map(|(name, view)| {
                let values = view
                    .data()
                    .chunks_exact(4)
                    .map(|b| value(view.dtype(), [b[0], b[1], b[2], b[3]]));
                (name.to_owned(), (view.shape().to_vec(), values.collect()))
            });
        Self(read.collect())
    }

    pub(crate) fn values(&self, name: &str) -> &[f32] {
        &self.0.get(name).unwrap_or_else(|| panic!("{name} is not in the golden file")).1
    }

    pub(crate) fn ids(&self, name: &str) -> Vec<u32> {
        self.values(name).iter().map(|id| *id as u32).collect()
    }

    fn shape(&self) -> ModelShape {
        let dims = |name: &str| self.0[&format!("weights.{name}")].0.clone();
        let table = dims("model.embed_tokens.weight");
        let head_dim = 8;
        ModelShape {
            vocab_size: table[0],
            hidden_size: table[1],
            intermediate_size: dims("model.layers.0.mlp.gate_proj.weight")[0],
            num_hidden_layers: 2,
            num_attention_heads: table[1] / head_dim,
            num_key_value_heads: dims("model.layers.0.self_attn.k_proj.weight")[0] / head_dim,
            max_position_embeddings: 64,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            initializer_range: 0.02,
            tie_word_embeddings: !self.0.contains_key("weights.lm_head.weight"),
        }
    }

    pub(crate) fn model(&self) -> LlamaForCausalLM {
        let mut source = |name: &str, _: &[usize]| {
            Ok::<_, Infallible>(self.values(&format!("weights.{name}")).to_vec())
        };
        LlamaForCausalLM::new(&self.shape(), &mut source, &Compute::cpu()).unwrap()
    }
}

pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Largest difference, relative to the largest reference value.
#[track_caller]
pub(crate) fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}: number of values");
    let scale = expected.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    let difference = found.iter().zip(expected).fold(0.0_f32, |a, (x, y)| a.max((x - y).abs()));
    assert!(
        difference <= tolerance * scale,
        "{what}: differs by {difference:e} where the largest value is {scale:e}"
    );
}

/// Output of the trunk, `[N, D]`.
fn trunk(model: &LlamaForCausalLM, batch: &Batch) -> Tensor<2> {
    model.model.forward(model.model.embed(&batch.ids, batch.patch_size), batch.positions())
}

/// `[N, V]`.
pub(crate) fn logits(model: &LlamaForCausalLM, batch: &Batch) -> Tensor<2> {
    trunk(model, batch).matmul(model.head().values.clone().transpose())
}

/// Loss, summed and multiplied by `scale`, and its gradients.
pub(crate) fn step(
    model: &LlamaForCausalLM,
    batch: &Batch,
    scale: f64,
    recompute: bool,
) -> (Tensor<1>, Gradients) {
    let mut gradients = Gradients::new(model.compute());
    let input = StepInput { shared: model.model.shared_input(batch.positions()), scale, recompute };
    let loss = micro_step(model, batch, &input, &|| false, &mut gradients).unwrap();
    (loss * scale, gradients)
}

#[test]
fn logits_and_loss_equal_those_of_transformers() {
    for case in ["mha_untied", "mha_tied", "gqa_untied", "gqa_tied"] {
        let golden = Golden::read(&format!("forward_{case}.safetensors"));
        let model = golden.model();
        let batch = Batch::new(&golden.ids("input_ids"), 2, PatchSize::ONE);
        let logits = values(logits(&model, &batch));
        let worst = logits
            .iter()
            .zip(golden.values("logits"))
            .fold(0.0_f32, |a, (x, y)| a.max((x - y).abs()));
        assert!(worst <= 1e-4, "{case}: a logit differs by {worst:e}");
        let loss = values(token_losses(&model, &batch)).iter().sum::<f32>() / 46.0;
        assert!(
            (loss - golden.values("loss")[0]).abs() <= 1e-5,
            "{case}: loss {loss} instead of {}",
            golden.values("loss")[0]
        );
    }
}

#[test]
fn loss_and_every_gradient_equal_pytorch_for_each_patch_size() {
    for file in ["patch_gradients.safetensors", "patch_gradients_tied.safetensors"] {
        let golden = Golden::read(file);
        let model = golden.model();
        for (k, recompute) in [(1, false), (1, true), (2, false), (4, false), (4, true), (8, false)]
        {
            let patch_size = PatchSize::new(k).unwrap();
            let batch = Batch::new(&golden.ids("input_ids"), 2, patch_size);
            let (loss, gradients) = step(&model, &batch, 1.0 / batch.num_targets as f64, recompute);
            assert_close(
                &format!("{file} K = {k} loss"),
                &values(loss),
                golden.values(&format!("k{k}.loss")),
                1e-5,
            );
            assert_close(
                &format!("{file} K = {k} norm"),
                &values(gradients.norm().unwrap()),
                golden.values(&format!("k{k}.grad_norm")),
                1e-5,
            );
            let expected = golden.0.keys().filter(|name| name.starts_with("weights.")).count();
            assert_eq!(gradients.sums.len(), expected, "{file} K = {k}: number of gradients");
            for (name, gradient) in gradients.sums {
                assert_close(
                    &format!("{file} K = {k} {name}"),
                    &values(gradient),
                    golden.values(&format!("k{k}.grad.{name}")),
                    1e-4,
                );
            }
        }
    }
}

#[test]
fn with_single_tokens_the_method_is_the_plain_language_model_bit_for_bit() {
    let golden = Golden::read("patch_gradients.safetensors");
    let model = golden.model();
    let ids = golden.ids("input_ids");
    let batch = Batch::new(&ids, 2, PatchSize::ONE);
    let method = trunk(&model, &batch);
    // The plain model: table rows directly into the trunk, the sequence shifted by one as targets.
    let token_ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
    let token_ids = TensorData::new(token_ids, [ids.len()]);
    let table = model.model.embed_tokens.weight.values.clone();
    let rows = table.clone().select(0, Tensor::<1, Int>::from_data(token_ids, &table.device()));
    let plain = model.model.forward(rows, Positions::of_sequence(32));
    assert_eq!(bits(values(method)), bits(values(plain)));
    let shifted: Vec<u32> = ids.chunks(32).flat_map(|sequence| sequence[1..].to_vec()).collect();
    assert_eq!(
        batch
            .targets
            .ids
            .chunks(32)
            .flat_map(|sequence| sequence[..31].to_vec())
            .collect::<Vec<_>>(),
        shifted
    );
    assert_eq!(batch.targets.mask, Some([vec![1.0; 31], vec![0.0]].concat().repeat(2)));
}

fn bits(values: Vec<f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn changing_a_patch_changes_no_logits_before_it() {
    let golden = Golden::read("patch_gradients.safetensors");
    let model = golden.model();
    let ids = golden.ids("input_ids");
    for k in [1_usize, 2, 4, 8] {
        let patch_size = PatchSize::new(k as u64).unwrap();
        let logits = |ids: &[u32]| {
            let batch = Batch::new(ids, 2, patch_size);
            values(self::logits(&model, &batch))
        };
        let num_patches = 32 / k;
        let changed_patch = num_patches / 2;
        let mut changed = ids.clone();
        changed[changed_patch * k] = (changed[changed_patch * k] + 1) % 96;
        let (before, after) = (logits(&ids), logits(&changed));
        let edge = changed_patch * 96;
        assert_eq!(
            bits(before[..edge].to_vec()),
            bits(after[..edge].to_vec()),
            "K = {k}: logits before the changed patch"
        );
        assert_ne!(
            before[edge..edge + 96],
            after[edge..edge + 96],
            "K = {k}: logits of the changed patch"
        );
    }
}

#[test]
fn twelve_steps_with_a_stage_switch_follow_pytorch() {
    for (file, reset) in [("adamw_run.safetensors", true), ("adamw_run_keep.safetensors", false)] {
        let golden = Golden::read(file);
        let mut model = golden.model();
        let config = OptimizerConfig {
            learning_rate: 1e-2,
            betas: [0.9, 0.95],
            epsilon: 1e-8,
            weight_decay: 0.1,
            gradient_clip: 1.0,
        };
        let mut optimizer = AdamW::new(config);
        let schedule = Schedule {
            kind: ScheduleKind::Cosine,
            peak: 1e-2,
            minimum: 0.0,
            warmup_steps: 2,
            decay_steps: 0,
            steps: 6,
        };
        for idx in 1..=12_usize {
            let (k, sequences) = if idx <= 6 { (4, 2) } else { (1, 8) };
            if idx == 7 && reset {
                optimizer.reset();
            }
            let ids = golden.ids(&format!("input_ids.step{idx:02}"));
            let mut total = 0.0;
            let mut gradients = Gradients::new(&Compute::cpu());
            for micro in ids.chunks(ids.len() / 2) {
                let batch = Batch::new(micro, sequences, PatchSize::new(k).unwrap());
                let (loss, micro_gradients) =
                    step(&model, &batch, 1.0 / (2.0 * batch.num_targets as f64), false);
                total += values(loss)[0];
                add_all(&mut gradients, micro_gradients);
            }
            let expected = golden.values("losses")[idx - 1];
            assert!(
                (total - expected).abs() <= 1e-4,
                "{file} step {idx}: loss {total} instead of {expected}"
            );
            let norm = gradients.norm().unwrap();
            assert_close(
                &format!("{file} step {idx} norm"),
                &values(norm.clone()),
                &golden.values("grad_norms")[idx - 1..idx],
                1e-3,
            );
            let learning_rate = schedule.learning_rate((idx as u64 - 1) % 6);
            assert_close(
                &format!("{file} step {idx} rate"),
                &[learning_rate as f32],
                &golden.values("learning_rates")[idx - 1..idx],
                1e-6,
            );
            model = optimizer.step(model, gradients, &Update { learning_rate, norm, skip: None });
            if idx == 9 {
                for (name, moments) in &optimizer.moments {
                    assert_close(
                        name,
                        &values(moments.exp_avg.clone()),
                        golden.values(&format!("exp_avg.{name}")),
                        1e-3,
                    );
                    assert_close(
                        name,
                        &values(moments.exp_avg_sq.clone()),
                        golden.values(&format!("exp_avg_sq.{name}")),
                        1e-3,
                    );
                }
            }
        }
        assert_close(
            file,
            &values(model.head().values.clone()),
            golden.values("final.lm_head.weight"),
            1e-3,
        );
    }
}

#[test]
fn a_skipped_update_changes_nothing() {
    let golden = Golden::read("adamw_run.safetensors");
    let model = golden.model();
    let batch = Batch::new(&golden.ids("input_ids.step01")[..64], 2, PatchSize::new(4).unwrap());
    let head = |model: &LlamaForCausalLM| bits(values(model.head().values.clone()));
    let before = head(&model);
    let mut optimizer = AdamW::new(OptimizerConfig {
        learning_rate: 1e-2,
        betas: [0.9, 0.95],
        epsilon: 1e-8,
        weight_decay: 0.1,
        gradient_clip: 1.0,
    });
    let (_, gradients) = step(&model, &batch, f64::NAN, false);
    let norm = gradients.norm().unwrap();
    let skip = Some(norm.clone().is_finite().bool_not());
    let model = optimizer.step(
        model,
        gradients.clone(),
        &Update { learning_rate: 1e-2, norm: norm.clone(), skip },
    );
    assert_eq!(head(&model), before);
    assert!(
        optimizer
            .moments
            .values()
            .all(|moments| values(moments.exp_avg.clone()).iter().all(|x| *x == 0.0))
    );
    let (_, gradients) = step(&model, &batch, 1.0, false);
    let norm = gradients.norm().unwrap();
    let skip = Some(norm.clone().is_finite().bool_not());
    let model = optimizer.step(model, gradients, &Update { learning_rate: 1e-2, norm, skip });
    assert_ne!(head(&model), before);
}

#[test]
fn activation_rates_equal_pytorch() {
    let golden = Golden::read("activations.safetensors");
    let model = golden.model();
    for k in [1_u64, 4] {
        for (tensor, name) in [
            (ActivationTensor::FfnOutput, "ffn_output"),
            (ActivationTensor::Intermediate, "intermediate"),
        ] {
            let config = ActivationsConfig { every_steps: Cadence::Auto, threshold: 0.5, tensor };
            let batch = Batch::new(&golden.ids("input_ids"), 2, PatchSize::new(k).unwrap());
            let layers = layer_activations(&model, &batch, &config).unwrap();
            let found: (Vec<f32>, Vec<f32>) =
                layers.iter().map(|layer| (layer.rate as f32, layer.mean_abs as f32)).unzip();
            assert_close(
                &format!("K = {k} {name} rate"),
                &found.0,
                golden.values(&format!("k{k}.{name}.rate")),
                1e-5,
            );
            assert_close(
                &format!("K = {k} {name} mean"),
                &found.1,
                golden.values(&format!("k{k}.{name}.mean_abs")),
                1e-5,
            );
        }
    }
}

#[test]
fn greedy_continuation_equals_transformers() {
    let golden = Golden::read("generate.safetensors");
    let model = golden.model();
    let generator = Generator { model, context_length: 64 };
    let found = generator
        .generate(&[golden.ids("input_ids")], &greedy(12, &[]), &mut |_, _| Verdict::GoOn)
        .unwrap();
    assert_eq!(found, [Continuation { ids: golden.ids("generated_ids"), has_slid: false }]);
}

#[test]
fn a_text_longer_than_the_context_goes_on_from_its_newest_part() {
    let golden = Golden::read("generate.safetensors");
    let shape = golden.shape();
    let model = golden.model();
    let next = |window: &[u32]| {
        let batch = Batch::new(window, 1, PatchSize::ONE);
        let logits = values(logits(&model, &batch).narrow(0, window.len() - 1, 1));
        // The first maximum.
        (0..logits.len()).fold(0, |best, id| if logits[id] > logits[best] { id } else { best })
            as u32
    };
    // The context is full at once, after a few tokens, several times, or shorter than the prompt.
    for (context_length, prompt_length) in
        [(64_usize, 60_usize), (64, 64), (64, 100), (50, 45), (7, 3), (3, 300), (1, 2)]
    {
        let vocab_size = shape.vocab_size as u32;
        let mut expected: Vec<u32> =
            (0..prompt_length as u32).map(|idx| (idx * 37 + 11) % vocab_size).collect();
        let prompt = expected.clone();
        let mut start = prompt_length.saturating_sub(context_length);
        for _ in 0..12 {
            if expected.len() - start > context_length {
                start = expected.len() - (context_length / 2).max(1);
            }
            expected.push(next(&expected[start..]));
        }
        let generator = Generator { model: model.clone(), context_length };
        let found =
            generator.generate(&[prompt], &greedy(12, &[]), &mut |_, _| Verdict::GoOn).unwrap();
        let expected = Continuation { ids: expected.split_off(prompt_length), has_slid: start > 0 };
        assert_eq!(found, [expected], "context {context_length}, prompt {prompt_length}");
    }
}

#[test]
fn prompts_that_advance_together_do_not_change_one_another() {
    let golden = Golden::read("generate.safetensors");
    let ids = golden.ids("input_ids");
    let generator = Generator { model: golden.model(), context_length: 16 };
    let prompts =
        [ids[..1].to_vec(), ids.clone(), [ids.as_slice(), &ids, &ids].concat(), ids[1..].to_vec()];
    let alone = |prompt: &Vec<u32>, rules: &GenerationRules<'_>| {
        generator
            .generate(slice::from_ref(prompt), rules, &mut |_, _| Verdict::GoOn)
            .unwrap()
            .remove(0)
    };
    let expected: Vec<_> = prompts.iter().map(|prompt| alone(prompt, &greedy(40, &[]))).collect();
    // One of them ends early, at a token that it generates.
    let ends = [expected[1].ids[5]];
    let expected: Vec<_> = prompts.iter().map(|prompt| alone(prompt, &greedy(40, &ends))).collect();
    assert!(expected[1].ids.len() <= 5, "{expected:?}");
    let mut heard = vec![Vec::new(); prompts.len()];
    let mut hear = |idx: usize, id| {
        heard[idx].push(id);
        Verdict::GoOn
    };
    let found = generator.generate(&prompts, &greedy(40, &ends), &mut hear).unwrap();
    assert_eq!(found, expected);
    assert_eq!(heard, found.into_iter().map(|continuation| continuation.ids).collect::<Vec<_>>());
    // More prompts than advance together: the first ones are completed before the last ones begin,
    // and all match single runs.
    let many: Vec<_> = prompts.iter().cycle().take(150).cloned().collect();
    let (mut ended, mut begun) = (vec![None; many.len()], Vec::new());
    let mut hear = |idx: usize, heard| {
        match heard {
            Heard::Token(_) if ended[idx].is_none() => {
                begun.push((idx, ended.iter().flatten().count()));
            }
            Heard::Token(id) => panic!("{id} after the end"),
            Heard::End(continuation) => ended[idx] = Some(continuation),
        }
        Verdict::GoOn
    };
    generator.generate_each(&many, &greedy(40, &ends), &mut hear).unwrap();
    assert!(
        ended
            .iter()
            .zip(expected.iter().cycle())
            .all(|(found, expected)| found.as_ref() == Some(expected))
    );
    assert!(begun.iter().find(|(idx, _)| *idx == 149).is_some_and(|(_, finished)| *finished > 0));
}

#[test]
fn the_caller_can_end_one_prompt_or_all() {
    let golden = Golden::read("generate.safetensors");
    let generator = Generator { model: golden.model(), context_length: 64 };
    let prompts = [golden.ids("input_ids"), golden.ids("input_ids")];
    let lengths = |verdict: &dyn Fn(usize, usize) -> Verdict| -> Vec<usize> {
        let mut counts = [0, 0];
        let mut hear = |idx: usize, _| {
            counts[idx] += 1;
            verdict(idx, counts[idx])
        };
        generator
            .generate(&prompts, &greedy(9, &[]), &mut hear)
            .unwrap()
            .iter()
            .map(|continuation| continuation.ids.len())
            .collect()
    };
    assert_eq!(lengths(&|_, _| Verdict::GoOn), [9, 9]);
    assert_eq!(
        lengths(&|idx, count| if (idx, count) == (0, 2) {
            Verdict::EndPrompt
        } else {
            Verdict::GoOn
        }),
        [2, 9]
    );
    assert_eq!(
        lengths(&|idx, count| if (idx, count) == (0, 3) { Verdict::EndAll } else { Verdict::GoOn }),
        [3, 2]
    );
}

fn greedy(max_new_tokens: usize, ends: &[u32]) -> GenerationRules<'_> {
    GenerationRules { max_new_tokens, ends, sampling: Sampling::GREEDY }
}

fn add_all(sum: &mut Gradients, other: Gradients) {
    for (name, gradient) in other.sums {
        let gradient = match sum.sums.remove(&name) {
            Some(known) => known + gradient,
            None => gradient,
        };
        sum.sums.insert(name, gradient);
    }
}

#[test]
fn a_deep_network_is_computed_on_a_thread_of_the_pool() {
    let shape = ModelShape {
        vocab_size: 32,
        hidden_size: 8,
        intermediate_size: 8,
        num_hidden_layers: 200,
        num_attention_heads: 1,
        num_key_value_heads: 1,
        max_position_embeddings: 8,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        initializer_range: 0.02,
        tie_word_embeddings: false,
    };
    let compute = Compute::cpu();
    let Ok(model) = LlamaForCausalLM::new(&shape, &mut random_weights(1, &shape), &compute);
    let batches = [1, 5]
        .map(|first: u32| Batch::new(&(first..first + 8).collect::<Vec<_>>(), 1, PatchSize::ONE));
    let input = StepInput {
        shared: model.model.shared_input(batches[0].positions()),
        scale: 1.0 / 14.0,
        recompute: false,
    };
    let job = {
        let (model, batches) = (model.clone(), batches.clone());
        move || {
            let mut sum = Gradients::new(&Compute::cpu());
            let losses = batches
                .map(|batch| micro_step(&model, &batch, &input, &|| false, &mut sum).unwrap());
            (losses.into_iter().reduce(|a, b| a + b).unwrap(), sum)
        }
    };
    let here = job.clone()();
    let (loss, sum) = Workers::start(compute, StopFlag::default()).unwrap().run(job).unwrap();
    assert_eq!(bits(values(loss.clone())), bits(values(here.0)));
    let [(first_loss, mut expected), (second_loss, second)] =
        batches.map(|batch| step(&model, &batch, 1.0 / 14.0, false));
    add_all(&mut expected, second);
    assert_close("loss", &values(loss * (1.0 / 14.0)), &values(first_loss + second_loss), 1e-6);
    assert_eq!(sum.sums.len(), 200 * 9 + 3);
    for (name, gradient) in sum.sums {
        assert_eq!(
            bits(values(gradient.clone())),
            bits(values(here.1.sums[&name].clone())),
            "{name}"
        );
        // Added inside the product, where the sum of two products is rounded once less.
        assert_close(&name, &values(gradient), &values(expected.sums[&name].clone()), 1e-6);
    }
}
