//! Prompts, ids and scores of the evaluation tasks, compared with lm-eval 0.4.13.

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};

use patchtui::data::Tokenizer;
use patchtui::tasks::{
    Documents, EvaluateError, GROUPS, GroupResult, LoadOptions, LoadedTask, Score, ScoreRequest,
    Scored, Selection, TaskEncoder, TaskError, TaskFiles, TaskProgress, TaskResult,
    clean_hellaswag, detokenize_wikitext, evaluate, results_document, sample_lines,
};
use serde_json::{Value, json};

/// The task files, if this machine has them.
fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("PATCHTUI_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: PATCHTUI_TEST_DATA does not name the folder of the task files");
    }
    folder
}

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tasks.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn load(folder: &Path, names: &str, options: LoadOptions) -> Vec<LoadedTask> {
    let mut files = TaskFiles::new(Some(folder));
    Selection::parse(names)
        .unwrap()
        .tasks
        .iter()
        .map(|task| files.load(task, options).unwrap())
        .collect()
}

/// The requests of all questions, in order: index of the document, context, continuation.
fn requests(task: &LoadedTask) -> Vec<(usize, String, String)> {
    let Documents::Questions(questions) = &task.documents else {
        panic!("{} has no questions", task.task)
    };
    let of_question = |(doc_id, question): (usize, &patchtui::tasks::Question)| -> Vec<_> {
        question
            .requests()
            .iter()
            .map(|request| (doc_id, request.context.to_owned(), request.continuation.clone()))
            .collect()
    };
    questions.iter().enumerate().flat_map(of_question).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
        .collect()
}

const CHOICE_TASKS: [&str; 6] =
    ["hellaswag", "piqa", "winogrande", "arc_easy", "arc_challenge", "mmlu_abstract_algebra"];

#[test]
fn requests_are_those_of_lm_eval() {
    let Some(data) = data() else { return };
    for name in CHOICE_TASKS {
        let [task] = &load(&data, name, LoadOptions::default())[..] else { panic!() };
        let expected = lines(&data.join(format!("lm_eval_golden/{name}_requests.jsonl")));
        assert!(expected.len() >= 100, "{name}");
        for (found, expected) in requests(task).iter().zip(&expected) {
            assert_eq!(
                json!([found.0, found.1, found.2]),
                json!([expected["doc_id"], expected["context"], expected["continuation"]]),
                "{name}"
            );
        }
    }
    let [pages] = &load(&data, "wikitext", LoadOptions::default())[..] else { panic!() };
    let Documents::Texts(texts) = &pages.documents else { panic!() };
    assert_eq!(texts.len(), 62);
    for (text, expected) in
        texts.iter().zip(lines(&data.join("lm_eval_golden/wikitext_requests.jsonl")))
    {
        assert_eq!(json!(text.text), expected["text"]);
    }
}

#[test]
fn pairs_of_ids_are_those_of_lm_eval() {
    let Some(data) = data() else { return };
    let tokenizer =
        Tokenizer::load(data.join("llama2_tokenizer/tokenizer.json").to_str().unwrap()).unwrap();
    let encoder = TaskEncoder::new(&tokenizer, false, 2048).unwrap();
    for name in CHOICE_TASKS {
        let [task] = &load(&data, name, LoadOptions::default())[..] else { panic!() };
        let expected = lines(&data.join(format!("lm_eval_golden/{name}_tokens.jsonl")));
        assert!(expected.len() >= 20, "{name}");
        for ((_, context, continuation), expected) in requests(task).into_iter().zip(&expected) {
            let (context_ids, continuation_ids) = encoder
                .pair(&ScoreRequest { context: &context, continuation: continuation.clone() })
                .unwrap();
            assert_eq!(
                (json!(context_ids), json!(continuation_ids)),
                (expected["context_enc"].clone(), expected["continuation_enc"].clone()),
                "{name}"
            );
        }
    }
}

