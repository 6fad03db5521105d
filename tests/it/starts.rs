//! Starting: of two starts of one name one wins, and it trains what it has written down; a run that
//! loses its directory ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use patchtui::host::{Claim, Wish, claim};
use patchtui::record::{RunDirectory, RunIndex};
use serde_json::Value;

use crate::resume::{TINY, tiny_config};

/// A folder with its own state, sockets and runs.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn run_dir(&self, name: &str) -> PathBuf {
        self.0.path().join("runs").join(name)
    }

    fn patchtui(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchtui"));
        command
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
            .env("XDG_STATE_HOME", self.0.path().join("state"))
            .env("PATCHTUI_SOCKET_DIR", self.0.path().join("sockets"));
        command.env_remove("PATCHTUI_RUNS_DIR");
        command
    }

    fn tiny(&self, arguments: &[&str]) -> Command {
        let mut command = self.patchtui(&["run", "demo", "--json"]);
        command.args(TINY.iter().flat_map(|set| ["--set", set])).args(arguments);
        command
    }

    /// A run on `text.txt` with more steps than any test waits for.
    fn endless(&self, name: &str) -> Command {
        let sets = TINY
            .into_iter()
            .filter(|set| !set.starts_with("training.tokens=") && !set.starts_with("checkpoint"));
        let mut command = self.patchtui(&["run", "demo", "--json", "--name", name]);
        let own = ["data.files=text.txt", "training.steps=1M", "checkpoint.every_steps=1"];
        command.args(sets.chain(own).flat_map(|set| ["--set", set]));
        command
    }

    /// The seed in a run's configuration, and the seeds of its checkpoints.
    fn seeds(&self, name: &str) -> (u64, Vec<u64>) {
        let config = fs::read_to_string(self.run_dir(name).join("config.toml")).unwrap();
        let said =
            config.lines().find_map(|line| line.strip_prefix("seed = ")).unwrap().parse().unwrap();
        let checkpoints = fs::read_dir(self.run_dir(name).join("checkpoints"))
            .unwrap()
            .map(|entry| entry.unwrap().path().join("trainer.json"));
        let trained = checkpoints.map(|path| {
            serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap()["seed"]
                .as_u64()
                .unwrap()
        });
        (said, trained.collect())
    }
}

