//! The command line: clap types and nothing else. Their comments are the help texts.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Patch-level LLM pre-training in the terminal: launch, watch, steer and resume runs.
///
/// The model first reads patches of K averaged tokens and predicts the next patch, then continues token by token (arXiv
/// 2407.12665): half the compute, about the same model. `patchtui run demo` shows it in three minutes; `patchtui` alone
/// lists the runs.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// Folder of the runs.
    #[arg(long, global = true, value_name = "DIR", env = "PATCHTUI_RUNS_DIR", default_value = "runs")]
    pub runs_dir: PathBuf,
    /// Without a subcommand: short for `run CONFIG --no-tui`.
    #[arg(long)]
    pub no_tui: bool,
    /// With --no-tui and without a subcommand: the configuration, `demo` if left out.
    #[arg(value_name = "CONFIG")]
    pub config: Option<String>,
    /// Subcommand.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts a run in the background and watches it.
    Run(RunArgs),
    /// Resumes an unfinished run, from any folder, and watches it.
    Resume(ResumeArgs),
    /// Shows the plan of a configuration without training: stages, cost, memory, disk.
    Plan(PlanArgs),
    /// Watches and steers a run, from any folder.
    Attach {
        /// A run's name or directory; if left out, the newest live run, or else the newest.
        run: Option<String>,
    },
    /// Shows a run from its files alone: one that has ended, was copied here, or runs on another machine.
    View {
        /// A run's name or directory; if left out, the newest live run, or else the newest.
        run: Option<String>,
    },
    /// Sends a command to a run, like the keys of its screen.
    Ctl(CtlArgs),
    /// Evaluates a model on tasks and texts, with the numbers that lm-eval gives for the same weights.
    Eval(EvalArgs),
    /// List runs with their state, or remove some.
    Runs(RunsArgs),
    /// List, verify or delete the checkpoints of a run.
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
    /// Measures speed and memory: training steps on random weights, alone or against PyTorch; tokenizing; evaluating.
    Bench(BenchArgs),
    /// Measures which share of each layer's neurons is strongly active on a text, as in figure 8 of the paper.
    Activations(ActivationsArgs),
    /// Continues prompts with a trained model.
    Generate(GenerateArgs),
    /// Checks this machine: what a run would use, and what would keep it from starting.
    Doctor(DoctorArgs),
    /// Shows configuration keys and their values.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Trains tokenizers.
    #[command(subcommand)]
    Tokenizer(TokenizerCommand),
    /// Writes a model as a directory in Hugging Face's format, which transformers and other programs load.
    Export(ExportArgs),
    /// Checks a model in Hugging Face's format, and prints a configuration that continues its training.
    Import {
        /// The directory, with config.json, weights as safetensors, and tokenizer.json.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Writes the configuration to this new file instead of the standard output.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Asks the drivers for GPUs; started by whoever wants to know.
    #[command(hide = true)]
    ProbeDevices,
    /// The process behind a run; started by `run`.
    #[command(hide = true)]
    Engine {
        /// The run's directory.
        #[arg(long)]
        run_dir: PathBuf,
    },
}

/// A configuration and changes to it.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// A TOML file, or the name of a built-in configuration, like `demo`.
    pub config: String,
    /// Sets one key; may be repeated. VALUE is TOML or a plain string; KEY=default resets the key.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A TOML file, or the name of a built-in configuration, like `demo` [default with --from: that run's own].
    #[arg(required_unless_present = "from")]
    pub config: Option<String>,
    /// Set one key; may be repeated. VALUE is TOML or a plain string; KEY=default resets the key.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Fork a new run from a checkpoint, with its weights, optimizer state and position, and with any keys changed.
    #[arg(long, value_name = "CHECKPOINT", conflicts_with = "resume")]
    pub from: Option<String>,
    /// Name of the run, instead of the configuration's.
    #[arg(long)]
    pub name: Option<String>,
    /// Device: auto, cpu, wgpu, wgpu:N, cuda or cuda:N.
    #[arg(long)]
    pub device: Option<String>,
    /// Trains in the foreground and prints lines; the default without a terminal.
    #[arg(long)]
    pub no_tui: bool,
    /// Prints the run's events as JSON lines on stdout; implies --no-tui.
    #[arg(long)]
    pub json: bool,
    /// Resumes the run where it stopped; starts it if there is nothing to resume.
    #[arg(long)]
    pub resume: bool,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// A run's name or directory; the newest unfinished run if left out.
    pub run: Option<String>,
    /// Trains in the foreground and prints lines; the default without a terminal.
    #[arg(long)]
    pub no_tui: bool,
    /// Prints the run's events as JSON lines on stdout; implies --no-tui.
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
    /// One JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `bench`. `bench CONFIG` is short for `bench train CONFIG`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
    /// Without a subcommand: training steps.
    #[command(flatten)]
    pub train: BenchTrainArgs,
}

