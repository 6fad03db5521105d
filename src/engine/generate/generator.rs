//! The generation loop: read, choose, read the chosen token. Several prompts advance together, one
//! row each.

use burn::tensor::Tensor;

use crate::config::PatchSize;
use crate::data::Random;
use crate::engine::error::EngineError;
use crate::engine::generate::Sampling;
use crate::engine::generate::cache::KeyValueCache;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::ops::linear;

/// Prompt tokens read at a time: bounds the memory of a long prompt.
const PROMPT_ROWS: usize = 256;
/// Prompts that advance together: bounds the memory of many prompts, and lets the first ones
/// complete early.
const PROMPTS_AT_ONCE: usize = 64;

/// Generates text from prompts.
#[derive(Debug, Clone)]
pub struct Generator {
    /// The network.
    pub model: LlamaForCausalLM,
    /// Context length, in positions. A longer sequence drops its older half, so that memory stays
    /// bounded and few tokens are read twice.
    pub context_length: usize,
}

/// Settings for all prompts.
#[derive(Debug, Clone, Copy)]
pub struct GenerationRules<'a> {
    /// Maximum number of new tokens per prompt.
    pub max_new_tokens: usize,
    /// Tokens that end the text; they are not part of it.
    pub ends: &'a [u32],
    /// How the next token is chosen.
    pub sampling: Sampling,
}

/// The generated text of a prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Continuation {
    /// The new tokens.
    pub ids: Vec<u32>,
    /// Whether older tokens were dropped because the text is longer than the context.
    pub has_slid: bool,
}

/// What the callback is told about a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A new token.
    Token(u32),
    /// The prompt is completed; the verdict on it is ignored.
    End(Continuation),
}

/// The callback's verdict on a new token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Continue the prompt.
    GoOn,
    /// End this prompt.
    EndPrompt,
    /// End all prompts.
    EndAll,
}

