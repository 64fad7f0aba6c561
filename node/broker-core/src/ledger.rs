//! The books of what a node owes.
//!
//! A *debt* is one message owed to one session at QoS 1 or 2. Each is opened once and settled once:
//!
//! ```text
//!   recovered from disk ──┐                    ┌── delivered: acknowledged by the client
//!   accepted by this node ┼──▶  held  ────────▶┼── expired, dropped with a reason
//!   imported in a handover┘                    └── handed over, discarded with its session
//! ```
//!
//! So at any quiet moment `opened = settled + held`, where *held* is counted independently, from
//! the sessions themselves. A [balance](LedgerSnapshot::balance) other than 0 is a bug: a message
//! was lost without a word, or counted twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

pub use crate::counters::{Counters, CountersSnapshot, Metric, Qos0Drop};

/// How a debt came to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Opened {
    /// It was held when the node ended, and is held again.
    Recovered,
    /// A message was accepted that the session wants.
    Accepted,
    /// It came with a session from another node.
    Imported,
}

impl Opened {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Recovered, Self::Accepted, Self::Imported];

    /// Its name in metrics and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::Accepted => "accepted",
            Self::Imported => "imported",
        }
    }
}

/// Why a message was not delivered to a session that wanted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// The session's queue was at its bound.
    QueueFull,
    /// It is larger than the client accepts [MQTT-3.1.2-25].
    TooLarge,
    /// The session had ended when the message reached it.
    SessionEnded,
    /// The client answered with an error.
    Refused,
    /// The client ended the stream on which it had subscribed.
    StreamEnded,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::QueueFull, Self::TooLarge, Self::SessionEnded, Self::Refused, Self::StreamEnded];

    /// Its name in metrics and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TooLarge => "too_large",
            Self::SessionEnded => "session_ended",
            Self::Refused => "refused",
            Self::StreamEnded => "stream_ended",
        }
    }
}

/// How a debt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Settled {
    /// The client has acknowledged the message.
    Delivered,
    /// The message expired first [MQTT-3.3.2-5].
    Expired,
    /// The message was dropped.
    Dropped(DropReason),
    /// Another node has it durably.
    HandedOver,
    /// The session ended, or was replaced by a clean start, with the message in its queue.
    Discarded,
    /// Another member of the session's shared subscription is owed the message instead.
    Redelivered,
}

/// Debts since this process began, shared by all threads of a node.
#[derive(Debug, Default)]
pub struct Ledger {
    opened: [AtomicU64; Opened::ALL.len()],
    delivered: AtomicU64,
    expired: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
    handed_over: AtomicU64,
    discarded: AtomicU64,
    redelivered: AtomicU64,
}

