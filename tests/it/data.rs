//! From text on disk to token streams: preparing, caching, rebuilding, refusing.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail as loudly as the tests")]

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use patchtui::advice::{Advice, Audience, USAGE};
use patchtui::config::{Count, DataConfig, Share, TextGenerator};
use patchtui::data::{
    BlockOrder, DataError, Inputs, Loader, PrepareRequest, Prepared, TextRules, TokenStream,
    Tokenizer, prepare,
};
use tempfile::TempDir;

const BOS: u32 = 0xFE;
const EOS: u32 = 0xFF;

fn config() -> DataConfig {
    DataConfig {
        files: None,
        generator: None,
        validation_share: Some(Share::new(0.1).unwrap()),
        validation_files: None,
        tokenizer: "bytes".into(),
        text_field: "text".into(),
        add_bos: true,
        add_eos: false,
        max_document_words: Count(10_000),
        max_bad_records: 0.0,
        max_lost_text: 0.05,
        shuffle: true,
        block_tokens: None,
    }
}

fn check(config: &DataConfig) -> Result<(), DataError> {
    Inputs::find(config).map(|_| ())
}

/// A folder with files, and a cache beside it.
pub(crate) struct Workplace {
    folder: TempDir,
}

impl Workplace {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let workplace = Self { folder };
        for (name, content) in files {
            fs::write(workplace.path(name), content).unwrap();
        }
        workplace
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn config(&self, files: &[&str]) -> DataConfig {
        DataConfig { files: Some(files.iter().map(|name| self.path(name)).collect()), ..config() }
    }

    pub(crate) fn request<'a>(data: &'a DataConfig, cache: &'a Path) -> PrepareRequest<'a> {
        PrepareRequest {
            data,
            seed: 1,
            generated_tokens: 10_000,
            block_tokens: 8,
            cache,
            trained_on: None,
            rules: TextRules::Current,
        }
    }

    fn prepare(&self, data: &DataConfig) -> Result<Prepared, DataError> {
        prepare(&Self::request(data, &self.path("cache")), &mut |_, _, _| ControlFlow::Continue(()))
    }

