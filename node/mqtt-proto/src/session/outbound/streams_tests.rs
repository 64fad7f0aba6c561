//! What waits for a stream, and what passes it.

use super::super::tests::entry;
use super::*;
use crate::QoS;
use crate::session::{OrderKey, OutboundLimits};

/// A queue with entries of these tags, numbered from 1.
fn queue(tags: &[u32]) -> Outbound {
    let limits = OutboundLimits { messages_max: 10_000, bytes_max: 1 << 30 };
    let mut outbound = Outbound::new(0, limits);
    for (seq, tag) in (1..).zip(tags) {
        let tag = StreamTag(*tag);
        outbound.push(Entry { tag, ..entry(1, seq, QoS::AtLeastOnce) });
    }
    outbound.connected(8);
    outbound
}

fn seqs(entries: &[(Entry, Option<(PacketId, InflightState)>)]) -> Vec<u64> {
    entries.iter().map(|(entry, _)| entry.order.seq).collect()
}

#[test]
fn what_is_ready_passes_what_is_not_and_keeps_its_order() {
    let mut outbound = queue(&[4, 4, 0, 4, 0]);
    let mut sent = Vec::new();
    while let Some(place) = outbound.find_ready(|entry| entry.tag.is_control()) {
        let id = outbound.assign_at(place).unwrap();
        sent.push(outbound.inflight(id).unwrap().entry.order.seq);
    }
    assert_eq!(sent, [3, 5]);
    outbound.check_invariants();
    let place = outbound.find_ready(|_| true).unwrap();
    assert_eq!(outbound.at(place).unwrap().order, OrderKey { lane: 1, seq: 1 });
    assert_eq!(outbound.drop_at(place).unwrap().order.seq, 1);
    outbound.check_invariants();
}

#[test]
fn the_receive_maximum_holds_whatever_the_stream() {
    let mut outbound = queue(&[4, 0, 4]);
    outbound.connected(2);
    assert!(outbound.assign_at(at(1)).is_some());
    assert!(outbound.assign_at(at(0)).is_some());
    assert_eq!(outbound.assign_at(at(0)), None);
}

#[test]
fn a_stream_that_is_over_leaves_nothing_and_gives_back_its_share() {
    let mut outbound = queue(&[4, 0, 4, 8]);
    outbound.connected(1);
    let id = outbound.assign_at(at(0)).unwrap();
    let removed = outbound.remove_of(StreamTag(4));
    assert_eq!(seqs(&removed), [1, 3]);
    assert_eq!(removed[0].1, Some((id, InflightState::Published)));
    assert_eq!(outbound.tags().collect::<Vec<_>>(), [StreamTag(0), StreamTag(8)]);
    assert!(outbound.assign_at(at(0)).is_some());
    outbound.check_invariants();
}

#[test]
fn looking_behind_a_stream_that_waits_has_an_end() {
    let mut tags = vec![4; LOOK_AHEAD_MAX];
    tags.push(0);
    let outbound = queue(&tags);
    assert_eq!(outbound.find_ready(|entry| entry.tag.is_control()), None);
}

#[test]
fn what_is_held_back_is_not_ready() {
    let mut outbound = queue(&[4]);
    outbound.hold(Hold::Own);
    assert_eq!(outbound.find_ready(|_| true), None);
    outbound.push(entry(0, 1, QoS::AtLeastOnce));
    assert_eq!(outbound.find_ready(|_| true), Some(at(0)));
    outbound.hold(Hold::All);
    assert_eq!(outbound.find_ready(|_| true), None);
}

fn at(at: usize) -> Place {
    Place { lane: 0, at }
}
