//! The books of what a node owes.
//!
//! A *debt* is one message owed to one session at QoS 1 or 2. Each is opened once and settled once:
//!
//! ```text
//!   recovered from disk ──┐                    ┌── delivered: acknowledged by the client
//!   accepted by this node ┼──▶  held  ────────▶┼── expired, dropped with a reason
//!   imported in a handover┘                    ├── handed over, discarded with its session
//!                                              └── redelivered, or had by another way already
//! ```
//!
//! So at any quiet moment, for each class of messages, `opened = settled + held`, where *held* is
//! counted independently, from the sessions themselves. A [balance](LedgerSnapshot::balance) other
//! than 0 is a bug: a message was lost without a word, or counted twice. [`watch`] looks for one.
//!
//! Between two nodes, what the old owner of a session settles as *handed over* the new one opened
//! as *imported*, and settled at once as *had already* if it had come by another way: over a mesh
//! whose nodes all live, `imported = handed over` as soon as nothing is on its way.

mod metrics;
pub mod watch;

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use verge_model::Class;

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
    /// It came in a handover and could not be read.
    Unreadable,
    /// Its row in the store is damaged, or missing.
    Damaged,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::QueueFull,
        Self::TooLarge,
        Self::SessionEnded,
        Self::Refused,
        Self::StreamEnded,
        Self::Unreadable,
        Self::Damaged,
    ];

    /// Its name in metrics and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TooLarge => "too_large",
            Self::SessionEnded => "session_ended",
            Self::Refused => "refused",
            Self::StreamEnded => "stream_ended",
            Self::Unreadable => "unreadable",
            Self::Damaged => "damaged",
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
    /// The session has, or had, the message by another way: it came twice in a handover.
    HadAlready,
}

/// Debts since this process began, shared by all threads of a node; by class, in the order of
/// [`Class::ALL`].
#[derive(Debug, Default)]
pub struct Ledger {
    classes: [Books; Class::ALL.len()],
}

/// The debts of one class.
#[derive(Debug, Default)]
struct Books {
    opened: [AtomicU64; Opened::ALL.len()],
    delivered: AtomicU64,
    expired: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
    handed_over: AtomicU64,
    discarded: AtomicU64,
    redelivered: AtomicU64,
    had_already: AtomicU64,
}

impl Ledger {
    /// Takes on `count` debts of a class.
    pub fn open(&self, opened: Opened, class: Class, count: u64) {
        self.classes[class as usize].opened[opened as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// Is rid of `count` debts of a class.
    pub fn settle(&self, settled: Settled, class: Class, count: u64) {
        let books = &self.classes[class as usize];
        let counter = match settled {
            Settled::Delivered => &books.delivered,
            Settled::Expired => &books.expired,
            Settled::Dropped(reason) => &books.dropped[reason as usize],
            Settled::HandedOver => &books.handed_over,
            Settled::Discarded => &books.discarded,
            Settled::Redelivered => &books.redelivered,
            Settled::HadAlready => &books.had_already,
        };
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// The books of all classes as they are now. Counters are read one after the other: while
    /// messages flow, the balance may be off by what happens meanwhile.
    #[must_use]
    pub fn snapshot(&self) -> LedgerSnapshot {
        let mut all = LedgerSnapshot::default();
        self.by_class().into_iter().for_each(|books| all += books);
        all
    }

    /// The same, class by class.
    #[must_use]
    pub fn by_class(&self) -> [LedgerSnapshot; Class::ALL.len()] {
        self.classes.each_ref().map(Books::snapshot)
    }
}

impl Books {
    fn snapshot(&self) -> LedgerSnapshot {
        // Settled before opened: what is settled while we read was opened before.
        let dropped = DropReason::ALL.map(|reason| (reason, read(&self.dropped[reason as usize])));
        let settled = [&self.delivered, &self.expired, &self.handed_over, &self.discarded];
        let [delivered, expired, handed_over, discarded] = settled.map(read);
        let [redelivered, had_already] = [&self.redelivered, &self.had_already].map(read);
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
            had_already,
        }
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Books at one moment. Fields count debts.
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
    /// [`Settled::HadAlready`].
    pub had_already: u64,
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
        let moved = self.handed_over + self.redelivered + self.had_already;
        self.delivered + self.expired + dropped + moved + self.discarded
    }

    /// What the books say beyond what the sessions hold: 0, or debts are missing (positive) or were
    /// settled twice or never opened (negative).
    #[must_use]
    pub fn balance(&self, held: u64) -> i64 {
        self.opened().wrapping_sub(self.settled()).wrapping_sub(held).cast_signed()
    }
}

impl AddAssign for LedgerSnapshot {
    fn add_assign(&mut self, other: Self) {
        self.recovered += other.recovered;
        self.accepted += other.accepted;
        self.imported += other.imported;
        self.delivered += other.delivered;
        self.expired += other.expired;
        for (reason, count) in other.dropped {
            *self.dropped.entry(reason).or_default() += count;
        }
        self.handed_over += other.handed_over;
        self.discarded += other.discarded;
        self.redelivered += other.redelivered;
        self.had_already += other.had_already;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASS: Class = Class::Control;

    #[test]
    fn what_is_opened_and_neither_settled_nor_held_shows() {
        let ledger = Ledger::default();
        for (count, opened) in (1..).zip(Opened::ALL) {
            ledger.open(opened, CLASS, count);
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
            Settled::HadAlready,
        ];
        for settled in outcomes {
            ledger.settle(settled, CLASS, 1);
        }
        assert_eq!(ledger.snapshot().balance(0), 0);
        ledger.settle(Settled::Delivered, CLASS, 2);
        assert_eq!(ledger.snapshot().balance(0), -2);
    }

    #[test]
    fn each_class_has_its_own_books_and_they_add_up() {
        let ledger = Ledger::default();
        for (count, class) in (1..).zip(Class::ALL) {
            ledger.open(Opened::Accepted, class, 2 * count);
            ledger.settle(Settled::Dropped(DropReason::Refused), class, count);
        }
        for (count, books) in (1..).zip(ledger.by_class()) {
            assert_eq!(
                (books.opened(), books.settled(), books.balance(count)),
                (2 * count, count, 0)
            );
        }
        let all = ledger.snapshot();
        assert_eq!((all.opened(), all.settled(), all.dropped[&DropReason::Refused]), (20, 10, 10));
    }

    #[test]
    fn each_drop_is_booked_under_its_reason() {
        let ledger = Ledger::default();
        for (count, reason) in (1..).zip(DropReason::ALL) {
            ledger.settle(Settled::Dropped(reason), CLASS, count);
        }
        let snapshot = ledger.snapshot();
        let counts: Vec<_> = snapshot.dropped.iter().map(|(why, n)| (why.as_str(), *n)).collect();
        let expected = [
            ("queue_full", 1),
            ("too_large", 2),
            ("session_ended", 3),
            ("refused", 4),
            ("stream_ended", 5),
            ("unreadable", 6),
            ("damaged", 7),
        ];
        assert_eq!(counts, expected);
        assert_eq!(snapshot.settled(), 28);
    }
}
