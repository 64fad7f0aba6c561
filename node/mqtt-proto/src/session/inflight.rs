//! What has a packet id and is not settled, in the order of the session.
//!
//! Clients acknowledge in the order they were sent to [MQTT-4.6.0-2], so what is looked for stands
//! at the front or, just put in, at the back nearly always. Else the identifiers, which lie side by
//! side, are searched: by halves while they ascend as they were given, one by one after imports.

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
    unsent_from: u32,
    /// Whether some id does not follow those before it, counted around from the first.
    mixed: bool,
}

impl InflightList {
    /// Nothing.
    pub(super) const fn new() -> Self {
        Self { entries: VecDeque::new(), ids: VecDeque::new(), mixed: false, unsent_from: 0 }
    }

    /// Puts an entry where its order says.
    pub(super) fn insert(&mut self, id: PacketId, inflight: Inflight) {
        let order = inflight.entry.order;
        let place = match self.entries.back() {
            Some(last) if last.entry.order > order => {
                self.entries.partition_point(|other| other.entry.order < order)
            }
            Some(_) | None => self.entries.len(),
        };
        let at = u32::try_from(place).expect("there are no more than packet ids");
        if at < self.unsent_from || at == self.unsent_from && inflight.sent {
            self.unsent_from = if inflight.sent { self.unsent_from + 1 } else { at };
        }
        if place == self.entries.len() {
            self.mixed |=
                self.ids.back().is_some_and(|last| self.offset(id.get()) <= self.offset(*last));
            self.entries.push_back(inflight);
            self.ids.push_back(id.get());
        } else {
            self.mixed = true;
            self.entries.insert(place, inflight);
            self.ids.insert(place, id.get());
        }
    }

    /// Puts an entry that is being sent behind all others, whose orders are before its own.
    pub(super) fn push(&mut self, id: PacketId, inflight: Inflight) -> &mut Inflight {
        debug_assert!(inflight.sent && self.last_order() <= Some(inflight.entry.order));
        if self.unsent_from as usize == self.entries.len() {
            self.unsent_from += 1;
        }
        let id = id.get();
        self.mixed |= self.ids.back().is_some_and(|last| self.offset(id) <= self.offset(*last));
        self.ids.push_back(id);
        self.entries.push_back(inflight);
        self.entries.back_mut().expect("it was just put there")
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, id: PacketId) -> Option<Inflight> {
        self.remove_if(id, |_| true)
    }

    /// Takes an entry out, if it is `due`.
    #[inline]
    pub(super) fn remove_if(
        &mut self,
        id: PacketId,
        due: impl FnOnce(&Inflight) -> bool,
    ) -> Option<Inflight> {
        let place = self.place(id)?;
        if !due(&self.entries[place]) {
            return None;
        }
        if place < self.unsent_from as usize {
            self.unsent_from -= 1;
        }
        if place == 0 {
            self.ids.pop_front();
            self.mixed &= !self.ids.is_empty();
            return self.entries.pop_front();
        }
        self.ids.remove(place);
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
        while self.entries.get(self.unsent_from as usize).is_some_and(|inflight| inflight.sent) {
            self.unsent_from += 1;
        }
        let at = self.unsent_from as usize;
        let id = packet_id(*self.ids.get(at)?);
        Some((id, &mut self.entries[at]))
    }

    /// Whether an entry was not sent on the present connection.
    #[inline]
    pub(super) fn has_unsent(&self) -> bool {
        let from = self.unsent_from as usize;
        from < self.entries.len() && self.entries.range(from..).any(|inflight| !inflight.sent)
    }

    pub(super) fn get(&self, id: PacketId) -> Option<&Inflight> {
        self.place(id).map(|place| &self.entries[place])
    }

    pub(super) fn get_mut(&mut self, id: PacketId) -> Option<&mut Inflight> {
        self.place(id).map(|place| &mut self.entries[place])
    }

    pub(super) fn contains(&self, id: PacketId) -> bool {
        self.place(id).is_some()
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
        assert!(self.entries.iter().take(self.unsent_from as usize).all(|inflight| inflight.sent));
        assert!(self.mixed || self.ids.iter().is_sorted_by_key(|id| self.offset(*id)));
    }

    /// How far an id is from the first, around the number of all ids.
    fn offset(&self, id: u16) -> u16 {
        id.wrapping_sub(self.ids.front().copied().unwrap_or_default())
    }

    fn place(&self, id: PacketId) -> Option<usize> {
        let id = id.get();
        if *self.ids.front()? == id {
            return Some(0);
        }
        let last = *self.ids.back()?;
        if last == id {
            return Some(self.ids.len() - 1);
        }
        if self.mixed {
            let (front, back) = self.ids.as_slices();
            let found = front.iter().position(|other| *other == id);
            return found.or_else(|| Some(front.len() + back.iter().position(|o| *o == id)?));
        }
        let offset = self.offset(id);
        // Beyond the last: an id about to be given.
        if offset > self.offset(last) {
            return None;
        }
        self.ids.binary_search_by_key(&offset, |other| self.offset(*other)).ok()
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

    #[test]
    fn ids_that_go_round_are_found_with_holes_between_them() {
        let mut list = InflightList::default();
        let id = |number| PacketId::new(number).unwrap();
        let given: Vec<u16> = (16_300..=16_383).chain(1..100).collect();
        for (seq, number) in (1..).zip(&given) {
            assert!(!list.contains(id(*number)), "{number} is free until it is given");
            list.insert(id(*number), inflight(seq, true));
            list.check_invariants();
        }
        assert!(!list.mixed);
        let (kept, settled): (Vec<u16>, Vec<u16>) = given.iter().partition(|id| *id % 3 == 0);
        for number in &settled {
            assert!(list.remove(id(*number)).is_some());
            list.check_invariants();
        }
        assert!(settled.iter().all(|number| list.get(id(*number)).is_none()));
        let seq_of = |number: &u16| list.get(id(*number)).map(|found| found.entry.order.seq);
        assert!(kept.iter().map(seq_of).is_sorted(), "each is found where it stands");
        assert!(kept.iter().all(|number| seq_of(number).is_some()));

        // An import comes before them.
        list.insert(id(20_000), inflight(0, false));
        assert!(list.mixed && list.contains(id(20_000)) && list.contains(id(kept[7])));
        list.check_invariants();
        for number in ids(&list) {
            list.remove(id(number)).unwrap();
        }
        assert!(!list.mixed, "with the last it is forgotten");
    }

    fn ids(list: &InflightList) -> Vec<u16> {
        list.iter().map(|(id, _)| id.get()).collect()
    }

    fn inflight(seq: u64, sent: bool) -> Inflight {
        let entry = entry(1, seq, QoS::AtLeastOnce);
        Inflight { entry, state: InflightState::Published, sent, dup: false }
    }
}
