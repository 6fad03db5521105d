//! Which paths open as a model, and the errors for those that do not.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use patchtui::advice::{Advice, Audience};
use patchtui::config::to_toml;
use patchtui::engine::compute::Compute;
use patchtui::engine::generate::{GenerationRules, Generator, Sampling, Verdict};
use patchtui::engine::{LoadedModel, OpenError};
use patchtui::record::{MODEL_FILE, RunDirectory, RunEvent};

use crate::formats::{FORMATS, Fixture};
use crate::resume::{tiny_config, train};

fn open(path: &Path) -> Result<LoadedModel, OpenError> {
    LoadedModel::open(path, &Compute::cpu())
}

fn step_of(path: &Path) -> u64 {
    open(path).unwrap().files.origin.checkpoint().unwrap().state.step
}

fn checkpoint(run: &RunDirectory, step: u64) -> PathBuf {
    run.checkpoints().join(format!("step-{step:08}"))
}

#[test]
fn a_run_of_every_format_opens_as_its_newest_checkpoint_and_a_checkpoint_as_itself() {
    for format in FORMATS {
        let fixture = Fixture::copy(format);
        let run = fixture.run();
        let loaded = open(run.path()).unwrap();
        let found = loaded.files.origin.checkpoint().unwrap();
        assert_eq!((found.state.step, &found.path), (7, &checkpoint(&run, 7)), "{format}");
        assert_eq!(
            (loaded.files.origin.name().as_str(), loaded.files.patch_size.get()),
            ("books/step-00000007", 1),
            "{format}"
        );
        assert_eq!(
            (
                loaded.files.shape.vocab_size,
                loaded.files.shape.hidden_size,
                loaded.files.shape.num_hidden_layers
            ),
            (256, 8, 1),
            "{format}"
        );
        assert_eq!(
            (loaded.files.tokenizer.choice(), loaded.files.context_length, loaded.files.add_bos),
            ("bytes", 16, true),
            "{format}"
        );
        assert_eq!(loaded.files.origin.run(), Some(&run), "{format}");
        assert_eq!(step_of(&checkpoint(&run, 6)), 6, "{format}");
        // Newest by write order, as long as it is valid.
        let model = checkpoint(&run, 7).join(MODEL_FILE);
        let mut bytes = fs::read(&model).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&model, bytes).unwrap();
        let older = open(run.path()).unwrap();
        assert_eq!(
            (
                older.files.origin.checkpoint().unwrap().state.step,
                older.files.origin.rejected().len()
            ),
            (6, 1),
            "{format}"
        );
        assert!(
            older.files.origin.rejected()[0]
                .reason
                .contains("model.safetensors: its content does not match its hash"),
            "{:?}",
            older.files.origin.rejected()
        );
    }
}

#[test]
fn the_folder_of_checkpoints_may_be_a_link() {
    let fixture = Fixture::copy("format-2");
    let (run, elsewhere) = (fixture.run(), tempfile::tempdir().unwrap());
    let moved = elsewhere.path().join("weights");
    fs::rename(run.checkpoints(), &moved).unwrap();
    symlink(&moved, run.checkpoints()).unwrap();
    assert_eq!((step_of(run.path()), step_of(&checkpoint(&run, 6))), (7, 6));
}

#[test]
fn a_model_that_was_opened_continues_prompts_as_the_run_did() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDirectory::new(folder.path().join("run"));
    let config = tiny_config(&["samples.every_steps=9"]);
    let (end, events) = train(config.clone(), run.path(), |_| None);
    fs::write(run.config(), to_toml(&config)).unwrap();
    let loaded = open(run.path()).unwrap();
    assert_eq!(loaded.files.origin.checkpoint().unwrap().state.step, end.step);
    let tokenizer = loaded.files.tokenizer;
    let bos = tokenizer.bos().filter(|_| loaded.files.add_bos);
    let ends: Vec<u32> = tokenizer.eos().into_iter().chain(tokenizer.bos()).collect();
    let generator = Generator { model: loaded.model, context_length: loaded.files.context_length };
    let mut samples = 0;
    for event in &events {
        let RunEvent::Sampled(sample) = event else { continue };
        if sample.step < end.step {
            continue;
        }
        let prompt: Vec<u32> =
            bos.into_iter().chain(tokenizer.encode(&sample.prompt).unwrap()).collect();
        let rules = GenerationRules {
            max_new_tokens: config.samples.max_new_tokens,
            ends: &ends,
            sampling: Sampling::GREEDY,
        };
        let new = generator
            .generate(std::slice::from_ref(&prompt), &rules, &mut |_, _| Verdict::GoOn)
            .unwrap()
            .remove(0);
        assert_eq!(
            tokenizer.decode(&[prompt, new.ids].concat()),
            format!("{}{}", sample.prompt, sample.text)
        );
        samples += 1;
    }
    assert_eq!(samples, 2);
}

/// Changes a run of `format`, and opens what `change` returns. `FIXTURE` is a placeholder for the
/// folder of the run.
fn fails(
    format: &'static str,
    change: impl FnOnce(&RunDirectory) -> PathBuf,
    message: &str,
    hint: &str,
) {
    let fixture = Fixture::copy(format);
    let run = fixture.run();
    let path = change(&run);
    let error = open(&path).unwrap_err();
    let folder = run.path().parent().unwrap().to_str().unwrap();
    let relative = |text: String| text.replace(folder, "FIXTURE");
    assert_eq!(
        (relative(error.to_string()), relative(error.hint(Audience::Command))),
        (message.to_owned(), hint.to_owned())
    );
}

