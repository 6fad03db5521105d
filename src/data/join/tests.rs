use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::data::documents::{DocumentOptions, DocumentReader};
use crate::data::{TextRules, find_files};

const MARKS: SpecialTokens = SpecialTokens { bos: Some(1_000_000), eos: Some(1_000_001) };

/// The ids of `text` as a document that is cut about every 4 KB.
fn joined(tokenizer: &Tokenizer, text: &str) -> (Vec<u32>, u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    std::fs::write(&path, text).unwrap();
    let options = DocumentOptions {
        text_field: String::new(),
        max_document_words: 1,
        max_bad_records: 0.0,
        reach: REACH,
        rules: TextRules::Current,
    };
    let mut joiner = Joiner::new(tokenizer, MARKS);
    let mut num_pieces = 0;
    DocumentReader::new(options)
        .read(&find_files(&[path]).unwrap()[0], &mut |piece, _| {
            num_pieces += 1;
            joiner.push(EncodedPiece::new(tokenizer, piece)?)
        })
        .unwrap();
    assert!(num_pieces > 1 || text.len() < 20_000, "the text is cut");
    (joiner.take_ready(), joiner.hard_cuts)
}

fn check(name: &str, tokenizer: &Tokenizer, text: &str) {
    let whole = tokenizer.encode(text).unwrap();
    let (ids, hard_cuts) = joined(tokenizer, text);
    assert_eq!(hard_cuts, 0, "{name}");
    let expected = [vec![1_000_000], whole, vec![1_000_001]].concat();
    let first = ids.iter().zip(&expected).position(|(a, b)| a != b);
    assert!(
        ids == expected,
        "{name}: {} ids instead of {}, the first other one at {first:?}",
        ids.len(),
        expected.len()
    );
}

/// Words, spaces of all lengths, numbers, scripts without spaces, and what tokenizers treat as
/// special.
fn mixed_text(seed: u64, bytes: usize) -> String {
    let parts = [
        "the ",
        "and ",
        "unbelievable ",
        "patch",
        "es ",
        "don't ",
        "we'll ",
        "\n",
        "\n\n\n",
        "  ",
        "        ",
        "1234567890",
        "42 ",
        "3.14159 ",
        "caf\u{e9} ",
        "\u{4e2d}\u{6587}\u{6f22}\u{5b57}",
        "\u{65e5}\u{672c}\u{8a9e}\u{306e}",
        "e\u{301}",
        "\u{1f980}\u{200d}\u{1f980} ",
        "<s>",
        " </s> ",
        "<unk>",
        "\u{2581}",
        "\u{2581}\u{2581}",
        "aaaaaaaaaaaaaaaaaaaaaaaa",
        "=====",
        "...",
        "\t",
        "\u{a0}",
        "\u{3000}",
        "!?",
        " (x) ",
        "A",
        "ZZZ ",
        "``quoted'' ",
        "\u{fb01}ne ",
        "x",
    ];
    let mut state = seed;
    let mut text = String::new();
    while text.len() < bytes {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(parts[(state >> 33) as usize % parts.len()]);
    }
    text
}

fn characters() -> Vec<char> {
    let mut characters: Vec<char> = mixed_text(1, 20_000).chars().collect();
    characters.sort_unstable();
    characters.dedup();
    characters
}

