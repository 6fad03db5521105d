//! What is measured between steps: token-level loss, activation rates, samples.
//!
//! Takes a model and a position; reports results as events. A stop does not wait for any
//! measurement; the attempt that resumes makes the missing ones. Start at
//! [`Measuring::measure_due`].

use std::collections::BTreeMap;
use std::f64::consts::LN_2;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::data::{TokenStream, Tokenizer, continuation, text_bytes};
use crate::engine::batch::Batch;
use crate::engine::error::EngineError;
use crate::engine::evaluate::{TokenLoss, Validation, sequence_losses};
use crate::engine::generate::{GenerationRules, Generator, Sampling, Verdict};
use crate::engine::model::LlamaForCausalLM;
use crate::engine::probe::layer_activations;
use crate::engine::score::Scorer;
use crate::engine::train::facts::{Position, RunFacts};
use crate::engine::train::prompts::prompts;
use crate::engine::train::start::Reached;
use crate::engine::workers::Workers;
use crate::record::{
    Activations, Evaluation, EventSender, MeasuredLoss, MeasuredStep, Progress, RunEvent, Sample,
    TaskScore, TaskScores, Warning,
};
use crate::tasks::{EvaluateError, Suite, SuiteScore, TaskEncoder};

/// Sequences of the activation probe.
const PROBE_SEQUENCES: usize = 4;
/// Rows that evaluation tasks compute at once.
const TASK_ROWS: usize = 1024;
/// Time between two progress reports of a measurement; short ones report nothing.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// The measurements of a run.
#[derive(Debug)]
pub(super) struct Measuring {
    facts: Arc<RunFacts>,
    workers: Rc<Workers>,
    text: MeasuredText,
    events: EventSender,
    /// The newest token-level loss, and its step.
    last_token_loss: Option<(u64, f64)>,
    /// The loss on the whole validation text, once the last step is measured.
    whole_loss: Option<MeasuredLoss>,
    /// Bytes of text in the first tokens of the validation text, for each number of tokens that
    /// was asked for.
    text_bytes: BTreeMap<u64, u64>,
    /// What an earlier attempt has measured of the step that this one resumes from, and that step.
    taken_over: Option<(u64, MeasuredStep)>,
    /// The newest step of which all measurements due were made.
    complete_at: Option<u64>,
}

/// The text that is measured on.
#[derive(Debug)]
pub(super) struct MeasuredText {
    /// Validation text.
    pub(super) validation: TokenStream,
    /// Turns text into ids and back.
    pub(super) tokenizer: Tokenizer,
    /// Evaluation tasks.
    pub(super) tasks: Suite,
}

/// Outcome of a measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Measurement<T> {
    /// It was made.
    Made(T),
    /// There is too little text for it.
    NoText,
    /// Skipped, because the run should end.
    LeftOut,
}

impl Measuring {
    /// Measurements on `text`; nothing was measured yet.
    pub(super) fn new(
        facts: Arc<RunFacts>,
        workers: Rc<Workers>,
        text: MeasuredText,
        events: EventSender,
    ) -> Self {
        Self {
            facts,
            workers,
            text,
            events,
            last_token_loss: None,
            whole_loss: None,
            text_bytes: BTreeMap::new(),
            taken_over: None,
            complete_at: None,
        }
    }

    /// The same, where earlier attempts have measured what `reached` says.
    pub(super) fn resumed_at(self, reached: &Reached) -> Self {
        let step = reached.step;
        Self {
            last_token_loss: reached.token_loss.map(|loss| (step, loss)),
            whole_loss: reached.measured.whole,
            taken_over: Some((step, reached.measured.clone())),
            complete_at: reached.has_measured.then_some(step),
            ..self
        }
    }

    /// Whether everything that was due after `step` updates was measured; a stop may have come in
    /// between.
    pub(super) fn has_measured(&self, step: u64) -> bool {
        self.complete_at == Some(step)
    }

    /// The newest token-level loss.
    pub(super) fn last_token_loss(&self) -> Option<f64> {
        self.last_token_loss.map(|(_, loss)| loss)
    }

