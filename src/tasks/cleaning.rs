//! Cleans the texts of `HellaSwag` and `WikiText` as the reference implementation does.
//!
//! The regular expressions of the original are implemented by hand, since each of them matches text
//! between two characters; the pattern is quoted at its implementation. Start at
//! [`clean_hellaswag`] and [`detokenize_wikitext`].

use crate::tasks::python::strip;

/// A text of `HellaSwag` without the markup of the data set.
///
/// Source: lm-eval 0.4.13, `tasks/hellaswag/utils.py`, `preprocess`.
#[must_use]
pub fn clean_hellaswag(text: &str) -> String {
    let text = strip(text).replace(" [title]", ". ");
    without_brackets(&text).replace("  ", " ")
}

/// A page of `WikiText` as running text.
///
/// Source: lm-eval 0.4.13, `tasks/wikitext/preprocess_wikitext.py`, `wikitext_detokenizer`.
#[must_use]
pub fn detokenize_wikitext(page: &str) -> String {
    let mut text = page.replace("s '", "s'");
    text = spaced_digits(&text);
    let words = [
        (" @-@ ", "-"),
        (" @,@ ", ","),
        (" @.@ ", "."),
        (" : ", ": "),
        (" ; ", "; "),
        (" . ", ". "),
        (" ! ", "! "),
        (" ? ", "? "),
        (" , ", ", "),
    ];
    for (from, to) in words {
        text = text.replace(from, to);
    }
    for (open, close) in [('(', ')'), ('[', ']'), ('{', '}'), ('"', '"'), ('\'', '\'')] {
        text = stripped_between(&text, open, close);
    }
    let rest = [
        ("= = = =", "===="),
        ("= = =", "==="),
        ("= =", "=="),
        (" \u{b0} ", "\u{b0}"),
        (" \n", "\n"),
        ("\n ", "\n"),
        (" N ", " 1 "),
        (" 's", "'s"),
    ];
    for (from, to) in rest {
        text = text.replace(from, to);
    }
    text
}

/// `re.sub(r"\[.*?\]", "", text)`: a bracket extends to the next closing one on its line.
fn without_brackets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('[') {
        out.push_str(&rest[..open]);
        let inside = &rest[open + 1..];
        match inside.find([']', '\n']) {
            Some(at) if inside[at..].starts_with(']') => rest = &inside[at + 1..],
            _ => {
                out.push('[');
                rest = inside;
            }
        }
    }
    out.push_str(rest);
    out
}

/// `re.sub(r"/' [0-9]/", r"/'[0-9]/", text)`: the original means the slashes as quotes, but they
/// are characters of the pattern, and the replacement inserts the text between them literally.
fn spaced_digits(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("/' ") {
        let after = &rest[at + 3..];
        let mut chars = after.chars();
        if chars.next().is_some_and(|c| c.is_ascii_digit()) && chars.next() == Some('/') {
            out.push_str(&rest[..at]);
            out.push_str("/'[0-9]/");
            rest = &after[2..];
        } else {
            out.push_str(&rest[..=at]);
            rest = &rest[at + 1..];
        }
    }
    out.push_str(rest);
    out
}

/// `re.sub(r"\(\s*([^\)]*?)\s*\)", r"(\1)", text)` for the given pair of marks: no white space next
/// to them on the inside.
fn stripped_between(text: &str, open: char, close: char) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(open) {
        let inside = &rest[start + 1..];
        let Some(end) = inside.find(close) else { break };
        out.push_str(&rest[..=start]);
        out.push_str(strip(&inside[..end]));
        out.push(close);
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_between_slashes_become_the_pattern() {
        // Generated with Python 3.11: re.sub(r"/' [0-9]/", r"/'[0-9]/", text).
        for (text, expected) in [
            ("a /' 5/' 6/ b", "a /'[0-9]/' 6/ b"),
            ("/' x/' 7/", "/' x/'[0-9]/"),
            ("' 5", "' 5"),
            ("/' 12/", "/' 12/"),
        ] {
            assert_eq!(spaced_digits(text), expected, "{text:?}");
        }
    }

    #[test]
    fn white_space_between_marks_is_that_of_python() {
        assert_eq!(
            detokenize_wikitext("(\u{1c}a \u{85}) \" \u{3000} \" ( open"),
            "(a) \"\" ( open"
        );
        assert_eq!(
            clean_hellaswag("\u{1d}[a\u{2028}b]c [d\ne] [[f]g]    h\u{1e}"),
            "c [d\ne] g]  h"
        );
    }
}