fn finish(child: Child) -> (i32, String) {
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    (status.code().unwrap_or(-1), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn of_two_starts_of_one_name_one_wins_and_trains_what_was_written_down() {
    let bench = Bench::new();
    for round in 0..5 {
        let name = format!("books-{round}");
        let start = |seed: &str| bench.tiny(&["--name", &name, "--set", seed]).spawn().unwrap();
        let children = [start("seed=100"), start("seed=5000")];
        let ended = children.map(finish);
        let mut codes = ended.each_ref().map(|(code, _)| *code);
        codes.sort_unstable();
        assert_eq!(codes, [0, 2], "{ended:?}");
        let loser = &ended.iter().find(|(code, _)| *code == 2).unwrap().1;
        // It started while the winner was training, or after it had ended.
        assert!(
            loser.contains("is already running") || loser.contains("exists (completed)"),
            "{loser}"
        );
        let (said, trained) = bench.seeds(&name);
        assert!(
            !trained.is_empty() && trained.iter().all(|seed| *seed == said),
            "config.toml says {said}, trained {trained:?}"
        );
    }
}

#[test]
fn of_two_starts_without_a_name_each_trains_what_was_written_down() {
    let bench = Bench::new();
    for round in 0..4 {
        let config = format!("books-{round}x");
        let start = |seed: &str| {
            bench.tiny(&["--set", &format!("name={config}"), "--set", seed]).spawn().unwrap()
        };
        let ended = [start("seed=100"), start("seed=5000")].map(finish);
        let mut codes = ended.each_ref().map(|(code, _)| *code);
        codes.sort_unstable();
        // The second is refused while the first trains, and gets the next name once that has ended.
        assert!(matches!(codes, [0, 0 | 2]), "{ended:?}");
        for name in [config.clone(), format!("{config}-2")]
            .iter()
            .filter(|name| bench.run_dir(name).exists())
        {
            let (said, trained) = bench.seeds(name);
            assert!(
                !trained.is_empty() && trained.iter().all(|seed| *seed == said),
                "{name}: config.toml says {said}, trained {trained:?}"
            );
        }
    }
}

/// The same race at its narrowest: one start has written its configuration, and its engine has not
/// begun.
#[test]
fn a_start_between_the_configuration_and_the_engine_of_another_changes_nothing() {
    let bench = Bench::new();
    let runs = bench.0.path().join("runs");
    let claimed = claim(Wish { name: "books", is_explicit: true, resume: false }, &runs).unwrap();
    let index = RunIndex::at(bench.0.path().join("state/patchtui/runs"));
    let Claim::Ready(claimed) = claimed else { panic!("{claimed:?}") };
    let (directory, lock, _) = claimed
        .prepare(tiny_config(&["name=books", "seed=7"]), &index, |_, _| Ok(Vec::new()))
        .unwrap();
    let before = fs::read(directory.config()).unwrap();
    for arguments in [
        &["--name", "books", "--set", "seed=8"][..],
        &["--set", "name=books", "--set", "seed=8"],
        &["--name", "books", "--resume"],
    ] {
        let (code, errors) = finish(bench.tiny(arguments).spawn().unwrap());
        assert!(
            code == 2 && errors.contains("is already running"),
            "{arguments:?}: {code} {errors}"
        );
        assert!(
            fs::read(directory.config()).unwrap() == before && !directory.metrics().exists(),
            "{arguments:?}"
        );
    }
    // Whoever comes when it has given up finds a run of that seed, which has to be resumed.
    drop(lock);
    assert_eq!(
        finish(bench.tiny(&["--name", "books", "--resume", "--set", "seed=7"]).spawn().unwrap()).0,
        0
    );
    assert_eq!(bench.seeds("books").0, 7);
}

#[test]
fn two_resumes_of_one_run_go_on_once() {
    let bench = Bench::new();
    let mut child = bench.tiny(&[]).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map_while(Result::ok).find(|line| line.contains("\"step_completed\"")).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let resume = || bench.tiny(&["--resume"]).spawn().unwrap();
    let ended = [resume(), resume()].map(finish);
    // The second may start after the first has completed the run: then there is nothing to do.
    assert!(
        ended.iter().any(|(code, _)| *code == 0)
            && ended.iter().all(|(code, _)| matches!(code, 0 | 2)),
        "{ended:?}"
    );
    let metrics = fs::read_to_string(bench.run_dir("demo").join("metrics.jsonl")).unwrap();
    let attempts: Vec<u64> = metrics
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["attempt"].as_u64().unwrap())
        .collect();
    assert!(attempts.is_sorted() && attempts.last() == Some(&2), "{attempts:?}");
}

#[test]
fn a_start_that_is_refused_leaves_nothing_behind() {
    let bench = Bench::new();
    let (code, errors) =
        finish(bench.tiny(&["--set", "data.files=[\"absent.txt\"]"]).spawn().unwrap());
    assert_eq!(code, 2, "{errors}");
    assert!(!bench.0.path().join("runs").exists());
    // An existing run keeps its files.
    assert_eq!(finish(bench.tiny(&[]).spawn().unwrap()).0, 0);
    let (code, errors) = finish(bench.tiny(&["--name", "demo"]).spawn().unwrap());
    assert!(code == 2 && errors.contains("exists (completed)"), "{errors}");
    assert!(bench.run_dir("demo").join("checkpoints/step-00000009").is_dir());
}

#[test]
fn a_run_whose_directory_is_deleted_fails_and_says_so() {
    let bench = Bench::new();
    let text = bench.0.path().join("text.txt");
    fs::write(&text, "to be or not to be ".repeat(500)).unwrap();
    let mut first = bench.endless("books").spawn().unwrap();
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines().map_while(Result::ok);
    lines.find(|line| line.contains("\"step\":3,")).unwrap();
    // Files may be written while the folder is being removed.
    while bench.run_dir("books").exists() {
        let _ = fs::remove_dir_all(bench.run_dir("books"));
    }
    let last = lines.last().unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(1));
    let end: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(
        (end["event"]["type"].as_str(), end["event"]["outcome"].as_str()),
        (Some("run_finished"), Some("failed")),
        "{last}"
    );
    assert!(
        end["event"]["error"]["message"]
            .as_str()
            .unwrap()
            .contains("was deleted, moved or replaced during the run"),
        "{last}"
    );
    assert!(
        !bench.run_dir("books").exists(),
        "a run that has lost its directory must not make it again"
    );
}

#[test]
fn a_removed_lock_file_is_made_again_and_the_run_goes_on() {
    let bench = Bench::new();
    let text = bench.0.path().join("text.txt");
    fs::write(&text, "to be or not to be ".repeat(500)).unwrap();
    let mut run = bench.endless("books").spawn().unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines().map_while(Result::ok);
    lines.find(|line| line.contains("\"step\":3,")).unwrap();
    fs::remove_file(bench.run_dir("books").join("lock")).unwrap();
    lines.find(|line| line.contains("lock file was removed")).unwrap();
    let (code, errors) = finish(bench.endless("books").spawn().unwrap());
    assert!(code == 2 && errors.contains("is already running"), "{errors}");
    assert_eq!(finish(bench.patchtui(&["ctl", "books", "stop"]).spawn().unwrap()).0, 0);
    lines.for_each(drop);
    assert_eq!(run.wait().unwrap().code(), Some(75));
}

