//! `patchtui bench eval`: speed of the token-level evaluation. Start at [`eval`].

use std::fs;
use std::time::Instant;

use serde::Serialize;

use crate::advice::Failure;
use crate::bench::document::FORMAT_VERSION;
use crate::bench::lines::{folded, joined, milliseconds};
use crate::bench::peak_memory::PeakMemory;
use crate::bench::scratch::ScratchFolder;
use crate::bench::steps::{plan_steps, prepare_device};
use crate::bench::{OpenDevice, median, show};
use crate::cli::BenchEvalArgs;
use crate::config::{Precision, RunConfig};
use crate::data::random_tokens;
use crate::engine::compute::Compute;
use crate::engine::evaluate::{TokenLoss, Validation, sequence_losses};
use crate::engine::model::{LlamaForCausalLM, random_weights};
use crate::engine::workers::Workers;
use crate::machine::processor::Processor;
use crate::report::tell;
use crate::steer::StopFlag;
use crate::text::format;

/// What was measured.
#[derive(Debug, Serialize)]
struct EvalDocument {
    /// Version of this format.
    format_version: u32,
    /// `eval`.
    bench: &'static str,
    patchtui: &'static str,
    config: String,
    device: String,
    threads: usize,
    /// CPU model; null if the system does not report it.
    cpu: Option<String>,
    num_parameters: u64,
    context_length: usize,
    /// Sequences per forward pass.
    batch_size: usize,
    /// Tokens per evaluation.
    tokens: u64,
    /// Median evaluation.
    seconds: f64,
    /// Every measured evaluation; one warm-up evaluation runs before.
    all_seconds: Vec<f64>,
    tokens_per_second: f64,
    /// Peak memory; null if unknown.
    peak_memory_bytes: Option<u64>,
    /// How the peak memory was measured.
    peak_memory_source: String,
    /// Loss of random weights on random tokens, in nats per token: about the logarithm of the
    /// vocabulary size.
    token_loss: f64,
}

/// Evaluates random weights on random tokens. Returns the exit code.
///
/// # Errors
/// When the configuration has no valid plan, does not fit, or the device fails.
pub fn eval(args: &BenchEvalArgs, config: RunConfig, open: OpenDevice) -> Result<u8, Failure> {
    let (config, mut plan) = plan_steps(config)?;
    let device = open(config.device)?;
    prepare_device(&device, &config, &mut plan)?;
    let context_length = config.training.context_length;
    let sequences = (plan.evaluation_tokens / context_length as u64).max(1);
    let tokens = sequences * context_length as u64;
    let scratch = ScratchFolder::new()?;
    let path = scratch.path().join("tokens");
    let stream = random_tokens(&path, plan.model.vocab_size, tokens, config.seed)?;
    // Mapped files stay readable after they are unlinked.
    let _ = fs::remove_file(&path);
    let compute = Compute::new(device.clone(), Precision::F32);
    let Ok(model) =
        LlamaForCausalLM::new(&plan.model, &mut random_weights(config.seed, &plan.model), &compute);
    let workers = Workers::start(compute, StopFlag::default())?;
    let validation = Validation {
        stream: &stream,
        batch_size: config.training.micro_batch_size,
        context_length,
    };
    let memory = PeakMemory::start();
    let (mut all_seconds, mut loss) = (Vec::new(), f64::NAN);
    for round in 0..=args.rounds.get() {
        if !args.json {
            tell(&format!("evaluation {round} of {}", args.rounds));
        }
        let started = Instant::now();
        let sums =
            sequence_losses(&workers, &model, &validation, 0..sequences as usize, &mut |_| {})?;
        loss = sums.map_or(f64::NAN, |sums| {
            TokenLoss::of_sequences(&sums, validation.targets_per_sequence()).mean
        });
        // The first evaluation pays for page faults, compiling and tuning.
        if round > 0 {
            all_seconds.push(started.elapsed().as_secs_f64());
        }
    }
    let (peak, seconds) = (memory.read(&device), median(all_seconds.iter().copied()));
    let document = EvalDocument {
        format_version: FORMAT_VERSION,
        bench: "eval",
        patchtui: env!("CARGO_PKG_VERSION"),
        config: config.name.clone(),
        device: device.description,
        threads: rayon::current_num_threads(),
        cpu: Processor::of_this_machine().model,
        num_parameters: plan.num_parameters,
        context_length,
        batch_size: config.training.micro_batch_size,
        tokens,
        seconds,
        all_seconds,
        tokens_per_second: tokens as f64 / seconds,
        peak_memory_bytes: peak.bytes,
        peak_memory_source: peak.source.to_owned(),
        token_loss: loss,
    };
    show(&document, args.json, text)?;
    Ok(0)
}

fn text(document: &EvalDocument) -> String {
    let computing = format!("{}, {}", document.device, format::counted(document.threads, "thread"));
    let parameters = format::count(document.num_parameters);
    let rounds = format::counted(document.all_seconds.len(), "evaluation");
    let mut lines = folded(
        "bench",
        &format!(
            "{}, {parameters} parameters, on {computing}; {rounds} after 1 warm-up evaluation",
            document.config
        ),
    );
    lines.extend(folded("cpu", document.cpu.as_deref().unwrap_or("unknown model")));
    let sequences = document.tokens / document.context_length as u64;
    let what = format!(
        "{} tokens: {sequences} sequences of {}, {} at a time",
        document.tokens, document.context_length, document.batch_size
    );
    lines.extend(folded("each", &what));
    lines.extend(folded(
        "speed",
        &format!(
            "{}, {} tok/s",
            milliseconds(document.seconds),
            format::rate(document.tokens_per_second)
        ),
    ));
    if let Some(bytes) = document.peak_memory_bytes {
        lines.extend(folded(
            "memory",
            &format!("{} ({})", format::bytes(bytes), document.peak_memory_source),
        ));
    }
    joined(&lines)
}