    /// Names in the cache, including half-built ones.
    fn cached(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("cache")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn all(stream: &TokenStream) -> Vec<u32> {
    let mut ids = vec![0; stream.len() as usize];
    stream.read(0, &mut ids).unwrap();
    ids
}

/// All tokens in the order of the text, whichever of them are held out.
pub(crate) fn in_order(prepared: &Prepared) -> Vec<u32> {
    let (_, held_out) = prepared.held_out_ranges().unwrap();
    let mut train = all(&prepared.train).into_iter();
    let mut validation: Vec<_> =
        held_out.into_iter().flatten().zip(all(&prepared.validation)).collect();
    validation.sort_unstable();
    let mut ids = Vec::new();
    for (at, id) in validation {
        ids.extend(train.by_ref().take(at as usize - ids.len()));
        ids.push(id);
    }
    ids.extend(train);
    ids
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn documents_follow_one_another_with_their_special_tokens() {
    let work = Workplace::new(&[
        ("b.txt", "second file"),
        ("a.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n"),
    ]);
    let data = DataConfig { add_eos: true, ..work.config(&["a.jsonl", "b.txt"]) };
    let prepared = work.prepare(&data).unwrap();
    let mut expected = Vec::new();
    for text in ["one", "two", "second file"] {
        expected.extend([vec![BOS], bytes(text), vec![EOS]].concat());
    }
    assert_eq!(in_order(&prepared), expected);
    assert_eq!(prepared.validation.len(), 8, "a share of 0.1 is less than a block");
    assert_eq!(
        (prepared.report.files, prepared.report.documents, prepared.report.text_bytes),
        (2, 3, 17)
    );
    assert_eq!(prepared.entropy_rate, None);
}

/// Records of `texts`, one a line.
fn records(texts: impl Iterator<Item = String>) -> String {
    texts.map(|text| serde_json::json!({ "text": text }).to_string() + "\n").collect()
}

#[test]
fn validation_text_is_whole_documents_of_all_files_and_the_same_for_every_seed() {
    let texts = |from: u32, to: u32| (from..to).map(|number| format!("document {number}"));
    let work = Workplace::new(&[
        ("a.jsonl", &records(texts(1000, 1500))),
        ("b.jsonl", &records(texts(1500, 2000))),
    ]);
    let data = work.config(&["a.jsonl", "b.jsonl"]);
    let prepared = work.prepare(&data).unwrap();
    // 13 bytes of text and a BOS token each.
    assert_eq!((prepared.train.len(), prepared.validation.len()), (12_600, 1400));
    assert_eq!(
        prepared.held_out.unwrap().note(),
        "held out 100 documents for validation (1400 tokens)"
    );
    let held_out = all(&prepared.validation);
    let numbers: Vec<String> = held_out
        .split(|id| *id == BOS)
        .skip(1)
        .map(|ids| ids.iter().map(|id| *id as u8 as char).collect())
        .collect();
    assert!(
        numbers.iter().all(|text| text.len() == 13 && text.starts_with("document 1")),
        "{numbers:?}"
    );
    let of_first_file = numbers.iter().filter(|text| text.as_str() < "document 1500").count();
    assert!((30..=70).contains(&of_first_file), "{of_first_file} of 100");
    let cache = work.path("cache");
    let again = |request: &PrepareRequest<'_>| {
        prepare(request, &mut |_, _, _| ControlFlow::Continue(())).unwrap()
    };
    let other_seed =
        again(&PrepareRequest { seed: 2, block_tokens: 16, ..Workplace::request(&data, &cache) });
    assert_eq!((all(&other_seed.validation), other_seed.is_reused), (held_out.clone(), true));
    // More of it is held out of the same prepared tokens, and what was held out before still is.
    let more = DataConfig { validation_share: Some(Share::new(0.3).unwrap()), ..data.clone() };
    let more = work.prepare(&more).unwrap();
    assert!(more.is_reused && all(&more.validation).starts_with(&held_out));
    // Where files are added, the documents of the others stay on their side, but for the last one.
    fs::write(work.path("0.jsonl"), records(texts(2000, 2100))).unwrap();
    let grown = work.prepare(&work.config(&["0.jsonl", "a.jsonl", "b.jsonl"])).unwrap();
    let grown: Vec<_> =
        all(&grown.validation).split(|id| *id == BOS).map(<[u32]>::to_vec).collect();
    let kept = held_out
        .split(|id| *id == BOS)
        .filter(|document| grown.contains(&document.to_vec()))
        .count();
    assert!(kept >= 90, "{kept} of 100");
}

#[test]
fn runs_that_exist_keep_the_end_of_the_text_as_validation_text() {
    let work = Workplace::new(&[(
        "a.jsonl",
        &records((0..200).map(|number| format!("document {number:03}"))),
    )]);
    let (data, cache) = (work.config(&["a.jsonl"]), work.path("cache"));
    for rules in [TextRules::First, TextRules::Second] {
        let request = PrepareRequest { rules, ..Workplace::request(&data, &cache) };
        let prepared = prepare(&request, &mut |_, _, _| ControlFlow::Continue(())).unwrap();
        let last: Vec<u32> = (180..200)
            .flat_map(|number| [vec![BOS], bytes(&format!("document {number:03}"))].concat())
            .collect();
        assert_eq!((all(&prepared.validation), prepared.held_out), (last, None), "{rules:?}");
    }
}

/// Bug report 1.
#[test]
fn a_byte_order_mark_is_no_text() {
    let text = "The cat saw a dog, and said nothing.";
    let work = Workplace::new(&[("a.txt", text), ("b.txt", &format!("\u{feff}{text}"))]);
    let ids = |name: &str| all(&work.prepare(&work.config(&[name])).unwrap().train);
    assert_eq!(ids("b.txt"), ids("a.txt"));
}

/// Bug report 11.
#[test]
fn a_tokenizer_inside_of_the_data_folder_is_passed_over_and_named() {
    let work = Workplace::new(&[]);
    fs::create_dir(work.path("d")).unwrap();
    fs::write(work.path("d/a.txt"), "abc ab ".repeat(10)).unwrap();
    fs::write(work.path("d/tokenizer.json"), WITH_MARKS).unwrap();
    let data = DataConfig {
        tokenizer: work.path("d/tokenizer.json").display().to_string(),
        ..work.config(&["d"])
    };
    let report = work.prepare(&data).unwrap().report;
    assert_eq!((report.files, report.documents), (1, 1));
    assert!(
        report.notes.len() == 1 && report.notes[0].contains("tokenizer.json"),
        "{:?}",
        report.notes
    );
}

#[test]
fn a_long_document_has_one_beginning_and_one_end() {
    let text = "word ".repeat(20_000);
    let work = Workplace::new(&[("a.txt", &text)]);
    let data =
        DataConfig { max_document_words: Count(30), add_eos: true, ..work.config(&["a.txt"]) };
    let prepared = work.prepare(&data).unwrap();
    let ids = in_order(&prepared);
    assert_eq!(ids, [vec![BOS], bytes(&text), vec![EOS]].concat());
    assert_eq!(prepared.report.split_documents, 1);
    let cache = work.path("cache");
    let first = PrepareRequest { rules: TextRules::First, ..Workplace::request(&data, &cache) };
    let first = prepare(&first, &mut |_, _, _| ControlFlow::Continue(())).unwrap();
    let old_ids = in_order(&first);
    assert_eq!(
        old_ids.iter().filter(|id| **id == BOS).count(),
        667,
        "a run that exists keeps a beginning per piece"
    );
    assert_ne!(first.fingerprint, prepared.fingerprint);
}

/// Bug report 2.
#[test]
fn another_bos_token_beside_the_tokenizer_gives_other_ids() {
    let text = "abc ab ".repeat(10);
    let work = Workplace::new(&[("a.txt", &text), ("t.json", WITH_MARKS)]);
    let data = DataConfig {
        tokenizer: work.path("t.json").display().to_string(),
        ..work.config(&["a.txt"])
    };
    assert_eq!(in_order(&work.prepare(&data).unwrap())[0], 1);
    fs::write(work.path("tokenizer_config.json"), "\u{feff}{\"bos_token\": \"</s>\"}").unwrap();
    let other = work.prepare(&data).unwrap();
    assert_eq!((in_order(&other)[0], other.is_reused), (2, false));
    assert_eq!(work.cached().len(), 2);
}

/// A BPE over six letters, with the special tokens of `LLaMA` but without an unknown token.
const WITH_MARKS: &str = r#"{"version":"1.0","truncation":null,"added_tokens":[
    {"id":1,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
    {"id":2,"content":"</s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
    "model":{"type":"BPE","dropout":null,"unk_token":null,"vocab":{"<pad>":0,"<s>":1,"</s>":2,"a":3,"b":4,"c":5," ":6,"ab":7,"abc":8},"merges":["a b","ab c"]}}"#;

/// Bug report 5.
#[test]
fn dropout_of_a_tokenizer_file_is_switched_off_and_said() {
    let random = WITH_MARKS.replace("\"dropout\":null", "\"dropout\":0.5");
    let text = "abc ".repeat(500);
    let work = Workplace::new(&[("a.txt", &text), ("t.json", WITH_MARKS), ("u.json", &random)]);
    let with = |name: &str| {
        work.prepare(&DataConfig {
            tokenizer: work.path(name).display().to_string(),
            ..work.config(&["a.txt"])
        })
        .unwrap()
    };
    let (certain, random) = (with("t.json"), with("u.json"));
    assert_eq!(all(&certain.train), all(&random.train));
    assert_eq!(certain.report.notes, Vec::<String>::new());
    assert_eq!(
        random.report.notes,
        ["ignored dropout = 0.5 in the tokenizer file, so that the same text always gets the \
          same tokens"]
    );
    assert_eq!(with("u.json").report.notes.len(), 1, "from the cache as well");
}

/// Bug report 4.
#[test]
fn what_a_tokenizer_loses_is_counted_and_refused_above_a_share() {
    let lossy = format!("{}\u{e9}\u{4e2d}<s>", "abc ab ".repeat(30));
    let work = Workplace::new(&[
        ("a.txt", &lossy),
        ("b.txt", "na\u{ef}ve \u{6f22}\u{5b57} abc"),
        ("t.json", WITH_MARKS),
    ]);
    let data = |name: &str, limit: f64| DataConfig {
        max_lost_text: limit,
        tokenizer: work.path("t.json").display().to_string(),
        ..work.config(&[name])
    };
    let report = work.prepare(&data("a.txt", 0.05)).unwrap().report;
    assert_eq!(
        (report.losses.dropped_characters, report.losses.characters, report.losses.control_tokens),
        (2, 212, 1)
    );
    let warnings = report.warnings();
    assert!(
        warnings[0].starts_with("the tokenizer has no token for 2 of 212 characters")
            && warnings[0].contains("'\u{e9}', '\u{4e2d}'"),
        "{warnings:?}"
    );
    assert!(warnings[1].contains("1 of 121 tokens are control tokens"), "{warnings:?}");
    let error = work.prepare(&data("b.txt", 0.05)).unwrap_err();
    assert!(
        matches!(&error, DataError::TextLost { what, .. } if what.contains("6 of 12 characters")),
        "{error}"
    );
    assert_eq!(work.cached().len(), 1, "nothing is left of it");
    let unknown = WITH_MARKS.replace("\"unk_token\":null", "\"unk_token\":\"<pad>\"");
    fs::write(work.path("t.json"), unknown).unwrap();
    let report = work.prepare(&data("a.txt", 0.05)).unwrap().report;
    assert_eq!((report.losses.unknown_tokens, report.losses.dropped_characters), (2, 0));
    assert!(matches!(work.prepare(&data("b.txt", 0.05)), Err(DataError::TextLost { .. })));
}

/// Bug reports 8 and 10.
#[test]
fn a_folder_s_other_files_are_passed_over_and_named() {
    let work = Workplace::new(&[]);
    let folder = work.path("d");
    fs::create_dir(&folder).unwrap();
    let texts = [("a.txt", "some text"), ("b.ndjson", "{\"text\": \"of records\"}"), ("e.txt", "")];
    let others = [
        "README.md",
        "requirements.txt",
        "dataset_info.json",
        "c.jsonl.xz",
        "t.csv",
        "u.csv",
        "Makefile",
        "x.zip",
    ];
    for (name, content) in texts.into_iter().chain(others.map(|name| (name, "other text"))) {
        fs::write(folder.join(name), content).unwrap();
    }
    fs::write(folder.join("mine.json"), WITH_MARKS).unwrap();
    let prepared = work.prepare(&work.config(&["d"])).unwrap();
    let ids = in_order(&prepared);
    assert_eq!(ids, [vec![BOS], bytes("some text"), vec![BOS], bytes("of records")].concat());
    assert_eq!(
        prepared.report.notes,
        [
            "skipped 1 file without an extension (Makefile)",
            "skipped 3 files that describe data or programs (README.md, dataset_info.json, \
             requirements.txt); to train on one, name it in data.files",
            "skipped 1 .jsonl.xz file (c.jsonl.xz)",
            "skipped 1 tokenizer file (mine.json)",
            "skipped 2 .csv files (t.csv, u.csv)",
            "skipped 1 .zip file (x.zip)",
            "skipped 1 empty file (e.txt)",
        ]
    );
    let named = work.prepare(&work.config(&["d/README.md", "d/requirements.txt"])).unwrap();
    assert_eq!((named.report.files, named.report.notes.len()), (2, 0), "what is named is read");
    fs::remove_file(folder.join("a.txt")).unwrap();
    fs::remove_file(folder.join("b.ndjson")).unwrap();
    fs::remove_file(folder.join("e.txt")).unwrap();
    let error = work.prepare(&work.config(&["d"])).unwrap_err();
    assert!(
        error.to_string().contains("c.jsonl.xz")
            && error.hint(Audience::Command).contains("name a file itself"),
        "{error}"
    );
}

#[test]
fn utf_16_is_named_with_the_command_that_converts_it() {
    let work = Workplace::new(&[]);
    let wide: Vec<u8> = "\u{feff}some text".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for name in ["a.txt", "a.jsonl"] {
        fs::write(work.path(name), &wide).unwrap();
        let error = work.prepare(&work.config(&[name])).unwrap_err();
        assert!(error.to_string().ends_with("is UTF-16 text, not UTF-8"), "{error}");
        assert!(
            error.hint(Audience::Command).starts_with("convert it: iconv -f UTF-16 -t UTF-8 "),
            "{}",
            error.hint(Audience::Command)
        );
    }
}

#[test]
fn a_tokenizer_that_would_exhaust_memory_is_refused_in_words() {
    let work = Workplace::new(&[("a.txt", "some text that is long enough")]);
    let with = |change: &str| {
        fs::write(
            work.path("t.json"),
            WITH_MARKS.replace("\"model\"", &format!("{change},\"model\"")),
        )
        .unwrap();
        Tokenizer::load(work.path("t.json").to_str().unwrap())
            .and_then(|tokenizer| tokenizer.encode("eee"))
    };
    let replace = format!(
        r#"{{"type":"Replace","pattern":{{"String":"e"}},"content":"{}"}}"#,
        "e".repeat(1000)
    );
    let sequence = format!(
        r#""normalizer":{{"type":"Sequence","normalizers":[{replace},{replace},{replace}]}}"#
    );
    let error = with(&sequence).unwrap_err();
    assert!(error.to_string().contains("1000000000 times as long"), "{error}");
    let regex = format!(
        r#""pre_tokenizer":{{"type":"Split","pattern":{{"Regex":"{}"}},"behavior":"Isolated","invert":false}}"#,
        "a".repeat(10_000_000)
    );
    let error = with(&regex).unwrap_err();
    assert!(error.to_string().contains("10000000 bytes"), "{error}");
}

#[test]
fn validation_files_are_a_stream_of_their_own() {
    let work = Workplace::new(&[("a.txt", "training text"), ("v.txt", "validation")]);
    let data = DataConfig {
        validation_share: None,
        validation_files: Some(vec![work.path("v.txt")]),
        ..work.config(&["a.txt"])
    };
    let prepared = work.prepare(&data).unwrap();
    assert_eq!(all(&prepared.train), [vec![BOS], bytes("training text")].concat());
    assert_eq!(all(&prepared.validation), [vec![BOS], bytes("validation")].concat());
    assert!(work.prepare(&data).unwrap().is_reused);
    let shared = DataConfig { validation_files: Some(vec![work.path("a.txt")]), ..data };
    assert!(matches!(work.prepare(&shared), Err(DataError::SharedFile { .. })));
}

#[test]
fn prepared_tokens_are_found_again_until_something_changes() {
    let work = Workplace::new(&[("a.txt", "some text that is long enough")]);
    let data = work.config(&["a.txt"]);
    let first = work.prepare(&data).unwrap();
    let second = work.prepare(&data).unwrap();
    assert!(!first.is_reused && second.is_reused);
    assert_eq!(
        (first.fingerprint.clone(), all(&first.train), first.report.clone()),
        (second.fingerprint, all(&second.train), second.report)
    );
    let with_eos = work.prepare(&DataConfig { add_eos: true, ..data.clone() }).unwrap();
    assert!(!with_eos.is_reused && with_eos.fingerprint != first.fingerprint);
    fs::write(work.path("a.txt"), "another text that is long enough too").unwrap();
    let changed = work.prepare(&data).unwrap();
    assert!(!changed.is_reused && changed.fingerprint != first.fingerprint);
    assert_eq!(work.cached().len(), 3);
}

#[test]
fn a_broken_cache_is_built_anew() {
    let damages: [fn(&Path); 6] = [
        |folder| fs::remove_file(folder.join("manifest.json")).unwrap(),
        |folder| fs::write(folder.join("manifest.json"), "{\"format").unwrap(),
        |folder| fs::write(folder.join("manifest.json"), "[]").unwrap(),
        |folder| fs::write(folder.join("text.tokens"), "short").unwrap(),
        |folder| fs::remove_file(folder.join("text.tokens")).unwrap(),
        |folder| {
            fs::remove_dir_all(folder).unwrap();
            fs::write(folder, "a file").unwrap();
        },
    ];
    for (index, damage) in damages.iter().enumerate() {
        let work = Workplace::new(&[("a.txt", "some text that is long enough")]);
        let data = work.config(&["a.txt"]);
        let whole = work.prepare(&data).unwrap();
        let (ids, fingerprint) = (all(&whole.train), whole.fingerprint.clone());
        drop(whole);
        damage(&work.path("cache").join(&work.cached()[0]));
        if index == 5 {
            assert!(
                matches!(work.prepare(&data), Err(DataError::Unwritable { .. })),
                "a file in the way is not ours to delete"
            );
            continue;
        }
        let again = work.prepare(&data).unwrap();
        assert!(!again.is_reused, "damage {index}");
        assert_eq!((all(&again.train), again.fingerprint), (ids, fingerprint));
        assert!(work.prepare(&data).unwrap().is_reused, "damage {index}");
    }
}

#[test]
fn an_interruption_leaves_nothing_and_the_next_call_starts_over() {
    let work = Workplace::new(&[]);
    let data = DataConfig { generator: Some(TextGenerator::Grammar), ..config() };
    let cache = work.path("cache");
    let request =
        PrepareRequest { generated_tokens: 2_000_000, ..Workplace::request(&data, &cache) };
    let mut seen = Vec::new();
    let stopped = prepare(&request, &mut |activity, done, total| {
        seen.push((activity.to_owned(), done, total));
        if seen.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(DataError::Interrupted)));
    assert_eq!(seen.len(), 2);
    assert!(seen[0].1 < seen[1].1 && seen[1].1 < seen[1].2.unwrap(), "{seen:?}");
    assert_eq!(work.cached(), Vec::<String>::new());
    assert!(!work.prepare(&data).unwrap().is_reused);
}

#[test]
fn records_without_text_are_named_before_the_size_of_their_file() {
    let work = Workplace::new(&[("a.jsonl", "{\"content\": \"one\"}\n")]);
    let (data, cache) = (work.config(&["a.jsonl"]), work.path("cache"));
    let request = PrepareRequest { block_tokens: 1000, ..Workplace::request(&data, &cache) };
    let error = Inputs::find(&data).unwrap().check_sizes(&request).unwrap_err();
    assert!(matches!(error, DataError::TooManyBadRecords { bad: 1, records: 1, .. }), "{error}");
}

#[test]
fn a_failure_leaves_nothing() {
    let work =
        Workplace::new(&[("a.jsonl", "{\"text\": \"fine and long enough\"}\n{\"text\": \n")]);
    let data = work.config(&["a.jsonl"]);
    assert!(check(&data).is_ok(), "the check does not read records");
    assert!(matches!(work.prepare(&data), Err(DataError::TooManyBadRecords { .. })));
    assert_eq!(work.cached(), Vec::<String>::new());
    fs::write(work.path("blocked"), "a file").unwrap();
    let fine = work.config(&["a.jsonl"]);
    let fine = DataConfig { max_bad_records: 0.5, ..fine };
    let blocked = prepare(&Workplace::request(&fine, &work.path("blocked")), &mut |_, _, _| {
        ControlFlow::Continue(())
    });
    assert!(matches!(blocked, Err(DataError::Unwritable { .. })), "the cache is a file");
    let prepared = work.prepare(&fine).unwrap();
    assert_eq!(prepared.report.bad_records, 1);
    assert!(prepared.report.first_bad_record.unwrap().contains("a.jsonl:2:"));
}

#[test]
fn text_too_short_for_two_blocks_is_refused_with_both_numbers() {
    let work = Workplace::new(&[
        ("a.txt", "fifteen bytes!!"),
        ("b.txt", "fourteen bytes"),
        ("e.jsonl", "{\"text\": \"\"}"),
    ]);
    assert_eq!(work.prepare(&work.config(&["a.txt"])).unwrap().train.len(), 8);
    let error = work.prepare(&work.config(&["b.txt"])).unwrap_err();
    assert!(
        matches!(error, DataError::TooLittleText { tokens: 15, needed: 16, block_tokens: 8, .. }),
        "{error}"
    );
    assert!(matches!(
        work.prepare(&work.config(&["e.jsonl"])),
        Err(DataError::TooLittleText { tokens: 0, .. })
    ));
}

#[test]
fn text_that_is_certainly_too_short_is_known_from_the_sizes_of_its_files() {
    let work = Workplace::new(&[("a.txt", "twelve bytes"), ("b.txt", "0123"), ("v.txt", "abc")]);
    let data = work.config(&["a.txt", "b.txt"]);
    let cache = work.path("cache");
    let sizes = |data: &DataConfig, block_tokens: u64| {
        let request = PrepareRequest { block_tokens, ..Workplace::request(data, &cache) };
        Inputs::find(data).unwrap().check_sizes(&request)
    };
    // Sixteen bytes, a BOS token, and possibly a space for each of two files.
    assert!(sizes(&data, 10).is_ok());
    let error = sizes(&data, 11).unwrap_err();
    assert!(
        matches!(
            error,
            DataError::FilesTooSmall { part: "whole", at_most: 20, needed: 22, block_tokens: 11 }
        ),
        "{error}"
    );
    assert_eq!(error.exit_code(), USAGE);
    let own = DataConfig {
        validation_share: None,
        validation_files: Some(vec![work.path("v.txt")]),
        ..data.clone()
    };
    assert!(sizes(&own, 5).is_ok());
    assert!(matches!(
        sizes(&own, 6),
        Err(DataError::FilesTooSmall { part: "validation", at_most: 5, needed: 6, .. })
    ));
    assert!(matches!(sizes(&own, 21), Err(DataError::FilesTooSmall { part: "training", .. })));
    // A normalizer may lengthen a text, so there is no upper bound with one.
    let normalized = r#"{"version":"1.0","added_tokens":[],"normalizer":{"type":"NFKC"},"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}}"#;
    fs::write(work.path("nfkc.json"), normalized).unwrap();
    let unknown = DataConfig {
        tokenizer: work.path("nfkc.json").display().to_string(),
        add_bos: false,
        ..data
    };
    assert!(sizes(&unknown, 1_000_000).is_ok());
    assert_eq!(work.cached(), Vec::<String>::new());
}

#[test]
fn generated_text_that_does_not_fit_on_the_disk_is_refused_before_it_is_made() {
    let work = Workplace::new(&[]);
    let data = DataConfig {
        generator: Some(TextGenerator::Grammar),
        tokenizer: "demo".into(),
        ..config()
    };
    let cache = work.path("cache");
    for tokens in [1_000_000_000_000_000_000, u64::MAX - 7, u64::MAX] {
        let request =
            PrepareRequest { generated_tokens: tokens, ..Workplace::request(&data, &cache) };
        let early = Inputs::find(&data).unwrap().check_sizes(&request).unwrap_err();
        let DataError::NoRoom { folder, needed, free } = &early else { panic!("{early}") };
        assert!(
            folder == &cache && *needed > 2_000_000_000_000_000_000 && free < needed,
            "{early}"
        );
        assert!(
            early.exit_code() == USAGE && early.hint(Audience::Command).contains("--runs-dir"),
            "{}",
            early.hint(Audience::Command)
        );
        let late = prepare(&request, &mut |_, _, _| panic!("not a story may be written"));
        assert!(matches!(late, Err(DataError::NoRoom { .. })));
    }
    assert!(!cache.exists());
    let request = Workplace::request(&data, &cache);
    assert_eq!(Inputs::find(&data).unwrap().check_sizes(&request).unwrap(), None);
}

#[test]
fn pipes_devices_and_endless_links_are_refused_in_words() {
    let work = Workplace::new(&[("a.txt", "text"), ("t.json", "{}")]);
    let pipe = |name: &str| {
        let path = work.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    pipe("pipe.txt");
    pipe("folder/pipe.jsonl");
    let link = |name: &str, to: &Path| std::os::unix::fs::symlink(to, work.path(name)).unwrap();
    link("zero.txt", Path::new("/dev/zero"));
    link("to-pipe.txt", &work.path("pipe.txt"));
    link("loop.txt", &work.path("loop.txt"));
    link("folder/again", &work.path("folder"));
    for (name, what) in [
        ("pipe.txt", "a pipe"),
        ("to-pipe.txt", "a pipe"),
        ("pip*.txt", "a pipe"),
        ("folder", "a pipe"),
        ("zero.txt", "a device"),
    ] {
        let error = check(&work.config(&[name])).unwrap_err();
        assert!(
            matches!(&error, DataError::NotRegularFile { what: found, .. } if *found == what),
            "{name}: {error}"
        );
        assert_eq!(error.exit_code(), USAGE);
    }
    assert!(matches!(check(&work.config(&["loop.txt"])), Err(DataError::Unreadable { .. })));
    fs::remove_file(work.path("folder/pipe.jsonl")).unwrap();
    fs::write(work.path("folder/fine.txt"), "text").unwrap();
    assert!(
        check(&work.config(&["folder"])).is_ok(),
        "a folder that links to itself is walked once"
    );
    let with_tokenizer = |name: &str| {
        check(&DataConfig {
            tokenizer: work.path(name).display().to_string(),
            ..work.config(&["a.txt"])
        })
        .unwrap_err()
    };
    let error = with_tokenizer("pipe.txt");
    assert!(
        matches!(&error, DataError::BadTokenizer { reason, .. } if reason.contains("regular")),
        "{error}"
    );
    assert!(matches!(with_tokenizer("absent.json"), DataError::NoTokenizerFile { .. }));
}

#[test]
fn token_ids_far_beyond_the_number_of_tokens_are_refused() {
    let work = Workplace::new(&[]);
    let path = work.path("t.json");
    let load = |largest: u64| {
        let json = format!(
            r#"{{"version":"1.0","added_tokens":[],"model":{{"type":"BPE","vocab":{{"a":0,"b":{largest}}},"merges":[]}}}}"#
        );
        fs::write(&path, json).unwrap();
        Tokenizer::load(path.to_str().unwrap())
    };
    assert_eq!(load(60_000).unwrap().vocab_size(), 60_001, "ids may have holes");
    for largest in [100_000, 2_147_483_647, 4_294_967_295] {
        let error = load(largest).unwrap_err();
        let words = error.to_string();
        assert!(
            words.contains("t.json")
                && words.contains("2 tokens")
                && words.contains(&largest.to_string()),
            "{words}"
        );
        assert_eq!(error.exit_code(), USAGE);
    }
}

#[test]
fn the_check_finds_what_would_fail_later() {
    let work = Workplace::new(&[
        ("a.txt", "text"),
        ("empty.txt", ""),
        ("binary.txt", "a\0b"),
        ("a.pdf", "x"),
        ("bad.json", "{}"),
    ]);
    let refused = |files: &[&str]| check(&work.config(files)).unwrap_err();
    assert!(check(&work.config(&["a.txt"])).is_ok());
    assert!(matches!(refused(&["a.txt", "none*.txt"]), DataError::NothingMatches { .. }));
    assert!(matches!(refused(&["empty.txt"]), DataError::EmptyFile { .. }));
    assert!(matches!(refused(&["binary.txt"]), DataError::NotText { .. }));
    assert!(matches!(refused(&["a.pdf"]), DataError::UnsupportedFormat { .. }));
    let with = |tokenizer: PathBuf| {
        check(&DataConfig { tokenizer: tokenizer.display().to_string(), ..work.config(&["a.txt"]) })
    };
    assert!(matches!(with(work.path("missing.json")), Err(DataError::NoTokenizerFile { .. })));
    assert!(matches!(with(work.path("bad.json")), Err(DataError::BadTokenizer { .. })));
    let no_bos = r#"{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"a":0,"b":7},"merges":[]}}"#;
    fs::write(work.path("no-bos.json"), no_bos).unwrap();
    assert_eq!(
        Tokenizer::load(work.path("no-bos.json").to_str().unwrap()).unwrap().vocab_size(),
        8,
        "ids may have holes"
    );
    let error = with(work.path("no-bos.json")).unwrap_err();
    assert!(matches!(error, DataError::NoSpecialToken { key: "data.add_bos", .. }));
    assert!(error.hint(Audience::Command).contains("data.add_bos = false"));
    assert_eq!(work.cached(), Vec::<String>::new());
}

#[test]
fn generated_text_has_whole_blocks_a_later_validation_part_and_a_known_rate() {
    let work = Workplace::new(&[]);
    let data = DataConfig {
        generator: Some(TextGenerator::Grammar),
        tokenizer: "demo".into(),
        ..config()
    };
    let prepared = work.prepare(&data).unwrap();
    assert_eq!((prepared.train.len(), prepared.validation.len()), (10_000, 1_000));
    let text = prepared.tokenizer.decode(&all(&prepared.train)[..400]);
    let first = patchtui::data::grammar::Grammar::built_in().story(1, 0).text;
    assert!(text.starts_with(&first), "{text}");
    assert_eq!(all(&prepared.train)[0], prepared.tokenizer.bos().unwrap());
    let rate = prepared.entropy_rate.unwrap();
    assert!((1.1..1.4).contains(&rate), "{rate}");
    assert!(work.prepare(&data).unwrap().is_reused);
    let cache = work.path("cache");
    let other =
        PrepareRequest { seed: 2, generated_tokens: 9_999, ..Workplace::request(&data, &cache) };
    let other = prepare(&other, &mut |_, _, _| ControlFlow::Continue(())).unwrap();
    assert_ne!(other.fingerprint, prepared.fingerprint);
    assert_eq!(other.train.len(), 10_000, "rounded up to whole blocks");
}

#[test]
fn every_patch_size_reads_the_same_tokens_in_the_same_order() {
    let work = Workplace::new(&[]);
    let data = DataConfig { generator: Some(TextGenerator::Grammar), ..config() };
    let prepared = work.prepare(&data).unwrap();
    let loader =
        Loader::new(prepared.train.clone(), BlockOrder::new(prepared.train.len(), 96, 5, true));
    let epoch = loader.order.blocks_per_epoch() * 96;
    let read = |sequence: usize| {
        let mut ids = vec![0; 2 * epoch as usize];
        ids.chunks_mut(sequence)
            .enumerate()
            .for_each(|(index, out)| loader.read((index * sequence) as u64, out).unwrap());
        ids
    };
    let whole = read(96);
    for sequence in [8, 16, 24, 32, 48] {
        assert_eq!(read(sequence), whole, "sequences of {sequence}");
    }
    let mut tokens: Vec<u32> = whole[..epoch as usize].to_vec();
    let mut expected = all(&prepared.train.slice(0..epoch));
    assert_ne!(tokens, expected, "blocks are shuffled");
    assert_ne!(whole[..epoch as usize], whole[epoch as usize..], "epochs differ");
    tokens.sort_unstable();
    expected.sort_unstable();
    assert_eq!(tokens, expected);
}

#[test]
fn two_at_once_make_one_folder() {
    let work = Workplace::new(&[]);
    let data = DataConfig { generator: Some(TextGenerator::Grammar), ..config() };
    let prints: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| work.prepare(&data).unwrap().fingerprint)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(prints.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(work.cached().len(), 1);
}
