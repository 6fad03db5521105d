//! patchtui: patch-level LLM pre-training that lives in a terminal.

pub mod config;
pub mod plan;
pub mod data;
pub mod run;
pub mod control;
#[cfg(feature = "engine")]
pub mod engine;
pub mod tui;
pub mod commands;
