//! CONNACK: what a Server grants and says (3.1.2.11, 3.2), keep alive, and who may connect.

use crate::bench::{
    Bench, PACKET_BYTES_MAX, RECEIVE_MAXIMUM, STRICT_KEEP_ALIVE_SECS, TOPIC_ALIAS_MAXIMUM, connack,
    refusal,
};
use crate::table::behaviours;
use crate::wire::bytes::{USER_NAME, id, property, publish, text};
use crate::wire::received::Packet;

behaviours! {
    connack_comes_first_and_once {
        5: ["3.1.4-5", "3.2.0-1", "3.2.0-2", "3.2.2-1", "3.2.2-8"], 4: ["3.1.4-4", "3.2.0-1"]
    }
    connack_says_what_is_granted { 5: ["3.2.2-9", "3.2.2-15", "3.2.2-17"], 4: [] }
    a_silent_client_is_disconnected { 5: ["3.1.2-22", "3.2.2-22"], 4: ["3.1.2-24"] }
    a_longer_keep_alive_is_cut_and_told { 5: ["3.1.2-21", "3.2.2-21"], 4: [] }
    a_qos_that_is_not_granted_is_refused {
        5: ["3.2.2-9", "3.2.2-10", "3.2.2-11", "3.2.2-12"], 4: []
    }
    a_stranger_is_refused { 5: ["3.1.4-2"], 4: ["3.2.2-5"] }
    response_information_comes_only_if_asked_for { 5: ["3.1.2-28"], 4: [] }
    no_reasons_in_words_for_who_wants_none { 5: ["3.1.2-29"], 4: [] }
}

fn connack_comes_first_and_once(bench: &Bench) {
    // All at once: nothing may be answered before CONNECT is.
    let topic = bench.topic("first");
    let mut wire = bench.open();
    let hurried = [
        bench.connect("hurried").bytes(),
        publish(bench.version, 2, &topic, 1, &[], "x"),
        publish(bench.version, 4, &topic, 2, &[], "x"),
    ];
    wire.send(&hurried.concat());
    assert_eq!(connack(&mut wire).reason, 0);
    assert!(matches!(wire.receive(), Packet::Ack { kind: 4, id: 1, .. }));
    assert!(matches!(wire.receive(), Packet::Ack { kind: 5, id: 2, .. }));
    wire.has_nothing();
}

fn connack_says_what_is_granted(bench: &Bench) {
    let mut connect = bench.connect("granted");
    connect.keep_alive = 60;
    let (_wire, connack) = bench.accept(&connect);
    let number = |id| connack.properties.number(id);
    assert_eq!(number(id::RECEIVE_MAXIMUM), Some(u32::from(RECEIVE_MAXIMUM)));
    assert_eq!(number(id::MAXIMUM_PACKET_SIZE), Some(PACKET_BYTES_MAX as u32));
    assert_eq!(number(id::TOPIC_ALIAS_MAXIMUM), Some(u32::from(TOPIC_ALIAS_MAXIMUM)));
    // Absent where everything is supported: "QoS 2", and the client's own values.
    assert_eq!(number(id::MAXIMUM_QOS), None);
    assert_eq!(number(id::SERVER_KEEP_ALIVE), None);
    assert_eq!(connack.properties.text(id::ASSIGNED_CLIENT_ID), None);
}

fn a_silent_client_is_disconnected(bench: &Bench) {
    let mut connect = bench.connect("silent");
    connect.keep_alive = 1;
    let (mut wire, connack) = bench.accept(&connect);
    assert_eq!(connack.properties.number(id::SERVER_KEEP_ALIVE), None);
    wire.is_disconnected(0x8D);
}

fn a_longer_keep_alive_is_cut_and_told(bench: &Bench) {
    for (asked, told) in [(10, None), (600, Some(STRICT_KEEP_ALIVE_SECS))] {
        let mut connect = bench.connect("steady");
        connect.keep_alive = asked;
        let mut wire = bench.open_to(&bench.nodes.strict);
        wire.send(&connect.bytes());
        let said = connack(&mut wire).properties.number(id::SERVER_KEEP_ALIVE);
        assert_eq!(said, told.map(u32::from), "asked {asked}");
    }
}

fn a_qos_that_is_not_granted_is_refused(bench: &Bench) {
    let strict = &bench.nodes.strict;
    let mut wire = bench.open_to(strict);
    let mut connect = bench.connect("lower");
    connect.keep_alive = STRICT_KEEP_ALIVE_SECS;
    wire.send(&connect.bytes());
    let maximum = connack(&mut wire).properties.number(id::MAXIMUM_QOS);
    assert_eq!(maximum, Some(1), "Maximum QoS");
    // Any QoS may be asked for in SUBSCRIBE.
    let topic = bench.topic("lower");
    assert_eq!(wire.subscribe(&topic, 2), 1);
    wire.publish(&topic, "x", 1);
    assert_eq!(wire.message().qos, 1);
    let id = wire.next_id();
    wire.send(&publish(bench.version, 4, &topic, id, &[], "x"));
    wire.is_disconnected(0x9B);
    let mut wire = bench.open_to(strict);
    wire.send(&bench.connect("will").will(&topic, "x", 2, &[]).bytes());
    assert_eq!(refusal(&mut wire), Some(0x9B), "a Will of QoS 2");
}

fn a_stranger_is_refused(bench: &Bench) {
    let closed = &bench.nodes.closed;
    for (connect, v5, v4) in [
        (bench.connect("nobody"), 0x87, 5),
        (bench.connect("somebody").field(USER_NAME, &text("somebody")), 0x86, 4),
    ] {
        let mut wire = bench.open_to(closed);
        wire.send(&connect.bytes());
        assert_eq!(refusal(&mut wire), Some(if bench.is_v5() { v5 } else { v4 }));
    }
}

fn response_information_comes_only_if_asked_for(bench: &Bench) {
    for connect in
        [bench.connect("silent"), bench.connect("zero").with(property(id::REQUEST_RESPONSE, &[0]))]
    {
        let (_wire, connack) = bench.accept(&connect);
        assert_eq!(connack.properties.text(id::RESPONSE_INFORMATION), None);
    }
}

fn no_reasons_in_words_for_who_wants_none(bench: &Bench) {
    let connect = bench.connect("terse").with(property(id::REQUEST_PROBLEM, &[0]));
    let (mut wire, _) = bench.accept(&connect);
    let v = bench.version;
    // One of each answer, with a reason that could be explained.
    wire.send(&crate::wire::bytes::subscribe(v, 1, &[], &[("a/#/b", 0)]));
    wire.send(&crate::wire::bytes::unsubscribe(v, 2, &["no/such", "a/#/b"]));
    wire.send(&publish(v, 2, bench.topic("none"), 3, &[], "x"));
    wire.send(&publish(v, 4, bench.topic("none"), 4, &[], "x"));
    wire.send(&crate::wire::bytes::ack(6, 99, 0));
    for _ in 0..5 {
        let packet = wire.receive();
        let (Packet::Ack { properties, .. }
        | Packet::Suback { properties, .. }
        | Packet::Unsuback { properties, .. }) = &packet
        else {
            panic!("an acknowledgement was to come, not {packet:?}")
        };
        assert_eq!(properties.0, [], "{packet:?}");
    }
}
