//! One file per subcommand: wiring only. The only module that combines engines, screens and
//! scripts.
//!
//! May import every layer; only `main` imports it. Start at [`dispatch`], then at the file named
//! like the subcommand.

#[cfg(feature = "engine")]
pub mod activations;
pub mod attach;
#[cfg(feature = "engine")]
pub mod bench;
#[cfg(feature = "engine")]
pub mod check;
pub mod checkpoint;
pub mod config;
pub mod ctl;
#[cfg(feature = "engine")]
pub mod devices;
pub mod doctor;
pub mod engine;
#[cfg(feature = "engine")]
pub mod eval;
#[cfg(feature = "engine")]
mod eval_results;
#[cfg(feature = "engine")]
pub mod export;
#[cfg(feature = "engine")]
pub mod generate;
pub mod home;
#[cfg(feature = "engine")]
pub mod import;
#[cfg(feature = "engine")]
pub mod model;
pub mod plan;
pub mod remove;
#[cfg(feature = "engine")]
mod result_path;
pub mod run;
pub mod runs;
pub mod tokenizer;
pub mod view;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::advice::{Advice, Audience, Failure};
use crate::cli::{Cli, Command, ConfigArgs, ConfigCommand, CtlArgs, RunArgs, RunsCommand};
use crate::commands::ctl::{CtlRequest, Wait};
use crate::config::{DeviceChoice, LoadRequest, LoadedConfig, load_with_runs};
use crate::record::{FindError, RunDirectory, RunIndex, RunLock};
use crate::report::{print, print_json};

/// How long a script waits for a command to be completed: an evaluation or a large checkpoint takes
/// time.
const CTL_LIMIT: Duration = Duration::from_mins(10);

/// Where to look for runs.
#[derive(Debug, Clone)]
pub struct Runs {
    /// The folder of runs: `--runs-dir`.
    pub folder: PathBuf,
    /// Index of runs elsewhere.
    pub index: RunIndex,
}

impl Runs {
    /// The runs in `folder` and in the user's index.
    #[must_use]
    pub fn of_user(folder: PathBuf) -> Self {
        Self { folder, index: RunIndex::of_user() }
    }

    /// The run that `text` names, by its path or its name.
    ///
    /// # Errors
    /// When there is none, or several match equally well.
    pub fn find(&self, text: &str) -> Result<RunDirectory, FindError> {
        self.index.find(text, &self.folder)
    }

    /// The run named `text`, even if a file or folder has that name too; a text with a slash is a
    /// path and names no run.
    ///
    /// # Errors
    /// When several runs match equally well.
    pub fn named(&self, text: &str) -> Result<Option<RunDirectory>, FindError> {
        if text.contains('/') {
            return Ok(None);
        }
        match self.find(text) {
            Ok(run) => Ok(Some(run)),
            Err(error @ FindError::Ambiguous { .. }) => Err(error),
            Err(
                FindError::Missing { .. }
                | FindError::NotARun { .. }
                | FindError::Unknown { .. }
                | FindError::NoRuns,
            ) => Ok(None),
        }
    }
}

/// Runs a subcommand. Returns the exit code.
///
/// # Errors
/// With a message and a hint for the user.
pub fn dispatch(cli: Cli) -> Result<u8, Failure> {
    let runs = Runs::of_user(cli.runs_dir);
    match cli.command {
        None if cli.no_tui => {
            let config = Some(cli.config.unwrap_or_else(|| "demo".into()));
            run::run(&RunArgs { config, no_tui: true, ..RunArgs::default() }, &runs)
        }
        None => match cli.config {
            None => home::home(runs),
            Some(word) => Err(Failure::usage(
                format!("{word:?} is not a subcommand"),
                format!("patchtui run {word}, or patchtui --help for all subcommands"),
            )),
        },
        Some(Command::Run(args)) => run::run(&args, &runs),
        Some(Command::Resume(args)) => run::resume(&args, &runs),
        Some(Command::Plan(args)) => plan::plan(&args, &runs),
        Some(Command::Attach { run }) => attach::watch(&attach::find(run.as_deref(), &runs)?),
        Some(Command::View { run }) => view::view(&attach::find(run.as_deref(), &runs)?),
        Some(Command::Ctl(args)) => ctl_command(&args, &runs),
        Some(Command::Runs(args)) => match &args.command {
            Some(RunsCommand::Rm(args)) => remove::remove(args, &runs),
            None => {
                runs::list(&runs, args.json)?;
                Ok(0)
            }
        },
        Some(Command::Checkpoint(command)) => checkpoint::checkpoint(&command, &runs),
        Some(Command::Config(command)) => config_command(command, &runs),
        Some(Command::Tokenizer(command)) => tokenizer::tokenizer(command),
        Some(Command::Doctor(args)) => doctor::doctor(&args, &runs),
        Some(Command::Engine { run_dir, warnings }) => start_engine(&run_dir, warnings),
        Some(command) => with_engine(command, &runs),
    }
}

