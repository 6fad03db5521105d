//! A real engine process with a simulated trainer: signals, crashes, panics, broken pipes.
//!
//! The process is this test binary itself, started with a single test that acts as the engine.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use patchtui::advice::Failure;
use patchtui::advice::{Advice, Audience};
use patchtui::cli::Verb;
use patchtui::commands::Runs;
use patchtui::commands::attach::find;
use patchtui::commands::ctl::{CtlRequest, Wait, answer};
use patchtui::config::OnUsr1;
use patchtui::control::{ControlError, Request, greet, request};
use patchtui::host::{EngineSetup, Face, LaunchError, run_engine, spawn};
use patchtui::record::{
    EngineInfo, EventSender, History, Outcome, RunCommand, RunDirectory, RunEnd, RunEvent,
    RunIndex, RunLock, RunState, RunSummary, is_alive,
};
use patchtui::report::{Plain, stdout};
use patchtui::steer::Inbox;
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
    let mut plain = Plain::new(stdout());
    let face = (matches!(behaviour.as_str(), "plain" | "headless"))
        .then(|| Box::new(move |record| plain.show(&record)) as Face);
    let lock =
        RunLock::inherit(&directory).unwrap().map_or_else(|| RunLock::acquire(&directory), Ok);
    let lock = match lock {
        Ok(lock) => lock,
        Err(error) => {
            eprintln!("\nerror: {error}");
            std::process::exit(2);
        }
    };
    let on_usr1 = if behaviour == "usr1-stops" { OnUsr1::Stop } else { OnUsr1::Continue };
    let setup = EngineSetup {
        on_usr1,
        face,
        lock,
        warnings: if behaviour == "warned" { vec!["the text is short".into()] } else { Vec::new() },
        index: RunIndex::of_user(),
        directory: directory.clone(),
    };
    let code = match run_engine(setup, move |inbox, events| {
        pretend(&directory, &behaviour, inbox, &events)
    }) {
        Ok(code) => code,
        Err(error) => {
            let error = Failure::from(error);
            eprintln!("\nerror: {error}\nhint: {}", error.hint.as_deref().unwrap_or_default());
            error.exit_code
        }
    };
    std::process::exit(code.into());
}

fn pretend(
    directory: &RunDirectory,
    behaviour: &str,
    mut inbox: Inbox,
    events: &EventSender,
) -> RunEnd {
    events.send(header(directory.path(), None));
    let mut taken = 3;
    (1..=taken).for_each(|n| events.send(step(n)));
    assert!(behaviour != "panics", "out of memory");
    loop {
        if behaviour == "plain" {
            taken += 1;
            events.send(step(taken));
        }
        let Some(batch) = inbox.wait(Duration::from_millis(2)) else { continue };
        events.send(RunEvent::CommandAccepted(batch.note(taken, "")));
        match batch.command {
            _ if behaviour == "deaf" => {}
            RunCommand::Kill => return end(Outcome::Interrupted, taken),
            // A save takes a while; a second signal arrives during it.
            RunCommand::Stop if behaviour == "slow" => {}
            RunCommand::Stop if behaviour == "cannot-save" => {
                events.send(RunEvent::CommandFailed(batch.note(taken, "no space left on device")));
                return end(Outcome::Failed, taken);
            }
            RunCommand::Stop => return end(Outcome::Stopped, taken),
            command => events.send(RunEvent::CommandDone(
                batch.note(taken, format!("{command} at step {taken}")),
            )),
        }
    }
}

fn ask(run: &RunDirectory, command: RunCommand) -> Result<String, ControlError> {
    request(run, Request { command, sender: "test", limit: LIMIT }).map(|note| note.message)
}

struct Engine {
    folder: tempfile::TempDir,
    run: RunDirectory,
    child: Child,
}

fn command(folder: &Path, run: &RunDirectory, behaviour: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "engine_process::be_an_engine", "--nocapture", "--test-threads=1"]);
    command
        .env(RUN, run.path())
        .env(BEHAVIOUR, behaviour)
        .env("XDG_STATE_HOME", folder.join("state"));
    // A killed engine cannot remove its socket; here it is removed with the folder.
    command.env("PATCHTUI_SOCKET_DIR", folder.join("sockets"));
    command
}

