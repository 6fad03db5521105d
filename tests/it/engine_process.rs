//! A real engine process with a trainer that only pretends: signals, crashes, panics, broken pipes.
//!
//! The process is this test program itself, started with one test that does nothing but be an engine.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use patchtui::commands::Runs;
use patchtui::commands::attach::find;
use patchtui::commands::ctl::{CtlRequest, CtlVerb, answer};
use patchtui::commands::engine_process::{EngineSetup, Face, run_engine};
use patchtui::commands::launch::{LaunchError, spawn};
use patchtui::config::OnUsr1;
use patchtui::control::{greet, request};
use patchtui::run::{
    CommandNote, EngineInfo, EventSender, History, Inbox, Outcome, RunCommand, RunDirectory, RunEnd, RunEvent, RunIndex, RunLock, RunState, RunSummary,
    is_alive,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::fake_run::{end, header, step};

const LIMIT: Duration = Duration::from_mins(1);
const RUN: &str = "PATCHTUI_TEST_ENGINE_RUN";
const BEHAVIOUR: &str = "PATCHTUI_TEST_ENGINE_BEHAVIOUR";

/// Does nothing as a test; with [`RUN`] set, it is the engine of that run.
#[test]
fn be_an_engine() {
    let Some(path) = std::env::var_os(RUN) else { return };
    let behaviour = std::env::var(BEHAVIOUR).unwrap();
    let directory = RunDirectory::new(path);
    let face = match behaviour.as_str() {
        "plain" => Face::Plain,
        _ => Face::None,
    };
    let on_usr1 = if behaviour == "usr1-stops" { OnUsr1::Stop } else { OnUsr1::Continue };
    let setup = EngineSetup { on_usr1, face, index: RunIndex::of_user(), directory: directory.clone() };
    let code = match run_engine(&setup, move |inbox, events| pretend(&directory, &behaviour, &inbox, &events)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nerror: {error}");
            2
        }
    };
    std::process::exit(code.into());
}

fn pretend(directory: &RunDirectory, behaviour: &str, inbox: &Inbox, events: &EventSender) -> RunEnd {
    events.send(header(directory.path(), None));
    let mut taken = 3;
    (1..=taken).for_each(|n| events.send(step(n)));
    assert!(behaviour != "panics", "out of memory");
    loop {
        if behaviour == "plain" {
            taken += 1;
            events.send(step(taken));
        }
        let Some(asked) = inbox.wait(Duration::from_millis(2)) else { continue };
        let note = CommandNote { id: asked.id, command: asked.command, from: asked.from, step: taken, message: String::new() };
        events.send(RunEvent::CommandAccepted(note.clone()));
        match asked.command {
            _ if behaviour == "deaf" => {}
            RunCommand::Kill => return end(Outcome::Interrupted, taken),
            // A save takes a while; a second signal comes in the middle of it.
            RunCommand::Stop if behaviour == "slow" => {}
            RunCommand::Stop => return end(Outcome::Stopped, taken),
            command => events.send(RunEvent::CommandDone(CommandNote { message: format!("{command} at step {taken}"), ..note })),
        }
    }
}

struct Engine {
    folder: tempfile::TempDir,
    run: RunDirectory,
    child: Child,
}

fn command(folder: &Path, run: &RunDirectory, behaviour: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "engine_process::be_an_engine", "--nocapture", "--test-threads=1"]);
    command.env(RUN, run.path()).env(BEHAVIOUR, behaviour).env("XDG_STATE_HOME", folder.join("state"));
    // A killed engine cannot remove its socket; here it goes with the folder.
    command.env("PATCHTUI_SOCKET_DIR", folder.join("sockets"));
    command
}

impl Engine {
    fn start(behaviour: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(folder.path().join("runs/books")).unwrap();
        let child = spawn(command(folder.path(), &run, behaviour), &run).unwrap();
        Self { folder, run, child }
    }

