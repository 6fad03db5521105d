//! Colors and glyphs: what a cell may look like on this terminal.
//!
//! Lines use Okabe-Ito colors, heat a cividis-like ramp, both as indexed colors, which take few
//! bytes, and both in a version for a dark and one for a light background with a contrast of at
//! least 3:1. Without colors every color is `Reset` and shape alone carries the meaning; bold and
//! dim are kept.

use ratatui::style::{Color, Modifier, Style};

/// Marker set of dots and lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Markers {
    /// Braille dots, blocks and box lines.
    Braille,
    /// Only ASCII.
    Ascii,
}

/// Terminal background.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Background {
    /// Dark; also the default.
    #[default]
    Dark,
    /// Light.
    Light,
}

/// Appearance of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    /// Marker set of dots and lines.
    pub markers: Markers,
    /// Whether colors are used.
    pub is_coloured: bool,
    /// Terminal background.
    pub background: Background,
}

/// Role of a piece of the screen, for its style.
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

/// Colors of the 256-color cube for one background.
struct Palette {
    dim: u8,
    accent: u8,
    objective: u8,
    previous: u8,
    floor: u8,
    switch: u8,
    warn: u8,
    bad: u8,
    /// Cividis-like, from the lowest value to the highest, which stands out most.
    heat: [u8; 7],
}

const ON_DARK: Palette = Palette {
    dim: 244,
    accent: 74,
    objective: 178,
    previous: 242,
    floor: 36,
    switch: 175,
    warn: 178,
    bad: 166,
    heat: [67, 102, 108, 144, 179, 185, 221],
};
const ON_LIGHT: Palette = Palette {
    dim: 242,
    accent: 25,
    objective: 130,
    previous: 244,
    floor: 29,
    switch: 132,
    warn: 130,
    bad: 124,
    heat: [136, 101, 95, 60, 24, 18, 17],
};

impl Background {
    /// The background according to `COLORFGBG`, which some terminals set: `15;0` is white on black.
    fn from_colorfgbg(value: &str) -> Option<Self> {
        let color: u8 = value.rsplit(';').next()?.trim().parse().ok()?;
        Some(if matches!(color, 7 | 9..=15) { Self::Light } else { Self::Dark })
    }

    /// The background of this color, with channels between 0 and 1.
    #[must_use]
    pub fn of_rgb([red, green, blue]: [f64; 3]) -> Self {
        // Luma of ITU-R BT.601: whether black or white is perceptually closer.
        if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 { Self::Light } else { Self::Dark }
    }
}

impl Theme {
    /// Without colors, for a dark background.
    #[must_use]
    pub fn plain(markers: Markers) -> Self {
        Self { markers, is_coloured: false, background: Background::Dark }
    }

    /// The theme for the environment: `NO_COLOR`, `TERM`, `COLORFGBG` and the locale.
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// Like [`Theme::from_env`], with the variables from `get`.
    pub fn from_vars(get: impl Fn(&str) -> Option<String>) -> Self {
        let full = |name: &str| get(name).filter(|value| !value.is_empty());
        let term = full("TERM").unwrap_or_default();
        // The first of these that is set decides, as in setlocale(3).
        let locale = full("LC_ALL")
            .or_else(|| full("LC_CTYPE"))
            .or_else(|| full("LANG"))
            .unwrap_or_default()
            .to_ascii_lowercase();
        let is_utf8 = locale.contains("utf-8") || locale.contains("utf8");
        let markers = if is_utf8 && !matches!(term.as_str(), "linux" | "dumb") {
            Markers::Braille
        } else {
            Markers::Ascii
        };
        let background = full("COLORFGBG")
            .and_then(|value| Background::from_colorfgbg(&value))
            .unwrap_or_default();
        Self { markers, is_coloured: full("NO_COLOR").is_none() && term != "dumb", background }
    }

    /// Toggles between dots and ASCII.
    pub(crate) fn toggle_markers(&mut self) {
        self.markers =
            if self.markers == Markers::Braille { Markers::Ascii } else { Markers::Braille };
    }

    /// Toggles between colors for a dark and a light background.
    pub(crate) fn toggle_background(&mut self) {
        self.background =
            if self.background == Background::Dark { Background::Light } else { Background::Dark };
    }

