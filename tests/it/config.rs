//! Configurations: layers, messages, round trips, and the built-in files.

use std::fs;
use std::path::{Path, PathBuf};

use patchtui::advice::{Advice, Audience};
use patchtui::commands::config::{show, show_json, template};
use patchtui::config::{
    self, Budget, ConfigError, IdentityChange, KEYS, LoadRequest, LoadedConfig, Origin, RunConfig,
    TextSource, ValidationSource, ValueKind,
};
use patchtui::plan::{Corpus, DeviceKind, RunPlan};
use proptest::prelude::*;
use tempfile::TempDir;

/// The minimal content of a file.
const LEAST: &str = "data.generator = \"grammar\"\ntraining.tokens = \"3M\"\n";

/// Enough text for every configuration here, including a large vocabulary.
const CORPUS: Corpus = Corpus {
    tokenizer_vocab_size: 32_000,
    train_tokens: Some(1_000_000_000_000),
    entropy_rate: None,
};

fn load(source: &str, sets: &[&str], current_dir: &Path) -> Result<LoadedConfig, ConfigError> {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    config::load(&LoadRequest { source, sets: &sets, current_dir })
}

fn demo(sets: &[&str]) -> Result<LoadedConfig, ConfigError> {
    load("demo", sets, Path::new("/home"))
}

/// A folder with the files `files`.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

/// Loads `a.toml` with the content `text`.
fn load_text(text: &str, sets: &[&str]) -> Result<LoadedConfig, ConfigError> {
    let folder = folder(&[("a.toml", text)]);
    load("a.toml", sets, folder.path())
}

fn least_with(text: &str) -> RunConfig {
    load_text(&format!("{LEAST}{text}"), &[]).unwrap().config
}

fn read_back(config: &RunConfig) -> Result<RunConfig, ConfigError> {
    let folder = folder(&[("config.toml", &config::to_toml(config))]);
    config::load_resolved(&folder.path().join("config.toml"))
}

#[test]
fn a_source_of_text_and_a_budget_are_enough() {
    let config = least_with("");
    assert_eq!(config.name, "a");
    assert_eq!(config.training.tokens_per_step.0, 16_384);
    assert_eq!(config.model.preset, config::PRESETS[0].name);
    assert_eq!(config.model.num_key_value_heads, config.model.num_attention_heads);
    assert_eq!(
        config.stages.iter().map(|stage| stage.patch_size.get()).collect::<Vec<_>>(),
        [4, 1]
    );
    assert_eq!(config.stages[0].share, Some("2/3".parse().unwrap()));
}

#[test]
fn every_built_in_configuration_is_loaded_and_planned() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<PathBuf> =
        fs::read_dir(root.join("configs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), config::BUILT_IN.len(), "every file in configs is built in");
    let weights = folder(&[("config.json", "{\"model_type\": \"llama\"}")]);
    let initial = format!("model.init_from={}", weights.path().display());
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let sets: &[&str] = if name == "continue" { &[&initial] } else { &[] };
        let of_file = load(file.to_str().unwrap(), sets, root).unwrap().config;
        let of_name = load(name, sets, &root.join("configs")).unwrap().config;
        assert_eq!(of_file, of_name, "{name}");
        assert_eq!(of_file.name, name);
        let plan = RunPlan::new(&of_file, &CORPUS, DeviceKind::Cpu)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(plan.stages.iter().all(|stage| stage.steps > 0));
        assert_eq!(read_back(&of_file).unwrap(), of_file);
    }
}

#[test]
fn the_paper_runs_are_those_of_the_paper() {
    for (name, hidden_size, layers, heads) in [
        ("370m", 1024, 24, 16),
        ("780m", 1536, 24, 16),
        ("1.3b", 2048, 24, 16),
        ("2.7b", 2560, 32, 32),
    ] {
        let config = load(&format!("paper-{name}"), &[], Path::new("/")).unwrap().config;
        assert_eq!(
            (
                config.model.hidden_size,
                config.model.num_hidden_layers,
                config.model.num_attention_heads
            ),
            (hidden_size, layers, heads)
        );
        assert_eq!(
            (config.training.tokens_per_step.0, config.training.context_length),
            (2_097_152, 2048)
        );
        assert_eq!(
            (config.model.vocab_size, config.schedule.warmup_steps, config.schedule.warmup_share),
            (Some(32_000), Some(2000), None)
        );
        let plan = RunPlan::new(&config, &CORPUS, DeviceKind::Cpu).unwrap();
        assert!((plan.relative_cost() - 0.5).abs() < 1e-5, "{name} costs {}", plan.relative_cost());
    }
}

#[test]
fn later_layers_win() {
    let folder = folder(&[
        (
            "base/base.toml",
            "name = \"base\"\nextends = \"demo\"\nseed = 2\nthreads = 3\n[data]\nfiles = \
             [\"text/*.txt\"]\n[training]\ntokens = 5000000\n",
        ),
        ("own.toml", "extends = \"base/base.toml\"\nthreads = 4\ndevice = \"cpu\"\n"),
    ]);
    let loaded = load("own.toml", &["device=cuda:1", "training.steps=10"], folder.path()).unwrap();
    let config = &loaded.config;
    assert_eq!((config.seed, config.threads, config.device.to_string().as_str()), (2, 4, "cuda:1"));
    assert_eq!(config.training.budget(), Budget::Steps(10));
    assert_eq!(
        config.training.tokens_per_step,
        demo(&[]).unwrap().config.training.tokens_per_step,
        "from demo, at the bottom"
    );
    assert_eq!(
        config.data.source(),
        TextSource::Files(&[folder.path().join("base/text/*.txt")]),
        "demo's generator is cleared"
    );
    assert_eq!(config.name, "own", "a name is not inherited");

    let origin = |key: &str| loaded.origins[key].to_string();
    assert_eq!(origin("seed"), "base/base.toml:3");
    assert_eq!(origin("data.files"), "base/base.toml:6");
    assert_eq!(origin("threads"), "own.toml:2");
    assert_eq!(origin("device"), "--set");
    assert_eq!(origin("training.tokens_per_step"), "built-in demo");
    assert_eq!(origin("model.hidden_size"), "preset demo");
    assert_eq!(origin("optimizer.epsilon"), "default");
    assert!(!loaded.origins.contains_key("training.tokens"));
}

