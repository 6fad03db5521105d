//! Text to token ids and back.
//!
//! Three kinds: plain bytes, the built-in demo vocabulary, and any Hugging Face `tokenizer.json`.
//! Adds no special tokens; [`crate::data::prepare`] adds those of documents.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use tokenizers::{ModelWrapper, Tokenizer as HuggingFace};

use crate::config::DataConfig;
use crate::data::DataError;
use crate::data::losses::{LossTable, Losses};
use crate::data::special_names::{Said, SpecialNames};
use crate::data::text::without_mark;
use crate::data::tokenizer_file::{TokenizerFile, reason_against_growth};

/// The built-in demo vocabulary: a byte-level BPE, trained by `patchtui tokenizer train` from the
/// built-in grammar's text.
const DEMO: &str = include_str!("../../assets/demo-tokenizer.json");

/// BOS tokens, in order of preference.
const BOS_NAMES: [&str; 6] =
    ["<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>", "<|endoftext|>", "[CLS]"];
/// EOS tokens, in order of preference.
const EOS_NAMES: [&str; 5] = ["</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>", "[SEP]"];

/// Padding tokens, in order of preference.
const PAD_NAMES: [&str; 4] = ["<pad>", "[PAD]", "<|pad|>", "<PAD>"];

/// The two bytes that never occur in UTF-8, used by `"bytes"` for BOS and EOS.
const BYTE_BOS: u32 = 0xFE;
const BYTE_EOS: u32 = 0xFF;

/// The largest known tokenizer files have tens of megabytes.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Maximum vocabulary size as a multiple of the number of tokens, plus a constant, before the ids
/// are considered broken.
const ROWS_PER_TOKEN: usize = 16;
const FREE_ROWS: usize = 1 << 16;

/// Turns text into token ids and back; cheap to clone.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    choice: String,
    encoding: Encoding,
    vocab_size: usize,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    /// Vocabulary size of the model, if it has no row for the padding token.
    table: Option<usize>,
    adds_bos: bool,
    fingerprint: String,
    /// What it can lose of a text.
    losses: Arc<LossTable>,
    /// Factor by which its normalizer can lengthen a text.
    growth: f64,
    /// Which settings of its file are ignored, one sentence each.
    notes: Vec<String>,
}

#[derive(Debug, Clone)]
enum Encoding {
    /// Every byte is its own id.
    Bytes,
    /// A tokenizer file.
    File { model: Arc<HuggingFace>, json: Arc<str> },
}

