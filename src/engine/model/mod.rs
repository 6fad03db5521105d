//! The network, built from the operations in `ops`: layers and initial weights. Start at
//! [`LlamaForCausalLM`].

mod init;
mod layers;
mod llama;
#[cfg(test)]
mod tests;

pub use init::{WeightSource, random_weights};
pub use layers::{Embedding, Linear, RmsNorm};
pub use llama::{
    Attention, DecoderLayer, LayerOut, LayerSaved, LlamaForCausalLM, LlamaModel, Mix, Mlp, Pass,
    SharedInput,
};
