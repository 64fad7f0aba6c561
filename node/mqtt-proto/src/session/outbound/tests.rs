//! What is owed goes out in order, within bounds, and again after a new connection.

use bytes::Bytes;
use verge_model::{Class, Hlc, MessageId, NodeKey};

use super::*;
use crate::packet::publish::KeptProperties;
use crate::topic::name::TopicName;

const LIMITS: OutboundLimits = OutboundLimits { messages_max: 4, bytes_max: 10_000 };

#[test]
fn order_is_imports_then_own_and_ids_ascend_within_the_band() {
    let mut outbound = Outbound::new(1, LIMITS);
    outbound.enqueue(entry(1, 1, QoS::AtLeastOnce)).unwrap();
    outbound.enqueue(entry(0, 9, QoS::AtLeastOnce)).unwrap();
    outbound.enqueue(entry(0, 8, QoS::AtLeastOnce)).unwrap();
    outbound.connected(10);
    assert_eq!(outbound.next_step(), Some(Step::Publish(id(16_385))));
    assert_eq!(outbound.inflight(id(16_385)).unwrap().entry.order.seq, 8);
    outbound.next_step();
    outbound.next_step();
    assert_eq!(outbound.inflight(id(16_387)).unwrap().entry.order.lane, 1);
    assert_eq!(outbound.next_step(), None);
    outbound.check_invariants();
}

#[test]
fn receive_maximum_is_never_exceeded_and_puback_frees_it() {
    // [MQTT-4.9.0-2]
    let mut outbound = Outbound::new(0, LIMITS);
    for seq in 1..=3 {
        outbound.enqueue(entry(1, seq, QoS::AtLeastOnce)).unwrap();
    }
    assert_eq!(outbound.next_step(), None, "nobody is connected");
    outbound.connected(2);
    assert_eq!(outbound.next_step(), Some(Step::Publish(id(1))));
    assert_eq!(outbound.next_step(), Some(Step::Publish(id(2))));
    assert_eq!(outbound.next_step(), None);
    assert_eq!(outbound.handle_puback(id(1)).unwrap().order.seq, 1);
    assert!(outbound.handle_puback(id(1)).is_none());
    assert_eq!(outbound.next_step(), Some(Step::Publish(id(3))));
    outbound.check_invariants();
}

#[test]
fn a_new_connection_is_told_again_in_order_with_the_same_ids() {
    // [MQTT-4.4.0-1]
    let mut outbound = Outbound::new(0, LIMITS);
    for seq in 1..=3 {
        outbound.enqueue(entry(1, seq, QoS::ExactlyOnce)).unwrap();
    }
    outbound.connected(2);
    outbound.next_step();
    outbound.next_step();
    assert_eq!(outbound.publishing(id(1)), Some(false));
    assert!(matches!(outbound.handle_pubrec(id(1), true), Received::Release));
    outbound.disconnected();
    outbound.connected(2);
    assert_eq!(outbound.next_step(), Some(Step::ReleaseAgain(id(1))));
    assert_eq!(outbound.next_step(), Some(Step::PublishAgain(id(2))));
    assert_eq!(outbound.publishing(id(2)), Some(false), "it was never written");
    assert!(outbound.handle_pubcomp(id(2)).is_none(), "it is not released");
    assert!(outbound.handle_pubcomp(id(1)).is_some());
    outbound.check_invariants();
}

#[test]
fn a_held_queue_waits_for_the_import() {
    let mut outbound = Outbound::new(2, LIMITS);
    outbound.hold(Hold::Own);
    outbound.enqueue(entry(1, 5, QoS::AtLeastOnce)).unwrap();
    outbound.connected(10);
    assert_eq!(outbound.next_step(), None);
    outbound.push(entry(0, 7, QoS::AtLeastOnce));
    outbound.push_inflight(id(3), entry(0, 6, QoS::AtLeastOnce), InflightState::Published);
    assert_eq!(outbound.next_step(), Some(Step::PublishAgain(id(3))));
    assert_eq!(outbound.publishing(id(3)), Some(true));
    assert_eq!(outbound.next_step(), Some(Step::Publish(id(32_769))));
    assert_eq!(outbound.next_step(), None);
    outbound.hold(Hold::None);
    assert_eq!(outbound.next_step(), Some(Step::Publish(id(32_770))));
}

#[test]
fn imports_from_several_logs_wait_for_each_other_but_not_what_is_in_flight() {
    let mut outbound = Outbound::new(2, LIMITS);
    outbound.hold(Hold::All);
    outbound.connected(10);
    outbound.push(entry(0, 7, QoS::AtLeastOnce));
    outbound.push_inflight(id(3), entry(0, 9, QoS::AtLeastOnce), InflightState::Published);
    assert_eq!(outbound.next_step(), Some(Step::PublishAgain(id(3))));
    assert_eq!((outbound.next_step(), outbound.drop_front().is_none()), (None, true));
    outbound.push(entry(0, 5, QoS::AtLeastOnce));
    assert!(outbound.is_taken(OrderKey { lane: 0, seq: 5 }));
    assert!(!outbound.is_taken(OrderKey { lane: 0, seq: 6 }));
    outbound.hold(Hold::Own);
    assert_eq!(outbound.front().unwrap().order.seq, 5);
}

#[test]
fn a_full_queue_refuses_and_keeps_what_it_has() {
    let mut outbound = Outbound::new(0, LIMITS);
    for seq in 1..=4 {
        outbound.enqueue(entry(1, seq, QoS::AtLeastOnce)).unwrap();
    }
    let (refusal, back) = outbound.enqueue(entry(1, 5, QoS::AtLeastOnce)).unwrap_err();
    assert_eq!((refusal, back.order.seq, outbound.len()), (Refusal::Full, 5, 4));
}

#[test]
fn a_log_is_read_in_order_and_removed_by_prefix() {
    let mut outbound = Outbound::new(0, LIMITS);
    for seq in 1..=3 {
        outbound.enqueue(entry(1, seq, QoS::AtLeastOnce)).unwrap();
    }
    outbound.connected(1);
    outbound.next_step();
    let all: Vec<_> = outbound
        .after(OrderKey::default())
        .map(|(entry, flight)| (entry.order.seq, flight.map(|(id, _)| id.get())))
        .collect();
    assert_eq!(all, [(1, Some(1)), (2, None), (3, None)]);
    assert_eq!(outbound.remove_upto(OrderKey { lane: 1, seq: 2 }).len(), 2);
    assert_eq!(outbound.len(), 1);
    outbound.check_invariants();
}

fn id(raw: u16) -> PacketId {
    PacketId::new(raw).unwrap()
}

pub(in crate::session) fn entry(lane: u8, seq: u64, qos: QoS) -> Entry {
    let message = Message {
        id: MessageId { node: NodeKey(1), incarnation: 1, seq },
        publisher: "p".into(),
        stamp: Hlc(0),
        expires_at: None,
        topic: TopicName::parse("t").unwrap(),
        qos,
        retain: false,
        class: Class::Telemetry,
        properties: KeptProperties::default(),
        payload: Bytes::new(),
        row: None,
    };
    Entry {
        order: OrderKey { lane, seq },
        message: Arc::new(message),
        qos,
        retain: false,
        subscription_ids: SmallVec::new(),
        tag: StreamTag::CONTROL,
        stored: Stored::Nowhere,
        marked: false,
        share: None,
    }
}
