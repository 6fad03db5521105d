//! `patchtui tokenizer train`, and the built-in vocabulary.

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use patchtui::config::{Count, DataConfig, Share};
use patchtui::data::grammar::Grammar;
use patchtui::data::{
    DataError, PrepareRequest, TextRules, Tokenizer, TrainTokenizerRequest, prepare,
    train_tokenizer, train_vocabulary,
};
use serde_json::Value;

use crate::data::in_order;

/// Seed, number of stories and size of the built-in vocabulary's training.
const DEMO_SEED: u64 = 2026;
const DEMO_STORIES: usize = 5000;
const DEMO_VOCAB_SIZE: usize = 1024;

#[test]
fn the_demo_tokenizer_is_what_training_makes() {
    let stories = Grammar::built_in().documents(DEMO_SEED).take(DEMO_STORIES);
    let vocabulary = train_vocabulary(stories, DEMO_VOCAB_SIZE).unwrap();
    assert_eq!(vocabulary.size, DEMO_VOCAB_SIZE);
    let committed = include_str!("../../assets/demo-tokenizer.json");
    if vocabulary.json != committed {
        let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo-tokenizer.json");
        fs::write(&fresh, vocabulary.json).unwrap();
        panic!(
            "if the grammar was changed on purpose: cp {} assets/demo-tokenizer.json",
            fresh.display()
        );
    }
}

#[test]
fn every_byte_survives_every_built_in_tokenizer() {
    let text = "Tom \u{e9}\u{4e2d}\u{1f980}\t\n  two spaces, digits 123 and \u{7f} control";
    for (choice, vocab_size, bos, eos) in
        [("bytes", 256, 0xFE, 0xFF), ("demo", DEMO_VOCAB_SIZE, 0, 1)]
    {
        let tokenizer = Tokenizer::load(choice).unwrap();
        assert_eq!(
            (tokenizer.vocab_size(), tokenizer.bos(), tokenizer.eos()),
            (vocab_size, Some(bos), Some(eos))
        );
        let ids = tokenizer.encode(text).unwrap();
        assert!(ids.iter().all(|id| (*id as usize) < vocab_size));
        assert_eq!(tokenizer.decode(&ids), text);
        assert_eq!(tokenizer.decode(&[&[bos], ids.as_slice(), &[eos, 4_000_000]].concat()), text);
    }
}

#[test]
fn training_on_files_writes_a_tokenizer_that_loads() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = "the cat sat on the mat and the hat ".repeat(50);
    fs::write(path("a.txt"), &text).unwrap();
    fs::write(path("b.jsonl"), "{\"body\": \"caf\u{e9} and the\"}\n").unwrap();
    let request = TrainTokenizerRequest {
        files: vec![path("a.txt"), path("b.jsonl")],
        vocab_size: 270,
        text_field: "body".into(),
    };
    let (vocabulary, report) = train_tokenizer(&request).unwrap();
    assert_eq!((report.vocab_size, report.documents), (270, 2));
    let output = path("out/tokenizer.json");
    let train = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchtui"));
        command.args([
            "tokenizer",
            "train",
            "a.txt",
            "b.jsonl",
            "--text-field",
            "body",
            "--output",
            "out/tokenizer.json",
        ]);
        command
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
            .status
            .code()
    };
    assert_eq!(train(&["--vocab-size", "270"]), Some(0));
    assert_eq!(
        fs::read_to_string(&output).unwrap(),
        vocabulary.json,
        "the same text gives the same file"
    );
    let tokenizer = Tokenizer::load(output.to_str().unwrap()).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.bos(), tokenizer.eos()), (270, Some(0), Some(1)));
    let ids = tokenizer.encode(&text).unwrap();
    assert!(ids.len() * 2 < text.len() && tokenizer.decode(&ids) == text);
    assert_eq!(train(&["--vocab-size", "280"]), Some(2), "it exists");
    assert_eq!(train(&["--vocab-size", "257", "--force"]), Some(2));
    let small = TrainTokenizerRequest { vocab_size: 257, ..request.clone() };
    assert!(matches!(
        train_tokenizer(&small),
        Err(DataError::VocabularyTooSmall { minimum: 258, .. })
    ));
    fs::write(path("b.jsonl"), "{\"text\": \"no body\"}\n").unwrap();
    assert!(matches!(train_tokenizer(&request), Err(DataError::TooManyBadRecords { .. })));
    assert_eq!(train(&["--vocab-size", "280", "--force"]), Some(2));
    assert_eq!(fs::read_to_string(&output).unwrap(), vocabulary.json, "a failure changes nothing");
    assert_eq!(fs::read_dir(path("out")).unwrap().count(), 1, "no temporary file is left");
}

