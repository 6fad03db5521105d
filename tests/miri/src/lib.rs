//! The thread team of `engine/kernels`, compiled without the rest of the crate.

#[path = "../../../src/engine/kernels/team.rs"]
mod team;
