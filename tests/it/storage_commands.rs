//! `checkpoint ls|verify|prune` and `runs rm`, as used by people and scripts.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use patchtui::config::RecordedConfig;
use patchtui::record::{
    Checkpoints, LineHashes, MODEL_FILE, NewCheckpoint, RunDirectory, RunIndex, RunLock,
    TrainerState,
};
use serde_json::Value;

use crate::fake_run::patch_size;

/// A run named `books` with four checkpoints: a permanent one, the best, and two newer ones.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        let run = RunDirectory::create(bench.run_path()).unwrap();
        fs::write(run.config(), "").unwrap();
        bench.index().add(&run).unwrap();
        for (step, permanent, token_loss) in
            [(1, true, None), (2, false, Some(2.25)), (3, false, None), (4, false, Some(2.5))]
        {
            save(&run, step, permanent, token_loss);
        }
        bench
    }

    fn run_path(&self) -> PathBuf {
        self.folder.path().join("runs/books")
    }

    fn index(&self) -> RunIndex {
        RunIndex::at(self.folder.path().join("state/patchtui/runs"))
    }

    fn checkpoint(&self, step: u64) -> PathBuf {
        self.run_path().join(format!("checkpoints/step-{step:08}"))
    }

    /// Exit code, standard output and standard error.
    fn patchtui(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchtui"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .env_remove("PATCHTUI_RUNS_DIR");
        let output =
            command.env("XDG_STATE_HOME", self.folder.path().join("state")).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// The JSON document that a command prints.
    fn document(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.patchtui(arguments).1).unwrap()
    }
}

fn save(run: &RunDirectory, step: u64, permanent: bool, token_loss: Option<f64>) {
    let state = serde_json::json!({
        "format_version": 2, "step": step, "stage": 0, "stage_step": step, "patch_size": patch_size(4), "optimizer_count": step, "tokens": step,
        "data_position": step, "cursor": [0, step, 0], "seed": 1, "data_fingerprint": "text", "has_measured": true
    });
    let new = NewCheckpoint {
        state: serde_json::from_value::<TrainerState>(state).unwrap(),
        active_seconds: vec![0.5],
        token_loss,
        permanent,
        tensor_bytes: 64,
        write_tensors: &mut |file| file.write_all(b"tensors").map_err(Into::into),
        config: RecordedConfig::new(),
        sync_lines: &|| Ok(LineHashes::new()),
        stop: &|| false,
    };
    Checkpoints::new(run, 100).save(new).unwrap();
}

