//! `patchtui plan`, and runs that `patchtui run` refuses because of their size: real processes,
//! nothing written.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Bench, signal, until};

/// A network with a trillion weights.
const HUGE: [&str; 4] = ["--set", "model.hidden_size=1048576", "--set", "training.tokens=80k"];

/// Runs the program in `folder`, under a shell limit if given. Returns exit code, output and
/// errors.
fn patchtui(folder: &Path, limit: Option<&str>, arguments: &[&str]) -> (i32, String, String) {
    let program = env!("CARGO_BIN_EXE_patchtui");
    let mut command = match limit {
        Some(limit) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("{limit} && exec \"$0\" \"$@\""), program]);
            shell
        }
        None => Command::new(program),
    };
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command
        .env("XDG_STATE_HOME", folder.join("state"))
        .env("PATCHTUI_SOCKET_DIR", folder.join("sockets"))
        .env_remove("PATCHTUI_RUNS_DIR");
    let Output { status, stdout, stderr } = command.output().unwrap();
    (
        status.code().unwrap_or(-1),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

fn is_empty(folder: &TempDir) -> bool {
    fs::read_dir(folder.path()).unwrap().next().is_none()
}

#[test]
fn a_model_that_does_not_fit_into_memory_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    for limit in [None, Some("ulimit -v 4194304"), Some("ulimit -d 4194304")] {
        let (code, out, errors) = patchtui(
            folder.path(),
            limit,
            &[&["run", "demo", "--no-tui", "--device", "cpu"], &HUGE[..]].concat(),
        );
        assert_eq!((code, out.as_str()), (2, ""), "{limit:?}: {errors}");
        assert!(
            errors.contains("of memory")
                && errors.contains("available")
                && errors.contains("too large for this machine"),
            "{errors}"
        );
    }
    assert!(is_empty(&folder));
}

#[test]
fn a_micro_batch_that_does_not_fit_leads_to_the_largest_that_does() {
    let folder = tempfile::tempdir().unwrap();
    let wide = [
        "--set",
        "training.tokens_per_step=1048576",
        "--set",
        "training.tokens=8M",
        "--set",
        "training.micro_batch_size=16384",
    ];
    let arguments = [&["run", "demo", "--no-tui", "--device", "cpu"], &wide[..]].concat();
    let (code, _, errors) = patchtui(folder.path(), Some("ulimit -v 4194304"), &arguments);
    assert_eq!(code, 2, "{errors}");
    let (_, size) = errors.split_once("training.micro_batch_size = ").expect(&errors);
    let size: u64 = size.trim().parse().expect(&errors);
    assert!((1..16_384).contains(&size), "{errors}");
    assert!(is_empty(&folder));
}

#[test]
fn the_plan_of_a_model_that_does_not_fit_states_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [&["plan", "demo", "--device", "cpu"], &HUGE[..]].concat();
    let (code, text, errors) = patchtui(folder.path(), Some("ulimit -v 4194304"), &arguments);
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(
        text.contains("warning  a run would be refused on this machine: training needs at least")
            && text.contains("TB"),
        "{text}"
    );
    let (code, text, _) = patchtui(folder.path(), None, &[&arguments[..], &["--json"]].concat());
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, document["format_version"].as_u64()), (0, Some(1)));
    assert!(document["plan"]["memory"]["cpu_least"].as_u64().unwrap() > 1_000_000_000_000);
    assert!(is_empty(&folder));
}

#[test]
fn generated_text_that_fills_the_disk_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, errors) = patchtui(
        folder.path(),
        None,
        &["run", "demo", "--no-tui", "--set", "training.tokens=1000000T"],
    );
    assert_eq!(code, 2, "{errors}");
    assert!(
        errors.contains("EB in") && errors.contains(".tokens") && errors.contains("--runs-dir"),
        "{errors}"
    );
    assert!(is_empty(&folder));
}

