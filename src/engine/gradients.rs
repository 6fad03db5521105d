//! The accumulated gradients of a step: one sum per weight, to which every micro-batch adds.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

use crate::engine::kernels::{on_host, sum_of_squares};
use crate::engine::named_tensor::NamedTensor;

/// Sums of gradients by the name of their weight, as matrices.
#[derive(Debug, Default, Clone)]
pub struct Gradients(pub BTreeMap<String, Tensor<2>>);

impl Gradients {
    /// Adds `gradient` to that of `weight`.
    pub fn add(&mut self, weight: &NamedTensor, gradient: Tensor<2>) {
        let sum = match self.take(weight) {
            Some(sum) => sum + gradient,
            None => gradient,
        };
        self.put(weight, sum);
    }

    /// Removes the sum for `weight`, so that it has one owner and can be changed in place; to be
    /// [`put`](Self::put) back.
    pub fn take(&mut self, weight: &NamedTensor) -> Option<Tensor<2>> {
        self.0.remove(&weight.name)
    }

    /// Sets the sum for `weight`.
    pub fn put(&mut self, weight: &NamedTensor, sum: Tensor<2>) {
        self.0.insert(weight.name.clone(), sum);
    }

    /// Global L2 norm, `[1]`; `None` without a gradient.
    ///
    /// Summed row by row and then over rows: a full sum on the CPU combines its parts in the order
    /// in which threads finish, so that runs would differ in the last bit (burn-flex 0.22.1,
    /// reduce.rs).
    pub fn norm(&self) -> Option<Tensor<1>> {
        if self.0.values().all(on_host) {
            let sum: f64 = self.0.values().map(|gradient| sum_of_squares(gradient.clone())).sum();
            return self
                .0
                .values()
                .next()
                .map(|gradient| Tensor::full([1], sum.sqrt() as f32, &gradient.device()));
        }
        let squares = self
            .0
            .values()
            .map(|gradient| gradient.clone().square().sum_dim(1).sum_dim(0).reshape([1]));
        squares.reduce(|sum, square| sum + square).map(Tensor::sqrt)
    }
}
