//! Decodes text files like Python's text mode.
//!
//! Drops a byte order mark, turns every line end into a line feed, and reports UTF-16 as such.
//! Start at [`text_of_bytes`] for small inputs and at [`TextDecoder`] for streams.

use crate::data::{TextFault, TextRules};

/// U+FEFF, which some editors write in front of UTF-8.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// UTF-16 text in a Latin script has a zero in nearly every second byte.
const UTF_16_ZEROS: f64 = 0.4;

/// A fault of a text file and its offset in bytes.
pub(crate) type FaultPlace = (usize, TextFault);

/// The text of a whole input, such as a file of prompts.
///
/// # Errors
/// With the offset in bytes and the fault, when it is not UTF-8 text.
pub fn text_of_bytes(bytes: &[u8]) -> Result<String, (usize, TextFault)> {
    if let Some(fault) = utf_16(bytes) {
        return Err((0, fault));
    }
    let text =
        std::str::from_utf8(bytes).map_err(|error| (error.valid_up_to(), TextFault::NotUtf8))?;
    Ok(with_line_feeds(without_mark(text)).unwrap_or_else(|| without_mark(text).to_owned()))
}

/// `bytes` without the byte order mark at their start.
#[must_use]
pub fn bytes_without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)
}

/// `text` without the byte order mark at its start.
#[must_use]
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// Which UTF-16 or UTF-32 encoding the file starts with, if any.
pub(crate) fn utf_16(head: &[u8]) -> Option<TextFault> {
    match head {
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => return Some(TextFault::Utf32),
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => return Some(TextFault::Utf16),
        _ => {}
    }
    let pairs = &head.as_chunks::<2>().0[..(head.len() / 2).min(512)];
    let zeros = |side: usize| pairs.iter().filter(|pair| pair[side] == 0).count() as f64;
    let needed = UTF_16_ZEROS * pairs.len() as f64;
    let is_one_sided = |side: usize| zeros(side) >= needed && zeros(1 - side) < needed / 8.0;
    (pairs.len() >= 4 && (is_one_sided(0) || is_one_sided(1))).then_some(TextFault::Utf16)
}

/// `text` with every `\r\n` and `\r` as `\n`, if it has any.
fn with_line_feeds(text: &str) -> Option<String> {
    text.contains('\r').then(|| text.replace("\r\n", "\n").replace('\r', "\n"))
}

/// Decodes a text file chunk by chunk.
#[derive(Debug)]
pub(crate) struct TextDecoder {
    rules: TextRules,
    /// Bytes decoded so far.
    offset: usize,
    /// Carriage returns that were read as line feeds, or dropped before one.
    pub carriage_returns: u64,
}

impl TextDecoder {
    pub(crate) fn new(rules: TextRules) -> Self {
        Self { rules, offset: 0, carriage_returns: 0 }
    }

    /// The text of `chunk`; incomplete characters and line ends are held back until the next chunk.
    ///
    /// # Errors
    /// With the offset in the file, when it is not text.
    pub(crate) fn decode(
        &mut self,
        chunk: &mut Vec<u8>,
        is_last: bool,
    ) -> Result<String, FaultPlace> {
        let is_current = self.rules > TextRules::First;
        let mut text = match std::str::from_utf8(chunk) {
            Ok(text) => text,
            // A chunk may end inside a character, the file may not.
            Err(error) if error.error_len().is_none() && !is_last => {
                std::str::from_utf8(&chunk[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(error) => return Err((self.offset + error.valid_up_to(), TextFault::NotUtf8)),
        };
        if let Some(at) = text.bytes().position(|byte| byte == 0) {
            return Err((self.offset + at, TextFault::Nul));
        }
        if is_current && !is_last {
            // Its line feed may be the first byte of the next chunk.
            text = text.strip_suffix('\r').unwrap_or(text);
        }
        let taken = text.len();
        if is_current && self.offset == 0 {
            text = without_mark(text);
        }
        let converted = if is_current { with_line_feeds(text) } else { None };
        if converted.is_some() {
            self.carriage_returns += text.bytes().filter(|byte| *byte == b'\r').count() as u64;
        }
        let decoded = converted.unwrap_or_else(|| text.to_owned());
        self.offset += taken;
        chunk.drain(..taken);
        Ok(decoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `bytes` in chunks of `size`.
    fn decode(bytes: &[u8], size: usize, rules: TextRules) -> Result<(String, u64), FaultPlace> {
        let mut decoder = TextDecoder::new(rules);
        let (mut chunk, mut text) = (Vec::new(), String::new());
        for part in bytes.chunks(size) {
            chunk.extend(part);
            text += &decoder.decode(&mut chunk, false)?;
        }
        text += &decoder.decode(&mut chunk, true)?;
        Ok((text, decoder.carriage_returns))
    }

    #[test]
    fn marks_and_line_ends_are_read_as_python_reads_them() {
        let bytes = "\u{feff}caf\u{e9}\r\na\rb\n\r\r\n\u{feff}\r".as_bytes();
        let expected = "caf\u{e9}\na\nb\n\n\n\u{feff}\n";
        for size in 1..=bytes.len() {
            assert_eq!(
                decode(bytes, size, TextRules::Current),
                Ok((expected.to_owned(), 5)),
                "chunks of {size}"
            );
            assert_eq!(
                decode(bytes, size, TextRules::First).unwrap().0.as_bytes(),
                bytes,
                "the first rules keep every byte"
            );
        }
        assert_eq!(text_of_bytes(bytes).unwrap(), expected);
    }

    #[test]
    fn faults_are_named_with_their_place() {
        for size in [1, 3, 100] {
            assert_eq!(
                decode(b"\xEF\xBB\xBFab\0c", size, TextRules::Current),
                Err((5, TextFault::Nul))
            );
            assert_eq!(decode(b"abc\xFFd", size, TextRules::Current), Err((3, TextFault::NotUtf8)));
            assert_eq!(decode(b"abc\xC3", size, TextRules::Current), Err((3, TextFault::NotUtf8)));
        }
        assert_eq!(text_of_bytes(b"ab\xFF"), Err((2, TextFault::NotUtf8)));
    }

    #[test]
    fn utf_16_is_known_by_its_mark_or_its_zeros() {
        let wide = |text: &str, order: fn(u16) -> [u8; 2]| {
            text.encode_utf16().flat_map(order).collect::<Vec<u8>>()
        };
        for bytes in [
            wide("\u{feff}text", u16::to_le_bytes),
            wide("some text", u16::to_le_bytes),
            wide("caf\u{e9} text", u16::to_be_bytes),
        ] {
            assert_eq!(utf_16(&bytes), Some(TextFault::Utf16), "{bytes:?}");
            assert!(matches!(text_of_bytes(&bytes), Err((0, TextFault::Utf16))));
        }
        assert_eq!(utf_16(b"\xFF\xFE\0\0t\0\0\0"), Some(TextFault::Utf32));
        for bytes in ["plain text".as_bytes(), b"", b"a\0", b"one zero\0 in a text", &[0; 64]] {
            assert_eq!(utf_16(bytes), None, "{bytes:?}");
        }
    }
}
