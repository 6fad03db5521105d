//! How the trainer looks at its model between steps: token-level loss, activation rates, samples.

use std::time::Instant;

use crate::config::TextSource;
use crate::engine::error::EngineError;
use crate::engine::evaluate::{Validation, token_loss};
use crate::engine::generate::Generator;
use crate::engine::model::Positions;
use crate::engine::patch::Batch;
use crate::engine::probe::layer_activations;
use crate::engine::trainer::Trainer;
use crate::run::{Activations, Evaluation, RunEvent, Sample, StopLevel, Warning};

/// Sequences of the activation probe.
const PROBE_SEQUENCES: usize = 4;
/// Tokens of the validation text that serve as a prompt when the configuration names none.
const PROMPT_TOKENS: usize = 12;
/// Prompts for the built-in stories.
const STORY_PROMPTS: [&str; 2] = ["Once", "One"];

impl Trainer {
    /// Looks at the model in all ways that are due, or in all ways if `always`: at the start and at the end of a stage.
    ///
    /// A stop does not wait for what is due between; a resumed run makes up for it. The ends of stages are always measured.
    pub(super) fn look(&mut self, idx: usize, always: bool) -> Result<(), EngineError> {
        self.stop_looking_at = if always { StopLevel::Now } else { StopLevel::AfterCheckpoint };
        let cadences = self.setting.plan.cadences.clone();
        let is_due = |every: Option<u64>| every.is_some_and(|every| always || self.step.is_multiple_of(every));
        let (evaluation, activations, samples) = (is_due(cadences.evaluation), is_due(cadences.activations), is_due(cadences.samples));
        if evaluation {
            self.evaluate(idx)?;
        }
        if activations {
            self.probe(idx)?;
        }
        if samples {
            self.sample(idx)?;
        }
        self.has_looked = !self.must_stop_looking();
        self.stop_looking_at = StopLevel::AfterCheckpoint;
        Ok(())
    }

    fn must_stop_looking(&self) -> bool {
        self.inbox.stop_flag().level() >= self.stop_looking_at
    }

    /// Measures the token-level loss; `None` if the run is stopping or there is too little text.
    pub(super) fn evaluate(&mut self, idx: usize) -> Result<Option<f64>, EngineError> {
        let started = Instant::now();
        let config = &self.setting.config;
        let positions = Positions::new(&self.setting.plan.model, config.training.context_length, &self.setting.device.device);
        let validation = Validation {
            stream: &self.setting.validation,
            max_tokens: config.evaluation.max_tokens.0,
            batch_size: config.training.micro_batch_size,
            together: self.setting.device.micro_batches_together,
            positions: &positions,
        };
        let Some(loss) = token_loss(&self.frozen(), &validation, &|| self.must_stop_looking())? else { return Ok(None) };
        self.last_token_loss = Some(loss.mean);
        self.say(RunEvent::Evaluated(Evaluation {
            step: self.step,
            stage: idx,
            patch_size: self.setting.plan.stages[idx].patch_size,
            tokens: self.setting.plan.cost_after(self.step).tokens,
            token_loss: loss.mean,
            perplexity: loss.mean.exp(),
            targets: loss.targets,
            seconds: started.elapsed().as_secs_f64(),
        }));
        Ok(Some(loss.mean))
    }

    /// Measures activation rates on the first validation text, cut as the stage cuts it.
    fn probe(&mut self, idx: usize) -> Result<(), EngineError> {
        let stage = &self.setting.plan.stages[idx];
        let sequence = stage.sequence_tokens();
        let num_sequences = PROBE_SEQUENCES.min((self.setting.validation.len() / sequence as u64) as usize);
        if num_sequences == 0 || self.must_stop_looking() {
            return Ok(());
        }
        let mut tokens = vec![0; num_sequences * sequence];
        self.setting.validation.read(0, &mut tokens);
        let device = &self.setting.device.device;
        let batch = Batch::new(&tokens, num_sequences, stage.patch_size, device);
        let positions = Positions::new(&self.setting.plan.model, stage.context_length, device);
        let layers = layer_activations(&self.frozen(), &batch, &positions, &self.setting.config.activations)?;
        self.say(RunEvent::ActivationsMeasured(Activations {
            step: self.step,
            stage: idx,
            patch_size: stage.patch_size,
            tokens: self.setting.plan.cost_after(self.step).tokens,
            threshold: self.setting.config.activations.threshold,
            layers,
        }));
        Ok(())
    }

    /// Continues the prompts, token by token.
    pub(super) fn sample(&mut self, idx: usize) -> Result<(), EngineError> {
        let model = self.frozen();
        let setting = &self.setting;
        let generator =
            Generator { model: &model, shape: &setting.plan.model, context_length: setting.config.training.context_length, device: &setting.device.device };
        let ends: Vec<u32> = setting.tokenizer.eos().into_iter().chain(setting.tokenizer.bos()).collect();
        for prompt in self.prompts() {
            let mut ids: Vec<u32> = if setting.config.data.add_bos { setting.tokenizer.bos().into_iter().collect() } else { Vec::new() };
            ids.extend(setting.tokenizer.encode(&prompt)?);
            if ids.is_empty() {
                self.say(RunEvent::Warning(Warning { message: "an empty prompt without BOS has no first token to go on from".to_owned() }));
                continue;
            }
            let new = generator.greedy(&ids, setting.config.samples.max_new_tokens, &ends, &|| self.must_stop_looking())?;
            if self.must_stop_looking() {
                return Ok(());
            }
            let known = setting.tokenizer.decode(&ids).len();
            ids.extend(new);
            // The continuation is cut out of the whole text: tokens decoded alone lose the blank before them.
            let text = setting.tokenizer.decode(&ids).get(known..).unwrap_or_default().to_owned();
            let tokens = setting.plan.cost_after(self.step).tokens;
            self.say(RunEvent::Sampled(Sample { step: self.step, stage: idx, tokens, prompt, text }));
        }
        Ok(())
    }

    fn prompts(&self) -> Vec<String> {
        let setting = &self.setting;
        if !setting.config.samples.prompts.is_empty() {
            return setting.config.samples.prompts.clone();
        }
        if let TextSource::Generated(_) = setting.config.data.source() {
            return STORY_PROMPTS.map(str::to_owned).to_vec();
        }
        let mut ids = vec![0; PROMPT_TOKENS.min(setting.validation.len() as usize)];
        setting.validation.read(0, &mut ids);
        vec![setting.tokenizer.decode(&ids)]
    }
}
