//! Distinguishes key presses from text that arrives in one piece: pasted, or typed into the wrong
//! window.

use std::time::Duration;

/// Keys that follow one another faster than this form a burst: too fast for single key presses.
const BURST: Duration = Duration::from_millis(50);

/// Times of key presses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Typing {
    /// The newest key.
    last: Option<Duration>,
    /// The first key of its burst.
    began: Duration,
}

impl Typing {
    /// Records a key at `now`. Returns whether it begins a burst, like any single key press.
    pub(crate) fn note(&mut self, now: Duration) -> bool {
        let is_first = self.is_quiet(now);
        if is_first {
            self.began = now;
        }
        self.last = Some(now);
        is_first
    }

    /// Whether the newest key belongs to a burst that began after `opened`.
    pub(crate) fn began_after(&self, opened: Duration) -> bool {
        self.began > opened
    }

    /// Whether a key at `now` would belong to a burst that began after `opened`.
    pub(crate) fn would_begin_after(&self, opened: Duration, now: Duration) -> bool {
        self.began_after(opened) || self.is_quiet(now)
    }

    /// When the burst of the newest key ends.
    pub(crate) fn quiet_at(&self) -> Option<Duration> {
        self.last.map(|last| last + BURST)
    }

    fn is_quiet(&self, now: Duration) -> bool {
        self.quiet_at().is_none_or(|quiet| quiet <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_key_after_a_pause_begins_a_burst() {
        let at = Duration::from_millis;
        let mut typing = Typing::default();
        assert!(typing.note(at(1000)));
        assert!(
            !typing.would_begin_after(at(1000), at(1049))
                && typing.would_begin_after(at(1000), at(1050))
        );
        assert!(
            !typing.note(at(1030)) && !typing.note(at(1060)),
            "a burst lasts for as long as keys follow one another"
        );
        assert!(!typing.began_after(at(1000)));
        assert!(typing.note(at(1110)) && typing.began_after(at(1000)));
    }
}
