//! When to try for a link again.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use verge_model::{Millis, NodeKey};

use crate::limits::{DIAL_BACKOFF_MAX, DIAL_BACKOFF_MIN};
use crate::output::LinkKind;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// Whoever answers at an address the operator gave.
    Join(SocketAddr),
    /// A link to a member.
    Member(NodeKey, LinkKind),
}

/// Targets, each with its next attempt. The waits double from [`DIAL_BACKOFF_MIN`] to
/// [`DIAL_BACKOFF_MAX`], and each is shortened by up to half at random, so that a mesh that lost
/// a node does not meet it again all at once.
#[derive(Debug)]
pub(crate) struct Dialer {
    targets: BTreeMap<Target, Attempt>,
    rng: StdRng,
}

#[derive(Debug)]
struct Attempt {
    due: Millis,
    backoff_millis: u64,
    attempts: u32,
}

impl Dialer {
    pub(crate) fn new(seed: u64) -> Self {
        Self { targets: BTreeMap::new(), rng: StdRng::seed_from_u64(seed) }
    }

    /// Wants a target from `due` on, unless it is wanted already.
    pub(crate) fn want(&mut self, target: Target, due: Millis) {
        self.targets.entry(target).or_insert(Attempt { due, backoff_millis: 0, attempts: 0 });
    }

    pub(crate) fn drop_target(&mut self, target: Target) {
        self.targets.remove(&target);
    }

    /// The next target whose time has come, and how often it was tried before; its next time is set.
    pub(crate) fn poll_due(&mut self, now: Millis) -> Option<(Target, u32)> {
        let due = self.targets.iter_mut().find(|(_, attempt)| attempt.due <= now);
        let (target, attempt) = due?;
        let (min, max) = (millis(DIAL_BACKOFF_MIN), millis(DIAL_BACKOFF_MAX));
        attempt.backoff_millis = (attempt.backoff_millis * 2).clamp(min, max);
        let wait = self.rng.random_range(attempt.backoff_millis / 2..=attempt.backoff_millis);
        attempt.due = Millis(now.0 + wait);
        let before = attempt.attempts;
        attempt.attempts = before.saturating_add(1);
        Some((*target, before))
    }

    /// The target needs nothing for now: look again in a while, with patience renewed.
    pub(crate) fn rest(&mut self, target: Target, now: Millis) {
        if let Some(attempt) = self.targets.get_mut(&target) {
            *attempt = Attempt { due: now + DIAL_BACKOFF_MAX, backoff_millis: 0, attempts: 0 };
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        self.targets.values().map(|attempt| attempt.due).min()
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("the constants are seconds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_half_a_minute_and_differ_by_chance() {
        let target = Target::Join("127.0.0.1:1".parse().unwrap());
        let mut dialer = Dialer::new(1);
        dialer.want(target, Millis(0));
        let (mut now, mut waits) = (Millis(0), Vec::new());
        for attempt in 0..14 {
            assert_eq!(dialer.poll_due(now), Some((target, attempt)));
            assert_eq!(dialer.poll_due(now), None);
            let due = dialer.poll_timeout().unwrap();
            waits.push(due.0 - now.0);
            now = due;
        }
        for (at, wait) in waits.iter().enumerate() {
            let full = (200_u64 << at).min(30_000);
            assert!((full / 2..=full).contains(wait), "attempt {at} waits {wait}");
        }
    }
}
