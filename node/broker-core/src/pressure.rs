//! Sessions that do not keep up, known to all shards of a node.
//!
//! ```text
//!                 half of its queue is full                  a quarter, or its connection is lost
//!  (not listed) ─────────────────────────────▶ awaited ─────────────────────────────▶ (not listed)
//!                                                 │  too long                              ▲
//!                                                 └──────────▶ given up ───────────────────┘
//!                                                                       a quarter, and a while later
//! ```
//!
//! While a session is awaited, who publishes to it above QoS 0 is not read from: what is acknowledged
//! then finds room, and nothing is dropped for want of it. One that is given up is waited for no
//! longer: its queue fills to its bound, and what is beyond is dropped and counted. Groups of shared
//! subscriptions go past both, as long as another member has room.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use crate::counters::Metric;
use crate::shard::api::SessionNo;

/// What is done about a session that does not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slow {
    /// Its publishers wait for it.
    Awaited,
    /// They do not.
    GivenUp,
}

/// Sessions that do not keep up. Each is connected, so there are no more than connections.
#[derive(Debug, Default)]
pub struct Pressure {
    /// How many there are: every PUBLISH above QoS 0 reads it, and nearly always nothing else.
    count: AtomicUsize,
    // A lock: written when a queue fills or drains, and read only while one is half full.
    slow: RwLock<FxHashMap<SessionNo, Slow>>,
    held: AtomicU64,
    awaited: AtomicU64,
    given_up: AtomicU64,
}

impl Pressure {
    /// Whether some session does not keep up.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// What is done about a session, if it does not keep up.
    #[must_use]
    pub fn get(&self, session: SessionNo) -> Option<Slow> {
        if !self.is_any() {
            return None;
        }
        self.slow.read().get(&session).copied()
    }

    /// The first of these sessions that is awaited, unless the publisher itself does not keep up:
    /// its acknowledgements come by the connection that would not be read.
    #[must_use]
    pub fn awaited(
        &self,
        publisher: SessionNo,
        mut sessions: impl Iterator<Item = SessionNo>,
    ) -> Option<SessionNo> {
        let slow = self.slow.read();
        if slow.contains_key(&publisher) {
            return None;
        }
        sessions.find(|session| slow.get(session) == Some(&Slow::Awaited))
    }

    /// Lists a session.
    pub(crate) fn set(&self, session: SessionNo, how: Slow) {
        let counter = if how == Slow::Awaited { &self.awaited } else { &self.given_up };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut slow = self.slow.write();
        slow.insert(session, how);
        self.count.store(slow.len(), Ordering::Relaxed);
    }

    /// Lists a session no longer.
    pub(crate) fn clear(&self, session: SessionNo) {
        let mut slow = self.slow.write();
        slow.remove(&session);
        self.count.store(slow.len(), Ordering::Relaxed);
    }

    /// A publisher is held.
    pub(crate) fn count_held(&self) {
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    /// What happened, for operators.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let one = |name, help, count: &AtomicU64| Metric {
            name,
            help,
            labels: Vec::new(),
            value: count.load(Ordering::Relaxed),
        };
        vec![
            one(
                "publishers_held_total",
                "Times a publisher was not read from until a subscriber's queue had room",
                &self.held,
            ),
            one(
                "slow_subscribers_awaited_total",
                "Times the queue of a connected subscriber became half full",
                &self.awaited,
            ),
            one(
                "slow_subscribers_given_up_total",
                "Times publishers waited too long for a subscriber's queue to have room",
                &self.given_up,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_keep_up_itself_waits_for_nobody() {
        let pressure = Pressure::default();
        let no = |numbers: &[u64]| numbers.iter().copied().map(SessionNo).collect::<Vec<_>>();
        let awaited = |publisher, of: &[u64]| {
            pressure.awaited(SessionNo(publisher), no(of).into_iter()).map(|session| session.0)
        };
        assert!(!pressure.is_any());
        pressure.set(SessionNo(1), Slow::Awaited);
        pressure.set(SessionNo(2), Slow::GivenUp);
        assert_eq!(awaited(9, &[3, 2, 1]), Some(1));
        assert_eq!(awaited(9, &[2, 3]), None);
        assert_eq!((awaited(1, &[1]), awaited(2, &[1])), (None, None));
        pressure.set(SessionNo(1), Slow::GivenUp);
        assert_eq!(awaited(9, &[1]), None);
        pressure.clear(SessionNo(1));
        assert_eq!((pressure.get(SessionNo(1)), pressure.is_any()), (None, true));
        let counted: Vec<_> = pressure.metrics().iter().map(|metric| metric.value).collect();
        assert_eq!(counted, [0, 1, 2]);
    }
}
