//! Values before they form a configuration: read from one source, checked one by one, merged layer
//! over layer.
//!
//! A layer is flat: it maps the path of a key to its value and origin. Start at [`Layer::put_over`]
//! for the merge rules, at [`LayerReader`] for parsing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::{Spanned, Table, Value};

use crate::config::error::{ConfigError, Origin};
use crate::config::keys::{Found, KEYS, Key, KeyGroup, Need, find};
use crate::config::kind::ValueKind;
use crate::config::nearest::nearest;
use crate::config::presets::Preset;
use crate::config::toml_line;

/// The value in `--set key=default`, which resets a key to its default. The string "default" needs
/// quotes.
const RESET: &str = "default";

/// Maximum number of stages; more are a mistake and would slow down everything.
const MAX_STAGES: usize = 1000;

/// A value and its origin.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
    /// The text written where a path is expected, if it may be the name of a run.
    pub(crate) name: Option<String>,
}

/// The values of one source, or of several merged ones. Stages are written `stages[0].share`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layer {
    pub(crate) leaves: BTreeMap<String, Leaf>,
    /// Keys that this layer resets to their defaults: values of the layers below are ignored.
    /// Layers below the result of [`Layer::put_over`] hold the defaults, so the resets are
    /// dropped there.
    resets: BTreeSet<String>,
}

/// A text to be read into a layer.
pub(crate) struct Document<'a> {
    pub(crate) text: &'a str,
    /// Maps a line number to its origin.
    pub(crate) origin: &'a dyn Fn(usize) -> Origin,
    /// Base of relative paths.
    pub(crate) folder: &'a Path,
}

/// Content of a document.
pub(crate) struct ParsedDocument {
    pub(crate) layer: Layer,
    /// The base named by `extends`, with its location.
    pub(crate) extends: Option<(String, Origin)>,
}

impl Leaf {
    pub(crate) fn new(value: Value, origin: Origin) -> Self {
        Self { value, origin, name: None }
    }
}

impl Layer {
    /// The defaults of all keys.
    pub(crate) fn defaults() -> Result<Self, ConfigError> {
        let keys = KEYS.iter().filter(|key| !key.is_of_stage());
        let lines: String = keys
            .filter_map(|key| key.default.map(|text| format!("{} = {text}\n", key.path)))
            .collect();
        Document { text: &lines, origin: &|_| Origin::Default, folder: Path::new("/") }
            .read()
            .map(|read| read.layer)
    }

    /// The sizes of a preset.
    pub(crate) fn preset(preset: &Preset) -> Self {
        let origin = Origin::Preset { name: preset.name.to_owned() };
        let leaf = |(key, size): (&str, u32)| {
            (key.to_owned(), Leaf::new(Value::Integer(size.into()), origin.clone()))
        };
        Self { leaves: preset.values().map(leaf).collect(), ..Self::default() }
    }

