//! The list of runs: a table that drops columns where space is short, the prompt below it, and the
//! keys.

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget, Wrap};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::record::{RunState, RunSummary};
use crate::text::{format, sanitize};
use crate::tui::home_screen::{HomeScreen, Prompt, is_alive};
use crate::tui::keys::{Binding, HOME_KEYS, HomeAction};
use crate::tui::panes::footer::draw_footer;
use crate::tui::panes::frame::wrapped;
use crate::tui::panes::overlays::{TextBox, help_lines};
use crate::tui::theme::{Role, Theme};

/// Below this, one line.
const ONE_LINE: (u16, u16) = (24, 6);
/// From this height on, a line shows the path of the selected run.
const WITH_PATH: u16 = 10;
/// Columns between two columns of the table.
const GAP: usize = 2;
/// Columns of the mark of the selected run.
const MARK: usize = 2;
/// Minimum width for the longest name; longer names are cut where space is short.
const NAME: (usize, usize) = (8, 14);
/// Maximum width of a name: the line below the list shows it in full.
const LONGEST_NAME: usize = 36;
/// Minimum and maximum width of the bar.
const BAR: (usize, usize) = (8, 24);

/// The screen of the list of runs.
pub(crate) struct HomePane<'a>(pub(crate) &'a HomeScreen);

/// A column apart from the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    State,
    Stage,
    Bar,
    Percent,
    Steps,
    Loss,
    Age,
}

/// The columns that fit, and the widths of the flexible ones.
struct Table {
    columns: Vec<Column>,
    name: usize,
    bar: usize,
}

impl Column {
    /// From left to right.
    const ALL: [Self; 7] =
        [Self::State, Self::Stage, Self::Bar, Self::Percent, Self::Steps, Self::Loss, Self::Age];
    /// Columns that are dropped first where space is short; the state stays.
    const DROPS: [Self; 6] =
        [Self::Steps, Self::Bar, Self::Stage, Self::Age, Self::Loss, Self::Percent];

    fn heading(self) -> &'static str {
        match self {
            Self::State => "STATE",
            Self::Stage => "STAGE",
            Self::Bar => "PROGRESS",
            Self::Percent => "",
            Self::Steps => "STEP",
            Self::Loss => "K=1 LOSS",
            Self::Age => "AGE",
        }
    }

    fn width(self, bar: usize) -> usize {
        match self {
            Self::State => 13,
            Self::Stage | Self::Loss => 8,
            Self::Bar => bar,
            Self::Percent => 4,
            Self::Steps => 15,
            Self::Age => 7,
        }
    }

    fn is_number(self) -> bool {
        matches!(self, Self::Percent | Self::Steps | Self::Loss | Self::Age)
    }
}

impl Table {
    /// As many columns as fit into `width`; the name takes what it needs of the rest, then the bar
    /// grows.
    fn fitted(runs: &[RunSummary], width: usize) -> Self {
        let longest =
            runs.iter().map(|run| sanitize::line(&run.name).width()).max().unwrap_or(0).max(NAME.0);
        let least = longest.min(NAME.1);
        let mut columns = Column::ALL.to_vec();
        let wide = |columns: &[Column]| {
            columns.iter().map(|column| GAP + column.width(BAR.0)).sum::<usize>()
        };
        for column in Column::DROPS {
            if MARK + least + wide(&columns) <= width {
                break;
            }
            columns.retain(|other| *other != column);
        }
        let free = width.saturating_sub(MARK + wide(&columns));
        let name = longest.min(free).min(LONGEST_NAME);
        let bar =
            if columns.contains(&Column::Bar) { (BAR.0 + free - name).min(BAR.1) } else { BAR.0 };
        Self { columns, name, bar }
    }
}

