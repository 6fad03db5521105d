//! A commented file with every key, to start from.

use std::fmt::Write;

use toml::Value;

use crate::config::keys::{KEYS, Key};
use crate::config::kind::ValueKind;

/// The first lines of the file.
const PREAMBLE: &str = "\
# Every configuration key of patchtui. Set data.files or data.generator; everything else is \
                        optional.
# Values shown here are the defaults; keys that are commented out are off or derived from other \
                        keys.
#
# extends = \"demo\"    # start from another file or a built-in configuration and set only what \
                        differs
#
# On the command line, --set section.key=value overrides this file, and --set section.key=default \
                        restores the default.
";

/// Active in the template although it has no default, so that only the source of the text remains
/// to be set.
const BUDGET: &str = "training.tokens";

/// A commented file with every key, its help and its default; valid once a source of text is set.
#[must_use]
pub fn template() -> String {
    let mut text = String::from(PREAMBLE);
    let mut section = "";
    for key in KEYS.iter().filter(|key| !key.is_of_stage()) {
        if key.kind == ValueKind::Stages {
            write_stages(&mut text, key);
            continue;
        }
        if key.section() != section {
            section = key.section();
            write_line(&mut text, &format!("\n[{section}]"));
        }
        write_key(&mut text, key);
    }
    text
}

fn write_key(text: &mut String, key: &Key) {
    write_line(text, &format!("\n# {}", key.help));
    if let ValueKind::Word(words @ [_, _, ..]) = key.kind {
        write_line(
            text,
            &format!(
                "# {}",
                words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" | ")
            ),
        );
    }
    let mark = if key.default.is_some() || key.path == BUDGET { "" } else { "# " };
    write_line(text, &format!("{mark}{} = {}", key.word(), key.sample()));
}

/// The default stages, and every key that a stage may have.
fn write_stages(text: &mut String, stages: &Key) {
    write_line(text, &format!("\n# {} Keys of a stage:", stages.help));
    for key in KEYS.iter().filter(|key| key.is_of_stage()) {
        let assignment = format!("{} = {}", key.word(), key.sample());
        write_line(text, &format!("#   {assignment:26}  {}", key.help));
    }
    let default = stages.default_value();
    let tables = default.as_ref().and_then(Value::as_array).into_iter().flatten();
    let tables: Vec<String> =
        tables.filter_map(Value::as_table).map(|stage| format!("[[stages]]\n{stage}")).collect();
    write_line(text, tables.join("\n").trim_end());
}

fn write_line(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}
