//! The `LLaMA` network: an embedding, decoder layers of grouped-query attention and `SwiGLU`, a
//! norm, a head.
//!
//! Every part has a forward pass, which also returns what its backward pass needs, and a backward
//! pass, which adds the gradients of its weights to a sum and returns the gradient of its input.
//! Fields and weights have Hugging Face's names. Axes: `B` sequences, `T` positions, `N = B * T`,
//! `D` hidden, `F` intermediate, `H` width of a head, `V` vocabulary.

use std::convert::Infallible;

use burn::tensor::{DType, Tensor};

use crate::config::{PatchSize, Precision};
use crate::engine::compute::Compute;
use crate::engine::gradients::Gradients;
use crate::engine::model::{Embedding, Linear, RmsNorm};
use crate::engine::named_tensor::NamedTensor;
use crate::engine::ops::attention::{self, Heads};
use crate::engine::ops::rotary::Angles;
use crate::engine::ops::sum::add;
use crate::engine::ops::{linear, rms_norm, rotary, swiglu};
use crate::engine::positions::Positions;

/// The whole network.
#[derive(Debug, Clone)]
pub struct LlamaForCausalLM {
    /// Embedding and trunk.
    pub model: LlamaModel,
    /// The head; absent if it is tied to the embedding table.
    pub lm_head: Option<Linear>,
}

/// Embedding table, decoder layers and final norm.
#[derive(Debug, Clone)]
pub struct LlamaModel {
    /// `[V, D]`.
    pub embed_tokens: Embedding,
    /// Layers from first to last.
    pub layers: Vec<DecoderLayer>,
    /// Final norm before the head.
    pub norm: RmsNorm,
    /// Base of the rotary position embedding.
    pub rope_theta: f64,
    /// Width of a head (H).
    pub head_dim: usize,
    /// Where and how it is computed.
    pub compute: Compute,
}

/// One layer of the trunk.
#[derive(Debug, Clone)]
pub struct DecoderLayer {
    /// Attention.
    pub self_attn: Attention,
    /// Feed-forward block.
    pub mlp: Mlp,
    /// Norm before attention.
    pub input_layernorm: RmsNorm,
    /// Norm before the feed-forward block.
    pub post_attention_layernorm: RmsNorm,
}

/// Causal attention with grouped key and value heads.
#[derive(Debug, Clone)]
pub struct Attention {
    /// `[D, D]`.
    pub q_proj: Linear,
    /// `[key-value heads * H, D]`.
    pub k_proj: Linear,
    /// `[key-value heads * H, D]`.
    pub v_proj: Linear,
    /// `[D, D]`.
    pub o_proj: Linear,
}

/// The `SwiGLU` feed-forward block.
#[derive(Debug, Clone)]
pub struct Mlp {
    /// `[F, D]`.
    pub gate_proj: Linear,
    /// `[F, D]`.
    pub up_proj: Linear,
    /// `[D, F]`.
    pub down_proj: Linear,
}

/// Input shared by all layers: positions and their angles.
#[derive(Debug, Clone)]
pub struct SharedInput {
    /// Where and how the layers are computed.
    pub compute: Compute,
    /// Width of a head (H).
    pub head_dim: usize,
    /// Positions of the rows.
    pub positions: Positions,
    /// Angles of these positions.
    pub angles: Angles,
}

/// What a pass through the layers does besides computing them.
pub trait Pass {
    /// Why it ends before the last layer.
    type Stop;

    /// Called before each layer.
    ///
    /// # Errors
    /// When the pass should end.
    fn begin_layer(&mut self) -> Result<(), Self::Stop> {
        Ok(())
    }

    /// Attention of a layer, `[B, T, heads, H]`; by default, of each position to the earlier ones
    /// of its sequence.
    fn mix(&mut self, _layer_idx: usize, heads: &Heads, shared: &SharedInput) -> Tensor<4> {
        shared.mix(heads)
    }

    /// Receives what a layer has computed, and `output`, `[N, D]`, of its feed-forward block, which
    /// is then added to the rows.
    fn end_layer(&mut self, output: &Tensor<2>, saved: LayerSaved);
}

/// Attention as a callback: the index of the layer and its heads in, `[B, T, heads, H]` out.
pub type Mix<'a> = &'a mut dyn FnMut(usize, &Heads) -> Tensor<4>;

/// A pass that keeps nothing.
struct Inference<'a>(Mix<'a>);

impl Pass for Inference<'_> {
    type Stop = Infallible;

    fn mix(&mut self, layer_idx: usize, heads: &Heads, _shared: &SharedInput) -> Tensor<4> {
        (self.0)(layer_idx, heads)
    }

    fn end_layer(&mut self, _output: &Tensor<2>, _saved: LayerSaved) {}
}

