//! Untrusted text cannot control a terminal.

use patchtui::text::sanitize;
use patchtui::text::sanitize::{LINE_LIMIT, PLACEHOLDER, line, text};
use proptest::prelude::*;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

fn is_dangerous(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{e0000}'..='\u{e007f}')
}

#[test]
fn escape_sequences_are_gone_as_a_whole_and_controls_are_shown() {
    let cases = [
        ("plain text", "plain text"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\u{9b}31mred", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]52;c;ZXZpbA==\x1b\\after", "after"),
        ("\x1bPq#0;2\x1b\\after", "after"),
        ("\x1b_apc\x1b\\\x1b^pm\u{9c}\x1bXsos\x1b\\after", "after"),
        ("\u{9d}0;title\u{9c}after", "after"),
        ("\x1b(Bafter\x1b7\x1b8\x1bc", "after"),
        ("an open \x1b]0;string", "an open "),
        ("bell\x07 del\x7f c1\u{85}", "bell\u{fffd} del\u{fffd} c1\u{fffd}"),
        ("\u{202e}gpj.exe", "\u{fffd}gpj.exe"),
        ("a\tb\r\nc\nd", "a b c d"),
        ("progress 1 %\rprogress 2 %", "progress 1 %\u{fffd}progress 2 %"),
        (
            "\u{65e5}\u{672c}\u{8a9e} e\u{301} \u{1f469}\u{200d}\u{1f4bb}",
            "\u{65e5}\u{672c}\u{8a9e} e\u{301} \u{1f469}\u{1f4bb}",
        ),
        (
            "\u{2764}\u{fe0f} 1\u{fe0f}\u{20e3} \u{263a}\u{fe0e} \u{845b}\u{e0100}",
            "\u{2764} 1\u{20e3} \u{263a} \u{845b}",
        ),
        ("\u{1f44d}\u{1f3fd} \u{1f3fd}", "\u{1f44d} \u{1f3fd}"),
        ("\u{915}\u{94d}\u{200d}\u{937}", "\u{915}\u{94d}\u{200d}\u{937}"),
        ("\x1b[", ""),
        ("\x1b", ""),
    ];
    for (raw, safe) in cases {
        assert_eq!(line(raw), safe, "{raw:?}");
    }
}

/// A terminal adds up the widths of characters; the screen uses the width of the whole text.
#[test]
fn the_width_of_safe_text_is_the_sum_of_its_characters() {
    let emoji = [
        "\u{2764}\u{fe0f}",
        "\u{1f469}\u{200d}\u{1f4bb}",
        "\u{1f44d}\u{1f3fd}",
        "1\u{fe0f}\u{20e3}",
        "\u{1f3f3}\u{fe0f}\u{200d}\u{1f308}",
        "\u{23f8}\u{fe0f}",
    ];
    for raw in emoji {
        let safe = line(raw);
        assert_eq!(
            safe.width(),
            safe.chars().filter_map(UnicodeWidthChar::width).sum::<usize>(),
            "{}",
            safe.escape_unicode()
        );
    }
}

#[test]
fn text_keeps_lines_and_tab_stops() {
    assert_eq!(text("a\tb\r\n\n\tc"), "a   b\n\n    c");
    assert_eq!(text("an open \x1b]0;string\nnext line"), "an open \nnext line");
}

#[test]
fn marks_do_not_pile_up_and_lines_end() {
    let tower = format!("a{}", "\u{301}".repeat(50));
    assert_eq!(line(&tower).chars().count(), 4);
    assert_eq!(line("\u{301}a"), "a");
    let long = line(&"x".repeat(3 * LINE_LIMIT));
    assert_eq!(long.chars().count(), LINE_LIMIT);
    assert!(long.ends_with('\u{2026}'));
}

#[test]
fn deeply_nested_strings_do_not_exhaust_the_stack() {
    assert_eq!(line(&"\x1b]".repeat(1_000_000)), "");
}

/// Text that consists mostly of what terminals react to.
fn bombs() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\x1b".to_owned()),
        Just("\x1b[".to_owned()),
        Just("\x1b]".to_owned()),
        Just("\x1b\\".to_owned()),
        Just("\u{9b}".to_owned()),
        Just("\u{9d}".to_owned()),
        Just("\u{9c}".to_owned()),
        "[\u{0}-\u{a0}]{0,6}",
        "[\u{200b}-\u{206f}]{0,3}",
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn nothing_dangerous_is_left(raw in bombs()) {
        let (one, many) = (line(&raw), text(&raw));
        prop_assert!(!one.chars().any(is_dangerous), "{one:?}");
        prop_assert!(!many.chars().any(|char| char != '\n' && is_dangerous(char)), "{many:?}");
        // Safe text is unchanged.
        prop_assert_eq!(line(&one), one);
        prop_assert_eq!(text(&many), many);
    }

    #[test]
    fn harmless_text_is_untouched(raw in "[ -~\u{e0}-\u{ff}\u{4e00}-\u{4e20}]{0,200}") {
        // A soft hyphen is outside the range above, so every character has a width.
        prop_assert_eq!(line(&raw), raw.clone());
        prop_assert!(!raw.contains(PLACEHOLDER));
    }
}

#[test]
fn a_json_document_means_the_same_and_moves_no_cursor() {
    let value = serde_json::json!({ "name": "a\u{7f}b\u{9b}2J\u{202e}c\u{e0041}", "list": ["plain", "\u{1b}[31m"] });
    for document in [value.to_string(), format!("{value:#}")] {
        let safe = sanitize::json(&document);
        assert!(
            safe.chars().all(|char| char == '\n' || !char.is_control())
                && !safe.contains('\u{202e}')
                && !safe.contains('\u{e0041}'),
            "{safe}"
        );
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }
    assert!(matches!(sanitize::json("{\"name\":\"b\u{f6}ok\"}"), std::borrow::Cow::Borrowed(_)));
}
