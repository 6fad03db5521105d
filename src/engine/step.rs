//! Loss and gradients of one micro-batch: forward pass, loss, backward pass. A pure function,
//! independent of runs, files and listeners.

use burn::tensor::Tensor;

use crate::engine::batch::Batch;
use crate::engine::gradients::Gradients;
use crate::engine::model::{LayerSaved, LlamaForCausalLM, Pass, SharedInput};
use crate::engine::ops::format::{to_type, wide};
use crate::engine::ops::head;

/// Settings shared by the micro-batches of a step.
#[derive(Debug, Clone)]
pub struct StepInput {
    /// Positions of each sequence.
    pub shared: SharedInput,
    /// The gradients are those of the summed loss times this: 1 / (scored targets of the whole
    /// step).
    pub scale: f64,
    /// Whether a layer keeps only its input and recomputes the rest in the backward pass.
    pub recompute: bool,
}

/// Saved by a layer for its backward pass.
#[expect(clippy::large_enum_variant, reason = "there is one per layer, and all are alike")]
enum Kept {
    /// Everything that the backward pass needs.
    Activations(LayerSaved),
    /// Its input, `[N, D]`.
    Input(Tensor<2>),
}

/// A part of the work on a micro-batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepPart {
    /// Embedding, layers and final norm.
    Forward,
    /// Logits, loss and their gradients, which are computed together.
    Head,
    /// Backward pass to the embedding; with recomputation it includes the layers' second forward
    /// pass.
    Backward,
}

/// Observer of a micro-batch in progress. A closure that says whether the work should end is one.
pub trait StepWatch {
    /// Checked between layers; once it is true, the micro-batch is abandoned.
    fn is_stopped(&self) -> bool;

    /// Called when a part was computed, or on a GPU queued.
    fn ended(&self, _part: StepPart) {}
}

impl<F: Fn() -> bool> StepWatch for F {
    fn is_stopped(&self) -> bool {
        self()
    }
}

/// Adds the gradients of `batch` to `gradients` and returns its loss, summed over scored targets:
/// `[1]`.
///
/// `None` if `watch` says that the micro-batch should be abandoned; the gradients are then
/// incomplete.
pub fn micro_step(
    model: &LlamaForCausalLM,
    batch: &Batch,
    input: &StepInput,
    watch: &dyn StepWatch,
    gradients: &mut Gradients,
) -> Option<Tensor<1>> {
    let (trunk, shared, compute) = (&model.model, &input.shared, model.compute());
    // Table, norms, head and loss are f32; activations between them have the number format of the
    // products.
    let dtype = trunk.product_type();
    let mut pass = Training { watch, recompute: input.recompute, kept: Vec::new() };
    let rows = to_type(trunk.embed(&batch.ids, batch.patch_size), dtype); // [N, D]
    let rows = trunk.run_layers(rows, shared, &mut pass).ok()?;
    let (rows, norm) = trunk.norm.forward(compute, wide(rows));
    watch.ended(StepPart::Forward);
    let scored = head::Input { rows: &rows, weight: &model.head().values, targets: &batch.targets };
    let head = head::forward_backward(compute, scored, input.scale, gradients.take(model.head()));
    gradients.put(model.head(), head.d_weight);
    watch.ended(StepPart::Head);
    let mut d_rows = to_type(trunk.norm.backward(norm, head.d_rows, None, gradients), dtype); // [N, D]
    for (layer, kept) in trunk.layers.iter().zip(pass.kept).rev() {
        if watch.is_stopped() {
            return None;
        }
        let saved = match kept {
            Kept::Activations(saved) => saved,
            Kept::Input(rows) => layer.forward(rows, shared, &mut |heads| shared.mix(heads)).saved,
        };
        d_rows = layer.backward(saved, shared, d_rows, gradients);
    }
    trunk.embed_tokens.backward(&batch.ids, batch.patch_size, wide(d_rows), gradients);
    watch.ended(StepPart::Backward);
    Some(head.loss_sum)
}

/// The pass through the layers that a backward pass follows.
struct Training<'a> {
    watch: &'a dyn StepWatch,
    recompute: bool,
    kept: Vec<Kept>,
}

/// The micro-batch is abandoned.
struct Abandoned;

impl Pass for Training<'_> {
    type Stop = Abandoned;

    fn begin_layer(&mut self) -> Result<(), Abandoned> {
        if self.watch.is_stopped() { Err(Abandoned) } else { Ok(()) }
    }

    fn end_layer(&mut self, _output: &Tensor<2>, saved: LayerSaved) {
        self.kept.push(if self.recompute {
            Kept::Input(saved.into_input())
        } else {
            Kept::Activations(saved)
        });
    }
}

#[cfg(test)]
mod tests;
