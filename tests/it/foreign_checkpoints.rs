//! Checkpoints that are valid but do not belong to the run: refused by name, never trained from.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use patchtui::config::RecordedConfig;
use patchtui::engine::named_tensor::{NamedTensor, matrix_dims};
use patchtui::engine::tensor_file::{TensorFile, write_tensors};
use patchtui::record::{
    Checkpoint, Checkpoints, DataOrder, LineHashes, MODEL_FILE, ModelOutline, NewCheckpoint,
    OPTIMIZER_FILE, Outcome, RunCommand, RunDirectory, RunEnd, RunEvent, TrainerState,
};

use crate::models::poison;
use crate::resume::{tiny_config, train};

/// Trains to the stop after step 4, applies `change` to the run, and returns how resuming ended.
fn going_on_after(change: impl FnOnce(&Path)) -> (RunEnd, Vec<RunEvent>) {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let config = || tiny_config(&["checkpoint.keep=20"]);
    let (end, _) = train(config(), &run, |event| {
        matches!(event, RunEvent::StepCompleted(step) if step.step == 4).then_some(RunCommand::Stop)
    });
    assert!(end.error.is_none() && end.step >= 4, "{:?}", end.error);
    // The command may come some steps later; what they have saved is taken away.
    for step in 5..=end.step {
        let _ = fs::remove_dir_all(run.join(format!("checkpoints/step-{step:08}")));
    }
    change(&run.join("checkpoints"));
    train(config(), &run, |_| None)
}

