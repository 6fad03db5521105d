//! Breaks long text into lines for people who read it in a terminal or a file.

use unicode_width::UnicodeWidthStr;

/// Width of a line in columns.
pub const WIDTH: usize = 80;

/// `words` after `head`, broken between words, with `indent` spaces before every further line; a
/// word longer than a line is kept whole, since it is a path to be copied.
#[must_use]
pub fn fold(head: &str, words: &str, indent: usize) -> Vec<String> {
    let (mut lines, mut line, mut is_empty) = (Vec::new(), head.to_owned(), true);
    for word in words.split_whitespace() {
        if !is_empty && line.width() + 1 + word.width() > WIDTH {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
        } else if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    lines.push(line);
    lines
}
