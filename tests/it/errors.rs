//! Every error of the layers below the engine, built and printed: its message, and that its hint
//! can be typed.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail as loudly as the tests")]

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use patchtui::advice::{Advice, Audience};
use patchtui::cli::Cli;
use patchtui::config::{ConfigError, KEYS, Origin};
use patchtui::data::{BadRecord, DataError, TextFault};
use patchtui::plan::PlanError;

/// Message and hint of an error.
type Row = (String, String, &'static str, &'static str);

/// Files that hints name as examples; they are not keys.
const EXAMPLE_FILES: [&str; 4] = ["my.toml", "tokenizer.json", "text.txt", "b.txt"];

fn line(line: usize) -> Origin {
    Origin::File { path: "a.toml".into(), line }
}

fn config_errors() -> Vec<(ConfigError, &'static str, &'static str)> {
    let io = || io::Error::other("no luck");
    vec![
        (
            ConfigError::NotFound {
                source_name: "x".into(),
                asked_by: Some(line(1)),
                built_in: vec!["demo"],
            },
            "a.toml:1: there is no configuration file \"x\" and no built-in configuration of that \
             name",
            "built-in configurations: demo; to write your own: patchtui config template > my.toml",
        ),
        (
            ConfigError::Unreadable { path: "a.toml".into(), error: io() },
            "a.toml cannot be read: no luck",
            "list every key with: patchtui config template",
        ),
        (
            ConfigError::Syntax { origin: line(2), message: "unclosed table".into() },
            "a.toml:2: not valid TOML: unclosed table",
            "list every key with: patchtui config template",
        ),
        (
            ConfigError::Circle {
                origin: line(1),
                chain: vec!["a".into(), "b".into(), "a".into()],
            },
            "a.toml:1: the configuration extends itself: a -> b -> a",
            "remove one of the \"extends\" lines",
        ),
        (
            ConfigError::SetWithoutValue { text: "seed".into() },
            "--set \"seed\" has no value",
            "write --set section.key=value, e.g. --set seed=...",
        ),
        (
            ConfigError::UnknownKey {
                origin: Origin::Set,
                key: "sed".into(),
                nearest: Some("seed"),
            },
            "--set: unknown key \"sed\"",
            "did you mean \"seed\"?",
        ),
        (
            ConfigError::Value {
                origin: Origin::Default,
                key: "seed".into(),
                found: "x".into(),
                expected: "a number".into(),
            },
            "default: seed = x, expected a number",
            "list every key with: patchtui config template",
        ),
        (
            ConfigError::TooManyStages { origin: line(3), stages: 2000, limit: 1000 },
            "a.toml:3: 2000 stages, but at most 1000 are allowed",
            "merge stages: a run usually has two, sometimes three or four",
        ),
        (
            ConfigError::Alternatives {
                first: "training.tokens",
                first_origin: line(1),
                second: "training.steps",
                second_origin: line(2),
            },
            "a.toml:1: training.tokens and training.steps (a.toml:2) cannot both be set",
            "remove training.tokens or training.steps",
        ),
        (
            ConfigError::Missing {
                origin: Some(line(4)),
                keys: vec!["a".into(), "b".into(), "c".into()],
                examples: vec!["training.steps = 3".into()],
            },
            "a.toml:4: none of a, b and c is set",
            "add training.steps = 3",
        ),
        (
            ConfigError::HeadSize { origin: line(5), hidden_size: 90, heads: 4 },
            "a.toml:5: model.hidden_size = 90 cannot be divided into model.num_attention_heads = \
             4 heads of even dimension",
            "use model.hidden_size = 96, or change model.num_attention_heads",
        ),
        (
            ConfigError::KeyValueHeads { origin: line(5), heads: 4, key_value_heads: 3 },
            "a.toml:5: model.num_key_value_heads = 3 does not divide model.num_attention_heads = 4",
            "use model.num_key_value_heads = 4, or a divisor of it",
        ),
        (
            ConfigError::MinimumAbovePeak {
                origin: Origin::BuiltIn { name: "demo".into() },
                minimum: 0.5,
                key: "optimizer.learning_rate".into(),
                peak: 0.25,
            },
            "built-in demo: schedule.min_learning_rate = 0.5 is greater than \
             optimizer.learning_rate = 0.25",
            "lower schedule.min_learning_rate",
        ),
        (
            ConfigError::InitFrom {
                origin: line(6),
                path: "/w".into(),
                problem: "/w is not a directory".into(),
            },
            "a.toml:6: model.init_from cannot be used: /w is not a directory",
            "name a Hugging Face directory of a LLaMA model, a run or a checkpoint: --set \
             model.init_from=DIR",
        ),
        (
            ConfigError::OtherSize {
                origin: line(7),
                key: "model.hidden_size",
                found: "8".into(),
                expected: "16".into(),
                path: Path::new("/w").into(),
            },
            "a.toml:7: model.hidden_size = 8, but the weights in /w have 16",
            "remove model.hidden_size, or remove model.init_from to start from random weights",
        ),
        (
            ConfigError::Unfit { message: "odd".into() },
            "the checked values do not form a configuration: odd",
            "this is a bug in patchtui: please report it with the configuration",
        ),
    ]
}

