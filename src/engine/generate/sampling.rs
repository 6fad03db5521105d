//! Chooses the next token: greedily or by sampling.
//!
//! The rules and their order are those of transformers: repetition penalty, temperature, top-k,
//! top-p.

use crate::data::Random;

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Sampling temperature; 0 is greedy decoding.
    pub temperature: f64,
    /// Sample only from this many most probable tokens; `None`: all.
    pub top_k: Option<usize>,
    /// Sample only from the most probable tokens whose probabilities add up to this; 1: all.
    pub top_p: f64,
    /// Penalty for tokens already in the text: positive logits are divided by it, negative ones
    /// multiplied; 1 disables it.
    pub repetition_penalty: f64,
    /// Sampling seed; each prompt has its own random stream.
    pub seed: u64,
}

impl Sampling {
    /// Greedy decoding.
    pub const GREEDY: Self =
        Self { temperature: 0.0, top_k: None, top_p: 1.0, repetition_penalty: 1.0, seed: 0 };

    /// Chooses the token after `tokens`. `logits`: `[V]`.
    pub(super) fn choose(&self, logits: &mut [f32], tokens: &[u32], random: &mut Random) -> u32 {
        self.penalise(logits, tokens);
        if self.temperature == 0.0 {
            return greatest(logits);
        }
        let mut candidates = self.candidates(logits);
        let total: f64 = candidates.iter().map(|(_, probability)| probability).sum();
        let mut left = uniform(random) * total;
        let last = candidates.pop().map_or(0, |(id, _)| id);
        for (id, probability) in candidates {
            if left < probability {
                return id;
            }
            left -= probability;
        }
        last
    }

    fn penalise(&self, logits: &mut [f32], tokens: &[u32]) {
        let penalty = self.repetition_penalty as f32;
        if penalty.to_bits() == 1.0_f32.to_bits() {
            return;
        }
        let mut seen = tokens.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    /// Candidate tokens, most probable first, with weights proportional to their probabilities.
    fn candidates(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let mut sorted: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        // Stable: on a tie the smaller id comes first.
        sorted.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        sorted.truncate(self.top_k.unwrap_or(usize::MAX).max(1));
        let highest = sorted.first().map_or(0.0, |(_, logit)| *logit);
        let weight = |logit: f32| (f64::from(logit - highest) / self.temperature).exp();
        let mut candidates: Vec<(u32, f64)> =
            sorted.into_iter().map(|(id, logit)| (id, weight(logit))).collect();
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut before = 0.0;
        let kept = candidates.iter().take_while(|(_, weight)| {
            let is_kept = before < self.top_p * total;
            before += weight;
            is_kept
        });
        let kept = kept.count().max(1);
        candidates.truncate(kept);
        candidates
    }
}

/// The first maximum.
fn greatest(logits: &[f32]) -> u32 {
    (0..logits.len()).fold(0, |best, id| if logits[id] > logits[best] { id } else { best }) as u32
}

/// In [0, 1).
fn uniform(random: &mut Random) -> f64 {
    (random.next() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, -2.0, 3.0, 2.0];

    fn drawn(sampling: Sampling) -> Vec<u32> {
        let mut random = Random::new(sampling.seed, 0);
        (0..20_000).map(|_| sampling.choose(&mut LOGITS.clone(), &[], &mut random)).collect()
    }

    fn shares(sampling: Sampling) -> [f64; 5] {
        let drawn = drawn(sampling);
        std::array::from_fn(|id| {
            drawn.iter().filter(|drawn| **drawn == id as u32).count() as f64 / drawn.len() as f64
        })
    }

    #[test]
    fn greedy_takes_the_first_of_the_greatest() {
        assert_eq!(Sampling::GREEDY.choose(&mut LOGITS.clone(), &[], &mut Random::new(0, 0)), 1);
    }

    #[test]
    fn tokens_are_drawn_with_their_probabilities() {
        for temperature in [0.5, 1.0, 2.0] {
            let weights = LOGITS.map(|logit| (f64::from(logit) / temperature).exp());
            let total: f64 = weights.iter().sum();
            for (share, weight) in shares(Sampling { temperature, seed: 1, ..Sampling::GREEDY })
                .into_iter()
                .zip(weights)
            {
                // Five standard deviations for 20,000 samples.
                assert!(
                    (share - weight / total).abs() < 5.0 * (0.25_f64 / 20_000.0).sqrt(),
                    "{temperature}: {share} {}",
                    weight / total
                );
            }
        }
    }

    #[test]
    fn top_k_and_top_p_leave_the_most_probable() {
        let hot = Sampling { temperature: 1.0, ..Sampling::GREEDY };
        let kept = |sampling: Sampling| -> Vec<usize> {
            (0..5).filter(|id| shares(sampling)[*id] > 0.0).collect()
        };
        assert_eq!(kept(Sampling { top_k: Some(1), ..hot }), [1]);
        assert_eq!(kept(Sampling { top_k: Some(3), ..hot }), [1, 3, 4]);
        // The probabilities are 0.051, 0.378, 0.003, 0.378, 0.139 (of a total of 0.949 + rounding):
        // two make 0.79, three 0.94.
        assert_eq!(kept(Sampling { top_p: 0.3, ..hot }), [1]);
        assert_eq!(kept(Sampling { top_p: 0.7, ..hot }), [1, 3]);
        assert_eq!(kept(Sampling { top_p: 0.9, ..hot }), [1, 3, 4]);
        assert_eq!(kept(Sampling { top_p: 0.0, ..hot }), [1]);
    }

    #[test]
    fn what_was_there_before_is_less_probable() {
        let strict = Sampling { repetition_penalty: 2.0, ..Sampling::GREEDY };
        let mut logits = LOGITS;
        assert_eq!(strict.choose(&mut logits, &[1, 2, 1], &mut Random::new(0, 0)), 3);
        assert_eq!(logits.map(f32::to_bits), [1.0_f32, 1.5, -4.0, 3.0, 2.0].map(f32::to_bits));
    }

    #[test]
    fn a_seed_draws_the_same_again() {
        let hot = |seed| drawn(Sampling { temperature: 1.0, seed, ..Sampling::GREEDY });
        assert_eq!(hot(3), hot(3));
        assert_ne!(hot(3), hot(4));
    }
}
