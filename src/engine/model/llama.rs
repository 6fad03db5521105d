//! The `LLaMA` network: an embedding, decoder layers of grouped-query attention and `SwiGLU`, a
//! norm, a head.
//!
//! Every part has a forward pass, which also returns what its backward pass needs, and a backward
//! pass, which adds the gradients of its weights to a sum and returns the gradient of its input.
//! Fields and weights have Hugging Face's names. Axes: `B` sequences, `T` positions, `N = B * T`,
//! `D` hidden, `F` intermediate, `H` width of a head, `V` vocabulary.

use burn::tensor::{DType, Tensor};

use crate::config::Precision;
use crate::engine::gradients::Gradients;
use crate::engine::kernels::{self, on_host};
use crate::engine::model::{Embedding, Linear, RmsNorm};
use crate::engine::named_tensor::NamedTensor;
use crate::engine::ops::positions::Positions;
use crate::engine::ops::rotary::Angles;
use crate::engine::ops::{attention, linear, rms_norm, rotary, swiglu};

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
    /// Width of a head (H).
    pub head_dim: usize,
    /// Positions of the rows.
    pub positions: Positions,
    /// Angles of these positions.
    pub angles: Angles,
}

/// Queries, keys and values after the rotary embedding.
#[derive(Debug, Clone)]
pub struct Heads {
    /// `[B, T, heads, H]`.
    pub queries: Tensor<4>,
    /// `[B, T, groups, H]`.
    pub keys: Tensor<4>,
    /// `[B, T, groups, H]`.
    pub values: Tensor<4>,
}

/// Attention as a callback: the index of the layer and its heads in, `[B, T, heads, H]` out.
pub type Mix<'a> = &'a mut dyn FnMut(usize, Heads) -> Tensor<4>;

/// Saved for the backward pass of a layer.
#[derive(Debug, Clone)]
pub struct LayerSaved {
    attend: AttendSaved,
    feed: FeedSaved,
}

/// Saved for the backward pass of norm and attention.
#[derive(Debug, Clone)]
pub struct AttendSaved {
    norm: rms_norm::Saved,
    /// The input of the three projections.
    projected: linear::Saved,
    attention: attention::Saved,
    o_proj: linear::Saved,
}

/// Heads, and what the backward pass of norm and projections needs.
struct Projection {
    heads: Heads,
    norm: rms_norm::Saved,
    input: linear::Saved,
}

/// Saved for the backward pass of norm and feed-forward block.
#[derive(Debug, Clone)]
pub struct FeedSaved {
    norm: rms_norm::Saved,
    /// The input of gate and up.
    projected: linear::Saved,
    swiglu: swiglu::Saved,
    /// The input of the last product: the intermediate activations, `[N, F]`.
    pub down_proj: linear::Saved,
}

impl LlamaForCausalLM {
    /// The weight that maps the trunk's output to logits, `[V, D]`.
    pub fn head(&self) -> &NamedTensor {
        self.lm_head.as_ref().map_or(&self.model.embed_tokens.weight, |head| &head.weight)
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
        let LlamaModel { embed_tokens, layers, norm, rope_theta, head_dim } = self.model;
        let embed_tokens = Embedding { weight: change(embed_tokens.weight) };
        let layers = layers.into_iter().map(|layer| layer.map(change)).collect();
        let norm = norm.map(change);
        Self {
            model: LlamaModel { embed_tokens, layers, norm, rope_theta, head_dim },
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
        let device = self.norm.weight.values.device();
        SharedInput {
            head_dim: self.head_dim,
            positions,
            angles: Angles::new(positions, self.head_dim, self.rope_theta, &device),
        }
    }

    /// The shared input if each row has its own position, `[1, N]` as shapes; the caller then
    /// provides the attention.
    pub fn shared_input_at(&self, positions: &[usize]) -> SharedInput {
        let device = self.norm.weight.values.device();
        let angles = Angles::at(positions, self.head_dim, self.rope_theta, &device);
        SharedInput {
            head_dim: self.head_dim,
            positions: Positions::of_sequence(positions.len()),
            angles,
        }
    }

    /// Runs the trunk with attention provided by `mix`: over cached keys, or over rows of several
    /// sequences.
    ///
    /// `rows`: `[N, D]` embeddings. Returns `[N, D]`, ready for the head.
    pub fn infer(&self, rows: Tensor<2>, shared: &SharedInput, mix: Mix<'_>) -> Tensor<2> {
        let layers = self.layers.iter().enumerate();
        let rows = layers.fold(rows, |rows, (idx, layer)| {
            layer.infer(rows, shared, &mut |heads| mix(idx, heads))
        });
        self.norm.forward(rows).0
    }

    /// Runs the trunk without saving anything. `rows`: `[N, D]` embeddings. Returns `[N, D]`, ready
    /// for the head.
    pub fn forward(&self, rows: Tensor<2>, positions: Positions) -> Tensor<2> {
        let shared = self.shared_input(positions);
        let rows = self.layers.iter().fold(rows, |rows, layer| layer.forward(rows, &shared).0);
        self.norm.forward(rows).0
    }
}

impl DecoderLayer {
    /// `rows`: `[N, D]`. Returns the same shape.
    pub fn forward(&self, rows: Tensor<2>, shared: &SharedInput) -> (Tensor<2>, LayerSaved) {
        let (mixed, attend) = self.attend(rows.clone(), shared);
        let rows = add(mixed, rows);
        let (out, feed) = self.feed(rows.clone());
        (add(out, rows), LayerSaved { attend, feed })
    }

