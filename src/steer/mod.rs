//! What a run hears: commands from keys, scripts and signals, and the flag that ends it.
//!
//! Commands wait in a short queue until the trainer takes them, between micro-batches; faster
//! senders wait for room in it. A stop raises a flag before it is taken: evaluation, sampling,
//! trial steps and data preparation check the flag, so that neither they nor a full queue delay a
//! stop. Start at [`command_channel`], then at [`Inbox`].

mod command;
mod inbox;
mod queue;
mod stop;

pub use command::{CommandBatch, CommandEnvelope};
pub use inbox::Inbox;
pub use queue::{CommandSender, command_channel};
pub use stop::{StopFlag, StopLevel};

/// Stack size of the trainer's thread and of its worker threads: generous, since a stack that
/// overflows ends the process without a word. Only touched pages take memory.
pub const COMPUTE_STACK: usize = 64 * 1024 * 1024;
