//! The command line: clap types only. Their doc comments are the help texts.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::record::RunCommand;

/// Patch-level LLM pre-training in the terminal: launch, watch, steer and resume runs.
///
/// The model first reads patches of K averaged tokens and predicts the next patch, then continues
/// token by token (arXiv 2407.12665), at about half the compute on the same tokens.
/// `patchtui run demo` shows it in three minutes; `patchtui` without arguments opens the list of runs.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// Folder that holds the runs.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "PATCHTUI_RUNS_DIR",
        default_value = "runs"
    )]
    pub runs_dir: PathBuf,
    /// Without a subcommand: short for `run CONFIG --no-tui`.
    #[arg(long)]
    pub no_tui: bool,
    /// Configuration for --no-tui without a subcommand [default: demo].
    #[arg(value_name = "CONFIG")]
    pub config: Option<String>,
    /// Subcommand.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a run in the background and attach to it.
    Run(RunArgs),
    /// Resume an unfinished run, from any folder, and attach to it.
    Resume(ResumeArgs),
    /// Print the plan of a configuration without training: stages, cost, memory, disk.
    Plan(PlanArgs),
    /// Attach to a run, from any folder.
    Attach {
        /// Name or directory of a run [default: the newest running run, else the newest run].
        run: Option<String>,
    },
    /// Show a run from its files: one that has ended, was copied here, or runs on another machine.
    View {
        /// Name or directory of a run [default: the newest running run, else the newest run].
        run: Option<String>,
    },
    /// Send a command to a run, like a key on its screen.
    Ctl(CtlArgs),
    /// Evaluate a model on tasks and texts, with the same scores as lm-eval.
    Eval(EvalArgs),
    /// List runs with their state, or remove runs.
    ///
    /// Lists the runs in --runs-dir, and the runs that this user has started in other folders.
    Runs(RunsArgs),
    /// List, verify or delete the checkpoints of a run.
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
    /// Benchmark training steps on random weights (alone or against PyTorch), tokenization, or
    /// evaluation.
    Bench(BenchArgs),
    /// Measure the share of active neurons per layer on a text, as in figure 8 of the paper.
    Activations(ActivationsArgs),
    /// Generate text from prompts.
    Generate(GenerateArgs),
    /// Check this machine: what a run would use, and what would prevent it from starting.
    Doctor(DoctorArgs),
    /// Show configuration keys and their values.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Train a tokenizer.
    #[command(subcommand)]
    Tokenizer(TokenizerCommand),
    /// Export a model to the Hugging Face format, for transformers and other programs.
    Export(ExportArgs),
    /// Check a Hugging Face model and print a configuration that continues its training.
    Import {
        /// Hugging Face directory: config.json, safetensors weights and tokenizer.json.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Write the configuration to this new file [default: standard output].
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Ask the drivers for GPUs (internal).
    #[command(hide = true)]
    ProbeDevices,
    /// Run the engine of a run (internal; started by `run`).
    #[command(hide = true)]
    Engine {
        /// Run directory.
        #[arg(long)]
        run_dir: PathBuf,
        /// What the user should know about the start; may be repeated.
        #[arg(long = "warning")]
        warnings: Vec<String>,
    },
}

/// A configuration and overrides.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// TOML file, or name of a built-in configuration, e.g. demo.
    pub config: String,
    /// Set one key; may be repeated. VALUE is TOML or a plain string; KEY=default resets the key.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

