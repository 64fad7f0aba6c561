//! What waits to be sent, of one class and one lane: entries in memory, and the places of those that
//! only the store has.
//!
//! ```text
//!   near: entries            away: places
//!  ┌───┬───┬───┬───┐   ┌───┬───┬───┬───┬───┐
//!  │ 3 │ 4 │ 7 │ 9 │   │12 │13 │20 │21 │22 │ ◀── enqueue
//!  └───┴───┴───┴───┘   └───┴───┴───┴───┴───┘
//!    ▼ sent                ▼ read when they are next
//! ```

use std::collections::VecDeque;

use verge_model::Class;

use super::{Entry, OrderKey};

/// Most entries a session keeps in memory of a lane; those behind are read from the store when they
/// are next. What a subscriber may be behind for a moment, without a read.
pub(super) const NEAR_MAX: usize = 1_024;

/// Most bytes of messages a session keeps in memory of a lane.
pub(super) const NEAR_BYTES_MAX: usize = 1024 * 1024;

/// A part of a queue.
#[derive(Debug)]
pub(super) struct Lane {
    /// The class of its messages.
    pub(super) class: Class,
    /// [`OrderKey::lane`] of its entries.
    pub(super) lane: u8,
    /// Entries, by order.
    pub(super) near: VecDeque<Entry>,
    /// [`OrderKey::seq`] of entries that only the store has, by order.
    away: VecDeque<u64>,
    /// Bytes of the messages of `near`.
    near_bytes: usize,
    /// Bytes of the messages of `away`, as far as they are known.
    away_bytes: usize,
    /// How many of `away` are of a shared subscription, at most.
    away_shares: usize,
}

impl Lane {
    pub(super) const fn new(class: Class, lane: u8) -> Self {
        Self {
            class,
            lane,
            near: VecDeque::new(),
            away: VecDeque::new(),
            near_bytes: 0,
            away_bytes: 0,
            away_shares: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.near.len() + self.away.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.near.is_empty() && self.away.is_empty()
    }

    /// How many only the store has.
    pub(super) fn away_len(&self) -> usize {
        self.away.len()
    }

    /// Bytes of everything.
    pub(super) fn bytes(&self) -> usize {
        self.near_bytes + self.away_bytes
    }

    /// Whether some of what is away may be of a shared subscription.
    pub(super) fn has_shares_away(&self) -> bool {
        self.away_shares > 0
    }

    /// Whether there is no room in memory for another entry.
    pub(super) fn is_near_full(&self) -> bool {
        self.near.len() >= NEAR_MAX || self.near_bytes >= NEAR_BYTES_MAX
    }

    /// Whether the first of it must be read first.
    pub(super) fn is_first_away(&self) -> bool {
        match (self.near.front(), self.away.front()) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(near), Some(away)) => *away < near.order.seq,
        }
    }

    /// Takes an entry to its place. Nearly always that is the last.
    pub(super) fn push(&mut self, entry: Entry) {
        self.near_bytes += entry.message.queue_bytes();
        if self.near.back().is_none_or(|last| last.order < entry.order) {
            self.near.push_back(entry);
        } else {
            let at = self.near.partition_point(|other| other.order < entry.order);
            self.near.insert(at, entry);
        }
    }

    /// Notes an entry that only the store has.
    pub(super) fn push_away(&mut self, seq: u64, bytes: usize, share: bool) {
        self.away_bytes += bytes;
        self.away_shares += usize::from(share);
        if self.away.back().is_none_or(|last| *last < seq) {
            self.away.push_back(seq);
        } else {
            let at = self.away.partition_point(|other| *other < seq);
            self.away.insert(at, seq);
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<Entry> {
        let entry = self.near.pop_front()?;
        self.near_bytes -= entry.message.queue_bytes();
        Some(entry)
    }

    pub(super) fn remove(&mut self, at: usize) -> Option<Entry> {
        let entry = self.near.remove(at)?;
        self.near_bytes -= entry.message.queue_bytes();
        Some(entry)
    }

    /// Takes out the entries in memory that are `wanted`.
    pub(super) fn take(&mut self, mut wanted: impl FnMut(&Entry) -> bool) -> Vec<Entry> {
        if !self.near.iter().any(&mut wanted) {
            return Vec::new();
        }
        let mut taken = Vec::new();
        for entry in std::mem::take(&mut self.near) {
            match wanted(&entry) {
                true => taken.push(entry),
                false => self.near.push_back(entry),
            }
        }
        self.near_bytes -= taken.iter().map(|entry| entry.message.queue_bytes()).sum::<usize>();
        taken
    }

    /// Forgets the entries that a store has; others stay.
    pub(super) fn put_away(&mut self) {
        for entry in std::mem::take(&mut self.near) {
            let bytes = entry.message.queue_bytes();
            if entry.may_be_away() {
                self.near_bytes -= bytes;
                self.push_away(entry.order.seq, bytes, entry.share.is_some());
            } else {
                self.near.push_back(entry);
            }
        }
        self.near.shrink_to_fit();
    }

    /// The first places that are away, at most `max`.
    pub(super) fn first_away(&self, max: usize) -> Vec<u64> {
        self.away.iter().take(max).copied().collect()
    }

    /// An entry is back, or was lost: it is away no longer.
    pub(super) fn forget_away(&mut self, seq: u64, bytes: usize, share: bool) -> bool {
        let Ok(at) = self.away.binary_search(&seq) else { return false };
        self.away.remove(at);
        self.away_bytes = self.away_bytes.saturating_sub(bytes);
        self.away_shares -= usize::from(share && self.away_shares > 0);
        if self.away.is_empty() {
            (self.away_bytes, self.away_shares) = (0, 0);
            self.away = VecDeque::new();
        }
        true
    }

    /// Whether an entry has this place.
    pub(super) fn has(&self, order: OrderKey) -> bool {
        self.lane == order.lane
            && (self.near.binary_search_by_key(&order, |entry| entry.order).is_ok()
                || self.away.binary_search(&order.seq).is_ok())
    }

    /// The place of the last entry.
    pub(super) fn last_order(&self) -> Option<OrderKey> {
        let near = self.near.back().map(|entry| entry.order.seq);
        let seq = near.max(self.away.back().copied())?;
        Some(OrderKey { lane: self.lane, seq })
    }

    /// Removes everything; what is in memory comes in order.
    pub(super) fn clear(&mut self) -> VecDeque<Entry> {
        std::mem::replace(self, Self::new(self.class, self.lane)).near
    }

    pub(super) fn check_invariants(&self) {
        let near = self.near.iter().map(|entry| entry.message.queue_bytes()).sum::<usize>();
        assert_eq!(self.near_bytes, near);
        assert!(
            self.near.iter().all(|entry| {
                entry.order.lane == self.lane && entry.message.class == self.class
            })
        );
        assert!(self.near.iter().is_sorted_by_key(|entry| entry.order));
        assert!(self.away.iter().is_sorted());
    }
}