    /// The token-level loss after exactly `step` updates, if it was measured.
    pub(super) fn token_loss_at(&self, step: u64) -> Option<f64> {
        self.last_token_loss.filter(|(measured, _)| *measured == step).map(|(_, loss)| loss)
    }

    /// Makes the measurements that are due, or all of them if `always`: at the start and at the end
    /// of a stage. Those that an earlier attempt has made of this step are not repeated.
    ///
    /// Returns whether none of them was skipped because the run should end.
    pub(super) fn measure_due(
        &mut self,
        model: &LlamaForCausalLM,
        place: Position,
        always: bool,
    ) -> Result<bool, EngineError> {
        let cadences = &self.facts.plan.cadences;
        let is_due = |every: Option<u64>| {
            every.is_some_and(|every| always || place.step.is_multiple_of(every))
        };
        let (evaluation, activations, samples) =
            (is_due(cadences.evaluation), is_due(cadences.activations), is_due(cadences.samples));
        let tasks = is_due(cadences.tasks);
        let known = self
            .taken_over
            .take()
            .filter(|(step, _)| *step == place.step)
            .map(|(_, measured)| measured)
            .unwrap_or_default();
        let is_complete = (!evaluation
            || known.token_loss.is_some()
            || self.token_loss(model, place)? != Measurement::LeftOut)
            && (!activations
                || known.activations
                || self.activations(model, place)? != Measurement::LeftOut)
            && (!samples
                || self.samples_except(model, place, known.prompts)? != Measurement::LeftOut)
            && (!tasks || known.tasks || self.tasks(model, place)? != Measurement::LeftOut);
        self.complete_at = is_complete.then_some(place.step);
        Ok(is_complete)
    }

    /// The loss on the whole validation text, once the last step is measured.
    pub(super) fn whole_loss(&self) -> Option<MeasuredLoss> {
        self.whole_loss
    }

    /// Measures the token-level loss: on the first tokens of the validation text, which are the
    /// same each time, and after the last step on all of it as well.
    pub(super) fn token_loss(
        &mut self,
        model: &LlamaForCausalLM,
        place: Position,
    ) -> Result<Measurement<f64>, EngineError> {
        let started = Instant::now();
        let (config, plan) = (&self.facts.config, &self.facts.plan);
        let stream = self.text.validation.clone();
        let validation = Validation {
            stream: &stream,
            batch_size: config.training.micro_batch_size,
            context_length: config.training.context_length,
        };
        let (first, all) =
            (validation.num_sequences(plan.evaluation_tokens), validation.num_sequences(u64::MAX));
        if first == 0 {
            return Ok(Measurement::NoText);
        }
        let is_end = place.step == plan.steps;
        let total = if is_end { all } else { first };
        let mut progress = self.progress("evaluation");
        let mut sums = Vec::new();
        // In two parts, so that the first sequences are measured as in every other evaluation.
        for part in [0..first, first..total] {
            let mut progress = |done| progress(part.start as u64 + done, total as u64);
            match sequence_losses(&self.workers, model, &validation, part.clone(), &mut progress)? {
                Some(more) => sums.extend(more),
                // A limit shorter than the rest would keep the run from its end, however often it
                // is resumed.
                None if part.start > 0 && self.workers.stop.is_past_deadline() => {
                    let message = "training.max_walltime ended the final evaluation: there is no \
                                   loss on the whole validation text"
                        .to_owned();
                    self.events.send(RunEvent::Warning(Warning { message }));
                }
                None => return Ok(Measurement::LeftOut),
            }
        }
        let measured =
            |sums: &[f64]| TokenLoss::of_sequences(sums, validation.targets_per_sequence());
        let loss = measured(&sums[..first]);
        let bits_per_byte = self.bits_per_byte(loss, first)?;
        if is_end && sums.len() == all {
            let whole = measured(&sums);
            let TokenLoss { mean, standard_error, targets } = whole;
            self.whole_loss = Some(MeasuredLoss {
                token_loss: mean,
                standard_error,
                bits_per_byte: self.bits_per_byte(whole, all)?,
                targets,
            });
        }
        if self.is_stopped() && bits_per_byte.is_none() {
            return Ok(Measurement::LeftOut);
        }
        self.last_token_loss = Some((place.step, loss.mean));
        self.events.send(RunEvent::Evaluated(Evaluation {
            step: place.step,
            stage: place.stage_idx,
            patch_size: self.facts.plan.stages[place.stage_idx].patch_size,
            tokens: self.tokens_at(place),
            token_loss: loss.mean,
            perplexity: loss.mean.exp(),
            standard_error: loss.standard_error,
            bits_per_byte,
            targets: loss.targets,
            all_targets: Some(all as u64 * validation.targets_per_sequence()),
            whole: self.whole_loss.filter(|_| is_end),
            seconds: started.elapsed().as_secs_f64(),
        }));
        Ok(Measurement::Made(loss.mean))
    }

