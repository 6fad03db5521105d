//! Every device is checked before use: before the first step every operation is compared with the
//! CPU, forward and backward, on the shapes of the run.
//!
//! Some drivers compute wrong products, and a loss that falls a little too slowly goes unnoticed.
//! Inputs come from a fixed generator; passed checks are cached for this device, driver, program
//! and shapes ([`cache`]). Start at [`check`], and at [`operations`] for what is compared.

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
pub use report::{Checked, Report, WrongResult};
pub use shapes::{Shape, shapes};
