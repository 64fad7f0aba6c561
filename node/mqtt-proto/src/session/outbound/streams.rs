//! What is owed on several streams of one connection.
//!
//! Order holds within a stream: what waits for one that takes no more lets the others pass.

use crate::PacketId;

use super::{Entry, Hold, Inflight, InflightState, Outbound, StreamTag};

/// Most entries looked at behind those that wait for their stream. Beyond it even the other streams
/// wait: a stream so far behind is about to be reset.
const LOOK_AHEAD_MAX: usize = 1_024;

impl Outbound {
    /// Whether something in flight was not sent on the present connection; it goes first.
    #[must_use]
    pub fn owes_again(&self) -> bool {
        self.inflight.has_unsent()
    }

    /// The place of the first entry that waits to be sent, and for which `ready` holds.
    pub fn find_ready(&self, ready: impl FnMut(&Entry) -> bool) -> Option<usize> {
        let lane = match (self.older.is_empty(), self.held) {
            (_, Hold::All) | (true, Hold::Own) => return None,
            (false, Hold::Own | Hold::None) => &self.older,
            (true, Hold::None) => &self.queue,
        };
        lane.iter().take(LOOK_AHEAD_MAX).position(ready)
    }

    /// The entry at a place that was just found.
    #[must_use]
    pub fn at(&self, place: usize) -> Option<&Entry> {
        if self.older.is_empty() { self.queue.get(place) } else { self.older.get(place) }
    }

    /// Gives the entry at a place that was just found a packet id; `None` if the client's Receive
    /// Maximum does not allow it now.
    pub fn assign_at(&mut self, place: usize) -> Option<PacketId> {
        if self.outstanding >= self.receive_maximum {
            return None;
        }
        self.at(place)?;
        let id = self.ids.allocate(|id| self.inflight.contains(id))?;
        let lane = if self.older.is_empty() { &mut self.queue } else { &mut self.older };
        let entry = lane.remove(place)?;
        let state = InflightState::Published;
        self.inflight.insert(id, Inflight { entry, state, sent: true, dup: false });
        self.outstanding += 1;
        Some(id)
    }

    /// Removes the entry at a place that was just found without sending it.
    pub fn drop_at(&mut self, place: usize) -> Option<Entry> {
        let lane = if self.older.is_empty() { &mut self.queue } else { &mut self.older };
        let entry = lane.remove(place)?;
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
        for lane in [&mut self.older, &mut self.queue] {
            if lane.iter().any(|entry| entry.tag == tag) {
                for entry in std::mem::take(lane) {
                    if entry.tag == tag {
                        self.bytes -= entry.message.queue_bytes();
                        removed.push((entry, None));
                    } else {
                        lane.push_back(entry);
                    }
                }
            }
        }
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

    /// The tags of everything owed.
    pub fn tags(&self) -> impl Iterator<Item = StreamTag> {
        let queued = self.older.iter().chain(&self.queue).map(|entry| entry.tag);
        queued.chain(self.tags_in_flight())
    }
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