/// The index of a variant in its type: a new variant must be added here, and then to the table.
fn number_of_config_error(error: &ConfigError) -> usize {
    match error {
        ConfigError::NotFound { .. } => 0,
        ConfigError::Unreadable { .. } => 1,
        ConfigError::Syntax { .. } => 2,
        ConfigError::Circle { .. } => 3,
        ConfigError::SetWithoutValue { .. } => 4,
        ConfigError::UnknownKey { .. } => 5,
        ConfigError::Value { .. } => 6,
        ConfigError::TooManyStages { .. } => 7,
        ConfigError::Alternatives { .. } => 8,
        ConfigError::Missing { .. } => 9,
        ConfigError::HeadSize { .. } => 10,
        ConfigError::KeyValueHeads { .. } => 11,
        ConfigError::MinimumAbovePeak { .. } => 12,
        ConfigError::InitFrom { .. } => 13,
        ConfigError::OtherSize { .. } => 14,
        ConfigError::Unfit { .. } => 15,
    }
}

fn plan_errors() -> Vec<(PlanError, &'static str, &'static str)> {
    vec![
        (
            PlanError::UnevenStep {
                tokens_per_step: 1000,
                stage: 1,
                patch_size: 4,
                context_length: 64,
                sequence: 256,
                common: 256,
            },
            "training.tokens_per_step = 1000 is not a whole number of sequences in stage 1 \
             (patch_size 4 * context_length 64 = 256 tokens)",
            "use training.tokens_per_step = 768 or 1024",
        ),
        (
            PlanError::Shares { sum: 1.5, all_given: true },
            "the stage shares add up to 1.5000, not 1",
            "remove the share of one stage: it then takes the rest",
        ),
        (
            PlanError::SeveralRests { count: 2 },
            "2 stages have no share, so it is not clear how to divide the rest among them",
            "set a share for all stages but one, e.g. share = \"2/3\"",
        ),
        (
            PlanError::EmptyStage { stage: 2, steps: 1, tokens_per_step: 4096 },
            "stage 2 would have no steps: the run has 1 step of 4096 tokens",
            "raise training.tokens (or positions, epochs, steps), or lower \
             training.tokens_per_step below 4096",
        ),
        (
            PlanError::ContextTooLong { stage: 1, context_length: 512, limit: 256 },
            "context_length = 512 of stage 1 is longer than model.max_position_embeddings = 256",
            "lower context_length, or set model.max_position_embeddings = 512",
        ),
        (
            PlanError::VocabularyTooSmall { vocab_size: 10, tokenizer: 100 },
            "model.vocab_size = 10 is too small: the tokenizer has 100 tokens",
            "remove model.vocab_size, or set it to 128 (the next multiple of 64)",
        ),
        (
            PlanError::CorpusTooSmall { tokens: 5, block_tokens: 8 },
            "the training text has 5 tokens, fewer than one block of 8",
            "add more text to data.files, or lower training.context_length",
        ),
        (
            PlanError::UnevenBlock { block_tokens: 1000, common: 256 },
            "data.block_tokens = 1000 is not a multiple of 256, the smallest block that is a \
             whole number of sequences in every stage",
            "use data.block_tokens = 1024",
        ),
        (
            PlanError::BlockTooLarge,
            "the smallest block that is a whole number of sequences in every stage has more than \
             2^63 tokens",
            "use patch sizes that divide one another, e.g. 8, 4, 2, 1",
        ),
        (
            PlanError::BudgetTooLarge,
            "the budget is more than 2^63 tokens",
            "lower the budget: training.tokens, positions, epochs or steps",
        ),
        (
            PlanError::CorpusUnknown,
            "training.epochs needs the number of tokens in the text, which is only known once the \
             text has been prepared",
            "set training.tokens instead, or start the run: it prepares the text first",
        ),
    ]
}