impl Tokenizer {
    /// Loads `"bytes"`, `"demo"`, or the tokenizer file at a path.
    ///
    /// # Errors
    /// When the file cannot be read or is not a tokenizer.
    pub fn load(choice: &str) -> Result<Self, DataError> {
        match choice {
            "bytes" => Ok(Self::bytes()),
            "demo" => Self::from_json(choice, DEMO),
            path => {
                let bad =
                    |reason: String| DataError::BadTokenizer { choice: path.to_owned(), reason };
                let metadata = fs::metadata(path).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => DataError::NoTokenizerFile { path: path.into() },
                    _ => bad(error.to_string()),
                })?;
                // A pipe or a device may never end.
                if !metadata.is_file() {
                    return Err(bad("it is not a regular file".into()));
                }
                if metadata.len() > MAX_FILE_BYTES {
                    return Err(bad(format!(
                        "it has {} bytes, more than any tokenizer",
                        metadata.len()
                    )));
                }
                let mut bytes = Vec::new();
                File::open(path)
                    .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes))
                    .map_err(|error| bad(error.to_string()))?;
                let json =
                    String::from_utf8(bytes).map_err(|_| bad("it is not UTF-8 text".into()))?;
                let names = SpecialNames::beside(Path::new(path)).map_err(bad)?;
                Self::from_json(path, without_mark(&json))
                    .map(|tokenizer| tokenizer.with_names(&names))
            }
        }
    }

    fn bytes() -> Self {
        let fingerprint = blake3::hash(b"bytes").to_hex().to_string();
        Self {
            choice: "bytes".into(),
            encoding: Encoding::Bytes,
            vocab_size: 256,
            bos: Some(BYTE_BOS),
            eos: Some(BYTE_EOS),
            pad: None,
            table: None,
            adds_bos: true,
            fingerprint,
            losses: Arc::default(),
            growth: 1.0,
            notes: Vec::new(),
        }
    }

    /// Builds a tokenizer from the text of a tokenizer file.
    pub(crate) fn from_json(choice: &str, json: &str) -> Result<Self, DataError> {
        let bad = |reason: String| DataError::BadTokenizer { choice: choice.to_owned(), reason };
        let file = TokenizerFile::read(json).map_err(bad)?;
        let mut model: HuggingFace =
            json.parse().map_err(|error: tokenizers::Error| bad(error.to_string()))?;
        // A file may carry the truncation and padding settings of the model it was saved with;
        // training text is never cut or padded.
        model.with_truncation(None).map_err(|error| bad(error.to_string()))?;
        model.with_padding(None);
        let notes = switch_off_dropout(&mut model).into_iter().collect();
        let ids = model.get_vocab(true);
        let Some(largest_id) = ids.values().max().map(|id| *id as usize) else {
            return Err(bad("its vocabulary is empty".into()));
        };
        // Ids may have gaps, and the embedding table needs a row for the largest; an absurd gap
        // means a broken file.
        if largest_id >= i32::MAX as usize || largest_id > ROWS_PER_TOKEN * ids.len() + FREE_ROWS {
            return Err(bad(format!("it has {} tokens, but ids up to {largest_id}", ids.len())));
        }
        let first_known = |names: &[&str]| names.iter().find_map(|name| model.token_to_id(name));
        let (bos, eos) = (first_known(&BOS_NAMES), first_known(&EOS_NAMES));
        let adds_bos = bos.is_some() && first_of_empty(&model) == bos;
        let unknown =
            file.model.unknown_id().or_else(|| model.token_to_id(file.model.unknown_token()?));
        Ok(Self {
            choice: choice.to_owned(),
            vocab_size: largest_id + 1,
            bos,
            eos,
            pad: first_known(&PAD_NAMES),
            table: None,
            adds_bos,
            fingerprint: blake3::hash(json.as_bytes()).to_hex().to_string(),
            losses: Arc::new(LossTable::of(&model, largest_id + 1, unknown, [bos, eos])),
            growth: file.growth(),
            notes,
            encoding: Encoding::File { model: Arc::new(model), json: json.into() },
        })
    }

    /// Applies the entries of the files beside the tokenizer file.
    fn with_names(mut self, names: &SpecialNames) -> Self {
        let Encoding::File { model, .. } = &self.encoding else { return self };
        let id = |said: &Said, guess: Option<u32>| match said {
            Said::Nothing => guess,
            Said::NoToken => None,
            Said::Token(name) => model.token_to_id(name),
        };
        let first = first_of_empty(model);
        let (bos, eos) = (id(&names.bos, self.bos), id(&names.eos, self.eos));
        self.pad = id(&names.pad, self.pad);
        (self.bos, self.eos) = (bos, eos);
        self.adds_bos = bos.is_some() && names.add_bos.unwrap_or(first == bos);
        self
    }

    /// The same for a network with a vocabulary of `rows`.
    ///
    /// A padding token that was added after training has the first id beyond the vocabulary, and no
    /// text needs it: as in transformers, such a tokenizer can be used, and only a text that
    /// spells out the token cannot be encoded.
    #[must_use]
    pub fn of_table(mut self, rows: usize) -> Self {
        if self.rows_for(Some(rows)) < self.vocab_size {
            (self.vocab_size, self.table) = (rows, Some(rows));
        }
        self
    }

    /// Minimum vocabulary size of a model that has `rows`: the padding token may lie beyond it.
    #[must_use]
    pub fn rows_for(&self, rows: Option<usize>) -> usize {
        // Some tokenizers pad with a token that texts do need.
        let pad = self.pad.filter(|_| self.pad != self.bos && self.pad != self.eos);
        let is_pad_beyond = |rows: &usize| {
            rows + 1 == self.vocab_size && pad.is_some_and(|pad| pad as usize == *rows)
        };
        rows.filter(is_pad_beyond).unwrap_or(self.vocab_size)
    }

    /// Number of ids, special tokens included: every id is smaller.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Whether a text certainly has at most as many tokens as bytes, except for one leading space.
    ///
    /// With a normalizer, which may lengthen a text, nothing is certain.
    pub(crate) fn never_adds_tokens(&self) -> bool {
        match &self.encoding {
            Encoding::Bytes => true,
            Encoding::File { model, .. } => model.get_normalizer().is_none(),
        }
    }

    /// The token ids of `text`, without added special tokens.
    ///
    /// A special token that is spelled out in the text becomes that token, as in Hugging Face's
    /// tokenizers.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        match &self.encoding {
            Encoding::Bytes => Ok(text.bytes().map(u32::from).collect()),
            Encoding::File { model, .. } => {
                if let Some(reason) = reason_against_growth(self.growth, text.len()) {
                    return Err(DataError::Encode { reason });
                }
                match model.encode_fast(text, false) {
                    Ok(encoding) => self.within_table(encoding.get_ids().to_vec()),
                    Err(error) => Err(DataError::Encode { reason: error.to_string() }),
                }
            }
        }
    }

    /// The characters of `text` that the tokenizer drops.
    pub(crate) fn dropped(&self, text: &str) -> Losses {
        match &self.encoding {
            Encoding::Bytes => Losses::default(),
            Encoding::File { model, .. } => Losses::of_text(&self.losses, model, text),
        }
    }

    /// What the tokenizer can lose.
    pub(crate) fn losses(&self) -> &LossTable {
        &self.losses
    }

    /// Which settings of its file are ignored, one sentence each: those that make ids random.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    fn within_table(&self, ids: Vec<u32>) -> Result<Vec<u32>, DataError> {
        match self.table.filter(|rows| ids.iter().any(|id| *id as usize >= *rows)) {
            Some(rows) => Err(DataError::Encode {
                reason: format!(
                    "it contains the padding token, but the model has only {rows} rows and none \
                     for it"
                ),
            }),
            None => Ok(ids),
        }
    }

    /// The text of `ids`; special tokens and unknown ids are skipped, broken characters replaced.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        match &self.encoding {
            Encoding::Bytes => {
                let bytes: Vec<u8> =
                    ids.iter().filter(|id| **id < BYTE_BOS).map(|id| *id as u8).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Encoding::File { model, .. } => {
                // Some files do not mark BOS and EOS as special.
                let inside: Vec<u32> = ids
                    .iter()
                    .copied()
                    .filter(|id| Some(*id) != self.bos && Some(*id) != self.eos)
                    .collect();
                model.decode(&inside, true).unwrap_or_default()
            }
        }
    }

    /// Bytes of the text of `ids`; `None` if they cannot be decoded.
    pub(crate) fn decoded_bytes(&self, ids: &[u32]) -> Option<u64> {
        match &self.encoding {
            Encoding::Bytes => Some(ids.iter().filter(|id| **id < BYTE_BOS).count() as u64),
            Encoding::File { model, .. } => Some(model.decode(ids, true).ok()?.len() as u64),
        }
    }

    /// The token that begins a text.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// EOS token.
    #[must_use]
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The tokens at which generation stops: EOS, and BOS, since training texts need not have an
    /// EOS.
    #[must_use]
    pub fn ends_of_text(&self) -> Vec<u32> {
        let next = self.bos.filter(|bos| Some(*bos) != self.eos);
        self.eos.into_iter().chain(next).collect()
    }

    /// Whether encoding with special tokens, as for a prompt, begins with [`Self::bos`].
    #[must_use]
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// The same according to the tokenizer file alone, ignoring the files beside it; false for
    /// plain bytes.
    #[must_use]
    pub fn template_adds_bos(&self) -> bool {
        match &self.encoding {
            Encoding::Bytes => false,
            Encoding::File { model, .. } => self.bos.is_some() && first_of_empty(model) == self.bos,
        }
    }

    /// The text of token `id` in the vocabulary, normalized if the file says so; plain bytes have
    /// no such texts.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        match &self.encoding {
            Encoding::Bytes => None,
            Encoding::File { model, .. } => model.id_to_token(id),
        }
    }

    /// Hash of the tokenizer file, in hexadecimal. BOS and EOS come from files beside it: see
    /// [`Self::bos`].
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Name or path that it was loaded from.
    #[must_use]
    pub fn choice(&self) -> &str {
        &self.choice
    }

    /// The text of its `tokenizer.json`, for exports; plain bytes have none.
    #[must_use]
    pub fn json(&self) -> Option<&str> {
        match &self.encoding {
            Encoding::Bytes => None,
            Encoding::File { json, .. } => Some(json),
        }
    }

    /// The special tokens around a document, as the configuration requests them.
    ///
    /// # Errors
    /// When the tokenizer lacks a requested one.
    pub(crate) fn special_tokens(&self, config: &DataConfig) -> Result<SpecialTokens, DataError> {
        let wanted = |wanted: bool, id: Option<u32>, token, key| match (wanted, id) {
            (false, _) => Ok(None),
            (true, Some(id)) => Ok(Some(id)),
            (true, None) => {
                Err(DataError::NoSpecialToken { choice: self.choice.clone(), token, key })
            }
        };
        Ok(SpecialTokens {
            bos: wanted(config.add_bos, self.bos, "BOS", "data.add_bos")?,
            eos: wanted(config.add_eos, self.eos, "EOS", "data.add_eos")?,
        })
    }
}

/// Makes BPE merges deterministic, so that a text has one encoding; returns a note if they were
/// not.
fn switch_off_dropout(model: &mut HuggingFace) -> Option<String> {
    let ModelWrapper::BPE(bpe) = model.get_model() else { return None };
    let dropout = bpe.dropout.filter(|dropout| *dropout > 0.0)?;
    let mut certain = bpe.clone();
    certain.dropout = None;
    model.with_model(certain);
    Some(format!(
        "ignored dropout = {dropout} in the tokenizer file, so that the same text always gets the \
         same tokens"
    ))
}

/// The token that an empty text begins with when special tokens are added.
fn first_of_empty(model: &HuggingFace) -> Option<u32> {
    model.encode("", true).ok()?.get_ids().first().copied()
}

/// The special tokens around each document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpecialTokens {
    /// BOS, before the document.
    pub bos: Option<u32>,
    /// EOS, after the document.
    pub eos: Option<u32>,
}

impl SpecialTokens {
    /// Number of tokens they add to a document.
    pub(crate) fn len(self) -> usize {
        usize::from(self.bos.is_some()) + usize::from(self.eos.is_some())
    }
}
