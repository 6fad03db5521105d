//! The flag that long loops check.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

/// Whether and how a run was asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum StopLevel {
    /// Not at all.
    None = 0,
    /// With a checkpoint.
    AfterCheckpoint = 1,
    /// Without one.
    Now = 2,
}

/// The flag that long loops check. Commands raise it, and it raises itself at the deadline.
#[derive(Debug, Clone)]
pub struct StopFlag(Arc<StopState>);

#[derive(Debug)]
struct StopState {
    level: AtomicU8,
    /// Start of the deadline.
    created: Instant,
    /// Milliseconds after `created`; `u64::MAX` for never.
    deadline: AtomicU64,
}

impl Default for StopFlag {
    fn default() -> Self {
        Self(Arc::new(StopState {
            level: AtomicU8::new(StopLevel::None as u8),
            created: Instant::now(),
            deadline: AtomicU64::new(u64::MAX),
        }))
    }
}

impl StopFlag {
    /// Whether and how the run was asked to end.
    #[must_use]
    pub fn level(&self) -> StopLevel {
        let level = self.0.level.load(Ordering::Relaxed);
        if level == StopLevel::None as u8 && self.is_past_deadline() {
            // Raised permanently: the deadline may still be moved, but the flag never falls.
            self.raise(StopLevel::AfterCheckpoint);
            return self.level();
        }
        match level {
            0 => StopLevel::None,
            1 => StopLevel::AfterCheckpoint,
            _ => StopLevel::Now,
        }
    }

    /// Whether the run was asked to end.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.level() > StopLevel::None
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn is_past_deadline(&self) -> bool {
        self.0.created.elapsed().as_millis() >= u128::from(self.0.deadline.load(Ordering::Relaxed))
    }

    /// Raises the flag; it never falls.
    pub fn raise(&self, level: StopLevel) {
        self.0.level.fetch_max(level as u8, Ordering::Relaxed);
    }

    /// Raises the flag at `deadline`: the run then ends with a checkpoint.
    pub fn set_deadline(&self, deadline: Instant) {
        let after = deadline.saturating_duration_since(self.0.created);
        self.0
            .deadline
            .store(u64::try_from(after.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_raises_the_flag_for_good() {
        let flag = StopFlag::default();
        flag.set_deadline(Instant::now() + std::time::Duration::from_hours(1));
        assert_eq!(flag.level(), StopLevel::None);
        flag.set_deadline(Instant::now());
        assert_eq!(flag.level(), StopLevel::AfterCheckpoint);
        flag.set_deadline(Instant::now() + std::time::Duration::from_hours(1));
        assert_eq!(flag.level(), StopLevel::AfterCheckpoint);
        flag.raise(StopLevel::Now);
        assert_eq!(flag.level(), StopLevel::Now);
    }
}
