//! Replays the committed corpora of the fuzz targets, findings that were repaired among them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::fuzz::{TARGETS, run};

/// Nothing committed is larger, so that the corpora stay quick to read.
const MAX_CORPUS_BYTES: u64 = 64 << 10;

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_committed_input_keeps_the_promises_of_its_target() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    if !corpora.is_dir() {
        println!("skipped: there is no {}, as in a packaged crate", corpora.display());
        return;
    }
    for (name, _) in TARGETS {
        let inputs = entries(&corpora.join(name));
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for input in inputs {
            println!("{}", input.display());
            run(name, &fs::read(&input).unwrap());
        }
    }
}

#[test]
fn every_corpus_is_small_and_has_a_target() {
    for folder in entries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")) {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let is_known = name == "tensors" || TARGETS.iter().any(|(target, _)| *target == name);
        assert!(is_known, "{name} is the corpus of no target");
        let bytes: u64 = entries(&folder).iter().map(|input| input.metadata().unwrap().len()).sum();
        assert!(bytes <= MAX_CORPUS_BYTES, "the corpus of {name} has {bytes} bytes");
    }
}
