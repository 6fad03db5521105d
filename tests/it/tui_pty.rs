//! The client on a real pseudo-terminal: its output, how it exits, and that it exits when the
//! terminal closes.
//!
//! The client process is this test binary again, instructed by an environment variable to show a
//! run without an engine.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use patchtui::control::{EngineLink, Feed};
use patchtui::tui::{Access, Opening, TuiExit, TuiOptions, run};
use portable_pty::{Child, CommandBuilder, ExitStatus, MasterPty, PtySize, native_pty_system};
use rustix::process::{Pid, Signal, kill_process};

use crate::tui_fixture::Story;

const ROLE: &str = "PATCHTUI_TEST_CLIENT";
/// A client that prints how it exited.
const PRINTS: &str = "prints";
/// A client that panics on the first command.
const PANICS: &str = "panics";
/// A client that connects to the socket named after this on every command.
const TELLS: &str = "tells ";
/// Long enough for a loaded machine; only a failing test waits this long.
const LIMIT: Duration = Duration::from_secs(30);

/// Does nothing as a test: it is the client process that the other tests start.
#[test]
fn client_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (sender, feed) = tokio::sync::mpsc::channel(4);
        sender.send(Feed::Snapshot(Box::new(Story::after(66).history()))).await.unwrap();
        let (commands, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let opening = Opening::Run {
            name: "demo".into(),
            access: Access::Steer,
            link: EngineLink { feed, commands },
        };
        let mut client = pin!(run(opening, TuiOptions::new()));
        let mut sent = Vec::new();
        let exit = loop {
            tokio::select! {
                exit = &mut client => break exit.unwrap(),
                Some((_, command)) = heard.recv() => {
                    assert!(role != PANICS, "a bug in the client");
                    sent.push(command.to_string());
                    if let Some(path) = role.strip_prefix(TELLS) {
                        UnixStream::connect(path).unwrap();
                    }
                }
            }
        };
        if role.starts_with(TELLS) {
            // Nobody reads this terminal any more.
            std::process::exit(0);
        }
        println!(
            "left {} sent [{}]",
            if exit == TuiExit::Detached { "detached" } else { "otherwise" },
            sent.join(" ")
        );
    });
}

/// A client on a pseudo-terminal.
pub(crate) struct Session {
    master: Option<Box<dyn MasterPty + Send>>,
    keys: Option<Box<dyn Write + Send>>,
    output: Receiver<Vec<u8>>,
    /// Holds another handle of the master; ends with the next output once the flag is set.
    reader: Option<JoinHandle<()>>,
    is_enough: Arc<AtomicBool>,
    child: Box<dyn Child + Send + Sync>,
    parser: vt100::Parser,
    raw: Vec<u8>,
}

impl Session {
    fn start() -> Self {
        Self::with(PRINTS, true)
    }

    fn with(role: &str, controlling_tty: bool) -> Self {
        let mut command = CommandBuilder::new(std::env::current_exe().unwrap());
        command.args(["--exact", "tui_pty::client_process", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, role);
        command.set_controlling_tty(controlling_tty);
        Self::of(command)
    }

    /// Starts `command` on a terminal of 80 by 24.
    pub(crate) fn of(command: CommandBuilder) -> Self {
        Self::sized(command, (24, 80), "xterm-256color")
    }

    /// Starts `command` on a terminal of 80 by 24 that reports `rows` and `cols`, with terminal
    /// type `term`.
    pub(crate) fn sized(mut command: CommandBuilder, (rows, cols): (u16, u16), term: &str) -> Self {
        let pair = native_pty_system()
            .openpty(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 })
            .unwrap();
        command.env("TERM", term);
        command.env("LC_ALL", "C.UTF-8");
        for name in ["NO_COLOR", "COLORFGBG", "COLUMNS", "LINES"] {
            command.env_remove(name);
        }
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let mut reader = pair.master.try_clone_reader().unwrap();
        let (sender, output) = channel();
        let is_enough = Arc::new(AtomicBool::new(false));
        let enough = Arc::clone(&is_enough);
        let reader = thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut chunk) {
                if sender.send(chunk[..count].to_vec()).is_err() || enough.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        let keys = pair.master.take_writer().unwrap();
        let parser = vt100::Parser::new(24.try_into().unwrap(), 80.try_into().unwrap(), 0);
        Self {
            master: Some(pair.master),
            keys: Some(keys),
            output,
            reader: Some(reader),
            is_enough,
            child,
            parser,
            raw: Vec::new(),
        }
    }

    pub(crate) fn press(&mut self, keys: &[u8]) {
        let writer = self.keys.as_mut().unwrap();
        writer.write_all(keys).unwrap();
        writer.flush().unwrap();
    }

