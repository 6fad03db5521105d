//! Settings of a `tokenizer.json`, and the parts of it that could exhaust memory.
//!
//! Start at [`TokenizerFile::read`].

use serde::Deserialize;
use serde_json::Value;

/// Regular expressions of known tokenizers have at most some hundred bytes; compiling one takes a
/// hundred times its size.
const MAX_REGEX_BYTES: usize = 64 << 10;
/// A normalizer that lengthens a text by at most this factor is used for any text, as those of
/// known tokenizers.
const USUAL_GROWTH: f64 = 16.0;
/// Any other one is used as long as a normalized text cannot become longer than this.
const MAX_GROWN_BYTES: f64 = 16e6;

/// The parts of a `tokenizer.json` that are checked before it is loaded.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct TokenizerFile {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    pub model: ModelFields,
}

/// The fields of its model except the vocabulary.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ModelFields {
    #[serde(default)]
    unk_token: Value,
    #[serde(default)]
    unk_id: Value,
}

impl ModelFields {
    /// The unknown token.
    pub(crate) fn unknown_token(&self) -> Option<&str> {
        self.unk_token.as_str()
    }

    /// Id of the unknown token.
    pub(crate) fn unknown_id(&self) -> Option<u32> {
        self.unk_id.as_u64().and_then(|id| u32::try_from(id).ok())
    }
}

impl TokenizerFile {
    /// Parses and checks the text of the file. Parts of the wrong type are left to the tokenizer's
    /// own loader, which reports them.
    ///
    /// # Errors
    /// When it is not JSON, which that loader does not always survive, and when a regular
    /// expression is too long to compile.
    pub(crate) fn read(json: &str) -> Result<Self, String> {
        let file: Self = serde_json::from_str(json)
            .map_err(|error| format!("it is not a JSON object: {error}"))?;
        if strips_ends(&file.decoder) {
            return Err("its decoder strips the ends of tokens (Strip with stop > 0), which the \
                        tokenizers library cannot do for short tokens"
                .into());
        }
        let longest = [&file.normalizer, &file.pre_tokenizer, &file.post_processor, &file.decoder]
            .map(longest_regex)
            .into_iter()
            .max();
        match longest.filter(|longest| *longest > MAX_REGEX_BYTES) {
            Some(longest) => Err(format!(
                "a regular expression in it has {longest} bytes, more than {MAX_REGEX_BYTES}"
            )),
            None => Ok(file),
        }
    }

    /// Factor by which the normalizer can lengthen a text.
    pub(crate) fn growth(&self) -> f64 {
        growth(&self.normalizer)
    }
}

/// Why a text of `bytes` must not be passed to a normalizer of this `growth`, if so.
pub(crate) fn reason_against_growth(growth: f64, bytes: usize) -> Option<String> {
    let grown = growth * bytes as f64;
    let is_bounded = growth <= USUAL_GROWTH || grown <= MAX_GROWN_BYTES;
    (!is_bounded).then(|| {
        format!(
            "its normalizer can make a text {growth:.0} times as long, here {bytes} bytes to \
             {grown:.0}"
        )
    })
}

fn longest_regex(part: &Value) -> usize {
    match part {
        Value::Object(fields) => {
            let own = fields.get("Regex").and_then(Value::as_str).map_or(0, str::len);
            fields.values().map(longest_regex).max().unwrap_or(0).max(own)
        }
        Value::Array(parts) => parts.iter().map(longest_regex).max().unwrap_or(0),
        _ => 0,
    }
}

fn growth(normalizer: &Value) -> f64 {
    let length = |value: &Value| value.as_str().map_or(0, str::len) as f64;
    let factor = match normalizer["type"].as_str() {
        Some("Sequence") => {
            normalizer["normalizers"].as_array().into_iter().flatten().map(growth).product()
        }
        Some("Replace") => {
            // A regular expression may match the empty string, and so between any two characters.
            let matched = length(&normalizer["pattern"]["String"]).max(1.0);
            let inserted = f64::from(u8::from(normalizer["pattern"]["Regex"].is_string()));
            length(&normalizer["content"]) / matched + inserted
        }
        // Each part of a text between added tokens gets one.
        Some("Prepend") => length(&normalizer["prepend"]),
        _ => 1.0,
    };
    f64::max(factor, 1.0)
}

