//! Python's string functions where they differ from Rust's: the reference implementation is written
//! in Python.
//!
//! Start at [`strip`] and [`capitalize`].

/// Whether Python's `str.isspace`, `strip` and `\s` treat `c` as white space: as in Unicode, plus
/// four ASCII separators.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// `str.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.rstrip()`.
pub(super) fn rstrip(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// `len(re.split(r"\s+", text))`: the empty strings at both ends count.
pub(super) fn num_fields(text: &str) -> u64 {
    let mut fields = 1;
    let mut in_space = false;
    for c in text.chars() {
        fields += u64::from(is_space(c) && !in_space);
        in_space = is_space(c);
    }
    fields
}

/// `len(text)`: code points, not bytes.
pub(super) fn num_code_points(text: &str) -> usize {
    text.chars().count()
}

/// `str.capitalize()`: the first character in title case, the rest in lower case.
pub(super) fn capitalize(text: &str) -> String {
    let Some(first) = text.chars().next() else { return String::new() };
    // The whole text is lowercased at once, since a sigma depends on the letters on both sides.
    let lower = text.to_lowercase();
    let lower_first: usize = first.to_lowercase().map(char::len_utf8).sum();
    let mut capitalized = title_case(first);
    capitalized.push_str(&lower[lower_first..]);
    capitalized
}

/// The title case of `c`: its upper case, except for digraphs, ligatures, Georgian and the Greek
/// iota subscript.
fn title_case(c: char) -> String {
    match c {
        '\u{1c4}'..='\u{1c6}' => "\u{1c5}".into(),
        '\u{1c7}'..='\u{1c9}' => "\u{1c8}".into(),
        '\u{1ca}'..='\u{1cc}' => "\u{1cb}".into(),
        '\u{1f1}'..='\u{1f3}' => "\u{1f2}".into(),
        '\u{10d0}'..='\u{10fa}' | '\u{10fd}'..='\u{10ff}' => c.into(),
        '\u{1f80}'..='\u{1faf}' => {
            char::from_u32(u32::from(c) | 8).map(String::from).unwrap_or_default()
        }
        '\u{1fb3}' | '\u{1fbc}' => "\u{1fbc}".into(),
        '\u{1fc3}' | '\u{1fcc}' => "\u{1fcc}".into(),
        '\u{1ff3}' | '\u{1ffc}' => "\u{1ffc}".into(),
        // The iota stays a subscript and is not written out.
        '\u{1fb2}' | '\u{1fb4}' | '\u{1fb7}' | '\u{1fc2}' | '\u{1fc4}' | '\u{1fc7}'
        | '\u{1ff2}' | '\u{1ff4}' | '\u{1ff7}' => c
            .to_uppercase()
            .map(|upper| if upper == '\u{399}' { '\u{345}' } else { upper })
            .collect(),
        // Of several letters only the first one is capitalized.
        '\u{df}' | '\u{587}' | '\u{fb00}'..='\u{fb06}' | '\u{fb13}'..='\u{fb17}' => {
            let mut letters = c.to_uppercase();
            letters.next().into_iter().chain(letters.flat_map(char::to_lowercase)).collect()
        }
        _ => c.to_uppercase().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_what_python_takes_for_it() {
        assert!("\t\n\u{b}\u{c}\r\u{1c}\u{1d}\u{1e}\u{1f} \u{85}\u{a0}".chars().all(is_space));
        let wide = "\u{1680}\u{2000}\u{2008}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}";
        assert!(wide.chars().all(is_space));
        assert!(!"\u{1b}\u{200b}\u{2060}\u{feff}\u{180e}a_".chars().any(is_space));
        assert_eq!(
            (strip("\u{1c} a\u{200b} b \u{85}"), rstrip(" a\u{1f}\u{3000}")),
            ("a\u{200b} b", " a")
        );
        for (text, fields) in [("", 1), (" ", 2), ("a", 1), (" a  b\u{1d}\n", 4), ("a\u{1f}b", 2)] {
            assert_eq!(num_fields(text), fields, "{text:?}");
        }
    }

    #[test]
    fn capitals_are_those_of_python() {
        // Generated with Python 3.11: [text.capitalize() for text in ...].
        let table = [
            ("", ""),
            ("the MAN in NYC", "The man in nyc"),
            (" Lead", " lead"),
            ("\u{1c6} X", "\u{1c5} x"),
            ("\u{1c4}X", "\u{1c5}x"),
            ("\u{3a3}\u{3a3} \u{391}\u{3a3}", "\u{3a3}\u{3c2} \u{3b1}\u{3c2}"),
            ("a\u{3a3}", "A\u{3c2}"),
            ("a\u{3a3}b", "A\u{3c3}b"),
            ("\u{df}A", "Ssa"),
            ("\u{fb03}X", "Ffix"),
            ("\u{fb05}", "St"),
            ("\u{587}", "\u{535}\u{582}"),
            ("\u{149}A", "\u{2bc}Na"),
            ("x\u{130}I", "Xi\u{307}i"),
            ("\u{130}I", "\u{130}i"),
            ("\u{10d0}\u{1c90}", "\u{10d0}\u{10d0}"),
            ("\u{1f80}\u{1f88}", "\u{1f88}\u{1f80}"),
            ("\u{1fb3}", "\u{1fbc}"),
            ("\u{1fb7}", "\u{391}\u{342}\u{345}"),
            ("1ABC", "1abc"),
        ];
        for (text, expected) in table {
            assert_eq!(capitalize(text), expected, "{text:?}");
        }
    }
}
