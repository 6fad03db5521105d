//! patchtui: patch-level LLM pre-training that lives in a terminal.

pub mod commands;
pub mod config;
pub mod control;
#[cfg(feature = "engine")]
pub mod engine;
pub mod data;
pub mod plan;
pub mod run;
pub mod tui;
