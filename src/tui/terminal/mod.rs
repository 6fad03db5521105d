//! The client's terminal: entering and leaving it, frames out, keys in, and noticing when it is gone.
//!
//! Knows bytes and file descriptors; never runs. Nothing here asks the terminal a question: a mute one would make us wait.
//! Start at [`ScreenBackend`] for how a frame is built, then [`FrameWriter`] for how it leaves.

mod backend;
mod guard;
mod input;
mod keys_in;
mod writer;

pub use backend::{FRAME_BEGIN, FRAME_END, ScreenBackend};
pub(crate) use guard::{ENTER, LEAVE, TerminalGuard, release, retake, stop_self};
pub(crate) use input::InputThread;
pub use keys_in::KeyParser;
pub(crate) use writer::{FrameWriter, Tty};
