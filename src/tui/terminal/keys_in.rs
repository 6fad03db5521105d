//! From the terminal's bytes to keys.
//!
//! crossterm's own reader loses a key that arrives together with a new window size, and spins
//! forever once the terminal hangs up. The client needs few keys, so it parses them itself and
//! takes only the key names from crossterm. Unknown bytes are dropped; pasted text and answers of
//! the terminal are dropped on purpose, since they are not meant as keys.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::tui::Background;

/// Maximum length of a known sequence.
const LONGEST: usize = 32;
/// Maximum length of a control string, such as the answer to a color query.
const LONGEST_STRING: usize = 4096;
const ESCAPE: u8 = 0x1b;

/// Collects bytes until they form a key.
#[derive(Debug, Default)]
pub struct KeyParser {
    /// The start of a key.
    pending: Vec<u8>,
    is_pasting: bool,
    /// Whether the middle of the pending sequence was dropped, because it is longer than any known
    /// one.
    is_overlong: bool,
    /// The background reported by the terminal, until it is taken.
    background: Option<Background>,
}

/// What the pending bytes are.
enum Parsed {
    /// The start of a sequence.
    Incomplete,
    /// This many bytes are a key, or nothing.
    Key(usize, Option<KeyEvent>),
    /// This many bytes begin or end pasted text.
    Paste(usize, bool),
    /// This many bytes are a control string, which may report the background.
    String(usize, Option<Background>),
}

impl KeyParser {
    /// Adds `bytes` and returns the keys that are complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<KeyEvent> {
        self.pending.extend_from_slice(bytes);
        let mut keys = Vec::new();
        while !self.pending.is_empty() {
            let longest = longest(&self.pending);
            // No further, so that keys do not depend on how many bytes arrive at once.
            let parsed = parse(&self.pending[..self.pending.len().min(longest + 1)]);
            if matches!(parsed, Parsed::Incomplete) && self.pending.len() > longest {
                self.drop_middle(longest);
                continue;
            }
            let (used, key) = match parsed {
                Parsed::Incomplete => break,
                Parsed::Key(used, _) | Parsed::Paste(used, _) | Parsed::String(used, _)
                    if self.is_overlong =>
                {
                    (used, None)
                }
                Parsed::Key(used, key) => (used, key),
                Parsed::Paste(used, begins) => {
                    self.is_pasting = begins;
                    (used, None)
                }
                Parsed::String(used, background) => {
                    self.background = background.or(self.background);
                    (used, None)
                }
            };
            self.is_overlong = false;
            self.pending.drain(..used);
            keys.extend(key.filter(|_| !self.is_pasting));
        }
        keys
    }

    /// Drops the part of the pending sequence that is too long and keeps its start: its end is yet
    /// to come, and what is in between must not be taken for keys.
    fn drop_middle(&mut self, longest: usize) {
        // The last byte may begin the terminator.
        let end = longest + usize::from(self.pending[longest] != ESCAPE);
        self.pending.drain(2..end);
        self.is_overlong = true;
    }

    /// The background reported by the terminal since the last call.
    pub fn take_background(&mut self) -> Option<Background> {
        self.background.take()
    }

    /// How long to wait for more bytes before [`KeyParser::flush`]; `None` if none are expected.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        match (self.is_pasting, self.pending.is_empty()) {
            // A slow line may interrupt pasted text, and the rest must not be taken for keys.
            (true, _) => Some(Duration::from_secs(2)),
            // The same holds for the answer of the terminal; two bytes alone are a key with Alt.
            (false, false)
                if self.is_overlong || (self.pending.len() > 2 && is_string(&self.pending)) =>
            {
                Some(Duration::from_secs(1))
            }
            (false, false) => Some(Duration::from_millis(50)),
            (false, true) => None,
        }
    }

    /// Tells the parser that no more bytes arrived: a lone escape is then a key, and pasted text
    /// has ended.
    pub fn flush(&mut self) -> Option<KeyEvent> {
        let was_pasting = std::mem::take(&mut self.is_pasting);
        self.is_overlong = false;
        let pending = std::mem::take(&mut self.pending);
        (pending == [ESCAPE] && !was_pasting)
            .then(|| KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE))
    }
}

/// What `bytes`, which must not be empty, begin with.
fn parse(bytes: &[u8]) -> Parsed {
    match bytes {
        [ESCAPE] | [ESCAPE, b'[' | b'O'] => Parsed::Incomplete,
        [ESCAPE, ESCAPE, ..] => {
            Parsed::Key(1, Some(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE)))
        }
        // The Linux console writes its function keys like this.
        [ESCAPE, b'[', b'[', rest @ ..] => rest
            .first()
            .map_or(Parsed::Incomplete, |last| plain(4, (*last == b'A').then_some(KeyCode::F(1)))),
        [ESCAPE, b'[', rest @ ..] => parse_control_sequence(rest),
        [ESCAPE, b'O', last, ..] => plain(3, letter_key(*last)),
        [ESCAPE, b']' | b'P' | b'_' | b'^', rest @ ..] => parse_string(rest),
        [ESCAPE, rest @ ..] => match parse_char(rest) {
            Parsed::Key(used, key) => Parsed::Key(
                used + 1,
                key.map(|key| KeyEvent::new(key.code, key.modifiers | KeyModifiers::ALT)),
            ),
            other => other,
        },
        bytes => parse_char(bytes),
    }
}

