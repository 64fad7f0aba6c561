//! The clocks, read here and nowhere else in this crate.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use verge_model::{Millis, Now, UnixMillis};

/// Reads both clocks, and turns the cores' deadlines into instants timers understand.
///
/// Copies share their start, so that deadlines of one thread mean the same on another.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose monotonic time begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: instant() }
    }

    /// Both clocks at this moment.
    #[must_use]
    pub fn now(self) -> Now {
        let mono = instant().saturating_duration_since(self.start).as_millis();
        Now { mono: Millis(u64::try_from(mono).unwrap_or(u64::MAX)), wall: wall() }
    }

    /// The instant of a deadline.
    ///
    /// A timer that fires a little before its millisecond is over would find nothing due and be
    /// set again, so deadlines lie one millisecond later.
    #[must_use]
    pub fn instant_of(self, deadline: Millis) -> Instant {
        let after = Duration::from_millis(deadline.0.saturating_add(1));
        self.start.checked_add(after).unwrap_or_else(|| self.start + FAR)
    }
}

/// Later than any process lives, and far from overflow.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The monotonic clock, for measuring how long something took.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this module is where drivers read clocks")]
pub fn instant() -> Instant {
    Instant::now()
}

/// The wall clock. A clock set before 1970 reads as 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this module is where drivers read clocks")]
pub fn wall() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_found_before_it_is_due() {
        let clock = Clock::start();
        let deadline = clock.now().mono + Duration::from_millis(5);
        assert!(clock.instant_of(deadline) > clock.start + Duration::from_millis(deadline.0));
    }

    #[test]
    fn a_deadline_beyond_all_time_is_far_and_not_a_panic() {
        let clock = Clock::start();
        assert!(clock.instant_of(Millis(u64::MAX)) > clock.start);
    }
}
