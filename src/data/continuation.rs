//! The generated text after a prompt, as it grows, cut at the first stop text.
//!
//! Start at [`GrowingText::push`].

use crate::data::Tokenizer;

/// The text of `new` tokens after `prompt`.
///
/// Cuts it out of the decoded text of all tokens, since tokens decoded alone lose the space before
/// them.
#[must_use]
pub fn continuation(tokenizer: &Tokenizer, prompt: &[u32], new: &[u32]) -> String {
    let known = tokenizer.decode(prompt);
    let all = tokenizer.decode(&[prompt, new].concat());
    // A decoder may change the end of the prompt depending on what follows; the cut is where the
    // two texts diverge.
    let seam =
        known.chars().zip(all.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum();
    all[seam..].to_owned()
}

/// Generated text that is shown as it grows: whole characters only, and nothing that may be the
/// start of a stop text.
#[derive(Debug, Clone)]
pub struct GrowingText<'a> {
    tokenizer: &'a Tokenizer,
    stops: &'a [String],
    /// The end of the prompt and all new tokens.
    prompt: &'a [u32],
    new: Vec<u32>,
    /// Bytes already returned.
    shown: usize,
    /// Position of the stop text, once there is one.
    stopped_at: Option<usize>,
}

impl<'a> GrowingText<'a> {
    /// No text yet after `prompt`; the first of `stops` ends the text and is not part of it.
    #[must_use]
    pub fn new(tokenizer: &'a Tokenizer, prompt: &'a [u32], stops: &'a [String]) -> Self {
        Self { tokenizer, stops, prompt, new: Vec::new(), shown: 0, stopped_at: None }
    }

    /// Adds a token. Returns the text that has become final.
    pub fn push(&mut self, id: u32) -> String {
        self.new.push(id);
        let text = self.all();
        self.stopped_at = self.stops.iter().filter_map(|stop| text.find(stop.as_str())).min();
        let certain = self.stopped_at.unwrap_or_else(|| text.len() - self.uncertain(&text));
        self.hand_out(&text, certain)
    }

    /// The text that was still held back, at the end of the generation.
    pub fn finish(&mut self) -> String {
        let text = self.all();
        let end = self.stopped_at.unwrap_or(text.len());
        self.hand_out(&text, end)
    }

    /// Whether a stop text was produced.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped_at.is_some()
    }

    fn all(&self) -> String {
        continuation(self.tokenizer, self.prompt, &self.new)
    }

    fn hand_out(&mut self, text: &str, end: usize) -> String {
        // A decoder may change the end of the text; what was shown stays.
        let piece = text.get(self.shown..end).unwrap_or_default().to_owned();
        self.shown = self.shown.max(end);
        piece
    }

    /// Bytes at the end that may change: part of a character, or the start of a stop text.
    fn uncertain(&self, text: &str) -> usize {
        let broken = text.len() - text.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
        let begun = |stop: &String| {
            stop.char_indices()
                .map(|(length, _)| length)
                .filter(|length| text.ends_with(&stop[..*length]))
                .max()
                .unwrap_or(0)
        };
        self.stops.iter().map(begun).max().unwrap_or(0).max(broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continuation_begins_right_after_the_prompt() {
        let tokenizer = Tokenizer::load("bytes").unwrap();
        let text = "né 漢 😀";
        let ids = tokenizer.encode(text).unwrap();
        for (at, _) in text.char_indices() {
            assert_eq!(continuation(&tokenizer, &ids[..at], &ids[at..]), text[at..], "cut at {at}");
        }
        let e = tokenizer.encode("é").unwrap();
        assert_eq!(
            continuation(&tokenizer, &ids, &e[1..]),
            "\u{FFFD}",
            "a byte that continues nothing is shown as broken"
        );
        assert_eq!(
            continuation(&tokenizer, &e[..1], &e[1..]),
            "é",
            "a character that the prompt began is shown whole"
        );
    }

    #[test]
    fn a_continuation_keeps_the_space_of_its_first_token() {
        let tokenizer = Tokenizer::load("demo").unwrap();
        let (prompt, new) =
            (tokenizer.encode("Once").unwrap(), tokenizer.encode(" upon a time").unwrap());
        assert_eq!(continuation(&tokenizer, &prompt, &new), " upon a time");
    }

    /// The pieces that are shown for `text`, byte by byte, and the rest at its end.
    fn pieces(text: &str, stops: &[&str]) -> (Vec<String>, String, bool) {
        let tokenizer = Tokenizer::load("bytes").unwrap();
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut growing = GrowingText::new(&tokenizer, &[], &stops);
        let mut shown = Vec::new();
        for id in tokenizer.encode(text).unwrap() {
            shown.push(growing.push(id));
            if growing.is_stopped() {
                break;
            }
        }
        (shown, growing.finish(), growing.is_stopped())
    }

    #[test]
    fn only_whole_characters_are_shown() {
        assert_eq!(
            pieces("aéb", &[]),
            (["a", "", "é", "b"].map(str::to_owned).to_vec(), String::new(), false)
        );
        let tokenizer = Tokenizer::load("bytes").unwrap();
        let mut growing = GrowingText::new(&tokenizer, &[], &[]);
        assert_eq!(
            (growing.push(0xC3), growing.finish()),
            (String::new(), "\u{FFFD}".to_owned()),
            "at the end a part is shown as broken"
        );
    }

    #[test]
    fn a_stop_text_and_its_beginnings_are_held_back() {
        let (shown, rest, is_stopped) = pieces("one\n\ntwo", &["\n\n"]);
        assert_eq!((shown.concat().as_str(), rest.as_str(), is_stopped), ("one", "", true));
        // Text that only looked like a stop text is shown after all, at once or at the end.
        let (shown, rest, is_stopped) = pieces("a#b##", &["###", "b!"]);
        assert_eq!(
            (shown, rest.as_str(), is_stopped),
            (["a", "", "#", "b", ""].map(str::to_owned).to_vec(), "##", false)
        );
        let (shown, _, is_stopped) = pieces("x END", &["END", "ND"]);
        assert_eq!(
            (shown.concat().as_str(), is_stopped),
            ("x ", true),
            "the first one in the text"
        );
    }
}
