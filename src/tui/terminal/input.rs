//! The threads that hear keys and notice a terminal that is gone.
//!
//! crossterm's reader spins for ever once the terminal is hung up, and cannot be interrupted. So it is only asked when poll(2)
//! has bytes, and a second thread watches for the hang-up and ends the process; it does not join anything.

use std::io;
use std::os::unix::net::UnixStream;
use std::process;
use std::thread;
use std::time::Duration;

use crossterm::event::{self, Event, KeyEvent};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A hang-up is looked for at least this often, should poll(2) not report it by itself.
const WATCH: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// What poll(2) says of a terminal that is gone.
const GONE: PollFlags = PollFlags::HUP.union(PollFlags::ERR).union(PollFlags::NVAL);

/// Hears keys until dropped.
#[derive(Debug)]
pub(crate) struct InputThread {
    /// Keys, or why there will be none.
    pub(crate) keys: UnboundedReceiver<io::Result<KeyEvent>>,
    /// The threads hold the other end and leave when this one is closed.
    _alive: UnixStream,
}

impl InputThread {
    /// Starts both threads. When standard input hangs up, the process exits with code 0: leaving is all that is left to do.
    pub(crate) fn start() -> io::Result<Self> {
        let (alive, for_input) = UnixStream::pair()?;
        let for_watchdog = for_input.try_clone()?;
        let (sender, keys) = unbounded_channel();
        thread::Builder::new().name("tui-input".into()).spawn(move || {
            if let Err(error) = read_keys(&for_input, &sender) {
                let _ = sender.send(Err(error));
            }
        })?;
        thread::Builder::new().name("tui-watchdog".into()).spawn(move || watch(&for_watchdog))?;
        Ok(Self { keys, _alive: alive })
    }
}

/// Sends keys until nobody wants them any more.
fn read_keys(alive: &UnixStream, keys: &UnboundedSender<io::Result<KeyEvent>>) -> io::Result<()> {
    loop {
        let mut fds = [PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN), PollFd::new(alive, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        exit_if_gone(&fds[0]);
        if !fds[1].revents().is_empty() {
            return Ok(());
        }
        while event::poll(Duration::ZERO)? {
            // Sizes come by signal, and pasted text is not meant as keys.
            if let Event::Key(key) = event::read()?
                && keys.send(Ok(key)).is_err()
            {
                return Ok(());
            }
        }
    }
}

/// Looks for a hang-up until the client has left.
fn watch(alive: &UnixStream) {
    loop {
        let mut fds = [PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::empty()), PollFd::new(alive, PollFlags::empty())];
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
