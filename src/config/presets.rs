//! Named network sizes.
//!
//! The `paper-*` rows are those of arXiv 2407.12665 (vocabulary of LLaMA-2, context of 2048);
//! `demo` is small enough for two CPU cores.

/// Named network sizes; all other keys keep their defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// Value of `model.preset`.
    pub name: &'static str,
    /// Vocabulary size, if it does not follow from the tokenizer.
    pub vocab_size: Option<u32>,
    /// Hidden size.
    pub hidden_size: u32,
    /// Intermediate size of the FFN.
    pub intermediate_size: u32,
    /// Number of decoder layers.
    pub num_hidden_layers: u32,
    /// Query heads per layer; there are as many key and value heads.
    pub num_attention_heads: u32,
    /// Maximum sequence length, in positions.
    pub max_position_embeddings: u32,
}

/// All presets.
pub const PRESETS: [Preset; 5] = [
    Preset {
        name: "demo",
        vocab_size: None,
        hidden_size: 128,
        intermediate_size: 352,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        max_position_embeddings: 256,
    },
    paper("paper-370m", 1024, 2752, 24, 16),
    paper("paper-780m", 1536, 4128, 24, 16),
    paper("paper-1.3b", 2048, 5504, 24, 16),
    paper("paper-2.7b", 2560, 6880, 32, 32),
];

/// Allowed values of `model.preset`.
pub(crate) const PRESET_NAMES: [&str; 5] =
    [PRESETS[0].name, PRESETS[1].name, PRESETS[2].name, PRESETS[3].name, PRESETS[4].name];

const fn paper(
    name: &'static str,
    hidden_size: u32,
    intermediate_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
) -> Preset {
    let (vocab_size, max_position_embeddings) = (Some(32_000), 2048);
    Preset {
        name,
        vocab_size,
        hidden_size,
        intermediate_size,
        num_hidden_layers,
        num_attention_heads,
        max_position_embeddings,
    }
}

impl Preset {
    /// The preset named `name`.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// The keys that the preset sets, with their values.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let sizes = [
            ("model.hidden_size", self.hidden_size),
            ("model.intermediate_size", self.intermediate_size),
            ("model.num_hidden_layers", self.num_hidden_layers),
            ("model.num_attention_heads", self.num_attention_heads),
            ("model.num_key_value_heads", self.num_attention_heads),
            ("model.max_position_embeddings", self.max_position_embeddings),
        ];
        sizes.into_iter().chain(self.vocab_size.map(|rows| ("model.vocab_size", rows)))
    }
}
