//! From a configuration to a running engine: which directory, which lock, which process.
//!
//! The check of a configuration, the trainer and the foreground output are closures passed in by
//! the caller. The lock is taken before a directory is inspected and is held, without a gap, until
//! its engine ends. Start at [`claim`], then [`ClaimedRun::prepare`].

mod altered;
mod capacity;
mod check;
mod claim;
mod engine_process;
mod error;
mod launch;
mod plan_inputs;
mod prepare;

pub use altered::altered;
pub use capacity::check_memory;
pub use check::{EngineChecks, check, token_cache};
pub use claim::{Claim, ClaimedRun, Wish, claim, claim_directory, claim_existing};
pub use engine_process::{EngineSetup, Face, StartError, run_engine};
pub use error::HostError;
pub use launch::{LaunchError, Launched, launch, spawn, spawn_engine};
pub use plan_inputs::{Missing, PlanInputs, corpus, plan_before_preparation};
pub use prepare::{Check, engine_config, run_config};
