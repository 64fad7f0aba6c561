//! Lanes, and what only the store has of them.

use verge_model::Class;

use super::lane::Lane;
use super::{Entry, Hold, OrderKey, Outbound};

/// What is to be read from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// [`OrderKey::lane`] of the entries.
    pub lane: u8,
    /// Their class.
    pub class: Class,
    /// [`OrderKey::seq`] of each, ascending.
    pub seqs: Vec<u64>,
}

impl Outbound {
    /// What must be read before there is a [next step](Self::next_step): the first entries of a
    /// lane, at most `max`. Nothing, if what is next is in memory.
    #[must_use]
    pub fn wants(&self, max: usize) -> Option<Wanted> {
        if self.receive_maximum == 0 || self.outstanding >= self.receive_maximum {
            return None;
        }
        let lane = &self.lanes[self.next_lane()?];
        lane.is_first_away().then(|| wanted(lane, max))
    }

    /// The first entries that only the store has, of any lane, at most `max`.
    #[must_use]
    pub fn any_away(&self, max: usize) -> Option<Wanted> {
        self.lanes.iter().find(|lane| lane.away_len() > 0).map(|lane| wanted(lane, max))
    }

    /// Takes back an entry that was read. One that is not away is left alone.
    pub fn take_back(&mut self, entry: Entry) {
        let (bytes, share) = (entry.message.queue_bytes(), entry.share.is_some());
        let lane = self.lane_of(&entry);
        let before = lane.bytes();
        if lane.forget_away(entry.order.seq, bytes, share) {
            lane.push(entry);
            let after = lane.bytes();
            self.bytes = self.bytes + after - before;
        }
    }

    /// Forgets an entry whose row is lost.
    pub fn lose(&mut self, class: Class, order: OrderKey) {
        let Some(lane) =
            self.lanes.iter_mut().find(|lane| lane.class == class && lane.lane == order.lane)
        else {
            return;
        };
        let before = lane.bytes();
        if lane.forget_away(order.seq, 0, false) {
            let after = lane.bytes();
            self.bytes = self.bytes + after - before;
            self.queued -= 1;
        }
    }

    /// Takes an entry that only the store has: a row of an earlier life.
    pub fn push_away(&mut self, class: Class, order: OrderKey, bytes: usize, share: bool) {
        self.queued += 1;
        self.bytes += bytes;
        self.lane(class, order.lane).push_away(order.seq, bytes, share);
    }

    /// Forgets the messages of entries that the store has: nobody is there to be sent them.
    pub fn put_away(&mut self) {
        self.recalled = false;
        self.lanes.iter_mut().for_each(Lane::put_away);
    }

    /// How many entries of each class only the store has.
    pub fn away(&self) -> impl Iterator<Item = (Class, usize)> {
        self.lanes.iter().map(|lane| (lane.class, lane.away_len())).filter(|(_, count)| *count > 0)
    }

    /// Whether all entries are in memory.
    #[must_use]
    pub fn is_recalled(&self) -> bool {
        self.lanes.iter().all(|lane| lane.away_len() == 0)
    }

    /// The place of the first entry that only the store has.
    #[must_use]
    pub fn first_away(&self) -> Option<OrderKey> {
        let first = self.lanes.iter().filter_map(|lane| {
            let seq = lane.first_away(1).first().copied()?;
            Some(OrderKey { lane: lane.lane, seq })
        });
        first.min()
    }

    /// From now on what comes stays in memory: all of it is looked at.
    pub fn keep_near(&mut self) {
        self.recalled = self.is_recalled();
    }

    /// Whether some of what only the store has may be of a shared subscription.
    #[must_use]
    pub fn has_shares_away(&self) -> bool {
        self.lanes.iter().any(Lane::has_shares_away)
    }

    /// The lane to send from next.
    #[inline]
    pub(super) fn next_lane(&self) -> Option<usize> {
        if self.queued == 0 || self.held == Hold::All {
            return None;
        }
        let own_is_held = self.held == Hold::Own;
        self.lanes.iter().position(|lane| !(lane.is_empty() || own_is_held && lane.lane != 0))
    }

    pub(super) fn lane_of(&mut self, entry: &Entry) -> &mut Lane {
        self.lane(entry.message.class, entry.order.lane)
    }

    fn lane(&mut self, class: Class, lane: u8) -> &mut Lane {
        let at = match self.lanes.binary_search_by_key(&(class, lane), |of| (of.class, of.lane)) {
            Ok(at) => at,
            Err(at) => {
                self.lanes.insert(at, Lane::new(class, lane));
                at
            }
        };
        &mut self.lanes[at]
    }

    /// Takes the entry at the front of the next lane for sending: its bytes still count.
    pub(super) fn pop_front(&mut self) -> Option<Entry> {
        let at = self.next_lane()?;
        let entry = self.lanes[at].pop_front()?;
        self.queued -= 1;
        Some(entry)
    }

    /// What is in memory and waits.
    pub(super) fn near(&self) -> impl Iterator<Item = &Entry> {
        self.lanes.iter().flat_map(|lane| &lane.near)
    }

    /// Takes out what waits in memory and is `wanted`, in order.
    pub(super) fn take_where(&mut self, mut wanted: impl FnMut(&Entry) -> bool) -> Vec<Entry> {
        let mut taken = Vec::new();
        for lane in &mut self.lanes {
            taken.extend(lane.take(&mut wanted));
        }
        taken.sort_by_key(|entry| entry.order);
        self.queued -= taken.len();
        self.bytes -= taken.iter().map(|entry| entry.message.queue_bytes()).sum::<usize>();
        taken
    }
}

fn wanted(lane: &Lane, max: usize) -> Wanted {
    Wanted { lane: lane.lane, class: lane.class, seqs: lane.first_away(max) }
}

#[cfg(test)]
#[path = "away_tests.rs"]
mod tests;