    fn palette(self) -> &'static Palette {
        match self.background {
            Background::Dark => &ON_DARK,
            Background::Light => &ON_LIGHT,
        }
    }

    pub(crate) fn style(self, role: Role) -> Style {
        let palette = self.palette();
        let (color, modifier) = match role {
            Role::Plain => (None, Modifier::empty()),
            Role::Strong => (None, Modifier::BOLD),
            // A dedicated color: the "faint" attribute is unreadable on some terminals and missing
            // on others.
            Role::Dim => (
                Some(palette.dim),
                if self.is_coloured { Modifier::empty() } else { Modifier::DIM },
            ),
            Role::Accent | Role::Key => (Some(palette.accent), Modifier::BOLD),
            Role::TokenLoss => (Some(palette.accent), Modifier::empty()),
            Role::Objective => (Some(palette.objective), Modifier::empty()),
            Role::Previous => (Some(palette.previous), Modifier::empty()),
            Role::Floor | Role::Good => (Some(palette.floor), Modifier::empty()),
            Role::Switch => (Some(palette.switch), Modifier::empty()),
            Role::Warn => (Some(palette.warn), Modifier::BOLD),
            Role::Bad => (Some(palette.bad), Modifier::BOLD),
        };
        Style::new().fg(self.color(color)).add_modifier(modifier)
    }

    /// The style of a value between 0 and 1.
    pub(crate) fn heat_style(self, value: f64) -> Style {
        let heat = &self.palette().heat;
        let idx = (value.clamp(0.0, 1.0) * (heat.len() - 1) as f64).round() as usize;
        Style::new().fg(self.color(Some(heat[idx])))
    }

    /// The glyph of a value between 0 and 1.
    pub(crate) fn heat_glyph(self, value: f64) -> char {
        let ramp: [char; 8] = match self.markers {
            Markers::Braille => [
                '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}',
                '\u{2588}',
            ],
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

    fn color(self, indexed: Option<u8>) -> Color {
        indexed.filter(|_| self.is_coloured).map_or(Color::Reset, Color::Indexed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [Role; 13] = [
        Role::Plain,
        Role::Strong,
        Role::Dim,
        Role::Accent,
        Role::TokenLoss,
        Role::Objective,
        Role::Previous,
        Role::Floor,
        Role::Switch,
        Role::Good,
        Role::Warn,
        Role::Bad,
        Role::Key,
    ];

    fn theme(vars: &[(&str, &str)]) -> Theme {
        Theme::from_vars(|name| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn markers_and_colours_follow_the_environment() {
        let xterm = [("TERM", "xterm-256color"), ("LANG", "en_US.UTF-8")];
        let coloured = Theme { is_coloured: true, ..Theme::plain(Markers::Braille) };
        assert_eq!(theme(&xterm), coloured);
        assert_eq!(theme(&[xterm[0], xterm[1], ("NO_COLOR", "1")]), Theme::plain(Markers::Braille));
        assert_eq!(theme(&[xterm[0], xterm[1], ("LC_ALL", "C")]).markers, Markers::Ascii);
        assert_eq!(
            theme(&[("TERM", "linux"), xterm[1]]),
            Theme { markers: Markers::Ascii, ..coloured }
        );
        assert_eq!(theme(&[("TERM", "dumb")]), Theme::plain(Markers::Ascii));
    }

    #[test]
    fn a_light_background_is_known_from_the_environment_and_from_a_colour() {
        for (value, background) in [
            ("0;15", Background::Light),
            ("15;0", Background::Dark),
            ("0;default;7", Background::Light),
            ("12;8", Background::Dark),
            ("x", Background::Dark),
        ] {
            assert_eq!(theme(&[("COLORFGBG", value)]).background, background, "{value}");
        }
        assert_eq!(Background::of_rgb([0.99, 0.96, 0.89]), Background::Light);
        assert_eq!(Background::of_rgb([0.0, 0.17, 0.21]), Background::Dark);
    }

    /// Red, green and blue of a color of the 256-color cube or its gray ramp.
    fn rgb(index: u8) -> [f64; 3] {
        const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
        match index {
            0..16 => panic!("the first sixteen colours differ between terminals"),
            16..232 => [(index - 16) / 36, (index - 16) / 6 % 6, (index - 16) % 6]
                .map(|level| f64::from(LEVELS[usize::from(level)]) / 255.0),
            232.. => [f64::from(8 + 10 * (u16::from(index) - 232)) / 255.0; 3],
        }
    }

    /// Contrast of two colors by WCAG 2.2: between 1 and 21.
    fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
        let linear = |part: f64| {
            if part <= 0.040_45 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        };
        let luminance = |[red, green, blue]: [f64; 3]| {
            0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
        };
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn every_colour_can_be_read_on_its_background() {
        const BACKGROUNDS: [(Background, [[f64; 3]; 2]); 2] = [
            (Background::Dark, [[0.0, 0.0, 0.0], [0.118, 0.118, 0.118]]),
            (Background::Light, [[1.0, 1.0, 1.0], [0.992, 0.965, 0.890]]),
        ];
        for (background, colors) in BACKGROUNDS {
            let theme = Theme { is_coloured: true, background, ..Theme::plain(Markers::Braille) };
            let styles = ROLES
                .map(|role| theme.style(role))
                .into_iter()
                .chain((0..=6).map(|idx| theme.heat_style(f64::from(idx) / 6.0)));
            for style in styles {
                assert_eq!(style.bg, None);
                let Some(Color::Indexed(index)) = style.fg else { continue };
                for color in colors {
                    let contrast = contrast(rgb(index), color);
                    assert!(contrast >= 3.0, "colour {index} on {color:?}: {contrast:.2}");
                }
            }
        }
    }

    #[test]
    fn without_colours_no_style_has_one() {
        let theme = Theme::plain(Markers::Braille);
        for role in ROLES {
            assert_eq!(theme.style(role).fg, Some(Color::Reset));
        }
        assert_eq!(theme.heat_style(1.0).fg, Some(Color::Reset));
    }
}
