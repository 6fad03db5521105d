//! The supported formats of task files, and the errors for broken ones.

use std::fs;
use std::path::Path;

use patchtui::advice::{Advice, Audience, USAGE};
use patchtui::tasks::{
    Documents, EvaluateError, LoadOptions, Prompt, Question, Scored, Selection, TaskEncoder,
    TaskError, TaskFiles, evaluate,
};

fn try_load(
    folder: Option<&Path>,
    name: &str,
    options: LoadOptions,
) -> Result<Vec<Question>, TaskError> {
    let [task] = &Selection::parse(name)?.tasks[..] else { panic!("{name} is not one task") };
    match TaskFiles::new(folder).load(task, options)?.documents {
        Documents::Questions(questions) => Ok(questions),
        Documents::Texts(_) => Ok(Vec::new()),
    }
}

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn load_files(name: &str, files: &[(&str, &str)]) -> Result<Vec<Question>, TaskError> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), files);
    try_load(Some(folder.path()), name, LoadOptions::default())
}

/// The only question in `files` has these choices, or contexts, and this answer.
fn reads(name: &str, files: &[(&str, &str)], choices: &[&str], gold: usize) {
    let questions =
        load_files(name, files).unwrap_or_else(|error| panic!("{name} {files:?}: {error}"));
    let (Prompt::Continuations { choices: found, .. } | Prompt::Contexts { contexts: found, .. }) =
        &questions[0].prompt;
    assert_eq!(
        (&found[..], questions[0].gold),
        (&choices.iter().map(|choice| (*choice).to_owned()).collect::<Vec<_>>()[..], gold),
        "{name} {files:?}"
    );
}