/// Subcommands of `bench`.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Times training steps of every stage: parts of a step, tokens per second, share of the peak, memory. The default.
    ///
    /// Weights and tokens are random, and no run is written; all else is what a run computes: micro-batches, their sum, clip and
    /// update. Printed is the median step after the warm-up; its parts are those of all measured steps, scaled to it. The peak is
    /// the fastest product of two large f32 matrices, measured before and after. Operations are 6 per weight and position plus
    /// attention, as the plan counts them. On a GPU the parts come from further steps, in which the host waits for each part.
    Train(BenchTrainArgs),
    /// Times how fast text becomes tokens.
    Prepare(BenchPrepareArgs),
    /// Times the token-level evaluation on random weights.
    Eval(BenchEvalArgs),
}

/// Arguments of `bench train`.
#[derive(Debug, Args)]
pub struct BenchTrainArgs {
    /// Configuration whose steps are taken, a TOML file or the name of a built-in one; its text is not read.
    // Not required here, since `bench eval` has none before its own.
    pub config: Option<String>,
    /// Sets one key; may be repeated. VALUE is TOML or a plain string; KEY=default resets the key.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Device: auto, cpu, wgpu, wgpu:N, cuda or cuda:N.
    #[arg(long)]
    pub device: Option<String>,
    /// Steps of each stage that are measured, in each round; 10 if left out, 4 with --check.
    #[arg(long, value_name = "N")]
    pub steps: Option<NonZeroUsize>,
    /// Steps before them; 3 if left out, none with --check.
    #[arg(long, value_name = "N")]
    pub warmup: Option<usize>,
    /// Only this stage, counted from 1.
    #[arg(long, value_name = "N")]
    pub stage: Option<NonZeroUsize>,
    /// Takes the same step in another program as well, in turn with this one.
    #[arg(long, value_enum)]
    pub against: Option<Against>,
    /// How the other program computes; eager if left out.
    #[arg(long, value_enum, requires = "against")]
    pub mode: Option<ReferenceMode>,
    /// A Python that has torch; python3 if left out.
    #[arg(long, value_name = "PATH", requires = "against")]
    pub python: Option<PathBuf>,
    /// How often the stages take their turn, or with --against both programs; 1 if left out, 3 with --against. The speed against
    /// K = 1 is then the median of the rounds.
    #[arg(long, value_name = "N", conflicts_with = "check")]
    pub rounds: Option<NonZeroUsize>,
    /// Compares the losses of the first steps, from the same weights and tokens, instead of times; fails if they differ by more
    /// than 1e-4.
    #[arg(long, requires = "against")]
    pub check: bool,
    /// One JSON document instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Leaves the first weights and all tokens in this folder.
    #[arg(long, hide = true, value_name = "DIR")]
    pub keep_input: Option<PathBuf>,
}

/// Programs to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Against {
    /// PyTorch.
    Pytorch,
}

/// How PyTorch computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReferenceMode {
    /// Operation by operation, in f32.
    Eager,
    /// With torch.compile, in f32.
    Compile,
    /// Operation by operation, under automatic casts to bf16.
    Bf16,
}

