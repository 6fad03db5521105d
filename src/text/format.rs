//! Formats numbers for people, the same on the screen, in lines, tables and plans: short, and with
//! a steady width.
//!
//! Start at [`count`].

use std::fmt::Display;

/// A number of things: `1 step`, `12 steps`.
#[must_use]
pub fn counted(number: impl Copy + Display + PartialEq + From<u8>, thing: &str) -> String {
    if number == 1.into() { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// A count with three significant digits: `950`, `12.4k`, `3.10M`.
#[must_use]
pub fn count(number: u64) -> String {
    scaled(number as f64, ["", "k", "M", "B", "T"])
}

/// Like [`count`] without trailing zeros, for axes and totals: `3.1M`, `2M`.
#[must_use]
pub fn short_count(number: f64) -> String {
    let text = rate(number);
    let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    if !digits.contains('.') {
        return text;
    }
    let unit = &text[digits.len()..];
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

/// A rate, like [`count`]: tokens per second, and other counts that need not be whole.
#[must_use]
pub fn rate(number: f64) -> String {
    if number < 0.0 {
        format!("-{}", rate(-number))
    } else {
        scaled(number, ["", "k", "M", "B", "T"])
    }
}

/// Bytes: `950 B`, `3.10 MB`.
#[must_use]
pub fn bytes(number: u64) -> String {
    scaled(number as f64, [" B", " kB", " MB", " GB", " TB", " PB"])
}

/// Floating-point operations: `3.10 GFLOP`.
#[must_use]
pub fn flops(number: f64) -> String {
    scaled(number, [" FLOP", " kFLOP", " MFLOP", " GFLOP", " TFLOP", " PFLOP", " EFLOP", " ZFLOP"])
}

/// Three significant digits of a number between 0.1 and 1000.
#[must_use]
pub fn significant(value: f64) -> String {
    match value.abs() {
        abs if abs >= 99.95 => format!("{value:.0}"),
        abs if abs >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A step count in groups of three digits: `12,345`.
#[must_use]
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (idx, digit) in digits.chars().enumerate() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The number of what is counted from 0 elsewhere, as people count. An index from a file or a
/// socket may be the largest there is.
#[must_use]
pub fn ordinal(idx: usize) -> usize {
    idx.saturating_add(1)
}

/// How much of `total` is done, in whole percent; all of it where there is nothing to do.
#[must_use]
pub fn percent(done: u64, total: u64) -> u64 {
    // A count from a file or a socket may be the largest there is.
    (u128::from(done) * 100)
        .checked_div(u128::from(total))
        .map_or(100, |percent| u64::try_from(percent).unwrap_or(u64::MAX))
}

/// A loss in nats: three decimals, or scientific notation where these would be zeros.
#[must_use]
pub fn loss(nats: f64) -> String {
    match nats {
        nats if !nats.is_finite() => not_finite(nats).into(),
        nats if nats != 0.0 && nats.abs() < 0.01 => format!("{nats:.2e}"),
        nats => format!("{nats:.3}"),
    }
}

/// A loss in nats with its standard error, if that is known, to the second digit of the error:
/// `4.099 ± 0.012`, `4.0987 ± 0.0034`.
#[must_use]
pub fn loss_with_error(nats: f64, standard_error: Option<f64>) -> String {
    match standard_error {
        Some(error) if error.is_finite() && nats.is_finite() && nats >= 0.01 => {
            let digits = if error > 0.0 {
                (1.0 - error.log10().floor()).clamp(2.0, 6.0) as usize
            } else {
                3
            };
            format!("{nats:.digits$} \u{b1} {error:.digits$}")
        }
        _ => loss(nats),
    }
}

/// A perplexity: three significant digits.
#[must_use]
pub fn perplexity(value: f64) -> String {
    match value {
        value if !value.is_finite() => not_finite(value).into(),
        value if value >= 10_000.0 => format!("{value:.2e}"),
        value => significant(value),
    }
}

/// A learning rate: `3.00e-4`, `0`.
#[must_use]
pub fn learning_rate(value: f64) -> String {
    match value {
        value if !value.is_finite() => not_finite(value).into(),
        0.0 => "0".into(),
        value => format!("{value:.2e}"),
    }
}

/// A gradient norm.
#[must_use]
pub fn norm(value: f64) -> String {
    match value {
        value if !value.is_finite() => not_finite(value).into(),
        value if value != 0.0 && !(0.01..1000.0).contains(&value) => format!("{value:.2e}"),
        value => significant(value),
    }
}

/// A rate in percent or a mean |x| in five characters; small numbers keep as many digits as fit.
#[must_use]
pub fn small(value: f64) -> String {
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

/// A duration in seconds, in its two largest units: `0.25s`, `12s`, `3m 12s`, `2h 05m`, `4d 11h`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "-".into();
    }
    let total = seconds.round() as u64;
    let (days, hours, minutes, rest) =
        (total / 86_400, total / 3600 % 24, total / 60 % 60, total % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds < 0.005 => "0s".into(),
        (0, 0, 0) if seconds < 0.995 => format!("{seconds:.2}s"),
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m {rest:02}s"),
        (0, _, _) => format!("{hours}h {minutes:02}m"),
        _ if days < 1000 => format!("{days}d {hours:02}h"),
        _ => format!("{} years", grouped((days as f64 / 365.25).round() as u64)),
    }
}

/// A word for a POSIX shell, quoted if necessary.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Three significant digits in the largest unit that leaves at least one before the point; whole
/// below the first unit.
fn scaled<const UNITS: usize>(number: f64, units: [&str; UNITS]) -> String {
    if !number.is_finite() {
        return not_finite(number).into();
    }
    let (mut value, mut idx) = (number, 0);
    // Rounding first: 999 999 is 1.00M, not 1000k.
    while value >= 999.5 && idx + 1 < UNITS {
        value /= 1000.0;
        idx += 1;
    }
    if idx == 0 {
        format!("{value:.0}{}", units[0])
    } else {
        format!("{}{}", significant(value), units[idx])
    }
}

fn not_finite(value: f64) -> &'static str {
    match value {
        value if value.is_nan() => "NaN",
        value if value > 0.0 => "+Inf",
        _ => "-Inf",
    }
}

/// Commands to type after a run is completed: a word and a command. `run` is quoted for a shell.
#[must_use]
pub fn next_commands(run: &str) -> [(&'static str, String); 3] {
    [
        ("generate", format!("patchtui generate {run} --prompt TEXT")),
        ("evaluate", format!("patchtui eval {run} --tasks paper --task-data DIR")),
        ("export", format!("patchtui export {run} --to DIR")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_keep_three_digits_across_units() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.00k"),
            (12_345, "12.3k"),
            (999_499, "999k"),
            (999_999, "1.00M"),
            (3_100_000, "3.10M"),
            (1_500_000_000, "1.50B"),
        ] {
            assert_eq!(count(value), text, "{value}");
        }
        for (value, text) in [(3.1e6, "3.1M"), (2e6, "2M"), (500.0, "500"), (100_000.0, "100k")] {
            assert_eq!(short_count(value), text, "{value}");
        }
        assert_eq!(
            (bytes(1_200_000), bytes(950), flops(3.072e9)),
            ("1.20 MB".into(), "950 B".into(), "3.07 GFLOP".into())
        );
        assert_eq!(
            (rate(2048.0), rate(f64::NAN), rate(-1.5e4)),
            ("2.05k".into(), "NaN".into(), "-15.0k".into())
        );
    }

    #[test]
    fn losses_rates_and_norms_never_hide_a_small_number() {
        assert_eq!(
            (loss(5.325), loss(0.0004), loss(0.0), loss(f64::NAN)),
            ("5.325".into(), "4.00e-4".into(), "0.000".into(), "NaN".into())
        );
        assert_eq!((learning_rate(0.0), learning_rate(6.25e-4)), ("0".into(), "6.25e-4".into()));
        assert_eq!(
            (norm(1.5), norm(0.000_12), norm(4e3), norm(f64::INFINITY)),
            ("1.50".into(), "1.20e-4".into(), "4.00e3".into(), "+Inf".into())
        );
        let pairs = [
            (4.0987, Some(0.0123)),
            (4.0987, Some(0.0034)),
            (4.0987, None),
            (4.0987, Some(0.5)),
            (f64::NAN, Some(0.1)),
            (1e-3, Some(1e-4)),
        ];
        let texts = pairs.map(|(nats, error)| loss_with_error(nats, error));
        assert_eq!(
            texts,
            [
                "4.099 \u{b1} 0.012",
                "4.0987 \u{b1} 0.0034",
                "4.099",
                "4.10 \u{b1} 0.50",
                "NaN",
                "1.00e-3"
            ]
        );
        assert_eq!((perplexity(12.34), perplexity(54_321.0)), ("12.3".into(), "5.43e4".into()));
    }

    #[test]
    fn small_numbers_fit_five_columns_and_never_look_like_zero() {
        for (value, text) in [
            (0.0, "0"),
            (0.0001, "<.001"),
            (0.011, "0.011"),
            (0.42, "0.420"),
            (4.789, "4.79"),
            (99.99, "100"),
            (12.34, "12.3"),
        ] {
            assert_eq!(small(value), text, "{value}");
            assert!(small(value).len() <= 5);
        }
    }

    #[test]
    fn durations_show_two_units() {
        let cases = [
            (0.0, "0s"),
            (0.4, "0.40s"),
            (0.999, "1s"),
            (12.3, "12s"),
            (59.6, "1m 00s"),
            (192.0, "3m 12s"),
            (7500.0, "2h 05m"),
            (385_200.0, "4d 11h"),
            (4.638e9, "147 years"),
            (f64::NAN, "-"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn words_for_the_shell_are_quoted_when_they_must_be() {
        assert_eq!(shell_word("/runs/books-2"), "/runs/books-2");
        assert_eq!(shell_word("my run's"), "'my run'\\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
