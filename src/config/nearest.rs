//! Finds the key that was probably meant by an unknown key.
//!
//! Compares with the table of keys and with the key names of other programs. Start at [`nearest`].

use crate::config::keys::{KEYS, Key};

/// Key names of other programs and the corresponding keys of patchtui.
const SYNONYMS: &[(&[&str], &str)] = &[
    (&["lr", "max_lr", "peak_lr", "base_lr"], "optimizer.learning_rate"),
    (&["wd", "decay"], "optimizer.weight_decay"),
    (&["eps", "adam_eps", "adam_epsilon"], "optimizer.epsilon"),
    (&["beta", "beta1", "beta2", "adam_beta1", "adam_beta2"], "optimizer.betas"),
    (
        &["clip", "grad_clip", "max_grad_norm", "clip_grad_norm", "max_norm"],
        "optimizer.gradient_clip",
    ),
    (&["min_lr", "final_lr", "minimum_learning_rate"], "schedule.min_learning_rate"),
    (&["scheduler", "lr_scheduler", "lr_schedule", "lr_scheduler_type"], "schedule.kind"),
    (&["warmup", "warmup_ratio", "warmup_fraction"], "schedule.warmup_share"),
    (&["warmup_iters", "num_warmup_steps"], "schedule.warmup_steps"),
    (
        &[
            "batch_size",
            "batch",
            "micro_batch",
            "micro_batch_tokens",
            "device_batch_size",
            "per_device_train_batch_size",
        ],
        "training.micro_batch_size",
    ),
    (&["total_batch_size", "global_batch_size", "tokens_per_batch"], "training.tokens_per_step"),
    (
        &[
            "seq_len",
            "seq_length",
            "sequence_length",
            "max_seq_len",
            "block_size",
            "ctx",
            "context",
            "n_ctx",
        ],
        "training.context_length",
    ),
    (
        &["max_steps", "num_steps", "n_steps", "train_steps", "iterations", "iters", "max_iters"],
        "training.steps",
    ),
    (&["epoch", "num_epochs", "n_epochs", "max_epochs", "num_train_epochs"], "training.epochs"),
    (&["num_tokens", "n_tokens", "total_tokens", "train_tokens", "budget"], "training.tokens"),
    (&["dtype", "torch_dtype", "mixed_precision"], "training.precision"),
    (&["max_time", "time_limit", "walltime"], "training.max_walltime"),
    (
        &[
            "dim",
            "d_model",
            "n_embd",
            "n_embed",
            "embed_dim",
            "embedding_size",
            "hidden_dim",
            "width",
        ],
        "model.hidden_size",
    ),
    (
        &["d_ff", "ff_dim", "ffn_dim", "mlp_dim", "ffn_hidden_size", "n_inner"],
        "model.intermediate_size",
    ),
    (&["n_layer", "n_layers", "num_layers", "layers", "depth"], "model.num_hidden_layers"),
    (&["n_head", "n_heads", "num_heads", "heads"], "model.num_attention_heads"),
    (&["n_kv_head", "n_kv_heads", "num_kv_heads", "kv_heads"], "model.num_key_value_heads"),
    (&["max_position", "max_positions", "n_positions"], "model.max_position_embeddings"),
    (&["tie_embeddings", "tied", "tied_embeddings", "weight_tying"], "model.tie_word_embeddings"),
    (&["vocab", "vocabulary", "vocabulary_size", "n_vocab"], "model.vocab_size"),
    (&["init_std", "initializer_std"], "model.initializer_range"),
    (
        &["dataset", "datasets", "corpus", "path", "paths", "file", "train_files", "text_files"],
        "data.files",
    ),
    (&["val_files", "valid_files", "eval_files"], "data.validation_files"),
    (&["val_split", "validation_split", "val_share", "test_split"], "data.validation_share"),
    (&["eval_every", "eval_interval", "eval_steps"], "evaluation.every_steps"),
    (&["log_every", "log_interval", "logging_steps"], "report.every_steps"),
    (&["save_every", "save_interval", "save_steps"], "checkpoint.every_steps"),
    (&["save_total_limit", "keep_last"], "checkpoint.keep"),
    (&["prompt", "prompts"], "samples.prompts"),
    (&["random_seed", "rng_seed"], "seed"),
    (&["num_threads", "n_threads", "cpus", "workers"], "threads"),
    (&["run_name", "title"], "name"),
    (&["gpu", "accelerator"], "device"),
    (&["k", "patch"], "stages[].patch_size"),
];

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

/// `path` as the table writes it: without the number of a stage.
pub(crate) fn without_index(path: &str) -> String {
    match (path.find('['), path.find(']')) {
        (Some(open), Some(close)) if open < close => {
            format!("{}{}", &path[..=open], &path[close..])
        }
        _ => path.to_owned(),
    }
}

fn synonym(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    SYNONYMS.iter().find(|(words, _)| words.contains(&word.as_str())).map(|(_, key)| *key)
}

/// The key or section whose `name` has the smallest edit distance to `text`, at most `limit`.
fn closest(
    text: &str,
    limit: usize,
    name: fn(&'static str) -> &'static str,
) -> Option<&'static str> {
    let known =
        KEYS.iter().flat_map(|key| [key.path, key.section()]).filter(|known| !known.is_empty());
    let distances = known.map(|known| (strsim::damerau_levenshtein(name(known), text), known));
    distances
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// The same word in another section; a key of the run comes before one of a stage.
fn same_word(word: &str) -> Option<&'static str> {
    let of = |in_stage: bool| {
        KEYS.iter()
            .find(|key| key.word() == word && key.path.starts_with("stages[]") == in_stage)
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
    fn every_synonym_leads_to_a_key_and_is_none_itself() {
        for (words, path) in SYNONYMS {
            assert!(KEYS.iter().any(|key| key.path == *path), "{path}");
            for word in *words {
                let same: Vec<_> =
                    KEYS.iter().filter(|key| key.word() == *word && key.path != *path).collect();
                assert!(same.is_empty(), "{word} is a key itself");
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
