//! Colours and glyphs: what a cell may look like on this terminal.
//!
//! Lines use Okabe-Ito colours, heat a cividis-like ramp, both as indexed colours, which cost few bytes. Without colours every
//! colour is `Reset` and shape alone carries the meaning; bold and dim stay.

use ratatui::style::{Color, Modifier, Style};

/// What dots and lines are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Markers {
    /// Braille dots, blocks and box lines.
    Braille,
    /// Only ASCII.
    Ascii,
}

/// How the screen looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    /// What dots and lines are made of.
    pub markers: Markers,
    /// Whether colours are used at all.
    pub is_coloured: bool,
}

/// Meaning of a piece of the screen, for its style.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Plain,
    Strong,
    Dim,
    Accent,
    TokenLoss,
    Objective,
    Previous,
    Floor,
    Switch,
    Good,
    Warn,
    Bad,
    Key,
}

/// Cividis from dark to bright, as colours of the 256-colour cube; its darkest part would vanish on a dark background.
const HEAT: [u8; 7] = [24, 60, 66, 102, 144, 179, 221];

impl Theme {
    /// The theme for the environment: `NO_COLOR`, `TERM` and the locale.
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// Like [`Theme::from_env`], with the variables from `get`.
    pub fn from_vars(get: impl Fn(&str) -> Option<String>) -> Self {
        let full = |name: &str| get(name).filter(|value| !value.is_empty());
        let term = full("TERM").unwrap_or_default();
        // The first of these that is set decides, as in setlocale(3).
        let locale = full("LC_ALL").or_else(|| full("LC_CTYPE")).or_else(|| full("LANG")).unwrap_or_default().to_ascii_lowercase();
        let is_utf8 = locale.contains("utf-8") || locale.contains("utf8");
        let markers = if is_utf8 && !matches!(term.as_str(), "linux" | "dumb") { Markers::Braille } else { Markers::Ascii };
        Self { markers, is_coloured: full("NO_COLOR").is_none() && term != "dumb" }
    }

    /// From dots to ASCII, or back.
    pub(crate) fn toggle_markers(&mut self) {
        self.markers = if self.markers == Markers::Braille { Markers::Ascii } else { Markers::Braille };
    }

    pub(crate) fn style(self, role: Role) -> Style {
        let (color, modifier) = match role {
            Role::Plain => (Color::Reset, Modifier::empty()),
            Role::Strong => (Color::Reset, Modifier::BOLD),
            // A colour of its own: the "faint" attribute is unreadable on some terminals and missing on others.
            Role::Dim => (Color::Indexed(244), if self.is_coloured { Modifier::empty() } else { Modifier::DIM }),
            Role::Accent | Role::Key => (Color::Indexed(74), Modifier::BOLD),
            Role::TokenLoss => (Color::Indexed(74), Modifier::empty()),
            Role::Objective => (Color::Indexed(178), Modifier::empty()),
            Role::Previous => (Color::Indexed(242), Modifier::empty()),
            Role::Floor | Role::Good => (Color::Indexed(36), Modifier::empty()),
            Role::Switch => (Color::Indexed(175), Modifier::empty()),
            Role::Warn => (Color::Indexed(178), Modifier::BOLD),
            Role::Bad => (Color::Indexed(166), Modifier::BOLD),
        };
        Style::new().fg(self.color(color)).add_modifier(modifier)
    }

    /// The style of a value between 0 and 1.
    pub(crate) fn heat_style(self, value: f64) -> Style {
        let idx = (value.clamp(0.0, 1.0) * (HEAT.len() - 1) as f64).round() as usize;
        Style::new().fg(self.color(Color::Indexed(HEAT[idx])))
    }

    /// The glyph of a value between 0 and 1.
    pub(crate) fn heat_glyph(self, value: f64) -> char {
        let ramp: [char; 8] = match self.markers {
            Markers::Braille => ['\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}'],
            Markers::Ascii => ['.', ':', '-', '=', '+', '*', '#', '@'],
        };
        ramp[(value.clamp(0.0, 1.0) * 7.0).round() as usize]
    }

    /// `fancy` where the terminal can show it, else `plain`.
    pub(crate) fn glyph<'a>(self, fancy: &'a str, plain: &'a str) -> &'a str {
        match self.markers {
            Markers::Braille => fancy,
            Markers::Ascii => plain,
        }
    }

    fn color(self, color: Color) -> Color {
        if self.is_coloured { color } else { Color::Reset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_and_colours_follow_the_environment() {
        let theme = |vars: &[(&str, &str)]| Theme::from_vars(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()));
        let xterm = [("TERM", "xterm-256color"), ("LANG", "en_US.UTF-8")];
        assert_eq!(theme(&xterm), Theme { markers: Markers::Braille, is_coloured: true });
        assert_eq!(theme(&[xterm[0], xterm[1], ("NO_COLOR", "1")]), Theme { markers: Markers::Braille, is_coloured: false });
        assert_eq!(theme(&[xterm[0], xterm[1], ("LC_ALL", "C")]).markers, Markers::Ascii);
        assert_eq!(theme(&[("TERM", "linux"), xterm[1]]), Theme { markers: Markers::Ascii, is_coloured: true });
        assert_eq!(theme(&[("TERM", "dumb")]), Theme { markers: Markers::Ascii, is_coloured: false });
    }

    #[test]
    fn without_colours_no_style_has_one() {
        let theme = Theme { markers: Markers::Braille, is_coloured: false };
        for role in [Role::Dim, Role::Accent, Role::Bad, Role::Switch] {
            assert_eq!(theme.style(role).fg, Some(Color::Reset));
        }
        assert_eq!(theme.heat_style(1.0).fg, Some(Color::Reset));
    }
}