/// Arguments of `run`.
#[derive(Debug, Default, Args)]
pub struct RunArgs {
    /// TOML file, or name of a built-in configuration, e.g. demo [default with --from: the
    /// configuration of that run].
    #[arg(required_unless_present = "from")]
    pub config: Option<String>,
    /// Set one key; may be repeated. VALUE is TOML or a plain string; KEY=default resets the key.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Fork a new run from a checkpoint: keep its weights, optimizer state and position, change
    /// any keys.
    #[arg(long, value_name = "CHECKPOINT", conflicts_with = "resume")]
    pub from: Option<String>,
    /// Name of the run [default: run.name of the configuration].
    #[arg(long)]
    pub name: Option<String>,
    /// Device: auto, cpu, wgpu, wgpu:N, cuda or cuda:N.
    #[arg(long)]
    pub device: Option<String>,
    /// Train in the foreground and print lines; the default without a terminal.
    #[arg(long)]
    pub no_tui: bool,
    /// Print events as JSON lines on stdout; implies --no-tui.
    #[arg(long)]
    pub json: bool,
    /// Resume the run where it stopped; start it if there is nothing to resume.
    #[arg(long)]
    pub resume: bool,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// Name or directory of a run [default: the newest unfinished run].
    pub run: Option<String>,
    /// Train in the foreground and print lines; the default without a terminal.
    #[arg(long)]
    pub no_tui: bool,
    /// Print events as JSON lines on stdout; implies --no-tui.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Configuration to plan.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Device: auto, cpu, wgpu, wgpu:N, cuda or cuda:N.
    #[arg(long)]
    pub device: Option<String>,
    /// Print one JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `bench`. `bench CONFIG` is short for `bench train CONFIG`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    /// What to benchmark.
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
    /// Without a subcommand: training steps.
    #[command(flatten)]
    pub train: BenchTrainArgs,
}

/// Subcommands of `bench`.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Benchmark training steps of every stage: time per part, tokens per second, share of the
    /// peak, memory (the default).
    ///
    /// Uses random weights and tokens and writes no run; everything else is as in a run:
    /// micro-batches, gradient accumulation, clipping and update. Prints the median step after
    /// the warm-up; the times of its parts are averages over all measured steps, scaled to the
    /// median. The peak is the fastest multiplication of two large f32 matrices, measured before
    /// and after. FLOPs are counted as in the plan: 6 per weight and position, plus attention. On a
    /// GPU the parts are timed in extra steps that synchronize after each part.
    Train(BenchTrainArgs),
    /// Benchmark tokenization.
    Prepare(BenchPrepareArgs),
    /// Benchmark the token-level evaluation on random weights.
    Eval(BenchEvalArgs),
}

/// Arguments of `bench train`.
#[derive(Debug, Args)]
pub struct BenchTrainArgs {
    /// TOML file, or name of a built-in configuration; its training text is not read.
    // Not required here, since `bench eval` has no CONFIG before the subcommand.
    pub config: Option<String>,
    /// Set one key; may be repeated. VALUE is TOML or a plain string; KEY=default resets the key.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Device: auto, cpu, wgpu, wgpu:N, cuda or cuda:N.
    #[arg(long)]
    pub device: Option<String>,
    /// Measured steps per stage and round [default: 10; 4 with --check].
    #[arg(long, value_name = "N", value_parser = positive)]
    pub steps: Option<NonZeroUsize>,
    /// Warm-up steps [default: 3; 0 with --check].
    #[arg(long, value_name = "N")]
    pub warmup: Option<usize>,
    /// Measure only this stage, counted from 1.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub stage: Option<NonZeroUsize>,
    /// Alternate with the same step in another framework.
    #[arg(long, value_enum)]
    pub against: Option<Against>,
    /// Execution mode of the other framework [default: eager].
    #[arg(long, value_enum, requires = "against")]
    pub mode: Option<ReferenceMode>,
    /// Python interpreter that has torch [default: python3].
    #[arg(long, value_name = "PATH", requires = "against")]
    pub python: Option<PathBuf>,
    /// Number of rounds over the stages, or with --against over both frameworks [default: 1; 3
    /// with --against]. The speed relative to K = 1 is the median of the rounds.
    #[arg(long, value_name = "N", conflicts_with = "check", value_parser = positive)]
    pub rounds: Option<NonZeroUsize>,
    /// Compare the losses of the first steps, from the same weights and tokens, instead of times;
    /// fail if they differ by more than 1e-4.
    #[arg(long, requires = "against")]
    pub check: bool,
    /// Print one JSON document instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Keep the initial weights and all tokens in this folder.
    #[arg(long, hide = true, value_name = "DIR")]
    pub keep_input: Option<PathBuf>,
}

/// Frameworks to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Against {
    /// PyTorch.
    Pytorch,
}

