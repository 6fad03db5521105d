//! Versions of the rules that turn files into documents and tokens.
//!
//! A run keeps the rules that it was started with: others would change its tokens halfway. Start at
//! [`TextRules`].

/// Rules by which files become documents and tokens; a checkpoint records their version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum TextRules {
    /// Version 1, of patchtui 0.3 and before: byte order marks and carriage returns are text, each
    /// piece of a long document has BOS and EOS like a document, and a folder's README is read.
    First,
    /// Version 2: a long document has one BOS and one EOS, and the ids of the whole text. A
    /// validation share is the end of the text.
    Second,
    /// Version 3: a validation share is chosen among the documents of all files.
    #[default]
    Current,
}

impl TextRules {
    /// The number in checkpoints and cache keys.
    #[must_use]
    pub fn version(self) -> u32 {
        match self {
            Self::First => 1,
            Self::Second => 2,
            Self::Current => 3,
        }
    }

    /// The rules of a version; `None` for a version of a newer patchtui.
    #[must_use]
    pub fn of_version(version: u32) -> Option<Self> {
        [Self::First, Self::Second, Self::Current]
            .into_iter()
            .find(|rules| rules.version() == version)
    }
}
