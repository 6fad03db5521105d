//! Derives the sizes and the tokenizer of a run from `model.init_from`.
//!
//! Reads the small files of a Hugging Face directory, a run or a checkpoint, but no weights. Start
//! at [`weights_of`].

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::config::ModelShape;
use crate::config::error::{ConfigError, Origin};
use crate::config::hugging_face::{CONFIG_FILE, LlamaConfig};
use crate::config::keys::KEYS;
use crate::config::layers::{Layer, Leaf};
use crate::config::resolve::load_resolved;

/// A run's plan, which has the sizes of its network, and its own copy of its tokenizer, unless that
/// is built in.
const PLAN_FILE: &str = "plan.json";
const TOKENIZER_FILE: &str = "tokenizer.json";

/// Keys that may differ from those of the weights: none changes what the weights compute.
const FREE: [&str; 3] =
    ["model.max_position_embeddings", "model.initializer_range", "data.tokenizer"];

/// The key itself.
const KEY: &str = "model.init_from";
/// Keys that must fit the context length of the weights.
const CONTEXT: &str = "training.context_length";
const STEP: &str = "training.tokens_per_step";

/// Finds the directory of a run by name; an error if several runs have that name.
pub type FindRun<'a> = &'a dyn Fn(&str) -> Result<Option<PathBuf>, String>;

/// Properties of the initial weights.
pub(crate) struct InitialWeights {
    /// Sizes and tokenizer, as values of keys.
    pub(crate) layer: Layer,
    /// Context length of the weights, in tokens.
    context_length: usize,
    origin: Origin,
}

/// Resolves `model.init_from` to a run if it names one instead of a path; `config_name` is the name
/// of the configuration.
///
/// # Errors
/// When several runs have the name.
pub(crate) fn follow_name(
    explicit: &mut Layer,
    config_name: &str,
    find_run: FindRun<'_>,
) -> Result<(), ConfigError> {
    let own = explicit
        .leaves
        .get("name")
        .and_then(|leaf| leaf.value.as_str())
        .unwrap_or(config_name)
        .to_owned();
    let Some(leaf) = explicit.leaves.get_mut(KEY) else { return Ok(()) };
    let (Some(name), Some(path)) = (&leaf.name, leaf.value.as_str().map(PathBuf::from)) else {
        return Ok(());
    };
    // A resumed run exists by now; the name must still refer to the model that it referred to at
    // the start.
    if *name == own && path.join(CONFIG_FILE).is_file() {
        return Ok(());
    }
    let error = |problem: String| ConfigError::InitFrom {
        origin: leaf.origin.clone(),
        path: path.clone(),
        problem,
    };
    if let Some(run) = find_run(name).map_err(error)? {
        let text = run
            .into_os_string()
            .into_string()
            .map_err(|run| error(format!("{} is not UTF-8", run.display())))?;
        leaf.value = Value::String(text);
    }
    Ok(())
}

/// Properties of the weights in the directory that `explicit` names, if it names one.
///
/// # Errors
/// When the directory has no sizes, or `explicit` has different ones.
pub(crate) fn weights_of(explicit: &Layer) -> Result<Option<InitialWeights>, ConfigError> {
    let Some(Leaf { value: Value::String(path), origin, .. }) = explicit.leaves.get(KEY) else {
        return Ok(None);
    };
    let path = PathBuf::from(path);
    let found = read(&path).map_err(|problem| ConfigError::InitFrom {
        origin: origin.clone(),
        path: path.clone(),
        problem,
    })?;
    let mut layer = Layer::default();
    let own = Origin::InitFrom { path: path.clone() };
    let tokenizer = found.tokenizer.map(Value::String);
    let tokenizer = tokenizer.map(|tokenizer| ("data.tokenizer", tokenizer));
    let values = sizes_of(&found.shape).chain(tokenizer);
    for (key, value) in values {
        if let Some(other) =
            explicit.leaves.get(key).filter(|leaf| leaf.value != value && !FREE.contains(&key))
        {
            let (origin, found, expected) =
                (other.origin.clone(), other.value.to_string(), value.to_string());
            let path = path.into();
            return Err(ConfigError::OtherSize { origin, key, found, expected, path });
        }
        layer.leaves.insert(key.to_owned(), Leaf::new(value, own.clone()));
    }
    Ok(Some(InitialWeights { layer, context_length: found.context_length, origin: own }))
}

