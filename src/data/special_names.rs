//! Reads the names of special tokens from the files beside a `tokenizer.json`.
//!
//! A `tokenizer.json` does not say which tokens are BOS and EOS; `tokenizer_config.json` and, in
//! older directories, `special_tokens_map.json` do. Start at [`SpecialNames::beside`].

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use serde_json::{Map, Value};

use crate::data::text::without_mark;

/// Files beside a `tokenizer.json` that name its special tokens; the first one with an entry wins.
pub const TOKENIZER_COMPANIONS: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];

/// These files are small, but some list a thousand reserved tokens.
const MAX_BYTES: u64 = 64 << 20;

/// Entry for one special token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Said {
    /// No entry.
    #[default]
    Nothing,
    /// Explicitly no such token.
    NoToken,
    /// The token with this text.
    Token(String),
}

/// The entries of the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SpecialNames {
    pub bos: Said,
    pub eos: Said,
    pub pad: Said,
    /// Whether encoding with special tokens adds BOS.
    pub add_bos: Option<bool>,
}

impl SpecialNames {
    /// Reads the files in the folder of the tokenizer at `path`, if they exist.
    ///
    /// # Errors
    /// When one exists and is not a JSON object.
    pub(crate) fn beside(path: &Path) -> Result<Self, String> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut names = Self::default();
        for file in TOKENIZER_COMPANIONS {
            let problem = |what: String| format!("{file} beside it {what}");
            let text = match read_limited(&folder.join(file)) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(problem(format!("cannot be read: {error}"))),
            };
            let fields: Map<String, Value> = serde_json::from_str(without_mark(&text))
                .map_err(|error| problem(format!("is not a JSON object: {error}")))?;
            names.bos = names.bos.or(&fields, "bos_token");
            names.eos = names.eos.or(&fields, "eos_token");
            names.pad = names.pad.or(&fields, "pad_token");
            names.add_bos =
                names.add_bos.or_else(|| fields.get("add_bos_token").and_then(Value::as_bool));
        }
        Ok(names)
    }
}

impl Said {
    /// This entry if there is one, else that of `fields`: a token is its text, or an object with
    /// its text.
    fn or(self, fields: &Map<String, Value>, key: &str) -> Self {
        let (Self::Nothing, Some(value)) = (&self, fields.get(key)) else { return self };
        let text = value.as_str().or_else(|| value.get("content").and_then(Value::as_str));
        text.filter(|text| !text.is_empty())
            .map_or(Self::NoToken, |text| Self::Token(text.to_owned()))
    }
}

fn read_limited(path: &Path) -> io::Result<String> {
    // A pipe or a device may never end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}
