//! One file per subcommand: wiring only, nothing that decides.
//!
//! May know every layer, and is known by none but `main`. Start at the file that is named like the subcommand.

pub mod config;
pub mod tokenizer;
