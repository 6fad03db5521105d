//! Makes untrusted text safe for a terminal: samples, prompts, names, log lines, errors, titles.
//!
//! Raw text may contain escape sequences that move the cursor, set the clipboard or hide the text
//! after them. Records and files keep text raw; every output to a terminal (cells, plain lines,
//! titles) passes it through [`line`] or [`text`]. JSON is no protection, since `serde_json`
//! escapes neither DEL nor the C1 controls: printed JSON passes through [`json`], which
//! preserves its meaning.

use std::borrow::Cow;
use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;

use unicode_width::UnicodeWidthChar;

/// Replacement for removed characters.
pub const PLACEHOLDER: char = '\u{fffd}';
/// Maximum number of characters kept of a line.
pub const LINE_LIMIT: usize = 4096;
/// Maximum number of zero-width characters kept per base character; stacks of them paint over the
/// lines above.
const MARKS_LIMIT: usize = 3;
/// Tab width in columns.
const TAB: usize = 4;
/// Marks a line that was cut.
const CUT: char = '\u{2026}';

/// Makes `raw` one safe line: line breaks and tabs become spaces.
#[must_use]
pub fn line(raw: &str) -> String {
    let mut writer = Writer::default();
    feed(raw, |piece| match piece {
        Piece::Newline | Piece::Tab => writer.push(' '),
        Piece::Char(char) => writer.push(char),
    });
    writer.out
}

/// Makes `raw` safe and keeps its line breaks as `\n`; tabs become spaces up to the next stop.
#[must_use]
pub fn text(raw: &str) -> String {
    let mut writer = Writer::default();
    feed(raw, |piece| match piece {
        Piece::Newline => writer.newline(),
        Piece::Tab => (0..TAB - writer.chars % TAB).for_each(|_| writer.push(' ')),
        Piece::Char(char) => writer.push(char),
    });
    writer.out
}

/// Escapes control characters in a JSON document for a terminal; its meaning is unchanged.
#[must_use]
pub fn json(document: &str) -> Cow<'_, str> {
    let is_harmless = |char: char| char == '\n' || !is_unsafe(char);
    if document.chars().all(is_harmless) {
        return Cow::Borrowed(document);
    }
    let mut escaped = String::with_capacity(document.len() + 16);
    for char in document.chars() {
        if is_harmless(char) {
            escaped.push(char);
        } else {
            // Outside of strings JSON has no such characters.
            for unit in char.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    Cow::Owned(escaped)
}

/// A piece of the input after escape sequences are removed.
enum Piece {
    Newline,
    Tab,
    Char(char),
}

/// Collects characters under the limits for lines and marks.
#[derive(Default)]
struct Writer {
    out: String,
    chars: usize,
    /// Zero-width characters since the last base; `None` before the first base of a line.
    marks: Option<usize>,
}

impl Writer {
    fn push(&mut self, char: char) {
        if self.chars >= LINE_LIMIT {
            return;
        }
        match (char.width().unwrap_or(0), self.marks) {
            (1.., _) => self.marks = Some(0),
            (0, Some(marks)) if marks < MARKS_LIMIT => self.marks = Some(marks + 1),
            (0, _) => return,
        }
        self.chars += 1;
        self.out.push(if self.chars == LINE_LIMIT { CUT } else { char });
    }

    fn newline(&mut self) {
        self.out.push('\n');
        self.chars = 0;
        self.marks = None;
    }
}

/// Passes the harmless pieces of `raw` to `take`, in order.
///
/// Terminals disagree on the width of an emoji with a variation selector, a skin tone or a joiner,
/// and a screen that counts columns differently from its terminal is garbled. Without these every
/// terminal shows the same plain emoji.
fn feed(raw: &str, mut take: impl FnMut(Piece)) {
    let mut chars = raw.chars().peekable();
    let mut is_after_wide = false;
    while let Some(char) = chars.next() {
        let was_wide = std::mem::replace(&mut is_after_wide, is_wide(char));
        match char {
            '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' => is_after_wide = was_wide,
            '\u{200d}' if chars.peek().is_some_and(|next| is_wide(*next)) => {}
            '\u{1f3fb}'..='\u{1f3ff}' if was_wide => {}
            '\x1b' => skip_escape(&mut chars),
            '\u{9b}' => skip_control_sequence(&mut chars),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => skip_string(&mut chars),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' | '\u{2028}' | '\u{2029}' => take(Piece::Newline),
            '\t' => take(Piece::Tab),
            char if is_unsafe(char) => take(Piece::Char(PLACEHOLDER)),
            char => take(Piece::Char(char)),
        }
    }
}

/// Whether `char` takes two columns, e.g. an emoji or a Chinese character.
fn is_wide(char: char) -> bool {
    char.width() == Some(2)
}

/// Controls, bidirectional overrides and marks, and the invisible tag characters.
fn is_unsafe(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Skips what follows an ESC.
fn skip_escape(chars: &mut Peekable<Chars<'_>>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            skip_control_sequence(chars);
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            chars.next();
            skip_string(chars);
        }
        _ => {
            while chars.next_if(|char| matches!(char, ' '..='/')).is_some() {}
            chars.next_if(|char| matches!(char, '0'..='~'));
        }
    }
}

/// Skips parameters, intermediates and the final character of a CSI sequence.
fn skip_control_sequence(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|char| matches!(char, ' '..='?')).is_some() {}
    chars.next_if(|char| matches!(char, '@'..='~'));
}

/// Skips a control string up to its terminator; one without a terminator hides at most the rest of
/// its line.
fn skip_string(chars: &mut Peekable<Chars<'_>>) {
    while let Some(char) = chars.next_if(|char| !matches!(char, '\n' | '\x1b')) {
        if matches!(char, '\x07' | '\u{9c}') {
            return;
        }
    }
    // ESC \ ends the string; an ESC with anything else begins the next sequence, as in terminals.
    let mut ahead = chars.clone();
    if ahead.next() == Some('\x1b') && ahead.next() == Some('\\') {
        *chars = ahead;
    }
}
