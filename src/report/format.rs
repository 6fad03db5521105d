//! Numbers as people read them; the same in every face.

/// A number of things: `950`, `12.3k`, `3.1M`, `1.5B`.
#[must_use]
pub fn count(number: u64) -> String {
    scaled(number as f64, 1000.0, &["", "k", "M", "B", "T"])
}

/// A rate, like `count`, whatever its value: `12.3k`, `NaN`.
#[must_use]
pub fn rate(number: f64) -> String {
    if number.is_finite() && number >= 0.0 { scaled(number.round(), 1000.0, &["", "k", "M", "B", "T"]) } else { number.to_string() }
}

/// Bytes: `950 B`, `3.1 MB`.
#[must_use]
pub fn bytes(number: u64) -> String {
    scaled(number as f64, 1000.0, &[" B", " kB", " MB", " GB", " TB", " PB"])
}

/// Floating-point operations: `3.1 GFLOP`.
#[must_use]
pub fn flops(number: f64) -> String {
    scaled(number, 1000.0, &[" FLOP", " kFLOP", " MFLOP", " GFLOP", " TFLOP", " PFLOP", " EFLOP", " ZFLOP"])
}

/// A length of time in seconds: `0.25s`, `12.3s`, `3m05s`, `2h10m`, `3d04h`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return seconds.to_string();
    }
    let whole = seconds.round() as u64;
    match whole {
        0 if seconds.abs() < 0.005 => "0s".into(),
        0 => format!("{seconds:.2}s"),
        1..60 => format!("{seconds:.1}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole / 3600 % 24),
    }
}

/// A loss in nats: four decimals, and enough for a small one.
#[must_use]
pub fn loss(nats: f64) -> String {
    if nats.is_finite() && nats.abs() < 0.01 && nats != 0.0 { format!("{nats:.2e}") } else { format!("{nats:.4}") }
}

/// A learning rate: `3.00e-4`.
#[must_use]
pub fn learning_rate(value: f64) -> String {
    format!("{value:.2e}")
}

/// A perplexity: two decimals while it is small.
#[must_use]
pub fn perplexity(value: f64) -> String {
    if value.abs() < 1000.0 { format!("{value:.2}") } else { format!("{value:.3e}") }
}

/// A word for a POSIX shell, quoted if it needs to be.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// At most one decimal, in the largest unit that leaves at least one before the point.
fn scaled(number: f64, base: f64, units: &[&str]) -> String {
    let mut value = number;
    let mut idx = 0;
    // 999.95 would be shown as 1000.0 of the smaller unit.
    while value >= base - 0.05 && idx + 1 < units.len() {
        value /= base;
        idx += 1;
    }
    let digits = usize::from(idx > 0 && value < 100.0);
    format!("{value:.digits$}{}", units[idx])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        let counts = [(0, "0"), (950, "950"), (999, "999"), (1000, "1.0k"), (12_345, "12.3k"), (999_999, "1.0M"), (3_100_000, "3.1M"), (256_000, "256k")];
        for (number, text) in counts {
            assert_eq!(count(number), text);
        }
        let durations = [
            (0.0, "0s"),
            (0.25, "0.25s"),
            (12.34, "12.3s"),
            (59.7, "1m00s"),
            (185.0, "3m05s"),
            (7800.0, "2h10m"),
            (273_600.0, "3d04h"),
            (f64::INFINITY, "inf"),
        ];
        for (seconds, text) in durations {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!((loss(5.325), loss(0.0004), loss(f64::NAN)), ("5.3250".into(), "4.00e-4".into(), "NaN".into()));
        assert_eq!((bytes(1_200_000), flops(3.072e9)), ("1.2 MB".into(), "3.1 GFLOP".into()));
        assert_eq!((rate(2048.0), rate(f64::NAN)), ("2.0k".into(), "NaN".into()));
    }

    #[test]
    fn words_for_the_shell_are_quoted_when_they_must_be() {
        assert_eq!(shell_word("/runs/books-2"), "/runs/books-2");
        assert_eq!(shell_word("my run's"), "'my run'\\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
