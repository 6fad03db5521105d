//! Finds the key that was probably meant by an unknown key.
//!
//! Compares with the table of keys and with the key names of other programs. Start at [`nearest`].

use crate::config::keys::{KEYS, Key, without_index};
use crate::text::nearest::nearest_name;

/// The key or section that was probably meant by `path`; tries the most reliable rule first.
pub(crate) fn nearest(path: &str) -> Option<&'static str> {
    let path = without_index(path);
    let (section, word) = path.rsplit_once('.').unwrap_or(("", &path));
    if word.is_empty() {
        return None;
    }
    let limit = (word.len() / 3).clamp(1, 3);
    let in_section = |key: &&Key| key.section() == section;
    synonym(word)
        .or_else(|| closest(&path, limit, |known| known))
        .or_else(|| same_word(word))
        .or_else(|| only(KEYS.iter().filter(in_section).filter(|key| begins(word, key.word()))))
        .or_else(|| only(KEYS.iter().filter(in_section).filter(|key| is_part(word, key.word()))))
        .or_else(|| closest(word, limit, |known| known.rsplit('.').next().unwrap_or(known)))
        .or_else(|| only(KEYS.iter().filter(|key| begins(word, key.word()))))
        .or_else(|| only(KEYS.iter().filter(|key| is_part(word, key.word()))))
}

fn synonym(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    KEYS.iter().find(|key| key.synonyms.contains(&word.as_str())).map(|key| key.path)
}

/// The key or section whose `name` has the smallest edit distance to `text`, at most `limit`.
fn closest(
    text: &str,
    limit: usize,
    name: fn(&'static str) -> &'static str,
) -> Option<&'static str> {
    let known =
        KEYS.iter().flat_map(|key| [key.path, key.section()]).filter(|known| !known.is_empty());
    nearest_name(text, limit, known.map(|known| (name(known), known)))
}

/// The same word in another section; a key of the run comes before one of a stage.
fn same_word(word: &str) -> Option<&'static str> {
    let of = |in_stage: bool| {
        KEYS.iter()
            .find(|key| key.word() == word && key.is_of_stage() == in_stage)
            .map(|key| key.path)
    };
    of(false).or_else(|| of(true))
}

fn begins(word: &str, known: &str) -> bool {
    word.len() > 2 && known.starts_with(word)
}

/// Whether all parts of `word` are parts of `known`, or vice versa: `size_hidden`,
/// `share_of_tokens`.
fn is_part(word: &str, known: &str) -> bool {
    let all_in = |few: &str, many: &str| {
        few.split('_').all(|part| !part.is_empty() && many.split('_').any(|other| other == part))
    };
    all_in(word, known) || all_in(known, word)
}

/// The only element of `keys`; with several it would be a guess.
fn only<'a>(mut keys: impl Iterator<Item = &'a Key>) -> Option<&'static str> {
    let first = keys.next()?;
    keys.next().is_none().then_some(first.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_synonym_leads_to_one_key_and_is_no_other() {
        for key in KEYS {
            for word in key.synonyms {
                let others = KEYS.iter().filter(|other| other.path != key.path);
                let same: Vec<_> = others
                    .filter(|other| other.word() == *word || other.synonyms.contains(word))
                    .collect();
                assert!(same.is_empty(), "{word} of {} is another key: {same:?}", key.path);
            }
        }
    }

    #[test]
    fn unknown_keys_lead_to_the_ones_that_were_meant() {
        let table = [
            ("model.hidden", Some("model.hidden_size")),
            ("hidden_size", Some("model.hidden_size")),
            ("hidden", Some("model.hidden_size")),
            ("model.size_hidden", Some("model.hidden_size")),
            ("model.layers", Some("model.num_hidden_layers")),
            ("n_layers", Some("model.num_hidden_layers")),
            ("model.dim", Some("model.hidden_size")),
            ("model.num_heads", Some("model.num_attention_heads")),
            ("model.kv_heads", Some("model.num_key_value_heads")),
            ("model.intermediate", Some("model.intermediate_size")),
            ("lr", Some("optimizer.learning_rate")),
            ("training.lr", Some("optimizer.learning_rate")),
            ("training.learning_rate", Some("optimizer.learning_rate")),
            ("LR", Some("optimizer.learning_rate")),
            ("batch_size", Some("training.micro_batch_size")),
            ("training.batch_size", Some("training.micro_batch_size")),
            ("seq_len", Some("training.context_length")),
            ("epochs", Some("training.epochs")),
            ("num_epochs", Some("training.epochs")),
            ("training.max_steps", Some("training.steps")),
            ("checkpoint.every", Some("checkpoint.every_steps")),
            ("training.walltime", Some("training.max_walltime")),
            ("training.context", Some("training.context_length")),
            ("optimizer.clip", Some("optimizer.gradient_clip")),
            ("schedule.warmup", Some("schedule.warmup_share")),
            ("schedule.minimum_learning_rate", Some("schedule.min_learning_rate")),
            ("tokenizer", Some("data.tokenizer")),
            ("data.token", Some("data.tokenizer")),
            ("trainin.tokens", Some("training.tokens")),
            ("stages[3].patch", Some("stages[].patch_size")),
            ("stages[0].share_of_tokens", Some("stages[].share")),
            ("optimiser", Some("optimizer")),
            ("schedule.every_steps", Some("report.every_steps")),
            ("", None),
            ("zebra", None),
            ("model.zebra", None),
            ("a.b.c", None),
        ];
        for (unknown, expected) in table {
            assert_eq!(nearest(unknown), expected, "{unknown}");
        }
    }
}
