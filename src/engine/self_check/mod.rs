//! No device is trusted unseen: before its first step every operation is compared with the CPU, forward and backward, on the
//! shapes of the run.
//!
//! Real drivers compute wrong products, and a loss that falls a little too slowly shows it to nobody. Inputs come from a fixed
//! generator; what passed is remembered for this device, driver, program and shapes ([`cache`]). Knows operations and tensors;
//! not what is trained. Start at [`check`], and at [`operations`] for what is compared.

pub mod cache;
mod compare;
mod inputs;
pub mod operations;
mod report;
mod shapes;
#[cfg(test)]
mod tests;

pub use cache::Cache;
pub use compare::{Side, check, compare};
pub use inputs::Place;
pub use operations::step_tolerance;
pub use report::{Checked, Failure, Report};
pub use shapes::{Shape, shapes};