    /// The values of `--set`; the last one of a key wins; `key=default` resets the key.
    pub(crate) fn from_sets(sets: &[String], current_dir: &Path) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        for set in sets {
            let (key, value) = set
                .split_once('=')
                .ok_or_else(|| ConfigError::SetWithoutValue { text: set.clone() })?;
            let (key, value) = (key.trim(), value.trim());
            if value == RESET {
                layer.reset(key)?;
                continue;
            }
            let one = read_set(key, value, current_dir)?;
            layer = if one.has_stages() { one.put_over(layer) } else { layer.with(one) };
        }
        layer.check_alternatives()?;
        Ok(layer)
    }

    /// Puts this layer over `below`: its values win, its stages replace all stages, and a chosen
    /// alternative clears the others.
    pub(crate) fn put_over(self, mut below: Self) -> Self {
        below.leaves.retain(|path, _| !self.resets.iter().any(|key| is_about(path, key)));
        if self.has_stages() {
            below.leaves.retain(|path, _| !path.starts_with("stages["));
        }
        for group in KeyGroup::ALL {
            if group.keys().any(|key| self.leaves.contains_key(key.path)) {
                below.leaves.retain(|path, _| !group.keys().any(|key| key.path == path));
            }
        }
        below.with(self)
    }

    fn with(mut self, other: Self) -> Self {
        self.leaves.extend(other.leaves);
        self
    }

    /// Resets `key`, or every key of the section `key`, to its default.
    fn reset(&mut self, key: &str) -> Result<(), ConfigError> {
        // Without a name, the lookup would find the section of the top-level keys.
        let is_whole = !key.is_empty() && !key.contains('[');
        match find(key) {
            Found::Key(found) if is_whole => self.forget(found),
            Found::Section if is_whole => KEYS
                .iter()
                .filter(|known| known.section() == key)
                .for_each(|known| self.forget(known)),
            _ => {
                return Err(ConfigError::UnknownKey {
                    origin: Origin::Set,
                    key: key.to_owned(),
                    nearest: nearest(key),
                });
            }
        }
        Ok(())
    }

    /// Drops the values of `key` in this layer and those below. A default that belongs to a group
    /// of alternatives can only come back if none of the others is chosen.
    fn forget(&mut self, key: &'static Key) {
        let keys: Vec<&Key> = match key.need {
            Need::OneOf(group) if key.default.is_some() => group.keys().collect(),
            _ => vec![key],
        };
        for key in keys {
            self.leaves.retain(|path, _| !is_about(path, key.path));
            self.resets.insert(key.path.to_owned());
        }
    }

    fn has_stages(&self) -> bool {
        self.leaves.keys().any(|path| path.starts_with("stages["))
    }

    /// Refuses two alternatives in one layer.
    fn check_alternatives(&self) -> Result<(), ConfigError> {
        for group in KeyGroup::ALL {
            let mut set = group
                .keys()
                .filter_map(|key| Some((key.path, self.leaves.get(key.path)?.origin.clone())));
            if let (Some((first, first_origin)), Some((second, second_origin))) =
                (set.next(), set.next())
            {
                return Err(ConfigError::Alternatives {
                    first,
                    first_origin,
                    second,
                    second_origin,
                });
            }
        }
        Ok(())
    }

    /// Number of stages.
    pub(crate) fn num_stages(&self) -> usize {
        self.leaves
            .keys()
            .filter(|path| path.starts_with("stages[") && path.ends_with("].patch_size"))
            .count()
    }

    /// The values as nested tables.
    pub(crate) fn to_table(&self) -> Table {
        let mut root = Table::new();
        let mut stages = vec![Value::Table(Table::new()); self.num_stages()];
        for (path, leaf) in &self.leaves {
            let (section, word) = path.rsplit_once('.').unwrap_or(("", path));
            let table =
                match section.strip_prefix("stages[").and_then(|rest| rest.strip_suffix(']')) {
                    Some(idx) => idx
                        .parse()
                        .ok()
                        .and_then(|idx: usize| stages.get_mut(idx))
                        .and_then(Value::as_table_mut),
                    None if section.is_empty() => Some(&mut root),
                    None => root
                        .entry(section)
                        .or_insert_with(|| Value::Table(Table::new()))
                        .as_table_mut(),
                };
            if let Some(table) = table {
                table.insert(word.to_owned(), leaf.value.clone());
            }
        }
        root.insert("stages".into(), Value::Array(stages));
        root
    }
}

/// Whether the value at `path` belongs to `key`; those of stages belong to the list of stages.
fn is_about(path: &str, key: &str) -> bool {
    path == key || (key == "stages" && path.starts_with("stages["))
}

/// Reads one `--set`: a value that is not TOML is taken as text.
fn read_set(key: &str, value: &str, current_dir: &Path) -> Result<Layer, ConfigError> {
    if !key.split('.').all(is_word) {
        return Err(ConfigError::UnknownKey {
            origin: Origin::Set,
            key: key.to_owned(),
            nearest: nearest(key),
        });
    }
    let assignment = format!("value = {value}");
    let parsed =
        DeTable::parse(&assignment).ok().map(Spanned::into_inner).filter(|table| table.len() == 1);
    let text = || Spanned::new(0..0, DeValue::String(value.to_owned().into()));
    let value =
        parsed.and_then(|table| table.into_iter().next()).map_or_else(text, |(_, value)| value);
    let document = Document { text: "", origin: &|_| Origin::Set, folder: current_dir };
    let mut reader = LayerReader { document: &document, line_starts: &[], layer: Layer::default() };
    reader.entry(key, &Origin::Set, &value)?;
    Ok(reader.layer)
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

impl Document<'_> {
    /// Reads the text and checks each key and value separately.
    pub(crate) fn read(&self) -> Result<ParsedDocument, ConfigError> {
        let line_starts = self.line_starts();
        let at = |span: Option<Range<usize>>| {
            (self.origin)(line_of(&line_starts, span.map_or(0, |span| span.start)))
        };
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            origin: at(error.span()),
            message: error.message().replace('\n', ", "),
        };
        let mut table = DeTable::parse(self.text).map_err(syntax)?.into_inner();
        let extends = table.remove_entry("extends");
        let extends =
            extends.map(|(key, value)| base_of(at(Some(key.span())), &value)).transpose()?;
        let mut reader =
            LayerReader { document: self, line_starts: &line_starts, layer: Layer::default() };
        reader.table("", &table)?;
        reader.layer.check_alternatives()?;
        Ok(ParsedDocument { layer: reader.layer, extends })
    }

    /// Byte offsets at which the lines after the first begin.
    fn line_starts(&self) -> Vec<usize> {
        self.text
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n')
            .map(|(at, _)| at + 1)
            .collect()
    }
}

/// Line of a byte offset, counted from 1.
fn line_of(line_starts: &[usize], offset: usize) -> usize {
    line_starts.partition_point(|start| *start <= offset) + 1
}

