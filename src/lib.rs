//! patchtui: patch-level LLM pre-training that lives in a terminal.
//!
//! This page is the map of the program. The method is arXiv 2407.12665: a language model first reads patches of K averaged
//! tokens and predicts the next patch, then goes on token by token.
//!
//! ```text
//!  patchtui (client: ratatui)  <---- Unix socket ---->  patchtui engine (own process, own session)
//!    list of runs, run screen      commands / records     |- trainer thread  (all tensors live here)
//!  patchtui ctl                                           |- store thread    (metrics.jsonl, events.jsonl, ...)
//!  patchtui run --no-tui = the engine in the foreground   '- control server  (tokio: socket, signals)
//!                                                               |
//!                                                   runs/<name>/  (the truth: plain files)
//! ```
//!
//! # How data flows
//!
//! ```text
//! config file + --set + defaults -> config::RunConfig -> plan::RunPlan (stages, schedule, cost)
//! text -> data::prepare -> token files (memory-mapped) -> data::Loader -> ids
//! engine::execute -> run::RunEvent -> run::Store -> metrics.jsonl, events.jsonl, ... (never dropped)
//!                                       '-> control::Server -> clients (may skip; they get a new snapshot)
//! key, script, signal -> run::RunCommand -> read between micro-batches -> answered by an event
//! ```
//!
//! # Who may import whom
//!
//! Folders are layers; imports go downwards only, and `tests/it/architecture.rs` holds this table.
//!
//! | module | what it is for | may import |
//! |---|---|---|
//! | [`config`] | what the user wrote, every key documented, unknown keys refused | - |
//! | [`plan`] | what follows from it: pure arithmetic, no files, no clock | config |
//! | [`data`] | text to token files to blocks of ids; never tensors | config, plan |
//! | [`run`] | what a run says, hears and leaves behind | config, plan |
//! | [`control`] | socket, protocol, signals | config, plan, run |
//! | `engine` | everything that imports Burn: device, network, loss, optimizer, trainer, checkpoints | config, plan, data, run |
//! | [`report`] | faces without a screen: plain lines, JSON lines | config, plan, run, control |
//! | [`tui`] | the screen: state, update, views, terminal | config, plan, run, control |
//! | [`commands`] | one file per subcommand: wiring only | all |
//!
//! # What must stay absent
//!
//! - No tensor outside `engine`, no ratatui outside `tui`, no printing outside `main`, `report` and `commands`.
//! - `engine` never sees who listens; `plan` does no input or output; only `commands` knows that an engine and a screen exist.
//! - No number in the patch stage but the patch size itself: `if patch_size` is written in `engine/patch.rs` alone.
//! - No sum on the CPU whose order depends on threads: a resumed run gives the same bytes.
//! - No text from outside reaches a terminal without [`run::sanitize_line`] or its kin.
//!
//! Without the feature `engine` the crate is the client and the data tools, and builds in seconds.

pub mod cli;
pub mod commands;
pub mod config;
pub mod control;
pub mod data;
#[cfg(feature = "engine")]
pub mod engine;
pub mod plan;
pub mod report;
pub mod run;
pub mod tui;