/// Execution modes of PyTorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReferenceMode {
    /// Eager, in f32.
    Eager,
    /// With torch.compile, in f32.
    Compile,
    /// Eager, with autocast to bf16.
    Bf16,
}

/// Arguments of `bench prepare`.
#[derive(Debug, Args)]
pub struct BenchPrepareArgs {
    /// Configuration whose tokenizer and text are used [default: demo, with generated text].
    pub config: Option<String>,
    /// Set one key; may be repeated. VALUE is TOML or a plain string; KEY=default resets the key.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Read this text instead of the configuration's; may be repeated.
    #[arg(long = "text", value_name = "FILE")]
    pub texts: Vec<PathBuf>,
    /// Bytes of text to generate if there are no files.
    #[arg(long, value_name = "COUNT", default_value = "16M")]
    pub bytes: String,
    /// Print one JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `bench eval`.
#[derive(Debug, Args)]
pub struct BenchEvalArgs {
    /// Configuration whose network and validation settings are used.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Device: auto, cpu, wgpu, wgpu:N, cuda or cuda:N.
    #[arg(long)]
    pub device: Option<String>,
    /// Number of measured evaluations.
    #[arg(long, value_name = "N", default_value = "3", value_parser = positive)]
    pub rounds: NonZeroUsize,
    /// Print one JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Fail if this device does not work: auto, cpu, wgpu, wgpu:N, cuda or cuda:N.
    #[arg(long)]
    pub device: Option<String>,
    /// Also compare every operation on the device with the CPU, forward and backward, for the
    /// shapes of CONFIG [default: demo].
    #[arg(long, value_name = "CONFIG", num_args = 0..=1, default_missing_value = "demo")]
    pub check: Option<String>,
    /// Set one key of CONFIG; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "check")]
    pub sets: Vec<String>,
    /// Print one JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// A run (its newest checkpoint), a checkpoint or a Hugging Face directory.
    pub checkpoint: String,
    /// Prompt; may be repeated. Without any prompt, standard input is one prompt.
    #[arg(long = "prompt", value_name = "TEXT")]
    pub prompts: Vec<String>,
    /// File of prompts, one per line, or one JSON record with "prompt" per line if it ends in
    /// .jsonl; `-` reads standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "prompts")]
    pub prompt_file: Option<PathBuf>,
    /// Maximum number of new tokens per prompt.
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub max_new_tokens: usize,
    /// Sampling temperature [default: greedy decoding].
    #[arg(long, allow_negative_numbers = true, value_name = "T")]
    pub temperature: Option<f64>,
    /// Sample only from the K most probable tokens.
    #[arg(long, value_name = "K", requires = "temperature")]
    pub top_k: Option<usize>,
    /// Sample only from the most probable tokens whose probabilities add up to P.
    #[arg(long, allow_negative_numbers = true, value_name = "P", requires = "temperature")]
    pub top_p: Option<f64>,
    /// Penalty for tokens already in the text; 1 disables it.
    #[arg(long, allow_negative_numbers = true, value_name = "R", default_value_t = 1.0)]
    pub repetition_penalty: f64,
    /// Sampling seed.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Stop generating before this text; may be repeated.
    #[arg(long = "stop", value_name = "TEXT")]
    pub stops: Vec<String>,
    /// Device: auto, cpu, wgpu, wgpu:N, cuda or cuda:N.
    #[arg(long)]
    pub device: Option<String>,
    /// Print one JSON record per prompt instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `activations`.
#[derive(Debug, Args)]
pub struct ActivationsArgs {
    /// Runs (the newest checkpoint is used) or directories of checkpoints.
    #[arg(required = true, value_name = "CHECKPOINT")]
    pub checkpoints: Vec<String>,
    /// Input text: .txt or .md as one document, .jsonl with a field "text".
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,
    /// Tokens per patch, for every checkpoint [default: the patch size of the stage it was saved
    /// in].
    #[arg(long, value_name = "K", value_delimiter = ',')]
    pub patch_size: Vec<u64>,
    /// Threshold on |x|: a number, or a multiple of the layer's mean |x|, e.g. 1.5x.
    #[arg(long, value_name = "NUMBER", default_value = "0.5")]
    pub threshold: String,
    /// Neurons to measure.
    #[arg(long, value_enum, default_value = "ffn-output")]
    pub tensor: TensorChoice,
    /// Maximum number of tokens to read.
    #[arg(long, value_name = "COUNT", default_value = "64k")]
    pub max_tokens: String,
    /// Draw the figure into FILE.svg or FILE.png; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub figure: Vec<PathBuf>,
    /// Device: auto, cpu, wgpu, wgpu:N, cuda or cuda:N.
    #[arg(long)]
    pub device: Option<String>,
    /// Print one JSON document instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Neurons that `activations` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TensorChoice {
    /// Output of the feed-forward block before the residual addition.
    FfnOutput,
    /// Product of gate and up projection.
    Intermediate,
}

/// Arguments of `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// A run (its newest checkpoint is used) or the directory of a checkpoint.
    pub checkpoint: String,
    /// Tasks, separated by commas: `hellaswag`, `piqa`, `winogrande`, `arc_easy`, `arc_challenge`,
    /// `mmlu`, one of its groups or subjects, e.g. `mmlu_stem` or `mmlu_anatomy`,
    /// `wikitext-paper` (perplexity as in the paper), `wikitext` (as in lm-eval), `text:FILE`;
    /// or `paper` for the seven tasks of the paper.
    #[arg(long, short, value_name = "NAMES", default_value = "paper")]
    pub tasks: String,
    /// Folder of the task files, named as published or as JSON lines.
    #[arg(long, value_name = "DIR")]
    pub task_data: Option<PathBuf>,
    /// Use only the first COUNT documents of each task, and of each subject of mmlu.
    #[arg(long, value_name = "COUNT", value_parser = positive)]
    pub limit: Option<NonZeroUsize>,
    /// Number of few-shot examples before each mmlu question.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub num_fewshot: usize,
    /// Prepend the BOS token to every text, as lm-eval has done since 0.4.9.2; the version current
    /// at the paper's time did not.
    #[arg(long)]
    pub add_bos: bool,
    /// Context length [default: as trained].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(2..))]
    pub max_length: Option<u32>,
    /// Maximum number of tokens per batch, unless one sequence has more.
    #[arg(long, value_name = "COUNT", default_value = "1024", value_parser = positive)]
    pub batch_tokens: NonZeroUsize,
    /// Device: auto, cpu, wgpu, wgpu:N, cuda or cuda:N.
    #[arg(long)]
    pub device: Option<String>,
    /// CPU threads [default: number of cores].
    #[arg(long, value_name = "COUNT", value_parser = positive)]
    pub threads: Option<NonZeroUsize>,
    /// Write per-document requests and responses as JSON lines to FILE.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print one JSON document in the format of lm-eval instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A run (its newest checkpoint is used), or the directory of a checkpoint or of a Hugging
    /// Face model.
    #[arg(value_name = "CHECKPOINT")]
    pub checkpoint: String,
    /// Output directory, new or empty.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Data type of the exported weights.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// Maximum size of a weight file; larger models are split.
    #[arg(long, value_name = "SIZE", default_value = "5GB")]
    pub max_shard_size: String,
    /// Allow exporting a model that is still in its patch stage.
    #[arg(long)]
    pub allow_patch_stage: bool,
}

/// Number formats of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// 32 bits, exactly as trained.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
}