#[test]
fn a_chosen_alternative_clears_the_others() {
    assert_eq!(
        demo(&["data.files=a.txt"]).unwrap().config.data.source(),
        TextSource::Files(&[PathBuf::from("/home/a.txt")])
    );
    let validation = demo(&["data.validation_files=[\"v.txt\", \"/w\"]"]).unwrap().config;
    assert_eq!(
        validation.data.validation(),
        ValidationSource::Files(&[PathBuf::from("/home/v.txt"), PathBuf::from("/w")])
    );
    assert_eq!(validation.data.validation_share, None);
    for (set, budget) in [
        ("positions=1k", Budget::Positions(1000)),
        ("epochs=2", Budget::Epochs(2.0)),
        ("steps=7", Budget::Steps(7)),
    ] {
        assert_eq!(demo(&[&format!("training.{set}")]).unwrap().config.training.budget(), budget);
    }
    let warmup = demo(&["schedule.warmup_steps=0"]).unwrap().config.schedule;
    assert_eq!((warmup.warmup_steps, warmup.warmup_share), (Some(0), None));
}

#[test]
fn written_model_keys_beat_the_preset_wherever_they_stand() {
    let model = load_text(
        &format!("{LEAST}[model]\nnum_attention_heads = 8\n"),
        &["model.preset=paper-1.3b"],
    )
    .unwrap()
    .config
    .model;
    assert_eq!(
        (model.num_attention_heads, model.num_key_value_heads, model.hidden_size),
        (8, 8, 2048)
    );
    let model = least_with("[model]\nnum_attention_heads = 8\nnum_key_value_heads = 2\n").model;
    assert_eq!((model.num_attention_heads, model.num_key_value_heads), (8, 2));
}

#[test]
fn stages_are_replaced_as_a_whole() {
    let config = demo(&["stages=[{patch_size=8,share=1/4,micro_batch_size=2},{patch_size=2}]"]);
    assert!(config.is_err(), "1/4 without quotes is not TOML inside a list");
    let config = demo(&["stages=[{patch_size=8,share=0.25,micro_batch_size=2},{patch_size=2,\
                         share=\"1/4\"},{patch_size=1}]"])
    .unwrap()
    .config;
    assert_eq!(
        config.stages.iter().map(|stage| stage.patch_size.get()).collect::<Vec<_>>(),
        [8, 2, 1]
    );
    assert_eq!(
        config.stages.iter().map(|stage| stage.micro_batch_size).collect::<Vec<_>>(),
        [Some(2), None, None]
    );
    assert_eq!(config.stages[1].share, Some("1/4".parse().unwrap()));
}

#[test]
fn values_of_set_are_toml_or_else_text() {
    let config = demo(&[
        "training.max_walltime=11h30m",
        "stages=[{patch_size=1}]",
        "model.tie_word_embeddings=true",
        "optimizer.betas=[0.8, 0]",
    ])
    .unwrap()
    .config;
    assert_eq!(config.training.max_walltime.unwrap().0.as_secs(), 41_400);
    assert!(config.model.tie_word_embeddings);
    assert_eq!(config.optimizer.betas.map(|beta| beta.to_string()), ["0.8", "0"]);
    assert_eq!(
        demo(&["samples.prompts=Once = upon"]).unwrap().config.samples.prompts,
        ["Once = upon"]
    );
    assert_eq!(demo(&["seed=1", "seed=2"]).unwrap().config.seed, 2);
    assert_eq!(
        demo(&["model={hidden_size=64, num_attention_heads=2}"]).unwrap().config.model.hidden_size,
        64
    );
}

/// A file that sets every kind of key.
const WRITTEN: &str = "name = \"own\"\nextends = \"demo\"\nseed = 9\n[data]\nfiles = \
                       [\"x.txt\"]\nvalidation_files = [\"v.txt\"]\n[training]\nsteps = \
                       7\nmax_walltime = \"2h\"\n[optimizer]\nlearning_rate = 0.5\nbetas = [0.5, \
                       0.5]\n[schedule]\nwarmup_steps = 2000\n[model]\npreset = \
                       \"paper-370m\"\nhidden_size = 64\nnum_attention_heads = \
                       2\nnum_key_value_heads = 1\n[[stages]]\npatch_size = 8\n";

#[test]
fn default_takes_a_key_back_to_its_default() {
    let of = |sets: &[&str]| {
        load_text(WRITTEN, sets).unwrap_or_else(|error| panic!("{sets:?}: {error}"))
    };
    // The --set, a key that it concerns, its value, and its origin.
    let table: [(&str, &str, &str, &str); 14] = [
        ("seed=default", "seed", "1", "default"),
        ("seed = default", "seed", "1", "default"),
        ("name=default", "name", "\"a\"", "default"),
        ("optimizer.learning_rate=default", "optimizer.learning_rate", "0.0003", "default"),
        ("optimizer=default", "optimizer.betas", "[0.9, 0.95]", "default"),
        ("model.hidden_size=default", "model.hidden_size", "1024", "preset paper-370m"),
        ("model.num_key_value_heads=default", "model.num_key_value_heads", "2", "default"),
        ("model=default", "model.hidden_size", "128", "preset demo"),
        ("training.tokens_per_step=default", "training.tokens_per_step", "16384", "default"),
        ("stages=default", "stages[0].patch_size", "4", "default"),
        ("data.validation_files=default", "data.validation_share", "0.01", "default"),
        ("data.validation_share=default", "data.validation_share", "0.01", "default"),
        ("schedule.warmup_share=default", "schedule.warmup_share", "0.02", "default"),
        ("schedule.warmup_steps=default", "schedule.warmup_share", "0.02", "default"),
    ];
    for (set, key, value, origin) in table {
        let loaded = of(&[set]);
        assert_eq!(config::toml_line(&config::flat_values(&loaded.config)[key]), value, "{set}");
        assert_eq!(loaded.origins[key].to_string(), origin, "{set}");
        let line = format!("{} = {value}", key.rsplit('.').next().unwrap());
        let text = show(&loaded);
        assert!(
            text.lines()
                .any(|shown| shown.starts_with(&line) && shown.ends_with(&format!("# {origin}"))),
            "{set}: {line} is not in\n{text}"
        );
    }
    assert_eq!(of(&["training.max_walltime=default"]).config.training.max_walltime, None);
    assert_eq!(of(&["seed=3", "seed=default"]).config.seed, 1, "the later one wins");
    assert_eq!(of(&["seed=default", "seed=3"]).config.seed, 3);
    assert_eq!(
        of(&["schedule.warmup_share=default", "schedule.warmup_steps=3"])
            .config
            .schedule
            .warmup_steps,
        Some(3)
    );
    assert_eq!(of(&["name=\"default\""]).config.name, "default", "in quotes it is a text");
    let gone = load_text(WRITTEN, &["training.steps=default"]).unwrap_err();
    assert!(
        matches!(&gone, ConfigError::Missing { keys, .. } if keys.contains(&"training.steps".to_owned())),
        "{gone}"
    );
    for wrong in ["sed=default", "stages[0].share=default", "extends=default", "=default"] {
        assert!(
            matches!(load_text(WRITTEN, &[wrong]), Err(ConfigError::UnknownKey { .. })),
            "{wrong}"
        );
    }
}

