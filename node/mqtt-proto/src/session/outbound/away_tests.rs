//! What waits in the store is sent in its place, and counts as long as it waits.

use std::sync::Arc;

use verge_model::Epoch;

use super::super::tests::entry;
use super::*;
use crate::session::{OutboundLimits, Step, Stored};
use crate::{PacketId, QoS};

const LIMITS: OutboundLimits = OutboundLimits { messages_max: 5_000, bytes_max: 1 << 30 };

fn outbound() -> Outbound {
    Outbound::new(Epoch::default(), LIMITS)
}

fn of(class: Class, lane: u8, seq: u64) -> Entry {
    let mut entry = entry(lane, seq, QoS::AtLeastOnce);
    Arc::make_mut(&mut entry.message).class = class;
    entry.stored = Stored::Whole;
    entry
}

fn sent(outbound: &mut Outbound) -> Vec<u64> {
    let mut sent = Vec::new();
    loop {
        if let Some(Wanted { lane, class, seqs }) = outbound.wants(2) {
            for seq in seqs {
                outbound.take_back(of(class, lane, seq));
            }
            outbound.check_invariants();
        }
        let Some(Step::Publish(id)) = outbound.next_step() else { return sent };
        sent.push(outbound.handle_puback(id).unwrap().order.seq);
        outbound.check_invariants();
    }
}

#[test]
fn who_is_away_has_places_and_is_sent_them_in_order() {
    let mut outbound = outbound();
    for seq in [1, 2, 3, 5, 4, 6] {
        outbound.enqueue(of(Class::Telemetry, 1, seq)).unwrap();
    }
    assert_eq!((outbound.len(), outbound.near().count(), outbound.bytes()), (6, 0, 6 * 65));
    assert!(outbound.may_send() && outbound.front().is_none() && outbound.wants(9).is_none());
    outbound.connected(10);
    assert_eq!(sent(&mut outbound), [1, 2, 3, 4, 5, 6]);
    assert!(outbound.is_empty() && outbound.bytes() == 0);
}

#[test]
fn who_is_behind_has_no_more_than_a_window_in_memory() {
    let mut outbound = outbound();
    outbound.connected(1);
    for seq in 1..=3_000 {
        outbound.enqueue(of(Class::Telemetry, 1, seq)).unwrap();
    }
    assert_eq!(outbound.near().count(), super::super::lane::NEAR_MAX);
    outbound.check_invariants();
    assert!(sent(&mut outbound).into_iter().eq(1..=3_000));
}

#[test]
fn what_no_store_has_stays_in_memory_and_in_its_place() {
    let mut outbound = outbound();
    for seq in 1..=6 {
        let mut entry = of(Class::Telemetry, 1, seq);
        if seq % 3 == 0 {
            entry.stored = Stored::Nowhere;
        }
        outbound.enqueue(entry).unwrap();
    }
    assert_eq!(outbound.near().count(), 2);
    outbound.connected(10);
    assert_eq!(sent(&mut outbound), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn the_more_urgent_class_goes_first_and_imports_before_what_is_new() {
    let mut outbound = outbound();
    let all = [
        (Class::Telemetry, 1, 1),
        (Class::Bulk, 1, 2),
        (Class::Safety, 1, 3),
        (Class::Telemetry, 0, 9),
        (Class::Safety, 1, 4),
        (Class::Control, 1, 5),
    ];
    for (class, lane, seq) in all {
        outbound.enqueue(of(class, lane, seq)).unwrap();
    }
    outbound.connected(10);
    outbound.hold(Hold::Own);
    assert_eq!(sent(&mut outbound), [9], "an import may come before all others");
    outbound.hold(Hold::None);
    assert_eq!(sent(&mut outbound), [3, 4, 5, 1, 2]);
}

#[test]
fn a_lost_row_counts_no_more() {
    let mut outbound = outbound();
    for seq in 1..=3 {
        outbound.enqueue(of(Class::Telemetry, 1, seq)).unwrap();
    }
    outbound.lose(Class::Telemetry, OrderKey { lane: 1, seq: 2 });
    outbound.lose(Class::Telemetry, OrderKey { lane: 1, seq: 2 });
    outbound.check_invariants();
    assert_eq!(outbound.len(), 2);
    outbound.connected(10);
    assert_eq!(sent(&mut outbound), [1, 3]);
    assert_eq!(outbound.bytes(), 0, "with the last its bytes are known");
}

#[test]
fn what_is_put_away_is_drained_as_a_number_unless_it_was_recalled() {
    let mut outbound = outbound();
    outbound.connected(1);
    for seq in 1..=4 {
        outbound.enqueue(of(Class::Telemetry, 1, seq)).unwrap();
    }
    outbound.next_step();
    outbound.disconnected();
    outbound.put_away();
    outbound.check_invariants();
    assert_eq!((outbound.near().count(), outbound.inflight_len()), (0, 1));
    assert!(outbound.is_taken(OrderKey { lane: 1, seq: 3 }));
    assert_eq!(outbound.last_order(), Some(OrderKey { lane: 1, seq: 4 }));
    while let Some(Wanted { lane, class, seqs }) = outbound.any_away(2) {
        seqs.into_iter().for_each(|seq| outbound.take_back(of(class, lane, seq)));
    }
    outbound.keep_near();
    outbound.enqueue(of(Class::Telemetry, 1, 5)).unwrap();
    assert_eq!(outbound.near().count(), 4, "what is looked at stays");
    outbound.put_away();
    let away: Vec<_> = outbound.away().collect();
    let left = outbound.drain();
    let left: Vec<_> = left.iter().map(|(_, state)| state.map(|(id, _)| id)).collect();
    assert_eq!((left, away), (vec![PacketId::new(1)], vec![(Class::Telemetry, 4)]));
    outbound.check_invariants();
}
