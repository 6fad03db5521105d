//! The `LLaMA` network: pre-norm decoder layers of grouped-query attention and `SwiGLU`. Nothing in it knows about patches.
//!
//! Field names are chosen so that a parameter's path is its Hugging Face name (`model.layers.0.self_attn.q_proj.weight`).
//! Axes: `B` sequences, `T` positions, `N = B * T`, `D` hidden, `F` intermediate, `H` width of a head, `V` vocabulary.

use burn::module::Module;
use burn::tensor::activation::{silu, softmax};
use burn::tensor::{Bool, Tensor};

use crate::engine::model::{Embedding, Linear, RmsNorm, RotaryTables};

/// The whole network.
#[derive(Module, Debug)]
pub struct LlamaForCausalLM {
    /// Embedding and trunk.
    pub model: LlamaModel,
    /// The head, absent if it shares the embedding table.
    pub lm_head: Option<Linear>,
}

/// Embedding table, decoder layers and last norm.
#[derive(Module, Debug)]
pub struct LlamaModel {
    /// `[V, D]`.
    pub embed_tokens: Embedding,
    /// Layers from the first to the last.
    pub layers: Vec<DecoderLayer>,
    /// Normalises what enters the head.
    pub norm: RmsNorm,
}

/// One layer of the trunk.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// Mixes positions.
    pub self_attn: Attention,
    /// Works on each position.
    pub mlp: Mlp,
    /// Normalises what enters attention.
    pub input_layernorm: RmsNorm,
    /// Normalises what enters the feed-forward block.
    pub post_attention_layernorm: RmsNorm,
}

/// Causal attention with grouped key and value heads.
#[derive(Module, Debug)]
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
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[F, D]`.
    pub gate_proj: Linear,
    /// `[F, D]`.
    pub up_proj: Linear,
    /// `[D, F]`.
    pub down_proj: Linear,
}

/// What the layers share for one shape of input.
#[derive(Debug, Clone)]
pub struct Positions {
    /// Positions per sequence (T).
    pub num_positions: usize,
    /// Width of a head (H).
    pub head_dim: usize,
    /// Cosines and sines of the rotary embedding.
    pub rotary: RotaryTables,
    /// `[1, 1, T, T]`, true where a query may not attend.
    pub future: Tensor<4, Bool>,
}

/// Called with the feed-forward tensors of every layer: layer, intermediate `[N, F]`, output `[N, D]`.
pub type Observer<'a> = &'a mut dyn FnMut(usize, &Tensor<2>, &Tensor<2>);

impl LlamaForCausalLM {
    /// The matrix that turns the trunk's output into logits, `[V, D]`.
    pub fn head(&self) -> Tensor<2> {
        self.lm_head.as_ref().map_or_else(|| self.model.embed_tokens.weight.val(), |head| head.weight.val())
    }
}

impl LlamaModel {
    /// Runs the trunk. `inputs`: `[N, D]` embeddings. Returns `[N, D]`, ready for the head.
    pub fn forward(&self, inputs: Tensor<2>, positions: &Positions, observe: Observer<'_>) -> Tensor<2> {
        let mut rows = inputs;
        for (idx, layer) in self.layers.iter().enumerate() {
            rows = layer.forward(rows, positions, &mut |intermediate, output| observe(idx, intermediate, output));
        }
        self.norm.forward(rows)
    }
}

impl DecoderLayer {
    fn forward(&self, rows: Tensor<2>, positions: &Positions, observe: &mut dyn FnMut(&Tensor<2>, &Tensor<2>)) -> Tensor<2> {
        let attended = self.self_attn.forward(self.input_layernorm.forward(rows.clone()), positions);
        let rows = rows + attended;
        let fed = self.mlp.forward(self.post_attention_layernorm.forward(rows.clone()), observe);
        rows + fed
    }
}

impl Attention {
    fn forward(&self, rows: Tensor<2>, positions: &Positions) -> Tensor<2> {
        let [num_rows, hidden_size] = rows.dims();
        let scale = (positions.head_dim as f64).powf(-0.5);
        let queries = positions.rotary.rotate(split_heads(self.q_proj.forward(rows.clone()), positions)); // [B, heads, T, H]
        let keys = positions.rotary.rotate(split_heads(self.k_proj.forward(rows.clone()), positions)); // [B, groups, T, H]
        let values = split_heads(self.v_proj.forward(rows), positions); // [B, groups, T, H]
        let group = queries.dims()[1] / keys.dims()[1];
        let scores = queries.mul_scalar(scale).matmul(repeat_heads(keys, group).transpose()); // [B, heads, T, T]
        let [num_sequences, num_heads, ..] = scores.dims();
        let t = positions.num_positions;
        let hidden = positions.future.clone().expand([num_sequences, num_heads, t, t]);
        let weights = softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 3); // [B, heads, T, T]
        let mixed = weights.matmul(repeat_heads(values, group)); // [B, heads, T, H]
        self.o_proj.forward(mixed.swap_dims(1, 2).reshape([num_rows, hidden_size])) // [N, D]
    }
}

impl Mlp {
    fn forward(&self, rows: Tensor<2>, observe: &mut dyn FnMut(&Tensor<2>, &Tensor<2>)) -> Tensor<2> {
        let intermediate = silu(self.gate_proj.forward(rows.clone())) * self.up_proj.forward(rows); // [N, F]
        let output = self.down_proj.forward(intermediate.clone()); // [N, D]
        observe(&intermediate, &output);
        output
    }
}

/// `[N, heads * H]` to `[B, heads, T, H]`.
fn split_heads(rows: Tensor<2>, positions: &Positions) -> Tensor<4> {
    let [num_rows, width] = rows.dims();
    let (t, head_dim) = (positions.num_positions, positions.head_dim);
    rows.reshape([num_rows / t, t, width / head_dim, head_dim]).swap_dims(1, 2)
}

/// Gives each of a group of query heads the key or value head that they share: `[B, groups, T, H]` to `[B, groups * group, T, H]`.
fn repeat_heads(heads: Tensor<4>, group: usize) -> Tensor<4> {
    if group == 1 {
        return heads;
    }
    let [b, groups, t, head_dim] = heads.dims();
    heads
        .unsqueeze_dim::<5>(2) // [B, groups, 1, T, H]
        .expand([b, groups, group, t, head_dim])
        .reshape([b, groups * group, t, head_dim])
}
