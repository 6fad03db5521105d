//! What a tokenizer loses of a text: characters without a token, unknown tokens, and control tokens
//! that the text spells out.
//!
//! [`Losses`] counts; [`LossTable`] lists what a tokenizer can lose.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use tokenizers::models::bpe::BPE;
use tokenizers::tokenizer::Model;
use tokenizers::{
    ModelWrapper, OffsetReferential, OffsetType, PreTokenizer, Tokenizer as HuggingFace,
};

/// Number of characters named as examples.
const NUM_EXAMPLES: usize = 5;

/// What a tokenizer can lose.
#[derive(Debug, Clone, Default)]
pub(crate) struct LossTable {
    /// Role of each id.
    kinds: Vec<Kind>,
    /// Characters that have tokens; `None` if the tokenizer drops none.
    known: Option<HashSet<char>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    /// Unknown token.
    Unknown,
    /// Control token, e.g. BOS or EOS.
    Control,
}

/// Counts of what was lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Losses {
    /// Tokens of text, without BOS and EOS of documents.
    pub tokens: u64,
    /// Unknown tokens.
    pub unknown_tokens: u64,
    /// Control tokens that the text spells out.
    pub control_tokens: u64,
    /// Characters checked, if the tokenizer can drop some.
    pub characters: u64,
    /// Characters dropped because they have no token.
    pub dropped_characters: u64,
    /// The first distinct dropped characters.
    pub dropped_examples: Vec<char>,
}

impl LossTable {
    /// What `model` can lose, with `vocab_size` ids; `unknown` is the unknown token, and `marks`
    /// are BOS and EOS.
    pub(crate) fn of(
        model: &HuggingFace,
        vocab_size: usize,
        unknown: Option<u32>,
        marks: [Option<u32>; 2],
    ) -> Self {
        let mut kinds = vec![Kind::Text; vocab_size];
        let special = model
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, _)| id);
        // Marks that the file does not list are in the vocabulary, but no text is encoded to them.
        let is_added = |id: &u32| model.get_added_tokens_decoder().contains_key(id);
        for id in special.chain(marks.into_iter().flatten().filter(is_added)) {
            kinds[id as usize] = Kind::Control;
        }
        if let Some(kind) = unknown.and_then(|id| kinds.get_mut(id as usize)) {
            *kind = Kind::Unknown;
        }
        let known = match model.get_model() {
            ModelWrapper::BPE(bpe) => known_characters(bpe, model),
            _ => None,
        };
        Self { kinds, known }
    }
}

/// The characters that have tokens, if other characters are dropped silently.
fn known_characters(bpe: &BPE, model: &HuggingFace) -> Option<HashSet<char>> {
    let has_bytes =
        || (0..=u8::MAX).all(|byte| bpe.token_to_id(&format!("<{byte:#04X}>")).is_some());
    if bpe.unk_token.is_some() || (bpe.byte_fallback && has_bytes()) {
        return None;
    }
    let affixes = [&bpe.continuing_subword_prefix, &bpe.end_of_word_suffix]
        .map(|affix| affix.as_deref().unwrap_or_default());
    let single = |token: &str| {
        let token = token.strip_prefix(affixes[0]).unwrap_or(token);
        let token = token.strip_suffix(affixes[1]).filter(|rest| !rest.is_empty()).unwrap_or(token);
        let mut characters = token.chars();
        characters.next().filter(|_| characters.next().is_none())
    };
    let known: HashSet<char> =
        model.get_vocab(false).keys().filter_map(|token| single(token)).collect();
    let all_bytes = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
    // A byte-level tokenizer with a token for every byte can encode any text.
    let is_byte_level = || {
        let mut probe = tokenizers::PreTokenizedString::from("\u{e9}");
        let split = model
            .get_pre_tokenizer()
            .is_some_and(|pre_tokenizer| pre_tokenizer.pre_tokenize(&mut probe).is_ok());
        split
            && probe
                .get_splits(OffsetReferential::Normalized, OffsetType::Byte)
                .iter()
                .any(|(text, ..)| text.contains("\u{c3}\u{a9}"))
    };
    (!all_bytes.iter().all(|byte| known.contains(byte)) || !is_byte_level()).then_some(known)
}

impl Losses {
    /// Counts the tokens of a text.
    pub(crate) fn count_tokens(&mut self, table: &LossTable, ids: &[u32]) {
        self.tokens += ids.len() as u64;
        for id in ids {
            match table.kinds.get(*id as usize) {
                Some(Kind::Unknown) => self.unknown_tokens += 1,
                Some(Kind::Control) => self.control_tokens += 1,
                Some(Kind::Text) | None => {}
            }
        }
    }

    /// The characters of `text` that `model` drops.
    pub(crate) fn of_text(table: &LossTable, model: &HuggingFace, text: &str) -> Self {
        let mut losses = Self::default();
        let Some(known) = &table.known else { return losses };
        let normalizer = model.get_normalizer();
        let mut parts = model.get_added_vocabulary().extract_and_normalize(normalizer, text);
        if model
            .get_pre_tokenizer()
            .is_some_and(|pre_tokenizer| pre_tokenizer.pre_tokenize(&mut parts).is_err())
        {
            return losses;
        }
        for (part, _, tokens) in parts.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            // A part with tokens is an added token.
            if tokens.is_some() {
                continue;
            }
            for character in part.chars() {
                losses.characters += 1;
                if !known.contains(&character) {
                    losses.dropped_characters += 1;
                    losses.add_example(character);
                }
            }
        }
        losses
    }

    /// Adds the counts of another text.
    pub(crate) fn add(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.unknown_tokens += other.unknown_tokens;
        self.control_tokens += other.control_tokens;
        self.characters += other.characters;
        self.dropped_characters += other.dropped_characters;
        other.dropped_examples.into_iter().for_each(|character| self.add_example(character));
    }

    /// The largest share of the text that was lost, with its description.
    #[must_use]
    pub fn worst(&self) -> (f64, String) {
        let share = |lost: u64, of: u64| if of == 0 { 0.0 } else { lost as f64 / of as f64 };
        let kinds = self.kinds().map(|(lost, of, note)| (share(lost, of), note));
        kinds.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default()
    }

    /// One sentence for each kind of loss.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.kinds().into_iter().filter(|(lost, ..)| *lost > 0).map(|(.., note)| note).collect()
    }

    /// Each kind of loss: how much was lost, of how much, and a sentence about it.
    fn kinds(&self) -> [(u64, u64, String); 3] {
        let Self { tokens, unknown_tokens, control_tokens, characters, .. } = *self;
        [
            (self.dropped_characters, characters, self.dropped_note()),
            (
                unknown_tokens,
                tokens,
                format!("{unknown_tokens} of {tokens} tokens are the unknown token"),
            ),
            (
                control_tokens,
                tokens,
                format!(
                    "{control_tokens} of {tokens} tokens are control tokens that the text spells \
                     out, such as the BOS token"
                ),
            ),
        ]
    }

    fn add_example(&mut self, character: char) {
        if self.dropped_examples.len() < NUM_EXAMPLES && !self.dropped_examples.contains(&character)
        {
            self.dropped_examples.push(character);
        }
    }

    fn dropped_note(&self) -> String {
        let examples: Vec<String> =
            self.dropped_examples.iter().map(|character| format!("{character:?}")).collect();
        let (lost, of) = (self.dropped_characters, self.characters);
        format!(
            "the tokenizer has no token for {lost} of {of} characters and dropped them (such as \
             {})",
            examples.join(", ")
        )
    }
}