#[test]
fn more_stages_than_any_run_has_are_refused_at_once() {
    let stages = |count: usize| {
        format!(
            "extends = \"demo\"\ntraining.tokens = \"1T\"\n{}",
            "[[stages]]\npatch_size = 1\nshare = 0.0005\n".repeat(count)
        )
    };
    assert_eq!(
        load_text(&(stages(999) + "[[stages]]\npatch_size = 1\n"), &[])
            .unwrap()
            .config
            .stages
            .len(),
        1000
    );
    for count in [1001, 50_000] {
        let error = load_text(&stages(count), &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("a.toml:3: {count} stages, but at most 1000 are allowed")
        );
        assert!(error.hint(Audience::Command).starts_with("merge stages"));
    }
}

#[test]
fn a_configuration_that_never_ends_is_refused() {
    let error = load("/dev/zero", &[], Path::new("/")).unwrap_err();
    assert!(
        matches!(&error, ConfigError::Unreadable { .. }) && error.to_string().contains("16 MB"),
        "{error}"
    );
}

#[test]
fn paths_become_absolute_from_where_they_are_written() {
    let folder = folder(&[(
        "sub/a.toml",
        "[data]\nfiles = [\"../x.txt\", \"./y/*.jsonl\", \"/z\"]\ntokenizer = \
         \"tokenizer.json\"\n[training]\nsteps = 1\n",
    )]);
    let data = load("sub/a.toml", &[], folder.path()).unwrap().config.data;
    assert_eq!(
        data.files.unwrap(),
        [folder.path().join("x.txt"), folder.path().join("sub/y/*.jsonl"), PathBuf::from("/z")]
    );
    assert_eq!(Path::new(&data.tokenizer), folder.path().join("sub/tokenizer.json"));
    let tokenizer =
        |text: &str| demo(&[&format!("data.tokenizer={text}")]).unwrap().config.data.tokenizer;
    assert_eq!(
        (
            tokenizer("bytes").as_str(),
            tokenizer("demo").as_str(),
            tokenizer("../../../t.json").as_str()
        ),
        ("bytes", "demo", "/t.json")
    );
}

#[test]
fn files_may_begin_with_a_mark_and_have_long_line_ends() {
    let loaded = load_text(
        "\u{feff}seed = 7\r\ndata.generator = \"grammar\"\r\ntraining.steps = 3\r\n",
        &[],
    )
    .unwrap();
    assert_eq!((loaded.config.seed, loaded.config.training.budget()), (7, Budget::Steps(3)));
    assert_eq!(loaded.origins["training.steps"], Origin::File { path: "a.toml".into(), line: 3 });
}

/// Text of `a.toml` after [`LEAST`] (two lines), the message, and the hint.
/// The hint where no better one is known.
const LIST_KEYS: &str = "list every key with: patchtui config template";