#[test]
fn a_path_to_nothing_valid_says_what_is_missing() {
    let list =
        "name a run, a checkpoint or a Hugging Face directory; list all runs with: patchtui runs";
    let copy = "restore it from a copy, or name its run to use the newest valid checkpoint";
    fails(
        "format-2",
        |run| run.path().join("../papers"),
        "FIXTURE/books/../papers does not exist",
        list,
    );
    fails(
        "format-2",
        |run| run.path().parent().unwrap().into(),
        "FIXTURE is not a run, a checkpoint or a Hugging Face directory",
        list,
    );
    fails(
        "format-2",
        RunDirectory::checkpoints,
        "FIXTURE/books/checkpoints is not a run, a checkpoint or a Hugging Face directory",
        list,
    );
    fails(
        "format-2",
        |run| {
            fs::remove_dir_all(run.checkpoints()).unwrap();
            run.path().into()
        },
        "FIXTURE/books has no checkpoint yet",
        "resume it until it has saved one: patchtui resume FIXTURE/books",
    );
    fails(
        "format-2",
        |run| {
            for step in [6, 7] {
                fs::remove_file(checkpoint(run, step).join("trainer.json")).unwrap();
            }
            run.path().into()
        },
        "none of the run's checkpoints can be used (2 rejected); \
         FIXTURE/books/checkpoints/step-00000007 is not used: \
         FIXTURE/books/checkpoints/step-00000007/trainer.json: No such file or directory (os \
         error 2)",
        "restore a checkpoint from a copy",
    );
    fails(
        "format-1",
        |run| {
            fs::write(checkpoint(run, 7).join(MODEL_FILE), "short").unwrap();
            checkpoint(run, 7)
        },
        "checkpoint: FIXTURE/books/checkpoints/step-00000007/model.safetensors: it has 5 bytes \
         instead of 11680",
        copy,
    );
    fails(
        "format-2",
        |run| {
            fs::rename(checkpoint(run, 7), checkpoint(run, 8)).unwrap();
            checkpoint(run, 8)
        },
        "checkpoint: FIXTURE/books/checkpoints/step-00000008/manifest.json: it is for step 7, \
         which does not match the name of its directory",
        copy,
    );
}

#[test]
fn a_checkpoint_without_its_run_or_with_another_ones_files_is_refused() {
    fails(
        "format-2",
        |run| {
            let alone = run.path().join("../step-00000007");
            fs::rename(checkpoint(run, 7), &alone).unwrap();
            alone
        },
        "FIXTURE/books/../step-00000007 is outside its run directory, which has its configuration \
         and tokenizer",
        "move it back into checkpoints/ of its run, or copy the whole run instead",
    );
    for format in FORMATS {
        fails(
            format,
            |run| {
                fs::copy("assets/demo-tokenizer.json", run.tokenizer()).unwrap();
                run.path().into()
            },
            "the tokenizer FIXTURE/books/tokenizer.json is not the one that \
             FIXTURE/books/checkpoints/step-00000007 was trained with",
            "restore the run's tokenizer.json from a copy",
        );
    }
    fails(
        "format-2",
        |run| {
            fs::write(run.tokenizer(), "{").unwrap();
            run.path().into()
        },
        "tokenizer \"FIXTURE/books/tokenizer.json\" cannot be used: it is not a JSON object: EOF \
         while parsing an object at line 1 column 1",
        "restore the run's tokenizer.json from a copy",
    );
    fails(
        "format-2",
        |run| {
            fs::write(run.config(), "seed = \"one\"").unwrap();
            run.path().into()
        },
        "FIXTURE/books/config.toml:1: seed = \"one\", expected an integer from 0 to \
         9223372036854775807",
        "restore the run's config.toml from a copy",
    );
    fails(
        "format-2",
        |run| {
            fs::remove_file(run.config()).unwrap();
            run.path().into()
        },
        "FIXTURE/books/config.toml is missing: it is the configuration that the model was trained \
         with",
        "restore the run's config.toml from a copy",
    );
}

/// In the first format, only the run's plan has the sizes of the network.
#[test]
fn a_checkpoint_of_the_first_format_needs_the_plan_of_its_run() {
    let remove = |run: &RunDirectory| {
        fs::remove_file(run.plan()).unwrap();
        run.path().to_owned()
    };
    let restore = "restore the run's plan.json from a copy";
    fails(
        "format-1",
        remove,
        "FIXTURE/books/plan.json does not contain the sizes of the network: No such file or \
         directory (os error 2)",
        restore,
    );
    let newer = Fixture::copy("format-2");
    assert_eq!(step_of(&remove(&newer.run())), 7);
    let replace = |from: &'static str, to: &'static str| {
        move |run: &RunDirectory| {
            let plan = fs::read_to_string(run.plan()).unwrap();
            assert!(plan.contains(from));
            fs::write(run.plan(), plan.replacen(from, to, 1)).unwrap();
            run.path().to_owned()
        }
    };
    let unknown = replace("\"vocab_size\": 256", "\"vocab_size\": 0");
    fails(
        "format-1",
        unknown,
        "FIXTURE/books/plan.json does not contain the sizes of the network: it has no \"model\"",
        restore,
    );
    fails(
        "format-1",
        replace("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 0"),
        "checkpoint: FIXTURE/books/checkpoints/step-00000007/model.safetensors: it has 2648 \
         weights instead of 2056",
        "restore the checkpoint from a copy",
    );
}
