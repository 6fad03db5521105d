//! Runs of every released format must stay readable: listed, shown, attached to and resumed.
//!
//! `tests/fixtures/format-N` contains a short text, a run of a tiny network that was stopped after
//! its seventh step of twelve, and a snapshot as sent by an engine of that format. They are never
//! regenerated.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use patchtui::control::ServerMessage;
use patchtui::record::{History, Outcome, PlanFile, RunDirectory, RunState, RunSummary};
use patchtui::tui::view_text;

/// All formats written by a released version.
pub(crate) const FORMATS: [&str; 2] = ["format-1", "format-2"];

/// A copy of a fixture, for a test to write into.
pub(crate) struct Fixture {
    folder: tempfile::TempDir,
    name: &'static str,
}

impl Fixture {
    pub(crate) fn copy(name: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&source(name), folder.path());
        let config = folder.path().join("books/config.toml");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("/fixture", folder.path().to_str().unwrap())).unwrap();
        Self { folder, name }
    }

    pub(crate) fn run(&self) -> RunDirectory {
        RunDirectory::new(self.folder.path().join("books"))
    }
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn all() -> Vec<Fixture> {
    FORMATS.into_iter().map(Fixture::copy).collect()
}

#[test]
fn a_run_of_every_format_is_listed() {
    for fixture in all() {
        let summary = RunSummary::read(&fixture.run()).unwrap();
        let token_loss = summary.token_loss.unwrap();
        assert_eq!(
            (summary.state, summary.step, summary.steps),
            (RunState::Stopped, 7, Some(12)),
            "{}",
            fixture.name
        );
        assert!((5.0..6.0).contains(&token_loss), "{}: {token_loss}", fixture.name);
    }
}

#[test]
fn a_run_of_every_format_is_shown() {
    for fixture in all() {
        let (history, report) = History::read(&fixture.run()).unwrap();
        assert_eq!((report.num_bad_lines, report.attempt), (0, 1), "{}", fixture.name);
        assert_eq!(
            history.steps.iter().map(|point| point.step).collect::<Vec<_>>(),
            (1..=7).collect::<Vec<_>>(),
            "{}",
            fixture.name
        );
        assert_eq!(
            history.end.as_ref().map(|end| end.outcome),
            Some(Outcome::Stopped),
            "{}",
            fixture.name
        );
        let plan = &history.header.as_ref().unwrap().plan;
        assert_eq!(
            (plan.steps, plan.cost.tokens, plan.stages.len(), plan.model.hidden_size),
            (12, 1536, 2, 8),
            "{}",
            fixture.name
        );
        assert_eq!(
            plan.stages.iter().map(|stage| stage.patch_size.get()).collect::<Vec<_>>(),
            [4, 1],
            "{}",
            fixture.name
        );
        let screen = view_text(&history, 100, 34);
        assert!(
            screen.contains("7/12") && screen.contains("stopped"),
            "{}: {screen}",
            fixture.name
        );
    }
}

#[test]
fn the_plan_of_every_format_is_what_its_header_says() {
    for fixture in all() {
        let (history, _) = History::read(&fixture.run()).unwrap();
        let file: PlanFile =
            serde_json::from_slice(&fs::read(fixture.run().plan()).unwrap()).unwrap();
        assert_eq!(file.plan, history.header.unwrap().plan, "{}", fixture.name);
        assert_eq!(
            (
                file.plan.block_tokens,
                file.plan.stages[1].schedule.kind.as_str(),
                file.plan.cadences.checkpoint
            ),
            (64, "cosine", Some(4))
        );
    }
}

#[test]
fn a_snapshot_of_every_format_is_understood() {
    for name in FORMATS {
        let text = fs::read_to_string(source(name).join("snapshot.json")).unwrap();
        let ServerMessage::Snapshot(history) = serde_json::from_str(&text).unwrap() else {
            panic!("{name} is not a snapshot")
        };
        let plan = &history.header.as_ref().unwrap().plan;
        assert!(
            history.last_seq > 20 && plan.stages.len() == 2 && !history.evaluations.is_empty(),
            "{name}"
        );
        // A newer engine may send more fields, and fewer than this version has.
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["colour"] = serde_json::json!({ "of": "its own" });
        value.as_object_mut().unwrap().remove("stage_speed");
        let ServerMessage::Snapshot(tolerant) = serde_json::from_value(value).unwrap() else {
            panic!("{name} is not a snapshot")
        };
        assert!(tolerant.stage_speed.is_empty() && tolerant.steps == history.steps, "{name}");
    }
}

#[test]
fn watching_a_run_of_every_format_shows_its_end() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for fixture in all() {
        let feed = runtime.block_on(async {
            patchtui::control::connect(fixture.run(), "test".into()).feed.recv().await
        });
        let Some(patchtui::control::Feed::Ended { history }) = feed else {
            panic!("{}: {feed:?}", fixture.name)
        };
        assert_eq!(history.end.map(|end| end.step), Some(7), "{}", fixture.name);
    }
}

fn patchtui(fixture: &Fixture, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patchtui"));
    command.args(arguments).arg(fixture.run().path()).current_dir(fixture.folder.path());
    command
        .env("XDG_STATE_HOME", fixture.folder.path().join("state"))
        .env("PATCHTUI_SOCKET_DIR", fixture.folder.path().join("sockets"));
    command.output().unwrap()
}

#[test]
fn a_run_of_every_format_is_viewed_without_a_terminal() {
    for fixture in all() {
        let output = patchtui(&fixture, &["view"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && text.contains("7 of 12") && text.contains("stopped"),
            "{}: {text}",
            fixture.name
        );
    }
}

#[cfg(feature = "engine")]
#[test]
fn a_run_of_every_format_goes_on() {
    for fixture in all() {
        let output = patchtui(&fixture, &["resume", "--json"]);
        assert!(
            output.status.success(),
            "{}: {}",
            fixture.name,
            String::from_utf8_lossy(&output.stderr)
        );
        let (history, _) = History::read(&fixture.run()).unwrap();
        assert_eq!(
            history.header.as_ref().and_then(|header| header.resumed_from),
            Some(7),
            "{}",
            fixture.name
        );
        assert_eq!(
            history.steps.iter().map(|point| point.step).collect::<Vec<_>>(),
            (1..=12).collect::<Vec<_>>(),
            "{}",
            fixture.name
        );
        assert_eq!(
            history.end.map(|end| end.outcome),
            Some(Outcome::Completed),
            "{}",
            fixture.name
        );
        assert!(
            history.log.iter().all(|line| !line.text.contains("is not used")),
            "{}: {:?}",
            fixture.name,
            history.log
        );
        // Both were written before the network had its own backward passes.
        let is_said = history.log.iter().any(|line| line.text.contains("may not be bit-identical"));
        assert!(is_said, "{}: {:?}", fixture.name, history.log);
    }
}
