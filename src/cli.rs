//! The command line: clap types and nothing else. Their comments are the help texts.

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
    /// Lists runs with their state.
    Runs {
        /// One JSON document instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Continues prompts with a trained model.
    Generate(GenerateArgs),
    /// Shows configuration keys and their values.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Trains tokenizers.
    #[command(subcommand)]
    Tokenizer(TokenizerCommand),
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
    /// Configuration to run.
    #[command(flatten)]
    pub config: ConfigArgs,
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
