//! Why a configuration has no valid plan.

use thiserror::Error;

use crate::advice::{Advice, Audience, USAGE};

/// Why a configuration has no valid plan; every variant names the key to change.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PlanError {
    /// A step is not a whole number of sequences.
    #[error(
        "training.tokens_per_step = {tokens_per_step} is not a whole number of sequences in stage \
         {stage} (patch_size {patch_size} * context_length {context_length} = {sequence} tokens)"
    )]
    UnevenStep {
        /// Configured value.
        tokens_per_step: u64,
        /// Stage, counted from 1.
        stage: usize,
        /// Tokens per patch (K).
        patch_size: usize,
        /// Positions per sequence.
        context_length: usize,
        /// Tokens per sequence.
        sequence: u64,
        /// A number that works for all stages.
        common: u64,
    },
    /// The shares do not add up.
    #[error("the stage shares add up to {sum:.4}{}", if *.all_given { ", not 1" } else { ", so nothing is left for the stage without a share" })]
    Shares {
        /// Sum of the shares.
        sum: f64,
        /// Whether every stage has a share.
        all_given: bool,
    },
    /// More than one stage has no share.
    #[error("{count} stages have no share, so it is not clear how to divide the rest among them")]
    SeveralRests {
        /// Number of stages without a share.
        count: usize,
    },
    /// A stage would have no steps.
    #[error("stage {stage} would have no steps: the run has {steps} step{} of {tokens_per_step} tokens", if *.steps == 1 { "" } else { "s" })]
    EmptyStage {
        /// Stage, counted from 1.
        stage: usize,
        /// Steps of the whole run.
        steps: u64,
        /// Tokens per step.
        tokens_per_step: u64,
    },
    /// The context is longer than the model allows.
    #[error(
        "context_length = {context_length} of stage {stage} is longer than \
         model.max_position_embeddings = {limit}"
    )]
    ContextTooLong {
        /// Stage, counted from 1.
        stage: usize,
        /// Configured value.
        context_length: usize,
        /// Limit of the model.
        limit: usize,
    },
    /// The vocabulary of the tokenizer is larger than that of the model.
    #[error("model.vocab_size = {vocab_size} is too small: the tokenizer has {tokenizer} tokens")]
    VocabularyTooSmall {
        /// Configured value.
        vocab_size: usize,
        /// Vocabulary size of the tokenizer.
        tokenizer: usize,
    },
    /// The text is shorter than one block.
    #[error("the training text has {tokens} tokens, fewer than one block of {block_tokens}")]
    CorpusTooSmall {
        /// Tokens of the training text.
        tokens: u64,
        /// Tokens of a block.
        block_tokens: u64,
    },
    /// The configured block is not a whole number of sequences.
    #[error(
        "data.block_tokens = {block_tokens} is not a multiple of {common}, the smallest block \
         that is a whole number of sequences in every stage"
    )]
    UnevenBlock {
        /// Configured value.
        block_tokens: u64,
        /// The smallest block that works.
        common: u64,
    },
    /// No block of a countable size works for all stages.
    #[error(
        "the smallest block that is a whole number of sequences in every stage has more than 2^63 \
         tokens"
    )]
    BlockTooLarge,
    /// More tokens than can be counted.
    #[error("the budget is more than 2^63 tokens")]
    BudgetTooLarge,
    /// The number of tokens is required but unknown.
    #[error(
        "training.epochs needs the number of tokens in the text, which is only known once the \
         text has been prepared"
    )]
    CorpusUnknown,
}

impl Advice for PlanError {
    fn hint(&self, _: Audience<'_>) -> String {
        match self {
            Self::UnevenStep { tokens_per_step, common, .. } => {
                let below = tokens_per_step / common * common;
                let above = below + common;
                if below == 0 {
                    format!("use training.tokens_per_step = {above}")
                } else {
                    format!("use training.tokens_per_step = {below} or {above}")
                }
            }
            Self::Shares { .. } => "remove the share of one stage: it then takes the rest".into(),
            Self::SeveralRests { .. } => {
                "set a share for all stages but one, e.g. share = \"2/3\"".into()
            }
            Self::EmptyStage { tokens_per_step, .. } => {
                format!(
                    "raise training.tokens (or positions, epochs, steps), or lower \
                     training.tokens_per_step below {tokens_per_step}"
                )
            }
            Self::ContextTooLong { context_length, .. } => format!(
                "lower context_length, or set model.max_position_embeddings = {context_length}"
            ),
            Self::VocabularyTooSmall { tokenizer, .. } => {
                format!(
                    "remove model.vocab_size, or set it to {} (the next multiple of 64)",
                    tokenizer.next_multiple_of(64)
                )
            }
            Self::CorpusTooSmall { .. } => {
                "add more text to data.files, or lower training.context_length".into()
            }
            Self::UnevenBlock { block_tokens, common } => {
                format!("use data.block_tokens = {}", block_tokens.next_multiple_of(*common))
            }
            Self::BlockTooLarge => {
                "use patch sizes that divide one another, e.g. 8, 4, 2, 1".into()
            }
            Self::BudgetTooLarge => {
                "lower the budget: training.tokens, positions, epochs or steps".into()
            }
            Self::CorpusUnknown => {
                "set training.tokens instead, or start the run: it prepares the text first".into()
            }
        }
    }

    fn exit_code(&self) -> u8 {
        USAGE
    }
}
