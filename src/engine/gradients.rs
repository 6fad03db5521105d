//! The accumulated gradients of a step: one sum per weight, to which every micro-batch adds.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

use crate::engine::compute::Compute;
use crate::engine::named_tensor::NamedTensor;
use crate::engine::ops::sum;

/// Sums of gradients, and where backward passes compute them.
#[derive(Debug, Clone)]
pub struct Gradients {
    /// Where they are computed.
    pub compute: Compute,
    /// By the name of their weight, as matrices.
    pub sums: BTreeMap<String, Tensor<2>>,
}

impl Gradients {
    /// No gradients yet.
    pub fn new(compute: &Compute) -> Self {
        Self { compute: compute.clone(), sums: BTreeMap::new() }
    }

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
        self.sums.remove(&weight.name)
    }

    /// Sets the sum for `weight`.
    pub fn put(&mut self, weight: &NamedTensor, sum: Tensor<2>) {
        self.sums.insert(weight.name.clone(), sum);
    }

    /// Global L2 norm, `[1]`; `None` without a gradient.
    pub fn norm(&self) -> Option<Tensor<1>> {
        sum::norm(&self.compute, self.sums.values())
    }
}
