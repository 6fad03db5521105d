//! A tokenizer: `tokenizer.json`, `tokenizer_config.json` beside it, and a text.
//!
//! Every id of a text has a place in the vocabulary, and every id has a text.

use std::fs;

use patchtui::data::{GrowingText, Tokenizer, continuation};

use super::{parts, scratch};

pub(super) fn read(bytes: &[u8]) {
    let [tokenizer, beside, text] = parts(bytes);
    let folder = scratch("tokenizer");
    let path = folder.join("tokenizer.json");
    fs::write(&path, tokenizer).unwrap();
    let companion = folder.join("tokenizer_config.json");
    if beside.is_empty() {
        let _ = fs::remove_file(companion);
    } else {
        fs::write(companion, beside).unwrap();
    }
    match Tokenizer::load(&path.to_string_lossy()) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(tokenizer) => check(&tokenizer, &String::from_utf8_lossy(text)),
    }
}

fn check(tokenizer: &Tokenizer, text: &str) {
    let special = [tokenizer.bos(), tokenizer.eos()].into_iter().flatten();
    assert!(
        special.chain(tokenizer.ends_of_text()).all(|id| (id as usize) < tokenizer.vocab_size())
    );
    let _ = tokenizer.template_adds_bos();
    let rows = tokenizer.vocab_size().saturating_sub(1);
    for tokenizer in [tokenizer.clone(), tokenizer.clone().of_table(rows)] {
        let Ok(ids) = tokenizer.encode(text) else { continue };
        assert!(
            ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()),
            "{ids:?} of {}",
            tokenizer.vocab_size()
        );
        let _ = (tokenizer.decode(&ids), tokenizer.decode(&[0, 1, u32::MAX]));
        let (prompt, new) = ids.split_at(ids.len() / 2);
        let _ = continuation(&tokenizer, prompt, new);
        let stops = ["\n".to_owned()];
        let mut growing = GrowingText::new(&tokenizer, prompt, &stops);
        new.iter().take(16).for_each(|id| drop(growing.push(*id)));
        growing.finish();
    }
}