impl Engine {
    fn start(behaviour: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(folder.path().join("runs/books")).unwrap();
        let child =
            spawn(command(folder.path(), &run, behaviour), &run, RunLock::acquire(&run).unwrap())
                .unwrap();
        Self { folder, run, child }
    }

    /// An engine that finds `problem` in place of its folder for sockets.
    fn start_without_socket_folder(behaviour: &str, problem: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(folder.path().join("runs/books")).unwrap();
        problem(&folder.path().join("sockets"));
        let child =
            spawn(command(folder.path(), &run, behaviour), &run, RunLock::acquire(&run).unwrap())
                .unwrap();
        Self { folder, run, child }
    }

    /// An engine that may have ended before it can be greeted.
    fn start_failing(behaviour: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(folder.path().join("runs/books")).unwrap();
        let log = fs::File::create(run.engine_log()).unwrap();
        let child = command(folder.path(), &run, behaviour)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { folder, run, child }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the run has logged `text`.
    fn hear(&self, text: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let heard = async {
            let mut link = patchtui::control::connect(self.run.clone(), "test".into());
            let mut history = History::default();
            while !history.log.iter().any(|line| line.text.contains(text)) {
                match link.feed.recv().await {
                    Some(patchtui::control::Feed::Record(record)) => history.apply(&record),
                    Some(
                        patchtui::control::Feed::Snapshot(all)
                        | patchtui::control::Feed::Ended { history: all },
                    ) => history = *all,
                    Some(
                        patchtui::control::Feed::Heartbeat | patchtui::control::Feed::Lost { .. },
                    ) => {}
                    None => panic!("the run ended without saying {text:?}: {:?}", history.log),
                }
            }
        };
        runtime.block_on(async {
            tokio::time::timeout(LIMIT, heard)
                .await
                .unwrap_or_else(|_| panic!("nobody said {text:?}"));
        });
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    fn history(&self) -> History {
        History::read(&self.run).unwrap().0
    }

    fn runs(&self) -> Runs {
        Runs {
            folder: self.folder.path().join("elsewhere"),
            index: RunIndex::at(self.folder.path().join("state/patchtui/runs")),
        }
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
    assert!(
        history.log.iter().any(|line| line.text == "stop requested by SIGTERM"),
        "{:?}",
        history.log
    );
    assert!(!is_alive(&engine.run));
    assert!(!EngineInfo::read(&engine.run).unwrap().socket.unwrap().exists());
}

#[test]
fn what_was_warned_of_at_the_start_is_in_the_log_of_every_client() {
    let engine = Engine::start("warned");
    engine.hear("the text is short");
}

#[test]
fn a_second_signal_ends_without_a_checkpoint() {
    let mut engine = Engine::start("slow");
    engine.signal(Signal::INT);
    engine.hear("stop requested by SIGINT");
    engine.signal(Signal::TERM);
    assert_eq!(engine.exit_code(), Some(130));
    assert_eq!(engine.history().end.map(|end| end.outcome), Some(Outcome::Interrupted));
}

#[test]
fn a_third_signal_ends_a_trainer_that_does_not_listen() {
    let mut engine = Engine::start("deaf");
    for asked in ["stop requested by SIGTERM", "kill requested by SIGTERM"] {
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
    assert_eq!(ask(&engine.run, RunCommand::Checkpoint).unwrap(), "checkpoint at step 3");
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
    let socket = EngineInfo::read(&engine.run).unwrap().socket.unwrap();
    fs::remove_file(&socket).unwrap();
    greet(&engine.run, "test").unwrap_err();
    engine.signal(Signal::USR2);
    engine.hear("the engine's socket was reopened");
    greet(&engine.run, "test").unwrap();
}

fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
}

#[test]
fn a_socket_folder_that_cannot_be_used_is_replaced_by_the_run_directory() {
    let a_file = |path: &Path| fs::write(path, "").unwrap();
    let open_to_others = |path: &Path| {
        fs::create_dir(path).unwrap();
        open_to_all(path);
    };
    for engine in [
        Engine::start_without_socket_folder("obeys", a_file),
        Engine::start_without_socket_folder("obeys", open_to_others),
    ] {
        assert_eq!(EngineInfo::read(&engine.run).unwrap().socket, Some(engine.run.engine_socket()));
        engine.hear("cannot use the socket folder");
        assert_eq!(ask(&engine.run, RunCommand::Pause).unwrap(), "pause at step 3");
    }
}

#[test]
fn without_any_socket_a_run_with_a_screen_is_refused_and_a_headless_one_hears_signals() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDirectory::create(folder.path().join("runs/books")).unwrap();
    fs::write(folder.path().join("sockets"), "").unwrap();
    open_to_all(run.path());
    let error = Failure::from(
        spawn(command(folder.path(), &run, "obeys"), &run, RunLock::acquire(&run).unwrap())
            .unwrap_err(),
    );
    assert!(error.exit_code == 2 && error.message.contains("--no-tui"), "{error}");
    let child = command(folder.path(), &run, "headless")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut engine = Engine { folder, run, child };
    let lines = BufReader::new(engine.child.stdout.take().unwrap()).lines();
    let pid = engine.child.id();
    let warned =
        format!("this run accepts signals only: kill -TERM {pid} stops it with a checkpoint");
    let mut lines = lines.map(Result::unwrap);
    assert!(lines.any(|line| line.contains(&warned)), "no warning");
    assert!(lines.any(|line| line.starts_with("step   3/6")), "no step");
    assert_eq!(EngineInfo::read(&engine.run).unwrap().socket, None);
    let refused = ask(&engine.run, RunCommand::Pause).unwrap_err();
    assert!(refused.hint(Audience::Command).contains(&format!("kill -TERM {pid}")), "{refused}");
    engine.signal(Signal::USR2);
    engine.signal(Signal::TERM);
    assert_eq!(engine.exit_code(), Some(75));
    lines.for_each(drop);
    assert!(engine.history().log.iter().any(|line| line.text.contains(&warned)));
}

#[test]
fn a_file_size_limit_is_reported_like_a_full_disk_and_a_broken_pipe_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDirectory::create(folder.path().join("books")).unwrap();
    let engine = command(folder.path(), &run, "plain");
    let mut shell = Command::new("sh");
    // In blocks of 512 or 1024 bytes, depending on the shell.
    shell
        .args(["-c", "ulimit -f 32 && exec \"$0\" \"$@\""])
        .arg(engine.get_program())
        .args(engine.get_args());
    shell.envs(engine.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = shell.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("warning: cannot write") && line.contains("metrics.jsonl")), "nothing was reported");
    let mut engine = Engine { folder, run, child };
    engine.signal(Signal::PIPE);
    engine.signal(Signal::TERM);
    lines.for_each(drop);
    assert_eq!(engine.exit_code(), Some(75));
}