fn number_of_plan_error(error: &PlanError) -> usize {
    match error {
        PlanError::UnevenStep { .. } => 0,
        PlanError::Shares { .. } => 1,
        PlanError::SeveralRests { .. } => 2,
        PlanError::EmptyStage { .. } => 3,
        PlanError::ContextTooLong { .. } => 4,
        PlanError::VocabularyTooSmall { .. } => 5,
        PlanError::CorpusTooSmall { .. } => 6,
        PlanError::UnevenBlock { .. } => 7,
        PlanError::BlockTooLarge => 8,
        PlanError::BudgetTooLarge => 9,
        PlanError::CorpusUnknown => 10,
    }
}

/// Errors about reading files.
fn reading_errors() -> Vec<(DataError, &'static str, &'static str)> {
    let path = || PathBuf::from("/d/a b.txt");
    let bad = BadRecord {
        path: "/d/a.jsonl".into(),
        record: 2,
        is_line: true,
        reason: "no field \"text\"".into(),
    };
    vec![
        (
            DataError::NothingMatches { pattern: "/d/*.txt".into(), passed_over: Vec::new() },
            "/d/*.txt: no text files found",
            "check the path; folders are searched for .txt, .md, .jsonl, .ndjson and .json files, \
             and patterns may use *, ? and **",
        ),
        (
            DataError::NothingMatches {
                pattern: "/d".into(),
                passed_over: vec!["skipped 1 .csv file (a.csv)".into()],
            },
            "/d: no text files found (skipped 1 .csv file (a.csv))",
            "name a file itself to train on it; folders are searched for .txt, .md, .jsonl, \
             .ndjson and .json files",
        ),
        (
            DataError::Unreadable { path: path(), source: io::Error::other("no luck") },
            "/d/a b.txt cannot be read: no luck",
            "try: ls -l '/d/a b.txt'",
        ),
        (
            DataError::NotRegularFile { path: path(), what: "a pipe" },
            "/d/a b.txt is a pipe, not a regular file",
            "copy its text into a file and name that file in data.files",
        ),
        (
            DataError::EmptyFile { path: path() },
            "/d/a b.txt is empty",
            "name a file that contains text",
        ),
        (
            DataError::NotText { path: path(), offset: 3, fault: TextFault::Nul },
            "/d/a b.txt is not UTF-8 text: a NUL byte at byte 3",
            "remove it from data.files, which accepts only text",
        ),
        (
            DataError::NotText { path: "/d/a.txt".into(), offset: 3, fault: TextFault::NotUtf8 },
            "/d/a.txt is not UTF-8 text: an invalid byte sequence at byte 3",
            "convert it: iconv -f LATIN1 -t UTF-8 /d/a.txt > /d/a.utf8.txt",
        ),
        (
            DataError::NotText { path: "/d/a.txt".into(), offset: 0, fault: TextFault::Utf16 },
            "/d/a.txt is UTF-16 text, not UTF-8",
            "convert it: iconv -f UTF-16 -t UTF-8 /d/a.txt > /d/a.utf8.txt",
        ),
        (
            DataError::TextLost {
                what: "7 of 10 tokens are the unknown token".into(),
                share: 0.7,
                limit: 0.05,
            },
            "7 of 10 tokens are the unknown token: 70.0 % exceeds data.max_lost_text = 0.05",
            "use another data.tokenizer, train one on this text (patchtui tokenizer train FILES), \
             or raise data.max_lost_text",
        ),
        (
            DataError::UnsupportedFormat { path: "/d/a.pdf".into() },
            "/d/a.pdf is in a format that patchtui cannot read",
            "rename the file if it is text or JSON: names must end in .txt, .md, .jsonl, .ndjson \
             or .json",
        ),
        (
            DataError::BrokenJson {
                path: "/d/a.json".into(),
                line: 1,
                column: 2,
                reason: "EOF".into(),
            },
            "/d/a.json:1:2 is not valid JSON: EOF",
            "a .json file holds one array, or one object per line",
        ),
        (
            DataError::TooManyBadRecords { bad: 2, records: 10, limit: 0.01, first: bad },
            "2 of 10 records cannot be used (at most 1 % may be bad); first: /d/a.jsonl:2: no \
             field \"text\"",
            "repair the file, check data.text_field, or raise data.max_bad_records",
        ),
        (
            DataError::FileChanged { path: path() },
            "/d/a b.txt changed while it was being read",
            "wait until it is no longer being written, then start again",
        ),
        (
            DataError::SharedFile { path: path() },
            "/d/a b.txt is both training and validation text",
            "remove it from data.files, or use data.validation_share instead of \
             data.validation_files",
        ),
        (
            DataError::TooLittleText { part: "whole", tokens: 5, needed: 16, block_tokens: 8 },
            "the whole text has 5 tokens, but at least 16 are needed (a block has 8)",
            "add more text to data.files, or lower training.context_length",
        ),
        (
            DataError::FilesTooSmall { part: "training", at_most: 5, needed: 8, block_tokens: 8 },
            "the training text has at most 5 tokens, but at least 8 are needed (a block has 8)",
            "add more text to data.files, or lower training.context_length",
        ),
    ]
}