#[test]
fn checkpoints_are_listed_with_what_decides_about_them() {
    let bench = Bench::new();
    fs::write(bench.checkpoint(3).join(MODEL_FILE), "").unwrap();
    fs::create_dir(bench.checkpoint(5).with_extension("tmp")).unwrap();
    let (code, text, note) = bench.patchtui(&["checkpoint", "ls", "books"]);
    assert_eq!(code, 0, "{note}");
    let rows: Vec<&str> = text.lines().collect();
    assert!(rows[0].starts_with("STEP  STAGE  K  TOKEN LOSS  KEPT AS"), "{text}");
    assert!(rows[1].starts_with("5     -") && rows[1].contains("not valid: unfinished"), "{text}");
    assert!(
        rows[2].starts_with("4     1      4  2.500       -") && rows[2].ends_with("valid"),
        "{text}"
    );
    assert!(
        rows[3].contains("not valid: ") && rows[3].contains("it has 0 bytes instead of 7"),
        "{text}"
    );
    assert!(rows[4].starts_with("2     1      4  2.250       best"), "{text}");
    assert!(rows[5].contains("permanent"), "{text}");
    assert!(note.contains("patchtui checkpoint verify books"), "{note}");
    let document = bench.document(&["checkpoint", "ls", "books", "--json"]);
    let facts = |key: &str| {
        document["checkpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|checkpoint| checkpoint[key].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(facts("step"), [5, 4, 3, 2, 1]);
    assert_eq!(facts("valid"), [false, true, false, true, true]);
    assert_eq!(
        (facts("best"), facts("permanent")),
        (
            vec![false, false, false, true, false].into_iter().map(Value::from).collect(),
            vec![false, false, false, false, true].into_iter().map(Value::from).collect()
        )
    );
}

#[test]
fn verifying_reads_every_byte_and_fails_if_one_is_wrong() {
    let bench = Bench::new();
    let (code, text, _) = bench.patchtui(&["checkpoint", "verify", "books"]);
    assert_eq!((code, text.lines().count(), text.matches("  valid").count()), (0, 4, 4), "{text}");
    fs::write(bench.checkpoint(2).join(MODEL_FILE), "tenfors").unwrap();
    let (code, text, _) = bench.patchtui(&["checkpoint", "verify", "books"]);
    assert!(
        code == 1
            && text.contains("step-00000002  not valid: ")
            && text.contains("its content does not match its hash"),
        "{text}"
    );
    assert_eq!(bench.document(&["checkpoint", "verify", "books", "--json"])["valid"], false);
}

#[test]
fn pruning_says_what_it_would_do_then_does_it_and_leaves_a_running_run_alone() {
    let bench = Bench::new();
    let (code, text, _) =
        bench.patchtui(&["checkpoint", "prune", "books", "--keep", "1", "--dry-run"]);
    assert!(
        code == 0 && text.contains("would delete  step-00000003") && text.contains("would free"),
        "{text}"
    );
    assert!(
        text.contains("kept  step-00000002")
            && text.contains("(lowest token loss)")
            && text.contains("(permanent)"),
        "{text}"
    );
    assert!(bench.checkpoint(3).exists());
    let run = RunDirectory::new(bench.run_path());
    let lock = RunLock::acquire(&run).unwrap();
    let (code, _, error) = bench.patchtui(&["checkpoint", "prune", "books", "--keep", "1"]);
    assert!(
        code == 2 && error.contains("is already running") && error.contains("checkpoint.keep"),
        "{error}"
    );
    drop(lock);
    let document = bench.document(&["checkpoint", "prune", "books", "--keep", "1", "--json"]);
    assert!(document["freed_bytes"].as_u64().unwrap() > 100, "{document}");
    assert!(
        !bench.checkpoint(3).exists()
            && bench.checkpoint(1).exists()
            && bench.checkpoint(2).exists()
    );
    let (_, text, _) = bench.patchtui(&[
        "checkpoint",
        "prune",
        "books",
        "--keep",
        "1",
        "--also",
        "permanent,best",
    ]);
    assert!(text.contains("in 2 of 3 checkpoints"), "{text}");
    assert_eq!(fs::read_dir(bench.run_path().join("checkpoints")).unwrap().count(), 1);
}

#[test]
fn a_run_is_removed_only_when_nothing_speaks_against_it() {
    let bench = Bench::new();
    let refuse = |arguments: &[&str], words: &str| {
        let (code, _, error) = bench.patchtui(arguments);
        assert!(code == 2 && error.contains(words), "{arguments:?}: {code}, {error}");
        assert!(bench.checkpoint(4).exists());
    };
    refuse(&["runs", "rm", "books"], "add --yes");
    refuse(&["runs", "rm", "./state", "--yes"], "is not a run directory");
    refuse(&["runs", "rm", "./none", "--yes"], "./none does not exist");
    refuse(&["runs", "rm", "books", "boks", "--yes"], "there is no run named");
    fs::write(bench.run_path().join("thesis.tex"), "").unwrap();
    refuse(&["runs", "rm", "books", "--yes"], "did not write: thesis.tex");
    let lock = RunLock::acquire(&RunDirectory::new(bench.run_path())).unwrap();
    refuse(&["runs", "rm", "books", "--yes", "--all-files"], "patchtui ctl books stop");
    drop(lock);
    let (code, text, error) =
        bench.patchtui(&["runs", "rm", "books", "books", "--yes", "--all-files"]);
    assert!(code == 0 && text.starts_with("removed books (not started, "), "{text}{error}");
    assert!(!bench.run_path().exists() && bench.index().runs().is_empty());
    assert_eq!(fs::read_dir(bench.folder.path().join("runs")).unwrap().count(), 0);
    assert_eq!(bench.document(&["runs", "--json"]), serde_json::json!([]));
}
