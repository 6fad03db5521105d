//! The check names a wrong operation, and caches only passed checks. Both devices are the CPU here,
//! one of them altered.

use std::fs;
use std::path::Path;

use burn::tensor::ExecutionError;

use super::*;
use crate::advice::{Advice, Audience};
use crate::config::{DeviceChoice, PatchSize, Precision};
use crate::engine::compute::Compute;
use crate::engine::device::find_device;
use crate::engine::self_check::operations::{ALL, Operation, Output};
use crate::plan::ModelShape;

fn shape(k: u64, precision: Precision) -> Shape {
    let model = ModelShape {
        vocab_size: 96,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 1,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 64,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        initializer_range: 0.02,
        tie_word_embeddings: false,
    };
    Shape { model, patch_size: PatchSize::new(k).unwrap(), positions: 24, sequences: 3, precision }
}

fn host() -> Side {
    Side::new(Place::new(Compute::cpu()))
}

fn compared(reference: &Side, tested: &Side, shapes: &[Shape]) -> Report {
    let operations = compare(reference, tested, shapes, &mut |_, _| true).unwrap().unwrap();
    Report {
        device: "test:0".into(),
        identity: String::new(),
        precision: shapes[0].precision,
        seconds: 0.0,
        is_remembered: false,
        operations,
    }
}

/// The operation named `name`, computed by `lie`.
fn lying(name: &str, lie: operations::Computation) -> Side {
    let operations = ALL
        .iter()
        .map(|operation| {
            if operation.name == name {
                Operation { compute: lie, ..*operation }
            } else {
                *operation
            }
        })
        .collect();
    Side { operations, ..host() }
}

/// The correct result of the operation, with one output altered.
fn changed(
    name: &str,
    shape: &Shape,
    at: &Place,
    change: impl Fn(&mut Vec<Output>),
) -> Result<Vec<Output>, ExecutionError> {
    let operation = ALL.iter().find(|operation| operation.name == name).unwrap();
    let mut outputs = (operation.compute)(shape, at)?;
    change(&mut outputs);
    Ok(outputs)
}

#[test]
fn the_kernels_of_the_cpu_pass_against_burn_in_double_precision() {
    for k in [1, 3] {
        let report = compared(&Side::new(Place::double()), &host(), &[shape(k, Precision::F32)]);
        assert_eq!(report.failure(), None, "{report:#?}");
        assert_eq!(report.operations.len(), ALL.len());
        assert!(report.operations.iter().all(|checked| checked.difference < 1e-4), "{report:#?}");
        // Something was compared: rounding is visible, except where rows of single tokens are only
        // looked up.
        assert!(
            report
                .operations
                .iter()
                .all(|checked| checked.difference > 0.0
                    || (checked.operation == "embedding" && k == 1)),
            "{report:#?}"
        );
    }
}

#[test]
fn a_device_that_computes_wrong_is_refused_with_the_name_of_the_operation() {
    // As a driver did: every product doubled.
    let doubled: operations::Computation = |shape, at| {
        changed("linear", shape, at, |outputs| {
            outputs[0].values.iter_mut().for_each(|value| *value *= 2.0);
        })
    };
    let swapped: operations::Computation =
        |shape, at| changed("attention", shape, at, |outputs| outputs[2].values.reverse());
    let nan: operations::Computation =
        |shape, at| changed("swiglu", shape, at, |outputs| outputs[1].values[5] = f32::NAN);
    let short: operations::Computation =
        |shape, at| changed("rotary", shape, at, |outputs| outputs[1].values.truncate(7));
    let missing: operations::Computation =
        |shape, at| changed("rms_norm", shape, at, |outputs| outputs.truncate(1));
    let one_value: operations::Computation = |shape, at| {
        changed("gradient norm and AdamW", shape, at, |outputs| outputs[4].values[0] += 0.01)
    };
    let cases = [
        ("linear", doubled, "output, 72 x 32 to 32"),
        ("attention", swapped, "gradient of the keys"),
        ("swiglu", nan, "gradient of the gate"),
        ("rotary", short, "gradient of the heads"),
        ("rms_norm", missing, "number of outputs"),
        ("gradient norm and AdamW", one_value, "second moment of model.embed_tokens.weight"),
    ];
    for (name, lie, output) in cases {
        let failure = compared(&host(), &lying(name, lie), &[shape(1, Precision::F32)])
            .failure()
            .expect(name);
        assert_eq!((failure.operation.as_str(), failure.output.as_str()), (name, output));
        let message = failure.to_string();
        assert!(
            message.starts_with(&format!(
                "test:0 computes wrong results: \"{name}\" ({output}) differs from the CPU by "
            )),
            "{message}"
        );
        let hint = failure.hint(Audience::Command);
        assert!(hint.starts_with("use --device cpu, or try "), "{hint}");
    }
}

