//! The threads that read keys and detect a closed terminal.
//!
//! A thread that reads a terminal cannot be interrupted, so nothing joins these. Both exit the
//! process when the terminal hangs up, whatever the rest of the client is doing, since nobody can
//! read anything any more.

use std::io;
use std::os::unix::net::UnixStream;
use std::process;
use std::thread;

use crossterm::event::KeyEvent;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::tui::Background;
use crate::tui::terminal::KeyParser;

/// How often to check for a hang-up, in case poll(2) does not report it.
const WATCH: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// What poll(2) reports for a closed terminal.
const GONE: PollFlags = PollFlags::HUP.union(PollFlags::ERR).union(PollFlags::NVAL);

/// Input from the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// A key.
    Key(KeyEvent),
    /// The answer to [`ASK_BACKGROUND`](crate::tui::terminal::ASK_BACKGROUND).
    Background(Background),
}

/// Reads keys until dropped.
#[derive(Debug)]
pub(crate) struct InputThread {
    /// Keys and answers, or why there will be none.
    pub(crate) received: UnboundedReceiver<io::Result<Input>>,
    /// The threads hold the other end and exit when this one is closed.
    _alive: UnixStream,
}

impl InputThread {
    /// Starts both threads. When standard input hangs up, the process exits with code 0.
    pub(crate) fn start() -> io::Result<Self> {
        let (alive, for_input) = UnixStream::pair()?;
        let for_watchdog = for_input.try_clone()?;
        let (sender, received) = unbounded_channel();
        thread::Builder::new().name("tui-input".into()).spawn(move || {
            if let Err(error) = read_keys(&for_input, &sender) {
                let _ = sender.send(Err(error));
            }
        })?;
        thread::Builder::new().name("tui-watchdog".into()).spawn(move || watch(&for_watchdog))?;
        Ok(Self { received, _alive: alive })
    }
}

/// Sends keys until the receiver is gone.
fn read_keys(alive: &UnixStream, sender: &UnboundedSender<io::Result<Input>>) -> io::Result<()> {
    let mut parser = KeyParser::default();
    let mut bytes = [0; 1024];
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN),
            PollFd::new(alive, PollFlags::empty()),
        ];
        let patience = parser.patience().and_then(|patience| Timespec::try_from(patience).ok());
        let ready = match poll(&mut fds, patience.as_ref()) {
            Ok(ready) => ready,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        exit_if_gone(&fds[0]);
        let typed = match (ready, fds[0].revents().contains(PollFlags::IN)) {
            (0, _) => parser.flush().into_iter().collect::<Vec<_>>(),
            (_, true) => {
                let count = read(&mut bytes)?;
                parser.feed(&bytes[..count])
            }
            (_, false) => return Ok(()),
        };
        let answer = parser.take_background().map(Input::Background);
        for input in answer.into_iter().chain(typed.into_iter().map(Input::Key)) {
            if sender.send(Ok(input)).is_err() {
                return Ok(());
            }
        }
    }
}

/// Reads the available bytes; the end of input means a closed terminal.
fn read(bytes: &mut [u8]) -> io::Result<usize> {
    match rustix::io::read(rustix::stdio::stdin(), bytes) {
        Ok(0) | Err(Errno::IO) => process::exit(0),
        Ok(count) => Ok(count),
        Err(Errno::INTR | Errno::AGAIN) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Checks for a hang-up until the client has exited.
fn watch(alive: &UnixStream) {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::empty()),
            PollFd::new(alive, PollFlags::empty()),
        ];
        let result = poll(&mut fds, Some(&WATCH));
        exit_if_gone(&fds[0]);
        if !fds[1].revents().is_empty() || result.is_err_and(|error| error != Errno::INTR) {
            return;
        }
    }
}

fn exit_if_gone(tty: &PollFd<'_>) {
    if tty.revents().intersects(GONE) {
        process::exit(0);
    }
}