#[test]
fn texts_are_cleaned_as_by_lm_eval() {
    let Some(data) = data() else { return };
    let vectors: Value = serde_json::from_str(
        &fs::read_to_string(data.join("lm_eval_golden/preprocess_vectors.json")).unwrap(),
    )
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    for vector in vectors["hellaswag"].as_array().unwrap() {
        let mut record = vector.clone();
        let (query, choices) = (record["query"].take(), record["choices"].take());
        record.as_object_mut().unwrap().retain(|key, _| key != "query" && key != "choices");
        record["label"] = json!("1");
        fs::write(folder.path().join("hellaswag_val.jsonl"), record.to_string()).unwrap();
        let [task] = &load(folder.path(), "hellaswag", LoadOptions::default())[..] else {
            panic!()
        };
        let found = requests(task);
        let expected: Vec<String> = choices
            .as_array()
            .unwrap()
            .iter()
            .map(|choice| format!(" {}", choice.as_str().unwrap()))
            .collect();
        assert_eq!(
            (json!(found[0].1), found.into_iter().map(|request| request.2).collect::<Vec<_>>()),
            (query, expected)
        );
    }
    for vector in vectors["wikitext"].as_array().unwrap() {
        fs::write(
            folder.path().join("wikitext_test.jsonl"),
            json!({ "page": vector["page"] }).to_string(),
        )
        .unwrap();
        let [task] = &load(folder.path(), "wikitext", LoadOptions::default())[..] else { panic!() };
        let Documents::Texts(texts) = &task.documents else { panic!() };
        assert_eq!(
            json!([texts[0].text, texts[0].num_words, texts[0].num_bytes]),
            json!([vector["detokenized"], vector["words"], vector["bytes"]])
        );
    }
}

/// lm-eval's pseudo scorer of strings, an exact function.
fn pseudo(context: &str, continuation: &str) -> f64 {
    let context: u64 = context.chars().map(|c| u64::from(u32::from(c))).sum();
    let continuation_sum: u64 =
        continuation.chars().zip(1..).map(|(c, place)| place * u64::from(u32::from(c))).sum();
    -(((7 * context + continuation_sum) % 1009) as f64) / 8.0
        - 0.25 * continuation.chars().count() as f64
}

/// Answers from a list, in order, whatever the request.
struct Listed(std::vec::IntoIter<f64>);

impl Score for Listed {
    type Error = Infallible;

    fn score(&mut self, requests: &[Scored]) -> Result<Option<Vec<f64>>, Infallible> {
        Ok(Some(self.0.by_ref().take(requests.len()).collect()))
    }
}

/// The result of `task` under the pseudo scorer.
fn pseudo_result(task: &LoadedTask) -> TaskResult {
    let tokenizer = Tokenizer::load("bytes").unwrap();
    let encoder = TaskEncoder::new(&tokenizer, false, 1 << 20).unwrap();
    let answers: Vec<f64> = match &task.documents {
        Documents::Questions(_) => requests(task)
            .iter()
            .map(|(_, context, continuation)| pseudo(context, continuation))
            .collect(),
        Documents::Texts(texts) => texts.iter().map(|text| -0.7 * text.text.len() as f64).collect(),
    };
    let mut last = None;
    let result = evaluate(task, &encoder, &mut Listed(answers.into_iter()), &mut |progress| {
        last = Some(progress);
    })
    .unwrap()
    .unwrap();
    let total = task.documents.len();
    assert_eq!(last, Some(TaskProgress { done: total, total, share: 1.0 }));
    result
}

fn close(found: &Value, expected: &Value, what: &str) {
    let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
    assert!(
        (found - expected).abs() <= 1e-12 * expected.abs().max(1.0),
        "{what}: {found} instead of {expected}"
    );
}