#[test]
fn every_stage_is_checked_where_its_patches_matter() {
    let report = compared(&host(), &host(), &[shape(4, Precision::F32), shape(1, Precision::F32)]);
    let patches: Vec<_> = report
        .operations
        .iter()
        .filter_map(|checked| checked.patch_size.map(|size| (checked.operation.as_str(), size)))
        .collect();
    assert_eq!(
        patches,
        [
            ("embedding", 4),
            ("head and cross-entropy", 4),
            ("embedding", 1),
            ("head and cross-entropy", 1)
        ]
    );
    assert_eq!(report.operations.len(), ALL.len() + 2, "the others are the same in both stages");
}

#[test]
fn a_check_ends_when_the_run_is_to_end() {
    let mut seen = Vec::new();
    let ended = compare(&host(), &host(), &[shape(1, Precision::F32)], &mut |done, all| {
        seen.push((done, all));
        done < 2
    });
    assert!(ended.unwrap().is_none());
    assert_eq!(seen, [(0, 8), (1, 8), (2, 8)]);
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn what_passed_is_remembered_for_this_device_and_these_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path().join("checks"));
    let device = find_device(DeviceChoice::Cpu).unwrap();
    let shapes = [shape(2, Precision::F32)];
    let mut made = 0;
    let mut run = |shapes: &[Shape]| {
        check(&device, shapes, &cache, &mut |done, _| {
            made += usize::from(done == 0);
            true
        })
        .unwrap()
        .unwrap()
    };
    let first = run(&shapes);
    assert!(!first.is_remembered);
    let second = run(&shapes);
    assert!(second.is_remembered && second.operations == first.operations);
    assert!(!run(&[shape(3, Precision::F32)]).is_remembered, "other shapes are another check");
    assert_eq!(made, 2);
    assert_eq!(files(&folder.path().join("checks")), 2);
    // A damaged file, or one with a failed check, is not trusted.
    let key = cache.key(&device.description, "", &shapes);
    let path = folder.path().join("checks").join(format!("{key}.json"));
    let text = fs::read_to_string(&path).unwrap();
    for damaged in ["{", &text.replace("\"tolerance\": 0.004", "\"tolerance\": 1e-300")] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(cache.passed(&key), None);
    }
    assert_ne!(key, cache.key(&device.description, "another driver", &shapes));
    assert_ne!(key, cache.key("cuda:0", "", &shapes));
}

#[test]
fn a_folder_that_cannot_be_written_costs_only_another_check() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let cache = Cache::at(folder.path().join("file/checks"));
    let device = find_device(DeviceChoice::Cpu).unwrap();
    for _ in 0..2 {
        let report =
            check(&device, &[shape(1, Precision::F32)], &cache, &mut |_, _| true).unwrap().unwrap();
        assert!(!report.is_remembered && report.failure().is_none());
    }
}

#[test]
fn bf16_stays_within_its_tolerances_and_is_not_f32() {
    for k in [1, 4] {
        let tested =
            Side::new(Place::new(Compute { precision: Precision::Bf16, ..Compute::cpu() }));
        let report = compared(&host(), &tested, &[shape(k, Precision::Bf16)]);
        assert_eq!(report.failure(), None, "{:#?}", report.rows());
        let difference = |name: &str| {
            report.operations.iter().find(|checked| checked.operation == name).unwrap().difference
        };
        for name in ["rms_norm", "linear", "rotary", "attention", "swiglu"] {
            assert!(
                difference(name) > 1e-4,
                "{name} was not computed in bf16: {:#?}",
                report.rows()
            );
        }
        for name in ["embedding", "head and cross-entropy", "gradient norm and AdamW"] {
            assert!(
                difference(name) < 1e-5,
                "{name} is f32 in every precision: {:#?}",
                report.rows()
            );
        }
    }
}
