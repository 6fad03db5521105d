//! The client's terminal: entering and leaving it, frames out, keys in, and detecting when it is
//! closed.
//!
//! Nothing here waits for an answer of the terminal, which may send none. Start at
//! [`ScreenBackend`] for how a frame is built, then [`FrameWriter`] for how it is written.

mod backend;
mod guard;
mod input;
mod job;
mod keys_in;
mod writer;

pub use backend::{FRAME_BEGIN, FRAME_END, ScreenBackend};
pub(crate) use guard::{ASK_BACKGROUND, ENTER, LEAVE, TerminalGuard, release, retake};
pub(crate) use input::{Input, InputThread};
pub(crate) use job::{has_shell, stop};
pub use keys_in::KeyParser;
pub(crate) use writer::{FrameWriter, Tty};
