//! Delivery at each QoS, as receiver and as sender (4.3), and order (4.6).

use crate::bench::Bench;
use crate::table::behaviours;
use crate::wire::bytes::{ack, publish};
use crate::wire::received::Packet;

behaviours! {
    each_qos_has_its_acknowledgement {
        5: ["3.3.4-1", "4.3.2-4", "4.3.3-8", "4.3.3-11", "2.2.1-5", "3.4.2-1", "3.5.2-1",
            "3.7.2-1"],
        4: ["3.3.4-1", "4.3.2-2", "4.3.3-2", "2.3.1-6"]
    }
    a_packet_id_is_new_after_puback { 5: ["4.3.2-5"], 4: ["4.3.2-2"] }
    a_qos_2_message_sent_again_is_delivered_once { 5: ["4.3.3-10"], 4: ["4.3.3-2"] }
    a_packet_id_is_new_after_pubcomp { 5: ["4.3.3-12"], 4: ["4.3.3-2"] }
    a_pubrel_for_nothing_is_answered { 5: ["4.3.3-11", "3.7.2-1"], 4: ["4.3.3-2"] }
    messages_to_a_client_have_their_qos_and_an_id_of_their_own {
        5: ["2.2.1-4", "4.3.1-1", "4.3.2-1", "4.3.2-2", "4.3.3-1", "4.3.3-2"],
        4: ["2.3.1-1", "2.3.1-4", "4.3.1-1", "4.3.2-1", "4.3.3-1"]
    }
    pubrel_follows_pubrec {
        5: ["4.3.3-4", "4.3.3-6", "3.6.2-1", "2.2.1-5"], 4: ["4.3.3-1", "2.3.1-6"]
    }
    an_error_ends_the_exchange { 5: ["4.4.0-2", "4.3.3-4"], 4: [] }
    messages_of_a_topic_stay_in_order {
        5: ["4.6.0-5", "4.6.0-6"], 4: ["4.6.0-5", "4.6.0-6"]
    }
    acknowledgements_come_in_the_order_of_the_messages { 5: ["4.6.0-5"], 4: ["4.6.0-6"] }
}

fn each_qos_has_its_acknowledgement(bench: &Bench) {
    let mut wire = bench.client("acks");
    let topic = bench.topic("acks");
    wire.subscribe(&topic, 0);
    wire.send(&publish(bench.version, 0, &topic, 0, &[], "0"));
    assert!(matches!(wire.receive(), Packet::Publish(_)), "QoS 0 has none");
    wire.send(&publish(bench.version, 2, &topic, 0x1234, &[], "1"));
    assert_eq!(wire.acknowledged(4, 0x1234), 0);
    wire.send(&publish(bench.version, 4, &topic, 0xFFFF, &[], "2"));
    assert_eq!(wire.acknowledged(5, 0xFFFF), 0);
    wire.send(&ack(6, 0xFFFF, 0));
    assert_eq!(wire.acknowledged(7, 0xFFFF), 0);
    wire.texts(2);
    wire.has_nothing();
    // Nobody subscribed: 5.0 may say so.
    let nobody = bench.topic("nobody");
    let reason = wire.publish(&nobody, "x", 1);
    assert!(reason == 0 || bench.is_v5() && reason == 0x10);
}

fn a_packet_id_is_new_after_puback(bench: &Bench) {
    let topic = bench.topic("again");
    let mut wire = bench.client("again");
    wire.subscribe(&topic, 0);
    for (flags, text) in [(2, "one"), (2, "two"), (2 | 8, "three")] {
        wire.send(&publish(bench.version, flags, &topic, 500, &[], text));
        wire.acknowledged(4, 500);
    }
    assert_eq!(wire.texts(3), ["one", "two", "three"]);
}

fn a_qos_2_message_sent_again_is_delivered_once(bench: &Bench) {
    let topic = bench.topic("once");
    let mut wire = bench.client("once");
    wire.subscribe(&topic, 0);
    for flags in [4, 4 | 8, 4 | 8] {
        wire.send(&publish(bench.version, flags, &topic, 500, &[], "once"));
        assert_eq!(wire.acknowledged(5, 500), 0);
    }
    wire.send(&ack(6, 500, 0));
    assert_eq!(wire.acknowledged(7, 500), 0);
    wire.publish(&topic, "last", 1);
    assert_eq!(wire.texts(2), ["once", "last"]);
}

