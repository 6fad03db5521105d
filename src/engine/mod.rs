//! Everything that computes: the network, the loss, the optimizer, the trainer. The only module that imports Burn.
//!
//! Hears [`crate::run::RunCommand`], says [`crate::run::RunEvent`]; never knows who listens. Start at `trainer.rs`.

pub mod generate;
pub mod gradients;
pub mod loss;
pub mod model;
pub mod optimizer;
pub mod patch;
pub mod probe;
