//! What is left in memory of a session on disk that is owed something: how much, and where the
//! messages of this life of the node stand in its queue.
//!
//! A message for such a session is one more place in its slot. Only what needs more than that brings
//! the session back: a full queue, which has a policy, or a group, which has other members. A session of which
//! nobody heard since the start has no slot; the first message for it counts what its rows hold.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use verge_model::{Class, Now};
use verge_mqtt_proto::message::queue_bytes;
use verge_mqtt_proto::session::{Held, OrderKey, Waiting};
use verge_storage::key::LANE_OWN;
use verge_storage::record::{self, SessionState};
use verge_storage::{StoreError, StoreRows as _};

use super::Shard;
use super::api::{Delivery, HolderView, SessionNo, ShardIndex};
use super::load::readable;
use crate::ledger::{DropReason, Opened, Settled};
use crate::parked::Counted;
use crate::spread::Spread;

/// Bits below the step to a place.
const CLASS_BITS: u32 = 2;
const SHARE: u64 = 1 << CLASS_BITS;
/// Its row is of an earlier life, or came from another node: it is read again with the session.
const READ_AGAIN: u64 = SHARE << 1;
const STEP_SHIFT: u32 = CLASS_BITS + 2;

/// What a session is owed.
#[derive(Debug)]
struct Slot {
    no: SessionNo,
    messages: u32,
    /// [`Self::places`] are steps from one to the next; the last one.
    last: u64,
    bytes: u64,
    /// Places as they were noted, a few bytes each.
    places: Vec<u8>,
}

impl Slot {
    fn new(no: SessionNo) -> Self {
        Self { no, messages: 0, last: 0, bytes: 0, places: Vec::new() }
    }

    /// Notes a message.
    fn push(&mut self, place: &Waiting, life: u64) {
        let again = place.order.lane != LANE_OWN || place.order.seq < life;
        let mut bits = place.class as u64;
        bits |= if place.share { SHARE } else { 0 };
        if again {
            bits |= READ_AGAIN;
        } else {
            let step = place.order.seq.wrapping_sub(self.last).cast_signed();
            bits |= ((step << 1) ^ (step >> 63)).cast_unsigned() << STEP_SHIFT;
            self.last = place.order.seq;
        }
        put_varint(&mut self.places, bits);
        put_varint(&mut self.places, place.bytes as u64);
        self.messages += 1;
        self.bytes += place.bytes as u64;
    }

    /// What was noted: places that are read again have none.
    fn places(&self) -> Vec<(Waiting, bool)> {
        let (mut rest, mut last) = (&self.places[..], 0_u64);
        let mut places = Vec::with_capacity(self.messages as usize);
        while let (Some(bits), Some(bytes)) = (take_varint(&mut rest), take_varint(&mut rest)) {
            let again = bits & READ_AGAIN != 0;
            if !again {
                let step = bits >> STEP_SHIFT;
                last = last.wrapping_add((step >> 1) ^ (step & 1).wrapping_neg());
            }
            let class = Class::from_u8((bits & (SHARE - 1)) as u8).unwrap_or(Class::Bulk);
            let order = OrderKey { lane: LANE_OWN, seq: last };
            let share = bits & SHARE != 0;
            places.push((Waiting { class, order, bytes: bytes as usize, share }, again));
        }
        places
    }
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// The slots of a shard.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Spread<Slot>,
    held: Held,
}

impl Slots {
    /// What all of them hold.
    pub(super) fn held(&self) -> Held {
        self.held
    }

    /// Where the messages of this life stand in a session's queue; none if nothing is noted of it.
    pub(super) fn noted(&self, no: SessionNo) -> Option<Vec<Waiting>> {
        let slot = self.slots.get(hash(no), |slot| slot.no == no)?;
        Some(
            slot.places().into_iter().filter(|(_, again)| !again).map(|(place, _)| place).collect(),
        )
    }

    /// A session leaves memory, and is owed this.
    pub(super) fn insert(&mut self, no: SessionNo, places: &[Waiting], life: u64) {
        let mut slot = Slot::new(no);
        places.iter().for_each(|place| slot.push(place, life));
        slot.places.shrink_to_fit();
        add(&mut self.held, &held_of(&slot));
        self.slots.insert(slot, |slot| hash(slot.no));
    }