/// Arguments of `bench prepare`.
#[derive(Debug, Args)]
pub struct BenchPrepareArgs {
    /// Configuration whose tokenizer and text are used; `demo`, whose text is generated, if left out.
    pub config: Option<String>,
    /// Sets one key; may be repeated. VALUE is TOML or a plain string; KEY=default resets the key.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Reads this text instead of the configuration's; may be repeated.
    #[arg(long = "text", value_name = "FILE")]
    pub texts: Vec<PathBuf>,
    /// Bytes of text that are generated where there are no files.
    #[arg(long, value_name = "COUNT", default_value = "16M")]
    pub bytes: String,
    /// One JSON document instead of lines.
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
    /// How often the evaluation is repeated.
    #[arg(long, value_name = "N", default_value = "3")]
    pub rounds: NonZeroUsize,
    /// One JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Device that must work: auto, cpu, wgpu, wgpu:N, cuda or cuda:N.
    #[arg(long)]
    pub device: Option<String>,
    /// Also compares every operation on the device, forward and backward, with the CPU, on the shapes of CONFIG (demo if left out).
    #[arg(long, value_name = "CONFIG", num_args = 0..=1, default_missing_value = "demo")]
    pub check: Option<String>,
    /// Sets one key of CONFIG; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "check")]
    pub sets: Vec<String>,
    /// One JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// A run (its newest checkpoint), a checkpoint or a Hugging Face directory.
    pub checkpoint: String,
    /// Text to continue; may be repeated. Without any prompt, the standard input is one.
    #[arg(long = "prompt", value_name = "TEXT")]
    pub prompts: Vec<String>,
    /// File of prompts, one per line, or one JSON record with "prompt" per line if it ends in .jsonl; `-`: the standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "prompts")]
    pub prompt_file: Option<PathBuf>,
    /// Tokens to add to each prompt, at most.
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub max_new_tokens: usize,
    /// Draws tokens from the probabilities at this temperature; left out: always the most probable token.
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    /// Draws only from the K most probable tokens.
    #[arg(long, value_name = "K", requires = "temperature")]
    pub top_k: Option<usize>,
    /// Draws only from the most probable tokens that together have probability P.
    #[arg(long, value_name = "P", requires = "temperature")]
    pub top_p: Option<f64>,
    /// Makes tokens that were there before less probable; 1 changes nothing.
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    pub repetition_penalty: f64,
    /// Determines what is drawn.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Ends a continuation before this text; may be repeated.
    #[arg(long = "stop", value_name = "TEXT")]
    pub stops: Vec<String>,
    /// Device: auto, cpu, wgpu, wgpu:N, cuda or cuda:N.
    #[arg(long)]
    pub device: Option<String>,
    /// One JSON record per prompt instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `activations`.
#[derive(Debug, Args)]
pub struct ActivationsArgs {
    /// Runs, which stand for their newest checkpoint, or directories of checkpoints.
    #[arg(required = true, value_name = "CHECKPOINT")]
    pub checkpoints: Vec<String>,
    /// Text that is read: .txt or .md as one document, .jsonl with a field "text".
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,
    /// Tokens per patch that every checkpoint reads; if left out, each reads the patches of the stage that it was saved in.
    #[arg(long, value_name = "K", value_delimiter = ',')]
    pub patch_size: Vec<u64>,
    /// A neuron is activated where |x| is greater: a number, or like 1.5x a multiple of the layer's mean |x|.
    #[arg(long, value_name = "NUMBER", default_value = "0.5")]
    pub threshold: String,
    /// Which neurons.
    #[arg(long, value_enum, default_value = "ffn-output")]
    pub tensor: TensorChoice,
    /// Tokens that are read, at most.
    #[arg(long, value_name = "COUNT", default_value = "64k")]
    pub max_tokens: String,
    /// Draws the figure into FILE.svg or FILE.png; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub figure: Vec<PathBuf>,
    /// Device: auto, cpu, wgpu, wgpu:N, cuda or cuda:N.
    #[arg(long)]
    pub device: Option<String>,
    /// One JSON document instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Neurons of `activations`.
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
    /// A run, which stands for its newest checkpoint, or the directory of a checkpoint.
    pub checkpoint: String,
    /// Tasks, separated by commas: hellaswag, piqa, winogrande, `arc_easy`, `arc_challenge`, mmlu, a group or a subject of it like
    /// `mmlu_stem` or `mmlu_anatomy`, wikitext-paper (perplexity as in the paper), wikitext (as in lm-eval), text:FILE; or paper for
    /// the seven that the paper reports.
    #[arg(long, short, value_name = "NAMES", default_value = "paper")]
    pub tasks: String,
    /// Folder of the task files, as their publishers name them or as JSON lines.
    #[arg(long, value_name = "DIR")]
    pub task_data: Option<PathBuf>,
    /// Only the first COUNT documents of each task, and of each subject of mmlu.
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<NonZeroUsize>,
    /// Worked examples before each question of mmlu.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub num_fewshot: usize,
    /// Puts the begin-of-text token before every text, as lm-eval does since 0.4.9.2; the paper's time did not.
    #[arg(long)]
    pub add_bos: bool,
    /// Tokens that the model reads at once, if not as many as it was trained to.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(2..))]
    pub max_length: Option<u32>,
    /// Tokens that are computed at once, unless one sequence has more.
    #[arg(long, value_name = "COUNT", default_value = "1024")]
    pub batch_tokens: NonZeroUsize,
    /// Device: auto, cpu, wgpu, wgpu:N, cuda or cuda:N.
    #[arg(long)]
    pub device: Option<String>,
    /// Threads that compute; as many as there are cores if left out.
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<NonZeroUsize>,
    /// Writes what was asked about each document, and each answer, as JSON lines to FILE.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// One JSON document of lm-eval's shape instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A run, which stands for its newest checkpoint, or the directory of a checkpoint or of a model in Hugging Face's format.
    #[arg(value_name = "CHECKPOINT")]
    pub checkpoint: String,
    /// The new directory.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Number format of the weights.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// Largest file of weights; larger models are split.
    #[arg(long, value_name = "SIZE", default_value = "5GB")]
    pub max_shard_size: String,
    /// Exports a model of patches, too, whose last stage of single tokens has not begun.
    #[arg(long)]
    pub allow_patch_stage: bool,
}

/// Number formats of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// 32 bits, exactly as trained.
    F32,
    /// The upper half of an f32.
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
    /// What to do instead of listing them.
    #[command(subcommand)]
    pub command: Option<RunsCommand>,
}

