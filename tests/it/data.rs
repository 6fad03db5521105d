//! Text on disk to token streams: what is made, found again, rebuilt and refused.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail as loudly as the tests")]

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use patchtui::config::{Count, DataConfig, Share, TextGenerator};
use patchtui::data::{BlockOrder, DataError, Inputs, Loader, PrepareRequest, Prepared, TokenStream, Tokenizer, prepare};
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
        shuffle: true,
        block_tokens: None,
    }
}

fn check(config: &DataConfig) -> Result<(), DataError> {
    Inputs::find(config).map(|_| ())
}

/// A folder with files, and a cache beside it.
struct Workplace {
    folder: TempDir,
}

impl Workplace {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let workplace = Self { folder };
        for (name, content) in files {
            fs::write(workplace.path(name), content).unwrap();
        }
        workplace
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, files: &[&str]) -> DataConfig {
        DataConfig { files: Some(files.iter().map(|name| self.path(name)).collect()), ..config() }
    }

    fn request<'a>(data: &'a DataConfig, cache: &'a Path) -> PrepareRequest<'a> {
        PrepareRequest { data, seed: 1, generated_tokens: 10_000, block_tokens: 8, cache, trained_on: None }
    }

    fn prepare(&self, data: &DataConfig) -> Result<Prepared, DataError> {
        prepare(&Self::request(data, &self.path("cache")), &mut |_, _, _| ControlFlow::Continue(()))
    }

    /// Names in the cache, half-built ones too.
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

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn documents_follow_one_another_with_their_special_tokens() {
    let work = Workplace::new(&[("b.txt", "second file"), ("a.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n")]);
    let data = DataConfig { add_eos: true, ..work.config(&["a.jsonl", "b.txt"]) };
    let prepared = work.prepare(&data).unwrap();
    let mut expected = Vec::new();
    for text in ["one", "two", "second file"] {
        expected.extend([vec![BOS], bytes(text), vec![EOS]].concat());
    }
    assert_eq!([all(&prepared.train), all(&prepared.validation)].concat(), expected);
    assert_eq!(prepared.validation.len(), 8, "a share of 0.1 is less than a block");
    assert_eq!((prepared.report.files, prepared.report.documents, prepared.report.text_bytes), (2, 3, 17));
    assert_eq!(prepared.entropy_rate, None);
}

#[test]
fn a_long_document_is_cut_and_loses_nothing() {
    let text = "word ".repeat(100);
    let work = Workplace::new(&[("a.txt", &text)]);
    let prepared = work.prepare(&DataConfig { max_document_words: Count(30), ..work.config(&["a.txt"]) }).unwrap();
    let ids = [all(&prepared.train), all(&prepared.validation)].concat();
    assert_eq!(ids.iter().filter(|id| **id == BOS).count(), 4);
    assert_eq!(prepared.tokenizer.decode(&ids), text);
    assert_eq!(prepared.report.split_documents, 1);
}

