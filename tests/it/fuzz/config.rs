//! A configuration: its file, a line for each `--set`, and the small files of a model to start
//! from.
//!
//! A configuration that is accepted comes back from its own text, and its plan is consistent.

use std::fs;
use std::path::Path;

use patchtui::advice::{Advice, Audience};
use patchtui::config::{LoadRequest, RunConfig, load, load_resolved, to_toml};
use patchtui::plan::{Corpus, CostedStage, RunPlan};

use super::{parts, scratch};

pub(super) fn read(bytes: &[u8]) {
    let [file, sets, sizes, run_config] = parts(bytes);
    let folder = scratch("config");
    let at = |name: &str| folder.join(name);
    for (name, content) in [
        ("config.toml", file),
        ("model/config.json", sizes),
        ("run/plan.json", sizes),
        ("run/config.toml", run_config),
    ] {
        fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        fs::write(at(name), content).unwrap();
    }
    let sets: Vec<String> = String::from_utf8_lossy(sets).lines().map(str::to_owned).collect();
    let source = at("config.toml").to_string_lossy().into_owned();
    match load(&LoadRequest { source: &source, sets: &sets, current_dir: &folder }) {
        Err(error) => {
            assert!(!error.to_string().is_empty() && !error.hint(Audience::Command).is_empty());
        }
        Ok(loaded) => check(&loaded.config, &at("resolved.toml")),
    }
}

fn check(config: &RunConfig, path: &Path) {
    fs::write(path, to_toml(config)).unwrap();
    assert_eq!(
        load_resolved(path).unwrap(),
        *config,
        "a configuration reads back as it was written"
    );
    for train_tokens in [None, Some(100_000)] {
        let corpus = Corpus {
            tokenizer_vocab_size: 320,
            train_tokens,
            entropy_rate: None,
            device_is_cpu: true,
        };
        match RunPlan::new(config, &corpus) {
            Err(error) => {
                assert!(!error.to_string().is_empty() && !error.hint(Audience::Command).is_empty());
            }
            Ok(plan) => {
                assert_eq!(
                    plan.stages.last().map(patchtui::plan::StagePlan::last_step),
                    Some(plan.steps)
                );
                assert_eq!(plan.cost_after(plan.steps).tokens, plan.cost.tokens);
                assert!(plan.stage_idx_after(u64::MAX) < plan.stages.len());
                for stage in &plan.stages {
                    let rates = [0, stage.steps / 2, stage.steps.saturating_sub(1)]
                        .map(|step| stage.schedule.learning_rate(step));
                    let highest = stage.schedule.peak.max(stage.schedule.minimum) * (1.0 + 1e-9);
                    assert!(
                        rates.iter().all(|rate| (0.0..=highest).contains(rate)),
                        "{rates:?} of at most {highest}"
                    );
                }
            }
        }
    }
}
