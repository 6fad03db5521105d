//! The table of all configuration keys: allowed values, default, help text, other names, and what a
//! resume makes of another value.
//!
//! Everything that knows keys reads this table: parsing, checks, hints, the template, `config
//! show`, and the identity of a run. A new key is a field in `schema.rs` and a row here. Start at
//! [`KEYS`].

use toml::{Table, Value};

use crate::config::kind::{Range, ValueKind};
use crate::config::presets::PRESET_NAMES;

/// One key of the configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Key {
    /// Full name: `section.key`, or `stages[].key` inside a stage.
    pub path: &'static str,
    /// Allowed values.
    pub kind: ValueKind,
    /// Help text, one or more sentences.
    pub help: &'static str,
    /// Default as TOML text, if it is a constant.
    pub default: Option<&'static str>,
    /// Example value as TOML text, for a key without a default.
    pub example: Option<&'static str>,
    /// Whether a value is needed once all layers are merged.
    pub need: Need,
    /// What a resume makes of another value.
    pub change: Change,
    /// Whether checkpoints record the value. They do not record the name and the device, which the
    /// engine resolves, and files that may move, whose content is covered by fingerprints.
    pub is_recorded: bool,
    /// Names of the key in other programs.
    pub synonyms: &'static [&'static str],
    /// What to type next after a wrong value, if there is more to say than what is allowed.
    pub hint: Option<&'static str>,
}

/// Whether a key needs a value once all layers are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It has one: from a default, a preset or the user.
    Required,
    /// Absent, it is off, or another source supplies the value.
    Optional,
    /// Exactly one key of the group has a value.
    OneOf(KeyGroup),
}

/// Keys of which exactly one is set: a later layer that sets one removes the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyGroup {
    /// Source of the training text.
    Text,
    /// Source of the validation text.
    Validation,
    /// Length of the run.
    Budget,
    /// Length of the warm-up.
    WarmUp,
}

/// What a resume makes of another value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The same run.
    Free,
    /// The same run, but not necessarily bit for bit.
    Inexact,
    /// Another run: it is refused.
    Refused,
}

// Bounds that no sensible run reaches; within them the plan's products fit into 64 bits.
const WIDTH: ValueKind = ValueKind::Whole(1, 1 << 20);
const HEADS: ValueKind = ValueKind::Whole(1, 1 << 12);
const POSITIONS: ValueKind = ValueKind::Whole(2, 1 << 24);
const SEQUENCES: ValueKind = ValueKind::Whole(1, 1 << 20);
const STEPS: ValueKind = ValueKind::Whole(0, 1 << 40);
const POSITIVE: ValueKind = ValueKind::Number(Range::Positive);
const NOT_NEGATIVE: ValueKind = ValueKind::Number(Range::NotNegative);