impl Ledger {
    /// Takes on `count` debts.
    pub fn open(&self, opened: Opened, count: u64) {
        self.opened[opened as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// Is rid of `count` debts.
    pub fn settle(&self, settled: Settled, count: u64) {
        let counter = match settled {
            Settled::Delivered => &self.delivered,
            Settled::Expired => &self.expired,
            Settled::Dropped(reason) => &self.dropped[reason as usize],
            Settled::HandedOver => &self.handed_over,
            Settled::Discarded => &self.discarded,
            Settled::Redelivered => &self.redelivered,
        };
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// The books as they are now. Counters are read one after the other: while messages flow, the
    /// balance may be off by what happens meanwhile.
    #[must_use]
    pub fn snapshot(&self) -> LedgerSnapshot {
        // Settled before opened: what is settled while we read was opened before.
        let dropped = DropReason::ALL.map(|reason| (reason, read(&self.dropped[reason as usize])));
        let settled = [&self.delivered, &self.expired, &self.handed_over, &self.discarded];
        let [delivered, expired, handed_over, discarded] = settled.map(read);
        let redelivered = read(&self.redelivered);
        let [recovered, accepted, imported] = self.opened.each_ref().map(read);
        LedgerSnapshot {
            recovered,
            accepted,
            imported,
            delivered,
            expired,
            dropped: dropped.into(),
            handed_over,
            discarded,
            redelivered,
        }
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// The books at one moment. Fields count debts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LedgerSnapshot {
    /// [`Opened::Recovered`].
    pub recovered: u64,
    /// [`Opened::Accepted`].
    pub accepted: u64,
    /// [`Opened::Imported`].
    pub imported: u64,
    /// [`Settled::Delivered`].
    pub delivered: u64,
    /// [`Settled::Expired`].
    pub expired: u64,
    /// [`Settled::Dropped`], every reason.
    pub dropped: BTreeMap<DropReason, u64>,
    /// [`Settled::HandedOver`].
    pub handed_over: u64,
    /// [`Settled::Discarded`].
    pub discarded: u64,
    /// [`Settled::Redelivered`].
    pub redelivered: u64,
}

impl LedgerSnapshot {
    /// All debts ever taken on.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.recovered + self.accepted + self.imported
    }

    /// All debts the node is rid of.
    #[must_use]
    pub fn settled(&self) -> u64 {
        let dropped: u64 = self.dropped.values().sum();
        let moved = self.handed_over + self.redelivered;
        self.delivered + self.expired + dropped + moved + self.discarded
    }

    /// What the books say beyond what the sessions hold: 0, or debts are missing (positive) or were
    /// settled twice or never opened (negative).
    #[must_use]
    pub fn balance(&self, held: u64) -> i64 {
        self.opened().wrapping_sub(self.settled()).wrapping_sub(held).cast_signed()
    }

    /// The books as metrics.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        const OPENED: (&str, &str) =
            ("ledger_opened_debts_total", "Messages owed to sessions at QoS 1 and 2, by origin");
        const SETTLED: (&str, &str) =
            ("ledger_settled_debts_total", "Messages no longer owed to sessions, by outcome");
        const DROPPED: (&str, &str) =
            ("ledger_dropped_debts_total", "Messages owed to sessions and dropped, by reason");
        let one = |(name, help), label, value: &'static str, count| Metric {
            name,
            help,
            labels: vec![(label, value)],
            value: count,
        };
        let mut metrics = vec![
            one(OPENED, "origin", Opened::Recovered.as_str(), self.recovered),
            one(OPENED, "origin", Opened::Accepted.as_str(), self.accepted),
            one(OPENED, "origin", Opened::Imported.as_str(), self.imported),
            one(SETTLED, "outcome", "delivered", self.delivered),
            one(SETTLED, "outcome", "expired", self.expired),
            one(SETTLED, "outcome", "dropped", self.dropped.values().sum()),
            one(SETTLED, "outcome", "handed_over", self.handed_over),
            one(SETTLED, "outcome", "discarded", self.discarded),
            one(SETTLED, "outcome", "redelivered", self.redelivered),
        ];
        let dropped = self.dropped.iter();
        metrics.extend(dropped.map(|(why, count)| one(DROPPED, "reason", why.as_str(), *count)));
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_opened_and_neither_settled_nor_held_shows() {
        let ledger = Ledger::default();
        for (count, opened) in (1..).zip(Opened::ALL) {
            ledger.open(opened, count);
        }
        assert_eq!(ledger.snapshot().opened(), 6);
        assert_eq!(ledger.snapshot().balance(6), 0);
        assert_eq!(ledger.snapshot().balance(5), 1);

        let outcomes = [
            Settled::Delivered,
            Settled::Expired,
            Settled::Dropped(DropReason::QueueFull),
            Settled::HandedOver,
            Settled::Discarded,
        ];
        for settled in outcomes {
            ledger.settle(settled, 1);
        }
        assert_eq!(ledger.snapshot().balance(1), 0);
        ledger.settle(Settled::Delivered, 2);
        assert_eq!(ledger.snapshot().balance(0), -1);
    }

    #[test]
    fn each_drop_is_booked_under_its_reason() {
        let ledger = Ledger::default();
        for (count, reason) in (1..).zip(DropReason::ALL) {
            ledger.settle(Settled::Dropped(reason), count);
        }
        let snapshot = ledger.snapshot();
        let counts: Vec<_> = snapshot.dropped.iter().map(|(why, n)| (why.as_str(), *n)).collect();
        let expected = [
            ("queue_full", 1),
            ("too_large", 2),
            ("session_ended", 3),
            ("refused", 4),
            ("stream_ended", 5),
        ];
        assert_eq!(counts, expected);
        assert_eq!(snapshot.settled(), 15);
    }

    #[test]
    fn the_books_are_metrics_with_one_value_a_label() {
        let ledger = Ledger::default();
        ledger.open(Opened::Imported, 7);
        ledger.settle(Settled::Dropped(DropReason::TooLarge), 3);
        let shown: Vec<_> = ledger
            .snapshot()
            .metrics()
            .into_iter()
            .filter(|metric| metric.value > 0)
            .map(|metric| format!("{}{:?} {}", metric.name, metric.labels, metric.value))
            .collect();
        let expected = [
            r#"ledger_opened_debts_total[("origin", "imported")] 7"#,
            r#"ledger_settled_debts_total[("outcome", "dropped")] 3"#,
            r#"ledger_dropped_debts_total[("reason", "too_large")] 3"#,
        ];
        assert_eq!(shown, expected);
    }
}
