//! `patchtui config show` and `patchtui config template`: every value with its origin, and a
//! commented file.

use serde_json::{Map, Value as Json, json};

use crate::config::{KEYS, Key, LoadedConfig, Need, flat_values, toml_line};

/// Comments beyond this column follow one space after the value.
const WIDEST_ALIGNED: usize = 60;

/// Every key with its value and, as a comment, its origin; the text is itself a valid
/// configuration.
#[must_use]
pub fn show(loaded: &LoadedConfig) -> String {
    let values = flat_values(&loaded.config);
    let mut lines = Vec::new();
    for (header, section) in sections(loaded.config.stages.len()) {
        let mut rows = Vec::new();
        for key in KEYS
            .iter()
            .filter(|key| key.section() == section_in_table(&section) && key.path != "stages")
        {
            let path = if section.is_empty() {
                key.path.to_owned()
            } else {
                format!("{section}.{}", key.word())
            };
            match values.get(&path) {
                Some(value) => {
                    let origin =
                        loaded.origins.get(&path).map_or_else(String::new, ToString::to_string);
                    rows.push((format!("{} = {}", key.word(), toml_line(value)), origin));
                }
                None if is_unchosen(key) => {}
                None => rows.push((format!("# {}", key.word()), "not set".to_owned())),
            }
        }
        if !header.is_empty() {
            lines.push(format!("\n{header}"));
        }
        lines.extend(aligned(&rows));
    }
    lines.join("\n") + "\n"
}

/// The same as JSON: `config` holds the values, `origins` the origin of each key.
#[must_use]
pub fn show_json(loaded: &LoadedConfig) -> Json {
    let origins: Map<String, Json> =
        loaded.origins.iter().map(|(key, origin)| (key.clone(), json!(origin))).collect();
    json!({ "config": loaded.config, "origins": origins })
}

/// A commented file with every key.
#[must_use]
pub fn template() -> String {
    crate::config::template()
}

/// Headers of all tables in reading order, with the path prefix of their keys.
fn sections(num_stages: usize) -> Vec<(String, String)> {
    let mut sections: Vec<(String, String)> = Vec::new();
    for section in KEYS.iter().map(Key::section) {
        match section {
            "" if sections.is_empty() => sections.push((String::new(), String::new())),
            "" => {}
            "stages[]" if sections.iter().any(|(_, path)| path == "stages[0]") => {}
            "stages[]" => sections
                .extend((0..num_stages).map(|idx| ("[[stages]]".into(), format!("stages[{idx}]")))),
            section if sections.iter().any(|(_, path)| path == section) => {}
            section => sections.push((format!("[{section}]"), section.to_owned())),
        }
    }
    sections
}

/// The section as the table of keys names it.
fn section_in_table(section: &str) -> &str {
    if section.starts_with("stages[") { "stages[]" } else { section }
}

/// Whether another alternative was chosen, or the stage inherits the key from the run.
fn is_unchosen(key: &Key) -> bool {
    key.is_of_stage() || matches!(key.need, Need::OneOf(_))
}

fn aligned(rows: &[(String, String)]) -> Vec<String> {
    let width = rows
        .iter()
        .map(|(text, _)| text.chars().count())
        .filter(|width| *width <= WIDEST_ALIGNED)
        .max()
        .unwrap_or(0);
    rows.iter().map(|(text, comment)| format!("{text:width$}  # {comment}")).collect()
}