    /// Waits until the screen satisfies `wanted`.
    fn wait_for(&mut self, what: &str, wanted: impl Fn(&vt100::Screen) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !wanted(self.parser.screen()) {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(chunk) => {
                    self.parser.process(&chunk);
                    self.raw.extend(chunk);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no {what} on\n{}", self.parser.screen().contents())
                }
            }
        }
    }

    /// Presses a key that may follow another one too soon, until it has worked.
    pub(crate) fn press_until(&mut self, key: &[u8], text: &str) {
        let deadline = Instant::now() + LIMIT;
        self.press(key);
        while !self.parser.screen().contents().contains(text) {
            match self.output.recv_timeout(Duration::from_millis(500)) {
                Ok(chunk) => {
                    self.parser.process(&chunk);
                    self.raw.extend(chunk);
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => self.press(key),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no {text} on\n{}", self.parser.screen().contents())
                }
            }
        }
    }

    /// Whether the program has sent any escape sequence.
    pub(crate) fn has_escapes(&self) -> bool {
        self.raw.contains(&0x1b)
    }

    /// Whether the program has sent `bytes`.
    pub(crate) fn has_sent(&self, bytes: &[u8]) -> bool {
        self.raw.windows(bytes.len()).any(|window| window == bytes)
    }

    /// Whether a cell of the screen has this color.
    pub(crate) fn has_color(&self, index: u8) -> bool {
        has_color(self.parser.screen(), index)
    }

    pub(crate) fn wait_for_color(&mut self, index: u8) {
        self.wait_for("such a color", |screen| has_color(screen, index));
    }

    pub(crate) fn wait_for_text(&mut self, text: &str) {
        self.wait_for(text, |screen| screen.contents().contains(text));
    }

    /// Stops reading the client's output.
    fn stop_reading(&mut self) {
        self.is_enough.store(true, Ordering::SeqCst);
        self.press(b"M");
        self.reader.take().unwrap().join().unwrap();
    }

    /// Closes every handle of the master.
    pub(crate) fn hang_up(&mut self) {
        self.stop_reading();
        drop(self.keys.take());
        drop(self.master.take());
    }

    /// How the process ended; killed if it still runs after [`LIMIT`].
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut killer = self.child.clone_killer();
        let (done, is_done) = channel::<()>();
        let guard = thread::spawn(move || {
            if is_done.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                let _ = killer.kill();
            }
        });
        let status = self.child.wait().unwrap();
        drop(done);
        guard.join().unwrap();
        status
    }
}

fn has_color(screen: &vt100::Screen, index: u8) -> bool {
    let (rows, cols) = screen.size();
    (0..rows.get()).any(|row| {
        (0..cols.get()).any(|col| {
            screen.cell(row, col).is_some_and(|cell| cell.fgcolor() == vt100::Color::Idx(index))
        })
    })
}

#[test]
fn q_leaves_and_gives_the_terminal_back() {
    let mut session = Session::start();
    session.wait_for_text("token loss (K = 1)");
    assert!(session.parser.screen().alternate_screen() && session.parser.screen().hide_cursor());
    session.press(b"q");
    session.wait_for_text("left detached sent []");
    assert!(
        !session.parser.screen().alternate_screen()
            && !session.parser.screen().hide_cursor()
            && !session.parser.screen().bracketed_paste()
    );
    assert!(session.ended().success());
    let raw = String::from_utf8_lossy(&session.raw).into_owned();
    assert_eq!(
        raw.matches("\x1b[?2026h").count() + 1,
        raw.matches("\x1b[?2026l").count(),
        "leaving ends one update more, in case one was cut"
    );
    assert!(!raw.contains("\x1b[6n"), "the terminal is asked for its cursor");
}

#[test]
fn keys_become_commands_and_pasted_text_does_not() {
    let mut session = Session::start();
    session.wait_for_text("token loss (K = 1)");
    session.press(b"\x1b[200~S\ryq\x1b[201~");
    session.press(b"c");
    session.wait_for_text("checkpoint sent");
    session.press_until(b"S", "Enter  stop");
    session.press(b"\r");
    session.wait_for_text("stop sent");
    session.press(b"\x03");
    session.wait_for_text("left detached sent [checkpoint stop]");
}

#[test]
fn text_without_paste_marks_does_not_stop_a_run() {
    let mut session = Session::start();
    session.wait_for_text("token loss (K = 1)");
    session.press(b"xS\ryS\ry c\r");
    session.press_until(b"?", "show or hide these keys");
    session.press(b"q");
    session.wait_for_text("left detached sent []");
}

#[test]
fn a_new_size_is_drawn() {
    let mut session = Session::start();
    session.wait_for_text("token loss (K = 1)");
    session.parser.screen_mut().set_size(12.try_into().unwrap(), 40.try_into().unwrap());
    session
        .master
        .as_ref()
        .unwrap()
        .resize(PtySize { rows: 12, cols: 40, pixel_width: 0, pixel_height: 0 })
        .unwrap();
    session.wait_for("small screen", |screen| {
        screen.contents().contains("ppl") && !screen.contents().contains("log (UTC)")
    });
    session.press(b"q");
    assert!(session.ended().success());
}