/// Subcommands of `runs`.
#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// Remove runs with all their files, after a question. Refuses a running run.
    Rm(RemoveArgs),
}

/// Arguments of `runs rm`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Names or directories of runs.
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<String>,
    /// Remove without a question.
    #[arg(long)]
    pub yes: bool,
    /// Also remove files in the run's directory that patchtui did not write.
    #[arg(long)]
    pub all_files: bool,
}

/// Subcommands of `checkpoint`.
#[derive(Debug, Subcommand)]
pub enum CheckpointCommand {
    /// List checkpoints with step, stage, token loss, size and state; check names and sizes only.
    Ls {
        /// Name or directory of a run.
        run: String,
        /// Print one JSON document instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Check every byte of every checkpoint; exit with 1 if one is not valid.
    Verify {
        /// Name or directory of a run.
        run: String,
        /// Print one JSON document instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Delete all but the newest periodic checkpoints.
    ///
    /// Keeps permanent checkpoints (ends of stages), the one with the lowest token loss, and always the newest valid one. Also removes what
    /// interrupted saves left behind. Refuses a running run, which prunes its own checkpoints.
    Prune(PruneArgs),
}

/// Arguments of `checkpoint prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Name or directory of a run.
    pub run: String,
    /// Newest valid periodic checkpoints to keep [default: the run's checkpoint.keep].
    #[arg(long, value_name = "N")]
    pub keep: Option<NonZeroUsize>,
    /// Also delete these if they are not among the newest; separated by commas.
    #[arg(long, value_enum, value_name = "KINDS", value_delimiter = ',')]
    pub also: Vec<AlsoPrune>,
    /// Show what would be deleted, and delete nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// Checkpoints that `checkpoint prune` keeps unless asked.
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
    /// A run's name or directory.
    pub run: String,
    /// Command for the run.
    pub verb: Verb,
    /// Returns when the run has accepted the command, not when it is done.
    #[arg(long)]
    pub no_wait: bool,
    /// One JSON document instead of a line.
    #[arg(long)]
    pub json: bool,
}

/// Commands for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Verb {
    /// Report what the run is doing.
    Status,
    /// Stop computing until resumed.
    Pause,
    /// Continue after a pause.
    Resume,
    /// Save a checkpoint now and continue.
    Checkpoint,
    /// Measure the token-level loss now.
    Evaluate,
    /// Continue the prompts now.
    Sample,
    /// Save a checkpoint and end.
    Stop,
    /// End without saving.
    Kill,
}

/// Subcommands of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Prints every key with its value and origin.
    Show {
        /// Configuration to show.
        #[command(flatten)]
        config: ConfigArgs,
        /// One JSON document instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Prints a commented file to start from.
    Template,
}

/// Subcommands of `tokenizer`.
#[derive(Debug, Subcommand)]
pub enum TokenizerCommand {
    /// Trains a byte-level BPE tokenizer on text files.
    Train {
        /// Text files, folders and glob patterns.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Number of tokens, special ones included.
        #[arg(long, default_value_t = 32_000)]
        vocab_size: usize,
        /// Path of the new tokenizer file.
        #[arg(long, short, default_value = "tokenizer.json")]
        output: PathBuf,
        /// Field of a JSON record that holds the text.
        #[arg(long, default_value = "text")]
        text_field: String,
        /// Replaces an existing file.
        #[arg(long)]
        force: bool,
    },
}
