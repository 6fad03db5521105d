//! A folder of prepared tokens: its manifest and its files of ids.
//!
//! The manifest gets the hash of itself that it asks for, so that what it says is read and not only
//! refused. Whatever it says, the tokens are those of the text, or those that the files hold.

use std::cell::OnceCell;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use patchtui::config::{Count, DataConfig, Share};
use patchtui::data::{DataError, PrepareRequest, Prepared, TextRules, TokenStream, prepare};
use serde_json::{Value, json};

use super::{parts, scratch};

const TEXT: &str = "the cat sat on the mat and the hat";
/// A block hash that stands for the hash of the file.
const OF_FILE: &str = "=";

/// A text, and the folder that its tokens are in.
struct Workplace {
    cache: PathBuf,
    prepared: PathBuf,
    ids: Vec<u32>,
}

pub(super) fn read(bytes: &[u8]) {
    thread_local! {
        static WORKPLACE: OnceCell<Workplace> = const { OnceCell::new() };
    }
    WORKPLACE.with(|workplace| workplace.get_or_init(Workplace::new).read(bytes));
}

impl Workplace {
    fn new() -> Self {
        let folder = scratch("token_cache");
        fs::write(folder.join("a.txt"), TEXT).unwrap();
        let cache = folder.join("cache");
        let prepared = prepare_in(&cache, None).unwrap();
        let ids = [all(&prepared.train).unwrap(), all(&prepared.validation).unwrap()].concat();
        let folder = fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
        Self { cache, prepared: folder, ids }
    }

    fn read(&self, bytes: &[u8]) {
        let [manifest, text, validation] = parts(bytes);
        let manifest = sealed(manifest, [text, validation]);
        // The same folder under another name is that of a run whose text has changed since.
        let older = self.cache.join("older");
        for folder in [&self.prepared, &older] {
            fs::create_dir_all(folder).unwrap();
            for (name, content) in [
                ("manifest.json", manifest.as_slice()),
                ("text.tokens", text),
                ("validation.tokens", validation),
            ] {
                fs::write(folder.join(name), content).unwrap();
            }
        }
        self.check(None, text.len());
        fs::remove_dir_all(&self.prepared).unwrap();
        let fingerprint = serde_json::from_slice(&manifest)
            .ok()
            .and_then(|value: Value| Some(value["manifest"]["fingerprint"].as_str()?.to_owned()));
        self.check(fingerprint.as_deref(), text.len());
    }

    fn check(&self, trained_on: Option<&str>, text_bytes: usize) {
        let Ok(prepared) = prepare_in(&self.cache, trained_on) else { return };
        let (train, validation) = (all(&prepared.train), all(&prepared.validation));
        if prepared.is_reused {
            let claimed = prepared.train.len() + prepared.validation.len();
            assert!(claimed <= text_bytes as u64, "{claimed} tokens of {text_bytes} bytes");
        } else {
            assert_eq!(
                [train.unwrap(), validation.unwrap()].concat(),
                self.ids,
                "tokens that are not reused are made anew"
            );
        }
    }
}

/// The manifest as its own program would write it, if it is JSON.
fn sealed(manifest: &[u8], files: [&[u8]; 2]) -> Vec<u8> {
    let Ok(mut manifest) = serde_json::from_slice::<Value>(manifest) else {
        return manifest.to_vec();
    };
    for (stream, content) in
        manifest.get_mut("streams").and_then(Value::as_array_mut).into_iter().flatten().zip(files)
    {
        for hash in stream
            .get_mut("block_hashes")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
            .filter(|hash| *hash == OF_FILE)
        {
            *hash = blake3::hash(content).to_hex().as_str().into();
        }
    }
    let hash = blake3::hash(&serde_json::to_vec(&manifest).unwrap()).to_hex();
    serde_json::to_vec(&json!({ "manifest": manifest, "blake3": hash.as_str() })).unwrap()
}

fn prepare_in(cache: &Path, trained_on: Option<&str>) -> Result<Prepared, DataError> {
    let data = DataConfig {
        files: Some(vec![cache.with_file_name("a.txt")]),
        generator: None,
        validation_share: Some(Share::new(0.2).unwrap()),
        validation_files: None,
        tokenizer: "bytes".into(),
        text_field: "text".into(),
        add_bos: true,
        add_eos: false,
        max_document_words: Count(1000),
        max_bad_records: 0.0,
        max_lost_text: 0.05,
        shuffle: true,
        block_tokens: None,
    };
    let request = PrepareRequest {
        data: &data,
        seed: 1,
        generated_tokens: 0,
        block_tokens: 4,
        cache,
        trained_on,
        rules: TextRules::Current,
    };
    prepare(&request, &mut |_, _, _| ControlFlow::Continue(()))
}

fn all(stream: &TokenStream) -> Result<Vec<u32>, DataError> {
    let mut ids = vec![0; usize::try_from(stream.len()).unwrap()];
    stream.read(0, &mut ids)?;
    Ok(ids)
}
