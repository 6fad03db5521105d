//! `patchtui tokenizer train`, and the vocabulary that ships with the program.

use std::fs;
use std::path::Path;

use patchtui::commands::tokenizer::{TrainRequest, train, train_vocabulary};
use patchtui::data::grammar::Grammar;
use patchtui::data::{DataError, Tokenizer};

/// Seed, number of stories and size that the built-in vocabulary was made with.
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
        panic!("if the grammar was changed on purpose: cp {} assets/demo-tokenizer.json", fresh.display());
    }
}