/// Errors about tokenizers and about writing files.
fn other_data_errors() -> Vec<(DataError, &'static str, &'static str)> {
    let tokenizer_hint =
        "set data.tokenizer to \"bytes\", \"demo\", or the path of a tokenizer.json";
    vec![
        (
            DataError::NoTokenizerFile { path: "/t.json".into() },
            "tokenizer file /t.json does not exist",
            tokenizer_hint,
        ),
        (
            DataError::BadTokenizer {
                choice: "/t.json".into(),
                reason: "its vocabulary is empty".into(),
            },
            "tokenizer \"/t.json\" cannot be used: its vocabulary is empty",
            tokenizer_hint,
        ),
        (
            DataError::NoSpecialToken {
                choice: "/t.json".into(),
                token: "BOS",
                key: "data.add_bos",
            },
            "tokenizer \"/t.json\" has no BOS token, but data.add_bos = true",
            "set data.add_bos = false, or choose another data.tokenizer",
        ),
        (
            DataError::Encode { reason: "no luck".into() },
            "the tokenizer failed on a document: no luck",
            "try data.tokenizer = \"bytes\", which accepts any text",
        ),
        (
            DataError::NoRoom {
                folder: "/runs/.tokens".into(),
                needed: 2_100_000_000_000,
                free: 950,
            },
            "the prepared tokens need 2.1 TB in /runs/.tokens, but only 950 bytes is free there",
            "lower the budget (training.tokens, positions or steps), or put the runs on a larger \
             disk with --runs-dir",
        ),
        (
            DataError::DiskFull { path: "/d/x".into(), needed: 999_960 },
            "no space left for /d/x, which needs about 1.0 MB",
            "free some space, then start again: df -h /d",
        ),
        (
            DataError::Unwritable { path: "/d/x".into(), source: io::Error::other("no luck") },
            "/d/x cannot be written: no luck",
            "check the permissions: ls -ld /d",
        ),
        (
            DataError::Exists { path: "/t.json".into() },
            "/t.json already exists",
            "choose another name with --output, or add --force to replace it",
        ),
        (
            DataError::VocabularyTooSmall { vocab_size: 10, minimum: 258 },
            "a vocabulary of 10 tokens is too small: single bytes and special tokens already take \
             258",
            "use --vocab-size 1024 or more",
        ),
        (
            DataError::TooMuchText { bytes: 3_000_000_000, limit: 2_147_483_647 },
            "the files have 3.0 GB, but a tokenizer can be trained on at most 2.1 GB",
            "name fewer files; a sample of the text is enough to train a tokenizer",
        ),
        (
            DataError::DamagedTokens {
                path: "/runs/.tokens/1f/text.tokens".into(),
                problem: "block 3 (tokens 0 to 9) does not match its hash".into(),
            },
            "prepared tokens /runs/.tokens/1f/text.tokens: block 3 (tokens 0 to 9) does not match \
             its hash",
            "check the disk, then remove the tokens so that they are prepared again: rm -r \
             /runs/.tokens/1f",
        ),
        (
            DataError::Interrupted,
            "preparing the text was interrupted",
            "run the same command again",
        ),
    ]
}

