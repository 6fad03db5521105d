//! `patchtui generate`: generates text from prompts. Texts go to standard output, everything else
//! to standard error.
//!
//! Start at [`generate`].

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::thread;

use serde_json::{Value, json};

use crate::advice::Failure;
use crate::cli::GenerateArgs;
use crate::commands::Runs;
use crate::commands::model::{choose_device, open_model};
use crate::config::Precision;
use crate::data::{GrowingText, TextFault, text_of_bytes};
use crate::engine::compute::Compute;
use crate::engine::generate::{Continuation, GenerationRules, Generator, Heard, Sampling, Verdict};
use crate::engine::{EngineError, LoadedModel};
use crate::report::{Output, OutputError, reader_is_gone, stderr, stdout, warn};
use crate::steer::COMPUTE_STACK;
use crate::text::{sanitize, sanitize_line};

/// Generates text from the prompts of the command line. Returns the exit code.
///
/// # Errors
/// When there is no prompt, a setting is invalid, or the model cannot be opened.
pub fn generate(args: &GenerateArgs, runs: &Runs) -> Result<u8, Failure> {
    let sampling = sampling(args)?;
    if args.stops.iter().any(String::is_empty) {
        return Err(Failure::usage(
            "--stop must not be empty",
            "write the text to stop at: --stop TEXT",
        ));
    }
    let texts = prompts(args)?;
    let compute = Compute::new(choose_device(args.device.as_deref())?, Precision::F32);
    let loaded = open_model(&args.checkpoint, &compute, runs)?;
    if let Some(stage) = loaded.files.patch_stage() {
        warn(&stage.to_string());
    }
    let prompts = texts.iter().map(|text| encode(text, &loaded)).collect::<Result<Vec<_>, _>>()?;
    if let Some(longest) =
        prompts.iter().map(Vec::len).max().filter(|longest| *longest > loaded.files.context_length)
    {
        warn(&format!(
            "a prompt has {longest} tokens, but the context window is {}: only the end of the \
             prompt is read",
            loaded.files.context_length
        ));
    }
    let rules =
        GenerationRules { max_new_tokens: args.max_new_tokens, ends: &loaded.files.ends, sampling };
    let generator =
        Generator { model: loaded.model.clone(), context_length: loaded.files.context_length };
    let replies = prompts
        .iter()
        .map(|prompt| GrowingText::new(&loaded.files.tokenizer, prompt, &args.stops))
        .collect();
    let mut face = Face {
        args,
        texts: &texts,
        prompts: &prompts,
        replies,
        parts: vec![String::new(); texts.len()],
        continuations: vec![None; texts.len()],
        num_shown: 0,
        out: stdout(),
        lost: None,
        is_terminal: io::stdout().is_terminal(),
    };
    on_large_stack(|| {
        generator.generate_each(&prompts, &rules, &mut |idx, heard| face.hear(idx, heard))
    })?;
    if let Some(error) = face.lost {
        return Err(error.into());
    }
    let is_news = |(continuation, prompt): (&Option<Continuation>, &Vec<u32>)| {
        continuation.as_ref().is_some_and(|continuation| {
            continuation.has_slid && prompt.len() <= loaded.files.context_length
        })
    };
    if face.continuations.iter().zip(&prompts).any(is_news) {
        warn(&format!(
            "context window ({} tokens) exceeded; oldest tokens dropped",
            loaded.files.context_length
        ));
    }
    Ok(0)
}

