//! The guard against non-finite numbers, on a device that the host does not wait for (here the CPU,
//! which pretends to be one), and prompts from the validation text.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

use burn::tensor::{Int, Tensor, TensorData};

use crate::config::{LoadRequest, RunConfig, load};
use crate::data::{PrepareRequest, TextRules, prepare};
use crate::disk::Disk;
use crate::engine::EngineError;
use crate::engine::checkpoint::{load_model, load_optimizer};
use crate::engine::compute::Compute;
use crate::engine::device::ComputeDevice;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::optimizer::AdamW;
use crate::engine::self_check::Cache;
use crate::engine::tensor_file::TensorFile;
use crate::engine::train::job::{Job, begin_on};
use crate::engine::train::prompts::prompts;
use crate::engine::train::trainer::Trainer;
use crate::record::{
    Checkpoints, EventSender, MODEL_FILE, OPTIMIZER_FILE, Outcome, RunDirectory, RunEvent,
};
use crate::steer::command_channel;

/// One stage of eight steps of 256 tokens, in file order, token by token.
const SETS: [&str; 19] = [
    "model.hidden_size=16",
    "model.intermediate_size=32",
    "model.num_hidden_layers=2",
    "model.num_attention_heads=2",
    "model.vocab_size=256",
    "data.tokenizer=bytes",
    "data.add_bos=false",
    "data.shuffle=false",
    "data.validation_share=0.2",
    "training.tokens_per_step=256",
    "training.tokens=2048",
    "training.context_length=16",
    "training.micro_batch_size=4",
    "evaluation.every_steps=8",
    "activations.every_steps=8",
    "samples.every_steps=8",
    "checkpoint.every_steps=1",
    "checkpoint.keep=20",
    "stages=[{patch_size=1}]",
];
/// Occurs once in the text, in the data of the second step.
const POISON: u8 = b'Z';
const POISONED_STEP: usize = 2;

fn text() -> Vec<u8> {
    let mut text: Vec<u8> = b"the quick brown fox jumps over the lazy dog. "
        .iter()
        .copied()
        .cycle()
        .take(4096)
        .collect();
    text[(POISONED_STEP - 1) * 256 + 100] = POISON;
    text
}

/// A run on `text`.
fn config(folder: &Path, text: &[u8], report_every: u64) -> RunConfig {
    let text_file = folder.join("text.txt");
    fs::write(&text_file, text).unwrap();
    let mut sets: Vec<String> = SETS.iter().map(ToString::to_string).collect();
    sets.push(format!("data.files=[{:?}]", text_file.to_str().unwrap()));
    sets.push(format!("report.every_steps={report_every}"));
    load(&LoadRequest { source: "demo", sets: &sets, current_dir: folder }).unwrap().config
}

/// A trainer at step 0, and its events.
fn trainer(
    folder: &Path,
    text: &[u8],
    is_cpu: bool,
    report_every: u64,
) -> (Trainer, Receiver<RunEvent>) {
    let config = config(folder, text, report_every);
    let directory = folder.join(if is_cpu { "cpu" } else { "gpu" });
    fs::create_dir_all(&directory).unwrap();
    let device = ComputeDevice { is_cpu, ..ComputeDevice::cpu() };
    let (_, inbox) = command_channel();
    let (sender, events) = mpsc::channel();
    let job = Job {
        config,
        directory,
        cache: folder.join("tokens"),
        checks: Cache::none(),
        device_reason: None,
        disk: Disk::default(),
    };
    (
        begin_on(device, Instant::now(), job, inbox, &EventSender::new(sender)).unwrap().unwrap(),
        events,
    )
}

/// Makes every position that reads [`POISON`] compute NaN; no other position is affected.
fn poison(trainer: &mut Trainer) {
    trainer.learner().change_model(|mut model| {
        let table = &mut model.model.embed_tokens.weight.values;
        // A weight that is saved and loaded, and whose squares sum to infinity.
        let huge = Tensor::<2>::full([1, table.dims()[1]], 1.8e19, &table.device());
        let row = Tensor::<1, Int>::from_data(
            TensorData::new(vec![i32::from(POISON)], [1]),
            &table.device(),
        );
        *table = table.clone().select_assign(0, row, huge, burn::tensor::IndexingUpdateOp::Add);
        model
    });
}

/// Bits of all weights, by name.
fn weights(model: &LlamaForCausalLM) -> BTreeMap<String, Vec<u32>> {
    model.weights().map(|weight| (weight.name.clone(), bits(weight.values.clone()))).collect()
}

/// Bits of both moments of all weights, by name.
fn moments(optimizer: &AdamW) -> BTreeMap<String, [Vec<u32>; 2]> {
    optimizer
        .moments
        .iter()
        .map(|(name, moments)| {
            (name.clone(), [bits(moments.exp_avg.clone()), bits(moments.exp_avg_sq.clone())])
        })
        .collect()
}

fn bits(tensor: Tensor<2>) -> Vec<u32> {
    tensor.into_data().iter::<f32>().map(f32::to_bits).collect()
}

