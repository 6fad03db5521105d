//! Greedy continuation of a prompt, token by token (K = 1).

use burn::tensor::{Device, ExecutionError, Int, Tensor, TensorData};

use crate::config::PatchSize;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::ops::positions::Positions;
use crate::run::StopFlag;

/// Lengths are rounded up to a multiple of this, so that devices that compile per shape see few shapes; the padding comes
/// after the tokens, where a causal network does not attend.
const LENGTH_STEP: usize = 32;

/// Continues prompts with the most probable token.
#[derive(Debug, Clone)]
pub struct GreedyDecoder {
    /// The network.
    pub model: LlamaForCausalLM,
    /// Longest sequence that the model was trained on, in positions; older tokens are forgotten.
    pub context_length: usize,
    /// The network's device.
    pub device: Device,
}

impl GreedyDecoder {
    /// Up to `max_new_tokens` tokens after `prompt`, fewer if one of `ends` is produced; `None` if the run is to end.
    ///
    /// # Errors
    /// When the device fails.
    pub fn continue_prompt(&self, prompt: &[u32], max_new_tokens: usize, ends: &[u32], stop: &StopFlag) -> Result<Option<Vec<u32>>, ExecutionError> {
        let mut tokens = prompt.to_vec();
        for _ in 0..max_new_tokens {
            if stop.is_raised() {
                return Ok(None);
            }
            let next = self.next_token(&tokens)?;
            if ends.contains(&next) {
                break;
            }
            tokens.push(next);
        }
        Ok(Some(tokens.split_off(prompt.len())))
    }

    fn next_token(&self, tokens: &[u32]) -> Result<u32, ExecutionError> {
        let best = self.last_logits(tokens).argmax(1).try_into_data()?;
        Ok(best.iter::<i64>().next().map_or(0, |id| id as u32))
    }

    /// `[1, V]`.
    fn last_logits(&self, tokens: &[u32]) -> Tensor<2> {
        let window = &tokens[tokens.len().saturating_sub(self.context_length)..];
        let length = window.len().next_multiple_of(LENGTH_STEP).min(self.context_length);
        let mut ids: Vec<i32> = window.iter().map(|id| *id as i32).collect();
        ids.resize(length, 0);
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [length]), &self.device);
        let trunk = &self.model.model;
        let hidden = trunk.forward(trunk.embed_tokens.forward(ids, PatchSize::ONE), Positions::of_sequence(length));
        hidden.narrow(0, window.len() - 1, 1).matmul(self.model.head().values.clone().transpose())
    }
}
