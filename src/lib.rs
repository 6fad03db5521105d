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
//! engine::execute -> record::RunEvent -> record::Store -> metrics.jsonl, events.jsonl, ... (never dropped)
//!                                       '-> control::Server -> clients (may miss records; they get a new snapshot)
//! a run, one of its checkpoints or a Hugging Face directory -> engine::LoadedModel (weights, shape, tokenizer)
//!                                       '-> engine::export -> a directory that transformers loads
//! key, script, signal -> record::RunCommand -> read between micro-batches -> answered by an event
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
//! | [`text`] | text for people: units, words for a shell, nearest names, sanitizing | - |
//! | [`config`] | the configuration: all keys documented, unknown keys refused | advice, text |
//! | [`disk`] | durable writes to files, which tests can make fail | - |
//! | [`plan`] | the plan derived from it: pure arithmetic, no files, no clock | advice, config, text |
//! | [`data`] | text to token files to blocks of ids; tokenizers; no tensors | advice, config, disk, plan, text |
//! | [`tasks`] | evaluation tasks: prompts, requests, metrics; no models | advice, config, plan, data, text |
//! | [`record`] | what a run leaves behind: events, directory, checkpoints as files | advice, config, disk, plan, text |
//! | [`steer`] | what a run hears: commands, stop flag | record |
//! | [`control`] | socket, protocol, signals | advice, config, plan, record, steer, text |
//! | [`machine`] | facts about this computer: memory, devices, terminal | advice, config |
//! | [`host`] | from a configuration to a running engine: directory, lock, process | advice, config, plan, data, tasks, record, steer, control, machine, text |
//! | `engine` | everything that uses Burn: network, loss, optimizer, trainer | advice, config, disk, plan, data, tasks, record, steer, text |
//! | [`report`] | output without a screen: plain lines, JSON lines, tables | advice, config, plan, record, steer, control, host, text |
//! | [`tui`] | the screen: state, update, views, terminal | advice, config, plan, record, steer, control, host, text, machine |
//! | `bench` | time and memory of steps, preparation and evaluation | advice, cli, config, data, engine, host, machine, plan, report, steer, text |
//! | [`commands`] | one file per subcommand: wiring only | all |
//! | [`cli`] | the command line | record |
//!
//! # Invariants
//!
//! - No tensor outside `engine`, no ratatui outside `tui`, no printing outside `main`, `report` and
//!   `commands`.
//! - `engine` does not depend on its listeners; `plan` does no I/O; only `commands` combines engine
//!   and screen.
//! - No type of the planner or the trainer on disk or on the wire: those formats have their own
//!   types, in `record` and `control`.
//! - A run directory is inspected for a start, or written, only while holding its lock.
//! - No sum on the CPU whose order depends on thread timing: a resumed run is byte-identical to an
//!   uninterrupted one.
//! - Untrusted text reaches a terminal only through [`text::sanitize`].
//!
//! Without the feature `engine` the crate is the client and the data tools, and builds in seconds.

pub mod advice;
#[cfg(feature = "engine")]
pub mod bench;
pub mod cli;
pub mod commands;
pub mod config;
pub mod control;
pub mod data;
pub mod disk;
#[cfg(feature = "engine")]
pub mod engine;
pub mod host;
pub mod machine;
pub mod plan;
pub mod record;
pub mod report;
pub mod steer;
pub mod tasks;
pub mod text;
pub mod tui;