impl Widget for HomePane<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let (home, theme) = (self.0, self.0.theme);
        if area.width < ONE_LINE.0 || area.height < ONE_LINE.1 {
            buf.set_stringn(
                area.x,
                area.y,
                count_text(home),
                usize::from(area.width),
                theme.style(Role::Plain),
            );
            return;
        }
        let title = Line::from(vec![
            Span::styled("patchtui", theme.style(Role::Accent)),
            Span::styled(format!("   {}", count_text(home)), theme.style(Role::Dim)),
        ]);
        buf.set_line(area.x + 1, area.y, &title, area.width - 2);
        let width = usize::from(area.width - 2);
        let below = below_list(home, width, usize::from(area.height / 2));
        let has_path = area.height >= WITH_PATH;
        let footer = area.bottom() - 1;
        let below_y = footer - below.len() as u16;
        let rule_y = below_y - if has_path { 2 } else { 0 };
        let list = Rect { y: area.y + 2, height: rule_y.saturating_sub(area.y + 2), ..area };
        draw_list(home, list, buf);
        if has_path {
            draw_path(home, Rect { y: rule_y, height: 2, ..area }, buf);
        }
        for (row, line) in below.iter().enumerate() {
            buf.set_line(area.x + 1, below_y + row as u16, line, area.width - 2);
        }
        draw_keys(home, Rect { y: footer, height: 1, ..area }, buf);
        if let Some(scroll) = home.help {
            let lines = help_lines(theme, HOME_KEYS.iter());
            TextBox {
                title: "keys",
                closes: "Esc closes",
                lines,
                scroll,
                role: Role::Accent,
                theme,
            }
            .render(area, buf);
        }
    }
}

/// Number of runs.
fn count_text(home: &HomeScreen) -> String {
    let runs = home.runs();
    let running = runs.iter().filter(|run| is_alive(run)).count();
    match (&home.list, runs.len()) {
        (None, _) => "reading the list of runs".into(),
        (Some(_), 0) => "no runs yet".into(),
        (Some(_), 1) => format!("1 run, {running} running"),
        (Some(_), count) => format!("{count} runs, {running} running"),
    }
}

fn draw_list(home: &HomeScreen, area: Rect, buf: &mut Buffer) {
    let (runs, theme) = (home.runs(), home.theme);
    let Some(list) = home.list.as_ref().filter(|list| !list.runs.is_empty()) else {
        let text =
            if home.list.is_some() { "n starts the demo or a configuration file" } else { "" };
        Paragraph::new(text)
            .style(theme.style(Role::Dim))
            .centered()
            .wrap(Wrap { trim: true })
            .render(middle(area), buf);
        return;
    };
    if area.height < 2 {
        return;
    }
    let table = Table::fitted(runs, usize::from(area.width - 2));
    let dim = theme.style(Role::Dim);
    let headings = row(&table, ("", dim), ("NAME", dim), |column| (column.heading().into(), dim));
    buf.set_line(area.x + 1, area.y, &headings, area.width - 2);
    let height = usize::from(area.height - 1);
    // The selected run stays visible, and the list is scrolled as little as possible.
    let first = (home.selected + 1).saturating_sub(height);
    for (idx, run) in runs.iter().enumerate().skip(first).take(height) {
        let is_selected = idx == home.selected;
        let mark = if is_selected { theme.glyph("\u{203a} ", "> ") } else { "" };
        let name = theme.style(if is_selected { Role::Accent } else { Role::Plain });
        let line = row(&table, (mark, name), (&sanitize::line(&run.name), name), |column| {
            cell(theme, run, list.at, column, table.bar)
        });
        buf.set_line(area.x + 1, area.y + 1 + (idx - first) as u16, &line, area.width - 2);
    }
    let left = runs.len() - (first + height).min(runs.len());
    if left > 0 || first > 0 {
        let text = format!(" {}-{} of {} ", first + 1, runs.len() - left, runs.len());
        let wide = text.len() as u16;
        buf.set_string(
            (area.right() - 1).saturating_sub(wide),
            area.y.saturating_sub(1),
            text,
            dim,
        );
    }
}

/// The middle third of `area`.
fn middle(area: Rect) -> Rect {
    let height = area.height / 3;
    Rect {
        x: area.x + 2,
        y: area.y + height,
        width: area.width.saturating_sub(4),
        height: area.height - height,
    }
}