/// Maximum length of the sequence that `pending` begins with.
fn longest(pending: &[u8]) -> usize {
    if is_string(pending) { LONGEST_STRING } else { LONGEST }
}

/// Whether `pending` begins a control string: OSC, DCS, APC or PM.
fn is_string(pending: &[u8]) -> bool {
    matches!(pending, [ESCAPE, b']' | b'P' | b'_' | b'^', ..])
}

/// The part after `ESC ]` and the like, up to BEL or `ESC \`.
fn parse_string(rest: &[u8]) -> Parsed {
    match rest.iter().position(|byte| matches!(*byte, ESCAPE | 0x07)) {
        None => Parsed::Incomplete,
        Some(end) if rest[end] == ESCAPE => match rest.get(end + 1) {
            None => Parsed::Incomplete,
            Some(b'\\') => Parsed::String(end + 4, reported_background(&rest[..end])),
            // Another escape sequence begins, so the string ended without a terminator.
            Some(_) => Parsed::String(end + 2, None),
        },
        Some(end) => Parsed::String(end + 3, reported_background(&rest[..end])),
    }
}

/// The background in an answer like `11;rgb:ffff/ffff/ffff`, with one to four hexadecimal digits
/// per channel.
fn reported_background(answer: &[u8]) -> Option<Background> {
    let color = std::str::from_utf8(answer)
        .ok()?
        .strip_prefix("11;rgb")?
        .trim_start_matches('a')
        .strip_prefix(':')?;
    let part = |digits: &str| {
        let value = u32::from_str_radix(digits, 16).ok()?;
        (1..=4)
            .contains(&digits.len())
            .then(|| f64::from(value) / f64::from(16u32.pow(digits.len() as u32) - 1))
    };
    let mut parts = color.split('/').map(part);
    let rgb = [parts.next()??, parts.next()??, parts.next()??];
    Some(Background::of_rgb(rgb))
}

/// The part after `ESC [`.
fn parse_control_sequence(rest: &[u8]) -> Parsed {
    let Some(end) = rest.iter().position(|byte| !matches!(byte, b' '..=b'?')) else {
        return Parsed::Incomplete;
    };
    let used = end + 3;
    let mut numbers = rest[..end].split(|byte| *byte == b';').map(|digits| {
        std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u32>().ok())
    });
    let first = numbers.next().flatten().unwrap_or(1);
    let modifiers = numbers.next().flatten().map_or(KeyModifiers::NONE, modifiers);
    let code = match (rest[end], first) {
        (b'~', 200 | 201) => return Parsed::Paste(used, first == 200),
        (b'~', 1 | 7) => Some(KeyCode::Home),
        (b'~', 2) => Some(KeyCode::Insert),
        (b'~', 3) => Some(KeyCode::Delete),
        (b'~', 4 | 8) => Some(KeyCode::End),
        (b'~', 5) => Some(KeyCode::PageUp),
        (b'~', 6) => Some(KeyCode::PageDown),
        (b'~', 11) => Some(KeyCode::F(1)),
        // An escape inside a sequence begins the next one.
        (ESCAPE, _) => return Parsed::Key(used - 1, None),
        (last, _) => letter_key(last),
    };
    Parsed::Key(used, code.map(|code| KeyEvent::new(code, modifiers)))
}

/// A control byte or a character.
fn parse_char(bytes: &[u8]) -> Parsed {
    let ctrl = |char: u8| {
        Parsed::Key(1, Some(KeyEvent::new(KeyCode::Char(char::from(char)), KeyModifiers::CONTROL)))
    };
    match bytes[0] {
        b'\r' => plain(1, Some(KeyCode::Enter)),
        b'\t' => plain(1, Some(KeyCode::Tab)),
        0x08 | 0x7f => plain(1, Some(KeyCode::Backspace)),
        0x00 => ctrl(b' '),
        byte @ 0x01..=0x1a => ctrl(byte - 1 + b'a'),
        byte @ 0x1c..=0x1f => ctrl(byte - 0x1c + b'4'),
        byte => {
            let length = match byte {
                0xc2..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf4 => 4,
                _ => 1,
            };
            let Some(encoded) = bytes.get(..length) else { return Parsed::Incomplete };
            match std::str::from_utf8(encoded).ok().and_then(|text| text.chars().next()) {
                Some(char) => plain(length, Some(KeyCode::Char(char))),
                None => plain(1, None),
            }
        }
    }
}

/// The key of the final letter of a sequence.
fn letter_key(last: u8) -> Option<KeyCode> {
    Some(match last {
        b'A' => KeyCode::Up,
        b'B' => KeyCode::Down,
        b'C' => KeyCode::Right,
        b'D' => KeyCode::Left,
        b'F' => KeyCode::End,
        b'H' => KeyCode::Home,
        b'P' => KeyCode::F(1),
        b'Z' => KeyCode::BackTab,
        _ => return None,
    })
}

/// xterm adds one to the bits of Shift, Alt and Control.
fn modifiers(number: u32) -> KeyModifiers {
    let bits = number.saturating_sub(1);
    [(1, KeyModifiers::SHIFT), (2, KeyModifiers::ALT), (4, KeyModifiers::CONTROL)]
        .into_iter()
        .filter(|(bit, _)| bits & bit != 0)
        .fold(KeyModifiers::NONE, |sum, (_, modifier)| sum | modifier)
}

fn plain(used: usize, code: Option<KeyCode>) -> Parsed {
    Parsed::Key(used, code.map(|code| KeyEvent::new(code, KeyModifiers::NONE)))
}
