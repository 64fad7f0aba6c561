//! Entries that go to another owner of the session, or to another member of a group. All of them are
//! looked for in memory: what only the store has is [recalled](Outbound::any_away) before.

use verge_model::MessageId;

use super::{Entry, Inflight, InflightState, OrderKey, Outbound};
use crate::session::StreamTag;
use crate::topic::filter::TopicFilter;
use crate::{PacketId, QoS};

impl Outbound {
    /// Entries in memory after `after` in the order, with packet id and state if in flight: what an
    /// earlier owner hands over, once they are [all there](Self::is_recalled).
    pub fn after(
        &self,
        after: OrderKey,
    ) -> impl Iterator<Item = (&Entry, Option<(PacketId, InflightState)>)> {
        let inflight = self
            .inflight
            .iter()
            .map(|(id, inflight)| (&inflight.entry, Some((id, inflight.state))));
        let mut all: Vec<_> = inflight.collect();
        all.extend(self.near().map(|entry| (entry, None)));
        all.sort_by_key(|(entry, _)| entry.order);
        all.into_iter().filter(move |(entry, _)| entry.order > after)
    }

    /// Removes entries in memory up to and including `upto`: the next owner has them.
    pub fn remove_upto(&mut self, upto: OrderKey) -> Vec<Entry> {
        let mut removed = Vec::new();
        for id in self.inflight.ids_upto(upto) {
            removed.extend(self.settle(id));
        }
        removed.extend(self.take_where(|entry| entry.order <= upto));
        removed
    }

    /// Takes an entry of this message out of the queue, if it is in memory and was not given a
    /// packet id yet.
    pub fn take_queued(&mut self, id: MessageId) -> Option<Entry> {
        for lane in &mut self.lanes {
            let found = lane.near.iter().position(|entry| entry.message.id == id);
            if let Some(entry) = found.and_then(|at| lane.remove(at)) {
                self.queued -= 1;
                self.bytes -= entry.message.queue_bytes();
                return Some(entry);
            }
        }
        None
    }

    /// Takes out entries in memory of shared subscriptions, in order, of those that `wanted`
    /// accepts: what is queued, and with `sent` what was published at QoS 1 and not acknowledged,
    /// with its packet id. A QoS 2 message stays with whom it was sent to
    /// [MQTT-4.8.2-4, MQTT-4.8.2-5].
    pub fn take_shared(
        &mut self,
        sent: bool,
        mut wanted: impl FnMut(&TopicFilter, StreamTag) -> bool,
    ) -> Vec<(Entry, Option<(PacketId, InflightState)>)> {
        let mut is_wanted =
            |entry: &Entry| entry.share.as_deref().is_some_and(|group| wanted(group, entry.tag));
        let mut taken = Vec::new();
        if sent {
            let mut is_due = |inflight: &Inflight| {
                inflight.entry.qos == QoS::AtLeastOnce && is_wanted(&inflight.entry)
            };
            let due = self.inflight.iter().filter(|(_, inflight)| is_due(inflight));
            let ids: Vec<_> = due.map(|(id, _)| id).collect();
            for id in ids {
                let entry = self.settle(id);
                taken.extend(entry.map(|entry| (entry, Some((id, InflightState::Published)))));
            }
        }
        taken.extend(self.take_where(is_wanted).into_iter().map(|entry| (entry, None)));
        taken
    }

    /// Whether an entry of this message is in memory, queued or in flight.
    #[must_use]
    pub fn contains(&self, id: MessageId) -> bool {
        self.inflight.iter().any(|(_, inflight)| inflight.entry.message.id == id)
            || self.near().any(|entry| entry.message.id == id)
    }
}
