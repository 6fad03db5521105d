//! What a run says ([`RunEvent`]), hears ([`RunCommand`]) and leaves behind (its directory of plain files).
//!
//! Knows plain data and files; never tensors, sockets or screens. Start at [`Record`], then [`History`].

mod append;
mod command;
mod directory;
mod event;
pub mod format;
mod history;
mod index;
mod lines;
mod lock;
mod number;
mod read;
pub mod sanitize;
mod series;
mod store;
mod summary;

pub use append::{DiskChange, LogError, RunLog};
pub use command::{CommandEnvelope, CommandSender, Inbox, RunCommand, StopFlag, StopLevel, command_channel};
pub use directory::{RunDirectory, replace_file};
pub use event::{
    Activations, CheckpointFailure, CheckpointInfo, CommandNote, ControlChange, ControlState, Decision, Evaluation, EventSender, FORMAT_VERSION,
    LayerActivation, Outcome, Progress, Record, RunEnd, RunEvent, RunHeader, Sample, StageLedger, StageStart, StepMetrics, Trouble, Warmup, Warning,
};
pub use history::{History, LogLevel, LogLine, StepPoint, control_word, log_text};
pub use index::{FindError, RunIndex, last_activity};
pub use lines::{LineError, LineFile, decode, encode, encode_event};
pub use lock::{EngineInfo, LockError, RunLock, is_alive};
pub use read::{BadLine, ReadReport, last_record, read_records};
pub use sanitize::line as sanitize_line;
pub use series::{Bounds, Series, Spread};
pub use store::{Reporter, Store, StoreError, StoreHandle, Subscription};
pub use summary::{CurrentStage, RunState, RunSummary, changed_at};

pub(crate) use read::read_events;
