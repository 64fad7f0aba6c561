//! What has a packet id and is not settled, in the order of the session.
//!
//! Clients acknowledge in the order they were sent to [MQTT-4.6.0-2], so what is looked for stands
//! at the front nearly always; else the identifiers, which lie side by side, are searched.

use std::collections::VecDeque;

use super::outbound::{Inflight, OrderKey};
use crate::PacketId;

/// Entries with packet ids. Bounded by the Receive Maximum, and by what an earlier owner of the
/// session had in flight.
#[derive(Debug, Default)]
pub(super) struct InflightList {
    /// By order.
    entries: VecDeque<Inflight>,
    /// Their packet ids, place by place.
    ids: VecDeque<u16>,
    /// All entries before this place have been sent on the present connection.
    unsent_from: usize,
}

impl InflightList {
    /// Puts an entry where its order says.
    pub(super) fn insert(&mut self, id: PacketId, inflight: Inflight) {
        let order = inflight.entry.order;
        let place = match self.entries.back() {
            Some(last) if last.entry.order > order => {
                self.entries.partition_point(|other| other.entry.order < order)
            }
            Some(_) | None => self.entries.len(),
        };
        if place < self.unsent_from || place == self.unsent_from && inflight.sent {
            self.unsent_from = if inflight.sent { self.unsent_from + 1 } else { place };
        }
        self.entries.insert(place, inflight);
        self.ids.insert(place, id.get());
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, id: PacketId) -> Option<Inflight> {
        let place = self.place(id)?;
        self.ids.remove(place);
        if place < self.unsent_from {
            self.unsent_from -= 1;
        }
        self.entries.remove(place)
    }

    /// Takes everything out, in order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (PacketId, Inflight)> {
        let Self { entries, ids, .. } = std::mem::take(self);
        ids.into_iter().map(packet_id).zip(entries)
    }

    /// From now on nothing counts as sent: there is a new connection.
    pub(super) fn forget_sent(&mut self) {
        self.unsent_from = 0;
        for inflight in &mut self.entries {
            inflight.sent = false;
        }
    }

    /// The first entry that was not sent on the present connection.
    pub(super) fn next_unsent(&mut self) -> Option<(PacketId, &mut Inflight)> {
        while self.entries.get(self.unsent_from).is_some_and(|inflight| inflight.sent) {
            self.unsent_from += 1;
        }
        let id = packet_id(*self.ids.get(self.unsent_from)?);
        Some((id, &mut self.entries[self.unsent_from]))
    }

    /// Whether an entry was not sent on the present connection.
    pub(super) fn has_unsent(&self) -> bool {
        self.entries.iter().skip(self.unsent_from).any(|inflight| !inflight.sent)
    }

    pub(super) fn get(&self, id: PacketId) -> Option<&Inflight> {
        self.place(id).map(|place| &self.entries[place])
    }

    pub(super) fn get_mut(&mut self, id: PacketId) -> Option<&mut Inflight> {
        self.place(id).map(|place| &mut self.entries[place])
    }

    pub(super) fn contains(&self, id: PacketId) -> bool {
        let (front, back) = self.ids.as_slices();
        front.contains(&id.get()) || back.contains(&id.get())
    }

    /// Whether an entry has this place in the order.
    pub(super) fn has_order(&self, order: OrderKey) -> bool {
        self.entries.binary_search_by_key(&order, |inflight| inflight.entry.order).is_ok()
    }

    /// The packet ids of entries up to and including `upto`.
    pub(super) fn ids_upto(&self, upto: OrderKey) -> Vec<PacketId> {
        let count = self.entries.partition_point(|inflight| inflight.entry.order <= upto);
        self.ids.iter().take(count).copied().map(packet_id).collect()
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PacketId, &Inflight)> {
        self.ids.iter().copied().map(packet_id).zip(&self.entries)
    }

    pub(super) fn last_order(&self) -> Option<OrderKey> {
        self.entries.back().map(|inflight| inflight.entry.order)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Panics if a documented relation between the fields does not hold.
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.entries.len(), self.ids.len());
        assert!(self.entries.iter().is_sorted_by_key(|inflight| inflight.entry.order));
        assert!(self.entries.iter().take(self.unsent_from).all(|inflight| inflight.sent));
    }

    fn place(&self, id: PacketId) -> Option<usize> {
        let id = id.get();
        let (front, back) = self.ids.as_slices();
        let found = front.iter().position(|other| *other == id);
        found.or_else(|| Some(front.len() + back.iter().position(|other| *other == id)?))
    }
}

fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).expect("it was one when it was put in")
}

#[cfg(test)]
mod tests {
    use super::super::outbound::InflightState;
    use super::super::outbound::tests::entry;
    use super::*;
    use crate::QoS;

    #[test]
    fn entries_are_found_in_any_order_and_sent_in_theirs() {
        let mut list = InflightList::default();
        // Ids ascend; orders do not, as with imports that come before what is in flight.
        for (id, seq) in [(1, 10), (2, 20), (3, 5), (4, 30), (5, 15)] {
            list.insert(PacketId::new(id).unwrap(), inflight(seq, true));
        }
        list.check_invariants();
        assert!(list.next_unsent().is_none());
        assert_eq!(ids(&list), [3, 1, 5, 2, 4]);
        assert_eq!(list.remove(PacketId::new(2).unwrap()).unwrap().entry.order.seq, 20);
        assert!(list.get(PacketId::new(2).unwrap()).is_none());
        list.forget_sent();
        let mut told = Vec::new();
        while let Some((id, inflight)) = list.next_unsent() {
            inflight.sent = true;
            told.push(id.get());
            if id.get() == 1 {
                list.remove(PacketId::new(3).unwrap()).unwrap();
                list.insert(PacketId::new(9).unwrap(), self::inflight(7, false));
            }
            list.check_invariants();
        }
        assert_eq!(told, [3, 1, 9, 5, 4], "what comes before is told when it is there");
        assert_eq!(ids(&list), [9, 1, 5, 4]);
    }

    fn ids(list: &InflightList) -> Vec<u16> {
        list.iter().map(|(id, _)| id.get()).collect()
    }

    fn inflight(seq: u64, sent: bool) -> Inflight {
        let entry = entry(1, seq, QoS::AtLeastOnce);
        Inflight { entry, state: InflightState::Published, sent, dup: false }
    }
}