fn warnings(events: &[RunEvent]) -> String {
    let texts = events.iter().filter_map(|event| {
        if let RunEvent::Warning(warning) = event { Some(warning.message.as_str()) } else { None }
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn resumed_from(events: &[RunEvent]) -> Option<u64> {
    events.iter().find_map(|event| {
        if let RunEvent::RunStarted(header) = event { header.resumed_from } else { None }
    })
}

/// Rewrites the checkpoint in `path`, with a matching hash, after `change`.
fn rewrite(path: &Path, change: impl FnOnce(&mut TrainerState, &mut Vec<f64>, &Path)) {
    let run = RunDirectory::new(path.parent().unwrap().parent().unwrap());
    let checkpoints = Checkpoints::new(&run, 9);
    let Checkpoint { mut state, mut manifest, .. } = checkpoints.verify(path, &|| false).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    for file in [MODEL_FILE, OPTIMIZER_FILE] {
        fs::copy(path.join(file), scratch.path().join(file)).unwrap();
    }
    change(&mut state, &mut manifest.active_seconds, scratch.path());
    fs::remove_dir_all(path).unwrap();
    let new = NewCheckpoint {
        state,
        active_seconds: manifest.active_seconds,
        token_loss: None,
        permanent: manifest.permanent,
        tensor_bytes: 0,
        write_tensors: &mut |file| {
            let changed = scratch.path().join(file.path().file_name().unwrap());
            Ok(file.write_all(&fs::read(changed)?)?)
        },
        config: RecordedConfig::new(),
        sync_lines: &|| Ok(LineHashes::new()),
        stop: &|| false,
    };
    checkpoints.save(new).unwrap();
}

#[test]
fn a_checkpoint_of_another_seed_or_step_under_this_name_is_refused_by_name() {
    for (what, change) in [
        ("seed is 9, but this run's is 1", (|state| state.seed = 9) as fn(&mut TrainerState)),
        ("data_position is 0", |state| state.data_position = 0),
        ("cursor is [7,7,7]", |state| state.cursor = [7, 7, 7]),
        ("optimizer_count is 3", |state| state.optimizer_count = 3),
        ("tokenizer is other", |state| state.tokenizer = Some("other".into())),
        ("data_order.shuffle is false, but this run's is true", |state| {
            state.data_order =
                state.data_order.clone().map(|order| DataOrder { shuffle: false, ..order });
        }),
        ("model.rope_theta is 500000.0, but this run's is 10000.0", |state| {
            state.model = state.model.map(|model| ModelOutline { rope_theta: 5e5, ..model });
        }),
    ] {
        let (end, events) = going_on_after(|checkpoints| {
            rewrite(&checkpoints.join("step-00000004"), |state, _, _| change(state));
        });
        assert_eq!(end.outcome, Outcome::Completed, "{what}: {:?}", end.error);
        assert!(
            warnings(&events).contains(&format!("it belongs to another run: its {what}")),
            "{what}: {}",
            warnings(&events)
        );
        assert_eq!(resumed_from(&events), Some(2), "{what}");
    }
    // The same files under the name of another step.
    let (_, events) = going_on_after(|checkpoints| {
        fs::rename(checkpoints.join("step-00000004"), checkpoints.join("step-00000006")).unwrap();
    });
    assert!(
        warnings(&events).contains("which does not match the name of its directory"),
        "{}",
        warnings(&events)
    );
}

#[test]
fn a_run_whose_checkpoints_all_belong_to_another_does_not_begin_again() {
    let (end, _) = going_on_after(|checkpoints| {
        for entry in fs::read_dir(checkpoints).unwrap() {
            rewrite(&entry.unwrap().path(), |state, _, _| state.seed = 9);
        }
    });
    let error = end.error.unwrap();
    assert_eq!((end.outcome, end.step), (Outcome::Failed, 4));
    assert_eq!(
        error.message,
        "the checkpoint at step 4 belongs to another run: its seed is 9, but this run's is 1"
    );
    assert!(error.hint.unwrap().contains("--name"));
}

#[test]
fn a_moment_that_is_missing_or_has_another_shape_is_an_error() {
    let edit = |words: &str, change: fn(&mut BTreeMap<String, Vec<usize>>)| {
        let (end, _) = going_on_after(|checkpoints| {
            rewrite(&checkpoints.join("step-00000004"), |_, _, folder| {
                let path = folder.join(OPTIMIZER_FILE);
                let mut shapes = TensorFile::open(&path).unwrap().shapes();
                change(&mut shapes);
                let device = Device::flex();
                let entry = |(name, dims): (String, Vec<usize>)| NamedTensor {
                    name,
                    values: Tensor::zeros(matrix_dims(&dims), &device),
                    dims,
                };
                write_tensors(&path, shapes.into_iter().map(entry).collect()).unwrap();
            });
        });
        let message = end.error.unwrap().message;
        assert!(end.outcome == Outcome::Failed && message.contains(words), "{words}: {message}");
    };
    edit("it has no tensor lm_head.weight.exp_avg_sq", |shapes| {
        drop(shapes.remove("lm_head.weight.exp_avg_sq"));
    });
    edit("model.norm.weight.exp_avg has shape [31] instead of [32]", |shapes| {
        drop(shapes.insert("model.norm.weight.exp_avg".into(), vec![31]));
    });
    edit("moments instead of", |shapes| drop(shapes.insert("extra.exp_avg".into(), vec![4])));
}

/// All hashes match: only the numbers show it.
#[test]
fn weights_and_moments_of_a_run_that_had_diverged_are_named() {
    for (file, tensor) in
        [(MODEL_FILE, "model.norm.weight"), (OPTIMIZER_FILE, "model.norm.weight.exp_avg")]
    {
        let (end, _) = going_on_after(|checkpoints| {
            rewrite(&checkpoints.join("step-00000004"), |_, _, folder| {
                poison(&folder.join(file), tensor, f32::NAN, false);
            });
        });
        let error = end.error.unwrap();
        assert!(
            end.outcome == Outcome::Failed
                && error.message.ends_with(&format!("{file}: {tensor} holds NaN")),
            "{}",
            error.message
        );
        assert!(
            error.hint.unwrap().starts_with("the run had diverged when it saved this checkpoint")
        );
    }
}

#[test]
fn times_of_too_few_stages_are_refused_and_do_not_panic() {
    let (end, events) = going_on_after(|checkpoints| {
        rewrite(&checkpoints.join("step-00000004"), |_, seconds, _| seconds.truncate(1));
    });
    assert_eq!(end.outcome, Outcome::Completed, "{:?}", end.error);
    assert!(
        warnings(&events).contains("number of stages in active_seconds is 1, but this run's is 2"),
        "{}",
        warnings(&events)
    );
}