    /// `loss` over the first `num_sequences` sequences in bits per byte of their text; `None` if
    /// they hold none.
    fn bits_per_byte(
        &mut self,
        loss: TokenLoss,
        num_sequences: usize,
    ) -> Result<Option<f64>, EngineError> {
        let tokens = (num_sequences * self.facts.config.training.context_length) as u64;
        let bytes = match self.text_bytes.get(&tokens) {
            Some(bytes) => Some(*bytes),
            None => text_bytes(&self.text.validation, tokens, &self.text.tokenizer, &|| {
                self.is_stopped()
            })?,
        };
        let Some(bytes) = bytes.filter(|bytes| *bytes > 0) else { return Ok(None) };
        self.text_bytes.insert(tokens, bytes);
        Ok(Some(loss.mean / LN_2 * tokens as f64 / bytes as f64))
    }

    /// Whether the run was told to end, other than by its time limit.
    fn is_stopped(&self) -> bool {
        self.workers.stop.is_raised() && !self.workers.stop.is_past_deadline()
    }

    /// Measures activation rates on the first validation text, cut as the stage cuts it.
    fn activations(
        &self,
        model: &LlamaForCausalLM,
        place: Position,
    ) -> Result<Measurement<()>, EngineError> {
        let stage = &self.facts.plan.stages[place.stage_idx];
        let sequence = stage.sequence_tokens();
        let num_sequences =
            PROBE_SEQUENCES.min((self.text.validation.len() / sequence as u64) as usize);
        if num_sequences == 0 {
            return Ok(Measurement::NoText);
        }
        let mut tokens = vec![0; num_sequences * sequence];
        self.text.validation.read(0, &mut tokens)?;
        let batch = Batch::new(&tokens, num_sequences, stage.patch_size);
        let (model, config) = (model.clone(), self.facts.config.activations.clone());
        let Some(layers) = self.workers.run(move || layer_activations(&model, &batch, &config))
        else {
            return Ok(Measurement::LeftOut);
        };
        self.events.send(RunEvent::ActivationsMeasured(Activations {
            step: place.step,
            stage: place.stage_idx,
            patch_size: stage.patch_size,
            tokens: self.tokens_at(place),
            threshold: self.facts.config.activations.threshold,
            layers: layers?,
        }));
        Ok(Measurement::Made(()))
    }

    /// Generates samples, token by token; a stop does not wait for it.
    pub(super) fn samples(
        &self,
        model: &LlamaForCausalLM,
        place: Position,
    ) -> Result<Measurement<()>, EngineError> {
        self.samples_except(model, place, Vec::new())
    }

