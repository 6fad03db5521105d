//! What was read when text was prepared, as the cache and the run record it.

use serde::{Deserialize, Serialize};

use crate::data::{Losses, PassedOver};

/// Counts of what was read, training and validation together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrepareReport {
    /// Files read.
    pub files: u64,
    /// Documents before cutting.
    pub documents: u64,
    /// Documents that were cut.
    pub split_documents: u64,
    /// Bytes of text in all documents.
    pub text_bytes: u64,
    /// JSON records, usable or not.
    pub records: u64,
    /// Records that were skipped because they are unusable.
    pub bad_records: u64,
    /// The first of them, and why it is unusable.
    pub first_bad_record: Option<String>,
    /// Records that were skipped because their text is empty.
    pub empty_records: u64,
    /// Files of folders and patterns that were not read.
    #[serde(default)]
    pub passed_over: PassedOver,
    /// What the tokenizer lost.
    #[serde(default)]
    pub losses: Losses,
    /// Cuts of long documents where the ids may differ from those of the whole document.
    #[serde(default)]
    pub hard_cuts: u64,
    /// What was skipped or changed, one sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
}