#[test]
fn text_that_is_too_short_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("short.txt"), "a few words").unwrap();
    let arguments = ["run", "demo", "--no-tui", "--set", "data.files=short.txt"];
    let (code, _, errors) = patchtui(folder.path(), None, &arguments);
    assert_eq!(code, 2, "{errors}");
    assert!(errors.contains("at most") && errors.contains("512"), "{errors}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn fifty_stages_of_two_shapes_are_timed_twice() {
    let folder = tempfile::tempdir().unwrap();
    let stages =
        "[[stages]]\npatch_size = 4\nshare = 0.018\n".repeat(49) + "[[stages]]\npatch_size = 1\n";
    fs::write(
        folder.path().join("many.toml"),
        format!("extends = \"demo\"\ntraining.tokens = \"3M\"\n{stages}"),
    )
    .unwrap();
    let (code, text, errors) = patchtui(folder.path(), None, &["plan", "many.toml", "--json"]);
    assert_eq!((code, errors.as_str()), (0, ""));
    let document: Value = serde_json::from_str(&text).unwrap();
    let speeds: Vec<f64> = document["tokens_per_second"]
        .as_array()
        .unwrap()
        .iter()
        .map(|speed| speed.as_f64().unwrap())
        .collect();
    // Two measurements of one shape would never agree to the last bit.
    assert!(
        speeds.len() == 50
            && speeds[..49].iter().all(|speed| speed.to_bits() == speeds[0].to_bits()),
        "{speeds:?}"
    );
    let (_, text, _) = patchtui(folder.path(), None, &["plan", "many.toml"]);
    assert!(
        text.contains("stage 50  K = 1") && text.contains("... 41 more (stages 8 to 48)"),
        "{text}"
    );
}

#[test]
fn the_paper_s_runs_are_planned_without_their_files_and_not_started() {
    let folder = tempfile::tempdir().unwrap();
    let (code, text, errors) =
        patchtui(folder.path(), None, &["plan", "paper-370m", "--set", "training.max_walltime=1h"]);
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(text.contains("369M parameters") && text.contains("vocabulary 32000"), "{text}");
    assert!(
        text.contains(
            "tokenizer.json does not exist; this plan assumes a vocabulary of 32000 tokens \
             (model.vocab_size)"
        ),
        "{text}"
    );
    assert!(
        text.contains("*.jsonl") && text.contains("; a run cannot start without this text"),
        "{text}"
    );
    // A machine that is short of memory measures nothing, and says so.
    if !text.contains("a run would be refused on this machine")
        && !text.contains("training will need about")
    {
        assert!(
            text.contains("measured on random tokens") && text.contains(" of 24 layers"),
            "{text}"
        );
        assert!(
            text.contains(
                "training.max_walltime is shorter than the run: it would stop in stage 1 of 2 (K \
                 = 4)"
            ),
            "{text}"
        );
    }
    let (code, _, errors) = patchtui(folder.path(), None, &["run", "paper-370m", "--no-tui"]);
    assert_eq!(code, 2);
    assert!(errors.contains("tokenizer.json does not exist"), "{errors}");
    assert!(is_empty(&folder));
}

#[test]
fn a_plan_whose_text_is_missing_or_too_short_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["plan", "demo", "--set", "data.files=absent.txt", "--set", "training.steps=20"];
    let (code, text, errors) = patchtui(folder.path(), None, &arguments);
    assert_eq!(code, 2, "{errors}");
    assert!(
        text.contains("run      20 steps") && text.contains("measured on random tokens"),
        "{text}"
    );
    assert!(errors.contains("absent.txt") && errors.contains("hint: "), "{errors}");
    let (code, text, _) = patchtui(folder.path(), None, &[&arguments[..], &["--json"]].concat());
    let document: Value = serde_json::from_str(&text).unwrap();
    assert!(
        code == 2 && document["plan"]["warnings"][0].as_str().unwrap().contains("absent.txt"),
        "{text}"
    );
    assert!(is_empty(&folder));
    fs::write(folder.path().join("short.txt"), "a few words").unwrap();
    let (code, text, errors) =
        patchtui(folder.path(), None, &["plan", "demo", "--set", "data.files=short.txt"]);
    assert_eq!((code, text.as_str()), (2, ""));
    assert!(errors.contains("at most"), "{errors}");
    let (code, _, errors) = patchtui(
        folder.path(),
        None,
        &["plan", "demo", "--set", "tasks.names=[\"piqa\"]", "--set", "tasks.data=absent"],
    );
    assert!(code == 2 && errors.contains("absent"), "{errors}");
}