/// A line of the table.
fn row(
    table: &Table,
    mark: (&str, Style),
    name: (&str, Style),
    cell: impl Fn(Column) -> (String, Style),
) -> Line<'static> {
    let mut spans = vec![
        Span::styled(format!("{:<MARK$}", mark.0), mark.1),
        Span::styled(padded(name.0, table.name, false), name.1),
    ];
    for column in &table.columns {
        let (text, style) = cell(*column);
        let gap = if *column == Column::Percent && table.columns.contains(&Column::Bar) {
            1
        } else {
            GAP
        };
        spans.push(Span::raw(" ".repeat(gap)));
        spans.push(Span::styled(padded(&text, column.width(table.bar), column.is_number()), style));
    }
    Line::from(spans)
}

/// `text` in exactly `width` columns.
fn padded(text: &str, width: usize, to_the_right: bool) -> String {
    let text = if text.width() > width { cut(text, width) } else { text.to_owned() };
    let blank = " ".repeat(width - text.width());
    if to_the_right { blank + &text } else { text + &blank }
}

/// The start of `text` in at most `width` columns, with dots where it was cut.
fn cut(text: &str, width: usize) -> String {
    let mut free = width.saturating_sub(2);
    let fits = |char: &char| {
        let wide = char.width().unwrap_or(0);
        let is_room = wide <= free;
        free = free.saturating_sub(wide);
        is_room
    };
    let kept = text.chars().take_while(fits).collect::<String>();
    kept + &".".repeat(width.min(2))
}

fn cell(
    theme: Theme,
    run: &RunSummary,
    now: Timestamp,
    column: Column,
    bar: usize,
) -> (String, Style) {
    let (dim, plain) = (theme.style(Role::Dim), theme.style(Role::Plain));
    let nothing = || "-".to_owned();
    let share = run
        .steps
        .filter(|steps| *steps > 0)
        .map(|steps| (run.step as f64 / steps as f64).clamp(0.0, 1.0));
    match column {
        Column::State => state(theme, run.state),
        Column::Stage => (
            run.stage.map_or_else(nothing, |stage| {
                format!("{}/{} K={}", stage.number, stage.of, stage.patch_size)
            }),
            dim,
        ),
        Column::Bar => match share {
            Some(share) => {
                let filled = (share * bar as f64).round() as usize;
                (
                    theme.glyph("\u{2501}", "=").repeat(filled)
                        + &theme.glyph("\u{2500}", "-").repeat(bar - filled),
                    theme.style(bar_role(run)),
                )
            }
            None => (String::new(), dim),
        },
        // Only a completed run is at 100 %.
        Column::Percent => {
            (share.map_or_else(nothing, |share| format!("{:.0}%", (100.0 * share).floor())), plain)
        }
        Column::Steps => (
            run.steps.map_or_else(nothing, |steps| {
                format!("{}/{}", format::grouped(run.step), format::grouped(steps))
            }),
            dim,
        ),
        Column::Loss => {
            (run.token_loss.map_or_else(nothing, format::loss), theme.style(Role::TokenLoss))
        }
        Column::Age => (age(run, now).map_or_else(nothing, format::duration), dim),
    }
}

fn bar_role(run: &RunSummary) -> Role {
    if is_alive(run) { Role::Accent } else { Role::Previous }
}

/// Seconds since something last happened.
fn age(run: &RunSummary, now: Timestamp) -> Option<f64> {
    let at = run.changed_at.as_ref()?.parse::<Timestamp>().ok()?;
    Some(now.duration_since(at).as_secs_f64().max(0.0).round())
}

fn state(theme: Theme, state: RunState) -> (String, Style) {
    let (fancy, plain, word, role) = match state {
        RunState::Alive => ("\u{25cf}", "*", "running", Role::Good),
        RunState::Paused => ("\u{2016}", "=", "paused", Role::Warn),
        RunState::Completed => ("\u{2714}", "*", "completed", Role::Plain),
        RunState::Stopped => ("\u{25a0}", "#", "stopped", Role::Plain),
        RunState::Interrupted => ("\u{25a0}", "#", "interrupted", Role::Warn),
        RunState::Failed => ("\u{2716}", "x", "failed", Role::Bad),
        RunState::Crashed => ("\u{2716}", "x", "crashed", Role::Bad),
        RunState::Unknown => ("?", "?", "unknown", Role::Warn),
        RunState::New => ("\u{25cb}", "o", "not started", Role::Dim),
    };
    (format!("{} {word}", theme.glyph(fancy, plain)), theme.style(role))
}