/// A BPE over characters with merges of frequent pairs.
fn bpe(extra: &Value) -> Tokenizer {
    let merges = [
        "t h",
        "th e",
        "a n",
        "an d",
        "a a",
        "aa aa",
        "aaaa aaaa",
        "\u{2581} the",
        "\u{2581} and",
        "\u{2581} \u{2581}",
        "\u{2581}\u{2581} \u{2581}\u{2581}",
        "1 2",
        "3 4",
        "12 34",
        "= =",
        "= ==",
        ". .",
        ".. .",
        "p a",
        "t c",
        "pa tc",
        "patc h",
        "e s",
    ];
    let mut vocab = serde_json::Map::new();
    let mut add = |token: String| {
        let id = vocab.len();
        vocab.entry(token).or_insert_with(|| id.into());
    };
    add("<unk>".into());
    characters()
        .into_iter()
        .chain(['\u{2581}', '\u{120}', '\u{10a}'])
        .for_each(|character| add(character.to_string()));
    for merge in merges {
        add(merge.replace(' ', ""));
    }
    let mut json = json!({ "version": "1.0", "added_tokens": [], "model": { "type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "vocab": vocab, "merges": merges } });
    for (key, value) in extra.as_object().unwrap() {
        json[key] = value.clone();
    }
    Tokenizer::from_json("test", &json.to_string()).unwrap()
}

fn tokenizers() -> Vec<(&'static str, Tokenizer)> {
    let metaspace = |scheme: &str, split: bool| json!({ "pre_tokenizer": { "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": split } });
    let llama = json!({ "normalizer": { "type": "Sequence", "normalizers": [
        { "type": "Prepend", "prepend": "\u{2581}" }, { "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" }] } });
    let digits = json!({ "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
        { "type": "Split", "pattern": { "Regex": "\\p{N}{1,3}|\\s+(?!\\S)|\\s+|[^\\s\\p{N}]+" }, "behavior": "Isolated", "invert": false }] } });
    let specials = json!({ "added_tokens": [
        { "id": 0, "content": "<unk>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true },
        { "id": 500, "content": "<s>", "single_word": false, "lstrip": true, "rstrip": true, "normalized": false, "special": true }],
        "normalizer": { "type": "Sequence", "normalizers": [{ "type": "NFKC" }, { "type": "Lowercase" }, { "type": "Strip", "strip_left": true, "strip_right": true }] } });
    let pieces: Vec<Value> = characters()
        .iter()
        .map(|character| json!([character.to_string(), -9.0]))
        .chain(
            [
                "the",
                "\u{2581}the",
                "and",
                "\u{2581}",
                "\u{2581}and",
                "un",
                "believ",
                "able",
                "aaa",
                "aaaa",
                "====",
                "12",
                "234",
                "patches",
            ]
            .map(|piece| json!([piece, -3.5])),
        )
        .collect();
    let unigram = |split: bool| {
        let vocab: Vec<Value> = [json!(["<unk>", 0.0])].into_iter().chain(pieces.clone()).collect();
        let mut json = metaspace("always", split);
        json["model"] = json!({ "type": "Unigram", "unk_id": 0, "vocab": vocab });
        bpe(&json)
    };
    let words = json!({ "[UNK]": 0, "the": 1, "and": 2, "un": 3, "##believ": 4, "##able": 5, "patch": 6, "##es": 7, "a": 8, "##a": 9, "don": 10, "'": 11, "t": 12 });
    let word_piece = json!({ "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": words } });
    vec![
        ("bytes", Tokenizer::load("bytes").unwrap()),
        ("byte-level", Tokenizer::load("demo").unwrap()),
        ("Metaspace first", bpe(&metaspace("first", true))),
        ("Metaspace first, one word", bpe(&metaspace("first", false))),
        ("Metaspace always", bpe(&metaspace("always", true))),
        ("LLaMA-2's normalizer", bpe(&llama)),
        ("numbers of three digits", bpe(&digits)),
        ("added tokens that take spaces", bpe(&specials)),
        ("Unigram", unigram(true)),
        ("Unigram, one word", unigram(false)),
        ("WordPiece", bpe(&word_piece)),
    ]
}

#[test]
fn a_document_in_pieces_has_the_ids_of_the_whole() {
    for (name, tokenizer) in tokenizers() {
        for seed in 0..4 {
            check(name, &tokenizer, &mixed_text(seed, 40_000));
        }
    }
}

#[test]
fn text_without_a_seam_is_encoded_as_a_whole() {
    let runs = [
        "a".repeat(30_000),
        format!("x{}", "a".repeat(30_000)),
        "12345".repeat(8000),
        format!("{}the{}", " ".repeat(20_000), " ".repeat(20_001)),
        "\u{4e2d}".repeat(9000),
    ];
    for (name, tokenizer) in tokenizers() {
        for text in &runs {
            check(name, &tokenizer, text);
        }
    }
}

#[test]
fn the_llama_2_tokenizer_gives_the_ids_of_the_whole() {
    let Some(data) = std::env::var_os("PATCHTUI_TEST_DATA").map(PathBuf::from) else { return };
    let tokenizer =
        Tokenizer::load(&data.join("llama2_tokenizer/tokenizer.json").to_string_lossy()).unwrap();
    check("LLaMA-2", &tokenizer, &mixed_text(7, 60_000));
    let book = std::fs::read_to_string(data.join("tinyshakespeare/input.txt"));
    if let Ok(book) = book {
        check("LLaMA-2", &tokenizer, &book[..200_000]);
    }
}

#[test]
fn text_without_end_and_without_a_seam_is_cut_and_counted() {
    // Merges to eight letters are counted from the start of the run, which no window sees.
    let (name, tokenizer) = &tokenizers()[5];
    let text = format!("x{}", "a".repeat(3 * MAX_JOINED_BYTES / 2));
    let (ids, hard_cuts) = joined(tokenizer, &text);
    assert_eq!(hard_cuts, 1, "{name}");
    let letters =
        |id: &u32| tokenizer.token(*id).map_or(0, |token| token.matches(['a', 'x']).count());
    assert_eq!(ids.iter().map(letters).sum::<usize>(), text.len(), "nothing is lost");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_text_in_pieces_has_the_ids_of_the_whole(seed: u64, text in "[ab \u{e9}\u{4e2d}\n1'.]{6000,9000}", which in 0_usize..11) {
        let (name, tokenizer) = &tokenizers()[which];
        check(name, tokenizer, &text);
        check(name, tokenizer, &mixed_text(seed, 20_000));
    }
}
