//! `patchtui bench prepare`: speed of tokenization. Start at [`prepare`].

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf, absolute};
use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use crate::advice::Failure;
use crate::bench::document::FORMAT_VERSION;
use crate::bench::lines::{folded, joined};
use crate::bench::scratch::ScratchFolder;
use crate::bench::{show, use_threads};
use crate::cli::BenchPrepareArgs;
use crate::config::{Count, RunConfig, Share, TextSource};
use crate::data::grammar::Grammar;
use crate::data::{PrepareRequest, TextRules, find_files, prepare as prepare_text};
use crate::machine::processor::Processor;
use crate::text::format;

/// Validation share: every text is split; the held-out part is tokenized too.
const HELD_OUT: f64 = 0.01;

/// What was measured.
#[derive(Debug, Serialize)]
struct PrepareDocument {
    /// Version of this format.
    format_version: u32,
    /// `prepare`.
    bench: &'static str,
    patchtui: &'static str,
    config: String,
    /// `demo`, `bytes`, or the path of a file.
    tokenizer: String,
    threads: usize,
    /// CPU model; null if the system does not report it.
    cpu: Option<String>,
    /// Origin of the text: `files` or `grammar`.
    source: &'static str,
    files: u64,
    documents: u64,
    /// Bytes of text, without JSON quoting.
    text_bytes: u64,
    tokens: u64,
    /// Seconds for reading, tokenizing and writing; text is generated before.
    seconds: f64,
    bytes_per_second: f64,
    tokens_per_second: f64,
}

/// Tokenizes a text and reports the speed. Returns the exit code.
///
/// # Errors
/// When the text or the tokenizer cannot be used.
pub fn prepare(args: &BenchPrepareArgs, mut config: RunConfig) -> Result<u8, Failure> {
    use_threads(config.threads)?;
    let scratch = ScratchFolder::new()?;
    let source = choose_text(args, &mut config, scratch.path())?;
    let cache = scratch.path().join("cache");
    let request = PrepareRequest {
        data: &config.data,
        seed: config.seed,
        generated_tokens: 0,
        block_tokens: 1,
        cache: &cache,
        trained_on: None,
        rules: TextRules::Current,
    };
    let started = Instant::now();
    let prepared = prepare_text(&request, &mut |_, _, _| ControlFlow::Continue(()))?;
    let seconds = started.elapsed().as_secs_f64();
    let tokens = prepared.train.len() + prepared.validation.len();
    let document = PrepareDocument {
        format_version: FORMAT_VERSION,
        bench: "prepare",
        patchtui: env!("CARGO_PKG_VERSION"),
        config: config.name.clone(),
        tokenizer: config.data.tokenizer.clone(),
        threads: rayon::current_num_threads(),
        cpu: Processor::of_this_machine().model,
        source,
        files: prepared.report.files,
        documents: prepared.report.documents,
        text_bytes: prepared.report.text_bytes,
        tokens,
        seconds,
        bytes_per_second: prepared.report.text_bytes as f64 / seconds,
        tokens_per_second: tokens as f64 / seconds,
    };
    show(&document, args.json, text)?;
    Ok(0)
}

/// Points `config` at the files of --text, its own files, or generated files in `scratch`; returns
/// which kind.
fn choose_text(
    args: &BenchPrepareArgs,
    config: &mut RunConfig,
    scratch: &Path,
) -> Result<&'static str, Failure> {
    let (mut files, source) = match config.data.source() {
        _ if !args.texts.is_empty() => (args.texts.clone(), "files"),
        TextSource::Files(files) => (files.to_vec(), "files"),
        TextSource::Generated(_) => (vec![generated(args, config, scratch)?], "grammar"),
    };
    for file in &mut files {
        *file = absolute(&*file).map_err(|error| Failure::io(file, &error))?;
    }
    find_files(&files)?;
    let data = &mut config.data;
    (data.files, data.generator) = (Some(files), None);
    let share = Share::new(HELD_OUT).map_err(|message| {
        Failure::failed(message, "this is a bug in patchtui: please report it")
    })?;
    (data.validation_files, data.validation_share) = (None, Some(share));
    Ok(source)
}

/// Writes the requested number of bytes of stories, one record per story.
fn generated(
    args: &BenchPrepareArgs,
    config: &RunConfig,
    folder: &Path,
) -> Result<PathBuf, Failure> {
    let bytes = args
        .bytes
        .parse::<Count>()
        .map_err(|message| Failure::usage(message, "use --bytes 16M"))?;
    let path = folder.join("stories.jsonl");
    let io = |error: std::io::Error| Failure::io(&path, &error);
    let mut file = BufWriter::new(File::create(&path).map_err(io)?);
    let mut written = 0;
    for story in Grammar::built_in().documents(config.seed) {
        written += story.len() as u64;
        writeln!(file, "{}", json!({ &config.data.text_field: story })).map_err(io)?;
        if written >= bytes.0 {
            break;
        }
    }
    file.into_inner().map_err(|error| io(error.into_error()))?.sync_all().map_err(io)?;
    Ok(path)
}

fn text(document: &PrepareDocument) -> String {
    let PrepareDocument { tokenizer, source, .. } = document;
    let what = format!(
        "{} of text from {source}, tokenizer {tokenizer}, {}",
        format::bytes(document.text_bytes),
        format::counted(document.threads, "thread")
    );
    let mut lines = folded("bench", &what);
    lines.extend(folded("cpu", document.cpu.as_deref().unwrap_or("unknown model")));
    lines.extend(folded(
        "tokens",
        &format!("{} in {}", format::count(document.tokens), format::duration(document.seconds)),
    ));
    lines.extend(folded(
        "speed",
        &format!(
            "{}/s, {} tok/s",
            format::bytes(document.bytes_per_second as u64),
            format::rate(document.tokens_per_second)
        ),
    ));
    joined(&lines)
}