/// A rule, and the path of the selected run.
fn draw_path(home: &HomeScreen, area: Rect, buf: &mut Buffer) {
    for x in area.left()..area.right() {
        buf.set_string(
            x,
            area.y,
            home.theme.glyph("\u{2500}", "-"),
            home.theme.style(Role::Previous),
        );
    }
    let Some(run) = home.selected_run() else { return };
    let path = sanitize::line(&run.directory.path().to_string_lossy());
    let width = usize::from(area.width - 2);
    // The end of a path is more informative than its start.
    let chars = path.chars().count();
    let path = if path.width() > width {
        "..".chars()
            .chain(path.chars().skip(chars.saturating_sub(width.saturating_sub(2))))
            .collect()
    } else {
        path
    };
    buf.set_stringn(area.x + 1, area.y + 1, path, width, home.theme.style(Role::Dim));
}

/// The prompt below the list, in at most `limit` lines.
fn below_list(home: &HomeScreen, width: usize, limit: usize) -> Vec<Line<'static>> {
    let theme = home.theme;
    let mut lines = match &home.prompt {
        Prompt::None => home.old_for().map_or_else(Vec::new, |age| {
            let text = format!(
                "the list is {} old: a folder is slow to respond",
                format::duration(age.as_secs() as f64)
            );
            vec![Line::styled(text, theme.style(Role::Warn))]
        }),
        Prompt::Start(typed) => typed_lines(theme, typed, width),
        Prompt::Busy(what) => {
            vec![Line::styled(format!("{} ...", sanitize::line(what)), theme.style(Role::Warn))]
        }
        Prompt::Refused(refusal) => {
            let wrapped = |text: &str, role| {
                sanitize::text(text)
                    .lines()
                    .flat_map(|line| wrapped(line, width))
                    .map(move |line| Line::styled(line, theme.style(role)))
                    .collect::<Vec<_>>()
            };
            let mut lines = wrapped(&refusal.message, Role::Bad);
            // Where space is short, the hint matters more than the end of the message.
            let hint =
                refusal.hint.as_ref().map_or_else(Vec::new, |hint| wrapped(hint, Role::Plain));
            lines.truncate(limit.saturating_sub(hint.len()).max(1));
            lines.extend(hint);
            lines
        }
    };
    lines.truncate(limit);
    lines
}

/// The input line, with a note on what can be typed.
fn typed_lines(theme: Theme, typed: &str, width: usize) -> Vec<Line<'static>> {
    const LABEL: &str = "start: ";
    let typed = sanitize::line(typed);
    let space = width.saturating_sub(LABEL.len() + 1);
    let shown = typed.chars().skip(typed.chars().count().saturating_sub(space)).collect::<String>();
    let cursor = Span::styled(theme.glyph("\u{2588}", "_").to_owned(), theme.style(Role::Accent));
    let mut lines =
        wrapped("A configuration file or a built-in name; Enter alone starts the demo.", width);
    lines.truncate(2);
    let mut lines = lines
        .into_iter()
        .map(|line| Line::styled(line, theme.style(Role::Dim)))
        .collect::<Vec<_>>();
    lines.push(Line::from(vec![
        Span::styled(LABEL, theme.style(Role::Strong)),
        Span::raw(shown),
        cursor,
    ]));
    lines
}

fn draw_keys(home: &HomeScreen, area: Rect, buf: &mut Buffer) {
    if matches!(home.prompt, Prompt::Start(_)) {
        let confirms = home.can_confirm().then_some(("Enter", "start"));
        draw_footer(home.theme, None, confirms.into_iter().chain([("Esc", "cancel")]), area, buf);
        return;
    }
    let selected = home.selected_run();
    let hint = |binding: &Binding<HomeAction>| {
        let (key, word) = binding.hint?;
        match (binding.action, selected) {
            (HomeAction::Open | HomeAction::Resume, None) => None,
            (HomeAction::Open, Some(run)) => {
                Some((key, if is_alive(run) { "attach" } else { "view" }))
            }
            (HomeAction::Resume, Some(run))
                if is_alive(run) || run.state == RunState::Completed =>
            {
                None
            }
            _ => Some((key, word)),
        }
    };
    draw_footer(home.theme, None, HOME_KEYS.iter().filter_map(hint), area, buf);
}