/// A layer up to its last addition: the output is `output + around`.
#[derive(Debug)]
pub struct LayerOut {
    /// Output of the feed-forward block, `[N, D]`.
    pub output: Tensor<2>,
    /// Input of that block, `[N, D]`.
    pub around: Tensor<2>,
    /// What the backward pass needs.
    pub saved: LayerSaved,
}

/// Saved for the backward pass of a layer.
#[derive(Debug, Clone)]
pub struct LayerSaved {
    attend: AttendSaved,
    feed: FeedSaved,
}

/// Saved for the backward pass of norm and attention.
#[derive(Debug, Clone)]
struct AttendSaved {
    norm: rms_norm::Saved,
    /// The input of the three projections.
    projected: linear::Saved,
    heads: Heads,
    o_proj: linear::Saved,
}

/// Saved for the backward pass of norm and feed-forward block.
#[derive(Debug, Clone)]
struct FeedSaved {
    norm: rms_norm::Saved,
    /// The input of gate and up.
    projected: linear::Saved,
    swiglu: swiglu::Saved,
    /// The input of the last product.
    down_proj: linear::Saved,
}

impl LayerSaved {
    /// The input of the layer, `[N, D]`.
    pub fn into_input(self) -> Tensor<2> {
        self.attend.norm.rows
    }

    /// The intermediate activations, `[N, F]`.
    pub fn into_intermediate(self) -> Tensor<2> {
        self.feed.down_proj.rows
    }
}

impl SharedInput {
    /// Attention of each position to the earlier ones of its sequence, `[B, T, heads, H]`.
    pub fn mix(&self, heads: &Heads) -> Tensor<4> {
        attention::forward(&self.compute, heads, self.positions)
    }
}

impl LlamaForCausalLM {
    /// The weight that maps the trunk's output to logits, `[V, D]`.
    pub fn head(&self) -> &NamedTensor {
        self.lm_head.as_ref().map_or(&self.model.embed_tokens.weight, |head| &head.weight)
    }

    /// Where and how it is computed.
    pub fn compute(&self) -> &Compute {
        &self.model.compute
    }

    /// All weights; tied embeddings occur once.
    pub fn weights(&self) -> impl Iterator<Item = &NamedTensor> {
        let model = &self.model;
        let layers = model.layers.iter().flat_map(DecoderLayer::weights);
        [&model.embed_tokens.weight, &model.norm.weight]
            .into_iter()
            .chain(layers)
            .chain(self.lm_head.as_ref().map(|head| &head.weight))
    }

    /// The network with each weight replaced by the result of `change`, which becomes the only
    /// owner of the old weight.
    #[must_use]
    pub fn map(self, change: &mut dyn FnMut(NamedTensor) -> NamedTensor) -> Self {
        let LlamaModel { embed_tokens, layers, norm, .. } = self.model;
        let embed_tokens = Embedding { weight: change(embed_tokens.weight) };
        let layers = layers.into_iter().map(|layer| layer.map(change)).collect();
        let norm = norm.map(change);
        Self {
            model: LlamaModel { embed_tokens, layers, norm, ..self.model },
            lm_head: self.lm_head.map(|head| head.map(change)),
        }
    }
}

impl LlamaForCausalLM {
    /// A copy that computes its products in `precision`; in f32 it is the same network. Only the
    /// weights of the layers' products are narrower: table, norms and head stay f32, and so do
    /// all weight gradients.
    #[must_use]
    pub fn in_precision(&self, precision: Precision) -> Self {
        match precision {
            Precision::F32 => self.clone(),
            Precision::Bf16 => {
                let is_product =
                    |name: &str| name.contains(".self_attn.") || name.contains(".mlp.");
                let narrow = |weight: NamedTensor| NamedTensor {
                    values: weight.values.cast(DType::BF16),
                    ..weight
                };
                self.clone().map(&mut |weight| {
                    if is_product(&weight.name) { narrow(weight) } else { weight }
                })
            }
        }
    }
}

impl LlamaModel {
    /// Number format of the products of the layers, and of the activations between them.
    pub fn product_type(&self) -> DType {
        self.layers.first().map_or(DType::F32, |layer| layer.self_attn.q_proj.weight.values.dtype())
    }

    /// The shared input for `positions`.
    pub fn shared_input(&self, positions: Positions) -> SharedInput {
        let queries: Vec<usize> = (positions.start..positions.start + positions.queries).collect();
        SharedInput { positions, ..self.shared_input_at(&queries) }
    }