    /// The same, but reports only samples of prompts that are not among the `known` ones.
    fn samples_except(
        &self,
        model: &LlamaForCausalLM,
        place: Position,
        mut known: Vec<String>,
    ) -> Result<Measurement<()>, EngineError> {
        let (config, tokenizer) = (&self.facts.config, &self.text.tokenizer);
        let (usable, empty): (Vec<_>, Vec<_>) = prompts(config, &self.text.validation, tokenizer)?
            .into_iter()
            .partition(|prompt| !prompt.ids.is_empty());
        if !empty.is_empty() {
            let message = "an empty prompt cannot be continued without a BOS token".to_owned();
            self.events.send(RunEvent::Warning(Warning { message }));
        }
        let mut is_new = |prompt: &str| {
            known
                .iter()
                .position(|other| other == prompt)
                .map(|idx| known.swap_remove(idx))
                .is_none()
        };
        let is_new: Vec<bool> = usable.iter().map(|prompt| is_new(&prompt.text)).collect();
        if !usable.is_empty() && !is_new.contains(&true) {
            return Ok(Measurement::Made(()));
        }
        let job = {
            let generator =
                Generator { model: model.clone(), context_length: config.training.context_length };
            let ends = tokenizer.ends_of_text();
            let prompts: Vec<Vec<u32>> = usable.iter().map(|prompt| prompt.ids.clone()).collect();
            let (max_new_tokens, stop, mut progress) = (
                config.samples.max_new_tokens,
                self.workers.stop.clone(),
                self.progress("samples"),
            );
            move || {
                let rules =
                    GenerationRules { max_new_tokens, ends: &ends, sampling: Sampling::GREEDY };
                let mut heard = 0;
                generator.generate(&prompts, &rules, &mut |_, _| {
                    heard += 1;
                    progress(heard, (max_new_tokens * prompts.len()) as u64);
                    if stop.is_raised() { Verdict::EndAll } else { Verdict::GoOn }
                })
            }
        };
        let continuations = match self.workers.run(job).transpose() {
            // The next update reports why, and ends the run.
            Err(error @ EngineError::NonFinitePrediction) => {
                self.events.send(RunEvent::Warning(Warning {
                    message: format!("no samples were generated: {error}"),
                }));
                return Ok(Measurement::Made(()));
            }
            continuations => continuations?,
        };
        let Some(continuations) = continuations else { return Ok(Measurement::LeftOut) };
        if self.workers.stop.is_raised() {
            return Ok(Measurement::LeftOut);
        }
        // All prompts are continued together, as without the stop, and only the missing ones are
        // reported.
        for ((prompt, new), _) in
            usable.into_iter().zip(continuations).zip(is_new).filter(|(_, is_new)| *is_new)
        {
            let text = continuation(tokenizer, &prompt.ids, &new.ids);
            self.events.send(RunEvent::Sampled(Sample {
                step: place.step,
                stage: place.stage_idx,
                tokens: self.tokens_at(place),
                prompt: prompt.text,
                text,
            }));
        }
        Ok(Measurement::Made(()))
    }

    /// Scores the evaluation tasks.
    fn tasks(
        &self,
        model: &LlamaForCausalLM,
        place: Position,
    ) -> Result<Measurement<()>, EngineError> {
        let started = Instant::now();
        if self.text.tasks.is_empty() {
            return Ok(Measurement::NoText);
        }
        let encoder = TaskEncoder::new(
            &self.text.tokenizer,
            false,
            self.facts.config.training.context_length,
        )?;
        let mut scorer = Scorer { model, workers: &self.workers, batch_tokens: TASK_ROWS };
        let found =
            self.text.tasks.evaluate(&encoder, &mut scorer, &mut self.progress("tasks")).map_err(
                |error| match error {
                    EvaluateError::Task(error) => error.into(),
                    EvaluateError::Score(error) => error,
                },
            );
        let Some(found) = found? else { return Ok(Measurement::LeftOut) };
        let score = |score: SuiteScore| TaskScore {
            task: score.task,
            metric: score.metric.name.to_owned(),
            value: score.metric.value,
            num_documents: score.num_documents as u64,
        };
        self.events.send(RunEvent::TasksScored(TaskScores {
            step: place.step,
            stage: place.stage_idx,
            tokens: self.tokens_at(place),
            scores: found.into_iter().map(score).collect(),
            seconds: started.elapsed().as_secs_f64(),
        }));
        Ok(Measurement::Made(()))
    }

    /// Reports the progress of `activity` now and then.
    fn progress(&self, activity: &'static str) -> impl FnMut(u64, u64) + Send + use<> {
        let (events, mut told_at) = (self.events.clone(), Instant::now());
        move |done, total| {
            if told_at.elapsed() >= PROGRESS_EVERY {
                told_at = Instant::now();
                events.send(RunEvent::Progress(Progress {
                    activity: activity.to_owned(),
                    done,
                    total: Some(total),
                }));
            }
        }
    }

    /// Tokens that training has read.
    fn tokens_at(&self, place: Position) -> u64 {
        self.facts.plan.cost_after(place.step).tokens
    }
}
