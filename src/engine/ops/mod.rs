//! The operations of the network, each with its own backward pass. There is no autodiff graph: the
//! network is fixed, so the gradient of each operation is written next to it, and the step runs
//! them forward and then backward.
//!
//! One file is one operation: `forward(..) -> (out, Saved)` and `backward(Saved, d_out) ->
//! gradients`, where `d_x` is the gradient of the loss with respect to `x`. Each has two
//! implementations, of which [`Compute::path`](crate::engine::compute::Compute::path) chooses one:
//! a kernel of `kernels` for the CPU, and a composition of Burn's operations. Operations take
//! tensors and ids only; weights, layers and batches belong to their callers. The tests compare
//! each with a plain expression, whose gradient Burn derives.
//!
//! Axes: `B` sequences, `T` positions, `N = B * T`, `K` tokens of a patch, `D` hidden, `F`
//! intermediate, `H` width of a head, `V` vocabulary. Activations are `[N, ..]` rows: a product of
//! two matrices is one call of the fastest kernel, and its gradient needs no sum over a batch axis.

pub mod cpu;
pub mod format;

pub mod attention;
pub mod embedding;
pub mod head;
pub mod linear;
pub mod rms_norm;
pub mod rotary;
pub mod sum;
pub mod swiglu;

#[cfg(test)]
pub(crate) mod testing;