fn number_of_data_error(error: &DataError) -> usize {
    match error {
        DataError::NothingMatches { .. } => 0,
        DataError::Unreadable { .. } => 1,
        DataError::NotRegularFile { .. } => 2,
        DataError::EmptyFile { .. } => 3,
        DataError::NotText { .. } => 4,
        DataError::UnsupportedFormat { .. } => 5,
        DataError::BrokenJson { .. } => 6,
        DataError::TooManyBadRecords { .. } => 7,
        DataError::FileChanged { .. } => 8,
        DataError::SharedFile { .. } => 9,
        DataError::TooLittleText { .. } => 10,
        DataError::FilesTooSmall { .. } => 11,
        DataError::NoTokenizerFile { .. } => 12,
        DataError::BadTokenizer { .. } => 13,
        DataError::NoSpecialToken { .. } => 14,
        DataError::Encode { .. } => 15,
        DataError::NoRoom { .. } => 16,
        DataError::DiskFull { .. } => 17,
        DataError::Unwritable { .. } => 18,
        DataError::Exists { .. } => 19,
        DataError::VocabularyTooSmall { .. } => 20,
        DataError::TooMuchText { .. } => 21,
        DataError::DamagedTokens { .. } => 22,
        DataError::Interrupted => 23,
        DataError::TextLost { .. } => 24,
    }
}

/// Checks that the table has all variants.
fn check_complete(numbers: impl Iterator<Item = usize>, count: usize) {
    assert_eq!(numbers.collect::<BTreeSet<_>>(), (0..count).collect());
}

/// Words in a hint that look like keys, and flags.
fn check_typeable(hint: &str) {
    let flags: BTreeSet<String> = all_flags(&Cli::command());
    for word in hint.split([' ', '\'', '"', '(', ')', ',', ';', ':', '?']) {
        if let Some(flag) = word.strip_prefix("--") {
            assert!(flags.contains(flag), "there is no flag --{flag}: {hint}");
        }
        let word = word.split('=').next().unwrap().trim_end_matches('.');
        let is_key = word.contains('.')
            && word.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '.' | '_'))
            && !word.starts_with('.');
        if is_key && !EXAMPLE_FILES.contains(&word) && !["section.key", "e.g"].contains(&word) {
            assert!(KEYS.iter().any(|key| key.path == word), "there is no key {word}: {hint}");
        }
    }
}

fn all_flags(command: &clap::Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned));
    own.chain(command.get_subcommands().flat_map(all_flags)).collect()
}

fn check_rows(rows: Vec<Row>) {
    for (message, hint, expected_message, expected_hint) in rows {
        assert_eq!((message.as_str(), hint.as_str()), (expected_message, expected_hint));
        check_typeable(&hint);
    }
}

#[test]
fn every_error_of_the_configuration_is_said_in_words() {
    let table = config_errors();
    check_complete(table.iter().map(|(error, ..)| number_of_config_error(error)), 16);
    check_rows(
        table
            .into_iter()
            .map(|(error, message, hint)| {
                (error.to_string(), error.hint(Audience::Command), message, hint)
            })
            .collect(),
    );
}

#[test]
fn every_error_of_the_plan_is_said_in_words() {
    let table = plan_errors();
    check_complete(table.iter().map(|(error, ..)| number_of_plan_error(error)), 11);
    check_rows(
        table
            .into_iter()
            .map(|(error, message, hint)| {
                (error.to_string(), error.hint(Audience::Command), message, hint)
            })
            .collect(),
    );
}

#[test]
fn a_hint_names_only_keys_that_exist_where_the_text_is_read() {
    let is_met = |error: &DataError| {
        matches!(
            error,
            DataError::NotRegularFile { .. }
                | DataError::NotText { .. }
                | DataError::TooManyBadRecords { .. }
        )
    };
    for (error, ..) in reading_errors().into_iter().filter(|(error, ..)| is_met(error)) {
        for audience in [Audience::TokenizerTraining, Audience::Evaluation] {
            let hint = error.hint(audience);
            assert!(!hint.contains("data."), "{audience:?}: {error}: {hint}");
        }
    }
}

#[test]
fn every_error_of_the_data_is_said_in_words() {
    let table: Vec<_> = reading_errors().into_iter().chain(other_data_errors()).collect();
    check_complete(table.iter().map(|(error, ..)| number_of_data_error(error)), 25);
    check_rows(
        table
            .into_iter()
            .map(|(error, message, hint)| {
                (error.to_string(), error.hint(Audience::Command), message, hint)
            })
            .collect(),
    );
}