impl InitialWeights {
    /// Shortens the sequences of `merged` to the context length of the weights, unless the user has
    /// set them.
    ///
    /// A built-in configuration follows the context length of the weights; a default only has to be
    /// possible.
    pub(crate) fn shorten_sequences(&self, merged: &mut Layer) {
        let Some(longest) = whole(merged, "model.max_position_embeddings") else { return };
        let limit = match merged.leaves.get(CONTEXT).map(|leaf| &leaf.origin) {
            Some(Origin::BuiltIn { .. }) => longest.min(self.context_length as u64),
            Some(Origin::Default) => longest,
            _ => return,
        };
        if whole(merged, CONTEXT).is_none_or(|context| context <= limit) {
            return;
        }
        self.put(merged, CONTEXT, limit);
        let is_chosen =
            |leaf: &Leaf| !matches!(leaf.origin, Origin::BuiltIn { .. } | Origin::Default);
        if merged.leaves.get(STEP).is_some_and(is_chosen) {
            return;
        }
        let sequence = |idx: usize| {
            let context = whole(merged, &format!("stages[{idx}].context_length")).unwrap_or(limit);
            Some(context * whole(merged, &format!("stages[{idx}].patch_size"))?)
        };
        let common = (0..merged.num_stages()).filter_map(sequence).try_fold(1, lcm);
        if let (Some(common), Some(tokens)) = (common, whole(merged, STEP)) {
            self.put(merged, STEP, (tokens / common).max(1) * common);
        }
    }

    fn put(&self, merged: &mut Layer, key: &str, value: u64) {
        merged.leaves.insert(
            key.to_owned(),
            Leaf::new(Value::Integer(value.cast_signed()), self.origin.clone()),
        );
    }
}

/// The integer value of `key`.
fn whole(layer: &Layer, key: &str) -> Option<u64> {
    layer
        .leaves
        .get(key)
        .and_then(|leaf| leaf.value.as_integer())
        .and_then(|whole| u64::try_from(whole).ok())
}

/// Least common multiple; `None` if it is absurdly large.
fn lcm(a: u64, b: u64) -> Option<u64> {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x.max(1)).checked_mul(b).filter(|common| i64::try_from(*common).is_ok())
}

/// Contents of the small files of a model.
struct FoundModel {
    shape: ModelShape,
    tokenizer: Option<String>,
    context_length: usize,
}

/// Sizes, tokenizer and context length of the network in the directory `path`.
fn read(path: &Path) -> Result<FoundModel, String> {
    let is_run = |folder: &Path| folder.join("config.toml").is_file();
    if path.join(CONFIG_FILE).exists() && !is_run(path) {
        let tokenizer = path.join(TOKENIZER_FILE);
        let LlamaConfig { shape, .. } =
            LlamaConfig::read(&path.join(CONFIG_FILE)).map_err(|error| error.to_string())?;
        let tokenizer = tokenizer.exists().then(|| tokenizer.to_string_lossy().into_owned());
        return Ok(FoundModel { context_length: shape.max_position_embeddings, shape, tokenizer });
    }
    // A checkpoint is in a folder of its run.
    let run = [Some(path), path.parent().and_then(Path::parent)]
        .into_iter()
        .flatten()
        .find(|folder| is_run(folder));
    let Some(run) = run else {
        let what = if path.is_dir() {
            "is not a run, a checkpoint or a Hugging Face directory"
        } else {
            "is not a directory"
        };
        return Err(format!("{} {what}", path.display()));
    };
    let LlamaConfig { shape, .. } =
        LlamaConfig::of_plan(&run.join(PLAN_FILE)).map_err(|error| error.to_string())?;
    let config = load_resolved(&run.join("config.toml")).map_err(|error| error.to_string())?;
    let copy = run.join(TOKENIZER_FILE);
    let context_length = config.token_context_length(usize::MAX);
    let tokenizer =
        if copy.is_file() { copy.to_string_lossy().into_owned() } else { config.data.tokenizer };
    Ok(FoundModel { shape, tokenizer: Some(tokenizer), context_length })
}

/// The sizes as values of keys.
fn sizes_of(shape: &ModelShape) -> impl Iterator<Item = (&'static str, Value)> {
    let sizes = Table::try_from(shape)
        .unwrap_or_else(|error| unreachable!("sizes that were read can be written: {error}"));
    let of_model = KEYS.iter().filter(|key| key.section() == "model");
    of_model.filter_map(move |key| Some((key.path, sizes.get(key.word())?.clone())))
}
