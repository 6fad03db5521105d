//! Output without a screen: lines for people, JSON lines for scripts, tables.
//!
//! Lost output never stops a run, but a command whose result is lost fails. Start at [`Plain`], and
//! at [`print`] for commands.

mod activations;
mod checkpoints;
pub mod figure;
mod json;
mod output;
mod plain;
mod scores;
mod table;

pub use crate::text::format;
pub use activations::{ActivationReport, LayerNumbers, ModelNumbers};
pub use checkpoints::checkpoints_table;
pub use json::Json;
pub use output::{
    Output, OutputError, complain, print, print_help, print_json, reader_is_gone, stderr, stdout,
    tell, warn,
};
pub use plain::{Plain, end_text};
pub use scores::{ComparedRow, ScoreRow, ScoresTable, comparison_table};
pub use table::{runs_table, status_text};