/// All keys, in reading order.
pub const KEYS: &[Key] = &[
    key(
        "name",
        ValueKind::Name,
        "Name of the run and of its directory. Default: the name of this file without its \
         extension.",
    )
    .example("\"books\"")
    .unrecorded()
    .also_called(&["run_name", "title"]),
    key(
        "seed",
        ValueKind::Whole(0, i64::MAX as u64),
        "Seed of the initial weights and of the data order.",
    )
    .default("1")
    .identity()
    .also_called(&["random_seed", "rng_seed"]),
    key(
        "device",
        ValueKind::Device,
        "\"auto\", \"cpu\", \"wgpu\" or \"cuda\"; \"cuda:1\" is the second GPU. auto picks the \
         best available.",
    )
    .default("\"auto\"")
    .unrecorded()
    .inexact()
    .also_called(&["gpu", "accelerator"]),
    key("threads", ValueKind::Whole(0, 1 << 16), "CPU threads; 0 uses all.")
        .default("0")
        .inexact()
        .also_called(&["num_threads", "n_threads", "cpus", "workers"]),
    // model
    key(
        "model.preset",
        ValueKind::Word(&PRESET_NAMES),
        "Named sizes; the keys below override individual sizes.",
    )
    .default("\"demo\""),
    key(
        "model.init_from",
        ValueKind::Model,
        "Start from trained weights instead of random ones: the name of a run, or the path of a \
         run, of a checkpoint or of a LLaMA model in the Hugging Face format, relative to this \
         file. Sizes and tokenizer then come from the weights. A value with a slash is always a \
         path.",
    )
    .example("\"Llama-2-7b-hf\"")
    .identity()
    .optional()
    .unrecorded(),
    key(
        "model.vocab_size",
        ValueKind::Whole(1, 1 << 24),
        "Vocabulary size (rows of the embedding table). Default: that of the tokenizer, rounded \
         up to a multiple of 64.",
    )
    .example("32000")
    .identity()
    .optional()
    .also_called(&["vocab", "vocabulary", "vocabulary_size", "n_vocab"]),
    key("model.hidden_size", WIDTH, "Hidden size (width of the residual stream).")
        .example("128")
        .identity()
        .also_called(&[
            "dim",
            "d_model",
            "n_embd",
            "n_embed",
            "embed_dim",
            "embedding_size",
            "hidden_dim",
            "width",
        ]),
    key("model.intermediate_size", WIDTH, "Intermediate size of the FFN.")
        .example("352")
        .identity()
        .also_called(&["d_ff", "ff_dim", "ffn_dim", "mlp_dim", "ffn_hidden_size", "n_inner"]),
    key("model.num_hidden_layers", ValueKind::Whole(1, 1 << 12), "Number of decoder layers.")
        .example("4")
        .identity()
        .also_called(&["n_layer", "n_layers", "num_layers", "layers", "depth"]),
    key(
        "model.num_attention_heads",
        HEADS,
        "Query heads per layer; hidden_size must divide into heads of even dimension.",
    )
    .example("4")
    .identity()
    .also_called(&["n_head", "n_heads", "num_heads", "heads"]),
    key(
        "model.num_key_value_heads",
        HEADS,
        "Key and value heads per layer; must divide num_attention_heads. Default: \
         num_attention_heads.",
    )
    .example("4")
    .identity()
    .also_called(&["n_kv_head", "n_kv_heads", "num_kv_heads", "kv_heads"]),
    key("model.max_position_embeddings", POSITIONS, "Maximum sequence length, in positions.")
        .example("256")
        .identity()
        .also_called(&["max_position", "max_positions", "n_positions"]),
    key("model.rope_theta", POSITIVE, "Base of the rotary position embedding (RoPE).")
        .default("10000.0")
        .identity(),
    key("model.rms_norm_eps", POSITIVE, "Epsilon of RMSNorm.").default("1e-6").identity(),
    key("model.initializer_range", POSITIVE, "Standard deviation of the initial weights.")
        .default("0.02")
        .identity()
        .also_called(&["init_std", "initializer_std"]),
    key(
        "model.tie_word_embeddings",
        ValueKind::Flag,
        "Tie the output head to the embedding table.",
    )
    .default("false")
    .identity()
    .also_called(&["tie_embeddings", "tied", "tied_embeddings", "weight_tying"]),
    // data
    key(
        "data.files",
        ValueKind::Paths,
        "Text files, folders and glob patterns, relative to this file. Alternative to generator.",
    )
    .example("[\"text.txt\"]")
    .one_of(KeyGroup::Text)
    .also_called(&[
        "dataset",
        "datasets",
        "corpus",
        "path",
        "paths",
        "file",
        "train_files",
        "text_files",
    ]),
    key(
        "data.generator",
        ValueKind::Word(&["grammar"]),
        "Generate the text: English-like stories from a seeded grammar. Alternative to files.",
    )
    .example("\"grammar\"")
    .identity()
    .one_of(KeyGroup::Text),
    key(
        "data.validation_share",
        ValueKind::Share,
        "Share of the text held out for evaluation: documents chosen across all files, the same \
         for every run on this text. Alternative to validation_files.",
    )
    .default("0.01")
    .identity()
    .one_of(KeyGroup::Validation)
    .also_called(&["val_split", "validation_split", "val_share", "test_split"]),
    key(
        "data.validation_files",
        ValueKind::Paths,
        "Text held out for evaluation. Alternative to validation_share.",
    )
    .example("[\"validation.txt\"]")
    .one_of(KeyGroup::Validation)
    .also_called(&["val_files", "valid_files", "eval_files"]),
    key(
        "data.tokenizer",
        ValueKind::Tokenizer,
        "\"demo\" (small, for the grammar), \"bytes\", or the path of a Hugging Face \
         tokenizer.json.",
    )
    .default("\"demo\"")
    .identity()
    .unrecorded(),
    key("data.text_field", ValueKind::Text, "Field of a JSON record that holds the text.")
        .default("\"text\"")
        .identity(),
    key("data.add_bos", ValueKind::Flag, "Put a BOS token before each document.")
        .default("true")
        .identity(),
    key("data.add_eos", ValueKind::Flag, "Put an EOS token after each document.")
        .default("false")
        .identity(),
    key(
        "data.max_document_words",
        ValueKind::Count,
        "Documents with more words than this are tokenized in parts; the tokens are the same as \
         for the whole document.",
    )
    .default("10000")
    .identity(),
    key(
        "data.max_bad_records",
        ValueKind::Number(Range::Fraction),
        "Maximum share of unusable records, which are skipped and reported. If there are more, \
         preparing the text fails; 0 allows none.",
    )
    .default("0.01")
    .identity(),
    key(
        "data.max_lost_text",
        ValueKind::Number(Range::Fraction),
        "Maximum share of text that the tokenizer loses: dropped characters, unknown tokens, \
         control tokens spelled out in the text. If it loses more, preparing the text fails.",
    )
    .default("0.05"),
    key(
        "data.shuffle",
        ValueKind::Flag,
        "Read the blocks of the text in random order, reshuffled every epoch.",
    )
    .default("true")
    .identity(),
    key(
        "data.block_tokens",
        ValueKind::Count,
        "Tokens per block, the unit of shuffling. Default: the smallest size that is a whole \
         number of sequences in every stage.",
    )
    .example("16384")
    .identity()
    .optional(),
    // training
    key(
        "training.tokens",
        ValueKind::Count,
        "Training budget in tokens. Alternatives: positions, epochs, steps.",
    )
    .example("\"3M\"")
    .identity()
    .one_of(KeyGroup::Budget)
    .also_called(&["num_tokens", "n_tokens", "total_tokens", "train_tokens", "budget"]),
    key(
        "training.positions",
        ValueKind::Count,
        "Training budget in positions: a patch of K tokens is one position.",
    )
    .example("\"1.5M\"")
    .identity()
    .one_of(KeyGroup::Budget),
    key("training.epochs", POSITIVE, "Training budget in passes over the text.")
        .example("1.0")
        .identity()
        .one_of(KeyGroup::Budget)
        .also_called(&["epoch", "num_epochs", "n_epochs", "max_epochs", "num_train_epochs"]),
    key("training.steps", ValueKind::Count, "Training budget in optimizer steps.")
        .example("1000")
        .identity()
        .one_of(KeyGroup::Budget)
        .also_called(&[
            "max_steps",
            "num_steps",
            "n_steps",
            "train_steps",
            "iterations",
            "iters",
            "max_iters",
        ]),
    key(
        "training.tokens_per_step",
        ValueKind::Count,
        "Tokens per optimizer step, the same in every stage; a multiple of patch_size * \
         context_length.",
    )
    .default("16384")
    .identity()
    .also_called(&["total_batch_size", "global_batch_size", "tokens_per_batch"]),
    key(
        "training.context_length",
        POSITIONS,
        "Context length in positions; at patch size K, a sequence has K times as many tokens.",
    )
    .default("256")
    .identity()
    .also_called(&[
        "seq_len",
        "seq_length",
        "sequence_length",
        "max_seq_len",
        "block_size",
        "ctx",
        "context",
        "n_ctx",
    ]),
    key(
        "training.micro_batch_size",
        SEQUENCES,
        "Maximum number of sequences per forward pass. Affects memory and speed, not the result.",
    )
    .default("8")
    .inexact()
    .also_called(&[
        "batch_size",
        "batch",
        "micro_batch",
        "micro_batch_tokens",
        "device_batch_size",
        "per_device_train_batch_size",
    ]),
    key(
        "training.recompute",
        ValueKind::Flag,
        "Recompute activations in the backward pass instead of keeping them: less memory, more \
         time, identical numbers.",
    )
    .default("false"),
    key(
        "training.precision",
        ValueKind::Word(&["f32", "bf16"]),
        "Precision of matrix products: \"f32\", or \"bf16\" on CUDA; weights, optimizer state, \
         norms, logits and losses are always f32.",
    )
    .default("\"f32\"")
    .identity()
    .also_called(&["dtype", "torch_dtype", "mixed_precision"]),
    key(
        "training.max_walltime",
        ValueKind::WallTime,
        "Stop with a checkpoint before this much time has passed since the run started or resumed.",
    )
    .example("\"11h30m\"")
    .optional()
    .also_called(&["max_time", "time_limit", "walltime"]),
    key(
        "training.fork_from",
        ValueKind::Directory,
        "Continue from this checkpoint of another run: weights, optimizer state and position. Set \
         by `patchtui run --from CHECKPOINT`; the plan must have read the same number of tokens \
         by that step.",
    )
    .example("\"runs/books/checkpoints/step-00001000\"")
    .identity()
    .optional()
    .unrecorded(),
    key(
        "training.audit_every",
        STEPS,
        "Steps between audits, which compute one micro-batch twice and warn if the results \
         differ, as on faulty hardware; 0 disables them. Needs memory for a second set of \
         gradients.",
    )
    .default("0"),
    // stages
    key(
        "stages",
        ValueKind::Stages,
        "The stages in order: patch stages first, the token stage (K = 1) last.",
    )
    .default("[{patch_size = 4, share = \"2/3\"}, {patch_size = 1, optimizer_state = \"reset\"}]")
    .identity()
    .hint("start each stage with a line [[stages]]"),
    key(
        "stages[].patch_size",
        ValueKind::PatchSize,
        "Tokens per patch (K); 1 is a plain language model.",
    )
    .example("4")
    .identity()
    .also_called(&["k", "patch"]),
    key(
        "stages[].share",
        ValueKind::Share,
        "Share of the run's tokens. One stage may omit it and takes the rest.",
    )
    .example("\"2/3\"")
    .identity()
    .optional(),
    key(
        "stages[].optimizer_state",
        ValueKind::Word(&["reset", "keep"]),
        "Optimizer state at the start of the stage: \"reset\", as in the paper, or \"keep\".",
    )
    .default("\"reset\"")
    .identity(),
    key("stages[].context_length", POSITIONS, "Override training.context_length in this stage.")
        .example("256")
        .identity()
        .optional(),
    key("stages[].learning_rate", POSITIVE, "Override optimizer.learning_rate in this stage.")
        .example("3e-4")
        .identity()
        .optional(),
    key("stages[].warmup_steps", STEPS, "Override the warm-up of the schedule in this stage.")
        .example("100")
        .identity()
        .optional(),
    key(
        "stages[].tokens_per_step",
        ValueKind::Count,
        "Override training.tokens_per_step in this stage.",
    )
    .example("16384")
    .identity()
    .optional(),
    key(
        "stages[].micro_batch_size",
        SEQUENCES,
        "Override training.micro_batch_size in this stage.",
    )
    .example("8")
    .optional()
    .inexact(),
    // optimizer
    key(
        "optimizer.learning_rate",
        POSITIVE,
        "Peak learning rate of AdamW, reached at the end of the warm-up; small models train well \
         with a higher rate, e.g. 3e-3 in demo.",
    )
    .default("3e-4")
    .identity()
    .also_called(&["lr", "max_lr", "peak_lr", "base_lr"]),
    key("optimizer.betas", ValueKind::Betas, "Betas of AdamW.")
        .default("[0.9, 0.95]")
        .identity()
        .also_called(&["beta", "beta1", "beta2", "adam_beta1", "adam_beta2"]),
    key("optimizer.epsilon", POSITIVE, "Epsilon of AdamW.")
        .default("1e-8")
        .identity()
        .also_called(&["eps", "adam_eps", "adam_epsilon"]),
    key(
        "optimizer.weight_decay",
        NOT_NEGATIVE,
        "Decoupled weight decay; applies to embeddings, not to norms.",
    )
    .default("0.1")
    .identity()
    .also_called(&["wd", "decay"]),
    key(
        "optimizer.gradient_clip",
        POSITIVE,
        "Maximum global gradient norm (L2); larger gradients are scaled down to it.",
    )
    .default("1.0")
    .identity()
    .also_called(&["clip", "grad_clip", "max_grad_norm", "clip_grad_norm", "max_norm"]),
    // schedule
    key(
        "schedule.kind",
        ValueKind::Word(&["cosine", "linear", "constant", "wsd"]),
        "How the learning rate decays after the warm-up; restarts in every stage.",
    )
    .default("\"cosine\"")
    .identity()
    .also_called(&["scheduler", "lr_scheduler", "lr_schedule", "lr_scheduler_type"]),
    key(
        "schedule.warmup_share",
        ValueKind::Share,
        "Warm-up as a share of the stage's steps. Alternative to warmup_steps.",
    )
    .default("0.02")
    .identity()
    .one_of(KeyGroup::WarmUp)
    .also_called(&["warmup", "warmup_ratio", "warmup_fraction"])
    .hint("for no warm-up, write schedule.warmup_steps = 0"),
    key(
        "schedule.warmup_steps",
        STEPS,
        "Warm-up in steps, at most the length of the stage; 0 disables it. Alternative to \
         warmup_share.",
    )
    .example("2000")
    .identity()
    .one_of(KeyGroup::WarmUp)
    .also_called(&["warmup_iters", "num_warmup_steps"]),
    key(
        "schedule.decay_share",
        ValueKind::Share,
        "Share of a \"wsd\" stage, at its end, over which the learning rate decays.",
    )
    .default("0.1")
    .identity(),
    key("schedule.min_learning_rate", NOT_NEGATIVE, "Learning rate at the end of a stage.")
        .default("0.0")
        .identity()
        .also_called(&["min_lr", "final_lr", "minimum_learning_rate"]),
    // what a run reports and keeps
    key(
        "report.every_steps",
        ValueKind::CadenceWithoutNever,
        "Steps between metrics records; \"auto\" is 1 on the CPU and 10 on a GPU.",
    )
    .default("\"auto\"")
    .also_called(&["log_every", "log_interval", "logging_steps"]),
    key(
        "evaluation.every_steps",
        ValueKind::Cadence,
        "Steps between evaluations of the token loss (K = 1), in every stage; \"auto\" means 20 \
         per run. Also done at the end of each stage.",
    )
    .default("\"auto\"")
    .also_called(&["eval_every", "eval_interval", "eval_steps"]),
    key(
        "evaluation.max_tokens",
        ValueKind::TokenLimit,
        "Maximum number of validation tokens per evaluation; \"auto\" means up to 256k, and fewer \
         in a short run, so that evaluations take about 0.7 % of its compute. The evaluation \
         after the last step reads all validation tokens.",
    )
    .default("\"auto\""),
    key(
        "activations.every_steps",
        ValueKind::Cadence,
        "Steps between measurements of the share of active neurons; \"auto\" means 20 per run.",
    )
    .default("\"auto\""),
    key(
        "activations.threshold",
        POSITIVE,
        "A neuron counts as active when its absolute value is greater than this.",
    )
    .default("0.5"),
    key(
        "activations.tensor",
        ValueKind::Word(&["ffn_output", "intermediate"]),
        "Neurons to measure: the output of the FFN, or its intermediate activations.",
    )
    .default("\"ffn_output\""),
    key(
        "samples.every_steps",
        ValueKind::Cadence,
        "Steps between generated samples; \"auto\" means 10 per run.",
    )
    .default("\"auto\""),
    key(
        "samples.prompts",
        ValueKind::Texts,
        "Prompts; if empty, the beginning of the validation text.",
    )
    .default("[]")
    .also_called(&["prompt", "prompts"]),
    key(
        "samples.max_new_tokens",
        ValueKind::Whole(1, 1 << 20),
        "Maximum number of tokens generated per prompt.",
    )
    .default("48"),
    key(
        "tasks.every_steps",
        ValueKind::Cadence,
        "Steps between evaluations on tasks; \"auto\" means 4 per run. Also done at the end of \
         each stage.",
    )
    .default("\"auto\""),
    key(
        "tasks.names",
        ValueKind::Texts,
        "Evaluation tasks, with the names that `eval --tasks` takes: hellaswag, piqa, \
         wikitext-paper, text:FILE; none if empty.",
    )
    .default("[]"),
    key("tasks.data", ValueKind::Directory, "Folder of the task files, relative to this file.")
        .example("\"task-data\"")
        .optional(),
    key(
        "tasks.limit",
        ValueKind::Whole(1, 1 << 30),
        "Number of documents scored per task, starting with the first.",
    )
    .default("100"),
    key(
        "checkpoint.every_steps",
        ValueKind::Cadence,
        "Steps between checkpoints; \"auto\" means 10 per run, and fewer in a short run, so that \
         they take about 0.5 % of its time. Stage ends and the end of the run are always saved.",
    )
    .default("\"auto\"")
    .also_called(&["save_every", "save_interval", "save_steps"]),
    key(
        "checkpoint.keep",
        ValueKind::Whole(2, 1 << 20),
        "Number of periodic checkpoints to keep, at least 2; those at stage ends and at the end \
         of the run are always kept.",
    )
    .default("3")
    .also_called(&["save_total_limit", "keep_last"]),
    key(
        "checkpoint.keep_best",
        ValueKind::Flag,
        "Also keep the checkpoint with the lowest token loss. Only checkpoints at evaluated steps \
         count: checkpoint.every_steps should be a multiple of evaluation.every_steps, as \
         \"auto\" chooses it.",
    )
    .default("true"),
    key(
        "checkpoint.on_usr1",
        ValueKind::Word(&["continue", "stop"]),
        "What SIGUSR1 does after saving a checkpoint: \"continue\" or \"stop\" the run.",
    )
    .default("\"continue\""),
];

