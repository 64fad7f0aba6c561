//! What is left of a queue of which the store has all.

use verge_model::Class;

use super::{OrderKey, Outbound};

/// A message that only the store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Its class.
    pub class: Class,
    /// Its place.
    pub order: OrderKey,
    /// Its bytes, as far as they are known apart from those of others.
    pub bytes: usize,
    /// Whether it may be of a shared subscription.
    pub share: bool,
}

impl Outbound {
    /// Whether the store has all that is owed, and all packet ids in use.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        let marked = |entry: &super::Entry| entry.marked && entry.stored.is_stored();
        self.lanes.iter().all(|lane| lane.near.is_empty())
            && self.inflight.iter().all(|(_, inflight)| marked(&inflight.entry))
    }

    /// All that is owed, in flight or not; bytes of those in the store are with the first of a lane.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        let mut waiting = Vec::with_capacity(self.len());
        for (_, inflight) in self.inflight.iter() {
            let entry = &inflight.entry;
            waiting.push(Waiting {
                class: entry.message.class,
                order: entry.order,
                bytes: entry.message.queue_bytes(),
                share: entry.share.is_some(),
            });
        }
        for lane in &self.lanes {
            let mut bytes = lane.bytes();
            for seq in lane.first_away(usize::MAX) {
                waiting.push(Waiting {
                    class: lane.class,
                    order: OrderKey { lane: lane.lane, seq },
                    bytes: std::mem::take(&mut bytes),
                    share: lane.has_shares_away(),
                });
            }
        }
        waiting
    }
}