const INVALID: &[(&str, &str, &str)] = &[
    ("\nseeed = 1", "a.toml:4: unknown key \"seeed\"", "did you mean \"seed\"?"),
    (
        "[model]\nhidden = 3\nhiden_size = 3",
        "a.toml:4: unknown key \"model.hidden\"",
        "did you mean \"model.hidden_size\"?",
    ),
    (
        "zebra = 1",
        "a.toml:3: unknown key \"zebra\"",
        "list every key with: patchtui config template",
    ),
    (
        "training.lr = 1",
        "a.toml:3: unknown key \"training.lr\"",
        "did you mean \"optimizer.learning_rate\"?",
    ),
    (
        "[model]\n\nhiden_size = 3",
        "a.toml:5: unknown key \"model.hiden_size\"",
        "did you mean \"model.hidden_size\"?",
    ),
    ("[trianing]\nsteps = 3", "a.toml:3: unknown key \"trianing\"", "did you mean \"training\"?"),
    (
        "learning_rate = 1",
        "a.toml:3: unknown key \"learning_rate\"",
        "did you mean \"optimizer.learning_rate\"?",
    ),
    (
        "[[stages]]\npatch_size = 2\n[[stages]]\npatchsize = 1",
        "a.toml:6: unknown key \"stages[1].patchsize\"",
        "did you mean \"patch_size\" in [[stages]]?",
    ),
    (
        "\"training.steps\" = 4",
        "a.toml:3: unknown key \"training.steps\"",
        "did you mean \"training.steps\"?",
    ),
    (
        "device = \"gpu\"",
        "a.toml:3: device = \"gpu\", expected a device: \"auto\", \"cpu\", \"wgpu\", \"wgpu:0\", \
         \"cuda\" or \"cuda:0\"",
        LIST_KEYS,
    ),
    (
        "seed = \"one\"",
        "a.toml:3: seed = \"one\", expected an integer from 0 to 9223372036854775807",
        LIST_KEYS,
    ),
    (
        "seed = 99999999999999999999",
        "a.toml:3: seed = 99999999999999999999, expected an integer from 0 to 9223372036854775807",
        LIST_KEYS,
    ),
    (
        "data.validation_share = 1.5",
        "a.toml:3: data.validation_share = 1.5, expected a share greater than 0 and at most 1, \
         e.g. 0.5 or \"2/3\"",
        LIST_KEYS,
    ),
    (
        "[[stages]]\npatch_size = 4\nshare = 1.5",
        "a.toml:5: stages[0].share = 1.5, expected a share greater than 0 and at most 1, e.g. 0.5 \
         or \"2/3\"",
        LIST_KEYS,
    ),
    (
        "schedule.warmup_share = 0",
        "a.toml:3: schedule.warmup_share = 0, expected a share greater than 0 and at most 1, e.g. \
         0.5 or \"2/3\"",
        "for no warm-up, write schedule.warmup_steps = 0",
    ),
    (
        "training.tokens_per_step = 0",
        "a.toml:3: training.tokens_per_step = 0, expected a count of at least 1, e.g. 4096, \
         \"256k\" or \"1.5B\"",
        LIST_KEYS,
    ),
    (
        "training.context_length = 1",
        "a.toml:3: training.context_length = 1, expected an integer from 2 to 16777216",
        LIST_KEYS,
    ),
    (
        "training.micro_batch_size = 0",
        "a.toml:3: training.micro_batch_size = 0, expected an integer from 1 to 1048576",
        LIST_KEYS,
    ),
    (
        "training.max_walltime = 3",
        "a.toml:3: training.max_walltime = 3, expected a duration, e.g. \"11h30m\", \"90m\" or \
         \"2d\"",
        LIST_KEYS,
    ),
    (
        "training.precision = \"f16\"",
        "a.toml:3: training.precision = \"f16\", expected one of [\"f32\", \"bf16\"]",
        LIST_KEYS,
    ),
    (
        "model.num_hidden_layers = 0",
        "a.toml:3: model.num_hidden_layers = 0, expected an integer from 1 to 4096",
        LIST_KEYS,
    ),
    ("optimizer = 3", "a.toml:3: optimizer = 3, expected a table: [optimizer]", LIST_KEYS),
    (
        "optimizer.learning_rate = 0",
        "a.toml:3: optimizer.learning_rate = 0, expected a number greater than 0",
        LIST_KEYS,
    ),
    (
        "optimizer.learning_rate = inf",
        "a.toml:3: optimizer.learning_rate = inf, expected a number greater than 0",
        LIST_KEYS,
    ),
    (
        "optimizer.learning_rate = {peak = 1}",
        "a.toml:3: optimizer.learning_rate = a table, expected a number greater than 0",
        LIST_KEYS,
    ),
    (
        "optimizer.betas = [0.9, 1.0]",
        "a.toml:3: optimizer.betas = [0.9, 1.0], expected two numbers from 0 to less than 1, e.g. \
         [0.9, 0.95]",
        LIST_KEYS,
    ),
    (
        "optimizer.betas = [0.9]",
        "a.toml:3: optimizer.betas = [0.9], expected two numbers from 0 to less than 1, e.g. \
         [0.9, 0.95]",
        LIST_KEYS,
    ),
    (
        "optimizer.epsilon = 0.0",
        "a.toml:3: optimizer.epsilon = 0.0, expected a number greater than 0",
        LIST_KEYS,
    ),
    (
        "optimizer.weight_decay = -0.1",
        "a.toml:3: optimizer.weight_decay = -0.1, expected a number that is not negative",
        LIST_KEYS,
    ),
    (
        "optimizer.gradient_clip = nan",
        "a.toml:3: optimizer.gradient_clip = nan, expected a number greater than 0",
        LIST_KEYS,
    ),
    (
        "activations.threshold = 0",
        "a.toml:3: activations.threshold = 0, expected a number greater than 0",
        LIST_KEYS,
    ),
    (
        "data.max_bad_records = 1.01",
        "a.toml:3: data.max_bad_records = 1.01, expected a number from 0 to 1",
        LIST_KEYS,
    ),
    (
        "data.validation_files = []",
        "a.toml:3: data.validation_files = [], expected a list of paths, e.g. [\"text.txt\"]",
        LIST_KEYS,
    ),
    (
        "data.tokenizer = \"\"",
        "a.toml:3: data.tokenizer = \"\", expected \"bytes\", \"demo\" or the path of a \
         tokenizer.json",
        LIST_KEYS,
    ),
    (
        "checkpoint.keep = 1",
        "a.toml:3: checkpoint.keep = 1, expected an integer from 2 to 1048576",
        LIST_KEYS,
    ),
    (
        "evaluation.every_steps = 0",
        "a.toml:3: evaluation.every_steps = 0, expected a number of steps, \"auto\" or \"never\"",
        LIST_KEYS,
    ),
    (
        "report.every_steps = \"never\"",
        "a.toml:3: report.every_steps = \"never\", expected a number of steps or \"auto\"",
        LIST_KEYS,
    ),
    (
        "[[stages]]\npatch_size = 0",
        "a.toml:4: stages[0].patch_size = 0, expected a patch size from 1 to 1024",
        LIST_KEYS,
    ),
    (
        "stages = []",
        "a.toml:3: stages = [], expected a list of stages, e.g. \
         [{patch_size=4,share=0.5},{patch_size=1}]",
        "start each stage with a line [[stages]]",
    ),
    (
        "stages = [4, 1]",
        "a.toml:3: stages[0] = 4, expected a stage, e.g. {patch_size = 4, share = 0.5}",
        LIST_KEYS,
    ),
    (
        "[[stages]]\npatch_size = 4\n[[stages]]\nshare = 0.5",
        "a.toml:5: stages[1].patch_size is not set",
        "add patch_size = 4 to the stage",
    ),
    (
        "training.steps = 3",
        "a.toml:2: training.tokens and training.steps (a.toml:3) cannot both be set",
        "remove training.tokens or training.steps",
    ),
    (
        "data.files = \"x\"",
        "a.toml:3: data.files and data.generator (a.toml:1) cannot both be set",
        "remove data.files or data.generator",
    ),
    (
        "[schedule]\nwarmup_steps = 3\nwarmup_share = 0.1",
        "a.toml:5: schedule.warmup_share and schedule.warmup_steps (a.toml:4) cannot both be set",
        "remove schedule.warmup_share or schedule.warmup_steps",
    ),
    (
        "[model]\nhidden_size = 90\nnum_attention_heads = 4",
        "a.toml:5: model.hidden_size = 90 cannot be divided into model.num_attention_heads = 4 \
         heads of even dimension",
        "use model.hidden_size = 96, or change model.num_attention_heads",
    ),
    (
        "[model]\nhidden_size = 128\nnum_attention_heads = 128",
        "a.toml:5: model.hidden_size = 128 cannot be divided into model.num_attention_heads = 128 \
         heads of even dimension",
        "use model.hidden_size = 256, or change model.num_attention_heads",
    ),
    (
        "[model]\nnum_key_value_heads = 3\nhidden_size = 64\nnum_attention_heads = 4",
        "a.toml:4: model.num_key_value_heads = 3 does not divide model.num_attention_heads = 4",
        "use model.num_key_value_heads = 4, or a divisor of it",
    ),
    (
        "schedule.min_learning_rate = 0.1",
        "a.toml:3: schedule.min_learning_rate = 0.1 is greater than optimizer.learning_rate = \
         0.0003",
        "lower schedule.min_learning_rate",
    ),
    (
        "schedule.min_learning_rate = 1e-4\n[[stages]]\npatch_size = 1\nlearning_rate = 1e-5",
        "a.toml:3: schedule.min_learning_rate = 0.0001 is greater than stages[0].learning_rate = \
         1e-5",
        "lower schedule.min_learning_rate",
    ),
    (
        "name = \"a/b\"",
        "a.toml:3: name = \"a/b\", expected a plain file name: not empty, no slash, no leading \
         dot, no control characters",
        LIST_KEYS,
    ),
    (
        "extends = 3",
        "a.toml:3: extends = 3, expected the path of a configuration file, or the name of a \
         built-in one",
        LIST_KEYS,
    ),
    (
        "extends = \"a.toml\"",
        "a.toml:3: the configuration extends itself: DIR/a.toml -> DIR/a.toml",
        "remove one of the \"extends\" lines",
    ),
    (
        "extends = \"dem.toml\"",
        "a.toml:3: there is no configuration file \"dem.toml\" and no built-in configuration of \
         that name",
        "built-in configurations: demo, continue, paper-370m, paper-780m, paper-1.3b, paper-2.7b; \
         to write your own: patchtui config template > my.toml",
    ),
    ("[model\n", "a.toml:3: not valid TOML: unclosed table, expected `]`", LIST_KEYS),
    ("seed = 1\nseed = 2", "a.toml:4: not valid TOML: duplicate key", LIST_KEYS),
];