const fn key(path: &'static str, kind: ValueKind, help: &'static str) -> Key {
    Key {
        path,
        kind,
        help,
        default: None,
        example: None,
        need: Need::Required,
        change: Change::Free,
        is_recorded: true,
        synonyms: &[],
        hint: None,
    }
}

impl Key {
    const fn default(self, text: &'static str) -> Self {
        Self { default: Some(text), ..self }
    }

    const fn example(self, text: &'static str) -> Self {
        Self { example: Some(text), ..self }
    }

    const fn optional(self) -> Self {
        Self { need: Need::Optional, ..self }
    }

    const fn one_of(self, group: KeyGroup) -> Self {
        Self { need: Need::OneOf(group), ..self }
    }

    const fn identity(self) -> Self {
        Self { change: Change::Refused, ..self }
    }

    const fn inexact(self) -> Self {
        Self { change: Change::Inexact, ..self }
    }

    const fn unrecorded(self) -> Self {
        Self { is_recorded: false, ..self }
    }

    const fn also_called(self, synonyms: &'static [&'static str]) -> Self {
        Self { synonyms, ..self }
    }

    const fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// The section of the key; empty at the top level.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// The key without its section.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, word)| word)
    }

    /// Whether every stage has the key.
    #[must_use]
    pub fn is_of_stage(&self) -> bool {
        self.section() == "stages[]"
    }

    /// A value as TOML text, for the template and for hints.
    #[must_use]
    pub fn sample(&self) -> &'static str {
        self.default.or(self.example).unwrap_or("...")
    }

    /// The default, if it is a constant.
    pub(crate) fn default_value(&self) -> Option<Value> {
        let line = format!("value = {}", self.default?);
        line.parse::<Table>().ok()?.remove("value")
    }
}

impl KeyGroup {
    /// All groups.
    pub const ALL: [Self; 4] = [Self::Text, Self::Validation, Self::Budget, Self::WarmUp];

    /// The keys of the group.
    pub fn keys(self) -> impl Iterator<Item = &'static Key> {
        KEYS.iter().filter(move |key| key.need == Need::OneOf(self))
    }
}

/// What a path refers to.
pub(crate) enum Found {
    /// A key with a value.
    Key(&'static Key),
    /// A table of keys.
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

/// `path` as the table writes it: without the number of a stage.
pub(crate) fn without_index(path: &str) -> String {
    match (path.find('['), path.find(']')) {
        (Some(open), Some(close)) if open < close => {
            format!("{}{}", &path[..=open], &path[close..])
        }
        _ => path.to_owned(),
    }
}