    /// A session comes into memory, or ended; what it was owed.
    pub(super) fn take(&mut self, no: SessionNo) -> Option<Held> {
        let slot = self.slots.remove(hash(no), |slot| slot.no == no)?;
        let held = held_of(&slot);
        for class in Class::ALL {
            self.held.messages[class as usize] -= held.messages[class as usize];
            self.held.bytes[class as usize] -= held.bytes[class as usize];
        }
        Some(held)
    }

    /// Notes a message, unless the queue is full then.
    fn push(&mut self, no: SessionNo, place: &Waiting, life: u64, max: (usize, usize)) -> bool {
        let Some(slot) = self.slots.get_mut(hash(no), |slot| slot.no == no) else { return false };
        let (messages, bytes) = (slot.messages as usize + 1, slot.bytes as usize + place.bytes);
        if messages > max.0 || bytes > max.1 {
            return false;
        }
        slot.push(place, life);
        self.held.add(place.class, 1, place.bytes);
        true
    }

    fn has(&self, no: SessionNo) -> bool {
        self.slots.get(hash(no), |slot| slot.no == no).is_some()
    }
}

fn held_of(slot: &Slot) -> Held {
    let mut held = Held::default();
    slot.places().iter().for_each(|(place, _)| held.add(place.class, 1, place.bytes));
    held
}

fn add(held: &mut Held, more: &Held) {
    *held += *more;
}

fn hash(no: SessionNo) -> u64 {
    use std::hash::BuildHasher as _;
    rustc_hash::FxBuildHasher.hash_one(no.0)
}

impl Shard {
    /// Takes on a debt of a session that is not in memory. False if it is, by now, or never will be:
    /// then the debt is taken on, or settled, as any other.
    pub(super) fn owes_away(&mut self, delivery: &Delivery, now: Now) -> bool {
        match self.owe_away(delivery) {
            Ok(true) => true,
            Ok(false) => !self.wakes_for(delivery.session, now),
            Err(error) => {
                self.shared.parked.add(Counted::Unread, 1);
                tracing::error!(%error, "a session could not be read for a message it is owed");
                true
            }
        }
    }

    fn owe_away(&mut self, delivery: &Delivery) -> Result<bool, StoreError> {
        let no = delivery.session;
        if delivery.share.is_some() || self.parking.is_gone(no) {
            return Ok(false);
        }
        if !self.parking.slots.has(no) && !self.count_owed(no)? {
            return Ok(false);
        }
        let place = Waiting {
            class: delivery.message.class,
            order: OrderKey { lane: LANE_OWN, seq: delivery.seq },
            bytes: delivery.message.queue_bytes(),
            share: false,
        };
        let max = (self.config.queue_messages_max, self.config.queue_bytes_max);
        let taken = self.parking.slots.push(no, &place, self.shared.first_queue_seq(), max);
        if taken {
            self.tally.accepted(place.class);
        }
        Ok(taken)
    }

    /// Makes the slot of a session that nobody heard of since the start; false if there is none.
    fn count_owed(&mut self, no: SessionNo) -> Result<bool, StoreError> {
        let shared = Arc::clone(&self.shared);
        let (store, life) = (shared.store(), shared.first_queue_seq());
        let mut bad = 0;
        let header = readable(store.session(no.0), &mut bad)?.flatten();
        // One that moves is in memory, and one whose header is damaged is nobody's.
        let header = header.filter(|header| {
            let shard = ShardIndex::of(&header.client, self.config.count);
            let rests = header.state == SessionState::Open && header.open_fragments.is_empty();
            rests && shard == self.config.index
        });
        let here = match header {
            None => false,
            Some(header) => {
                let named = readable(store.open_session(&header.client), &mut bad)?.flatten();
                named.is_none_or(|named| named == no.0)
            }
        };
        let mut places = Vec::new();
        for row in store.queue_of(no.0).take_while(|_| here) {
            let Some((key, row)) = readable(row, &mut bad)? else { continue };
            if key.lane == LANE_OWN && key.seq >= life {
                break;
            }
            let bytes = match &row.held {
                record::Held::Here(message) => queue_bytes(&message.topic, &message.payload),
                record::Held::Row { bytes, .. } => *bytes as usize,
            };
            let order = OrderKey { lane: key.lane, seq: key.seq };
            places.push(Waiting { class: row.class, order, bytes, share: row.share.is_some() });
        }
        shared.parked.add(Counted::Damaged, bad);
        if here {
            for place in &places {
                shared.ledger.open(Opened::Recovered, place.class, 1);
            }
            self.parking.slots.insert(no, &places, life);
        }
        Ok(here)
    }

