//! The table of all configuration keys: what each may hold, its default, what it does, whether it may change on resume.
//!
//! Everything that lists keys reads this table: unknown keys, hints, defaults, the template, `config show`, and the
//! identity of a run. A new key is a field in `schema.rs` and a row here. Start at [`KEYS`].

use crate::config::kind::{Kind, Range};
use crate::config::presets::PRESET_NAMES;

/// One key of the configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Key {
    /// Where it stands: `section.key`, or `stages[].key` inside a stage.
    pub path: &'static str,
    /// Its default as TOML text, if it has one that depends on nothing else.
    pub default: Option<&'static str>,
    /// A value as TOML text, to show how a key without a default is written.
    pub example: Option<&'static str>,
    /// What it does, in one or more sentences.
    pub help: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// Whether another value makes it another run, so that a resume with it is refused.
    pub is_identity: bool,
}

/// Keys of which one run has exactly one: a later layer that sets one of them takes the others away.
pub const ALTERNATIVES: [&[&str]; 4] = [
    &["data.files", "data.generator"],
    &["data.validation_share", "data.validation_files"],
    &["training.tokens", "training.positions", "training.epochs", "training.steps"],
    &["schedule.warmup_share", "schedule.warmup_steps"],
];

// Bounds that no sensible run reaches; below them the plan's products stay inside 64 bits.
const WIDTH: Kind = Kind::Whole(1, 1 << 20);
const HEADS: Kind = Kind::Whole(1, 1 << 12);
const POSITIONS: Kind = Kind::Whole(2, 1 << 24);
const SEQUENCES: Kind = Kind::Whole(1, 1 << 20);
const STEPS: Kind = Kind::Whole(0, 1 << 40);
const POSITIVE: Kind = Kind::Number(Range::Positive);
const NOT_NEGATIVE: Kind = Kind::Number(Range::NotNegative);

