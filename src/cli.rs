//! What can be typed: clap types and nothing else. Their comments are the help texts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Patch-level LLM pre-training in the terminal: launch, watch, steer and resume runs.
///
/// The model first reads patches of K averaged tokens and predicts the next patch, then goes on token by token (arXiv
/// 2407.12665): half the compute, about the same model. `patchtui run demo` shows it in three minutes, and `patchtui` alone
/// lists the runs.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// Where runs live.
    #[arg(long, global = true, value_name = "DIR", env = "PATCHTUI_RUNS_DIR", default_value = "runs")]
    pub runs_dir: PathBuf,
    /// Without a subcommand: short for `run CONFIG --no-tui`.
    #[arg(long)]
    pub no_tui: bool,
    /// With --no-tui and without a subcommand: the configuration, `demo` if left out.
    #[arg(value_name = "CONFIG")]
    pub config: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts a run in the background and watches it.
    Run(RunArgs),
    /// Goes on with an unfinished run, from any folder, and watches it.
    Resume(ResumeArgs),
    /// Says on paper what a configuration leads to: stages, cost, memory, disk.
    Plan(PlanArgs),
    /// Watches and steers a run, from any folder.
    Attach {
        /// A run's name or directory; the newest alive run if left out.
        run: Option<String>,
    },
    /// Shows a run from its files alone: one that has ended, was copied here, or works on another machine.
    View {
        /// A run's name or directory; the newest alive run if left out.
        run: Option<String>,
    },
    /// Tells a run what to do, like the keys do.
    Ctl(CtlArgs),
    /// Lists runs with their state.
    Runs {
        /// One JSON document instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Shows what can be configured and what is.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Makes tokenizers.
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
    /// Changes one key; may be repeated. The value is TOML, anything else is a string.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// What to run.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Name of the run, instead of the configuration's.
    #[arg(long)]
    pub name: Option<String>,
    /// auto, cpu, wgpu, wgpu:N, cuda or cuda:N.
    #[arg(long)]
    pub device: Option<String>,
    /// Trains in the foreground and prints lines; also what happens without a terminal.
    #[arg(long)]
    pub no_tui: bool,
    /// Prints the run's events as JSON lines on stdout; implies --no-tui.
    #[arg(long)]
    pub json: bool,
    /// Goes on where the run stopped; starts it if there is nothing to go on from.
    #[arg(long)]
    pub resume: bool,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// A run's name or directory; the newest unfinished run if left out.
    pub run: Option<String>,
    /// Trains in the foreground and prints lines; also what happens without a terminal.
    #[arg(long)]
    pub no_tui: bool,
    /// Prints the run's events as JSON lines on stdout; implies --no-tui.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// What to plan.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// auto, cpu, wgpu, wgpu:N, cuda or cuda:N.
    #[arg(long)]
    pub device: Option<String>,
    /// One JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `ctl`.
#[derive(Debug, Args)]
pub struct CtlArgs {
    /// A run's name or directory.
    pub run: String,
    /// What it is told.
    pub verb: Verb,
    /// Returns when the run has accepted the command, not when it is done.
    #[arg(long)]
    pub no_wait: bool,
    /// One JSON document instead of a line.
    #[arg(long)]
    pub json: bool,
}

/// What a run can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Verb {
    /// Say how it is going.
    Status,
    /// Compute nothing until told to go on.
    Pause,
    /// Go on.
    Resume,
    /// Save now and go on.
    Checkpoint,
    /// Measure the token-level loss now.
    Evaluate,
    /// Continue the prompts now.
    Sample,
    /// Finish the step, save, end.
    Stop,
    /// End without saving.
    Kill,
}

/// What there is to know about configurations.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Every key with its value and where it came from.
    Show {
        /// What to show.
        #[command(flatten)]
        config: ConfigArgs,
        /// One JSON document instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// A commented file to start from.
    Template,
}

/// What can be done about tokenizers.
#[derive(Debug, Subcommand)]
pub enum TokenizerCommand {
    /// Trains a byte-level BPE tokenizer on text files.
    Train {
        /// Text files, folders and patterns.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Number of tokens, special ones included.
        #[arg(long, default_value_t = 32_000)]
        vocab_size: usize,
        /// Where the tokenizer file goes.
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