/// Whether a decoder strips the ends of tokens: the library then panics on tokens shorter than what
/// it strips.
fn strips_ends(decoder: &Value) -> bool {
    match decoder {
        Value::Object(fields) => {
            let is_strip = fields.get("type").and_then(Value::as_str) == Some("Strip")
                && fields.get("stop").and_then(Value::as_u64) != Some(0);
            is_strip || fields.values().any(strips_ends)
        }
        Value::Array(parts) => parts.iter().any(strips_ends),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(normalizer: &Value) -> TokenizerFile {
        TokenizerFile::read(
            &json!({ "normalizer": normalizer, "model": { "vocab": {} } }).to_string(),
        )
        .unwrap()
    }

    #[test]
    fn a_decoder_that_strips_the_ends_of_tokens_is_refused() {
        let file = |stop: u32| {
            format!(
                r#"{{"decoder":{{"type":"Sequence","decoders":[{{"type":"Fuse"}},{{"type":"Strip","content":" ","start":1,"stop":{stop}}}]}}}}"#
            )
        };
        assert!(TokenizerFile::read(&file(0)).is_ok());
        assert!(TokenizerFile::read(&file(2)).unwrap_err().contains("Strip with stop > 0"));
    }

    #[test]
    fn the_growth_of_a_text_is_bounded_by_the_normalizers_it_goes_through() {
        let replace = |pattern: &str, content: &str| json!({ "type": "Replace", "pattern": { "String": pattern }, "content": content });
        let check = |normalizer: Value, expected: f64| {
            assert!((read(&normalizer).growth() - expected).abs() < 1e-9, "{normalizer}");
        };
        check(Value::Null, 1.0);
        check(json!({ "type": "NFC" }), 1.0);
        check(replace(" ", "\u{2581}"), 3.0);
        check(replace("``", "\""), 1.0);
        let thousand = replace("e", &"e".repeat(1000));
        check(
            json!({ "type": "Sequence", "normalizers": [thousand, { "type": "Lowercase" }, thousand] }),
            1e6,
        );
        check(
            json!({ "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": "\u{2581}" }),
            4.0,
        );
        assert_eq!(
            reason_against_growth(3.0, usize::MAX),
            None,
            "LLaMA-2's normalizer is used for any text"
        );
        assert_eq!(reason_against_growth(1000.0, 1000), None);
        assert!(reason_against_growth(1e9, 4).unwrap().contains("1000000000 times"));
    }

    #[test]
    fn what_is_not_json_is_refused_and_a_field_of_another_type_hides_nothing() {
        assert!(
            TokenizerFile::read("{\"decoder\": {\"type\": \"Fuse\" x}}")
                .unwrap_err()
                .contains("not a JSON object")
        );
        let long = json!({ "type": "Split", "pattern": { "Regex": "a".repeat(1 << 20) } });
        let file = json!({ "pre_tokenizer": long, "model": { "type": "Unigram", "unk_token": 5, "unk_id": "x" } });
        assert!(TokenizerFile::read(&file.to_string()).unwrap_err().contains("1048576 bytes"));
    }

    #[test]
    fn a_regular_expression_without_end_is_refused_wherever_it_is() {
        let long = "a".repeat(1 << 20);
        for part in ["normalizer", "pre_tokenizer", "decoder"] {
            let nested = json!({ part: { "type": "Sequence", "pretokenizers": [{ "type": "Split", "pattern": { "Regex": long } }] } });
            let refusal = TokenizerFile::read(&nested.to_string()).unwrap_err();
            assert!(refusal.contains("1048576 bytes"), "{refusal}");
        }
    }
}