/// Every key, in the order in which people read a configuration.
pub const KEYS: &[Key] = &[
    key("name", Kind::Name, "Name of the run and of its directory. Without it: the name of the file, without its ending.").example("\"books\""),
    key("seed", Kind::Whole(0, i64::MAX as u64), "Decides the initial weights and the order of the data.").default("1").identity(),
    key("device", Kind::Device, "\"auto\", \"cpu\", \"wgpu\" or \"cuda\"; \"cuda:1\" is the second GPU. auto takes the best that is there.")
        .default("\"auto\""),
    key("threads", Kind::Whole(0, 1 << 16), "CPU threads; 0 takes all.").default("0"),
    // model
    key("model.preset", Kind::Word(&PRESET_NAMES), "Where the sizes come from that are not written out here.").default("\"demo\""),
    key("model.vocab_size", Kind::Whole(1, 1 << 24), "Rows of the embedding table. Without it: those of the tokenizer, rounded up to a multiple of 64.")
        .example("32000")
        .identity(),
    key("model.hidden_size", WIDTH, "Width of the residual stream.").example("128").identity(),
    key("model.intermediate_size", WIDTH, "Width inside the feed-forward block.").example("352").identity(),
    key("model.num_hidden_layers", Kind::Whole(1, 1 << 12), "Number of decoder layers.").example("4").identity(),
    key("model.num_attention_heads", HEADS, "Query heads per layer; divides hidden_size into an even number.").example("4").identity(),
    key("model.num_key_value_heads", HEADS, "Key and value heads per layer; divides num_attention_heads. Without it: as many as those.")
        .example("4")
        .identity(),
    key("model.max_position_embeddings", POSITIONS, "Longest sequence in positions.").example("256").identity(),
    key("model.rope_theta", POSITIVE, "Base of the rotary frequencies.").default("10000.0").identity(),
    key("model.rms_norm_eps", POSITIVE, "Added to the mean square in RMSNorm.").default("1e-6").identity(),
    key("model.initializer_range", POSITIVE, "Standard deviation of the initial weights.").default("0.02").identity(),
    key("model.tie_word_embeddings", Kind::Flag, "Whether the head shares the embedding table.").default("false").identity(),
    // data
    key("data.files", Kind::Paths, "Text: files, folders and patterns, from this file's folder. Or generator.").example("[\"text.txt\"]"),
    key("data.generator", Kind::Word(&["grammar"]), "Text that the program makes itself: English-like stories from a seeded grammar. Or files.")
        .example("\"grammar\"")
        .identity(),
    key("data.validation_share", Kind::Share, "Share of the text's end that is only evaluated on. Or validation_files.").default("0.01").identity(),
    key("data.validation_files", Kind::Paths, "Text that is only evaluated on. Or validation_share.").example("[\"validation.txt\"]"),
    key("data.tokenizer", Kind::Tokenizer, "\"demo\" (small, for the grammar), \"bytes\", or the path of a tokenizers file (tokenizer.json).")
        .default("\"demo\"")
        .identity(),
    key("data.text_field", Kind::Text, "Field of a JSON record that holds the text.").default("\"text\"").identity(),
    key("data.add_bos", Kind::Flag, "Put a begin-of-text token before each document.").default("true").identity(),
    key("data.add_eos", Kind::Flag, "Put an end-of-text token after each document.").default("false").identity(),
    key("data.max_document_words", Kind::Count, "Longer documents are split, without losing a byte.").default("10000").identity(),
    key(
        "data.max_bad_records",
        Kind::Number(Range::Fraction),
        "Share of broken records that is skipped and reported; above it the preparation fails. 0 allows none.",
    )
    .default("0.01")
    .identity(),
    key("data.shuffle", Kind::Flag, "Read the blocks of the text in a random order, a new one in each epoch.").default("true").identity(),
    key("data.block_tokens", Kind::Count, "Tokens of a block of the data order. Without it: the smallest that all stages can cut into sequences.")
        .example("16384")
        .identity(),
    // training
    key("training.tokens", Kind::Count, "How much is trained, in tokens. Or positions, epochs, steps.").example("\"3M\"").identity(),
    key("training.positions", Kind::Count, "How much is trained, in positions: a patch of K tokens is one position.").example("\"1.5M\"").identity(),
    key("training.epochs", POSITIVE, "How much is trained, in passes over the text.").example("1.0").identity(),
    key("training.steps", Kind::Count, "How much is trained, in optimizer steps.").example("1000").identity(),
    key("training.tokens_per_step", Kind::Count, "Tokens per optimizer step, the same in every stage. A multiple of patch_size * context_length.")
        .default("16384")
        .identity(),
    key("training.context_length", POSITIONS, "Positions per sequence; with a patch size of K a sequence has K times as many tokens.")
        .default("256")
        .identity(),
    key("training.micro_batch_size", SEQUENCES, "Sequences per forward pass, at most. Changes memory and speed, not the step.").default("8"),
    key("training.precision", Kind::Word(&["f32"]), "Number format of the computation.").default("\"f32\"").identity(),
    key("training.max_walltime", Kind::WallTime, "Stop with a checkpoint before the run has worked this long.").example("\"11h30m\""),
    // stages
    key("stages", Kind::Stages, "The stages in order: patches first, single tokens after.")
        .default("[{patch_size = 4, share = \"2/3\"}, {patch_size = 1, optimizer_state = \"reset\"}]")
        .identity(),
    key("stages[].patch_size", Kind::PatchSize, "Tokens per patch (K); 1 is the plain language model.").example("4").identity(),
    key("stages[].share", Kind::Share, "Share of the run's tokens; at most one stage has none: it takes the rest.").example("\"2/3\"").identity(),
    key("stages[].optimizer_state", Kind::Word(&["reset", "keep"]), "Moments and Adam's count on entering: \"reset\", as in the paper, or \"keep\".")
        .default("\"reset\"")
        .identity(),
    key("stages[].context_length", POSITIONS, "Instead of training.context_length.").example("256").identity(),
    key("stages[].learning_rate", POSITIVE, "Instead of optimizer.learning_rate.").example("3e-4").identity(),
    key("stages[].warmup_steps", STEPS, "Instead of the schedule's warm-up.").example("100").identity(),
    key("stages[].tokens_per_step", Kind::Count, "Instead of training.tokens_per_step.").example("16384").identity(),
    key("stages[].micro_batch_size", SEQUENCES, "Instead of training.micro_batch_size.").example("8"),
    // optimizer
    key("optimizer.learning_rate", POSITIVE, "Peak learning rate of AdamW, reached at the end of the warm-up.").default("3e-4").identity(),
    key("optimizer.betas", Kind::Betas, "Decay rates of the two moments.").default("[0.9, 0.95]").identity(),
    key("optimizer.epsilon", POSITIVE, "Added to the root of the second moment.").default("1e-8").identity(),
    key("optimizer.weight_decay", NOT_NEGATIVE, "Decoupled weight decay; norms are not decayed, embeddings are.").default("0.1").identity(),
    key("optimizer.gradient_clip", POSITIVE, "Largest global gradient norm (L2).").default("1.0").identity(),
    // schedule
    key("schedule.kind", Kind::Word(&["cosine", "linear", "constant", "wsd"]), "How the rate falls after the warm-up; restarted in every stage.")
        .default("\"cosine\"")
        .identity(),
    key("schedule.warmup_share", Kind::Share, "Warm-up as a share of the stage's steps. Or warmup_steps; 0 of those is none.").default("0.02").identity(),
    key("schedule.warmup_steps", STEPS, "Warm-up in steps; longer than the stage: cut, with a warning. Or warmup_share.").example("2000").identity(),
    key("schedule.decay_share", Kind::Share, "Last part of a \"wsd\" stage, in which the rate falls.").default("0.1").identity(),
    key("schedule.min_learning_rate", NOT_NEGATIVE, "Learning rate at the end of a stage.").default("0.0").identity(),
    // what a run says and keeps
    key("report.every_steps", Kind::CadenceWithoutNever, "Steps from one line of metrics to the next; auto: 1 on the CPU, 10 on a GPU.").default("\"auto\""),
    key("evaluation.every_steps", Kind::Cadence, "Steps between token-level (K = 1) evaluations, in every stage; auto: 20 in a run. Stage ends come besides.")
        .default("\"auto\""),
    key("evaluation.max_tokens", Kind::Count, "Validation tokens that are read each time, at most.").default("\"256k\""),
    key("activations.every_steps", Kind::Cadence, "Steps between measurements of how many neurons are activated; auto: 20 in a run.").default("\"auto\""),
    key("activations.threshold", POSITIVE, "A neuron counts as activated when its absolute value is greater than this.").default("0.5"),
    key("activations.tensor", Kind::Word(&["ffn_output", "intermediate"]), "Which neurons: the feed-forward block's output, or its inner width.")
        .default("\"ffn_output\""),
    key("samples.every_steps", Kind::Cadence, "Steps between generated texts; auto: 10 in a run.").default("\"auto\""),
    key("samples.prompts", Kind::Texts, "Texts to continue; none: the beginning of the validation text.").default("[]"),
    key("samples.max_new_tokens", Kind::Whole(1, 1 << 20), "Tokens to add to each, at most.").default("48"),
    key("checkpoint.every_steps", Kind::Cadence, "Steps between checkpoints; auto: 10 in a run. Stage ends and the run's end come besides.")
        .default("\"auto\""),
    key("checkpoint.keep", Kind::Whole(2, 1 << 20), "Periodic checkpoints that are kept, at least 2; stage ends and the run's end stay for ever.").default("3"),
    key("checkpoint.on_usr1", Kind::Word(&["continue", "stop"]), "What the signal SIGUSR1 does besides saving.").default("\"continue\""),
];

