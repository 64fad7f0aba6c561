//! What is owed on several streams of one connection.
//!
//! Order holds within a stream: what waits for one that takes no more lets the others pass.

use crate::PacketId;

use super::{Entry, Hold, Inflight, InflightState, Outbound, StreamTag};

/// Most entries looked at behind those that wait for their stream. Beyond it even the other streams
/// wait: a stream so far behind is about to be reset.
const LOOK_AHEAD_MAX: usize = 1_024;

/// Where an entry waits, until the queue changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    lane: usize,
    at: usize,
}

impl Outbound {
    /// Whether something in flight was not sent on the present connection; it goes first.
    #[must_use]
    pub fn owes_again(&self) -> bool {
        self.inflight.has_unsent()
    }

    /// The place of the first entry in memory that waits to be sent, and for which `ready` holds.
    pub fn find_ready(&self, mut ready: impl FnMut(&Entry) -> bool) -> Option<Place> {
        let mut left = LOOK_AHEAD_MAX;
        for (lane, of) in self.lanes.iter().enumerate() {
            if of.is_empty() || (self.held == Hold::Own && of.lane != 0) {
                continue;
            }
            if self.held == Hold::All || of.is_first_away() {
                return None;
            }
            if let Some(at) = of.near.iter().take(left).position(&mut ready) {
                return Some(Place { lane, at });
            }
            left = left.saturating_sub(of.near.len());
            // What only the store has of this lane comes before what others have of its topics.
            if of.away_len() > 0 || left == 0 {
                return None;
            }
        }
        None
    }

    /// The entry at a place that was just found.
    #[must_use]
    pub fn at(&self, place: Place) -> Option<&Entry> {
        self.lanes.get(place.lane)?.near.get(place.at)
    }

    /// Gives the entry at a place that was just found a packet id; `None` if the client's Receive
    /// Maximum does not allow it now.
    pub fn assign_at(&mut self, place: Place) -> Option<PacketId> {
        if self.outstanding >= self.receive_maximum {
            return None;
        }
        self.at(place)?;
        let id = self.ids.allocate(|id| self.inflight.contains(id))?;
        let entry = self.lanes[place.lane].remove(place.at)?;
        self.queued -= 1;
        let state = InflightState::Published;
        self.inflight.insert(id, Inflight { entry, state, sent: true, dup: false });
        self.outstanding += 1;
        Some(id)
    }

    /// Removes the entry at a place that was just found without sending it.
    pub fn drop_at(&mut self, place: Place) -> Option<Entry> {
        let entry = self.lanes.get_mut(place.lane)?.remove(place.at)?;
        self.queued -= 1;
        self.bytes -= entry.message.queue_bytes();
        Some(entry)
    }

    /// Removes everything owed on a stream that is over: in flight with packet id and state, then
    /// queued.
    pub fn remove_of(&mut self, tag: StreamTag) -> Vec<(Entry, Option<(PacketId, InflightState)>)> {
        let mut removed = Vec::new();
        let on_it = self.inflight.iter().filter(|(_, inflight)| inflight.entry.tag == tag);
        let ids: Vec<_> = on_it.map(|(id, inflight)| (id, inflight.state)).collect();
        for (id, state) in ids {
            removed.extend(self.settle(id).map(|entry| (entry, Some((id, state)))));
        }
        let queued = self.take_where(|entry| entry.tag == tag);
        removed.extend(queued.into_iter().map(|entry| (entry, None)));
        removed
    }

    /// The tags of what is in flight, one for each message.
    pub fn tags_in_flight(&self) -> impl Iterator<Item = StreamTag> {
        self.inflight.iter().map(|(_, inflight)| inflight.entry.tag)
    }

    /// Most messages in flight on the present connection.
    #[must_use]
    pub fn window(&self) -> u16 {
        self.receive_maximum
    }

    /// The tags of everything owed that is in memory; what is not is the control stream's.
    pub fn tags(&self) -> impl Iterator<Item = StreamTag> {
        self.near().map(|entry| entry.tag).chain(self.tags_in_flight())
    }
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
