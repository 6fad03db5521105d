//! Numbers as people read them: short, and of steady width while they change.

/// Tokens and the like with three significant digits: `950`, `3.10M`, `12.4k`.
pub(crate) fn count(value: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")];
    if !value.is_finite() {
        return "-".into();
    }
    // Rounding first: 999 999 is 1.00M, not 1000k.
    match UNITS.iter().find(|(unit, _)| value >= unit * 0.9995) {
        Some((unit, letter)) => format!("{}{letter}", significant(value / unit)),
        None => format!("{value:.0}"),
    }
}

/// Like [`count`] without trailing zeros, for axes and totals: `3.1M`, `2M`.
pub(crate) fn short_count(value: f64) -> String {
    let text = count(value);
    let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    if !digits.contains('.') {
        return text;
    }
    let unit = &text[digits.len()..];
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

/// Three significant digits of a number between 0.1 and 1000.
pub(crate) fn significant(value: f64) -> String {
    match value.abs() {
        abs if abs >= 99.95 => format!("{value:.0}"),
        abs if abs >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A step count with thin groups: `12 345`.
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (idx, digit) in digits.chars().enumerate() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A loss in nats.
pub(crate) fn loss(value: f64) -> String {
    if value.is_finite() { format!("{value:.3}") } else { not_finite(value).into() }
}

/// A perplexity.
pub(crate) fn perplexity(value: f64) -> String {
    match value {
        value if !value.is_finite() => not_finite(value).into(),
        value if value >= 10_000.0 => format!("{value:.1e}"),
        value => significant(value),
    }
}

/// Small numbers: `3.00e-4`, `0`.
pub(crate) fn scientific(value: f64) -> String {
    match value {
        value if !value.is_finite() => not_finite(value).into(),
        0.0 => "0".into(),
        value => format!("{value:.2e}"),
    }
}

/// A learning rate in the status line: `3.0e-4`, `0`.
pub(crate) fn rate(value: f64) -> String {
    match value {
        value if !value.is_finite() => not_finite(value).into(),
        0.0 => "0".into(),
        value => format!("{value:.1e}"),
    }
}

/// A gradient norm.
pub(crate) fn norm(value: f64) -> String {
    if value.is_finite() && value.abs() < 1000.0 { significant(value) } else { scientific(value) }
}

/// A rate in percent or a mean |x| in five characters; small numbers keep what digits there are.
pub(crate) fn small(value: f64) -> String {
    match value {
        value if !value.is_finite() => not_finite(value).into(),
        0.0 => "0".into(),
        value if value < 0.000_95 => "<.001".into(),
        value if value < 0.995 => format!("{value:.3}"),
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value if value < 99_999.5 => format!("{value:.0}"),
        value => format!("{value:.0e}"),
    }
}

/// A length of time in its two largest units: `3m 12s`, `2h 05m`, `4d 11h`.
pub(crate) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "-".into();
    }
    let total = seconds.round() as u64;
    let (days, hours, minutes, rest) = (total / 86_400, total / 3600 % 24, total / 60 % 60, total % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m {rest:02}s"),
        (0, _, _) => format!("{hours}h {minutes:02}m"),
        _ => format!("{days}d {hours:02}h"),
    }
}

/// Bytes in decimal units.
pub(crate) fn bytes(value: u64) -> String {
    match value {
        0..1000 => format!("{value} B"),
        1000..1_000_000 => format!("{} kB", significant(value as f64 / 1e3)),
        1_000_000..1_000_000_000 => format!("{} MB", significant(value as f64 / 1e6)),
        _ => format!("{} GB", significant(value as f64 / 1e9)),
    }
}

/// The time of day of an RFC 3339 time, or nothing if it is none.
pub(crate) fn clock(at: &str) -> &str {
    at.get(11..19).filter(|clock| clock.bytes().all(|byte| byte.is_ascii_digit() || byte == b':')).unwrap_or("")
}

fn not_finite(value: f64) -> &'static str {
    match value {
        value if value.is_nan() => "NaN",
        value if value > 0.0 => "+Inf",
        _ => "-Inf",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_keep_three_digits_across_units() {
        for (value, text) in [(0.0, "0"), (999.0, "999"), (1000.0, "1.00k"), (12_345.0, "12.3k"), (999_999.0, "1.00M"), (3.1e6, "3.10M"), (1.5e9, "1.50B")] {
            assert_eq!(count(value), text, "{value}");
        }
        for (value, text) in [(3.1e6, "3.1M"), (2e6, "2M"), (500.0, "500"), (100_000.0, "100k")] {
            assert_eq!(short_count(value), text, "{value}");
        }
    }

    #[test]
    fn small_numbers_fit_five_columns_and_never_look_like_zero() {
        for (value, text) in [(0.0, "0"), (0.0001, "<.001"), (0.011, "0.011"), (0.42, "0.420"), (4.789, "4.79"), (99.99, "100"), (12.34, "12.3")] {
            assert_eq!(small(value), text, "{value}");
            assert!(small(value).len() <= 5);
        }
    }

    #[test]
    fn durations_show_two_units() {
        for (seconds, text) in [(0.4, "0s"), (59.6, "1m 00s"), (192.0, "3m 12s"), (7500.0, "2h 05m"), (385_200.0, "4d 11h"), (f64::NAN, "-")] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn a_broken_time_shows_nothing() {
        assert_eq!(clock("2026-01-02T03:04:05Z"), "03:04:05");
        assert_eq!(clock("2026-01-02T\u{e9}\u{e9}\u{e9}\u{e9}"), "");
        assert_eq!(clock(""), "");
    }
}