    /// Of the sessions that are not in memory, those with the most messages, and those with the most
    /// bytes.
    pub(super) fn holders_away(&self, top: usize) -> Vec<HolderView> {
        let mut slots: Vec<&Slot> = self.parking.slots.slots.iter().collect();
        let mut most = BTreeMap::new();
        let orders: [fn(&Slot) -> u64; 2] = [|slot| slot.messages.into(), |slot| slot.bytes];
        for order in orders {
            if slots.len() > top {
                slots.select_nth_unstable_by_key(top, |slot| Reverse(order(slot)));
            }
            most.extend(slots.iter().take(top).map(|slot| (slot.no, *slot)));
        }
        let view = |slot: &Slot| {
            // Whose it is stands in its header; one that cannot be read now is left out.
            let header = self.shared.store().session(slot.no.0).ok().flatten()?;
            let (client, held) = (header.client, held_of(slot));
            (slot.messages > 0).then_some(HolderView {
                client,
                connected: false,
                moves_to: None,
                held,
            })
        };
        most.into_values().filter_map(view).collect()
    }

    /// A session that is noted is none: what it was owed is lost.
    pub(super) fn forget_slot(&mut self, no: SessionNo) {
        if let Some(owed) = self.parking.slots.take(no) {
            self.settle_lost(&owed, &Held::default());
        }
    }

    /// What a session was owed while it was not in memory, and is not any more, is lost: its rows are
    /// damaged.
    pub(super) fn settle_lost(&mut self, owed: &Held, found: &Held) {
        for class in Class::ALL {
            let lost = owed.messages[class as usize].saturating_sub(found.messages[class as usize]);
            if lost > 0 {
                tracing::error!(lost, class = class.as_str(), "queued messages are lost");
                self.shared.ledger.settle(Settled::Dropped(DropReason::Damaged), class, lost);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_as_they_were_noted() {
        let life = 1 << 40;
        let place = |class, lane, seq, bytes, share| {
            let order = OrderKey { lane, seq };
            Waiting { class, order, bytes, share }
        };
        let own = [
            place(Class::Bulk, LANE_OWN, life + 5, 0, false),
            place(Class::Safety, LANE_OWN, life + 3, 70_000, true),
            place(Class::Control, LANE_OWN, life + (1 << 39), 1, false),
        ];
        let again =
            [place(Class::Safety, 0, 9, 10, false), place(Class::Bulk, LANE_OWN, 7, 20, true)];
        let mut slots = Slots::default();
        let no = SessionNo(3);
        slots.insert(no, &[&again[..], &own[..2]].concat(), life);
        assert!(slots.push(no, &own[2], life, (5, 100_000)));
        assert!(!slots.push(no, &own[0], life, (5, 100_000)), "one too many");
        assert!(!slots.push(
            no,
            &place(Class::Bulk, LANE_OWN, life, 40_000, false),
            life,
            (9, 100_000)
        ));
        assert_eq!(slots.noted(no).unwrap(), own);
        assert_eq!((slots.held().total(), slots.held().total_bytes()), (5, 70_031));
        assert_eq!(slots.take(no).unwrap().messages[Class::Safety as usize], 2);
        assert_eq!(slots.held(), Held::default());
        assert_eq!(slots.noted(no), None);
    }

    #[test]
    fn a_place_after_another_takes_few_bytes() {
        let life = 1 << 40;
        let places: Vec<Waiting> = (0..100)
            .map(|number| {
                let order = OrderKey { lane: LANE_OWN, seq: life + number * 1_000 };
                Waiting { class: Class::Telemetry, order, bytes: 1_000, share: false }
            })
            .collect();
        let mut slot = Slot::new(SessionNo(1));
        places.iter().for_each(|place| slot.push(place, life));
        assert!(slot.places.len() <= 100 * 5 + 8, "{}", slot.places.len());
        assert!(size_of::<Slot>() <= 56);
    }
}
