//! Receive Maximum and Maximum Packet Size, both ways (3.1.2.11, 3.3.4, 4.9).

use crate::bench::{Bench, PACKET_BYTES_MAX, RECEIVE_MAXIMUM, connack};
use crate::table::behaviours;
use crate::wire::bytes::{PINGREQ, ack, id, property, publish, subscribe, unsubscribe};
use crate::wire::received::Packet;

behaviours! {
    no_more_than_the_clients_receive_maximum_is_sent {
        5: ["3.3.4-9", "4.9.0-1", "4.9.0-2"], 4: []
    }
    a_full_window_delays_messages_only { 5: ["3.3.4-10", "4.9.0-3"], 4: [] }
    more_than_the_granted_receive_maximum_ends_the_connection { 5: ["3.3.4-7"], 4: [] }
    finished_exchanges_make_room { 5: ["3.3.4-7", "4.9.0-2"], 4: [] }
    a_message_too_large_for_the_client_is_left_out { 5: ["3.1.2-24", "3.1.2-25"], 4: [] }
    words_are_left_out_where_they_do_not_fit {
        5: ["3.1.2-24", "3.2.2-19", "3.2.2-20", "3.4.2-2", "3.4.2-3", "3.5.2-2", "3.5.2-3",
            "3.6.2-2", "3.6.2-3", "3.7.2-2", "3.7.2-3", "3.9.2-1", "3.9.2-2", "3.11.2-1",
            "3.11.2-2", "3.14.2-3", "3.14.2-4"],
        4: []
    }
    a_packet_too_large_for_the_server_ends_the_connection { 5: ["3.2.2-15"], 4: ["4.8.0-1"] }
    a_ping_is_answered { 5: ["3.12.4-1"], 4: ["3.12.4-1"] }
}

/// Receive Maximum of a client.
fn receive_maximum(number: u16) -> Vec<u8> {
    property(id::RECEIVE_MAXIMUM, &number.to_be_bytes())
}

fn no_more_than_the_clients_receive_maximum_is_sent(bench: &Bench) {
    let topic = bench.topic("window");
    for qos in [1, 2] {
        let (mut wire, _) = bench.accept(&bench.connect("window").with(receive_maximum(2)));
        wire.subscribe(&topic, 2);
        let mut publisher = bench.client("publisher");
        for text in ["one", "two", "three", "four"] {
            publisher.publish(&topic, text, qos);
        }
        let (one, two) = (wire.delivery(), wire.delivery());
        wire.has_nothing();
        // Each that is done makes room for one: after PUBACK, or PUBCOMP.
        if qos == 2 {
            let id = one.id.expect("an id");
            wire.send(&ack(5, id, 0));
            wire.acknowledged(6, id);
            wire.has_nothing();
            wire.send(&ack(7, id, 0));
        } else {
            wire.take(&one);
        }
        let three = wire.delivery();
        wire.has_nothing();
        wire.take(&two);
        let four = wire.delivery();
        wire.take(&three);
        wire.take(&four);
        assert_eq!(four.text(), "four");
        wire.has_nothing();
    }
}

fn a_full_window_delays_messages_only(bench: &Bench) {
    let topic = bench.topic("full");
    let (mut wire, _) = bench.accept(&bench.connect("full").with(receive_maximum(1)));
    wire.subscribe(&topic, 1);
    let mut publisher = bench.client("publisher");
    publisher.publish(&topic, "one", 1);
    publisher.publish(&topic, "two", 1);
    let one = wire.delivery();
    // Everything else goes on.
    wire.send(&PINGREQ);
    assert_eq!(wire.receive(), Packet::Pingresp);
    assert_eq!(wire.subscribe(&bench.topic("other"), 0), 0);
    wire.publish(&bench.topic("out"), "x", 2);
    publisher.publish(&bench.topic("other"), "QoS 0", 0);
    assert_eq!(wire.delivery().text(), "QoS 0", "only QoS 1 and 2 wait");
    wire.take(&one);
    assert_eq!(wire.texts(1), ["two"]);
}

