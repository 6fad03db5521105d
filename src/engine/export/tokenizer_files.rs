//! Writes a tokenizer for `transformers`: the tokenizer itself, and its special tokens.
//!
//! The written tokenizer produces the same ids as the original. Start at [`TokenizerFiles::of`].

use serde_json::{Map, Value, json};

use crate::data::Tokenizer;
use crate::engine::export::ExportError;

/// Names of the two special ids of plain bytes.
const BYTES_BOS: &str = "<s>";
const BYTES_EOS: &str = "</s>";

/// Contents of the files.
pub(super) struct TokenizerFiles {
    /// `tokenizer.json`.
    pub(super) tokenizer: String,
    /// `tokenizer_config.json`.
    pub(super) config: Value,
    /// `special_tokens_map.json`.
    pub(super) special_tokens: Value,
}

impl TokenizerFiles {
    /// The files of `tokenizer`, for a model whose texts begin with BOS if `add_bos`.
    ///
    /// # Errors
    /// When the tokenizer cannot be written in this form.
    pub(super) fn of(
        tokenizer: &Tokenizer,
        add_bos: bool,
        context_length: usize,
    ) -> Result<Self, ExportError> {
        let is_bytes = tokenizer.json().is_none();
        let mut json = match tokenizer.json() {
            Some(text) => serde_json::from_str(text)
                .map_err(|error| ExportError::Tokenizer { reason: error.to_string() })?,
            None => bytes_json(),
        };
        let name = |id: Option<u32>, of_bytes: &str| {
            id.and_then(|id| {
                if is_bytes { Some(of_bytes.to_owned()) } else { name_of(id, &json, tokenizer) }
            })
        };
        let (bos, eos) = (name(tokenizer.bos(), BYTES_BOS), name(tokenizer.eos(), BYTES_EOS));
        let mut is_changed = is_bytes;
        // A file may carry the truncation and padding settings of another model; texts are never
        // cut here.
        for key in ["truncation", "padding"] {
            is_changed |= json.get(key).is_some_and(|value| !value.is_null());
            json[key] = Value::Null;
        }
        // Dropout is disabled as well; transformers would apply it.
        if let Some(dropout) = json["model"].get_mut("dropout").filter(|dropout| !dropout.is_null())
        {
            *dropout = Value::Null;
            is_changed = true;
        }
        if add_bos != tokenizer.template_adds_bos() || is_bytes {
            let marks = bos.as_deref().zip(tokenizer.bos()).filter(|_| add_bos);
            let old = json["post_processor"].take();
            json["post_processor"] = with_template(old, marks);
            is_changed = true;
        }
        let unk = json["model"]["unk_token"].as_str().map(str::to_owned);
        // No padding token is added, so that the vocabulary size is unchanged.
        let pad = unk.clone().or_else(|| eos.clone());
        let mut special_tokens = Map::new();
        for (key, token) in
            [("bos_token", bos), ("eos_token", eos), ("unk_token", unk), ("pad_token", pad)]
        {
            special_tokens.extend(token.map(|token| (key.to_owned(), Value::from(token))));
        }
        let mut config = Map::new();
        // With a specific class, transformers 5 would build another normalizer than the file's.
        config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
        config.extend(special_tokens.clone());
        config.insert("add_bos_token".into(), add_bos.into());
        config.insert("add_eos_token".into(), false.into());
        config.insert("clean_up_tokenization_spaces".into(), false.into());
        config.insert("model_input_names".into(), json!(["input_ids", "attention_mask"]));
        config.insert("model_max_length".into(), context_length.into());
        if json["added_tokens"].as_array().is_none_or(Vec::is_empty) {
            // This tokenizer treats a text that spells a special token like any other text.
            config.insert("split_special_tokens".into(), true.into());
        }
        let unchanged = tokenizer.json().filter(|_| !is_changed);
        let tokenizer = unchanged.map_or_else(|| json.to_string(), str::to_owned);
        Ok(Self { tokenizer, config: config.into(), special_tokens: special_tokens.into() })
    }
}

/// The text of a token as written in the file: the tokenizer itself may return its normalized form.
fn name_of(id: u32, json: &Value, tokenizer: &Tokenizer) -> Option<String> {
    let added =
        json["added_tokens"].as_array().into_iter().flatten().find(|token| token["id"] == id);
    added
        .and_then(|token| token["content"].as_str().map(str::to_owned))
        .or_else(|| tokenizer.token(id))
}

/// Plain bytes as a vocabulary without merges: the id of each byte is its value.
///
/// The two special tokens are vocabulary entries that no merge produces, and not added tokens,
/// which a text could spell.
fn bytes_json() -> Value {
    let mut vocab = Map::new();
    let mut next = 256;
    for byte in 0..=u8::MAX {
        let is_shown_as_itself = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        let shown = if is_shown_as_itself { Some(char::from(byte)) } else { char::from_u32(next) };
        next += u32::from(!is_shown_as_itself);
        let token = match byte {
            0xFE => BYTES_BOS.to_owned(),
            0xFF => BYTES_EOS.to_owned(),
            _ => shown.map(String::from).unwrap_or_default(),
        };
        vocab.insert(token, byte.into());
    }
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocab,
            "merges": [],
        },
    })
}

/// The post-processor `old` without its templates, but with one that puts `bos` before a text, if
/// there is one.
fn with_template(old: Value, bos: Option<(&str, u32)>) -> Value {
    let parts = match old {
        Value::Object(mut fields) if fields.get("type").is_some_and(|kind| kind == "Sequence") => {
            match fields.remove("processors") {
                Some(Value::Array(parts)) => parts,
                _ => Vec::new(),
            }
        }
        Value::Null => Vec::new(),
        single => vec![single],
    };
    let is_template = |part: &Value| part["type"] == "TemplateProcessing";
    let mut parts: Vec<Value> = parts.into_iter().filter(|part| !is_template(part)).collect();
    parts.extend(bos.map(|(token, id)| {
        let (mark, text) = (
            json!({ "SpecialToken": { "id": token, "type_id": 0 } }),
            |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } }),
        );
        json!({
            "type": "TemplateProcessing",
            "single": [mark, text("A")],
            "pair": [mark, text("A"), mark, text("B")],
            "special_tokens": { token: { "id": token, "ids": [id], "tokens": [token] } },
        })
    }));
    match parts.len() {
        0 => Value::Null,
        1 => parts.remove(0),
        _ => json!({ "type": "Sequence", "processors": parts }),
    }
}
