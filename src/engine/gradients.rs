//! The gradients of a step: one sum for each weight, to which every micro-batch adds.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

use crate::engine::named_tensor::NamedTensor;

/// Sums of gradients by the name of their weight, in its matrix form.
#[derive(Debug, Default, Clone)]
pub struct Gradients(pub BTreeMap<String, Tensor<2>>);

impl Gradients {
    /// Adds `gradient` to that of `weight`.
    pub fn add(&mut self, weight: &NamedTensor, gradient: Tensor<2>) {
        self.add_named(weight.name.clone(), gradient);
    }

    /// Lets `add` change the sum for `weight`, which is zero before its first gradient. Only a few rows may have to be touched.
    pub fn update(&mut self, weight: &NamedTensor, add: impl FnOnce(Tensor<2>) -> Tensor<2>) {
        // Taken out, so that the sum has one owner and is changed in place.
        let sum = self.0.remove(&weight.name).unwrap_or_else(|| weight.values.zeros_like());
        self.0.insert(weight.name.clone(), add(sum));
    }

    /// Adds all of `other`.
    pub fn accumulate(&mut self, other: Self) {
        for (name, gradient) in other.0 {
            self.add_named(name, gradient);
        }
    }

    /// Global L2 norm, `[1]`; `None` without a gradient.
    ///
    /// Summed row by row and then over rows: a full sum on the CPU combines its parts in the order in which threads finish,
    /// which would make runs differ in the last bit (burn-flex 0.22.1, reduce.rs).
    pub fn norm(&self) -> Option<Tensor<1>> {
        let squares = self.0.values().map(|gradient| gradient.clone().square().sum_dim(1).sum_dim(0).reshape([1]));
        squares.reduce(|sum, square| sum + square).map(Tensor::sqrt)
    }

    fn add_named(&mut self, name: String, gradient: Tensor<2>) {
        let sum = match self.0.remove(&name) {
            Some(known) => known + gradient,
            None => gradient,
        };
        self.0.insert(name, sum);
    }
}