/// Arguments of `runs`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RunsArgs {
    /// Print one JSON document instead of a table.
    #[arg(long)]
    pub json: bool,
    /// What to do instead of listing runs.
    #[command(subcommand)]
    pub command: Option<RunsCommand>,
}

/// Subcommands of `runs`.
#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// Remove runs and all their files, after confirmation; a running run is refused.
    Rm(RemoveArgs),
}

/// Arguments of `runs rm`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Names or directories of runs.
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<String>,
    /// Remove without asking.
    #[arg(long)]
    pub yes: bool,
    /// Also remove files in the run's directory that patchtui did not write.
    #[arg(long)]
    pub all_files: bool,
}

/// Subcommands of `checkpoint`.
#[derive(Debug, Subcommand)]
pub enum CheckpointCommand {
    /// List checkpoints with step, stage, token loss, size and state (only names and sizes are
    /// checked).
    Ls {
        /// Name or directory of a run.
        run: String,
        /// Print one JSON document instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Check every byte of every checkpoint; exit with code 1 if one is not valid.
    Verify {
        /// Name or directory of a run.
        run: String,
        /// Print one JSON document instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Delete all but the newest periodic checkpoints.
    ///
    /// Keeps permanent checkpoints (ends of stages), the one with the lowest token loss, and always
    /// the newest valid one. Also removes what interrupted saves left behind. A running run is
    /// refused: it prunes its own checkpoints.
    Prune(PruneArgs),
}

/// Arguments of `checkpoint prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Name or directory of a run.
    pub run: String,
    /// Newest valid periodic checkpoints to keep [default: the run's checkpoint.keep].
    #[arg(long, value_name = "N", value_parser = positive)]
    pub keep: Option<NonZeroUsize>,
    /// Also delete checkpoints of these kinds, unless they are among the newest; separated by
    /// commas.
    #[arg(long, value_enum, value_name = "KINDS", value_delimiter = ',')]
    pub also: Vec<AlsoPrune>,
    /// Show what would be deleted, but delete nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// Checkpoints that `checkpoint prune` keeps by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AlsoPrune {
    /// Ends of stages and of the run.
    Permanent,
    /// The lowest token loss.
    Best,
    /// Checkpoints that are not valid.
    Damaged,
}

/// Arguments of `ctl`.
#[derive(Debug, Args)]
pub struct CtlArgs {
    /// Name or directory of a run.
    pub run: String,
    /// Command to send.
    pub verb: Verb,
    /// Return when the run has accepted the command, without waiting for it to complete.
    #[arg(long)]
    pub no_wait: bool,
    /// Print one JSON document instead of a line.
    #[arg(long)]
    pub json: bool,
}

/// What `ctl` asks of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Report the state of the run.
    Status,
    /// Send a command.
    Send(RunCommand),
}

