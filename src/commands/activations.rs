//! `patchtui activations`: the share of active neurons per layer, as in figure 8 of the paper.
//!
//! Each model reads the text with its own tokenizer, in sequences of its own context length. Start
//! at [`activations`].

use std::path::Path;

use crate::advice::Failure;
use crate::cli::{ActivationsArgs, TensorChoice};
use crate::commands::Runs;
use crate::commands::model::{choose_device, open_model};
use crate::commands::result_path::check_result_path;
use crate::config::{ActivationTensor, ActivationThreshold, Count, PatchSize, Precision};
use crate::data::first_tokens;
use crate::engine::LoadedModel;
use crate::engine::activations::{StudyInput, study};
use crate::engine::compute::Compute;
use crate::engine::workers::Workers;
use crate::record::RunDirectory;
use crate::report::figure::FigureFormat;
use crate::report::{ActivationReport, LayerNumbers, ModelNumbers, print, tell};
use crate::steer::StopFlag;
use crate::text::format::grouped;
use crate::text::sanitize;

/// What is measured for every model.
struct Question<'a> {
    args: &'a ActivationsArgs,
    threshold: ActivationThreshold,
    tensor: ActivationTensor,
    max_tokens: usize,
    /// Patch sizes of the command line; empty: each model's own.
    patch_sizes: Vec<PatchSize>,
}

/// Measures the models, prints the numbers and draws the figures. Returns the exit code.
///
/// # Errors
/// When a model cannot be opened, the text is shorter than one of its sequences, or a figure cannot
/// be written. Prints and writes nothing unless every model was measured.
pub fn activations(args: &ActivationsArgs, runs: &Runs) -> Result<u8, Failure> {
    let question = Question::new(args)?;
    args.figure.iter().try_for_each(|path| check_figure(path))?;
    let compute = Compute::new(choose_device(args.device.as_deref())?, Precision::F32);
    let workers = Workers::start(compute, StopFlag::default())?;
    let mut models = Vec::new();
    for checkpoint in &args.checkpoints {
        models
            .extend(question.measure(&open_model(checkpoint, &workers.compute, runs)?, &workers)?);
    }
    let text =
        args.text.file_name().unwrap_or(args.text.as_os_str()).to_string_lossy().into_owned();
    let report =
        ActivationReport { tensor: question.tensor, threshold: question.threshold, text, models };
    let printed = if args.json {
        let json = report
            .to_json()
            .map_err(|error| Failure::failed(error.to_string(), "retry without --json"))?;
        print(&sanitize::json(&json))
    } else {
        print(&report.table())
    };
    let chart = report.figure();
    for path in &args.figure {
        chart.write(path)?;
        tell(&format!("Wrote {}", path.display()));
    }
    // Write the figures even if the table could not be printed.
    printed?;
    Ok(0)
}

impl<'a> Question<'a> {
    fn new(args: &'a ActivationsArgs) -> Result<Self, Failure> {
        let max_tokens = args
            .max_tokens
            .parse::<Count>()
            .map_err(|message| Failure::usage(message, "use --max-tokens 64k"))?;
        let patch_sizes =
            args.patch_size.iter().map(|k| PatchSize::new(*k)).collect::<Result<_, _>>();
        Ok(Self {
            args,
            threshold: args
                .threshold
                .parse()
                .map_err(|message: String| Failure::usage(message, "use --threshold 0.5"))?,
            tensor: match args.tensor {
                TensorChoice::FfnOutput => ActivationTensor::FfnOutput,
                TensorChoice::Intermediate => ActivationTensor::Intermediate,
            },
            max_tokens: usize::try_from(max_tokens.0).unwrap_or(usize::MAX),
            patch_sizes: patch_sizes
                .map_err(|message| Failure::usage(message, "use --patch-size 1,4"))?,
        })
    }

    /// Measures one model at each patch size.
    fn measure(
        &self,
        loaded: &LoadedModel,
        workers: &Workers,
    ) -> Result<Vec<ModelNumbers>, Failure> {
        let bos = loaded.files.tokenizer.bos().filter(|_| loaded.files.add_bos);
        let tokens = first_tokens(&self.args.text, &loaded.files.tokenizer, bos, self.max_tokens)?;
        let own = [loaded.files.patch_size];
        let patch_sizes = if self.patch_sizes.is_empty() { &own[..] } else { &self.patch_sizes };
        patch_sizes
            .iter()
            .map(|patch_size| self.measure_at(loaded, *patch_size, &tokens, workers))
            .collect()
    }

    fn measure_at(
        &self,
        loaded: &LoadedModel,
        patch_size: PatchSize,
        tokens: &[u32],
        workers: &Workers,
    ) -> Result<ModelNumbers, Failure> {
        let input = StudyInput {
            tokens,
            patch_size,
            context_length: loaded.files.context_length,
            tensor: self.tensor,
            threshold: self.threshold,
        };
        let run = loaded
            .files
            .origin
            .run()
            .map_or_else(|| loaded.files.origin.name(), RunDirectory::name);
        let step = loaded.files.origin.checkpoint().map(|checkpoint| checkpoint.state.step);
        let of_step = step.map_or_else(String::new, |step| format!(", step {step}"));
        let num_sequences = input.num_sequences();
        if num_sequences == 0 {
            return Err(self.too_little(&input, &run));
        }
        let tokens = num_sequences as u64 * input.sequence_tokens() as u64;
        tell(&format!(
            "{run}{of_step}: reading {} tokens of {} at K = {patch_size}",
            grouped(tokens),
            self.args.text.display()
        ));
        let measured = study(workers, &loaded.model, &input)?;
        // Nothing sets the stop flag of these workers.
        let layers =
            measured.unwrap_or_default().into_iter().enumerate().map(|(idx, layer)| LayerNumbers {
                layer: idx + 1,
                threshold: layer.threshold,
                activated_percent: layer.rate,
                never_activated_percent: layer.never,
                mean_abs: layer.mean_abs,
            });
        Ok(ModelNumbers {
            run,
            checkpoint: loaded.files.origin.path().display().to_string(),
            step,
            trained_patch_size: loaded.files.patch_size,
            patch_size,
            tokens,
            positions: tokens / patch_size.get() as u64,
            layers: layers.collect(),
        })
    }

    fn too_little(&self, input: &StudyInput<'_>, run: &str) -> Failure {
        let StudyInput { tokens, patch_size, context_length, .. } = input;
        let sequence = format!(
            "one sequence of {run} at K = {patch_size} has {context_length} positions = {} tokens",
            grouped(input.sequence_tokens() as u64)
        );
        if tokens.len() == self.max_tokens {
            Failure::usage(
                format!("--max-tokens {} is too small: {sequence}", self.args.max_tokens),
                "raise --max-tokens, or lower --patch-size",
            )
        } else {
            let found = grouped(tokens.len() as u64);
            Failure::usage(
                format!("{} has only {found} tokens: {sequence}", self.args.text.display()),
                "use a longer --text, or lower --patch-size",
            )
        }
    }
}

/// Checks before computing that the figures can be written afterwards.
fn check_figure(path: &Path) -> Result<(), Failure> {
    FigureFormat::of(path)?;
    check_result_path(path)
}