#[test]
fn what_is_wrong_is_named_with_its_place_and_a_way_out() {
    for (text, message, hint) in INVALID {
        let folder = folder(&[("a.toml", &format!("{LEAST}{text}"))]);
        let error = load("a.toml", &[], folder.path()).expect_err(text);
        let found = error.to_string().replace(&folder.path().display().to_string(), "DIR");
        assert_eq!(
            (found.as_str(), error.hint(Audience::Command).as_str()),
            (*message, *hint),
            "for {text}"
        );
    }
}

#[test]
fn wrong_sets_are_named() {
    let table = [
        (
            "seed",
            "--set \"seed\" has no value",
            "write --set section.key=value, e.g. --set seed=...",
        ),
        ("sed=3", "--set: unknown key \"sed\"", "did you mean \"seed\"?"),
        ("=3", "--set: unknown key \"\"", "list every key with: patchtui config template"),
        (
            "training.token=3",
            "--set: unknown key \"training.token\"",
            "did you mean \"training.tokens\"?",
        ),
        ("tokens=3", "--set: unknown key \"tokens\"", "did you mean \"training.tokens\"?"),
        (
            "extends=demo",
            "--set: unknown key \"extends\"",
            "\"extends\" can only be written in a file",
        ),
        (
            "stages[0].share=0.5",
            "--set: unknown key \"stages[0].share\"",
            "set all stages at once: --set 'stages=[{patch_size=4,share=0.5},{patch_size=1}]'",
        ),
        ("training.tokens=3\nseed=4", "--set: training.tokens = \"3\\nseed=4\"", LIST_KEYS),
        ("name=", "--set: name = \"\"", LIST_KEYS),
        ("seed=1.5", "--set: seed = 1.5", LIST_KEYS),
        ("training=3", "--set: training = 3", LIST_KEYS),
    ];
    for (set, message, hint) in table {
        let error = demo(&[set]).expect_err(set);
        assert!(error.to_string().starts_with(message), "{set}: {error}");
        assert_eq!(error.hint(Audience::Command), hint, "{set}");
    }
    let both = demo(&["training.steps=1", "training.tokens=1"]).unwrap_err();
    assert_eq!(
        both.to_string(),
        "--set: training.tokens and training.steps (--set) cannot both be set"
    );
}

#[test]
fn what_is_missing_is_named() {
    let table = [
        (
            "training.steps = 1\n",
            "neither data.files nor data.generator is set",
            "add data.files = [\"text.txt\"], or data.generator = \"grammar\"",
        ),
        (
            "data.generator = \"grammar\"\n",
            "none of training.tokens, training.positions, training.epochs and training.steps is \
             set",
            "add training.tokens = \"3M\", or training.positions = \"1.5M\"",
        ),
    ];
    for (text, message, hint) in table {
        let error = load_text(text, &[]).unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.hint(Audience::Command).as_str()),
            (message, hint)
        );
    }
    let hidden = folder(&[(".toml", LEAST)]);
    assert_eq!(load(".toml", &[], hidden.path()).unwrap_err().to_string(), "name is not set");
    assert_eq!(load(".toml", &["name=x"], hidden.path()).unwrap().config.name, "x");
}

#[test]
fn a_missing_file_leads_to_the_built_in_configurations() {
    let error = load("papr-780m", &[], Path::new("/nowhere")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no configuration file \"papr-780m\" and no built-in configuration of that name"
    );
    assert!(
        error.hint(Audience::Command).starts_with("built-in configurations: paper-780m, "),
        "{:?}",
        error.hint(Audience::Command)
    );
    let folder = folder(&[("dir/x", "")]);
    let error = load("dir", &[], folder.path()).unwrap_err();
    assert!(
        matches!(&error, ConfigError::Unreadable { path, .. } if path == Path::new("dir")),
        "{error}"
    );
}

