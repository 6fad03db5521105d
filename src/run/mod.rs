//! What a run says ([`RunEvent`]), hears ([`RunCommand`]) and leaves behind (its directory of plain files).
//!
//! Knows plain data and files; never tensors, sockets or screens. Start at [`Record`], then [`History`].

mod command;
mod event;
mod history;
mod number;
pub mod sanitize;

pub use command::{CommandEnvelope, CommandSender, Inbox, RunCommand, StopFlag, StopLevel, command_channel};
pub use event::{
    Activations, CheckpointFailure, CheckpointInfo, CommandNote, ControlChange, ControlState, Decision, Evaluation, EventSender, FORMAT_VERSION,
    LayerActivation, Outcome, Progress, Record, RunEnd, RunEvent, RunHeader, Sample, StageLedger, StageStart, StepMetrics, Trouble, Warmup, Warning,
};
pub use history::{History, LogLevel, LogLine, StepPoint, control_word};