#[test]
fn a_plan_gives_the_time_the_epochs_and_the_tokens_per_parameter() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("text.txt"), "The cat sat on the mat. ".repeat(2000)).unwrap();
    let sets = [
        "--set",
        "data.files=text.txt",
        "--set",
        "data.tokenizer=bytes",
        "--set",
        "data.validation_share=0.25",
        "--set",
        "training.epochs=2",
    ];
    let (code, text, errors) = patchtui(
        folder.path(),
        None,
        &[&["plan", "demo", "--device", "cpu", "--json"], &sets[..]].concat(),
    );
    assert_eq!((code, errors.as_str()), (0, ""));
    let document: Value = serde_json::from_str(&text).unwrap();
    let number = |pointer: &str| {
        document
            .pointer(pointer)
            .and_then(Value::as_f64)
            .unwrap_or_else(|| panic!("{pointer} in {text}"))
    };
    // 48,000 bytes and a BOS token, in whole blocks of 256, 17 steps of 4096 tokens for two epochs.
    assert!(
        (number("/plan/train_tokens") - 35_840.0).abs() < 1.0
            && (number("/plan/epochs") - 17.0 * 4096.0 / 35_840.0).abs() < 1e-9,
        "{text}"
    );
    assert!(
        (number("/plan/tokens_per_parameter")
            - number("/plan/cost/tokens") / number("/plan/num_parameters"))
        .abs()
            < 1e-9
    );
    let steps = |stage: usize| {
        number(&format!("/plan/stages/{stage}/cost/tokens"))
            / number(&format!("/tokens_per_second/{stage}"))
    };
    assert!(
        (number("/seconds/expected") - steps(0) - steps(1)).abs() < 1e-6
            && number("/seconds/least") <= number("/seconds/most")
    );
    assert!(
        number("/speed/stages/0/repetitions") >= 2.0 && document["speed"]["scaled_from"].is_null()
    );
    let (_, text, _) =
        patchtui(folder.path(), None, &[&["plan", "demo", "--device", "cpu"], &sets[..]].concat());
    assert!(
        text.contains("text     about 1.94 epochs of 35.8k training tokens, estimated")
            && text.contains("note     the run takes 1.94 epochs"),
        "{text}"
    );
    assert!(text.contains("\ntime     ") && text.contains(" per parameter), "), "{text}");
    let (_, text, _) = patchtui(
        folder.path(),
        None,
        &[&["plan", "demo", "--set", "training.max_walltime=1s"], &sets[..6]].concat(),
    );
    assert!(
        text.contains(
            "warning  training.max_walltime is shorter than the run: it would stop in stage 1 of \
             2 (K = 4), at about step"
        ),
        "{text}"
    );
}

#[test]
fn a_run_says_what_its_plan_says_and_tells_notes_from_warnings() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("text.txt"), "The cat sat on the mat. ".repeat(200)).unwrap();
    let text = [
        "--set",
        "data.files=text.txt",
        "--set",
        "data.tokenizer=bytes",
        "--set",
        "data.validation_share=0.25",
        "--set",
        "training.steps=2",
    ];
    let (code, out, errors) = patchtui(
        folder.path(),
        None,
        &[&["run", "demo", "--no-tui", "--device", "cpu"], &text[..]].concat(),
    );
    assert_eq!(code, 0, "{errors}");
    assert!(
        out.contains("\nnote: dropped ")
            && out.contains("\nnote: the run takes ")
            && !out.contains("warning: "),
        "{out}"
    );
    let events = fs::read_to_string(folder.path().join("runs/demo/events.jsonl")).unwrap();
    assert!(events.contains("{\"type\":\"note\",\"message\":\"dropped "), "{events}");
    let bench = Bench::new();
    fs::copy(folder.path().join("text.txt"), bench.path().join("text.txt")).unwrap();
    let limited = [
        "run",
        "demo",
        "--json",
        "--name",
        "limited",
        "--set",
        "training.max_walltime=1h",
        "--set",
        "training.tokens=100B",
    ];
    let warning = "training.max_walltime is shorter than the run: it would stop in stage 1 of 2 \
                   (K = 4), at about step";
    let is_warned = |record: &Value| {
        record["event"]["message"].as_str().is_some_and(|message| message.contains(warning))
    };
    until(bench.patchtui(&[&limited[..], &text[..6]].concat()), is_warned, |child| {
        signal(child, Signal::KILL);
    });
}

#[test]
fn bf16_on_the_cpu_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    for command in [&["plan", "demo"][..], &["run", "demo", "--no-tui"][..]] {
        let (code, out, errors) = patchtui(
            folder.path(),
            None,
            &[command, &["--device", "cpu", "--set", "training.precision=bf16"]].concat(),
        );
        assert_eq!((code, out.as_str()), (2, ""), "{errors}");
        assert!(
            errors.contains(
                "\"bf16\" is not supported on the CPU: most CPUs multiply bf16 no faster than f32"
            ),
            "{errors}"
        );
        let hint = if cfg!(feature = "cuda") {
            "hint: use training.precision = \"f32\", or --device cuda\n"
        } else {
            "hint: use training.precision = \"f32\"; bf16 needs an NVIDIA GPU and a build with \
             --features cuda\n"
        };
        assert!(errors.contains(hint), "{errors}");
    }
    assert!(is_empty(&folder));
}