/// The folder of test data, or a printed line that says why there is none.
fn test_data() -> Option<PathBuf> {
    let folder = std::env::var_os("PATCHTUI_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: PATCHTUI_TEST_DATA does not name the folder of test data");
    }
    folder
}

#[test]
fn llama_ids_are_those_of_hugging_face() {
    let Some(data) = test_data() else { return };
    let tokenizer =
        Tokenizer::load(data.join("llama2_tokenizer/tokenizer.json").to_str().unwrap()).unwrap();
    assert_eq!(
        (tokenizer.vocab_size(), tokenizer.bos(), tokenizer.eos()),
        (32_000, Some(1), Some(2))
    );
    let read = |path: PathBuf| -> Vec<Value> {
        fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let ids = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    let mut compared = 0;
    for task in
        ["arc_challenge", "arc_easy", "hellaswag", "mmlu_abstract_algebra", "piqa", "winogrande"]
    {
        let requests = read(data.join(format!("lm_eval_golden/{task}_requests.jsonl")));
        for golden in read(data.join(format!("lm_eval_golden/{task}_tokens.jsonl"))) {
            let same = |request: &&Value| {
                request["doc_id"] == golden["doc_id"] && request["idx"] == golden["idx"]
            };
            let request = requests.iter().find(same).unwrap();
            // The harness encodes context and continuation together, with trailing spaces moved to
            // the continuation.
            let whole = format!(
                "{}{}",
                request["context"].as_str().unwrap(),
                request["continuation"].as_str().unwrap()
            );
            let expected = [ids(&golden["context_enc"]), ids(&golden["continuation_enc"])].concat();
            assert_eq!(tokenizer.encode(&whole).unwrap(), expected, "{task}: {whole}");
            compared += 1;
        }
    }
    assert_eq!(compared, 200);
}

/// Bug report 3.
#[test]
fn a_llama_document_of_27_000_words_begins_and_ends_once() {
    let Some(data) = test_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let text = ["the", "cat", "saw", "a", "dog"]
        .into_iter()
        .cycle()
        .take(27_000)
        .collect::<Vec<_>>()
        .join(" ");
    fs::write(folder.path().join("a.txt"), &text).unwrap();
    let config = DataConfig {
        add_eos: true,
        max_document_words: Count(10_000),
        ..llama(&data, folder.path().join("a.txt"))
    };
    let ids = |rules: TextRules| -> Vec<u32> {
        let cache = folder.path().join("cache");
        let request = PrepareRequest {
            data: &config,
            seed: 1,
            generated_tokens: 0,
            block_tokens: 8,
            cache: &cache,
            trained_on: None,
            rules,
        };
        in_order(&prepare(&request, &mut |_, _, _| ControlFlow::Continue(())).unwrap())
    };
    let counts =
        |ids: &[u32]| [1, 2, 29_871].map(|wanted| ids.iter().filter(|id| **id == wanted).count());
    let now = ids(TextRules::Current);
    assert_eq!(counts(&now), [1, 1, 0]);
    let whole = Tokenizer::load(&config.tokenizer).unwrap().encode(&text).unwrap();
    assert_eq!(now, [vec![1], whole, vec![2]].concat());
    assert_eq!(
        counts(&ids(TextRules::First)),
        [3, 3, 2],
        "a run that exists keeps what was reported"
    );
}

/// The paper's tokenizer on `files`.
fn llama(data: &Path, files: PathBuf) -> DataConfig {
    DataConfig {
        files: Some(vec![files]),
        generator: None,
        validation_share: Some(Share::new(0.01).unwrap()),
        validation_files: None,
        tokenizer: data.join("llama2_tokenizer/tokenizer.json").display().to_string(),
        text_field: "text".into(),
        add_bos: true,
        add_eos: false,
        max_document_words: Count(1_000_000),
        max_bad_records: 0.0,
        max_lost_text: 0.05,
        shuffle: false,
        block_tokens: None,
    }
}

/// The count is that of the paper's protocol, see the design's method page, section 7.
#[test]
fn the_paper_s_test_set_has_335_748_llama_tokens() {
    let Some(data) = test_data() else { return };
    let cache = tempfile::tempdir().unwrap();
    let config = llama(&data, data.join("wikitext103-test"));
    let request = PrepareRequest {
        data: &config,
        seed: 1,
        generated_tokens: 0,
        block_tokens: 2048,
        cache: cache.path(),
        trained_on: None,
        rules: TextRules::Current,
    };
    let prepared = prepare(&request, &mut |_, _, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(prepared.train.len() + prepared.validation.len(), 335_748);
    assert_eq!(prepared.report.documents, 62);
}
