//! The only integration test binary; fixtures, golden numbers and snapshots are in the same folder.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers too")]
#![expect(clippy::too_many_lines, reason = "a table of cases reads best in one piece")]

#[cfg(feature = "engine")]
mod activations;
mod architecture;
#[cfg(feature = "engine")]
mod bench_command;
mod checkpoints;
mod circles;
#[cfg(feature = "engine")]
mod clock;
mod config;
mod control;
mod corpus;
mod crashes;
mod data;
mod doctor;
mod engine_process;
mod errors;
#[cfg(feature = "engine")]
mod eval_command;
#[cfg(feature = "engine")]
mod export;
mod fake_run;
#[cfg(feature = "engine")]
mod foreign_checkpoints;
mod formats;
mod fuzz;
#[cfg(feature = "engine")]
mod generate;
#[cfg(feature = "engine")]
mod golden;
#[cfg(feature = "engine")]
mod kills;
#[cfg(feature = "engine")]
mod models;
#[cfg(feature = "engine")]
mod open;
#[cfg(feature = "engine")]
mod outputs;
mod plain_lines;
#[cfg(feature = "engine")]
mod plan_command;
mod power;
#[cfg(feature = "engine")]
mod program;
#[cfg(feature = "engine")]
mod reference;
#[cfg(feature = "engine")]
mod reliability_script;
#[cfg(feature = "engine")]
mod resume;
mod run_errors;
mod run_files;
mod sanitize;
#[cfg(feature = "engine")]
mod silent_changes;
#[cfg(feature = "engine")]
mod starts;
#[cfg(feature = "engine")]
mod steering;
mod storage_commands;
mod task_files;
mod tasks;
mod tokenizer;
mod tui_chart;
mod tui_fixture;
mod tui_frames;
mod tui_home;
mod tui_keys;
mod tui_program;
mod tui_pty;
mod tui_update;
mod tui_view;
mod typed_commands;