const fn key(path: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { path, default: None, example: None, help, kind, is_identity: false }
}

impl Key {
    const fn default(self, text: &'static str) -> Self {
        Self { default: Some(text), ..self }
    }

    const fn example(self, text: &'static str) -> Self {
        Self { example: Some(text), ..self }
    }

    const fn identity(self) -> Self {
        Self { is_identity: true, ..self }
    }

    /// The section in which it stands; empty for keys of the top level.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// The key without its section.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, word)| word)
    }
}

/// What stands at a path.
pub(crate) enum Found {
    /// A key with a value.
    Key(&'static Key),
    /// A table with keys.
    Section,
    /// Nothing that is known.
    Nothing,
}

/// What stands at `path`, which may name a stage by its number: `stages[0].share`.
pub(crate) fn find(path: &str) -> Found {
    let path = without_index(path);
    match KEYS.iter().find(|key| key.path == path) {
        Some(key) => Found::Key(key),
        None if KEYS.iter().any(|key| key.section() == path) => Found::Section,
        None => Found::Nothing,
    }
}

/// The key that `path` was probably meant to be: one with a few other letters, or the same word in another section.
pub(crate) fn nearest(path: &str) -> Option<&'static str> {
    let path = without_index(path);
    let word = path.rsplit('.').next().unwrap_or(&path);
    let limit = (word.len() / 3).clamp(1, 3);
    let closest = |name: fn(&'static str) -> &'static str| {
        let known = KEYS.iter().flat_map(|key| [key.path, key.section()]).filter(|known| !known.is_empty());
        let distances = known.map(|known| (strsim::damerau_levenshtein(name(known), &path), known));
        distances.filter(|(distance, _)| *distance <= limit).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
    };
    let same_word = |in_stage: bool| KEYS.iter().find(|key| key.word() == word && key.path.starts_with("stages[]") == in_stage).map(|key| key.path);
    let last_word = |known: &'static str| known.rsplit('.').next().unwrap_or(known);
    closest(|known| known).or_else(|| same_word(false)).or_else(|| same_word(true)).or_else(|| closest(last_word))
}

/// `path` as the table writes it: without the number of a stage.
fn without_index(path: &str) -> String {
    match (path.find('['), path.find(']')) {
        (Some(open), Some(close)) if open < close => format!("{}{}", &path[..=open], &path[close..]),
        _ => path.to_owned(),
    }
}
