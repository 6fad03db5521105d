//! What a run leaves behind: events ([`RunEvent`]) in a directory of plain files, and checkpoints.
//!
//! Which lines count after a resume, and why a measurement may be in a file twice, is described in
//! `lines.rs`. Start at [`Record`], then [`History`].

mod append;
mod checkpoint;
mod command;
mod directory;
mod event;
pub mod files;
mod history;
mod index;
mod lines;
mod lock;
mod loss_text;
mod measured;
pub(crate) mod number;
mod outline;
mod read;
mod remove;
mod result_file;
mod series;
mod store;
mod summary;

pub use append::{DiskChange, LogError, RunLog};
pub use checkpoint::{
    Checkpoint, CheckpointError, CheckpointProblem, Checkpoints, Choice, DataOrder, Difference,
    FileEntry, FindCheckpointError, Fork, FoundCheckpoint, HashedReader, HashedWriter, KeepRule,
    LineHashes, ListedCheckpoint, MODEL_FILE, Manifest, NewCheckpoint, OPTIMIZER_FILE, ReadTensors,
    Rejected, TrainerState,
};
pub use command::RunCommand;
pub use directory::RunDirectory;
pub use event::{
    Activations, CheckpointFailure, CheckpointInfo, CommandNote, ControlChange, ControlState,
    Decision, Evaluation, EventSender, FORMAT_VERSION, LayerActivation, MeasuredLoss, Note,
    Outcome, Progress, Record, RunEnd, RunEvent, RunHeader, Sample, StageLedger, StageStart,
    StepMetrics, TaskScore, TaskScores, TrialSteps, Trouble, Warning,
};
pub use files::replace_file;
pub use history::{History, LogLevel, LogLine, control_word, log_text, task_scores_text};
pub use index::{FindError, RunIndex, last_activity};
pub use lines::{LineError, LineFile, decode, encode, encode_event};
pub use lock::{EngineInfo, Liveness, LockError, LockFileState, RunLock, is_alive};
pub use loss_text::{evaluated_tokens, loss_text, whole_tokens};
pub use measured::MeasuredStep;
pub use outline::{
    CadenceOutline, CostOutline, MemoryOutline, ModelOutline, MomentsOutline, PlanFile,
    PlanOutline, ScheduleOutline, StageOutline,
};
pub use read::{BadLine, ReadReport, last_record, read_records};
pub use remove::{Removal, RemoveError};
pub use result_file::{ResultFile, write_result};
pub use series::{Bounds, Series, Spread, StepPoint};
pub use store::{Reporter, Store, StoreError, StoreHandle, Subscription};
pub use summary::{CurrentStage, RunState, RunSummary, changed_at};

pub(crate) use read::{read_events, read_kinds};
