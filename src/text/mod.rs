//! Text for people: numbers with units, words for a shell, and the one place where text from outside
//! becomes safe for a terminal.
//!
//! Start at [`format`] and [`sanitize`].

pub mod fold;
pub mod format;
pub mod nearest;
pub mod sanitize;
pub(crate) mod ticks;

pub use sanitize::line as sanitize_line;
