//! Capabilities of the terminal of this process: whether it can show a screen, and its size.
//!
//! Reads the environment and asks the kernel, but does not query the terminal itself. Start at
//! [`screen_problem`].

use std::env;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use rustix::termios::tcgetwinsize;
use unicode_width::UnicodeWidthChar;

/// Size of a terminal that reports none: 80 columns by 24 lines.
const USUAL: (u16, u16) = (80, 24);
/// Values of `TERM` for terminals that cannot move the cursor.
const WITHOUT_CURSOR: [&str; 3] = ["", "dumb", "unknown"];

/// Why no screen can be shown here, as text; `None` if one can.
///
/// A screen needs a terminal for input and output, and one that can move its cursor.
#[must_use]
pub fn screen_problem() -> Option<String> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Some("standard input and output are not a terminal".into());
    }
    term_problem(env::var("TERM").ok().as_deref())
}

/// Columns and lines of the terminal behind `output`; falls back to `COLUMNS`, `LINES`, and 80 by
/// 24.
pub fn window_size(output: impl AsFd) -> io::Result<(u16, u16)> {
    let size = tcgetwinsize(output)?;
    Ok(filled((size.ws_col, size.ws_row), |name| env::var(name).ok()))
}

/// The start of `text`, which must be safe to print, in at most `columns` columns: a wrapped line
/// cannot be overwritten.
#[must_use]
pub fn cut(text: &str, columns: usize) -> &str {
    let mut free = columns;
    let end = text.char_indices().find(|(_, char)| {
        let wide = char.width().unwrap_or(0);
        let fits = wide <= free;
        free = free.saturating_sub(wide);
        !fits
    });
    end.map_or(text, |(idx, _)| &text[..idx])
}

fn term_problem(term: Option<&str>) -> Option<String> {
    let term = term.unwrap_or_default().trim();
    if !WITHOUT_CURSOR.contains(&term) {
        return None;
    }
    Some(if term.is_empty() {
        "TERM is not set".into()
    } else {
        format!("TERM={term} names a terminal that cannot move its cursor")
    })
}

/// Serial lines, some containers and `script` report 0 by 0.
fn filled((columns, lines): (u16, u16), get: impl Fn(&str) -> Option<String>) -> (u16, u16) {
    let filled = |reported: u16, name: &str, usual: u16| match reported {
        0 => get(name)
            .and_then(|text| text.trim().parse().ok())
            .filter(|size| *size > 0)
            .unwrap_or(usual),
        reported => reported,
    };
    (filled(columns, "COLUMNS", USUAL.0), filled(lines, "LINES", USUAL.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_that_cannot_move_its_cursor_shows_no_screen() {
        for term in [None, Some(""), Some("dumb"), Some("unknown")] {
            assert!(term_problem(term).is_some(), "{term:?}");
        }
        for term in ["xterm-256color", "screen", "vt100", "linux"] {
            assert_eq!(term_problem(Some(term)), None);
        }
    }

    #[test]
    fn a_line_is_cut_to_its_columns() {
        assert_eq!((cut("piqa: 12 %", 6), cut("piqa", 6), cut("piqa", 0)), ("piqa: ", "piqa", ""));
        assert_eq!(cut("\u{65e5}\u{672c}\u{8a9e}", 5), "\u{65e5}\u{672c}");
    }

    #[test]
    fn a_size_that_is_not_reported_comes_from_the_environment_or_is_the_usual_one() {
        let vars = |name: &str| Some(if name == "COLUMNS" { "100" } else { "many" }.to_owned());
        assert_eq!(filled((0, 0), |_| None), (80, 24));
        assert_eq!(filled((0, 0), vars), (100, 24));
        assert_eq!(filled((0, 50), vars), (100, 50));
        assert_eq!(filled((132, 43), vars), (132, 43));
        assert_eq!(filled((0, 0), |_| Some("0".into())), (80, 24));
    }
}