/// Runs a subcommand that only a build with the engine has.
#[cfg(feature = "engine")]
fn with_engine(command: Command, runs: &Runs) -> Result<u8, Failure> {
    match command {
        Command::Eval(args) => eval::eval(&args, runs),
        Command::Bench(args) => bench::bench(args, runs),
        Command::Activations(args) => activations::activations(&args, runs),
        Command::Generate(args) => generate::generate(&args, runs),
        Command::Export(args) => export::run(&args, runs),
        Command::Import { directory, to } => import::run(&directory, to.as_deref(), runs),
        Command::ProbeDevices => {
            devices::answer();
            Ok(0)
        }
        _ => unreachable!("every build has the other subcommands"),
    }
}

#[cfg(not(feature = "engine"))]
#[expect(clippy::needless_pass_by_value, reason = "the same signature as with the engine")]
fn with_engine(command: Command, _runs: &Runs) -> Result<u8, Failure> {
    match command {
        Command::ProbeDevices => Ok(0),
        _ => Err(engine::no_engine()),
    }
}

/// Becomes the engine of the run in `run_dir`.
fn start_engine(run_dir: &Path, warnings: Vec<String>) -> Result<u8, Failure> {
    let directory = RunDirectory::new(run_dir);
    // The process that claimed the directory holds its lock and passes it on.
    let lock = RunLock::inherit(&directory)?.ok_or_else(|| {
        Failure::usage(
            "the engine is internal: it needs the run's lock from the command that starts it",
            "use patchtui run or patchtui resume",
        )
    })?;
    engine::run(&directory, lock, engine::Shown::Background { warnings })
}

/// Name of this process as the sender of commands through `face`, e.g. `"keyboard of alice"`.
#[must_use]
pub fn sender_name(face: &str) -> String {
    let user = ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .filter(|user| !user.is_empty());
    user.map_or_else(|| face.to_owned(), |user| format!("{face} of {user}"))
}

/// Finds what `checkpoint` names: the run of that name, from any folder and even if a file or
/// folder has that name too, else a directory.
///
/// # Errors
/// When neither exists.
fn find_checkpoint(checkpoint: &str, runs: &Runs) -> Result<PathBuf, Failure> {
    let path = Path::new(checkpoint);
    match runs.named(checkpoint)? {
        Some(run) => Ok(run.path().to_owned()),
        None if path.is_dir() => Ok(path.to_owned()),
        None => Ok(runs.find(checkpoint)?.path().to_owned()),
    }
}

/// The value of --device.
fn parse_device(text: &str) -> Result<DeviceChoice, Failure> {
    text.parse()
        .map_err(|message: String| Failure::usage(message, "use --device auto or --device cpu"))
}

/// Loads the configuration that the command line names.
fn load_config(args: &ConfigArgs, runs: &Runs) -> Result<LoadedConfig, Failure> {
    let current_dir = std::env::current_dir().map_err(|error| {
        Failure::failed(
            format!("cannot use the current folder: {error}"),
            "cd to a folder that exists",
        )
    })?;
    let find_run = |name: &str| {
        let found = runs
            .named(name)
            .map_err(|error| format!("{error}; {}", error.hint(Audience::Command)))?;
        Ok(found.map(|run| run.path().to_owned()))
    };
    Ok(load_with_runs(
        &LoadRequest { source: &args.config, sets: &args.sets, current_dir: &current_dir },
        &find_run,
    )?)
}

fn ctl_command(args: &CtlArgs, runs: &Runs) -> Result<u8, Failure> {
    let wait = if args.no_wait { Wait::UntilAccepted } else { Wait::UntilDone };
    ctl::ctl(
        CtlRequest { run: &args.run, verb: args.verb, wait, limit: CTL_LIMIT, json: args.json },
        runs,
    )?;
    Ok(0)
}

fn config_command(command: ConfigCommand, runs: &Runs) -> Result<u8, Failure> {
    match command {
        ConfigCommand::Show { config, json: false } => {
            print(&config::show(&load_config(&config, runs)?))?;
        }
        ConfigCommand::Show { config, json: true } => {
            print_json(&format!("{:#}", config::show_json(&load_config(&config, runs)?)))?;
        }
        ConfigCommand::Template => print(&config::template())?,
    }
    Ok(0)
}
