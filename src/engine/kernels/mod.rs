//! What computes on the CPU: the bodies of the operations in `ops`, over slices, for f32.
//!
//! An operation asks [`on_host`] and then either calls its kernel here or composes its result of Burn's operations, which is
//! what GPUs get and what the tests compare the kernels with. A kernel passes over its data once, all threads take part, and
//! loops are compiled for several instruction sets, of which the best is chosen when the program runs ([`vector::best`]).
//!
//! Results do not depend on the number of threads ([`team`]): rows are cut into blocks of a size that depends on the shape alone
//! ([`rows`]), a block is computed by one thread, and sums over blocks are added in the order of the blocks. Products are cut
//! into as many parts as the threads need, but no sum of theirs is ([`matmul`]).

pub mod adamw;
pub mod attention;
pub mod cross_entropy;
pub mod embedding;
mod host;
pub mod linear;
pub mod matmul;
pub mod rms_norm;
pub mod rotary;
mod rows;
mod small;
mod sum;
pub mod swiglu;
mod team;
mod tiles;
mod vector;

pub use host::on_host;
pub use sum::{add, sum_of_squares};