    /// An engine that may be gone before it can be greeted.
    fn start_failing(behaviour: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(folder.path().join("runs/books")).unwrap();
        let log = fs::File::create(run.engine_log()).unwrap();
        let child = command(folder.path(), &run, behaviour).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { folder, run, child }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the run has said `text`.
    fn hear(&self, text: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let heard = async {
            let mut link = patchtui::control::connect(self.run.clone(), "test".into());
            let mut history = History::default();
            while !history.log.iter().any(|line| line.text.contains(text)) {
                match link.feed.recv().await {
                    Some(patchtui::control::Feed::Record(record)) => history.apply(&record),
                    Some(patchtui::control::Feed::Snapshot(all) | patchtui::control::Feed::Ended { history: all }) => history = *all,
                    Some(patchtui::control::Feed::Heard | patchtui::control::Feed::Lost { .. }) => {}
                    None => panic!("the run ended without saying {text:?}: {:?}", history.log),
                }
            }
        };
        runtime.block_on(async { tokio::time::timeout(LIMIT, heard).await.unwrap_or_else(|_| panic!("nobody said {text:?}")) });
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    fn history(&self) -> History {
        History::read(&self.run).unwrap().0
    }

    fn runs(&self) -> Runs {
        Runs { folder: self.folder.path().join("elsewhere"), index: RunIndex::at(self.folder.path().join("state/patchtui/runs")) }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_first_sigterm_stops_with_a_checkpoint() {
    let mut engine = Engine::start("obeys");
    engine.signal(Signal::TERM);
    assert_eq!(engine.exit_code(), Some(75));
    let history = engine.history();
    assert_eq!(history.end.map(|end| end.outcome), Some(Outcome::Stopped));
    assert!(history.log.iter().any(|line| line.text == "stop asked by SIGTERM"), "{:?}", history.log);
    assert!(!is_alive(&engine.run));
    assert!(!EngineInfo::read(&engine.run).unwrap().socket.exists());
}

#[test]
fn a_second_signal_ends_without_a_checkpoint() {
    let mut engine = Engine::start("slow");
    engine.signal(Signal::INT);
    engine.hear("stop asked by SIGINT");
    engine.signal(Signal::TERM);
    assert_eq!(engine.exit_code(), Some(130));
    assert_eq!(engine.history().end.map(|end| end.outcome), Some(Outcome::Interrupted));
}

#[test]
fn a_third_signal_ends_a_trainer_that_does_not_listen() {
    let mut engine = Engine::start("deaf");
    for asked in ["stop asked by SIGTERM", "kill asked by SIGTERM"] {
        engine.signal(Signal::TERM);
        engine.hear(asked);
    }
    engine.signal(Signal::TERM);
    assert_eq!(engine.exit_code(), Some(130));
    assert_eq!(engine.history().end, None);
    assert_eq!(RunSummary::read(&engine.run).unwrap().state, RunState::Crashed);
}

#[test]
fn a_terminal_that_is_gone_does_not_stop_the_run() {
    let engine = Engine::start("obeys");
    engine.signal(Signal::HUP);
    engine.hear("SIGHUP was ignored");
    engine.signal(Signal::TSTP);
    engine.hear("SIGTSTP (Ctrl-Z) was ignored");
    assert_eq!(request(&engine.run, RunCommand::Checkpoint, "test", LIMIT).unwrap(), "checkpoint at step 3");
}

#[test]
fn an_engine_has_a_session_of_its_own() {
    let engine = Engine::start("obeys");
    let stat = fs::read_to_string(format!("/proc/{}/stat", engine.child.id())).unwrap();
    let fields: VecDeque<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    assert_eq!(fields[3], engine.child.id().to_string(), "field 6 of {stat}");
}

#[test]
fn sigusr1_saves_and_goes_on_or_stops() {
    let engine = Engine::start("obeys");
    engine.signal(Signal::USR1);
    engine.hear("checkpoint done: checkpoint at step 3");
    let mut engine = Engine::start("usr1-stops");
    engine.signal(Signal::USR1);
    assert_eq!(engine.exit_code(), Some(75));
}

#[test]
fn sigusr2_puts_a_removed_socket_back() {
    let engine = Engine::start("obeys");
    let socket = EngineInfo::read(&engine.run).unwrap().socket;
    fs::remove_file(&socket).unwrap();
    greet(&engine.run, "test").unwrap_err();
    engine.signal(Signal::USR2);
    engine.hear("the engine's socket was opened anew");
    greet(&engine.run, "test").unwrap();
}

#[test]
fn a_trainer_that_panics_is_a_failed_run_with_its_reason() {
    let mut engine = Engine::start_failing("panics");
    assert_eq!(engine.exit_code(), Some(1));
    let end = engine.history().end.unwrap();
    assert_eq!((end.outcome, end.error.unwrap().message.as_str()), (Outcome::Failed, "the trainer broke: out of memory"));
    assert!(fs::read_to_string(engine.run.engine_log()).unwrap().contains("thread 'trainer'"));
}

#[test]
fn an_engine_that_cannot_start_shows_why() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDirectory::create(folder.path().join("books")).unwrap();
    let _taken = RunLock::acquire(&run).unwrap();
    fs::write(run.engine_log(), "older words\n").unwrap();
    let error = spawn(command(folder.path(), &run, "obeys"), &run).unwrap_err();
    let LaunchError::Died { status, tail, .. } = &error else { panic!("{error}") };
    assert_eq!(status.code(), Some(2));
    assert!(tail.iter().any(|line| line == "error: the run \"books\" is alive"), "{tail:?}");
    assert!(!error.to_string().contains("older words"));
    assert!(error.hint().ends_with("books/engine.log"));
}

#[test]
fn a_killed_engine_leaves_a_crashed_run_that_can_go_on() {
    let mut engine = Engine::start("obeys");
    engine.hear("books starts");
    engine.signal(Signal::KILL);
    assert_eq!(engine.exit_code(), None);
    assert_eq!(RunSummary::read(&engine.run).unwrap().state, RunState::Crashed);
    engine.child = spawn(command(engine.folder.path(), &engine.run, "obeys"), &engine.run).unwrap();
    request(&engine.run, RunCommand::Stop, "test", LIMIT).unwrap();
    assert_eq!(engine.exit_code(), Some(75));
    assert_eq!(engine.history().attempt, 2);
}

#[test]
fn a_run_is_found_and_asked_from_any_folder() {
    let engine = Engine::start("obeys");
    let runs = engine.runs();
    assert_eq!(find(None, &runs).unwrap(), engine.run);
    let ask = |verb, json| answer(CtlRequest { run: "books", verb, limit: LIMIT, json }, &runs).unwrap();
    assert_eq!(ask(CtlVerb::Tell(RunCommand::Evaluate), false), "evaluate at step 3\n");
    let status: serde_json::Value = serde_json::from_str(&ask(CtlVerb::Status, true)).unwrap();
    assert_eq!((&status["state"], &status["step"], &status["steps"]), (&"alive".into(), &3.into(), &6.into()));
    assert!(ask(CtlVerb::Status, false).contains("step         3 of 6\n"));
    assert_eq!(patchtui::commands::runs::summaries(&runs).len(), 1);
    let error = answer(CtlRequest { run: "book", verb: CtlVerb::Status, limit: LIMIT, json: false }, &runs).unwrap_err();
    assert_eq!(error.hint.unwrap(), "did you mean \"books\"? List all with: patchtui runs");
}

#[test]
fn a_closed_standard_output_does_not_stop_a_run_in_the_foreground() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDirectory::create(folder.path().join("books")).unwrap();
    let mut child = command(folder.path(), &run, "plain").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("step   1/6")));
    drop(lines);
    let steps = || History::read(&run).unwrap().0.step();
    let (before, limit) = (steps(), Instant::now() + LIMIT);
    while steps() < before + 20 {
        assert!(Instant::now() < limit && child.try_wait().unwrap().is_none(), "the run stands still");
    }
    let mut engine = Engine { folder, run, child };
    request(&engine.run, RunCommand::Stop, "test", LIMIT).unwrap();
    assert_eq!(engine.exit_code(), Some(75));
}
