//! Evaluation tasks: documents, prompts, requests of token ids, and metrics.
//!
//! Replicates lm-eval 0.4.13 by `EleutherAI` exactly. A model is passed in as a [`Score`]. Start at
//! [`Selection::parse`], then [`TaskFiles::load`], then [`evaluate`].

mod catalog;
mod cleaning;
mod encoder;
mod error;
mod evaluate;
mod find;
mod json;
mod load;
mod mmlu;
mod mmlu_rows;
mod published;
mod python;
mod question;
mod read;
mod records;
mod result;
mod scored;
mod suite;
mod windows;

pub use catalog::{Selection, Task};
pub use cleaning::{clean_hellaswag, detokenize_wikitext};
pub use encoder::TaskEncoder;
pub use error::TaskError;
pub use evaluate::{EvaluateError, Score, TaskProgress, check_fit, evaluate};
pub use json::{results_document, sample_lines};
pub use load::{Documents, LoadOptions, LoadedTask, TaskFiles, Text};
pub use mmlu::{GROUPS, Group};
pub use published::{PAPER_COLUMNS, PaperRow, PublishedRow, published_rows};
pub use question::{Judgement, Prompt, Question, ScoreRequest};
pub use result::{Answer, GroupResult, Metric, TaskResult};
pub use scored::Scored;
pub use suite::{Suite, SuiteScore};
pub use windows::{blocks, rolling_windows};
