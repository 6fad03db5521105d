//! Weights: random from a seed or read from named tensors, identical on every device.
//!
//! Each tensor has its own random stream, derived from the seed and its name, so neither the order
//! of initialization nor the device changes a bit of it.

use std::f64::consts::TAU;

use burn::tensor::{Device, Tensor, TensorData};

use crate::engine::compute::Compute;
use crate::engine::model::{
    Attention, DecoderLayer, Embedding, Linear, LlamaForCausalLM, LlamaModel, Mlp, RmsNorm,
};
use crate::engine::named_tensor::{NamedTensor, matrix_dims};
use crate::plan::ModelShape;

/// Source of weights: name and shape in, values out in row-major order.
pub type WeightSource<'a, E> = &'a mut dyn FnMut(&str, &[usize]) -> Result<Vec<f32>, E>;

/// Initial weights as in the paper: N(0, `initializer_range`) for all matrices, 1 for norms.
pub fn random_weights(
    seed: u64,
    shape: &ModelShape,
) -> impl FnMut(&str, &[usize]) -> Result<Vec<f32>, std::convert::Infallible> + use<> {
    let deviation = shape.initializer_range;
    move |name, dims| {
        let count = dims.iter().product();
        if dims.len() == 1 {
            return Ok(vec![1.0; count]);
        }
        let mut normals = Normals::new(seed, name);
        Ok((0..count).map(|_| (normals.next() * deviation) as f32).collect())
    }
}

impl LlamaForCausalLM {
    /// Builds the network, computed by `compute`, with weights from `source`.
    ///
    /// # Errors
    /// What `source` returns.
    pub fn new<E>(
        shape: &ModelShape,
        source: WeightSource<'_, E>,
        compute: &Compute,
    ) -> Result<Self, E> {
        let mut build = Builder { shape, source, device: &compute.device.device };
        let layers =
            (0..shape.num_hidden_layers).map(|idx| build.layer(idx)).collect::<Result<_, E>>()?;
        let model = LlamaModel {
            embed_tokens: Embedding {
                weight: build
                    .weight("model.embed_tokens.weight", &[shape.vocab_size, shape.hidden_size])?,
            },
            layers,
            norm: build.norm("model.norm.weight")?,
            rope_theta: shape.rope_theta,
            head_dim: shape.head_dim(),
            compute: compute.clone(),
        };
        let lm_head = if shape.tie_word_embeddings {
            None
        } else {
            Some(build.linear("lm_head.weight", shape.vocab_size, shape.hidden_size)?)
        };
        Ok(Self { model, lm_head })
    }
}

struct Builder<'a, 'b, E> {
    shape: &'a ModelShape,
    source: WeightSource<'b, E>,
    device: &'a Device,
}

impl<E> Builder<'_, '_, E> {
    fn layer(&mut self, idx: usize) -> Result<DecoderLayer, E> {
        let (hidden, intermediate) = (self.shape.hidden_size, self.shape.intermediate_size);
        let key_value = self.shape.num_key_value_heads * self.shape.head_dim();
        let name = |part: &str| format!("model.layers.{idx}.{part}.weight");
        Ok(DecoderLayer {
            self_attn: Attention {
                q_proj: self.linear(&name("self_attn.q_proj"), hidden, hidden)?,
                k_proj: self.linear(&name("self_attn.k_proj"), key_value, hidden)?,
                v_proj: self.linear(&name("self_attn.v_proj"), key_value, hidden)?,
                o_proj: self.linear(&name("self_attn.o_proj"), hidden, hidden)?,
            },
            mlp: Mlp {
                gate_proj: self.linear(&name("mlp.gate_proj"), intermediate, hidden)?,
                up_proj: self.linear(&name("mlp.up_proj"), intermediate, hidden)?,
                down_proj: self.linear(&name("mlp.down_proj"), hidden, intermediate)?,
            },
            input_layernorm: self.norm(&name("input_layernorm"))?,
            post_attention_layernorm: self.norm(&name("post_attention_layernorm"))?,
        })
    }

    fn linear(&mut self, name: &str, rows: usize, columns: usize) -> Result<Linear, E> {
        Ok(Linear { weight: self.weight(name, &[rows, columns])? })
    }

    fn norm(&mut self, name: &str) -> Result<RmsNorm, E> {
        Ok(RmsNorm {
            weight: self.weight(name, &[self.shape.hidden_size])?,
            epsilon: self.shape.rms_norm_eps,
        })
    }

    fn weight(&mut self, name: &str, dims: &[usize]) -> Result<NamedTensor, E> {
        let values = (self.source)(name, dims)?;
        let values = Tensor::from_data(TensorData::new(values, matrix_dims(dims)), self.device);
        Ok(NamedTensor { name: name.to_owned(), dims: dims.to_vec(), values })
    }
}

/// Standard normal numbers from `SplitMix64` and the Box-Muller transform.
struct Normals {
    state: u64,
    spare: Option<f64>,
}

impl Normals {
    fn new(seed: u64, name: &str) -> Self {
        let digest =
            blake3::keyed_hash(blake3::hash(&seed.to_le_bytes()).as_bytes(), name.as_bytes());
        let mut state = [0; 8];
        state.copy_from_slice(&digest.as_bytes()[..8]);
        Self { state: u64::from_le_bytes(state), spare: None }
    }

    fn next(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        let (sin, cos) = (TAU * self.uniform()).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }

    /// In (0, 1], so that the logarithm is finite.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        ((bits >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}
