//! `patchtui tokenizer`: trains tokenizers.

use std::io;
use std::path::Path;

use crate::advice::Audience;
use crate::advice::Failure;
use crate::cli::TokenizerCommand;
use crate::data::{DataError, TrainTokenizerRequest, train_tokenizer};
use crate::record::ResultFile;
use crate::record::files::create_directory;
use crate::report::{print, tell};
use crate::text::format;

/// Runs a tokenizer subcommand. Returns the exit code.
///
/// # Errors
/// When the text cannot be read, or the tokenizer file cannot be written; nothing has changed on
/// disk then.
pub fn tokenizer(command: TokenizerCommand) -> Result<u8, Failure> {
    let TokenizerCommand::Train { files, vocab_size, output, text_field, force } = command;
    let mut file = open(&output, force).map_err(|error| cannot_write(&output, &error))?;
    let (vocabulary, report) =
        train_tokenizer(&TrainTokenizerRequest { files, vocab_size, text_field })
            .map_err(|error| Failure::told_to(Audience::TokenizerTraining, &error))?;
    file.append(vocabulary.json.as_bytes()).map_err(|error| Failure::io(&output, &error))?;
    let (documents, bytes) = (format::count(report.documents), format::bytes(report.text_bytes));
    let noun = if report.documents == 1 { "document" } else { "documents" };
    report.notes.iter().for_each(|note| tell(&format!("note: {note}")));
    print(&format!(
        "Wrote {}: {} tokens, trained on {documents} {noun} ({bytes})\n",
        output.display(),
        report.vocab_size
    ))?;
    Ok(0)
}

/// Checks the path before the text is read, and creates its folder.
fn open(output: &Path, force: bool) -> io::Result<ResultFile> {
    if let Some(folder) = output.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        create_directory(folder)?;
    }
    if force { ResultFile::open(output) } else { ResultFile::open_new(output) }
}

fn cannot_write(output: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AlreadyExists => DataError::Exists { path: output.to_owned() }.into(),
        _ => Failure::io(output, error),
    }
}
