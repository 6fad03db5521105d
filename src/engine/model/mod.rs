//! The network: layers, rotary positions, initial weights. Start at [`LlamaForCausalLM`].

mod init;
mod layers;
mod llama;
mod rope;

pub use init::{WeightSource, random_weights};
pub use layers::{Embedding, Linear, RmsNorm};
pub use llama::{Attention, DecoderLayer, LlamaForCausalLM, LlamaModel, Mlp, Observer, Positions};
pub use rope::RotaryTables;
