//! `patchtui tokenizer`: trains tokenizers.

use crate::cli::TokenizerCommand;
use crate::commands::CommandError;
use crate::data::{TrainTokenizerRequest, train_tokenizer};
use crate::report::{format, print, tell};

/// Runs a tokenizer subcommand. Returns the exit code.
///
/// # Errors
/// When the text cannot be read, or the tokenizer file cannot be written.
pub fn tokenizer(command: TokenizerCommand) -> Result<u8, CommandError> {
    let TokenizerCommand::Train { files, vocab_size, output, text_field, force } = command;
    let report = train_tokenizer(&TrainTokenizerRequest { files, vocab_size, output, text_field, force })?;
    let (documents, bytes) = (format::count(report.documents), format::bytes(report.text_bytes));
    report.notes.iter().for_each(|note| tell(note));
    print(&format!("{} tokens from {documents} documents ({bytes}) in {}\n", report.vocab_size, report.output.display()));
    Ok(0)
}