#[test]
fn the_guard_of_a_gpu_changes_no_bit_as_long_as_all_is_finite() {
    let folder = tempfile::tempdir().unwrap();
    let (mut cpu, cpu_events) = trainer(folder.path(), &text(), true, 3);
    let (mut gpu, gpu_events) = trainer(folder.path(), &text(), false, 3);
    assert_eq!(cpu.train().unwrap(), Outcome::Completed);
    assert_eq!(gpu.train().unwrap(), Outcome::Completed);
    assert!(!cpu.learner().keeps_flag() && gpu.learner().keeps_flag(), "only the GPU keeps a flag");
    assert_eq!(weights(cpu.learner().model()), weights(gpu.learner().model()));
    assert_eq!(moments(cpu.learner().optimizer()), moments(gpu.learner().optimizer()));
    drop((cpu, gpu));
    let losses = |events: Receiver<RunEvent>| -> Vec<(u64, u64, u64)> {
        let steps = events.into_iter().filter_map(|event| match event {
            RunEvent::StepCompleted(step) => {
                Some((step.step, step.loss.to_bits(), step.grad_norm.to_bits()))
            }
            _ => None,
        });
        steps.collect()
    };
    let expected = losses(cpu_events);
    assert_eq!(expected.iter().map(|(step, ..)| *step).collect::<Vec<_>>(), [3, 6, 8]);
    assert_eq!(losses(gpu_events), expected);
}

#[test]
fn after_a_poisoned_micro_batch_a_gpu_changes_nothing_and_the_next_report_fails() {
    let folder = tempfile::tempdir().unwrap();
    let (mut trainer, events) = trainer(folder.path(), &text(), false, 4);
    poison(&mut trainer);
    let error = trainer.train().unwrap_err();
    assert!(matches!(error, EngineError::Poisoned { step: 4 }), "{error}");
    // The checkpoint after the last good step still equals the weights.
    let checkpoints = Checkpoints::new(&RunDirectory::new(folder.path().join("gpu")), 20);
    let good = checkpoints.newest(&|_| Ok(()), &|| false).unwrap().0.unwrap();
    assert_eq!(good.manifest.step, POISONED_STEP as u64 - 1);
    let file = |name| TensorFile::open(&good.path.join(name)).unwrap();
    let shape = &trainer.facts().plan.model;
    let model = load_model(file(MODEL_FILE), shape, &Compute::cpu()).unwrap();
    assert_eq!(weights(trainer.learner().model()), weights(&model));
    let (count, config) = (good.state.optimizer_count, trainer.facts().config.optimizer.clone());
    let saved = load_optimizer(file(OPTIMIZER_FILE), count, config, &model).unwrap();
    assert_eq!(moments(trainer.learner().optimizer()), moments(&saved));
    assert!(!saved.moments.is_empty());
    drop(trainer);
    let events: Vec<RunEvent> = events.into_iter().collect();
    let failed: Vec<u64> = events
        .iter()
        .filter_map(|event| {
            if let RunEvent::CheckpointFailed(failure) = event { Some(failure.step) } else { None }
        })
        .collect();
    assert_eq!(failed, [2, 3], "nothing is saved that a poisoned step has reached");
    assert!(!events.iter().any(|event| matches!(event, RunEvent::StepCompleted(_))));
}

#[test]
fn a_cpu_fails_at_the_poisoned_step_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (mut trainer, _events) = trainer(folder.path(), &text(), true, 4);
    poison(&mut trainer);
    let error = trainer.train().unwrap_err();
    assert!(matches!(error, EngineError::NonFinite { what: "loss", step: 2, .. }), "{error}");
    assert_eq!(trainer.end_of_run(Outcome::Failed, None).step, 1);
}

#[test]
fn an_audit_finds_a_single_wrong_weight_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let (mut trainer, _events) = trainer(folder.path(), &text(), true, 1);
    assert_eq!(trainer.audit_of_first_step(&mut |_| {}), None);
    let mismatch = trainer.audit_of_first_step(&mut |learner| {
        learner.change_model(|mut model| {
            let [rows, columns] = model.model.embed_tokens.weight.values.dims();
            let mut factors = vec![1.0_f32; rows * columns];
            factors[usize::from(b'q') * columns] = 1.0 + f32::EPSILON;
            let factors = Tensor::from_data(
                TensorData::new(factors, [rows, columns]),
                &model.model.embed_tokens.weight.values.device(),
            );
            model.model.embed_tokens.weight.values =
                model.model.embed_tokens.weight.values * factors;
            model
        });
    });
    let text = mismatch.expect("the second computation used another weight");
    assert!(
        text.contains("computed twice, its ") && text.contains("of the largest value"),
        "{text}"
    );
}

#[test]
fn a_prompt_out_of_the_text_is_whole_characters_with_the_ids_of_the_text() {
    // Wherever the validation text and the prompt are cut, one of these begins and one ends inside
    // a character.
    for shift in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let text = "x".repeat(shift) + &"漢😀é".repeat(500);
        let config = config(folder.path(), text.as_bytes(), 1);
        let request = PrepareRequest {
            data: &config.data,
            seed: config.seed,
            generated_tokens: 0,
            block_tokens: 16,
            cache: &folder.path().join("tokens"),
            trained_on: None,
            rules: TextRules::Current,
        };
        let prepared = prepare(&request, &mut |_, _, _| ControlFlow::Continue(())).unwrap();
        let prompts = prompts(&config, &prepared.validation, &prepared.tokenizer).unwrap();
        let [prompt] = prompts.as_slice() else { panic!("{prompts:?}") };
        assert!(
            prompt.text.chars().count() >= 2 && text.contains(&prompt.text),
            "shifted by {shift}: {:?}",
            prompt.text
        );
        assert_eq!(
            prompt.ids,
            prepared.tokenizer.encode(&prompt.text).unwrap(),
            "shifted by {shift}"
        );
    }
}
