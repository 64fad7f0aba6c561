//! How much comes in a time: a token bucket.

use verge_model::Millis;

/// A bucket that fills at a rate and holds what comes in a second.
#[derive(Debug, Clone)]
pub struct Bucket {
    per_sec: u64,
    /// Most that may be taken at once.
    size: u64,
    /// What is left, in thousandths.
    left: u64,
    at: Millis,
}

impl Bucket {
    /// A full bucket; what is taken at once may be as much as `at_once` even if that is more than
    /// comes in a second.
    #[must_use]
    pub fn new(per_sec: u64, at_once: u64, now: Millis) -> Self {
        let size = per_sec.max(at_once);
        Self { per_sec, size, left: size.saturating_mul(1_000), at: now }
    }

    /// Takes `count`, if there is as much.
    pub fn take(&mut self, count: u64, now: Millis) -> bool {
        let elapsed = now.0.saturating_sub(self.at.0);
        self.at = self.at.max(now);
        let filled = self.left.saturating_add(elapsed.saturating_mul(self.per_sec));
        self.left = filled.min(self.size.saturating_mul(1_000));
        match self.left.checked_sub(count.saturating_mul(1_000)) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_what_came_and_no_more_than_it_holds() {
        let mut bucket = Bucket::new(2, 1, Millis(0));
        let transcript =
            [(0, true), (0, true), (0, false), (499, false), (500, true), (500, false)];
        for (at, given) in transcript {
            assert_eq!(bucket.take(1, Millis(at)), given, "at {at}");
        }
        assert!(bucket.take(2, Millis(60_000)));
        assert!(!bucket.take(1, Millis(60_000)), "a long silence saves nothing up");
        assert!(!bucket.take(1, Millis(0)), "time does not go back");
        assert!(Bucket::new(1, 9, Millis(0)).take(9, Millis(0)));
    }
}
