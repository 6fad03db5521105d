//! Output without a screen: lines for people, JSON lines for scripts, tables.
//!
//! Knows plain data and text; never widgets, tensors or sockets. A terminal that is gone never stops a run: writing ignores its
//! errors. Start at [`Plain`].

mod activations;
mod checkpoints;
pub mod figure;
mod json;
mod output;
mod plain;
mod scores;
mod table;

pub use crate::run::format;
pub use activations::{ActivationReport, LayerNumbers, ModelNumbers};
pub use checkpoints::checkpoints_table;
pub use json::Json;
pub use output::{Output, complain, print, stdout, tell, warn};
pub use plain::{Plain, end_text};
pub use scores::{ComparedRow, ScoreRow, comparison_table, scores_table};
pub use table::{runs_table, status_text};