#[test]
fn validation_files_are_a_stream_of_their_own() {
    let work = Workplace::new(&[("a.txt", "training text"), ("v.txt", "validation")]);
    let data = DataConfig { validation_share: None, validation_files: Some(vec![work.path("v.txt")]), ..work.config(&["a.txt"]) };
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
    assert_eq!((first.fingerprint.clone(), all(&first.train), first.report.clone()), (second.fingerprint, all(&second.train), second.report));
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
            assert!(matches!(work.prepare(&data), Err(DataError::Unwritable { .. })), "a file in the way is not ours to delete");
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
    let request = PrepareRequest { generated_tokens: 2_000_000, ..Workplace::request(&data, &cache) };
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
fn a_failure_leaves_nothing() {
    let work = Workplace::new(&[("a.jsonl", "{\"text\": \"fine and long enough\"}\n{\"text\": \n")]);
    let data = work.config(&["a.jsonl"]);
    assert!(check(&data).is_ok(), "the check does not read records");
    assert!(matches!(work.prepare(&data), Err(DataError::TooManyBadRecords { .. })));
    assert_eq!(work.cached(), Vec::<String>::new());
    fs::write(work.path("blocked"), "a file").unwrap();
    let fine = work.config(&["a.jsonl"]);
    let fine = DataConfig { max_bad_records: 0.5, ..fine };
    let blocked = prepare(&Workplace::request(&fine, &work.path("blocked")), &mut |_, _, _| ControlFlow::Continue(()));
    assert!(matches!(blocked, Err(DataError::Unwritable { .. })), "the cache is a file");
    let prepared = work.prepare(&fine).unwrap();
    assert_eq!(prepared.report.bad_records, 1);
    assert!(prepared.report.first_bad_record.unwrap().contains("a.jsonl:2:"));
}

#[test]
fn text_too_short_for_two_blocks_is_refused_with_both_numbers() {
    let work = Workplace::new(&[("a.txt", "fifteen bytes!!"), ("b.txt", "fourteen bytes"), ("e.jsonl", "{\"text\": \"\"}")]);
    assert_eq!(work.prepare(&work.config(&["a.txt"])).unwrap().train.len(), 8);
    let error = work.prepare(&work.config(&["b.txt"])).unwrap_err();
    assert!(matches!(error, DataError::TooLittleText { tokens: 15, needed: 16, block_tokens: 8, .. }), "{error}");
    assert!(matches!(work.prepare(&work.config(&["e.jsonl"])), Err(DataError::TooLittleText { tokens: 0, .. })));
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
    // Sixteen bytes, with a begin-of-text token and perhaps a space for each of two files.
    assert!(sizes(&data, 10).is_ok());
    let error = sizes(&data, 11).unwrap_err();
    assert!(matches!(error, DataError::FilesTooSmall { part: "whole", at_most: 20, needed: 22, block_tokens: 11 }), "{error}");
    assert!(error.is_user_error());
    let own = DataConfig { validation_share: None, validation_files: Some(vec![work.path("v.txt")]), ..data.clone() };
    assert!(sizes(&own, 5).is_ok());
    assert!(matches!(sizes(&own, 6), Err(DataError::FilesTooSmall { part: "validation", at_most: 5, needed: 6, .. })));
    assert!(matches!(sizes(&own, 21), Err(DataError::FilesTooSmall { part: "training", .. })));
    // A normalizer may make a text longer, so nothing is certain with one.
    let normalized = r#"{"version":"1.0","added_tokens":[],"normalizer":{"type":"NFKC"},"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}}"#;
    fs::write(work.path("nfkc.json"), normalized).unwrap();
    let unknown = DataConfig { tokenizer: work.path("nfkc.json").display().to_string(), add_bos: false, ..data };
    assert!(sizes(&unknown, 1_000_000).is_ok());
    assert_eq!(work.cached(), Vec::<String>::new());
}

#[test]
fn generated_text_that_does_not_fit_on_the_disk_is_refused_before_it_is_made() {
    let work = Workplace::new(&[]);
    let data = DataConfig { generator: Some(TextGenerator::Grammar), tokenizer: "demo".into(), ..config() };
    let cache = work.path("cache");
    for tokens in [1_000_000_000_000_000_000, u64::MAX - 7, u64::MAX] {
        let request = PrepareRequest { generated_tokens: tokens, ..Workplace::request(&data, &cache) };
        let early = Inputs::find(&data).unwrap().check_sizes(&request).unwrap_err();
        let DataError::NoRoom { folder, needed, free } = &early else { panic!("{early}") };
        assert!(folder == &cache && *needed > 2_000_000_000_000_000_000 && free < needed, "{early}");
        assert!(early.is_user_error() && early.hint().contains("--runs-dir"), "{}", early.hint());
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
    for (name, what) in [("pipe.txt", "a pipe"), ("to-pipe.txt", "a pipe"), ("pip*.txt", "a pipe"), ("folder", "a pipe"), ("zero.txt", "a device")] {
        let error = check(&work.config(&[name])).unwrap_err();
        assert!(matches!(&error, DataError::NotRegularFile { what: found, .. } if *found == what), "{name}: {error}");
        assert!(error.is_user_error());
    }
    assert!(matches!(check(&work.config(&["loop.txt"])), Err(DataError::Unreadable { .. })));
    fs::remove_file(work.path("folder/pipe.jsonl")).unwrap();
    fs::write(work.path("folder/fine.txt"), "text").unwrap();
    assert!(check(&work.config(&["folder"])).is_ok(), "a folder that links to itself is walked once");
    let with_tokenizer = |name: &str| check(&DataConfig { tokenizer: work.path(name).display().to_string(), ..work.config(&["a.txt"]) }).unwrap_err();
    let error = with_tokenizer("pipe.txt");
    assert!(matches!(&error, DataError::BadTokenizer { reason, .. } if reason.contains("regular")), "{error}");
    assert!(matches!(with_tokenizer("absent.json"), DataError::NoTokenizerFile { .. }));
}

#[test]
fn token_ids_far_beyond_the_number_of_tokens_are_refused() {
    let work = Workplace::new(&[]);
    let path = work.path("t.json");
    let load = |largest: u64| {
        let json = format!(r#"{{"version":"1.0","added_tokens":[],"model":{{"type":"BPE","vocab":{{"a":0,"b":{largest}}},"merges":[]}}}}"#);
        fs::write(&path, json).unwrap();
        Tokenizer::load(path.to_str().unwrap())
    };
    assert_eq!(load(60_000).unwrap().vocab_size(), 60_001, "ids may have holes");
    for largest in [100_000, 2_147_483_647, 4_294_967_295] {
        let error = load(largest).unwrap_err();
        let words = error.to_string();
        assert!(words.contains("t.json") && words.contains("2 tokens") && words.contains(&largest.to_string()), "{words}");
        assert!(error.is_user_error());
    }
}

#[test]
fn the_check_finds_what_would_fail_later() {
    let work = Workplace::new(&[("a.txt", "text"), ("empty.txt", ""), ("binary.txt", "a\0b"), ("a.pdf", "x"), ("bad.json", "{}")]);
    let refused = |files: &[&str]| check(&work.config(files)).unwrap_err();
    assert!(check(&work.config(&["a.txt"])).is_ok());
    assert!(matches!(refused(&["a.txt", "none*.txt"]), DataError::NothingMatches { .. }));
    assert!(matches!(refused(&["empty.txt"]), DataError::EmptyFile { .. }));
    assert!(matches!(refused(&["binary.txt"]), DataError::NotText { .. }));
    assert!(matches!(refused(&["a.pdf"]), DataError::UnsupportedFormat { .. }));
    let with = |tokenizer: PathBuf| check(&DataConfig { tokenizer: tokenizer.display().to_string(), ..work.config(&["a.txt"]) });
    assert!(matches!(with(work.path("missing.json")), Err(DataError::NoTokenizerFile { .. })));
    assert!(matches!(with(work.path("bad.json")), Err(DataError::BadTokenizer { .. })));
    let no_bos = r#"{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"a":0,"b":7},"merges":[]}}"#;
    fs::write(work.path("no-bos.json"), no_bos).unwrap();
    assert_eq!(Tokenizer::load(work.path("no-bos.json").to_str().unwrap()).unwrap().vocab_size(), 8, "ids may have holes");
    let error = with(work.path("no-bos.json")).unwrap_err();
    assert!(matches!(error, DataError::NoSpecialToken { key: "data.add_bos", .. }));
    assert!(error.hint().contains("data.add_bos = false"));
    assert_eq!(work.cached(), Vec::<String>::new());
}

#[test]
fn generated_text_has_whole_blocks_a_later_validation_part_and_a_known_rate() {
    let work = Workplace::new(&[]);
    let data = DataConfig { generator: Some(TextGenerator::Grammar), tokenizer: "demo".into(), ..config() };
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
    let other = PrepareRequest { seed: 2, generated_tokens: 9_999, ..Workplace::request(&data, &cache) };
    let other = prepare(&other, &mut |_, _, _| ControlFlow::Continue(())).unwrap();
    assert_ne!(other.fingerprint, prepared.fingerprint);
    assert_eq!(other.train.len(), 10_000, "rounded up to whole blocks");
}

#[test]
fn every_patch_size_reads_the_same_tokens_in_the_same_order() {
    let work = Workplace::new(&[]);
    let data = DataConfig { generator: Some(TextGenerator::Grammar), ..config() };
    let prepared = work.prepare(&data).unwrap();
    let loader = Loader::new(prepared.train.clone(), BlockOrder::new(prepared.train.len(), 96, 5, true));
    let epoch = loader.order.blocks_per_epoch() * 96;
    let read = |sequence: usize| {
        let mut ids = vec![0; 2 * epoch as usize];
        ids.chunks_mut(sequence).enumerate().for_each(|(index, out)| loader.read((index * sequence) as u64, out).unwrap());
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
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| work.prepare(&data).unwrap().fingerprint)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(prints.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(work.cached().len(), 1);
}