impl ValueEnum for Verb {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Status,
            Self::Send(RunCommand::Pause),
            Self::Send(RunCommand::Resume),
            Self::Send(RunCommand::Checkpoint),
            Self::Send(RunCommand::Evaluate),
            Self::Send(RunCommand::Sample),
            Self::Send(RunCommand::Stop),
            Self::Send(RunCommand::Kill),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Status => ("status", "Print the state of the run"),
            Self::Send(command) => (command.name(), help_of(*command)?),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

fn help_of(command: RunCommand) -> Option<&'static str> {
    Some(match command {
        RunCommand::Pause => "Pause until resumed",
        RunCommand::Resume => "Continue after a pause",
        RunCommand::Checkpoint => "Save a checkpoint now and continue",
        RunCommand::Evaluate => "Measure the token loss (K = 1) now",
        RunCommand::Sample => "Generate samples from the prompts now",
        RunCommand::Stop => "Save a checkpoint and stop",
        RunCommand::Kill => "Stop without saving",
        RunCommand::Unknown => return None,
    })
}

/// Subcommands of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every key with its value and origin.
    Show {
        /// Configuration to show.
        #[command(flatten)]
        config: ConfigArgs,
        /// Print one JSON document instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Print a commented configuration file to start from.
    Template,
}

/// Subcommands of `tokenizer`.
#[derive(Debug, Subcommand)]
pub enum TokenizerCommand {
    /// Train a byte-level BPE tokenizer on text files.
    Train {
        /// Text files, folders and glob patterns.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Vocabulary size, special tokens included.
        #[arg(long, default_value_t = 32_000)]
        vocab_size: usize,
        /// Output file.
        #[arg(long, short, default_value = "tokenizer.json")]
        output: PathBuf,
        /// Field of a JSON record that holds the text.
        #[arg(long, default_value = "text")]
        text_field: String,
        /// Overwrite an existing file.
        #[arg(long)]
        force: bool,
    },
}

fn positive(text: &str) -> Result<NonZeroUsize, String> {
    let number: usize = text.parse().map_err(|_| "not a whole number".to_owned())?;
    NonZeroUsize::new(number).ok_or_else(|| "must be at least 1".into())
}
