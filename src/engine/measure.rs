//! What the trainer measures between steps: token-level loss, activation rates, samples.
//!
//! A stop does not wait for any of them; the attempt that resumes makes up for those left out.

use std::time::Instant;

use crate::engine::batch::Batch;
use crate::engine::error::EngineError;
use crate::engine::evaluate::{Validation, token_loss};
use crate::engine::generate::GreedyDecoder;
use crate::engine::probe::layer_activations;
use crate::engine::prompts::{continuation, prompts};
use crate::engine::trainer::Trainer;
use crate::run::{Activations, Evaluation, RunEvent, Sample, Warning};

/// Sequences of the activation probe.
const PROBE_SEQUENCES: usize = 4;

/// Outcome of a measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Measurement<T> {
    /// It was made.
    Made(T),
    /// There is too little text for it.
    NoText,
    /// Skipped, because the run is to end.
    LeftOut,
}

impl Trainer {
    /// Makes the measurements that are due, or all of them if `always`: at the start and at the end of a stage.
    ///
    /// Returns whether none of them was left out because the run is to end.
    pub(super) fn measure(&mut self, idx: usize, always: bool) -> Result<bool, EngineError> {
        let cadences = self.context.plan.cadences.clone();
        let is_due = |every: Option<u64>| every.is_some_and(|every| always || self.step.is_multiple_of(every));
        let (evaluation, activations, samples) = (is_due(cadences.evaluation), is_due(cadences.activations), is_due(cadences.samples));
        self.has_measured = (!evaluation || self.measure_token_loss(idx)? != Measurement::LeftOut)
            && (!activations || self.probe(idx)? != Measurement::LeftOut)
            && (!samples || self.sample(idx)?);
        Ok(self.has_measured)
    }

    /// Measures the token-level loss; `None` if the run is to end or there is too little text.
    pub(super) fn evaluate(&mut self, idx: usize) -> Result<Option<f64>, EngineError> {
        Ok(match self.measure_token_loss(idx)? {
            Measurement::Made(loss) => Some(loss),
            Measurement::NoText | Measurement::LeftOut => None,
        })
    }

    fn measure_token_loss(&mut self, idx: usize) -> Result<Measurement<f64>, EngineError> {
        let started = Instant::now();
        let config = &self.context.config;
        let validation = Validation {
            stream: &self.context.validation,
            max_tokens: config.evaluation.max_tokens.0,
            batch_size: config.training.micro_batch_size,
            context_length: config.training.context_length,
        };
        if validation.num_sequences() == 0 {
            return Ok(Measurement::NoText);
        }
        let Some(loss) = token_loss(&self.context.workers, self.model(), &validation)? else { return Ok(Measurement::LeftOut) };
        self.last_token_loss = Some(loss.mean);
        self.say(RunEvent::Evaluated(Evaluation {
            step: self.step,
            stage: idx,
            patch_size: self.context.plan.stages[idx].patch_size,
            tokens: self.context.plan.cost_after(self.step).tokens,
            token_loss: loss.mean,
            perplexity: loss.mean.exp(),
            targets: loss.targets,
            seconds: started.elapsed().as_secs_f64(),
        }));
        Ok(Measurement::Made(loss.mean))
    }

    /// Measures activation rates on the first validation text, cut as the stage cuts it.
    fn probe(&mut self, idx: usize) -> Result<Measurement<()>, EngineError> {
        let stage = &self.context.plan.stages[idx];
        let sequence = stage.sequence_tokens();
        let num_sequences = PROBE_SEQUENCES.min((self.context.validation.len() / sequence as u64) as usize);
        if num_sequences == 0 {
            return Ok(Measurement::NoText);
        }
        let mut tokens = vec![0; num_sequences * sequence];
        self.context.validation.read(0, &mut tokens);
        let device = &self.context.workers.device.device;
        let batch = Batch::new(&tokens, num_sequences, stage.patch_size, device);
        let (model, config) = (self.model().clone(), self.context.config.activations.clone());
        let Some(layers) = self.context.workers.run_one(move || layer_activations(&model, &batch, &config))? else {
            return Ok(Measurement::LeftOut);
        };
        self.say(RunEvent::ActivationsMeasured(Activations {
            step: self.step,
            stage: idx,
            patch_size: stage.patch_size,
            tokens: self.context.plan.cost_after(self.step).tokens,
            threshold: self.context.config.activations.threshold,
            layers: layers?,
        }));
        Ok(Measurement::Made(()))
    }

    /// Continues the prompts, token by token. Returns whether all were continued; a stop does not wait for that.
    pub(super) fn sample(&mut self, idx: usize) -> Result<bool, EngineError> {
        let context = &self.context;
        let decoder = GreedyDecoder {
            model: self.model().clone(),
            context_length: context.config.training.context_length,
            device: context.workers.device.device.clone(),
        };
        let tokenizer = &context.tokenizer;
        let ends: Vec<u32> = tokenizer.eos().into_iter().chain(tokenizer.bos()).collect();
        let max_new_tokens = context.config.samples.max_new_tokens;
        for prompt in prompts(context)? {
            if prompt.ids.is_empty() {
                self.say(RunEvent::Warning(Warning { message: "an empty prompt cannot be continued without a begin-of-text token".to_owned() }));
                continue;
            }
            let job = {
                let (decoder, ids, ends, stop) = (decoder.clone(), prompt.ids.clone(), ends.clone(), self.inbox.stop_flag().clone());
                move || decoder.continue_prompt(&ids, max_new_tokens, &ends, &stop)
            };
            let Some(new) = self.context.workers.run_one(job)?.transpose()?.flatten() else { return Ok(false) };
            let text = continuation(tokenizer, &prompt.ids, &new);
            let tokens = context.plan.cost_after(self.step).tokens;
            self.say(RunEvent::Sampled(Sample { step: self.step, stage: idx, tokens, prompt: prompt.text, text }));
        }
        Ok(true)
    }
}
