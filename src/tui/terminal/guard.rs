//! Restores the terminal in all cases.

use std::io::{self, Write};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::terminal::{disable_raw_mode, enable_raw_mode};

use crate::tui::terminal::Tty;

/// Enters the screen: alternate screen, cleared, without a cursor, with bracketed paste, so that
/// pasted text is not taken for keys.
pub(crate) const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?2004h\x1b[2J";
/// Queries the background color. Nothing waits for the answer, and a terminal that does not know
/// the query ignores it.
pub(crate) const ASK_BACKGROUND: &[u8] = b"\x1b]11;?\x1b\\";
/// Reverts [`ENTER`] and an interrupted frame.
pub(crate) const LEAVE: &[u8] = b"\x1b[?2026l\x1b[0m\x1b[?2004l\x1b[?25h\x1b[?1049l";

/// Whether this process holds the terminal.
static IS_HELD: AtomicBool = AtomicBool::new(false);

/// Holds the terminal in raw mode until dropped.
#[derive(Debug)]
pub(crate) struct TerminalGuard;

impl TerminalGuard {
    /// Switches to raw mode; the caller writes [`ENTER`]. From here on a panic restores the
    /// terminal before it is reported.
    pub(crate) fn hold() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let report = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                give_back();
                report(info);
            }));
        });
        enable_raw_mode()?;
        IS_HELD.store(true, Ordering::SeqCst);
        Ok(Self)
    }
}

/// Leaves raw mode; the caller has written [`LEAVE`], or could not.
pub(crate) fn release() {
    IS_HELD.store(false, Ordering::SeqCst);
    // A terminal that is gone cannot and need not be restored.
    let _ = disable_raw_mode();
}

/// Enters raw mode again after [`release`], or after another program changed the mode.
pub(crate) fn retake() -> io::Result<()> {
    // The next call has an effect only if the remembered mode is restored first.
    let _ = disable_raw_mode();
    enable_raw_mode()?;
    IS_HELD.store(true, Ordering::SeqCst);
    Ok(())
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        give_back();
    }
}

/// Restores screen and mode, once.
fn give_back() {
    if IS_HELD.swap(false, Ordering::SeqCst) {
        let _ = Tty.write_all(LEAVE);
        let _ = disable_raw_mode();
    }
}