    /// The shared input if each row has its own position, `[1, N]` as shapes; the caller then
    /// provides the attention.
    pub fn shared_input_at(&self, positions: &[usize]) -> SharedInput {
        let device = &self.compute.device.device;
        SharedInput {
            compute: self.compute.clone(),
            head_dim: self.head_dim,
            positions: Positions::of_sequence(positions.len()),
            angles: Angles::at(positions, self.head_dim, self.rope_theta, device),
        }
    }

    /// One row for each patch of `ids`, `[N, D]`.
    pub fn embed(&self, ids: &[u32], patch_size: PatchSize) -> Tensor<2> {
        self.embed_tokens.forward(&self.compute, ids, patch_size)
    }

    /// Runs the layers. `rows`: `[N, D]` embeddings. Returns `[N, D]`, ready for the norm.
    ///
    /// # Errors
    /// When `pass` ends it.
    pub fn run_layers<P: Pass>(
        &self,
        rows: Tensor<2>,
        shared: &SharedInput,
        pass: &mut P,
    ) -> Result<Tensor<2>, P::Stop> {
        let mut rows = rows;
        for (idx, layer) in self.layers.iter().enumerate() {
            pass.begin_layer()?;
            let LayerOut { output, around, saved } =
                layer.forward(rows, shared, &mut |heads| pass.mix(idx, heads, shared));
            pass.end_layer(&output, saved);
            rows = add(&shared.compute, output, around);
        }
        Ok(rows)
    }

    /// Runs the trunk with attention provided by `mix`: over cached keys, or over rows of several
    /// sequences.
    ///
    /// `rows`: `[N, D]` embeddings. Returns `[N, D]`, ready for the head.
    pub fn infer(&self, rows: Tensor<2>, shared: &SharedInput, mix: Mix<'_>) -> Tensor<2> {
        let Ok(rows) = self.run_layers(rows, shared, &mut Inference(mix));
        self.norm.forward(&shared.compute, rows).0
    }

    /// Runs the trunk without saving anything. `rows`: `[N, D]` embeddings. Returns `[N, D]`, ready
    /// for the head.
    pub fn forward(&self, rows: Tensor<2>, positions: Positions) -> Tensor<2> {
        let shared = self.shared_input(positions);
        self.infer(rows, &shared, &mut |_, heads| shared.mix(heads))
    }
}

impl DecoderLayer {
    /// `rows`: `[N, D]`. `mix`: attention, `[B, T, heads, H]`.
    pub fn forward(
        &self,
        rows: Tensor<2>,
        shared: &SharedInput,
        mix: &mut dyn FnMut(&Heads) -> Tensor<4>,
    ) -> LayerOut {
        let (mixed, attend) = self.attend(rows.clone(), shared, mix);
        let around = add(&shared.compute, mixed, rows);
        let (output, feed) = self.feed(&shared.compute, around.clone());
        LayerOut { output, around, saved: LayerSaved { attend, feed } }
    }

    /// `d_out`: `[N, D]`. Returns the same shape.
    pub fn backward(
        &self,
        saved: LayerSaved,
        shared: &SharedInput,
        d_out: Tensor<2>,
        gradients: &mut Gradients,
    ) -> Tensor<2> {
        let d_rows = self.feed_backward(saved.feed, d_out, gradients);
        self.attend_backward(saved.attend, shared, d_rows, gradients)
    }

    /// Norm and attention, without the residual. `rows`: `[N, D]`. Returns the same shape.
    fn attend(
        &self,
        rows: Tensor<2>,
        shared: &SharedInput,
        mix: &mut dyn FnMut(&Heads) -> Tensor<4>,
    ) -> (Tensor<2>, AttendSaved) {
        let compute = &shared.compute;
        let (normed, norm) = self.input_layernorm.forward(compute, rows);
        let attn = &self.self_attn;
        let ([queries, keys, values], projected) =
            Linear::forward_each([&attn.q_proj, &attn.k_proj, &attn.v_proj], compute, normed);
        let heads = Heads {
            queries: rotary::forward(compute, split_heads(queries, shared), &shared.angles),
            keys: rotary::forward(compute, split_heads(keys, shared), &shared.angles),
            values: split_heads(values, shared),
        };
        let mixed = merge_heads(mix(&heads));
        let (out, o_proj) = attn.o_proj.forward(compute, mixed);
        (out, AttendSaved { norm, projected, heads, o_proj })
    }

