//! A TOML value on one line, for messages and for lines with a trailing comment.
//!
//! The `toml` crate writes strings with line breaks over several lines.

use toml::Value;

/// `value` as TOML text without line breaks or other control characters.
#[must_use]
pub fn toml_line(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(toml_line).collect::<Vec<_>>().join(", "))
        }
        Value::Table(table) => {
            let pairs: Vec<String> = table
                .iter()
                .map(|(key, value)| format!("{} = {}", quoted(key), toml_line(value)))
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
        // Shortest text that parses to the same number: 1e-8 instead of 0.00000001.
        Value::Float(number) if number.is_finite() => format!("{number:?}"),
        plain => plain.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.extend(format!("\\u{:04X}", u32::from(c)).chars()),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