fn more_than_the_granted_receive_maximum_ends_the_connection(bench: &Bench) {
    let mut wire = bench.client("flood");
    let topic = bench.topic("flood");
    // QoS 2 messages that are not released.
    for number in 1..=RECEIVE_MAXIMUM {
        wire.send(&publish(bench.version, 4, &topic, number, &[], "x"));
        wire.acknowledged(5, number);
    }
    wire.receive_pong();
    wire.send(&publish(bench.version, 4, &topic, RECEIVE_MAXIMUM + 1, &[], "x"));
    wire.is_disconnected(0x93);
}

fn finished_exchanges_make_room(bench: &Bench) {
    let mut wire = bench.client("busy");
    let topic = bench.topic("busy");
    for round in 0..RECEIVE_MAXIMUM * 3 {
        wire.publish(&topic, "x", 1 + (round % 2) as u8);
    }
    wire.has_nothing();
}

fn a_message_too_large_for_the_client_is_left_out(bench: &Bench) {
    let size = property(id::MAXIMUM_PACKET_SIZE, &200_u32.to_be_bytes());
    let topic = bench.topic("large");
    let (mut wire, _) =
        bench.accept(&bench.connect("small").kept().with(size).with(receive_maximum(1)));
    wire.subscribe(&topic, 2);
    let mut publisher = bench.client("publisher");
    let large = "x".repeat(200);
    for qos in [1, 2, 0] {
        publisher.publish(&topic, &large, qos);
        publisher.publish(&topic, "small", qos);
        // It took none of the window either.
        assert_eq!(wire.texts(1), ["small"], "QoS {qos}");
    }
    wire.has_nothing();
    wire.vanish();
    // To the session it is as if it had been sent.
    let (mut wire, _) = bench.kept("small");
    wire.has_nothing();
}

fn a_packet_too_large_for_the_server_ends_the_connection(bench: &Bench) {
    let topic = bench.topic("large");
    let mut wire = bench.client("large");
    wire.subscribe(&topic, 0);
    let overhead = 2 + topic.len() + 4 + usize::from(bench.is_v5());
    let largest = "x".repeat(PACKET_BYTES_MAX - overhead);
    let bytes = publish(bench.version, 0, &topic, 0, &[], &largest);
    assert_eq!(bytes.len(), PACKET_BYTES_MAX);
    wire.send(&bytes);
    assert_eq!(wire.message().payload.len(), largest.len());
    wire.send(&publish(bench.version, 0, &topic, 0, &[], format!("{largest}x"))[..10]);
    wire.is_disconnected(0x95);
}

fn a_ping_is_answered(bench: &Bench) {
    let mut wire = bench.client("ping");
    wire.send(&[PINGREQ, PINGREQ, PINGREQ].concat());
    for _ in 0..3 {
        assert_eq!(wire.receive(), Packet::Pingresp);
    }
}

fn words_are_left_out_where_they_do_not_fit(bench: &Bench) {
    let v = bench.version;
    let topic = bench.topic("t");
    // CONNACK fits into 40 bytes without words; acknowledgements fit into as few as they need.
    for limit in [40, 41, 64, 200] {
        let size = property(id::MAXIMUM_PACKET_SIZE, &u32::to_be_bytes(limit));
        let mut wire = bench.open();
        wire.packet_bytes_max = limit as usize;
        wire.send(&bench.connect("small").with(size).bytes());
        connack(&mut wire);
        wire.send(&subscribe(v, 1, &[], &[("a/#/b", 0), ("$share/g", 0)]));
        assert_eq!(wire.suback(1), [0x8F, 0x8F]);
        wire.send(&unsubscribe(v, 2, &["no/such", "a/#/b"]));
        assert_eq!(wire.unsuback(2), [0x11, 0x8F]);
        wire.send(&publish(v, 2, &topic, 3, &[], "x"));
        wire.acknowledged(4, 3);
        wire.send(&publish(v, 4, &topic, 4, &[], "x"));
        wire.acknowledged(5, 4);
        wire.send(&ack(6, 99, 0));
        wire.acknowledged(7, 99);
        // A PUBREC for nothing is answered by PUBREL.
        wire.send(&ack(5, 98, 0));
        wire.acknowledged(6, 98);
        wire.has_nothing();
        wire.send(&bench.connect("small").bytes());
        wire.is_disconnected(0x82);
    }
}
