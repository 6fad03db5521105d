//! patchtui: patch-level LLM pre-training in the terminal.
//!
//! This page is an overview of the crate. The method is arXiv 2407.12665: a language model first
//! reads patches of K averaged tokens and predicts the next patch, then continues token by token.
//!
//! ```text
//!  patchtui (client: ratatui)  <---- Unix socket ---->  patchtui engine (own process, own session)
//!    home and run screen           commands / records     |- trainer thread  (owns all tensors)
//!  patchtui ctl                                           |- store thread    (metrics.jsonl, events.jsonl, ...)
//!  patchtui run --no-tui = the engine in the foreground   '- control thread  (tokio: socket, signals)
//!                                                               |
//!                                                   runs/<name>/  (source of truth: plain files)
//! ```
//!
//! # How data flows
//!
//! ```text
//! config file + --set + defaults -> config::RunConfig -> plan::RunPlan (stages, schedule, cost)
//! host::claim -> a locked directory -> host::ClaimedRun::prepare -> an engine that holds the lock
//! text -> data::prepare -> token files (checked when read) -> data::Loader -> ids
//! engine::execute -> run::RunEvent -> run::Store -> metrics.jsonl, events.jsonl, ... (never dropped)
//!                                       '-> control::Server -> clients (may miss records; they get a new snapshot)
//! a run, one of its checkpoints or a Hugging Face directory -> engine::LoadedModel (weights, shape, tokenizer)
//!                                       '-> engine::hugging_face::export -> a directory that transformers loads
//! key, script, signal -> run::RunCommand -> read between micro-batches -> answered by an event
//! ```
//!
//! # Who may import whom
//!
//! Folders are layers; imports go downwards only. `tests/it/architecture.rs` parses this table and
//! enforces it.
//!
//! | module | what it is for | may import |
//! |---|---|---|
//! | [`advice`] | what every error adds to its message: a hint and an exit code | - |
//! | [`config`] | the configuration: all keys documented, unknown keys refused | advice, nearest |
//! | [`disk`] | durable writes to files, which tests can make fail | - |
//! | [`nearest`] | which known name was probably meant | - |
//! | [`plan`] | the plan derived from it: pure arithmetic, no files, no clock | advice, config |
//! | [`data`] | text to token files to blocks of ids; tokenizers and their training; no tensors | advice, config, disk, plan |
//! | [`tasks`] | evaluation tasks: prompts, requests, metrics; no models | advice, config, nearest, plan, data |
//! | [`run`] | the data of a run: events, commands, directory, checkpoints as files | advice, config, disk, nearest, plan |
//! | [`control`] | socket, protocol, signals | advice, config, plan, run |
//! | [`host`] | from a configuration to a running engine: directory, lock, process | advice, config, plan, data, run, control |
//! | `engine` | everything that uses Burn: device, network, loss, optimizer, trainer | advice, config, disk, plan, data, tasks, run |
//! | [`report`] | output without a screen: plain lines, JSON lines, tables | advice, config, plan, run, control, host |
//! | [`tui`] | the screen: state, update, views, terminal | config, plan, run, control, host |
//! | [`commands`] | one file per subcommand: wiring only | all |
//! | [`cli`] | the command line | - |
//!
//! # Invariants
//!
//! - No tensor outside `engine`, no ratatui outside `tui`, no printing outside `main`, `report` and
//!   `commands`.
//! - `engine` does not depend on its listeners; `plan` does no I/O; only `commands` combines engine
//!   and screen.
//! - No type of the planner or the trainer on disk or on the wire: those formats have their own
//!   types, in `run` and `control`.
//! - A run directory is inspected for a start, or written, only while holding its lock.
//! - No sum on the CPU whose order depends on thread timing: a resumed run is byte-identical to an
//!   uninterrupted one.
//! - Untrusted text reaches a terminal only through [`run::sanitize`].
//!
//! Without the feature `engine` the crate is the client and the data tools, and builds in seconds.

pub mod advice;
pub mod cli;
pub mod commands;
pub mod config;
pub mod control;
pub mod data;
pub mod disk;
#[cfg(feature = "engine")]
pub mod engine;
pub mod host;
pub mod nearest;
pub mod plan;
pub mod report;
pub mod run;
pub mod tasks;
pub mod tui;