#[test]
fn a_closed_terminal_ends_the_client() {
    // Without a controlling terminal there is no SIGHUP, and only the watchdog remains.
    for controlling_tty in [true, false] {
        let mut session = Session::with(PRINTS, controlling_tty);
        session.wait_for_text("token loss (K = 1)");
        session.hang_up();
        let status = session.ended();
        let is_killed = status.signal() == Some("Killed");
        assert!(!is_killed, "still there (controlling: {controlling_tty}, {status:?})");
    }
}

/// An interactive shell on a terminal, and a command that shows a client.
fn shell() -> (Session, String) {
    let mut command = CommandBuilder::new("bash");
    command.args(["--norc", "--noprofile", "-i"]);
    command.env("PS1", "ready> ");
    command.env(ROLE, PRINTS);
    let client = std::env::current_exe().unwrap();
    (
        Session::of(command),
        format!(
            "{} --exact tui_pty::client_process --nocapture --test-threads=1",
            client.display()
        ),
    )
}

/// Bug report 20.
#[test]
fn a_suspended_client_comes_back() {
    let (mut session, client) = shell();
    session.wait_for_text("ready>");
    // A script that waits for the client is suspended with it, or its shell would wait forever.
    for command in [client.clone(), format!("bash -c '{client}; true'")] {
        session.press(format!("clear; {command}\r").as_bytes());
        session.wait_for("the client", |screen| {
            screen.alternate_screen() && screen.contents().contains("token loss (K = 1)")
        });
        session.press(b"\x1a");
        session.wait_for("a prompt", |screen| {
            !screen.alternate_screen()
                && !screen.hide_cursor()
                && screen.contents().contains("Stopped")
                && screen.contents().trim_end().ends_with("ready>")
        });
        session.press(b"fg\r");
        session.wait_for("the run again", |screen| {
            screen.alternate_screen() && screen.contents().contains("token loss (K = 1)")
        });
        session.press(b"q");
        session.wait_for("the client's last word", |screen| {
            !screen.alternate_screen()
                && screen.contents().contains("left detached sent []")
                && screen.contents().trim_end().ends_with("ready>")
        });
    }
    session.press(b"exit\r");
    assert!(session.ended().success());
}

/// Bug report 21.
#[test]
fn where_no_shell_waits_a_client_does_not_stop() {
    let mut session = Session::start();
    session.wait_for_text("token loss (K = 1)");
    session.press(b"\x1a");
    kill_process(
        Pid::from_raw(session.child.process_id().unwrap().cast_signed()).unwrap(),
        Signal::TSTP,
    )
    .unwrap();
    session.press_until(b"?", "show or hide these keys");
    session.press(b"q");
    session.wait_for_text("left detached sent []");
    assert!(session.ended().success());
}

#[test]
fn a_termination_signal_leaves_like_q() {
    let mut session = Session::start();
    session.wait_for_text("token loss (K = 1)");
    kill_process(
        Pid::from_raw(session.child.process_id().unwrap().cast_signed()).unwrap(),
        Signal::TERM,
    )
    .unwrap();
    session.wait_for_text("left detached sent []");
    assert!(!session.parser.screen().alternate_screen());
}

#[test]
fn a_panic_is_shown_on_the_usual_screen() {
    let mut session = Session::with(PANICS, true);
    session.wait_for_text("token loss (K = 1)");
    session.press(b"c");
    session.wait_for("the report", |screen| {
        !screen.alternate_screen()
            && !screen.hide_cursor()
            && screen.contents().contains("a bug in the client")
    });
    assert!(!session.ended().success());
}

#[test]
fn a_terminal_that_takes_no_bytes_is_left_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("told");
    let listener = UnixListener::bind(&path).unwrap();
    let mut session = Session::with(&format!("{TELLS}{}", path.display()), true);
    session.wait_for_text("token loss (K = 1)");
    session.stop_reading();
    // A frame of this size does not fit into the terminal's buffer.
    session
        .master
        .as_ref()
        .unwrap()
        .resize(PtySize { rows: 200, cols: 500, pixel_width: 0, pixel_height: 0 })
        .unwrap();
    let (tell, told) = channel();
    thread::spawn(move || while listener.accept().is_ok() && tell.send(()).is_ok() {});
    for key in [b"c", b"e"] {
        // A key that follows another one too soon is taken for text.
        let deadline = Instant::now() + LIMIT;
        session.press(key);
        while told.recv_timeout(Duration::from_millis(500)).is_err() {
            assert!(Instant::now() < deadline, "no key is heard");
            session.press(key);
        }
    }
    session.press(b"q");
    let status = session.ended();
    assert!(status.success(), "{status:?}");
}