#[test]
fn every_published_form_is_read() {
    let raw = r#"{"ind": 4, "activity_label": "Roof", "ctx_a": "A man.", "ctx_b": "he", "ctx": "A man. he", "endings": ["[step] x", "y"], "label": 1}"#;
    reads("hellaswag", &[("hellaswag_val.jsonl", raw)], &[" x", "y"], 1);
    reads(
        "hellaswag",
        &[("hellaswag/val.jsonl", &raw.replace(": 1}", ": \"1\"}"))],
        &[" x", "y"],
        1,
    );
    reads(
        "hellaswag",
        &[
            ("a.txt", ""),
            ("hellaswag.jsonl", r#"{"query": "q", "choices": [" a", "b"], "gold": 0}"#),
        ],
        &[" a", "b"],
        0,
    );

    let piqa = r#"{"goal": "g", "sol1": "one ", "sol2": "two"}"#;
    reads(
        "piqa",
        &[("piqa/valid.jsonl", piqa), ("piqa/valid-labels.lst", "1\n")],
        &["one ", "two"],
        1,
    );
    let labelled = &piqa.replace('}', ", \"label\": 0}");
    reads("piqa", &[("piqa_valid.jsonl", labelled)], &["one ", "two"], 0);
    reads(
        "piqa",
        &[("piqa/valid.jsonl", labelled), ("piqa/valid-labels.lst", "1\n1\n")],
        &["one ", "two"],
        0,
    );

    let gap = r#"{"qID": "x", "sentence": "Tom saw that _  left.", "option1": "Tom", "option2": "Ann", "answer": "2"}"#;
    reads(
        "winogrande",
        &[("winogrande_1.1/dev.jsonl", gap)],
        &["Tom saw that Tom", "Tom saw that Ann"],
        1,
    );
    reads(
        "winogrande",
        &[("winogrande_dev.jsonl", &format!("\u{feff}{gap}\r\n\r\n"))],
        &["Tom saw that Tom", "Tom saw that Ann"],
        1,
    );

    let ai2 = r#"{"id": "a", "question": {"stem": "s", "choices": [{"text": "p", "label": "1"}, {"text": "q", "label": "2"}, {"text": "r", "label": "3"}]}, "answerKey": "3"}"#;
    reads(
        "arc_easy",
        &[("ARC-V1-Feb2018-2/ARC-Easy/ARC-Easy-Test.jsonl", ai2)],
        &["p", "q", "r"],
        2,
    );
    let hugging_face = r#"{"id": "a", "question": "s", "choices": {"text": ["p", "q"], "label": ["A", "B"]}, "answerKey": "B"}"#;
    reads(
        "arc_challenge",
        &[("arc_challenge/arc_challenge_test.jsonl", hugging_face)],
        &["p", "q"],
        1,
    );
    reads(
        "arc_challenge",
        &[("ARC-Challenge-Test.jsonl", r#"{"question": "s", "choices": ["p", "q"], "gold": 0}"#)],
        &["p", "q"],
        0,
    );

    let letters = ["A", "B", "C", "D"];
    let csv = "\"What, \"\"now\"\"\ntwo lines?\",1,2,3,4,C\n";
    reads("mmlu_anatomy", &[("test/anatomy_test.csv", csv)], &letters, 2);
    reads("mmlu_anatomy", &[("mmlu/data/test/anatomy_test.csv", csv)], &letters, 2);
    let row = r#"{"subject": "virology", "question": " q ", "choices": ["w", "x", "y", "z"], "answer": 3}"#;
    reads("mmlu_virology", &[("mmlu_test.jsonl", row)], &letters, 3);
    reads("mmlu_virology", &[("mmlu/test.jsonl", &row.replace(": 3", ": \"B\""))], &letters, 1);
}

#[test]
fn a_limit_is_the_number_of_documents_of_each_task() {
    let folder = tempfile::tempdir().unwrap();
    let row = |subject: &str| {
        format!(
            r#"{{"subject": "{subject}", "question": "q", "choices": ["w", "x", "y", "z"], "answer": 3}}{}"#,
            "\n"
        )
    };
    write(folder.path(), &[("mmlu_test.jsonl", &(row("anatomy").repeat(3) + &row("virology")))]);
    let mut files = TaskFiles::new(Some(folder.path()));
    let options = LoadOptions { limit: Some(2), num_fewshot: 0 };
    let counts: Vec<_> = Selection::parse("mmlu_anatomy,mmlu_virology")
        .unwrap()
        .tasks
        .iter()
        .map(|task| files.load(task, options).unwrap())
        .collect();
    assert_eq!(
        counts.iter().map(|task| (task.documents.len(), task.num_available)).collect::<Vec<_>>(),
        [(2, 3), (1, 1)]
    );
}

/// The error of `files`, without the folder.
fn error(name: &str, files: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), files);
    let options = LoadOptions {
        limit: None,
        num_fewshot: usize::from(files.iter().any(|(name, _)| name.contains("_dev.csv"))),
    };
    let error = try_load(Some(folder.path()), name, options).unwrap_err();
    assert!(error.exit_code() == USAGE && !error.hint(Audience::Command).is_empty(), "{error}");
    error
        .to_string()
        .replace(&format!("{}/", folder.path().display()), "")
        .replace(&folder.path().display().to_string(), "FOLDER")
}

#[test]
fn a_broken_record_is_named_with_its_line_and_field() {
    let hellaswag = |text: &str| error("hellaswag", &[("hellaswag.jsonl", text)]);
    assert_eq!(hellaswag(""), "hellaswag.jsonl has no documents");
    assert_eq!(hellaswag("\n[1]\n"), "hellaswag.jsonl:2: the line is a list, not an object");
    assert_eq!(
        hellaswag("{\"query\": "),
        "hellaswag.jsonl:1: it is not valid JSON: EOF while parsing a value in column 10"
    );
    assert_eq!(
        hellaswag(r#"{"query": "q", "choices": ["a", "b"]}"#),
        "hellaswag.jsonl:1: field \"gold\" is missing"
    );
    assert_eq!(
        hellaswag(r#"{"query": "q", "choices": ["a", 3], "gold": 0}"#),
        "hellaswag.jsonl:1: field \"choices[1]\" is a number, not a string"
    );
    assert_eq!(
        hellaswag(r#"{"query": "q", "choices": ["a"], "gold": 0}"#),
        "hellaswag.jsonl:1: field \"choices\" is a list of 1, but a choice needs two or more"
    );
    assert_eq!(
        hellaswag(r#"{"query": "q", "choices": ["a", "b"], "gold": 2}"#),
        "hellaswag.jsonl:1: field \"gold\" is 2, not a number from 0 to 1"
    );
    assert_eq!(
        hellaswag(r#"{"activity_label": "l", "ctx_a": null}"#),
        "hellaswag.jsonl:1: field \"ctx_a\" is null, not a string"
    );
    let unlabelled = r#"{"activity_label": "l", "ctx_a": "a", "ctx_b": "b", "endings": ["x", "y"], "label": ""}"#;
    assert_eq!(
        hellaswag(unlabelled),
        "hellaswag.jsonl:1: field \"label\" is \"\", not a number from 0 to 1"
    );

    let piqa = r#"{"goal": "g", "sol1": "1", "sol2": "2"}"#;
    assert_eq!(
        error("piqa", &[("piqa/valid.jsonl", piqa)]),
        "piqa/valid.jsonl:1: field \"label\" is missing"
    );
    let labels = |labels: &str| {
        error("piqa", &[("piqa/valid.jsonl", piqa), ("piqa/valid-labels.lst", labels)])
    };
    assert_eq!(labels("1\n0\n"), "piqa/valid-labels.lst has 2 labels for 1 documents");
    assert_eq!(labels("2\n"), "piqa/valid-labels.lst:1: the label is \"2\", not 0 or 1");

    let winogrande = |sentence: &str, answer: &str| {
        let record =
            format!(r#"{{"sentence": "{sentence}", "option1": "a", "option2": "b"{answer}}}"#);
        error("winogrande", &[("winogrande.jsonl", &record)])
    };
    assert_eq!(
        winogrande("none", ""),
        "winogrande.jsonl:1: field \"sentence\" is a sentence with 0 gaps \"_\" instead of one"
    );
    assert_eq!(
        winogrande("_ and _", ""),
        "winogrande.jsonl:1: field \"sentence\" is a sentence with 2 gaps \"_\" instead of one"
    );
    assert_eq!(winogrande("a _", ""), "winogrande.jsonl:1: field \"answer\" is missing");
    assert_eq!(
        winogrande("a _", r#", "answer": """#),
        "winogrande.jsonl:1: field \"answer\" is not 1 or 2"
    );
    assert_eq!(
        winogrande("a _", r#", "answer": "0""#),
        "winogrande.jsonl:1: field \"answer\" is 0, not 1 or 2"
    );

    let arc = |text: &str| error("arc_easy", &[("arc_easy.jsonl", text)]);
    let key = r#"{"question": "s", "choices": {"text": ["p", "q"], "label": ["A", "B"]}, "answerKey": "C"}"#;
    assert_eq!(arc(key), "arc_easy.jsonl:1: field \"answerKey\" is \"C\", not one of A, B");
    assert_eq!(
        arc(&key.replace(", \"B\"", "")),
        "arc_easy.jsonl:1: there are 2 choices with 1 labels"
    );
    assert_eq!(
        arc(r#"{"question": {"choices": [{"text": "p"}]}}"#),
        "arc_easy.jsonl:1: field \"question.choices[].label\" is missing"
    );

    let mmlu = |text: &str| error("mmlu_anatomy", &[("mmlu_test.jsonl", text)]);
    assert_eq!(
        mmlu(r#"{"subject": "cooking"}"#),
        "mmlu_test.jsonl:1: field \"subject\" is \"cooking\", which MMLU does not have"
    );
    assert_eq!(
        mmlu(r#"{"subject": "anatomy", "choices": ["a", "b"]}"#),
        "mmlu_test.jsonl:1: field \"choices\" is a list of 2, not of 4"
    );
    let virology =
        r#"{"subject": "virology", "question": "q", "choices": ["w", "x", "y", "z"], "answer": 3}"#;
    assert_eq!(mmlu(virology), "mmlu_test.jsonl has no document of the subject anatomy");
    assert_eq!(
        mmlu(&virology.replace(": 3", ": \"E\"")),
        "mmlu_test.jsonl:1: field \"answer\" is \"E\", not a number from 0 to 3"
    );
    let table = |text: &str| error("mmlu_anatomy", &[("test/anatomy_test.csv", text)]);
    assert_eq!(table(""), "test/anatomy_test.csv has no documents");
    assert_eq!(
        table("q,1,2,3,4,A\n\"two\nlines\",1,2,3,4\n"),
        "test/anatomy_test.csv:2: the row has 5 fields, not 6: question, four choices, answer"
    );
    assert_eq!(
        table("q,1,2,3,4,E\n"),
        "test/anatomy_test.csv:1: the answer, field 6, is \"E\", not A, B, C or D"
    );
    let few = [("test/anatomy_test.csv", "q,1,2,3,4,A"), ("dev/anatomy_dev.csv", "")];
    assert_eq!(error("mmlu_anatomy", &few), "dev/anatomy_dev.csv has no documents");
    assert_eq!(
        error("wikitext", &[("wikitext/test.jsonl", r#"{"pages": "x"}"#)]),
        "wikitext/test.jsonl:1: field \"text\" is missing"
    );
}

#[test]
fn a_file_that_is_missing_or_not_alone_is_said() {
    assert_eq!(error("piqa", &[("other/valid.jsonl", "")]), "FOLDER has no file for piqa");
    // A generic name counts only in a folder of the task's name.
    assert_eq!(error("piqa", &[("valid.jsonl", "")]), "FOLDER has no file for piqa");
    assert_eq!(
        error("mmlu_anatomy", &[("x", "")]),
        "FOLDER has no file for the test part of mmlu_anatomy"
    );
    let several = [("my_hellaswag_val.jsonl", ""), ("hellaswag_val_1000.jsonl", "")];
    assert_eq!(
        error("hellaswag", &several),
        "both hellaswag_val_1000.jsonl and my_hellaswag_val.jsonl match hellaswag"
    );
    assert_eq!(
        try_load(None, "piqa", LoadOptions::default()).unwrap_err().to_string(),
        "piqa needs a folder of task files"
    );
    let nowhere =
        try_load(Some(Path::new("/nowhere")), "piqa", LoadOptions::default()).unwrap_err();
    assert_eq!(nowhere.to_string(), "/nowhere is not a folder");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("piqa.jsonl"), b"\xff").unwrap();
    let not_text = try_load(Some(folder.path()), "piqa", LoadOptions::default()).unwrap_err();
    assert!(
        not_text.exit_code() == USAGE
            && not_text
                .to_string()
                .ends_with("piqa.jsonl cannot be read: it is not UTF-8 text at byte 0"),
        "{not_text}"
    );
    let examples =
        try_load(Some(folder.path()), "piqa", LoadOptions { limit: None, num_fewshot: 5 })
            .unwrap_err();
    assert_eq!(examples.to_string(), "piqa has no few-shot examples");
    let text = try_load(None, "text:/nowhere/a.txt", LoadOptions::default()).unwrap_err();
    assert_eq!(
        (text.to_string(), text.exit_code() == USAGE),
        ("/nowhere/a.txt: no such file or folder".into(), true)
    );
}

/// Must not be called.
struct Nobody;

impl patchtui::tasks::Score for Nobody {
    type Error = String;

    fn score(&mut self, _: &[Scored]) -> Result<Option<Vec<f64>>, String> {
        Err("there is no model".into())
    }
}

#[test]
fn what_does_not_fit_a_network_is_said_with_its_document() {
    let tokenizer = patchtui::data::Tokenizer::load("bytes").unwrap();
    let message = |name: &str, files: &[(&str, &str)], max_length| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), files);
        let [task] = &Selection::parse(name).unwrap().tasks[..] else { panic!() };
        let task = TaskFiles::new(Some(folder.path())).load(task, LoadOptions::default()).unwrap();
        let encoder = TaskEncoder::new(&tokenizer, false, max_length).unwrap();
        match evaluate(&task, &encoder, &mut Nobody, &mut |_| ()).unwrap_err() {
            EvaluateError::Task(error) => error.to_string(),
            EvaluateError::Score(error) => error,
        }
    };
    let piqa =
        [("piqa.jsonl", r#"{"goal": "g", "sol1": "short", "sol2": "a longer one", "label": 1}"#)];
    assert_eq!(
        message("piqa", &piqa, 12),
        "piqa, document 0: the continuation has 13 tokens, but the context length is 12"
    );
    assert_eq!(message("piqa", &piqa, 13), "there is no model");
    let blank = [(
        "winogrande.jsonl",
        r#"{"sentence": "_.", "option1": " ", "option2": "x", "answer": "1"}"#,
    )];
    assert_eq!(
        message("winogrande", &blank, 13),
        "winogrande, document 0: the tokenizer encodes the context into no tokens"
    );
    assert_eq!(
        message("wikitext-paper", &[("wikitext_test.jsonl", r#"{"text": "ab"}"#)], 4),
        "wikitext-paper has 3 tokens, but a block has 4"
    );
}