#[test]
fn pseudo_scores_are_those_of_lm_eval() {
    let Some(data) = data() else { return };
    let text = fs::read_to_string(data.join("lm_eval_golden/pseudo_scorer_results.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let results: Vec<TaskResult> = load(
        &data,
        "hellaswag,piqa,arc_challenge,mmlu_abstract_algebra,wikitext",
        LoadOptions::default(),
    )
    .iter()
    .map(pseudo_result)
    .collect();
    let found = results_document(&results, &[], Value::Null);
    for (name, metrics) in expected["results"].as_object().unwrap() {
        for (metric, value) in metrics.as_object().unwrap() {
            close(&found["results"][name][metric], value, &format!("{name} {metric}"));
        }
    }
    assert_eq!(found["n-samples"], expected["n"]);
}

#[test]
fn errors_and_group_means_are_those_of_lm_eval() {
    let Some(data) = data() else { return };
    for (key, limit) in [("scores", None), ("scores_of_first_7", Some(7))] {
        let options = LoadOptions { limit, num_fewshot: 0 };
        let results: Vec<TaskResult> =
            load(&data, "hellaswag,piqa,winogrande,arc_easy,arc_challenge,mmlu", options)
                .iter()
                .map(pseudo_result)
                .collect();
        let groups: Vec<GroupResult> =
            GROUPS.iter().map(|group| GroupResult::new(group, &results).unwrap()).collect();
        let found = results_document(&results, &groups, Value::Null);
        let golden = golden();
        let expected = golden[key].as_object().unwrap();
        assert_eq!(expected.len(), 5 + 57 + 5);
        for (name, metrics) in expected {
            let entry = &found["results"][name];
            let has_acc_norm = entry.get("acc_norm,none").is_some();
            assert_eq!(has_acc_norm, metrics.get("acc_norm,none").is_some(), "{name}");
            for (metric, value) in metrics.as_object().unwrap() {
                close(&entry[metric], value, &format!("{key} {name} {metric}"));
            }
        }
        assert_eq!(found["groups"].as_object().unwrap().len(), 5);
        assert_eq!(found["results"]["mmlu_anatomy"]["alias"], "anatomy");
    }
}

#[test]
fn ids_are_those_of_lm_eval_with_and_without_the_begin_of_text_token() {
    let golden = golden();
    let tokenizer = Tokenizer::load("demo").unwrap();
    let encoder = |vector: &Value, max_length| {
        TaskEncoder::new(&tokenizer, vector["add_bos"].as_bool().unwrap(), max_length).unwrap()
    };
    let request = |vector: &Value| {
        (
            vector["context"].as_str().unwrap().to_owned(),
            vector["continuation"].as_str().unwrap().to_owned(),
        )
    };
    let tokens = &golden["tokens"];
    for vector in tokens["pairs"].as_array().unwrap() {
        let (context, continuation) = request(vector);
        let found =
            encoder(vector, 64).pair(&ScoreRequest { context: &context, continuation }).unwrap();
        assert_eq!(
            found,
            (ids(&vector["context_enc"]), ids(&vector["continuation_enc"])),
            "{vector}"
        );
    }
    for vector in tokens["rolling"].as_array().unwrap() {
        let max_length = vector["max_length"].as_u64().unwrap() as usize;
        let found = encoder(vector, max_length).rolling(vector["text"].as_str().unwrap()).unwrap();
        let expected = vector["windows"].as_array().unwrap().iter().map(|window| {
            let [context, predicted] = [ids(&window[0]), ids(&window[1])];
            Scored { num_scored: predicted.len(), ids: [context, predicted].concat() }
        });
        assert_eq!(found, expected.collect::<Vec<_>>(), "{vector}");
    }
    for vector in tokens["inputs"].as_array().unwrap() {
        let max_length = vector["max_length"].as_u64().unwrap() as usize;
        let (context, continuation) = request(vector);
        let found = encoder(vector, max_length)
            .scored(&ScoreRequest { context: &context, continuation }, "task", 0)
            .unwrap();
        assert_eq!(found.input(), ids(&vector["input"]), "{vector}");
    }
}

#[test]
fn python_text_rules_hold_in_what_is_cleaned() {
    let golden = golden();
    for pair in golden["capitals"].as_array().unwrap() {
        let [text, expected] = [pair[0].as_str().unwrap(), pair[1].as_str().unwrap()];
        let folder = tempfile::tempdir().unwrap();
        // A dot on both sides keeps the white space; a sigma does not count it as a letter.
        let record = json!({ "activity_label": "a", "ctx_a": ".", "ctx_b": text, "endings": ["x", "y"], "label": 0 });
        fs::write(folder.path().join("hellaswag.jsonl"), record.to_string()).unwrap();
        let [task] = &load(folder.path(), "hellaswag", LoadOptions::default())[..] else {
            panic!()
        };
        assert_eq!(requests(task)[0].1, clean_hellaswag(&format!("a: . {expected}")), "{text:?}");
    }
    let spaces: Vec<char> =
        ids(&golden["spaces"]).into_iter().map(|c| char::from_u32(c).unwrap()).collect();
    for c in (0..0x11_0000).filter_map(char::from_u32).filter(|c| *c != '(' && *c != ')') {
        let is_stripped = detokenize_wikitext(&format!("({c})")) == "()";
        assert_eq!(is_stripped, spaces.contains(&c), "{c:?}");
    }
}

#[test]
fn worked_examples_stand_before_a_question_as_in_lm_eval() {
    let golden = golden();
    let mmlu = &golden["mmlu"];
    let subject = mmlu["subject"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let quoted = |field: &Value| format!("\"{}\"", field.as_str().unwrap().replace('"', "\"\""));
    for split in ["test", "dev"] {
        let rows =
            mmlu[split].as_array().unwrap().iter().map(|row| {
                row.as_array().unwrap().iter().map(quoted).collect::<Vec<_>>().join(",")
            });
        fs::create_dir(folder.path().join(split)).unwrap();
        fs::write(
            folder.path().join(format!("{split}/{subject}_{split}.csv")),
            rows.collect::<Vec<_>>().join("\n"),
        )
        .unwrap();
    }
    for (num_fewshot, expected) in mmlu["requests"].as_object().unwrap() {
        let options = LoadOptions { limit: None, num_fewshot: num_fewshot.parse().unwrap() };
        let [task] = &load(folder.path(), &format!("mmlu_{subject}"), options)[..] else {
            panic!()
        };
        let found: Vec<_> = requests(task)
            .into_iter()
            .map(|(_, context, continuation)| json!([context, continuation]))
            .collect();
        assert_eq!(&Value::Array(found), expected);
    }
}

#[test]
fn samples_say_what_was_asked_and_answered() {
    let folder = tempfile::tempdir().unwrap();
    let record = json!({ "goal": "g", "sol1": "short", "sol2": "a longer one", "label": 1 });
    fs::write(folder.path().join("piqa.jsonl"), record.to_string()).unwrap();
    let [task] = &load(folder.path(), "piqa", LoadOptions::default())[..] else { panic!() };
    let encoder_tokenizer = Tokenizer::load("bytes").unwrap();
    let encoder = TaskEncoder::new(&encoder_tokenizer, false, 64).unwrap();
    let answered = |answers: [f64; 2]| {
        evaluate(task, &encoder, &mut Listed(Vec::from(answers).into_iter()), &mut |_| ())
    };
    let result = answered([-3.0, -30.0]).unwrap().unwrap();
    let context = "Question: g\nAnswer:";
    let expected = json!({ "task": "piqa", "doc_id": 0, "gold": 1, "requests": [
        { "context": context, "continuation": " short", "log_likelihood": -3.0 },
        { "context": context, "continuation": " a longer one", "log_likelihood": -30.0 },
    ], "acc": 0.0, "acc_norm": 0.0 });
    assert_eq!(sample_lines(task, &result), format!("{expected}\n"));
    let document = results_document(&[result], &[], json!({ "model": "m" }));
    assert_eq!(document["results"]["piqa"]["acc_stderr,none"], "N/A");
    assert_eq!(document["config"]["model"], "m");
    // A non-finite score would be judged like any other choice.
    for broken in [f64::NEG_INFINITY, f64::INFINITY, f64::NAN] {
        let error = answered([-3.0, broken]).unwrap_err();
        assert!(
            matches!(error, EvaluateError::Task(TaskError::NotFinite { doc_id: 0, .. })),
            "{error}"
        );
    }
}

/// Counts its requests, and gives each id the same probability.
struct Uniform {
    calls: usize,
    stops_after: usize,
}

impl Score for Uniform {
    type Error = Infallible;

    fn score(&mut self, requests: &[Scored]) -> Result<Option<Vec<f64>>, Infallible> {
        self.calls += 1;
        let is_stopped = self.calls > self.stops_after;
        Ok((!is_stopped).then(|| {
            requests.iter().map(|request| -(request.num_scored as f64) * 256_f64.ln()).collect()
        }))
    }
}

#[test]
fn texts_are_measured_by_token_word_and_byte_and_a_stop_is_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    fs::write(&path, "ab cd\n".repeat(10_000)).unwrap();
    fs::write(
        folder.path().join("wikitext_test.jsonl"),
        format!("{}\n{}\n", json!({ "text": "page one" }), json!({ "text": "x".repeat(100) })),
    )
    .unwrap();
    let tokenizer = Tokenizer::load("bytes").unwrap();
    let encoder = TaskEncoder::new(&tokenizer, false, 16).unwrap();
    let tasks = load(
        folder.path(),
        &format!("text:{},wikitext-paper", path.display()),
        LoadOptions::default(),
    );
    let mut never = Uniform { calls: 0, stops_after: usize::MAX };
    let result = evaluate(&tasks[0], &encoder, &mut never, &mut |_| ()).unwrap().unwrap();
    let value = |name: &str| result.value(name).unwrap();
    assert!(never.calls > 3, "a long document is asked about in portions");
    assert!(
        (value("perplexity") - 256.0).abs() < 1e-9
            && (value("bits_per_byte") - 8.0).abs() < 1e-12
            && (value("token_loss") - 256_f64.ln()).abs() < 1e-12
    );
    let words = 20_000.0 + 1.0;
    assert!((value("word_perplexity").ln() - 60_000.0 * 256_f64.ln() / words).abs() < 1e-9);
    let mut stopped = Uniform { calls: 0, stops_after: 1 };
    assert_eq!(evaluate(&tasks[0], &encoder, &mut stopped, &mut |_| ()).unwrap(), None);
    // 8 + 100 bytes and two BOS tokens are six blocks of 16, and a tail.
    let paper = evaluate(&tasks[1], &encoder, &mut never, &mut |_| ()).unwrap().unwrap();
    assert_eq!((paper.answers.len(), paper.num_documents), (6, 2));
    assert!((paper.value("perplexity").unwrap() - 256.0).abs() < 1e-9);
}