fn a_packet_id_is_new_after_pubcomp(bench: &Bench) {
    let topic = bench.topic("anew");
    let mut wire = bench.client("anew");
    wire.subscribe(&topic, 0);
    for text in ["one", "two"] {
        wire.send(&publish(bench.version, 4, &topic, 500, &[], text));
        wire.acknowledged(5, 500);
        wire.send(&ack(6, 500, 0));
        wire.acknowledged(7, 500);
    }
    assert_eq!(wire.texts(2), ["one", "two"]);
}

fn a_pubrel_for_nothing_is_answered(bench: &Bench) {
    let mut wire = bench.client("release");
    wire.send(&ack(6, 77, 0));
    let reason = wire.acknowledged(7, 77);
    assert_eq!(reason, if bench.is_v5() { 0x92 } else { 0 });
}

fn messages_to_a_client_have_their_qos_and_an_id_of_their_own(bench: &Bench) {
    let topic = bench.topic("ids");
    let mut wire = bench.client("ids");
    wire.subscribe(&topic, 2);
    let mut publisher = bench.client("publisher");
    for qos in [0, 1, 2, 1, 2, 0, 1, 2] {
        publisher.publish(&topic, "x", qos);
    }
    // None is acknowledged, so that no id may come twice.
    let mut ids = std::collections::BTreeSet::new();
    for qos in [0, 1, 2, 1, 2, 0, 1, 2] {
        let message = wire.delivery();
        assert_eq!((message.qos, message.dup), (qos, false));
        assert!(message.id.is_none_or(|id| ids.insert(id)), "an id twice");
    }
    assert_eq!(ids.len(), 6);
}

fn pubrel_follows_pubrec(bench: &Bench) {
    let topic = bench.topic("rel");
    let mut wire = bench.client("rel");
    wire.subscribe(&topic, 2);
    bench.client("publisher").publish(&topic, "x", 2);
    let id = wire.delivery().id.expect("an id");
    for _ in 0..2 {
        // A client may say it twice; the PUBLISH must not come again.
        wire.send(&ack(5, id, 0));
        let next = wire.receive();
        assert!(matches!(next, Packet::Ack { kind: 6, id: of, .. } if of == id), "{next:?}");
    }
    wire.send(&ack(7, id, 0));
    wire.has_nothing();
}

fn an_error_ends_the_exchange(bench: &Bench) {
    let topic = bench.topic("no");
    let (mut wire, _) = bench.kept("no");
    wire.subscribe(&topic, 2);
    let mut publisher = bench.client("publisher");
    for (qos, kind) in [(1, 4), (2, 5)] {
        publisher.publish(&topic, "unwanted", qos);
        let id = wire.delivery().id.expect("an id");
        wire.send(&ack(kind, id, 0x83));
        wire.has_nothing();
    }
    wire.disconnect();
    let (mut wire, connack) = bench.kept("no");
    assert!(connack.session_present);
    wire.has_nothing();
}

fn messages_of_a_topic_stay_in_order(bench: &Bench) {
    let topic = bench.topic("order");
    for qos in 0..=2 {
        let mut wire = bench.client("order");
        wire.subscribe(&topic, qos);
        let mut publisher = bench.client("publisher");
        let sent: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        for text in &sent {
            publisher.publish(&topic, text, qos);
        }
        assert_eq!(wire.texts(sent.len()), sent, "QoS {qos}");
    }
}

fn acknowledgements_come_in_the_order_of_the_messages(bench: &Bench) {
    let topic = bench.topic("acks");
    let mut wire = bench.client("order");
    let all: Vec<u8> =
        (1..=10).flat_map(|id| publish(bench.version, 2, &topic, id, &[], "x")).collect();
    wire.send(&all);
    for id in 1..=10 {
        let next = wire.receive();
        assert!(matches!(next, Packet::Ack { kind: 4, id: of, .. } if of == id), "{next:?}");
    }
}
