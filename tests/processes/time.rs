//! The one place of these tests that reads the clock and waits.

#![expect(clippy::disallowed_methods, reason = "processes live in real time")]

use std::time::{Duration, Instant};

/// How often something that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Longest wait for what takes a moment; long, since a busy machine is no failure.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn pause(span: Duration) {
    std::thread::sleep(span);
}

pub(crate) fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// Looks until there is something.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(now() < deadline, "not within {SOON:?}: {what}");
        pause(LOOK_EVERY);
    }
}

/// Looks until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    eventually(what, || is_so().then_some(()));
}
