//! The table of all configuration keys: what each may hold, its default, what it does, and whether it may change on resume.
//!
//! Everything that lists keys reads this table: unknown keys, hints, defaults, the template, `config show`, and the
//! identity of a run. A new key is a field in `schema.rs` and a row here. Start at [`KEYS`].

use crate::config::kind::{Range, ValueKind};
use crate::config::nearest::without_index;
use crate::config::presets::PRESET_NAMES;

/// One key of the configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Key {
    /// Its full name: `section.key`, or `stages[].key` inside a stage.
    pub path: &'static str,
    /// Its default as TOML text, if it has one that depends on nothing else.
    pub default: Option<&'static str>,
    /// A value as TOML text, to show how a key without a default is written.
    pub example: Option<&'static str>,
    /// What it does, in one or more sentences.
    pub help: &'static str,
    /// What its value may be.
    pub kind: ValueKind,
    /// Whether a resume with a different value is refused.
    pub is_identity: bool,
}

/// Groups of keys of which a run has exactly one: a later layer that sets one of a group removes the others.
pub const ALTERNATIVES: [&[&str]; 4] = [
    &["data.files", "data.generator"],
    &["data.validation_share", "data.validation_files"],
    &["training.tokens", "training.positions", "training.epochs", "training.steps"],
    &["schedule.warmup_share", "schedule.warmup_steps"],
];

// Bounds that no sensible run reaches; below them the plan's products stay inside 64 bits.
const WIDTH: ValueKind = ValueKind::Whole(1, 1 << 20);
const HEADS: ValueKind = ValueKind::Whole(1, 1 << 12);
const POSITIONS: ValueKind = ValueKind::Whole(2, 1 << 24);
const SEQUENCES: ValueKind = ValueKind::Whole(1, 1 << 20);
const STEPS: ValueKind = ValueKind::Whole(0, 1 << 40);
const POSITIVE: ValueKind = ValueKind::Number(Range::Positive);
const NOT_NEGATIVE: ValueKind = ValueKind::Number(Range::NotNegative);

