//! Size in bytes of the text behind a token stream, which turns nats per token into bits per byte.

use rayon::prelude::*;

use crate::data::{DataError, TokenStream, Tokenizer};

/// Tokens that are read at once.
const CHUNK_TOKENS: u64 = 1 << 18;
/// Tokens that are decoded at once, at most. Where a text is longer, and at its cut ends, a space
/// or a part of a character may be miscounted.
const MAX_DECODED_TOKENS: usize = 1 << 14;

/// Bytes of the text of the first `tokens` tokens of `stream`; BOS, EOS and other special tokens
/// have none. `None` if `is_stopped` says so in between, or if the tokenizer cannot decode its
/// tokens.
///
/// # Errors
/// As [`TokenStream::read`].
///
/// # Panics
/// If the stream has fewer tokens.
pub fn text_bytes(
    stream: &TokenStream,
    tokens: u64,
    tokenizer: &Tokenizer,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Option<u64>, DataError> {
    let mut bytes = 0;
    for start in (0..tokens).step_by(CHUNK_TOKENS as usize) {
        if is_stopped() {
            return Ok(None);
        }
        let mut ids = vec![0; CHUNK_TOKENS.min(tokens - start) as usize];
        stream.read(start, &mut ids)?;
        // Documents are decoded alone, as they were encoded: some tokenizers put a space in front
        // of each, and take it away again.
        let is_end = |id: &u32| Some(*id) == tokenizer.bos() || Some(*id) == tokenizer.eos();
        let parts =
            ids.par_split(is_end).flat_map(|document| document.par_chunks(MAX_DECODED_TOKENS));
        let Some(more) = parts.map(|part| tokenizer.decoded_bytes(part)).sum::<Option<u64>>()
        else {
            return Ok(None);
        };
        bytes += more;
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::config::{LoadRequest, load};
    use crate::data::{PrepareRequest, TextRules, prepare};

    /// The bytes of whole documents are counted exactly, whatever tokens they became.
    #[test]
    fn bytes_are_those_of_the_text_for_any_tokenizer() {
        let folder = tempfile::tempdir().unwrap();
        let texts = ["Once there was a fox. ", " naïve 漢字 😀\n", "\n\nOne day", "x"];
        let records: Vec<_> = texts
            .iter()
            .cycle()
            .take(400)
            .map(|text| serde_json::json!({ "text": text }).to_string())
            .collect();
        let records = records.join("\n");
        std::fs::write(folder.path().join("a.jsonl"), &records).unwrap();
        std::fs::write(folder.path().join("b.jsonl"), &records).unwrap();
        let expected: u64 = texts.iter().map(|text| 100 * text.len() as u64).sum();
        for tokenizer in ["bytes", "demo"] {
            let sets = [
                "data.files=['a.jsonl']",
                "data.validation_files=['b.jsonl']",
                &format!("data.tokenizer={tokenizer}"),
            ]
            .map(str::to_owned);
            let config =
                load(&LoadRequest { source: "demo", sets: &sets, current_dir: folder.path() })
                    .unwrap()
                    .config;
            let cache = folder.path().join("cache");
            let request = PrepareRequest {
                data: &config.data,
                seed: 1,
                generated_tokens: 0,
                block_tokens: 8,
                cache: &cache,
                trained_on: None,
                rules: TextRules::Current,
            };
            let prepared = prepare(&request, &mut |_, _, _| ControlFlow::Continue(())).unwrap();
            let found = text_bytes(
                &prepared.validation,
                prepared.validation.len(),
                &prepared.tokenizer,
                &|| false,
            )
            .unwrap();
            assert_eq!(found, Some(expected), "{tokenizer}");
        }
    }
}
