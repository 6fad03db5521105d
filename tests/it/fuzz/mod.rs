//! What each fuzz target does with its bytes, and what must hold whatever they are.
//!
//! The fuzz targets in `fuzz/` and the test that replays their corpora (`corpus.rs`) share these
//! functions. Every target promises that nothing panics, hangs or allocates more than its input
//! explains; what it promises beyond that is at its function. An input with several files has a
//! line `%%` between them. Start at [`TARGETS`].

mod checkpoint;
mod config;
mod documents;
mod protocol;
mod run_files;
mod sanitize;
#[cfg(feature = "engine")]
mod tensors;
mod token_cache;
mod tokenizer;

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

/// Reads one input.
type Target = fn(&[u8]);

/// The targets by name, which is also that of the folder of their corpus.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("checkpoint", checkpoint::read),
    ("config", config::read),
    ("documents", documents::read),
    ("protocol", protocol::read),
    ("run_files", run_files::read),
    ("sanitize", sanitize::read),
    #[cfg(feature = "engine")]
    ("tensors", tensors::read),
    ("token_cache", token_cache::read),
    ("tokenizer", tokenizer::read),
];

/// Lets the target `name` read `bytes`.
pub(crate) fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    target(bytes);
}

/// The files of an input; those that are missing are empty.
fn parts<const N: usize>(bytes: &[u8]) -> [&[u8]; N] {
    const SEPARATOR: &[u8] = b"\n%%\n";
    let mut rest = Some(bytes);
    std::array::from_fn(|idx| {
        let all = rest.take().unwrap_or_default();
        let is_last = idx + 1 == N;
        match all
            .windows(SEPARATOR.len())
            .position(|window| window == SEPARATOR)
            .filter(|_| !is_last)
        {
            Some(at) => {
                rest = Some(&all[at + SEPARATOR.len()..]);
                &all[..at]
            }
            None => all,
        }
    })
}

/// A folder for the files of the target `name`, the same for all inputs of a thread: making one
/// anew costs more than most inputs.
fn scratch(name: &str) -> PathBuf {
    thread_local! {
        static FOLDER: TempDir = tempfile::tempdir().unwrap();
    }
    let folder = FOLDER.with(|folder| folder.path().join(name));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Checks that a terminal can show `text`: it moves no cursor, hides nothing and turns no text
/// around.
fn assert_harmless(text: &str) {
    let is_harmful = |char: char| {
        (char.is_control() && char != '\n')
            || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{e0000}'..='\u{e007f}')
    };
    assert!(!text.contains(is_harmful), "a terminal would get {text:?}");
}