impl Generator {
    /// Continues `prompts`, each of at least one token. `heard` gets the index of a prompt and each
    /// of its new tokens.
    ///
    /// # Errors
    /// When the device fails, or the predictions are not finite.
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        rules: &GenerationRules<'_>,
        heard: &mut dyn FnMut(usize, u32) -> Verdict,
    ) -> Result<Vec<Continuation>, EngineError> {
        let mut continuations = vec![Continuation::default(); prompts.len()];
        self.generate_each(prompts, rules, &mut |idx, news| match news {
            Heard::Token(id) => heard(idx, id),
            Heard::End(continuation) => {
                continuations[idx] = continuation;
                Verdict::GoOn
            }
        })?;
        Ok(continuations)
    }

    /// The same, but `heard` also gets each completed text at once. A limited number of prompts
    /// advance together: the next one begins when one is completed.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn generate_each(
        &self,
        prompts: &[Vec<u32>],
        rules: &GenerationRules<'_>,
        heard: &mut dyn FnMut(usize, Heard) -> Verdict,
    ) -> Result<(), EngineError> {
        let mut waiting =
            prompts.iter().enumerate().map(|(idx, prompt)| self.begin(idx, prompt, rules));
        if rules.max_new_tokens == 0 {
            for mut sequence in waiting {
                heard(sequence.idx, Heard::End(sequence.finish()));
            }
            return Ok(());
        }
        let mut open: Vec<Sequence> = Vec::new();
        loop {
            let free = PROMPTS_AT_ONCE - open.len();
            open.extend(waiting.by_ref().take(free));
            if open.is_empty() {
                return Ok(());
            }
            let logits = self.next_logits(&mut open)?;
            if !logits.iter().all(|logit| logit.is_finite()) {
                return Err(EngineError::NonFinitePrediction);
            }
            let vocab_size = logits.len() / open.len();
            let mut advanced = open.drain(..).enumerate();
            let mut still_open = Vec::new();
            while let Some((row, mut sequence)) = advanced.next() {
                let mut logits = logits[row * vocab_size..][..vocab_size].to_vec();
                let next =
                    rules.sampling.choose(&mut logits, &sequence.tokens, &mut sequence.random);
                let verdict = if rules.ends.contains(&next) {
                    Verdict::EndPrompt
                } else {
                    sequence.tokens.push(next);
                    heard(sequence.idx, Heard::Token(next))
                };
                match verdict {
                    Verdict::GoOn if sequence.num_new() < rules.max_new_tokens => {
                        still_open.push(sequence);
                    }
                    Verdict::GoOn | Verdict::EndPrompt => {
                        heard(sequence.idx, Heard::End(sequence.finish()));
                    }
                    Verdict::EndAll => {
                        for mut rest in still_open
                            .into_iter()
                            .chain([sequence])
                            .chain(advanced.map(|(_, sequence)| sequence))
                        {
                            heard(rest.idx, Heard::End(rest.finish()));
                        }
                        return Ok(());
                    }
                }
            }
            drop(advanced);
            open = still_open;
        }
    }

    fn begin(&self, idx: usize, prompt: &[u32], rules: &GenerationRules<'_>) -> Sequence {
        let capacity = self.context_length.min(prompt.len() + rules.max_new_tokens);
        Sequence {
            idx,
            tokens: prompt.to_vec(),
            prompt_length: prompt.len(),
            cache: KeyValueCache::new(self.model.model.layers.len(), capacity),
            capacity,
            random: Random::new(rules.sampling.seed, idx as u64),
            has_slid: prompt.len() > self.context_length,
        }
    }

    /// Reads the newest token of each open sequence. Returns the logits after it, one row of V
    /// after the other.
    fn next_logits(&self, open: &mut [Sequence]) -> Result<Vec<f32>, EngineError> {
        for sequence in open.iter_mut() {
            self.read_up_to_last(sequence);
        }
        let newest: Vec<u32> = open.iter().map(Sequence::newest).collect();
        let positions: Vec<usize> = open.iter().map(|sequence| sequence.cache.length()).collect();
        let trunk = &self.model.model;
        let shared = trunk.shared_input_at(&positions);
        let embedded = trunk.embed(&newest, PatchSize::ONE);
        let hidden = trunk.infer(embedded, &shared, &mut |layer_idx, heads| {
            let mixed = open.iter_mut().enumerate().map(|(row, sequence)| {
                let heads = heads.each_ref().map(|tensor| tensor.clone().narrow(1, row, 1));
                sequence.cache.mix(&trunk.compute, layer_idx, heads)
            });
            Tensor::cat(mixed.collect(), 1)
        });
        for sequence in open.iter_mut() {
            sequence.cache.advance(1);
        }
        let (logits, _) = linear::forward(&trunk.compute, hidden, &self.model.head().values); // [open, V]
        Ok(logits.try_into_data()?.iter::<f32>().collect())
    }

    /// Reads all tokens that are not cached yet except the newest; first makes room, if needed.
    fn read_up_to_last(&self, sequence: &mut Sequence) {
        let known = if sequence.cache.length() == self.context_length {
            // Half of the context is read again here, once per half a context of new tokens.
            sequence.cache = KeyValueCache::new(self.model.model.layers.len(), sequence.capacity);
            sequence.has_slid = true;
            (self.context_length / 2).max(1)
        } else if sequence.cache.length() == 0 {
            self.context_length.min(sequence.tokens.len())
        } else {
            return;
        };
        let unread =
            sequence.tokens[sequence.tokens.len() - known..sequence.tokens.len() - 1].to_vec();
        for ids in unread.chunks(PROMPT_ROWS) {
            let trunk = &self.model.model;
            let shared = trunk.shared_input(sequence.cache.next_positions(ids.len()));
            let embedded = trunk.embed(ids, PatchSize::ONE);
            trunk.infer(embedded, &shared, &mut |layer_idx, heads| {
                sequence.cache.mix(&trunk.compute, layer_idx, heads.clone())
            });
            sequence.cache.advance(ids.len());
        }
    }
}

/// A prompt in progress.
#[derive(Debug)]
struct Sequence {
    /// Index of the prompt.
    idx: usize,
    /// Prompt and new tokens.
    tokens: Vec<u32>,
    prompt_length: usize,
    cache: KeyValueCache,
    capacity: usize,
    random: Random,
    has_slid: bool,
}

impl Sequence {
    fn newest(&self) -> u32 {
        *self.tokens.last().expect("a prompt has at least one token")
    }

    fn num_new(&self) -> usize {
        self.tokens.len() - self.prompt_length
    }

    fn finish(&mut self) -> Continuation {
        Continuation { ids: self.tokens.split_off(self.prompt_length), has_slid: self.has_slid }
    }
}
