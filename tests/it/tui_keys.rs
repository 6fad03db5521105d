//! From the terminal's bytes to keys.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use patchtui::tui::{Background, KeyParser};
use proptest::prelude::*;

fn key(code: KeyCode) -> KeyEvent {
    KeyEvent::new(code, KeyModifiers::NONE)
}

fn ctrl(char: char) -> KeyEvent {
    KeyEvent::new(KeyCode::Char(char), KeyModifiers::CONTROL)
}

#[test]
fn bytes_become_keys() {
    let cases: [(&[u8], Vec<KeyEvent>); 18] = [
        (
            b"qS ?",
            vec![
                key(KeyCode::Char('q')),
                key(KeyCode::Char('S')),
                key(KeyCode::Char(' ')),
                key(KeyCode::Char('?')),
            ],
        ),
        (b"\r\t\x7f", vec![key(KeyCode::Enter), key(KeyCode::Tab), key(KeyCode::Backspace)]),
        (b"\x03\x0c\x1a", vec![ctrl('c'), ctrl('l'), ctrl('z')]),
        (
            b"\x1b[A\x1b[B\x1bOA\x1bOB",
            vec![key(KeyCode::Up), key(KeyCode::Down), key(KeyCode::Up), key(KeyCode::Down)],
        ),
        (
            b"\x1b[5~\x1b[6~\x1b[Z",
            vec![key(KeyCode::PageUp), key(KeyCode::PageDown), key(KeyCode::BackTab)],
        ),
        (b"\x1bOP\x1b[11~\x1b[[A\x1b[P", vec![key(KeyCode::F(1)); 4]),
        (b"\x1b[1;5A", vec![KeyEvent::new(KeyCode::Up, KeyModifiers::CONTROL)]),
        (b"\x1bq", vec![KeyEvent::new(KeyCode::Char('q'), KeyModifiers::ALT)]),
        (b"\x1b\x1b[A", vec![key(KeyCode::Esc), key(KeyCode::Up)]),
        (
            "\u{e9}\u{65e5}\u{1f469}".as_bytes(),
            vec![
                key(KeyCode::Char('\u{e9}')),
                key(KeyCode::Char('\u{65e5}')),
                key(KeyCode::Char('\u{1f469}')),
            ],
        ),
        (b"\xff\xc3q", vec![key(KeyCode::Char('q'))]),
        (b"\x1b[?1;2c\x1b[24;80Rq", vec![key(KeyCode::Char('q'))]),
        (b"\x1b[200~Sy\x03q\x1b[A\x1b[201~c", vec![key(KeyCode::Char('c'))]),
        (b"\x1b[12\x1b[A", vec![key(KeyCode::Up)]),
        (
            b"\x1b]11;rgb:ffff/ffff/ffff\x1b\\c\x1b]0;title\x07q",
            vec![key(KeyCode::Char('c')), key(KeyCode::Char('q'))],
        ),
        (b"\x1bP1$r0m\x1b\\q\x1b_ok\x1b\\", vec![key(KeyCode::Char('q'))]),
        (b"\x1b]11;rgb\x1b[A", vec![key(KeyCode::Up)]),
        // Longer than any sequence that means something.
        (
            b"\x1b[3333333333333333333333333333333333333333333333333333333333333333333333333~q",
            vec![key(KeyCode::Char('q'))],
        ),
    ];
    for (bytes, keys) in cases {
        assert_eq!(KeyParser::default().feed(bytes), keys, "{}", bytes.escape_ascii());
        // Keys do not depend on how the bytes are split.
        let mut parser = KeyParser::default();
        let one_by_one = bytes.iter().flat_map(|byte| parser.feed(&[*byte])).collect::<Vec<_>>();
        assert_eq!(one_by_one, keys, "{}", bytes.escape_ascii());
    }
}

#[test]
fn the_answer_to_the_question_for_the_background_is_read_and_is_no_key() {
    let cases = [
        ("\x1b]11;rgb:ffff/ffff/ffff\x1b\\", Some(Background::Light)),
        ("\x1b]11;rgb:fd/f6/e3\x07", Some(Background::Light)),
        ("\x1b]11;rgb:0000/2b2b/3636\x07", Some(Background::Dark)),
        ("\x1b]11;rgba:ffff/ffff/ffff/ffff\x07", Some(Background::Light)),
        ("\x1b]11;rgb:ffff/ffff\x07", None),
        ("\x1b]11;rgb:zz/1/1\x07", None),
        ("\x1b]10;rgb:ffff/ffff/ffff\x07", None),
        ("\x1b]11;white\x07", None),
    ];
    for (answer, background) in cases {
        let mut parser = KeyParser::default();
        let keys = answer.bytes().flat_map(|byte| parser.feed(&[byte])).collect::<Vec<_>>();
        assert_eq!(
            (keys, parser.take_background(), parser.take_background()),
            (vec![], background, None),
            "{answer:?}"
        );
    }
    // A truncated answer is not text either.
    let mut parser = KeyParser::default();
    assert_eq!((parser.feed(b"\x1b]11;rgb:ffff/S"), parser.flush()), (vec![], None));
}

#[test]
fn a_lone_escape_is_a_key_once_nothing_follows() {
    let mut parser = KeyParser::default();
    assert_eq!(parser.feed(b"\x1b"), []);
    assert!(parser.patience().is_some());
    assert_eq!(parser.flush(), Some(key(KeyCode::Esc)));
    assert_eq!(parser.patience(), None);
    assert_eq!(parser.feed(b"q"), [key(KeyCode::Char('q'))]);
}

#[test]
fn a_paste_without_an_end_does_not_silence_the_keyboard() {
    let mut parser = KeyParser::default();
    assert_eq!(parser.feed(b"\x1b[200~Sy"), []);
    assert_eq!(parser.flush(), None);
    assert_eq!(parser.feed(b"q"), [key(KeyCode::Char('q'))]);
}

proptest! {
    #[test]
    fn any_bytes_are_taken_and_q_is_heard_after_a_pause(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x1b), Just(b'['), Just(b'2')], 0..200)) {
        let mut parser = KeyParser::default();
        parser.feed(&bytes);
        parser.flush();
        prop_assert_eq!(parser.feed(b"q"), [key(KeyCode::Char('q'))]);
    }
}
