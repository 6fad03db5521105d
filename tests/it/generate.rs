//! `patchtui generate`, as used by people and scripts.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::program::{Bench, output};
use crate::resume::TINY;

/// A folder with the completed run `tiny`.
fn trained() -> Bench {
    let bench = Bench::new();
    let mut command = bench.patchtui(&["run", "demo", "--name", "tiny", "--no-tui"]);
    for set in TINY {
        command.args(["--set", set]);
    }
    assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    bench
}

fn generate(bench: &Bench, arguments: &[&str]) -> Command {
    bench.patchtui(&[&["generate", "tiny", "--max-new-tokens", "10"], arguments].concat())
}

fn text(command: Command) -> String {
    let (code, stdout, stderr) = output(command);
    assert_eq!((code, stderr.as_str()), (0, ""));
    stdout
}

fn with_input(mut command: Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

fn records(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_prompt_comes_from_the_command_line_a_file_or_the_standard_input() {
    let bench = trained();
    let expected = text(generate(&bench, &["--prompt", "Once upon"]));
    assert!(expected.ends_with('\n') && expected.len() > 10, "{expected:?}");
    assert_eq!(with_input(generate(&bench, &[]), "Once upon\n"), expected);
    fs::write(bench.path().join("prompts.txt"), "Once upon\n").unwrap();
    assert_eq!(text(generate(&bench, &["--prompt-file", "prompts.txt"])), expected);
    assert_eq!(with_input(generate(&bench, &["--prompt-file", "-"]), "Once upon\n\n"), expected);
    // A checkpoint and its export are the same model.
    let checkpoints = fs::read_dir(bench.run_dir("tiny").join("checkpoints")).unwrap();
    let newest = checkpoints.map(|entry| entry.unwrap().path()).max().unwrap();
    assert!(
        bench
            .patchtui(&["export", "tiny", "--to", "hf"])
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    for model in [newest.to_str().unwrap(), "hf"] {
        assert_eq!(
            text(bench.patchtui(&[
                "generate",
                model,
                "--max-new-tokens",
                "10",
                "--prompt",
                "Once upon"
            ])),
            expected,
            "{model}"
        );
    }
}

#[test]
fn several_prompts_are_continued_as_each_alone() {
    let bench = trained();
    let alone = |prompt: &str| text(generate(&bench, &["--prompt", prompt]));
    let (code, stdout, stderr) =
        output(generate(&bench, &["--prompt", "Once", "--prompt", "One day\u{1b}[2J"]));
    assert_eq!((code, stdout), (0, alone("Once") + &alone("One day\u{1b}[2J")));
    assert!(
        stderr.starts_with("[1] Once\n[2] One day") && !stderr.contains('\u{1b}'),
        "{stderr:?}"
    );

    fs::write(
        bench.path().join("prompts.jsonl"),
        "{\"prompt\": \"Once\"}\n{\"prompt\": \"One day\", \"other\": 1}\n",
    )
    .unwrap();
    let found = records(&text(generate(&bench, &["--prompt-file", "prompts.jsonl", "--json"])));
    assert_eq!(found.len(), 2);
    for (record, prompt) in found.iter().zip(["Once", "One day"]) {
        assert_eq!(record["prompt"], prompt);
        assert_eq!(record["text"].as_str().unwrap().to_owned() + "\n", alone(prompt));
        assert_eq!(record["num_new_tokens"], record["ids"].as_array().unwrap().len());
    }
}

#[test]
fn a_stop_text_ends_the_continuation_before_it() {
    let bench = trained();
    let whole = text(generate(&bench, &["--prompt", "Once upon"]));
    let stop: String = whole.chars().skip(whole.chars().count() / 2).take(3).collect();
    let before = whole.split(&stop).next().unwrap();
    let found =
        &records(&text(generate(&bench, &["--prompt", "Once upon", "--stop", &stop, "--json"])))[0];
    assert_eq!((found["text"].as_str().unwrap(), found["end"].as_str().unwrap()), (before, "stop"));
    assert_eq!(
        text(generate(&bench, &["--prompt", "Once upon", "--stop", &stop])),
        before.to_owned() + "\n"
    );
    let found = &records(&text(generate(&bench, &["--prompt", "Once upon", "--json"])))[0];
    assert!(matches!(found["end"].as_str(), Some("length" | "end_of_text")), "{found}");
}

#[test]
fn sampling_follows_its_seed() {
    let bench = trained();
    let drawn = |arguments: &[&str]| {
        text(generate(&bench, &[&["--prompt", "Once", "--temperature", "1.5"], arguments].concat()))
    };
    assert_eq!(drawn(&["--seed", "1"]), drawn(&["--seed", "1"]));
    assert_ne!(drawn(&["--seed", "1"]), drawn(&["--seed", "2"]));
    assert_eq!(drawn(&["--top-k", "1"]), text(generate(&bench, &["--prompt", "Once"])));
    assert_ne!(
        text(generate(&bench, &["--prompt", "Once", "--repetition-penalty", "3"])),
        text(generate(&bench, &["--prompt", "Once"]))
    );
}

#[test]
fn a_text_that_outgrows_the_context_says_so() {
    let bench = trained();
    // The context length of this run is 16 positions.
    let (code, _, stderr) = output(generate(&bench, &["--prompt", "one two three"]));
    assert_eq!(code, 0);
    assert_eq!(stderr, "warning: context window (16 tokens) exceeded; oldest tokens dropped\n");
    let long = "Once upon a time there was a cat. ".repeat(9);
    let (code, stdout, stderr) = output(generate(&bench, &["--prompt", &long]));
    assert!(code == 0 && !stdout.is_empty(), "{stderr}");
    assert!(
        stderr
            .contains("tokens, but the context window is 16: only the end of the prompt is read\n"),
        "{stderr}"
    );
}

#[test]
fn what_cannot_be_continued_is_refused() {
    let bench = trained();
    fs::write(bench.path().join("empty.txt"), "\n\n").unwrap();
    fs::write(bench.path().join("bad.jsonl"), "{\"prompt\": \"a\"}\n{\"text\": \"b\"}\n").unwrap();
    fs::write(bench.path().join("binary.txt"), [0xFF, 0xFE, 0]).unwrap();
    let refused = |arguments: &[&str], message: &str| {
        let (code, stdout, stderr) = output(generate(&bench, arguments));
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(message) && stderr.contains("hint: "), "{arguments:?}: {stderr}");
    };
    refused(&["--prompt-file", "empty.txt"], "empty.txt contains no prompt");
    refused(&["--prompt-file", "bad.jsonl"], "bad.jsonl:2 has no string \"prompt\"");
    refused(&["--prompt-file", "binary.txt"], "binary.txt cannot be read");
    refused(&["--prompt-file", "nowhere.txt"], "nowhere.txt cannot be read");
    refused(
        &["--prompt", "a", "--temperature", "-1"],
        "--temperature must be 0 or greater, not -1",
    );
    refused(
        &["--prompt", "a", "--temperature", "1", "--top-p", "1.5"],
        "--top-p must be greater than 0 and at most 1, not 1.5",
    );
    refused(&["--prompt", "a", "--temperature", "1", "--top-k", "0"], "--top-k 0 leaves no token");
    refused(
        &["--prompt", "a", "--repetition-penalty", "0"],
        "--repetition-penalty must be greater than 0, not 0",
    );
    refused(&["--prompt", "a", "--stop", ""], "--stop must not be empty");
    let (code, _, stderr) = output(bench.patchtui(&["generate", "nothing", "--prompt", "a"]));
    assert!(code == 2 && stderr.contains("nothing"), "{stderr}");
    let (code, _, stderr) = output(generate(&bench, &["--prompt", "a", "--top-k", "5"]));
    assert!(code == 2 && stderr.contains("--temperature"), "{stderr}");
}

/// Bug report 1.
#[test]
fn a_byte_order_mark_is_no_part_of_a_prompt() {
    let bench = trained();
    let prompt = |output: &str| records(output)[0]["prompt"].as_str().unwrap().to_owned();
    fs::write(bench.path().join("prompts.txt"), "\u{feff}Once upon\n").unwrap();
    fs::write(bench.path().join("prompts.jsonl"), "\u{feff}{\"prompt\": \"Once upon\"}\n").unwrap();
    for file in ["prompts.txt", "prompts.jsonl"] {
        assert_eq!(
            prompt(&text(generate(&bench, &["--prompt-file", file, "--json"]))),
            "Once upon",
            "{file}"
        );
    }
    for arguments in [&["--json"][..], &["--prompt-file", "-", "--json"]] {
        assert_eq!(
            prompt(&with_input(generate(&bench, arguments), "\u{feff}Once upon\n")),
            "Once upon",
            "{arguments:?}"
        );
    }
    // Where nobody's editor puts it, it is a character like others.
    assert_eq!(
        prompt(&text(generate(&bench, &["--prompt", "\u{feff}Once upon", "--json"]))),
        "\u{feff}Once upon"
    );
}