    /// As [`Self::forward`], with attention provided by `mix`.
    fn infer(
        &self,
        rows: Tensor<2>,
        shared: &SharedInput,
        mix: &mut dyn FnMut(Heads) -> Tensor<4>,
    ) -> Tensor<2> {
        let projection = self.project(rows.clone(), shared);
        let rows = add(self.self_attn.o_proj.forward(merge_heads(mix(projection.heads))).0, rows);
        let (out, _) = self.feed(rows.clone());
        add(out, rows)
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
    pub fn attend(&self, rows: Tensor<2>, shared: &SharedInput) -> (Tensor<2>, AttendSaved) {
        let Projection { heads, norm, input: projected } = self.project(rows, shared);
        let (mixed, attention) =
            attention::forward(heads.queries, heads.keys, heads.values, shared.positions); // [B, T, heads, H]
        let (out, o_proj) = self.self_attn.o_proj.forward(merge_heads(mixed));
        (out, AttendSaved { norm, projected, attention, o_proj })
    }

    fn project(&self, rows: Tensor<2>, shared: &SharedInput) -> Projection {
        let (normed, norm) = self.input_layernorm.forward(rows);
        let attn = &self.self_attn;
        let ([queries, keys, values], input) =
            Linear::forward_each([&attn.q_proj, &attn.k_proj, &attn.v_proj], normed);
        let heads = Heads {
            queries: rotary::forward(split_heads(queries, shared), &shared.angles),
            keys: rotary::forward(split_heads(keys, shared), &shared.angles),
            values: split_heads(values, shared),
        };
        Projection { heads, norm, input }
    }

    /// Includes the gradient of the residual connection.
    fn attend_backward(
        &self,
        saved: AttendSaved,
        shared: &SharedInput,
        d_out: Tensor<2>,
        gradients: &mut Gradients,
    ) -> Tensor<2> {
        let attn = &self.self_attn;
        let d_mixed =
            split_heads(attn.o_proj.backward(saved.o_proj, d_out.clone(), None, gradients), shared); // [B, T, heads, H]
        let d_heads = attention::backward(saved.attention, shared.positions, &d_mixed);
        let d_queries = merge_heads(rotary::backward(d_heads.d_queries, &shared.angles)); // [N, D]
        let d_keys = merge_heads(rotary::backward(d_heads.d_keys, &shared.angles)); // [N, groups * H]
        let d_values = merge_heads(d_heads.d_values); // [N, groups * H]
        let d_normed = attn.q_proj.backward(saved.projected.clone(), d_queries, None, gradients);
        let d_normed =
            attn.k_proj.backward(saved.projected.clone(), d_keys, Some(d_normed), gradients);
        let d_normed = attn.v_proj.backward(saved.projected, d_values, Some(d_normed), gradients);
        self.input_layernorm.backward(saved.norm, d_normed, Some(d_out), gradients)
    }

    /// Norm and feed-forward block, without the residual. `rows`: `[N, D]`. Returns the same shape.
    pub fn feed(&self, rows: Tensor<2>) -> (Tensor<2>, FeedSaved) {
        let (normed, norm) = self.post_attention_layernorm.forward(rows);
        let ([gate, up], projected) =
            Linear::forward_each([&self.mlp.gate_proj, &self.mlp.up_proj], normed); // [N, F] each
        let (activated, swiglu) = swiglu::forward(gate, up); // [N, F]
        let (out, down_proj) = self.mlp.down_proj.forward(activated); // [N, D]
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
        let (d_gate, d_up) = swiglu::backward(saved.swiglu, d_intermediate);
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

/// `out + around`: a block's output plus its input, the residual connection.
fn add(out: Tensor<2>, around: Tensor<2>) -> Tensor<2> {
    if on_host(&out) { kernels::add(out, around) } else { out + around }
}
