//! A commented file with every key, to start from.

use std::fmt::Write;

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
    for key in KEYS.iter().filter(|key| !key.path.starts_with("stages")) {
        if key.section() != section {
            if section == "training" {
                write_stages(&mut text);
            }
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
    match (key.default, key.example) {
        (Some(default), _) => write_line(text, &format!("{} = {default}", key.word())),
        (None, Some(example)) if key.path == BUDGET => {
            write_line(text, &format!("{} = {example}", key.word()))
        }
        (None, example) => {
            write_line(text, &format!("# {} = {}", key.word(), example.unwrap_or("...")))
        }
    }
}

/// The two default stages, and every key that a stage may have.
fn write_stages(text: &mut String) {
    let keys = || KEYS.iter().filter(|key| key.path.starts_with("stages[]"));
    write_line(
        text,
        "\n# The stages in order: patch stages first, the token stage (K = 1) last. Keys of a \
         stage:",
    );
    for key in keys() {
        let assignment =
            format!("{} = {}", key.word(), key.default.or(key.example).unwrap_or("..."));
        write_line(text, &format!("#   {assignment:26}  {}", key.help));
    }
    write_line(
        text,
        "[[stages]]\npatch_size = 4\nshare = \"2/3\"\n\n[[stages]]\npatch_size = \
         1\noptimizer_state = \"reset\"",
    );
}

fn write_line(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}
