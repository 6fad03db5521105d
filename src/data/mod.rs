//! Turns text into streams of token ids on disk, and streams into blocks in a reproducible order.
//!
//! Start at [`prepare`], then [`Loader::read`].

mod cache;
mod continuation;
mod documents;
mod encode;
mod error;
mod estimate;
mod files;
pub mod grammar;
mod held_out;
mod join;
mod loader;
mod losses;
mod noise;
mod order;
mod passed_over;
mod prepare;
mod random;
mod report;
mod rules;
mod sample;
mod special_names;
mod stream;
mod targets;
mod text;
mod text_bytes;
mod tokenizer;
mod tokenizer_file;
mod train_tokenizer;

pub use continuation::{GrowingText, continuation};
pub use documents::{DocumentCounts, DocumentOptions, DocumentReader, Piece};
pub use error::{BadRecord, DataError, TextFault};
pub use estimate::estimate_train_tokens;
pub use files::{SourceFile, TextFormat, find_files};
pub use held_out::HeldOut;
pub use loader::Loader;
pub use losses::Losses;
pub use noise::random_tokens;
pub use order::{BlockOrder, BlockPlace};
pub use passed_over::{PassedOver, PassedOverGroup, Reason};
pub use prepare::{Inputs, PrepareRequest, Prepared, Watch, prepare, prepare_on};
pub use report::PrepareReport;
pub use rules::TextRules;
pub use sample::first_tokens;
pub use special_names::TOKENIZER_COMPANIONS;
pub use stream::TokenStream;
pub use targets::TargetMask;
pub use text::{bytes_without_mark, text_of_bytes, without_mark};
pub use text_bytes::text_bytes;
pub use tokenizer::Tokenizer;
pub use train_tokenizer::{
    TrainTokenizerReport, TrainTokenizerRequest, Vocabulary, train_tokenizer, train_vocabulary,
};

pub(crate) use files::wildcard_matches;
#[cfg(feature = "engine")]
pub(crate) use random::Random;