/// Every key, in the order in which people read a configuration.
pub const KEYS: &[Key] = &[
    key("name", ValueKind::Name, "Name of the run and of its directory. Default: the name of this file, without its extension.").example("\"books\""),
    key("seed", ValueKind::Whole(0, i64::MAX as u64), "Determines the initial weights and the order of the data.").default("1").identity(),
    key("device", ValueKind::Device, "\"auto\", \"cpu\", \"wgpu\" or \"cuda\"; \"cuda:1\" is the second GPU. auto picks the best available.")
        .default("\"auto\""),
    key("threads", ValueKind::Whole(0, 1 << 16), "CPU threads; 0 uses all.").default("0"),
    // model
    key("model.preset", ValueKind::Word(&PRESET_NAMES), "Named sizes; the keys below override individual sizes.").default("\"demo\""),
    key(
        "model.init_from",
        ValueKind::Model,
        "Start from trained weights instead of random ones: the name of a run, or the path of a run, of a checkpoint or of a LLaMA in Hugging \
         Face's format, relative to this file. Sizes and tokenizer are then those of the weights. A path with a slash is never a run's name.",
    )
    .example("\"Llama-2-7b-hf\"")
    .identity(),
    key(
        "model.vocab_size",
        ValueKind::Whole(1, 1 << 24),
        "Rows of the embedding table. Default: as many as the tokenizer has tokens, rounded up to a multiple of 64.",
    )
    .example("32000")
    .identity(),
    key("model.hidden_size", WIDTH, "Width of the residual stream.").example("128").identity(),
    key("model.intermediate_size", WIDTH, "Width inside the feed-forward block.").example("352").identity(),
    key("model.num_hidden_layers", ValueKind::Whole(1, 1 << 12), "Number of decoder layers.").example("4").identity(),
    key("model.num_attention_heads", HEADS, "Query heads per layer; each gets an equal, even share of hidden_size.").example("4").identity(),
    key("model.num_key_value_heads", HEADS, "Key and value heads per layer; must divide num_attention_heads, which is the default.").example("4").identity(),
    key("model.max_position_embeddings", POSITIONS, "Longest sequence in positions.").example("256").identity(),
    key("model.rope_theta", POSITIVE, "Base of the rotary frequencies.").default("10000.0").identity(),
    key("model.rms_norm_eps", POSITIVE, "Added to the mean square in RMSNorm.").default("1e-6").identity(),
    key("model.initializer_range", POSITIVE, "Standard deviation of the initial weights.").default("0.02").identity(),
    key("model.tie_word_embeddings", ValueKind::Flag, "Whether the head shares the embedding table.").default("false").identity(),
    // data
    key("data.files", ValueKind::Paths, "Text files, folders and glob patterns, relative to this file. Alternative to generator.").example("[\"text.txt\"]"),
    key("data.generator", ValueKind::Word(&["grammar"]), "Text that the program generates: English-like stories from a seeded grammar. Alternative to files.")
        .example("\"grammar\"")
        .identity(),
    key("data.validation_share", ValueKind::Share, "Share of the text held out for evaluation: documents chosen across all files, the same for every run on this text. Alternative to validation_files.")
        .default("0.01")
        .identity(),
    key("data.validation_files", ValueKind::Paths, "Text held out for evaluation. Alternative to validation_share.").example("[\"validation.txt\"]"),
    key("data.tokenizer", ValueKind::Tokenizer, "\"demo\" (small, for the grammar), \"bytes\", or the path of a Hugging Face tokenizer.json.")
        .default("\"demo\"")
        .identity(),
    key("data.text_field", ValueKind::Text, "Field of a JSON record that holds the text.").default("\"text\"").identity(),
    key("data.add_bos", ValueKind::Flag, "Put a begin-of-text token before each document.").default("true").identity(),
    key("data.add_eos", ValueKind::Flag, "Put an end-of-text token after each document.").default("false").identity(),
    key("data.max_document_words", ValueKind::Count, "Documents with more words are tokenized in parts; the tokens are those of the whole document.").default("10000").identity(),
    key(
        "data.max_bad_records",
        ValueKind::Number(Range::Fraction),
        "Largest share of unusable records; they are skipped and reported. With more, preparing the text fails; 0 allows none.",
    )
    .default("0.01")
    .identity(),
    key(
        "data.max_lost_text",
        ValueKind::Number(Range::Fraction),
        "Largest share of text that the tokenizer loses: dropped characters, unknown tokens, control tokens spelled in the text. With more, preparing the text fails.",
    )
    .default("0.05"),
    key("data.shuffle", ValueKind::Flag, "Read the blocks of the text in random order, reshuffled in each epoch.").default("true").identity(),
    key(
        "data.block_tokens",
        ValueKind::Count,
        "Tokens per block, the unit of shuffling. Default: the smallest size that every stage can cut into whole sequences.",
    )
    .example("16384")
    .identity(),
    // training
    key("training.tokens", ValueKind::Count, "How long to train, in tokens. Alternatives: positions, epochs, steps.").example("\"3M\"").identity(),
    key("training.positions", ValueKind::Count, "How long to train, in positions: a patch of K tokens is one position.").example("\"1.5M\"").identity(),
    key("training.epochs", POSITIVE, "How long to train, in passes over the text.").example("1.0").identity(),
    key("training.steps", ValueKind::Count, "How long to train, in optimizer steps.").example("1000").identity(),
    key("training.tokens_per_step", ValueKind::Count, "Tokens per optimizer step, the same in every stage; a multiple of patch_size * context_length.")
        .default("16384")
        .identity(),
    key("training.context_length", POSITIONS, "Positions per sequence; with patch size K, a sequence has K times as many tokens.").default("256").identity(),
    key("training.micro_batch_size", SEQUENCES, "Sequences per forward pass, at most. Changes memory use and speed, not what is learned.").default("8"),
    key(
        "training.recompute",
        ValueKind::Flag,
        "Compute activations again in the backward pass instead of keeping them: less memory, more time, the same numbers.",
    )
    .default("false"),
    key(
        "training.precision",
        ValueKind::Word(&["f32", "bf16"]),
        "Number format of the products: \"f32\", or \"bf16\" on CUDA; weights, moments, norms, logits and losses are always f32.",
    )
    .default("\"f32\"")
    .identity(),
    key("training.max_walltime", ValueKind::WallTime, "Stop with a checkpoint before this much time has passed since the run started or resumed.")
        .example("\"11h30m\""),
    key(
        "training.fork_from",
        ValueKind::Directory,
        "Continue from this checkpoint of another run: weights, optimizer state and position. Set by `patchtui run --from CHECKPOINT`; the plan must \
         have read as many tokens by that step.",
    )
    .example("\"runs/books/checkpoints/step-00001000\"")
    .identity(),
    key(
        "training.audit_every",
        STEPS,
        "Steps between two audits, which compute one micro-batch twice and warn if the results differ, as on faulty hardware; 0 disables them. \
         Needs memory for a second set of gradients.",
    )
    .default("0"),
    // stages
    key("stages", ValueKind::Stages, "The stages in order: patches first, single tokens after.")
        .default("[{patch_size = 4, share = \"2/3\"}, {patch_size = 1, optimizer_state = \"reset\"}]")
        .identity(),
    key("stages[].patch_size", ValueKind::PatchSize, "Tokens per patch (K); 1 is the plain language model.").example("4").identity(),
    key("stages[].share", ValueKind::Share, "Share of the run's tokens. One stage may leave it out: it takes the rest.").example("\"2/3\"").identity(),
    key(
        "stages[].optimizer_state",
        ValueKind::Word(&["reset", "keep"]),
        "What happens to Adam's moments and count at the start of the stage: \"reset\", as in the paper, or \"keep\".",
    )
    .default("\"reset\"")
    .identity(),
    key("stages[].context_length", POSITIONS, "Overrides training.context_length in this stage.").example("256").identity(),
    key("stages[].learning_rate", POSITIVE, "Overrides optimizer.learning_rate in this stage.").example("3e-4").identity(),
    key("stages[].warmup_steps", STEPS, "Overrides the schedule's warm-up in this stage.").example("100").identity(),
    key("stages[].tokens_per_step", ValueKind::Count, "Overrides training.tokens_per_step in this stage.").example("16384").identity(),
    key("stages[].micro_batch_size", SEQUENCES, "Overrides training.micro_batch_size in this stage.").example("8"),
    // optimizer
    key("optimizer.learning_rate", POSITIVE, "Peak learning rate of AdamW, reached at the end of the warm-up.").default("3e-4").identity(),
    key("optimizer.betas", ValueKind::Betas, "Decay rates of the two moments.").default("[0.9, 0.95]").identity(),
    key("optimizer.epsilon", POSITIVE, "Added to the square root of the second moment.").default("1e-8").identity(),
    key("optimizer.weight_decay", NOT_NEGATIVE, "Decoupled weight decay; applies to embeddings, not to norms.").default("0.1").identity(),
    key("optimizer.gradient_clip", POSITIVE, "Gradients with a larger global norm (L2) are scaled down to it.").default("1.0").identity(),
    // schedule
    key("schedule.kind", ValueKind::Word(&["cosine", "linear", "constant", "wsd"]), "How the learning rate decays after the warm-up; restarts in every stage.")
        .default("\"cosine\"")
        .identity(),
    key("schedule.warmup_share", ValueKind::Share, "Warm-up as a share of the stage's steps. Alternative to warmup_steps.").default("0.02").identity(),
    key("schedule.warmup_steps", STEPS, "Warm-up in steps, at most the whole stage; 0 means no warm-up. Alternative to warmup_share.")
        .example("2000")
        .identity(),
    key("schedule.decay_share", ValueKind::Share, "Share of a \"wsd\" stage, at its end, over which the learning rate decays.").default("0.1").identity(),
    key("schedule.min_learning_rate", NOT_NEGATIVE, "Learning rate at the end of a stage.").default("0.0").identity(),
    // what a run reports and keeps
    key("report.every_steps", ValueKind::CadenceWithoutNever, "Steps between lines of metrics; \"auto\" is 1 on the CPU and 10 on a GPU.").default("\"auto\""),
    key(
        "evaluation.every_steps",
        ValueKind::Cadence,
        "Steps between token-level (K = 1) evaluations, in every stage; \"auto\" means 20 per run. Also done at the end of each stage.",
    )
    .default("\"auto\""),
    key(
        "evaluation.max_tokens",
        ValueKind::TokenLimit,
        "Validation tokens per evaluation, at most; \"auto\" means up to 256k, and fewer in a short run, so that evaluations take about 0.7 % of its work. The evaluation after the last step reads all validation tokens.",
    )
    .default("\"auto\""),
    key("activations.every_steps", ValueKind::Cadence, "Steps between measurements of how many neurons are activated; \"auto\" means 20 per run.")
        .default("\"auto\""),
    key("activations.threshold", POSITIVE, "A neuron counts as activated when its absolute value is greater than this.").default("0.5"),
    key("activations.tensor", ValueKind::Word(&["ffn_output", "intermediate"]), "Which neurons: the feed-forward block's output, or its inner width.")
        .default("\"ffn_output\""),
    key("samples.every_steps", ValueKind::Cadence, "Steps between generated samples; \"auto\" means 10 per run.").default("\"auto\""),
    key("samples.prompts", ValueKind::Texts, "Prompts to continue; if empty, the beginning of the validation text.").default("[]"),
    key("samples.max_new_tokens", ValueKind::Whole(1, 1 << 20), "Tokens generated per prompt, at most.").default("48"),
    key("tasks.every_steps", ValueKind::Cadence, "Steps between scores on evaluation tasks; \"auto\" means 4 per run. Also done at the end of each stage.")
        .default("\"auto\""),
    key(
        "tasks.names",
        ValueKind::Texts,
        "Evaluation tasks, by the names that the subcommand eval knows: hellaswag, piqa, wikitext-paper, text:FILE; none if empty.",
    )
    .default("[]"),
    key("tasks.data", ValueKind::Directory, "Folder of the task files, relative to this file.").example("\"task-data\""),
    key("tasks.limit", ValueKind::Whole(1, 1 << 30), "Documents of each task that are scored, from the first on.").default("100"),
    key(
        "checkpoint.every_steps",
        ValueKind::Cadence,
        "Steps between checkpoints; \"auto\" means 10 per run, and fewer in a short run, so that they take about 0.5 % of its time. Stage ends and the end of the run are always saved.",
    )
    .default("\"auto\""),
    key(
        "checkpoint.keep",
        ValueKind::Whole(2, 1 << 20),
        "Periodic checkpoints to keep, at least 2; those at stage ends and at the end of the run are always kept.",
    )
    .default("3"),
    key(
        "checkpoint.keep_best",
        ValueKind::Flag,
        "Keep the checkpoint with the lowest token loss as well. Only checkpoints at steps with an evaluation count, so checkpoint.every_steps should be a multiple of evaluation.every_steps.",
    )
    .default("true"),
    key("checkpoint.on_usr1", ValueKind::Word(&["continue", "stop"]), "What SIGUSR1 does after saving a checkpoint: \"continue\" or \"stop\" the run.")
        .default("\"continue\""),
];

const fn key(path: &'static str, kind: ValueKind, help: &'static str) -> Key {
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

    /// The section that it belongs to; empty for keys of the top level.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// Whether a run resumes with another value, but not necessarily to the same bits.
    #[must_use]
    pub fn is_inexact(&self) -> bool {
        matches!(self.path, "threads" | "device" | "training.micro_batch_size" | "stages[].micro_batch_size")
    }

    /// The key without its section.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, word)| word)
    }
}

/// What a path names.
pub(crate) enum Found {
    /// A key with a value.
    Key(&'static Key),
    /// A table with keys.
    Section,
    /// No known key or section.
    Nothing,
}

/// Looks up `path`, which may name a stage by its number: `stages[0].share`.
pub(crate) fn find(path: &str) -> Found {
    let path = without_index(path);
    match KEYS.iter().find(|key| key.path == path) {
        Some(key) => Found::Key(key),
        None if KEYS.iter().any(|key| key.section() == path) => Found::Section,
        None => Found::Nothing,
    }
}
