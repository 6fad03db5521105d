//! Gradients of one micro-batch, by the parameters' Hugging Face names, and their sum over a step.
//!
//! Every gradient is kept as a matrix (a norm's as one row), since nothing that follows depends on the shape.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};

use crate::engine::error::EngineError;
use crate::engine::loss::head_loss;
use crate::engine::model::{LlamaForCausalLM, Positions};
use crate::engine::patch::{Batch, pool_patches};
use crate::engine::workers::{Computation, Workers};

/// Gradients by parameter name.
#[derive(Debug, Default, Clone)]
pub struct NamedGradients(pub BTreeMap<String, Tensor<2>>);

/// Loss and gradients of one micro-batch.
#[derive(Debug)]
pub struct MicroStep {
    /// Summed over scored positions, averaged over the K targets of each: `[1]`.
    pub loss_sum: Tensor<1>,
    /// Gradients of `loss_sum * weight`.
    pub gradients: NamedGradients,
}

/// Forward and backward of one micro-batch; `weight` is 1 / (scored positions of the whole step).
pub fn micro_step(model: &LlamaForCausalLM, batch: &Batch, positions: &Positions, weight: f64) -> MicroStep {
    let hidden = scored_rows(trunk(model, batch, positions), batch); // [N, D]
    let head = head_loss(&hidden.clone().inner(), &model.head().inner(), &batch.targets, weight);
    // The head's gradient enters the trunk as the gradient of a sum of products with it.
    let mut recorded = (hidden * head.hidden_gradient).sum().backward();
    let mut gradients = NamedGradients::of(model, &mut recorded);
    let name = if model.lm_head.is_some() { "lm_head.weight" } else { "model.embed_tokens.weight" };
    gradients.add(name, head.head_gradient);
    MicroStep { loss_sum: head.sum, gradients }
}

/// [`micro_step`] of several micro-batches at the same time; the results are in their order. `None` if the run is to end.
///
/// On the CPU most operations use one thread only, so this is what keeps the others busy. Each computation has leaves of its
/// own for the same weights, so the graphs have nothing in common.
///
/// # Errors
/// When a computation cannot be started.
pub fn micro_steps(
    workers: &Workers,
    model: &LlamaForCausalLM,
    batches: &[Batch],
    positions: &Positions,
    weight: f64,
) -> Result<Option<Vec<MicroStep>>, EngineError> {
    let job = |batch: &Batch| {
        let (replica, batch, positions) = (model.valid().train(), batch.clone(), positions.clone());
        Box::new(move || micro_step(&replica, &batch, &positions, weight)) as Computation<MicroStep>
    };
    workers.run(batches.iter().map(job).collect())
}

/// Output of the trunk, `[B * T, D]`.
pub fn trunk(model: &LlamaForCausalLM, batch: &Batch, positions: &Positions) -> Tensor<2> {
    let embedded = model.model.embed_tokens.forward(batch.ids.clone()); // [B * S, D]
    let inputs = pool_patches(embedded, batch.patch_size); // [B * T, D]
    model.model.forward(inputs, positions, &mut |_, _, _| {})
}

/// Drops the last position of every sequence, which has nothing to predict: `[B * T, D]` to `[B * (T - 1), D]`.
pub fn scored_rows(hidden: Tensor<2>, batch: &Batch) -> Tensor<2> {
    let (b, t) = (batch.num_sequences, batch.num_positions);
    let [_, hidden_size] = hidden.dims();
    hidden.reshape([b, t, hidden_size]).narrow(1, 0, t - 1).reshape([b * (t - 1), hidden_size])
}

impl NamedGradients {
    /// Takes the gradients of `model` out of `recorded`.
    fn of(model: &LlamaForCausalLM, recorded: &mut Gradients) -> Self {
        struct Collect<'a> {
            path: Vec<String>,
            recorded: &'a mut Gradients,
            found: NamedGradients,
        }
        impl ModuleVisitor for Collect<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(gradient) = param.val().grad_remove(self.recorded) {
                    self.found.0.insert(self.path.join("."), as_matrix(gradient));
                }
            }
            fn enter_module(&mut self, name: &str, _container: &str) {
                self.path.push(name.to_owned());
            }
            fn exit_module(&mut self, _name: &str, _container: &str) {
                self.path.pop();
            }
        }
        let mut collect = Collect { path: Vec::new(), recorded, found: Self::default() };
        model.visit(&mut collect);
        collect.found
    }

    /// Adds `gradient` to that of `name`.
    pub fn add(&mut self, name: &str, gradient: Tensor<2>) {
        let sum = match self.0.remove(name) {
            Some(known) => known + gradient,
            None => gradient,
        };
        self.0.insert(name.to_owned(), sum);
    }

    /// Adds all of `other`.
    pub fn accumulate(&mut self, other: Self) {
        for (name, gradient) in other.0 {
            self.add(&name, gradient);
        }
    }

    /// Global L2 norm, `[1]`.
    ///
    /// Summed row by row and then over rows: a full sum on the CPU combines its parts in the order in which threads finish,
    /// which would make runs differ in the last bit (burn-flex 0.22.1, reduce.rs).
    pub fn norm(&self) -> Option<Tensor<1>> {
        let squares = self.0.values().map(|gradient| gradient.clone().square().sum_dim(1).sum_dim(0).reshape([1]));
        squares.reduce(|sum, square| sum + square).map(Tensor::sqrt)
    }
}

/// A norm's `[D]` becomes `[1, D]`; a matrix stays as it is.
pub(crate) fn as_matrix<const D: usize>(tensor: Tensor<D>) -> Tensor<2> {
    let dims = tensor.dims();
    let columns = dims[D - 1];
    let rows = dims.iter().product::<usize>() / columns;
    tensor.reshape([rows, columns])
}
