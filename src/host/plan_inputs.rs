//! The text and the tokenizer of a plan: what exists, what is missing, and what is assumed instead.
//!
//! A plan can be made without either; the caller decides whether that is acceptable. Start at
//! [`PlanInputs::find`].

use std::collections::BTreeMap;

use crate::advice::Failure;
use crate::config::{Origin, RunConfig, TextSource};
use crate::data::grammar::Grammar;
use crate::data::{DataError, Inputs, Tokenizer, estimate_train_tokens, find_files};
use crate::plan::{Corpus, DeviceKind, PlanError, RunPlan};

/// Vocabulary size without tokenizer and `model.vocab_size`: that of LLaMA-2, as in the paper.
const ASSUMED_VOCAB_SIZE: usize = 32_000;

/// What a plan needs from the files of a configuration.
#[derive(Debug)]
pub struct PlanInputs {
    /// The tokenizer, if it exists.
    pub tokenizer: Option<Tokenizer>,
    /// Training tokens of the text files, estimated; `None` if the text is generated or missing.
    pub train_tokens: Option<u64>,
    /// What is missing.
    pub missing: Vec<Missing>,
}

/// A missing file.
#[derive(Debug)]
pub struct Missing {
    /// The key that names it.
    pub key: &'static str,
    /// The error of a run.
    pub error: DataError,
    /// What the plan assumes instead.
    pub instead: String,
}

