//! Text for a terminal, and bytes from one.
//!
//! What was made safe is safe, and stays as it is; a JSON document keeps its meaning; keys do not
//! depend on how their bytes arrive.

use patchtui::data::text_of_bytes;
use patchtui::machine::terminal::cut;
use patchtui::text::format::shell_word;
use patchtui::text::sanitize::{LINE_LIMIT, json, line, text};
use patchtui::tui::KeyParser;
use serde_json::Value;

use super::assert_harmless;

pub(super) fn read(bytes: &[u8]) {
    let raw = String::from_utf8_lossy(bytes);
    let (one, many) = (line(&raw), text(&raw));
    assert!(!one.contains('\n') && one.chars().count() <= LINE_LIMIT);
    for safe in [&one, &many] {
        assert_harmless(safe);
    }
    assert_eq!(line(&one), one);
    assert_eq!(text(&many), many);
    for columns in [0, 1, 7, 80] {
        assert!(one.starts_with(cut(&one, columns)));
    }
    if let Ok(value) = serde_json::from_str::<Value>(&raw) {
        let safe = json(&value.to_string()).into_owned();
        assert_harmless(&safe);
        assert_eq!(serde_json::from_str::<Value>(&safe).unwrap(), value);
    }
    let _ = (text_of_bytes(bytes), shell_word(&raw));
    keys(bytes);
}

fn keys(bytes: &[u8]) {
    let (mut whole, mut split) = (KeyParser::default(), KeyParser::default());
    let at_once = whole.feed(bytes);
    let one_by_one: Vec<_> = bytes.iter().flat_map(|byte| split.feed(&[*byte])).collect();
    assert_eq!(at_once, one_by_one);
    assert_eq!((whole.patience(), whole.flush()), (split.patience(), split.flush()));
}