#[test]
fn a_stopped_process_does_not_look_like_a_run_that_goes_on() {
    let engine = Engine::start("obeys");
    engine.hear("books starts");
    let runs = engine.runs();
    let ask = |verb, json| {
        answer(CtlRequest { run: "books", verb, wait: Wait::UntilDone, limit: LIMIT, json }, &runs)
    };
    let status =
        || serde_json::from_str::<serde_json::Value>(&ask(Verb::Status, true).unwrap()).unwrap();
    assert_eq!(status()["responding"], true);
    engine.signal(Signal::STOP);
    // The signal was sent, and takes a moment to take effect.
    let state = || {
        fs::read_to_string(format!("/proc/{}/stat", engine.child.id()))
            .unwrap()
            .rsplit_once(") ")
            .map(|(_, rest)| rest.starts_with('T'))
    };
    let limit = Instant::now() + LIMIT;
    while state() != Some(true) {
        assert!(Instant::now() < limit, "the process does not stop");
    }
    assert_eq!(status()["responding"], false);
    let text = ask(Verb::Status, false).unwrap();
    assert!(
        text.contains("does not answer")
            && text.contains("kill -CONT")
            && !text.contains("\nspeed"),
        "{text}"
    );
    let pause = ask(Verb::Send(RunCommand::Pause), false).unwrap_err();
    assert!(pause.exit_code == 1 && pause.message.contains("does not answer"), "{pause}");
    engine.signal(Signal::CONT);
    assert_eq!(ask(Verb::Send(RunCommand::Pause), false).unwrap(), "pause at step 3\n");
}