#[test]
fn resuming_a_run_that_is_not_there_makes_nothing() {
    let bench = Bench::new();
    fs::create_dir(bench.0.path().join("empty")).unwrap();
    let (code, errors) =
        finish(bench.patchtui(&["resume", "./empty", "--no-tui"]).spawn().unwrap());
    assert!(code == 2 && errors.contains("is not a run directory"), "{errors}");
    assert_eq!(fs::read_dir(bench.0.path().join("empty")).unwrap().count(), 0);
    let (code, errors) = finish(bench.patchtui(&["resume", "./none", "--no-tui"]).spawn().unwrap());
    assert!(code == 2 && errors.contains("./none does not exist"), "{errors}");
}

#[test]
fn what_a_killed_writer_left_is_gone_after_the_next_start() {
    let bench = Bench::new();
    let run = RunDirectory::create(bench.run_dir("demo")).unwrap();
    for name in ["config.toml.77.tmp", "engine.json.78.tmp"] {
        fs::write(run.path().join(name), "half").unwrap();
    }
    assert_eq!(finish(bench.tiny(&[]).spawn().unwrap()).0, 0);
    let names = fs::read_dir(run.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    assert_eq!(names.filter(|name| name.contains("tmp")).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_pipe_in_the_place_of_a_file_holds_nobody_up() {
    let bench = Bench::new();
    assert_eq!(finish(bench.tiny(&[]).spawn().unwrap()).0, 0);
    let put_pipe = |path: &Path| {
        let _ = fs::remove_file(path);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
    };
    for file in [
        "events.jsonl",
        "metrics.jsonl",
        "evals.jsonl",
        "engine.json",
        "engine.log",
        "lock",
        "config.toml",
    ] {
        let run = bench.run_dir("demo").join(file);
        let kept = fs::read(&run).ok();
        put_pipe(&run);
        // Any answer is accepted, but there must be one.
        for arguments in [
            &["runs"][..],
            &["ctl", "demo", "status"],
            &["run", "demo", "--no-tui", "--resume"],
            &["resume", "demo", "--no-tui"],
        ] {
            let (code, errors) = finish(bench.patchtui(arguments).spawn().unwrap());
            assert!(
                (0..=2).contains(&code) && !errors.contains("panicked"),
                "{file} {arguments:?}: {code} {errors}"
            );
        }
        fs::remove_file(&run).unwrap();
        if let Some(kept) = kept {
            fs::write(&run, kept).unwrap();
        }
    }
}

#[test]
fn a_run_keeps_its_tokenizer_and_goes_on_without_the_file() {
    let bench = Bench::new();
    fs::write(
        bench.0.path().join("text.txt"),
        "to be or not to be, that is the question. ".repeat(300),
    )
    .unwrap();
    let train = ["tokenizer", "train", "text.txt", "--vocab-size", "280", "--output", "own.json"];
    assert_eq!(finish(bench.patchtui(&train).spawn().unwrap()).0, 0);
    let own = [
        "--set",
        "data.files=text.txt",
        "--set",
        "data.tokenizer=own.json",
        "--set",
        "model.vocab_size=320",
    ];
    let mut child = bench.tiny(&own).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map_while(Result::ok).find(|line| line.contains("\"step_completed\"")).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_file(bench.0.path().join("own.json")).unwrap();
    let (code, errors) = finish(bench.patchtui(&["resume", "demo", "--json"]).spawn().unwrap());
    assert_eq!(code, 0, "{errors}");
    let trainer: Value = serde_json::from_slice(
        &fs::read(bench.run_dir("demo").join("checkpoints/step-00000009/trainer.json")).unwrap(),
    )
    .unwrap();
    let copy = fs::read(bench.run_dir("demo").join("tokenizer.json")).unwrap();
    assert_eq!(trainer["tokenizer"].as_str(), Some(blake3::hash(&copy).to_hex().as_str()));
}

#[test]
fn a_complete_run_that_cannot_be_locked_is_said_to_be_complete() {
    let bench = Bench::new();
    assert_eq!(finish(bench.tiny(&[]).spawn().unwrap()).0, 0);
    let lock = bench.run_dir("demo").join("lock");
    fs::remove_file(&lock).unwrap();
    // As on a read-only disk, it cannot be opened for writing; root can write to files that are
    // only protected.
    fs::create_dir(&lock).unwrap();
    for mut command in [
        bench.tiny(&["--resume"]),
        bench.tiny(&["--name", "demo", "--resume"]),
        bench.patchtui(&["resume", "demo"]),
    ] {
        let (code, errors) = finish(command.spawn().unwrap());
        assert!(
            code == 0 && errors.contains("demo has completed: there is nothing to resume"),
            "{code}: {errors}"
        );
    }
    let (code, errors) = finish(bench.tiny(&["--name", "demo"]).spawn().unwrap());
    assert!(code == 2 && errors.contains("exists (completed)"), "{code}: {errors}");
}
