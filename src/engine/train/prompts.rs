//! Prompts of samples, without partial characters.

use crate::config::{RunConfig, TextSource};
use crate::data::{DataError, TokenStream, Tokenizer};

/// Number of validation tokens used as a prompt when the configuration has none.
const PROMPT_TOKENS: usize = 12;
/// Prompts for the built-in stories.
const STORY_PROMPTS: [&str; 2] = ["Once", "One"];

/// A prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SamplePrompt {
    /// Token ids.
    pub(super) ids: Vec<u32>,
    /// Text.
    pub(super) text: String,
}

/// The prompts of a run: those of the configuration, else story beginnings, else the start of the
/// validation text.
///
/// # Errors
/// When the tokenizer cannot encode one.
pub(super) fn prompts(
    config: &RunConfig,
    validation: &TokenStream,
    tokenizer: &Tokenizer,
) -> Result<Vec<SamplePrompt>, DataError> {
    let bos = tokenizer.bos().filter(|_| config.data.add_bos);
    let written = |text: &str| -> Result<SamplePrompt, DataError> {
        Ok(SamplePrompt {
            ids: bos.into_iter().chain(tokenizer.encode(text)?).collect(),
            text: text.to_owned(),
        })
    };
    let configured = &config.samples.prompts;
    match config.data.source() {
        _ if !configured.is_empty() => configured.iter().map(|text| written(text)).collect(),
        TextSource::Generated(_) => STORY_PROMPTS.iter().map(|text| written(text)).collect(),
        TextSource::Files(_) => {
            let mut ids = vec![0; PROMPT_TOKENS.min(validation.len() as usize)];
            validation.read(0, &mut ids)?;
            let SamplePrompt { ids, text } = whole_characters(tokenizer, &ids);
            let bos = bos.filter(|bos| ids.first() != Some(bos));
            Ok(vec![SamplePrompt { ids: bos.into_iter().chain(ids).collect(), text }])
        }
    }
}

/// Drops tokens at both ends that contain only part of a character.
///
/// The ids in between stay the same: re-encoding the text could produce other ids.
fn whole_characters(tokenizer: &Tokenizer, ids: &[u32]) -> SamplePrompt {
    let broken = char::REPLACEMENT_CHARACTER;
    let mut ids = ids;
    let mut text = tokenizer.decode(ids);
    while text.starts_with(broken) && !ids.is_empty() {
        ids = &ids[1..];
        text = tokenizer.decode(ids);
    }
    while text.ends_with(broken) && !ids.is_empty() {
        ids = &ids[..ids.len() - 1];
        text = tokenizer.decode(ids);
    }
    SamplePrompt { ids: ids.to_vec(), text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every cut of a text of characters of one to four bytes gives whole characters, and the ids
    /// encode exactly these.
    #[test]
    fn a_prompt_never_begins_or_ends_inside_a_character() {
        let tokenizer = Tokenizer::load("bytes").unwrap();
        let text = "aé漢😀b";
        let ids = tokenizer.encode(text).unwrap();
        for start in 0..ids.len() {
            for end in start..=ids.len() {
                let prompt = whole_characters(&tokenizer, &ids[start..end]);
                assert!(text.contains(&prompt.text), "{start}..{end}: {:?}", prompt.text);
                assert_eq!(prompt.ids, tokenizer.encode(&prompt.text).unwrap(), "{start}..{end}");
                let first = (start..=end).find(|at| text.is_char_boundary(*at)).unwrap_or(end);
                let last =
                    (start..=end).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(start);
                assert_eq!(
                    prompt.text,
                    text.get(first..last).unwrap_or_default(),
                    "{start}..{end}"
                );
            }
        }
    }

    #[test]
    fn special_tokens_and_odd_encodings_of_the_text_stay_in_the_prompt() {
        let tokenizer = Tokenizer::load("demo").unwrap();
        let bos = tokenizer.bos().unwrap();
        // A word as single letters, which no encoder would produce.
        let letters: Vec<u32> = ["O", "n", "c", "e"]
            .iter()
            .flat_map(|letter| tokenizer.encode(letter).unwrap())
            .collect();
        let ids = [&[bos], letters.as_slice()].concat();
        assert_ne!(tokenizer.encode("Once").unwrap(), letters);
        assert_eq!(whole_characters(&tokenizer, &ids), SamplePrompt { ids, text: "Once".into() });
    }
}
