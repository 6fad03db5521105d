//! `patchtui eval`: the scores of a checkpoint, as a table and as a document, and what is refused
//! before computing.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::formats::Fixture;

/// A folder with task files for a byte-level model with a context of 16 positions.
fn task_files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let row = |label: u8| {
        json!({ "goal": "g", "sol1": "a b", "sol2": "cd ", "label": label }).to_string()
    };
    let piqa = [0, 1, 0, 1, 0].map(row).join("\n");
    fs::write(folder.path().join("piqa.jsonl"), piqa).unwrap();
    let row = |subject: &str| {
        json!({ "subject": subject, "question": "q", "choices": ["w", "x", "y", "z"], "answer": 3 })
            .to_string()
            + "\n"
    };
    fs::write(folder.path().join("mmlu_test.jsonl"), row("anatomy").repeat(2) + &row("virology"))
        .unwrap();
    fs::write(
        folder.path().join("wikitext_test.jsonl"),
        json!({ "page": " = A =  \n some text @-@ like this , here . " }).to_string(),
    )
    .unwrap();
    fs::write(folder.path().join("own.txt"), "some text of mine").unwrap();
    folder
}

fn eval(run: &Path, folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patchtui"));
    command.arg("eval").arg(run).args(["--max-length", "16", "--device", "cpu"]).args(arguments);
    command
        .current_dir(folder)
        .env("XDG_STATE_HOME", folder.join("state"))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_checkpoint_gets_a_document_of_results_and_a_line_for_each_answer() {
    let (fixture, files) = (Fixture::copy("format-2"), task_files());
    let run = fixture.run();
    let tasks = [
        "--task-data",
        ".",
        "--tasks",
        "piqa,mmlu_anatomy,wikitext,wikitext-paper,text:own.txt",
        "--json",
        "--limit",
        "4",
        "-o",
        "samples.jsonl",
    ];
    let output = eval(run.path(), files.path(), &tasks);
    let document = json_of(&output);
    let results = document["results"].as_object().unwrap();
    assert_eq!(
        results.keys().collect::<Vec<_>>(),
        ["piqa", "mmlu_anatomy", "wikitext", "wikitext-paper", "text:own.txt"]
    );
    assert_eq!(document["n-samples"]["piqa"], json!({ "original": 5, "effective": 4 }));
    // All rows of a task are the same, and so are its answers.
    assert_eq!(
        (&results["piqa"]["acc,none"], &results["piqa"]["acc_norm,none"]),
        (&json!(0.5), &json!(0.5))
    );
    let per_token = |task: &str| results[task]["token_loss,none"].as_f64().unwrap();
    let perplexity = |task: &str| results[task]["perplexity,none"].as_f64().unwrap();
    for task in ["wikitext-paper", "text:own.txt"] {
        assert!(
            (perplexity(task).ln() - per_token(task)).abs() < 1e-12
                && (1.0..12.0).contains(&per_token(task)),
            "{task}: {}",
            per_token(task)
        );
    }
    // The tokens of this tokenizer are bytes.
    let bits = results["text:own.txt"]["bits_per_byte,none"].as_f64().unwrap();
    assert!((bits * std::f64::consts::LN_2 - per_token("text:own.txt")).abs() < 1e-12);
    assert_eq!(
        text(&output.stderr).lines().count(),
        5,
        "one line for each task: {}",
        text(&output.stderr)
    );

    let samples = fs::read_to_string(files.path().join("samples.jsonl")).unwrap();
    let lines: Vec<Value> =
        samples.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_piqa: Vec<&Value> = lines.iter().filter(|line| line["task"] == "piqa").collect();
    assert_eq!(
        (of_piqa.len(), &of_piqa[3]["doc_id"], &of_piqa[1]["gold"]),
        (4, &json!(3), &json!(1))
    );
    // Computed by transformers 5.23.0 from the same weights, split by lm-eval's own functions.
    for (task, metric, expected) in [
        ("text:own.txt", "token_loss,none", 5.494_969_73),
        ("wikitext", "bits_per_byte,none", 6.487_046_32),
        ("wikitext-paper", "token_loss,none", 5.512_057_81),
    ] {
        let found = results[task][metric].as_f64().unwrap();
        assert!((found / expected - 1.0).abs() < 1e-5, "{task}: {found}");
    }
    for (idx, expected) in [(0, -22.156_118_39), (1, -22.358_479_02)] {
        let found = of_piqa[0]["requests"][idx]["log_likelihood"].as_f64().unwrap();
        assert!((found / expected - 1.0).abs() < 1e-5, "{found}");
    }
    // Padding and batching change nothing.
    let alone = json_of(&eval(
        run.path(),
        files.path(),
        &[&tasks[..7], &["--batch-tokens", "1", "--threads", "1"]].concat(),
    ));
    for (task, metric) in [
        ("wikitext", "word_perplexity,none"),
        ("wikitext-paper", "token_loss,none"),
        ("text:own.txt", "token_loss,none"),
    ] {
        let [together, alone] =
            [&document, &alone].map(|document| document["results"][task][metric].as_f64().unwrap());
        assert!((together / alone - 1.0).abs() < 1e-5, "{task}: {together} {alone}");
    }
}

#[test]
fn a_table_is_for_people() {
    let (fixture, files) = (Fixture::copy("format-2"), task_files());
    let output = eval(fixture.run().path(), files.path(), &["--task-data", ".", "--tasks", "piqa"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<_> = text(&output.stdout)
        .lines()
        .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(
        text(&output.stdout)
            .lines()
            .next()
            .unwrap()
            .contains("K = 1, context 16 tokens, without BOS, cpu"),
        "{}",
        text(&output.stdout)
    );
    assert_eq!(lines[2], ["TASK", "DOCUMENTS", "SHOTS", "METRIC", "VALUE", "STDERR", "CHANCE"]);
    assert_eq!(
        (&lines[3][..4], &lines[4][0]),
        (&["piqa".to_owned(), "5".into(), "0".into(), "acc".into()][..], &"acc_norm".to_owned())
    );
}

#[test]
fn what_cannot_be_evaluated_is_refused_with_a_hint_and_leaves_nothing() {
    let (fixture, files) = (Fixture::copy("format-2"), task_files());
    let run = fixture.run();
    let before = fs::read_dir(files.path()).unwrap().count();
    fs::write(files.path().join("bad.jsonl"), "{\"content\": \"no text\"}\n").unwrap();
    let before = before + 1;
    let table: [(&[&str], &str, &str); 9] = [
        (
            &["--tasks", "text:bad.jsonl"],
            "bad.jsonl:1: ",
            "the text of a record must be in its field \"text\"",
        ),
        (&["--tasks", "hella_swag"], "there is no task \"hella_swag\"", "did you mean hellaswag?"),
        (&["--tasks", "piqa"], "piqa needs a folder of task files", "--task-data"),
        (
            &["--tasks", "winogrande", "--task-data", "."],
            ". has no file for winogrande",
            "dev.jsonl",
        ),
        (
            &["--tasks", "mmlu", "--task-data", "."],
            "has no document of the subject abstract_algebra",
            "mmlu_anatomy",
        ),
        (
            &["--tasks", "piqa", "--task-data", ".", "--num-fewshot", "2"],
            "piqa has no few-shot examples",
            "--num-fewshot",
        ),
        (&["--tasks", "text:none.txt"], "none.txt: no such file or folder", "check the path"),
        (
            &["--tasks", "text:own.txt", "-o", "none/samples.jsonl"],
            "none is not a folder",
            "another folder",
        ),
        (
            &["--tasks", "mmlu_anatomy", "--task-data", ".", "--num-fewshot", "1"],
            "has no file for the dev part of mmlu_anatomy",
            "dev/SUBJECT_dev.csv",
        ),
    ];
    for (arguments, message, hint) in table {
        let output = eval(run.path(), files.path(), arguments);
        let stderr = text(&output.stderr);
        assert_eq!(
            (output.status.code(), output.stdout.is_empty()),
            (Some(2), true),
            "{arguments:?}: {stderr}"
        );
        assert!(stderr.contains(message) && stderr.contains(hint), "{arguments:?}: {stderr}");
    }
    let no_model = eval(
        &files.path().join("nothing"),
        files.path(),
        &["--tasks", "text:own.txt", "-o", "samples.jsonl"],
    );
    assert_eq!(no_model.status.code(), Some(2));
    assert_eq!(fs::read_dir(files.path()).unwrap().count(), before);
}