/// Walks the tables of a document.
struct LayerReader<'a> {
    document: &'a Document<'a>,
    line_starts: &'a [usize],
    layer: Layer,
}

impl LayerReader<'_> {
    fn table(&mut self, section: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
        for (word, value) in table {
            let origin = (self.document.origin)(line_of(self.line_starts, word.span().start));
            let path = if section.is_empty() {
                word.get_ref().to_string()
            } else {
                format!("{section}.{}", word.get_ref())
            };
            if !is_word(word.get_ref()) {
                return Err(ConfigError::UnknownKey { origin, nearest: nearest(&path), key: path });
            }
            self.entry(&path, &origin, value)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &str,
        origin: &Origin,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), ConfigError> {
        match (find(path), value.get_ref()) {
            (Found::Key(key), DeValue::Array(items))
                if key.kind == ValueKind::Stages && items.len() > MAX_STAGES =>
            {
                Err(ConfigError::TooManyStages {
                    origin: origin.clone(),
                    stages: items.len(),
                    limit: MAX_STAGES,
                })
            }
            (Found::Key(key), DeValue::Array(items))
                if key.kind == ValueKind::Stages && !items.is_empty() =>
            {
                items
                    .iter()
                    .enumerate()
                    .try_for_each(|(idx, item)| self.stage(&format!("stages[{idx}]"), origin, item))
            }
            (Found::Key(key), _) => {
                let plain = plain(value.clone());
                let kept =
                    plain.as_ref().and_then(|plain| key.kind.read(plain, self.document.folder));
                let kept = kept.ok_or_else(|| {
                    wrong(path, origin.clone(), found(value.get_ref()), &key.kind.expected())
                })?;
                let name = plain
                    .as_ref()
                    .and_then(Value::as_str)
                    .filter(|text| key.kind == ValueKind::Model && !text.contains('/'));
                self.layer.leaves.insert(
                    path.to_owned(),
                    Leaf { name: name.map(str::to_owned), ..Leaf::new(kept, origin.clone()) },
                );
                Ok(())
            }
            (Found::Section, DeValue::Table(table)) => self.table(path, table),
            (Found::Section, other) => {
                Err(wrong(path, origin.clone(), found(other), &format!("a table: [{path}]")))
            }
            (Found::Nothing, _) => Err(ConfigError::UnknownKey {
                origin: origin.clone(),
                key: path.to_owned(),
                nearest: nearest(path),
            }),
        }
    }

    fn stage(
        &mut self,
        path: &str,
        list_origin: &Origin,
        item: &Spanned<DeValue<'_>>,
    ) -> Result<(), ConfigError> {
        let origin = match list_origin {
            Origin::File { .. } => {
                (self.document.origin)(line_of(self.line_starts, item.span().start))
            }
            other => other.clone(),
        };
        let DeValue::Table(table) = item.get_ref() else {
            return Err(wrong(
                path,
                origin,
                found(item.get_ref()),
                "a stage, e.g. {patch_size = 4, share = 0.5}",
            ));
        };
        // An unknown key is the more helpful error.
        self.table(path, table)?;
        let is_missing = |key: &&Key| {
            key.is_of_stage() && key.need == Need::Required && !table.contains_key(key.word())
        };
        match KEYS.iter().filter(|key| key.default.is_none()).find(is_missing) {
            Some(key) => Err(ConfigError::Missing {
                origin: Some(origin),
                keys: vec![format!("{path}.{}", key.word())],
                examples: vec![format!("{} = {} to the stage", key.word(), key.sample())],
            }),
            None => Ok(()),
        }
    }
}

/// What `extends` names.
fn base_of(origin: Origin, value: &Spanned<DeValue<'_>>) -> Result<(String, Origin), ConfigError> {
    match value.get_ref() {
        DeValue::String(text) if !text.is_empty() => Ok((text.clone().into_owned(), origin)),
        other => Err(wrong(
            "extends",
            origin,
            found(other),
            "the path of a configuration file, or the name of a built-in one",
        )),
    }
}

fn wrong(key: &str, origin: Origin, found: String, expected: &str) -> ConfigError {
    ConfigError::Value { origin, key: key.to_owned(), found, expected: expected.to_owned() }
}

/// The value without its position; `None` if it is a number beyond 64 bits.
fn plain(value: Spanned<DeValue<'_>>) -> Option<Value> {
    Value::deserialize(ValueDeserializer::from(value)).ok()
}

/// A value as shown in an error: TOML on one line, shortened.
fn found(value: &DeValue<'_>) -> String {
    const MOST: usize = 60;
    let text = match value {
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Table(_) => "a table".into(),
        other => plain(Spanned::new(0..0, other.clone()))
            .map_or_else(|| "a list".into(), |value| toml_line(&value)),
    };
    if text.chars().count() > MOST {
        text.chars().take(MOST).chain("...".chars()).collect()
    } else {
        text
    }
}
