//! The thread team of `engine/kernels`, compiled without the rest of the crate.

#![deny(unsafe_code)]

#[path = "../../../src/engine/kernels/team.rs"]
pub mod team;
