//! A checkpoint: `manifest.json`, `trainer.json`, the bytes of its two files of tensors, and the
//! run's lines of metrics.
//!
//! `@FILE.bytes` and `@FILE.blake3` in the manifest stand for what the file has, and the manifest
//! gets the hash of itself, so that what it says is read and not only refused. A checkpoint that is
//! accepted has every file that it lists, byte for byte.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use patchtui::record::{
    Checkpoint, Checkpoints, FoundCheckpoint, KeepRule, RunDirectory, TrainerState,
};
use patchtui::report::checkpoints_table;

use super::{assert_harmless, parts, scratch};

const NAME: &str = "step-00000007";
const OWN_HASH: &str = "\"manifest_blake3\": \"";

pub(super) fn read(bytes: &[u8]) {
    let [manifest, trainer, model, optimizer, metrics] = parts(bytes);
    let run = RunDirectory::create(scratch("checkpoint").join("books")).unwrap();
    let folder = run.checkpoints().join(NAME);
    fs::create_dir_all(&folder).unwrap();
    let files = [
        ("trainer", "trainer.json", trainer),
        ("model", "model.safetensors", model),
        ("optimizer", "optimizer.safetensors", optimizer),
    ];
    for (_, name, content) in files {
        fs::write(folder.join(name), content).unwrap();
    }
    fs::write(run.metrics(), metrics).unwrap();
    fs::write(run.events(), "").unwrap();
    let manifest = std::str::from_utf8(manifest).map_or(manifest.to_vec(), |text| {
        let all = files.into_iter().chain([("metrics", "", metrics)]);
        sealed(all.fold(text.to_owned(), |text, (word, _, content)| {
            let hash = blake3::hash(content).to_hex();
            text.replace(&format!("@{word}.bytes"), &content.len().to_string())
                .replace(&format!("@{word}.blake3"), &hash)
        }))
    });
    fs::write(folder.join("manifest.json"), manifest).unwrap();
    check(&run, &folder);
    if let Ok(state) = serde_json::from_slice::<TrainerState>(trainer) {
        let again: TrainerState =
            serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap();
        assert_eq!(again, state);
        assert_eq!(state.differences(&again), []);
    }
}

/// `text` with the hash of itself, if it has a place for one.
fn sealed(text: String) -> Vec<u8> {
    let Some(start) = text.find(OWN_HASH).map(|at| at + OWN_HASH.len()) else {
        return text.into_bytes();
    };
    let zeros = "0".repeat(64);
    if text.get(start..start + zeros.len()) == Some(&zeros) {
        let hash = blake3::hash(text.as_bytes()).to_hex();
        return text.replacen(&zeros, &hash, 1).into_bytes();
    }
    text.into_bytes()
}

fn check(run: &RunDirectory, folder: &Path) {
    let checkpoints = Checkpoints::new(run, 1).keeping_best(true);
    let verified = checkpoints.verify(folder, &|| false);
    let (newest, rejected) = checkpoints.newest(&|_| Ok(()), &|| false).unwrap();
    assert_eq!(
        (newest.is_some(), rejected.len()),
        (verified.is_ok(), usize::from(verified.is_err()))
    );
    assert_eq!(FoundCheckpoint::at(folder).is_ok(), verified.is_ok());
    let listed = checkpoints.list().unwrap();
    assert_harmless(&checkpoints_table(&listed, Timestamp::UNIX_EPOCH));
    let rule =
        KeepRule { keep: 1, prunes_permanent: true, prunes_best: true, prunes_damaged: true };
    let num_chosen = checkpoints
        .choose(&rule)
        .unwrap()
        .into_iter()
        .filter(|(_, choice)| !choice.reason().is_empty())
        .count();
    assert_eq!(num_chosen, listed.len());
    let _ = checkpoints.text_rules(None);
    for manifest in listed.iter().filter_map(|listed| listed.manifest.as_ref()) {
        let _ = (manifest.bytes(), manifest.changed_lines(run.path()));
    }
    if let Ok(checkpoint) = verified {
        check_valid(&checkpoint, folder);
    }
}

fn check_valid(checkpoint: &Checkpoint, folder: &Path) {
    assert_eq!((checkpoint.manifest.step, checkpoint.state.step), (7, 7));
    for name in ["model.safetensors", "optimizer.safetensors", "trainer.json"] {
        assert!(checkpoint.manifest.files.contains_key(name), "{name} is not listed");
    }
    for (name, entry) in &checkpoint.manifest.files {
        let content = fs::read(folder.join(name)).unwrap();
        assert_eq!(
            (content.len() as u64, blake3::hash(&content).to_hex().as_str()),
            (entry.bytes, entry.blake3.as_str()),
            "{name}"
        );
    }
}