fn sampling(args: &GenerateArgs) -> Result<Sampling, Failure> {
    let check = |name: &str, value: f64, is_valid: bool, range: &str| {
        if is_valid {
            Ok(value)
        } else {
            Err(Failure::usage(
                format!("--{name} must be {range}, not {value}"),
                format!("use a value that is {range}"),
            ))
        }
    };
    let (temperature, top_p, penalty) =
        (args.temperature.unwrap_or(0.0), args.top_p.unwrap_or(1.0), args.repetition_penalty);
    if args.top_k == Some(0) {
        return Err(Failure::usage("--top-k 0 leaves no token to sample", "use 1 or more"));
    }
    Ok(Sampling {
        temperature: check(
            "temperature",
            temperature,
            temperature >= 0.0 && temperature.is_finite(),
            "0 or greater",
        )?,
        top_k: args.top_k,
        top_p: check("top-p", top_p, top_p > 0.0 && top_p <= 1.0, "greater than 0 and at most 1")?,
        repetition_penalty: check(
            "repetition-penalty",
            penalty,
            penalty > 0.0 && penalty.is_finite(),
            "greater than 0",
        )?,
        seed: args.seed,
    })
}

/// The prompts: of the command line, of a file, or standard input.
fn prompts(args: &GenerateArgs) -> Result<Vec<String>, Failure> {
    if let Some(path) = &args.prompt_file {
        let text = if path == Path::new("-") {
            read_stdin()?
        } else {
            let name = path.display().to_string();
            text_of(&name, &fs::read(path).map_err(|error| unreadable(&name, &error))?)?
        };
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let is_json = path.extension().is_some_and(|ending| ending == "jsonl");
        let prompts = lines
            .map(
                |(idx, line)| {
                    if is_json { json_prompt(path, idx + 1, line) } else { Ok(line.to_owned()) }
                },
            )
            .collect::<Result<Vec<_>, _>>()?;
        if prompts.is_empty() {
            return Err(Failure::usage(
                format!("{} contains no prompt", path.display()),
                "write one prompt per line",
            ));
        }
        return Ok(prompts);
    }
    if !args.prompts.is_empty() {
        return Ok(args.prompts.clone());
    }
    if io::stdin().is_terminal() {
        return Err(Failure::usage(
            "there is no prompt",
            "use --prompt TEXT or --prompt-file FILE",
        ));
    }
    let text = read_stdin()?;
    // The trailing line feed that `echo` and editors write belongs to the file, not to the prompt.
    Ok(vec![text.strip_suffix('\n').unwrap_or(&text).to_owned()])
}

fn read_stdin() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).map_err(|error| unreadable("standard input", &error))?;
    text_of("standard input", &bytes)
}

/// The text of a prompt file, decoded like training text.
fn text_of(what: &str, bytes: &[u8]) -> Result<String, Failure> {
    text_of_bytes(bytes).map_err(|(offset, fault)| {
        let hint = if fault == TextFault::NotUtf8 {
            "prompts must be UTF-8 text"
        } else {
            "convert it first: iconv -f UTF-16 -t UTF-8"
        };
        Failure::usage(format!("{what} cannot be read: {fault} at byte {offset}"), hint)
    })
}

fn unreadable(what: &str, error: &io::Error) -> Failure {
    Failure::usage(
        format!("{what} cannot be read: {error}"),
        "check that it exists and that you may read it",
    )
}

fn json_prompt(path: &Path, line_number: usize, line: &str) -> Result<String, Failure> {
    let record: Option<Value> = serde_json::from_str(line).ok();
    let prompt = record.as_ref().and_then(|record| record.get("prompt")).and_then(Value::as_str);
    let missing = || {
        Failure::usage(
            format!("{}:{line_number} has no string \"prompt\"", path.display()),
            "write one record like {\"prompt\": \"Once\"} per line",
        )
    };
    prompt.map(str::to_owned).ok_or_else(missing)
}

/// Token ids of a prompt, with BOS if the training texts had it.
fn encode(text: &str, loaded: &LoadedModel) -> Result<Vec<u32>, Failure> {
    let bos = loaded.files.tokenizer.bos().filter(|_| loaded.files.add_bos);
    let ids: Vec<u32> = bos.into_iter().chain(loaded.files.tokenizer.encode(text)?).collect();
    if ids.is_empty() {
        return Err(Failure::usage(
            "an empty prompt cannot be continued: the model has no BOS token",
            "write at least one character",
        ));
    }
    match ids.iter().find(|id| **id as usize >= loaded.files.shape.vocab_size) {
        Some(id) => Err(Failure::usage(
            format!(
                "token id {id} of the tokenizer is outside the vocabulary of the model ({})",
                loaded.files.shape.vocab_size
            ),
            "use the model's own tokenizer",
        )),
        None => Ok(ids),
    }
}

