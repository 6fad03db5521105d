//! Turns text into streams of token ids on disk, and streams into blocks in a reproducible order.
//!
//! Knows files, tokenizers and token ids; never tensors, models or runs. Start at [`prepare`], then [`Loader::read`].

mod cache;
mod continuation;
mod documents;
mod encode;
mod error;
mod estimate;
mod files;
pub mod grammar;
mod loader;
mod noise;
mod order;
mod prepare;
mod random;
mod sample;
mod special_names;
mod stream;
mod tokenizer;
mod train_tokenizer;

pub use continuation::{GrowingText, continuation};
pub use documents::{BadRecord, DocumentOptions, DocumentReader, ReadReport};
pub use error::{DataError, TextFault};
pub use estimate::estimate_train_tokens;
pub use files::{SourceFile, TextFormat, find_files};
pub use loader::Loader;
pub use noise::random_tokens;
pub use order::{BlockOrder, BlockPlace};
pub use prepare::{Inputs, PrepareReport, PrepareRequest, Prepared, Watch, prepare};
pub use sample::first_tokens;
pub use special_names::TOKENIZER_COMPANIONS;
pub use stream::TokenStream;
pub use tokenizer::Tokenizer;
pub use train_tokenizer::{TrainTokenizerReport, TrainTokenizerRequest, Vocabulary, train_tokenizer, train_vocabulary};

#[cfg(feature = "engine")]
pub(crate) use random::Random;