impl PlanInputs {
    /// Looks for the files of `config`.
    ///
    /// # Errors
    /// When an existing file cannot be used.
    pub fn find(config: &RunConfig) -> Result<Self, DataError> {
        match Inputs::find(&config.data) {
            Ok(inputs) => {
                let train_tokens = estimate_train_tokens(&config.data, inputs.tokenizer())?;
                return Ok(Self {
                    tokenizer: Some(inputs.tokenizer().clone()),
                    train_tokens,
                    missing: Vec::new(),
                });
            }
            Err(DataError::NoTokenizerFile { .. } | DataError::NothingMatches { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut missing = Vec::new();
        let tokenizer = match Tokenizer::load(&config.data.tokenizer) {
            Ok(tokenizer) => Some(tokenizer),
            Err(error @ DataError::NoTokenizerFile { .. }) => {
                let source = if config.model.vocab_size.is_some() {
                    "model.vocab_size"
                } else {
                    "as in the paper"
                };
                let instead = format!(
                    "this plan assumes a vocabulary of {} tokens ({source})",
                    assumed_vocab_size(config)
                );
                missing.push(Missing { key: "data.tokenizer", error, instead });
                None
            }
            Err(error) => return Err(error),
        };
        let patterns = [
            ("data.files", config.data.files.as_deref()),
            ("data.validation_files", config.data.validation_files.as_deref()),
        ];
        for (key, patterns) in patterns {
            match patterns.map(find_files) {
                None | Some(Ok(_)) => {}
                Some(Err(error @ DataError::NothingMatches { .. })) => {
                    missing.push(Missing {
                        key,
                        error,
                        instead: "a run cannot start without this text".into(),
                    });
                }
                Some(Err(error)) => return Err(error),
            }
        }
        Ok(Self { tokenizer, train_tokens: None, missing })
    }

    /// The missing files and the assumptions made instead, as text.
    #[must_use]
    pub fn assumptions(&self) -> Vec<String> {
        self.missing
            .iter()
            .map(|missing| format!("{}; {}", missing.error, missing.instead))
            .collect()
    }

    /// The first missing file that the user has named; files of a built-in configuration are
    /// examples.
    #[must_use]
    pub fn first_named_by_user(self, origins: &BTreeMap<String, Origin>) -> Option<DataError> {
        let is_example = |key: &str| {
            let origin = origins.iter().find(|(name, _)| {
                name.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
            });
            matches!(origin, Some((_, Origin::BuiltIn { .. } | Origin::Default)))
        };
        self.missing
            .into_iter()
            .find(|missing| !is_example(missing.key))
            .map(|missing| missing.error)
    }
}

/// The plan as far as it is known before the text is prepared; `None` if the budget depends on the
/// length of the text.
///
/// Without a `tokenizer` the vocabulary size is that of the configuration, or the paper's.
///
/// # Errors
/// When the numbers do not fit together, or the tokenizer fails.
pub fn plan_before_preparation(
    config: &RunConfig,
    tokenizer: Option<&Tokenizer>,
    device: DeviceKind,
) -> Result<Option<RunPlan>, Failure> {
    match RunPlan::new(config, &corpus(config, tokenizer)?, device) {
        Ok(plan) => Ok(Some(plan)),
        Err(PlanError::CorpusUnknown) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What is known about the text before it is read.
///
/// # Errors
/// When the tokenizer fails.
pub fn corpus(config: &RunConfig, tokenizer: Option<&Tokenizer>) -> Result<Corpus, DataError> {
    let special_tokens = usize::from(config.data.add_bos) + usize::from(config.data.add_eos);
    let entropy_rate = match (config.data.source(), tokenizer) {
        (TextSource::Generated(_), Some(tokenizer)) => {
            Grammar::built_in().entropy_rate(tokenizer, special_tokens)?
        }
        (TextSource::Generated(_), None) | (TextSource::Files(_), _) => None,
    };
    Ok(Corpus {
        tokenizer_vocab_size: tokenizer.map_or_else(
            || assumed_vocab_size(config),
            |tokenizer| tokenizer.rows_for(config.model.vocab_size),
        ),
        train_tokens: None,
        entropy_rate,
    })
}

/// The vocabulary size that a plan assumes without a tokenizer.
fn assumed_vocab_size(config: &RunConfig) -> usize {
    config.model.vocab_size.unwrap_or(ASSUMED_VOCAB_SIZE)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::advice::{Advice, USAGE};
    use crate::config::{BUILT_IN, LoadRequest, LoadedConfig, load};

    fn loaded(source: &str, sets: &[&str]) -> LoadedConfig {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        load(&LoadRequest { source, sets: &sets, current_dir: Path::new("/nowhere") }).unwrap()
    }

    #[test]
    fn every_built_in_configuration_is_planned_without_its_files() {
        // Without its weights, `continue` has no sizes.
        for (name, _) in BUILT_IN.into_iter().filter(|(name, _)| *name != "continue") {
            let LoadedConfig { config, origins } = loaded(name, &[]);
            let inputs = PlanInputs::find(&config).unwrap();
            let plan = plan_before_preparation(&config, inputs.tokenizer.as_ref(), DeviceKind::Cpu)
                .unwrap()
                .unwrap();
            assert!(plan.steps > 0, "{name}");
            if name == "demo" {
                assert_eq!(inputs.assumptions(), Vec::<String>::new());
                continue;
            }
            assert_eq!(plan.model.vocab_size, 32_000, "{name}");
            let tokenizer = "tokenizer file /nowhere/tokenizer.json does not exist; this plan \
                             assumes a vocabulary of 32000 tokens (model.vocab_size)";
            let [first, second] = inputs.assumptions().try_into().unwrap();
            assert!(
                first == tokenizer
                    && second.contains("/nowhere/data/*.jsonl")
                    && second.ends_with("; a run cannot start without this text"),
                "{first}\n{second}"
            );
            assert!(inputs.first_named_by_user(&origins).is_none(), "{name}");
        }
    }

    #[test]
    fn a_missing_tokenizer_without_a_vocabulary_is_taken_for_the_paper_s() {
        let LoadedConfig { config, origins } = loaded("demo", &["data.tokenizer=absent.json"]);
        let inputs = PlanInputs::find(&config).unwrap();
        assert!(inputs.tokenizer.is_none());
        let plan = plan_before_preparation(&config, None, DeviceKind::Cpu).unwrap().unwrap();
        assert_eq!((plan.model.vocab_size, plan.entropy_rate), (32_000, None));
        let expected = "tokenizer file /nowhere/absent.json does not exist; this plan assumes a \
                        vocabulary of 32000 tokens (as in the paper)";
        assert_eq!(inputs.assumptions(), [expected]);
        assert_eq!(inputs.first_named_by_user(&origins).unwrap().exit_code(), USAGE);
    }

    #[test]
    fn text_that_the_user_names_must_be_there() {
        for sets in [
            &["data.files=absent.txt"][..],
            &["data.files=['absent/*.jsonl']"],
            &["data.validation_files=['absent.txt']"],
        ] {
            let LoadedConfig { config, origins } = loaded("demo", sets);
            let error = PlanInputs::find(&config).unwrap().first_named_by_user(&origins).unwrap();
            assert!(
                error.exit_code() == USAGE && error.to_string().contains("/nowhere/absent"),
                "{sets:?}: {error}"
            );
        }
    }
}