/// Runs `job` on a thread with the stack size of the trainer's threads.
fn on_large_stack<T: Send, E: Send + Into<EngineError>>(
    job: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, Failure> {
    thread::scope(|scope| {
        let running = thread::Builder::new()
            .stack_size(COMPUTE_STACK)
            .spawn_scoped(scope, job)
            .map_err(EngineError::Thread)?;
        match running.join() {
            Ok(result) => Ok(result.map_err(Into::into)?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Prints generated texts: a single one as it grows, several one after the other, each as soon as
/// it and all before it are completed.
struct Face<'a> {
    args: &'a GenerateArgs,
    texts: &'a [String],
    prompts: &'a [Vec<u32>],
    replies: Vec<GrowingText<'a>>,
    /// Text of each prompt so far.
    parts: Vec<String>,
    /// Which texts are completed.
    continuations: Vec<Option<Continuation>>,
    /// Number of texts that were printed.
    num_shown: usize,
    out: Output,
    /// Why the output was lost.
    lost: Option<OutputError>,
    is_terminal: bool,
}

impl Face<'_> {
    fn hear(&mut self, idx: usize, heard: Heard) -> Verdict {
        match heard {
            Heard::Token(id) => {
                let piece = self.replies[idx].push(id);
                self.show(idx, &piece);
            }
            Heard::End(continuation) => {
                let rest = self.replies[idx].finish();
                self.show(idx, &rest);
                self.continuations[idx] = Some(continuation);
                self.show_finished();
            }
        }
        if !self.out.is_open() || reader_is_gone() {
            Verdict::EndAll
        } else if self.replies[idx].is_stopped() {
            Verdict::EndPrompt
        } else {
            Verdict::GoOn
        }
    }

    fn show(&mut self, idx: usize, piece: &str) {
        self.parts[idx] += piece;
        if self.texts.len() == 1 && !self.args.json && !piece.is_empty() {
            self.write(piece);
        }
    }

    /// A pipe gets the text as it is; for a terminal control characters are removed.
    fn write(&mut self, text: &str) {
        let written = if self.is_terminal {
            self.out.write(&sanitize::text(text))
        } else {
            self.out.write(text)
        };
        self.lost = self.lost.take().or(written.err());
    }

    /// Prints completed texts, in the order of the prompts.
    fn show_finished(&mut self) {
        while let Some(continuation) =
            self.continuations.get(self.num_shown).and_then(Option::as_ref)
        {
            let idx = self.num_shown;
            let text = std::mem::take(&mut self.parts[idx]);
            if self.args.json {
                let record = self.record(idx, &text, continuation);
                self.write(&(sanitize::json(&record.to_string()).into_owned() + "\n"));
            } else if self.texts.len() == 1 {
                self.write("\n");
            } else {
                stderr().try_write(&format!("[{}] {}\n", idx + 1, sanitize_line(&self.texts[idx])));
                self.write(&(text + "\n"));
            }
            self.num_shown += 1;
        }
    }

    fn record(&self, idx: usize, text: &str, continuation: &Continuation) -> Value {
        let end = if self.replies[idx].is_stopped() {
            "stop"
        } else if continuation.ids.len() == self.args.max_new_tokens {
            "length"
        } else {
            "end_of_text"
        };
        json!({
            "prompt": self.texts[idx], "text": text, "ids": continuation.ids, "end": end,
            "num_prompt_tokens": self.prompts[idx].len(), "num_new_tokens": continuation.ids.len(), "has_slid": continuation.has_slid,
        })
    }
}