#[test]
fn a_circle_of_three_files_is_an_error() {
    let folder = folder(&[
        ("a.toml", "extends = \"b.toml\""),
        ("b.toml", "extends = \"./c.toml\""),
        ("c.toml", "\nextends = \"../DIR/a.toml\""),
    ]);
    let name = folder.path().file_name().unwrap().to_str().unwrap();
    fs::write(folder.path().join("c.toml"), format!("\nextends = \"../{name}/a.toml\"")).unwrap();
    let error = load("a.toml", &[], folder.path()).unwrap_err();
    let ConfigError::Circle { chain, .. } = &error else { panic!("{error}") };
    let names: Vec<&str> = chain.iter().map(|path| path.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["a.toml", "b.toml", "c.toml", "a.toml"]);
}

#[test]
fn the_resolved_file_is_checked_like_any_other() {
    let text = config::to_toml(
        &demo(&["model.hidden_size=128", "checkpoint.keep=3", "seed=1"]).unwrap().config,
    );
    for (from, to, message) in [
        ("seed = 1", "sead = 1", "unknown key"),
        ("hidden_size = 128", "hidden_size = 127", "even dimension"),
        ("keep = 3", "keep = 1", "expected"),
    ] {
        assert!(text.contains(from));
        let folder = folder(&[("config.toml", &text.replace(from, to))]);
        let error = config::load_resolved(&folder.path().join("config.toml")).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
    let folder = folder(&[("config.toml", &format!("extends = \"demo\"\n{text}"))]);
    assert!(
        config::load_resolved(&folder.path().join("config.toml"))
            .unwrap_err()
            .to_string()
            .ends_with(":1: unknown key \"extends\"")
    );
}

#[test]
fn the_template_has_every_key_and_is_the_default() {
    let text = template();
    for key in KEYS {
        let line = format!("{} = ", key.word());
        assert!(
            key.path == "stages"
                || text
                    .lines()
                    .any(|found| found.trim_start_matches(['#', ' ']).starts_with(&line)),
            "{} is not in the template",
            key.path
        );
    }
    let with_source = text.replace("# generator = ", "generator = ");
    assert_eq!(load_text(&with_source, &[]).unwrap().config, least_with(""));
    assert_eq!(load_text(&text, &["data.generator=grammar"]).unwrap().config, least_with(""));
    assert!(matches!(load_text(&text, &[]).unwrap_err(), ConfigError::Missing { .. }));
    insta::assert_snapshot!("config_template", text);
}

#[test]
fn show_is_a_configuration_with_the_place_of_every_value() {
    let text = format!(
        "{LEAST}training.max_walltime = \"2h\"\n[samples]\nprompts = \
         [\"Once\\nupon\"]\n[model]\npreset = \"paper-370m\"\n"
    );
    let loaded = load_text(&text, &["seed=3"]).unwrap();
    let text = show(&loaded);
    assert_eq!(load_text(&text, &[]).unwrap().config, loaded.config);
    for (key, origin) in &loaded.origins {
        let word = key.rsplit('.').next().unwrap();
        let is_there = text.lines().any(|line| {
            line.starts_with(&format!("{word} = ")) && line.ends_with(&format!("  # {origin}"))
        });
        assert!(is_there, "{key} from {origin} is not in\n{text}");
    }
    insta::assert_snapshot!("config_show", text);
    let json = show_json(&loaded);
    assert_eq!(json["config"]["training"]["tokens"], 3_000_000);
    assert_eq!(json["config"]["stages"][0]["patch_size"], 4);
    assert_eq!(json["origins"]["seed"]["type"], "set");
    assert_eq!(
        json["origins"]["training.tokens"],
        serde_json::json!({ "type": "file", "path": "a.toml", "line": 2 })
    );
}

fn changes(old: &RunConfig, new: &RunConfig) -> Vec<IdentityChange> {
    config::identity_changes(&config::config_texts(old), &config::config_texts(new))
}

#[test]
fn a_key_that_an_older_version_did_not_record_has_its_default() {
    let new = config::recorded_config(&demo(&[]).unwrap().config);
    let mut old = new.clone();
    for key in ["optimizer.weight_decay", "data.add_eos"] {
        old.remove(key).unwrap();
    }
    assert_eq!(config::identity_changes(&old, &new), []);
    let other = config::recorded_config(&demo(&["optimizer.weight_decay=0.2"]).unwrap().config);
    let keys: Vec<String> =
        config::identity_changes(&old, &other).into_iter().map(|change| change.key).collect();
    assert_eq!(keys, ["optimizer.weight_decay"]);
}

#[test]
fn changes_that_make_another_run_are_found() {
    let old = demo(&["training.tokens=3M"]).unwrap().config;
    let refused = [
        ("seed=2", "seed"),
        ("model.hidden_size=64", "model.hidden_size"),
        ("model.vocab_size=512", "model.vocab_size"),
        ("model.rope_theta=5000", "model.rope_theta"),
        ("data.tokenizer=bytes", "data.tokenizer"),
        ("data.validation_share=0.02", "data.validation_share"),
        ("data.shuffle=false", "data.shuffle"),
        ("data.add_eos=true", "data.add_eos"),
        ("data.text_field=body", "data.text_field"),
        ("data.block_tokens=4096", "data.block_tokens"),
        ("training.tokens=4M", "training.tokens"),
        ("training.context_length=32", "training.context_length"),
        ("training.tokens_per_step=8192", "training.tokens_per_step"),
        ("optimizer.learning_rate=1e-3", "optimizer.learning_rate"),
        ("optimizer.betas=[0.9,0.99]", "optimizer.betas"),
        ("schedule.kind=linear", "schedule.kind"),
        ("stages=[{patch_size=4,share=0.5},{patch_size=1}]", "stages[0].share"),
        (
            "stages=[{patch_size=4,share=\"2/3\"},{patch_size=1,optimizer_state=\"keep\"}]",
            "stages[1].optimizer_state",
        ),
    ];
    for (set, key) in refused {
        let changes = changes(&old, &demo(&["training.tokens=3M", set]).unwrap().config);
        assert_eq!(
            changes.iter().map(|change| change.key.as_str()).collect::<Vec<_>>(),
            [key],
            "{set}"
        );
    }
    let other_budget = changes(&old, &demo(&["training.steps=9"]).unwrap().config);
    let shown: Vec<_> = other_budget
        .iter()
        .map(|change| (change.key.as_str(), change.old.as_str(), change.new.as_str()))
        .collect();
    assert_eq!(
        shown,
        [("training.steps", "not set", "9"), ("training.tokens", "3000000", "not set")]
    );
    let one_stage = changes(
        &old,
        &demo(&["training.tokens=3M", "stages=[{patch_size=4,share=\"2/3\"}]"]).unwrap().config,
    );
    assert!(
        one_stage
            .iter()
            .any(|change| change.key == "stages[1].patch_size" && change.new == "not set"),
        "{one_stage:?}"
    );
}

#[test]
fn changes_of_speed_and_looks_are_the_same_run() {
    let old = demo(&["data.files=a.txt"]).unwrap().config;
    let same = [
        "name=other",
        "device=cpu",
        "threads=2",
        "data.files=b.txt",
        "training.micro_batch_size=4",
        "training.max_walltime=3h",
        "report.every_steps=7",
        "evaluation.every_steps=never",
        "evaluation.max_tokens=1k",
        "activations.threshold=0.1",
        "samples.prompts=[\"Once\"]",
        "checkpoint.keep=9",
        "checkpoint.on_usr1=stop",
        "stages=[{patch_size=4,share=\"2/3\",micro_batch_size=2},{patch_size=1}]",
    ];
    for set in same {
        // Keys with paths keep their values here.
        let sets =
            if set.starts_with("data.files") { vec![set] } else { vec!["data.files=a.txt", set] };
        let new = demo(&sets).unwrap().config;
        assert_ne!(new, old, "{set} changes something");
        assert_eq!(changes(&old, &new), [], "{set}");
    }
}

#[test]
fn every_word_and_every_example_of_the_table_is_accepted() {
    for key in KEYS.iter().filter(|key| !key.path.starts_with("stages")) {
        let words: &[&str] = if let ValueKind::Word(words) = key.kind { words } else { &[] };
        for value in words.iter().copied().chain(key.example) {
            let set = format!("{}={value}", key.path);
            // A single size may not fit the others, and weights may be missing, but the key must be
            // parsed.
            match demo(&[&set]) {
                Ok(_)
                | Err(
                    ConfigError::HeadSize { .. }
                    | ConfigError::KeyValueHeads { .. }
                    | ConfigError::InitFrom { .. },
                ) => {}
                Err(error) => panic!("{set}: {error}"),
            }
        }
    }
    for key in KEYS.iter().filter(|key| key.path.starts_with("stages[]")) {
        let value = key.default.or(key.example).unwrap();
        let rest = if key.word() == "patch_size" { "" } else { "patch_size = 1, " };
        demo(&[&format!("stages=[{{{rest}{} = {value}}}]", key.word())]).unwrap();
    }
}

#[test]
fn extreme_values_are_refused_without_a_panic() {
    let huge = "9223372036854775807";
    for key in KEYS.iter().filter(|key| !key.path.starts_with("stages")) {
        for value in [
            huge,
            "-1",
            "0",
            "1e308",
            "nan",
            "\"\"",
            "[]",
            "{}",
            "1979-05-27",
            "\"9e99T\"",
            "\"9000000000000T\"",
        ] {
            if let Ok(loaded) = demo(&[&format!("{}={value}", key.path)]) {
                assert_eq!(
                    read_back(&loaded.config).unwrap(),
                    loaded.config,
                    "{} = {value}",
                    key.path
                );
                let _ = RunPlan::new(&loaded.config, &CORPUS, DeviceKind::Cpu);
            }
        }
    }
    let wide = [
        "model.hidden_size=1048576",
        "model.intermediate_size=1048576",
        "model.num_hidden_layers=4096",
        "model.num_attention_heads=4096",
    ];
    let long = [
        "model.vocab_size=16777216",
        "model.max_position_embeddings=16777216",
        "training.context_length=16777216",
        "training.micro_batch_size=1048576",
    ];
    let sets: Vec<&str> = wide
        .into_iter()
        .chain(long)
        .chain(["training.tokens_per_step=1T", "training.tokens=9000000T"])
        .collect();
    let _ = RunPlan::new(&demo(&sets).unwrap().config, &CORPUS, DeviceKind::Cpu);
    let primes = [1021, 1019, 1013, 1009, 997, 991, 983]
        .map(|prime| format!("{{patch_size={prime},share=0.125}}"))
        .join(",");
    let error = RunPlan::new(
        &demo(&[&format!("stages=[{primes}]")]).unwrap().config,
        &CORPUS,
        DeviceKind::Cpu,
    )
    .unwrap_err();
    assert_eq!(error, patchtui::plan::PlanError::BlockTooLarge);
    let error =
        RunPlan::new(&demo(&["training.steps=9000000T"]).unwrap().config, &CORPUS, DeviceKind::Cpu)
            .unwrap_err();
    assert_eq!(error, patchtui::plan::PlanError::BudgetTooLarge);
}

/// Settings as people choose them, each from a range of values.
fn any_sets() -> impl Strategy<Value = Vec<String>> {
    let positive = 1e-12_f64..1e3;
    let budget = prop_oneof![
        (1_u64..1_000_000_000_000).prop_map(|n| format!("training.tokens={n}")),
        (1_u64..1_000_000).prop_map(|n| format!("training.positions={n}k")),
        (1e-3_f64..100.0).prop_map(|n| format!("training.epochs={n}")),
        (1_u64..1_000_000).prop_map(|n| format!("training.steps={n}")),
    ];
    let source = prop_oneof![
        Just("data.generator=grammar".to_owned()),
        "[a-z \"'\\\\\u{e9}\u{1f600}*]{1,12}"
            .prop_map(|path| format!("data.files={}", toml::Value::Array(vec![path.into()]))),
    ];
    let cadence = prop_oneof![
        Just("auto".to_owned()),
        Just("never".to_owned()),
        (1_u64..1000).prop_map(|n| n.to_string())
    ];
    let stage = (1_u32..=1024, 1e-9_f64..=1.0, prop::option::of(positive.clone()), any::<bool>())
        .prop_map(|(patch_size, share, rate, keep)| {
            let rate = rate.map_or_else(String::new, |rate| format!(", learning_rate = {rate:?}"));
            format!(
                "{{patch_size = {patch_size}, share = {share:?}{rate}, optimizer_state = \"{}\"}}",
                if keep { "keep" } else { "reset" }
            )
        });
    let stages = prop::collection::vec(stage, 1..12)
        .prop_map(|stages| format!("stages=[{}]", stages.join(", ")));
    let numbers = (positive.clone(), 0.0_f64..1.0, 0.0_f64..1.0, positive, 1e-9_f64..=1.0)
        .prop_map(|(rate, a, b, epsilon, share)| {
            vec![
                format!("optimizer.learning_rate={rate:?}"),
                format!("optimizer.betas=[{a:?}, {b:?}]"),
                format!("optimizer.epsilon={epsilon:?}"),
                format!("data.validation_share={share:?}"),
            ]
        });
    let texts = prop::collection::vec(any::<String>(), 0..3);
    let prompts = texts.prop_map(|texts| {
        format!(
            "samples.prompts={}",
            toml::Value::Array(texts.into_iter().map(Into::into).collect())
        )
    });
    (budget, source, cadence, stages, numbers, prompts).prop_map(
        |(budget, source, cadence, stages, numbers, prompts)| {
            let mut sets =
                vec![budget, source, format!("evaluation.every_steps={cadence}"), stages, prompts];
            sets.extend(numbers);
            sets
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_exactly(sets in any_sets()) {
        let loaded = config::load(&LoadRequest { source: "demo", sets: &sets, current_dir: Path::new("/home") }).unwrap();
        prop_assert_eq!(read_back(&loaded.config).unwrap(), loaded.config.clone());
        prop_assert!(changes(&loaded.config, &read_back(&loaded.config).unwrap()).is_empty());
    }

    #[test]
    fn a_key_with_one_wrong_letter_is_recognised(at in 0..KEYS.len(), place in 0_usize..64, letter in "[a-z]") {
        let key = KEYS[at];
        prop_assume!(!key.path.starts_with("stages"));
        let word = key.word();
        let place = place % word.len();
        let misspelt = format!("{}{letter}{}", &word[..place], &word[place + 1..]);
        let path = if key.section().is_empty() { misspelt } else { format!("{}.{misspelt}", key.section()) };
        prop_assume!(KEYS.iter().all(|known| known.path != path));
        let error = demo(&[&format!("{path}=1")]).unwrap_err();
        let ConfigError::UnknownKey { key: unknown, nearest, .. } = error else { panic!("{path}: {error}") };
        prop_assert_eq!(&unknown, &path);
        let distance = strsim::damerau_levenshtein(nearest.unwrap(), &path);
        prop_assert!(nearest == Some(key.path) || distance <= 1, "{} leads to {:?}", path, nearest);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>(), key in "[a-z.\\[\\]=\" ]{0,30}") {
        let _ = load_text(&text, &[]);
        let _ = load_text(&format!("{LEAST}{key} = {text}"), &[]);
        let _ = demo(&[&format!("{key}={text}"), &text]);
    }
}

/// Parses each text of `table`; `None` means that it is refused.
fn check_values<T: std::str::FromStr, U: PartialEq + std::fmt::Debug>(
    table: &[(&str, Option<U>)],
    get: impl Fn(T) -> U,
) {
    for (text, expected) in table {
        assert_eq!(text.parse::<T>().ok().map(&get), *expected, "{text:?}");
    }
}

#[test]
fn values_are_read_exactly_or_refused() {
    let counts: [(&str, Option<u64>); 13] = [
        ("0", Some(0)),
        ("16_384", Some(16_384)),
        ("256k", Some(256_000)),
        ("1.5B", Some(1_500_000_000)),
        ("0.1K", Some(100)),
        ("9007199254740993", Some(9_007_199_254_740_993)),
        ("9223372036854775807", Some(9_223_372_036_854_775_807)),
        ("9223372036854775808", None),
        ("1.5", None),
        ("1.2345k", None),
        ("-3", None),
        ("k", None),
        ("3\u{212a}", None),
    ];
    check_values(&counts, |count: config::Count| count.0);
    let shares = [
        ("0.5", Some(0.5)),
        ("2/4", Some(0.5)),
        ("1", Some(1.0)),
        ("0", None),
        ("4/3", None),
        ("1/0", None),
        ("NaN", None),
        ("-1/-2", Some(0.5)),
        ("1/2/3", None),
    ];
    check_values(&shares, config::Share::get);
    let times = [
        ("90m", Some(5400)),
        ("1d2h3m4s", Some(93_784)),
        ("90", None),
        ("", None),
        ("0s", None),
        ("h", None),
        ("9999999999999999999d", None),
    ];
    check_values(&times, |time: config::WallTime| time.0.as_secs());
    for text in ["auto", "cpu", "wgpu", "wgpu:3", "cuda", "cuda:0"] {
        assert_eq!(text.parse::<config::DeviceChoice>().unwrap().to_string(), text);
    }
    // The word in older configurations.
    for (text, shown) in [("vulkan", "wgpu"), ("vulkan:3", "wgpu:3")] {
        assert_eq!(text.parse::<config::DeviceChoice>().unwrap().to_string(), shown);
    }
    for text in ["cpu:0", "auto:1", "cuda:", "cuda:-1", "CUDA", "gpu"] {
        assert!(text.parse::<config::DeviceChoice>().is_err(), "{text}");
    }
    for (text, shown) in [("auto", "auto"), ("never", "never"), ("7", "7"), ("1k", "1000")] {
        assert_eq!(text.parse::<config::Cadence>().unwrap().to_string(), shown);
    }
    assert!("0".parse::<config::Cadence>().is_err());
    assert_eq!(
        [0, 1, 1024, 1025].map(|tokens| config::PatchSize::new(tokens).is_ok()),
        [false, true, true, false]
    );
}