    /// Includes the gradient of the residual connection.
    fn attend_backward(
        &self,
        saved: AttendSaved,
        shared: &SharedInput,
        d_out: Tensor<2>,
        gradients: &mut Gradients,
    ) -> Tensor<2> {
        let (attn, compute) = (&self.self_attn, &shared.compute);
        let d_mixed =
            split_heads(attn.o_proj.backward(saved.o_proj, d_out.clone(), None, gradients), shared); // [B, T, heads, H]
        let d_heads = attention::backward(compute, saved.heads, shared.positions, &d_mixed);
        let d_queries = merge_heads(rotary::backward(compute, d_heads.queries, &shared.angles)); // [N, D]
        let d_keys = merge_heads(rotary::backward(compute, d_heads.keys, &shared.angles)); // [N, groups * H]
        let d_values = merge_heads(d_heads.values); // [N, groups * H]
        let d_normed = attn.q_proj.backward(saved.projected.clone(), d_queries, None, gradients);
        let d_normed =
            attn.k_proj.backward(saved.projected.clone(), d_keys, Some(d_normed), gradients);
        let d_normed = attn.v_proj.backward(saved.projected, d_values, Some(d_normed), gradients);
        self.input_layernorm.backward(saved.norm, d_normed, Some(d_out), gradients)
    }

    /// Norm and feed-forward block, without the residual. `rows`: `[N, D]`. Returns the same shape.
    fn feed(&self, compute: &Compute, rows: Tensor<2>) -> (Tensor<2>, FeedSaved) {
        let (normed, norm) = self.post_attention_layernorm.forward(compute, rows);
        let ([gate, up], projected) =
            Linear::forward_each([&self.mlp.gate_proj, &self.mlp.up_proj], compute, normed); // [N, F] each
        let (activated, swiglu) = swiglu::forward(compute, gate, up); // [N, F]
        let (out, down_proj) = self.mlp.down_proj.forward(compute, activated); // [N, D]
        (out, FeedSaved { norm, projected, swiglu, down_proj })
    }

    /// Includes the gradient of the residual connection.
    fn feed_backward(
        &self,
        saved: FeedSaved,
        d_out: Tensor<2>,
        gradients: &mut Gradients,
    ) -> Tensor<2> {
        let d_intermediate =
            self.mlp.down_proj.backward(saved.down_proj, d_out.clone(), None, gradients); // [N, F]
        let (d_gate, d_up) = swiglu::backward(&gradients.compute, saved.swiglu, d_intermediate);
        let d_normed =
            self.mlp.gate_proj.backward(saved.projected.clone(), d_gate, None, gradients);
        let d_normed = self.mlp.up_proj.backward(saved.projected, d_up, Some(d_normed), gradients);
        self.post_attention_layernorm.backward(saved.norm, d_normed, Some(d_out), gradients)
    }

    fn weights(&self) -> [&NamedTensor; 9] {
        let (attn, mlp) = (&self.self_attn, &self.mlp);
        [
            &attn.q_proj.weight,
            &attn.k_proj.weight,
            &attn.v_proj.weight,
            &attn.o_proj.weight,
            &mlp.gate_proj.weight,
            &mlp.up_proj.weight,
            &mlp.down_proj.weight,
            &self.input_layernorm.weight,
            &self.post_attention_layernorm.weight,
        ]
    }

    fn map(self, change: &mut dyn FnMut(NamedTensor) -> NamedTensor) -> Self {
        let (attn, mlp) = (self.self_attn, self.mlp);
        Self {
            self_attn: Attention {
                q_proj: attn.q_proj.map(change),
                k_proj: attn.k_proj.map(change),
                v_proj: attn.v_proj.map(change),
                o_proj: attn.o_proj.map(change),
            },
            mlp: Mlp {
                gate_proj: mlp.gate_proj.map(change),
                up_proj: mlp.up_proj.map(change),
                down_proj: mlp.down_proj.map(change),
            },
            input_layernorm: self.input_layernorm.map(change),
            post_attention_layernorm: self.post_attention_layernorm.map(change),
        }
    }
}

/// `[N, heads * H]` to `[B, T, heads, H]`.
fn split_heads(rows: Tensor<2>, shared: &SharedInput) -> Tensor<4> {
    let [num_rows, width] = rows.dims();
    let (t, head_dim) = (shared.positions.queries, shared.head_dim);
    rows.reshape([num_rows / t, t, width / head_dim, head_dim])
}

/// `[B, T, heads, H]` to `[N, heads * H]`.
fn merge_heads(tensor: Tensor<4>) -> Tensor<2> {
    let [b, t, heads, head_dim] = tensor.dims();
    tensor.reshape([b * t, heads * head_dim])
}