#[test]
fn a_stop_whose_checkpoint_cannot_be_saved_has_failed() {
    let engine = Engine::start("cannot-save");
    let failed = ask(&engine.run, RunCommand::Stop).unwrap_err();
    assert_eq!(failed.to_string(), "stop failed: no space left on device");
    let engine = Engine::start("obeys");
    assert_eq!(ask(&engine.run, RunCommand::Stop).unwrap(), "stopped at step 3 with a checkpoint");
    assert!(!is_alive(&engine.run), "a stop that is done leaves no engine behind");
}

#[test]
fn a_trainer_that_panics_is_a_failed_run_with_its_reason() {
    let mut engine = Engine::start_failing("panics");
    assert_eq!(engine.exit_code(), Some(1));
    let end = engine.history().end.unwrap();
    assert_eq!(
        (end.outcome, end.error.unwrap().message.as_str()),
        (Outcome::Failed, "the trainer panicked: out of memory")
    );
    assert!(fs::read_to_string(engine.run.engine_log()).unwrap().contains("thread 'trainer'"));
}

#[test]
fn an_engine_that_cannot_start_shows_why() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDirectory::create(folder.path().join("books")).unwrap();
    fs::write(run.engine_log(), "older words\n").unwrap();
    fs::create_dir(run.metrics()).unwrap();
    let error = spawn(command(folder.path(), &run, "obeys"), &run, RunLock::acquire(&run).unwrap())
        .unwrap_err();
    let LaunchError::Died { status, tail, .. } = &error else { panic!("{error}") };
    assert_eq!(status.code(), Some(1));
    assert!(tail.iter().any(|line| line.starts_with("error: cannot append to")), "{tail:?}");
    assert!(!is_alive(&run));
    assert!(!error.to_string().contains("older words"));
    assert!(error.hint(Audience::Command).ends_with("books/engine.log"));
}

#[test]
fn a_killed_engine_leaves_a_crashed_run_that_can_go_on() {
    let mut engine = Engine::start("obeys");
    engine.hear("books starts");
    engine.signal(Signal::KILL);
    assert_eq!(engine.exit_code(), None);
    assert_eq!(RunSummary::read(&engine.run).unwrap().state, RunState::Crashed);
    let lock = RunLock::acquire(&engine.run).unwrap();
    engine.child =
        spawn(command(engine.folder.path(), &engine.run, "obeys"), &engine.run, lock).unwrap();
    ask(&engine.run, RunCommand::Stop).unwrap();
    assert_eq!(engine.exit_code(), Some(75));
    assert_eq!(engine.history().attempt, 2);
}

#[test]
fn a_run_is_found_and_asked_from_any_folder() {
    let engine = Engine::start("obeys");
    let runs = engine.runs();
    assert_eq!(find(None, &runs).unwrap(), engine.run);
    let ask = |verb, json| {
        answer(CtlRequest { run: "books", verb, wait: Wait::UntilDone, limit: LIMIT, json }, &runs)
            .unwrap()
    };
    assert_eq!(ask(Verb::Send(RunCommand::Evaluate), false), "evaluate at step 3\n");
    let status: serde_json::Value = serde_json::from_str(&ask(Verb::Status, true)).unwrap();
    assert_eq!(
        (&status["state"], &status["step"], &status["steps"]),
        (&"alive".into(), &3.into(), &6.into())
    );
    assert!(ask(Verb::Status, false).contains("step         3 of 6\n"));
    assert_eq!(patchtui::commands::runs::summaries(&runs).len(), 1);
    let error = answer(
        CtlRequest {
            run: "book",
            verb: Verb::Status,
            wait: Wait::UntilDone,
            limit: LIMIT,
            json: false,
        },
        &runs,
    )
    .unwrap_err();
    assert_eq!(error.hint.unwrap(), "did you mean \"books\"? List all with: patchtui runs");
}

#[test]
fn a_closed_standard_output_does_not_stop_a_run_in_the_foreground() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDirectory::create(folder.path().join("books")).unwrap();
    let mut child = command(folder.path(), &run, "plain")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("step   1/6")));
    drop(lines);
    let steps = || History::read(&run).unwrap().0.step();
    let (before, limit) = (steps(), Instant::now() + LIMIT);
    while steps() < before + 20 {
        assert!(
            Instant::now() < limit && child.try_wait().unwrap().is_none(),
            "the run makes no progress"
        );
    }
    let mut engine = Engine { folder, run, child };
    ask(&engine.run, RunCommand::Stop).unwrap();
    assert_eq!(engine.exit_code(), Some(75));
}
