//! PUBLISH: its header, its properties, topic aliases (3.3).

use crate::bench::{Bench, TOPIC_ALIAS_MAXIMUM};
use crate::table::behaviours;
use crate::time::{millis, pause};
use crate::wire::bytes::{id, packet, properties, property, publish, text, user_property};
use crate::wire::received::Value;

behaviours! {
    qos_3_is_refused { 5: ["3.3.1-4"], 4: ["3.3.1-4"] }
    dup_at_qos_0_is_refused { 5: ["3.3.1-2"], 4: ["3.3.1-2"] }
    dup_is_not_passed_on { 5: ["3.3.1-3", "3.3.1-2"], 4: ["3.3.1-3", "3.3.1-2"] }
    a_topic_name_with_a_wildcard_is_refused {
        5: ["3.3.2-2", "4.7.0-1"], 4: ["3.3.2-2", "4.7.1-1"]
    }
    a_topic_name_is_there_and_utf_8 {
        5: ["3.3.2-1", "1.5.4-1", "1.5.4-2", "4.7.3-2"],
        4: ["3.3.2-1", "1.5.3-1", "1.5.3-2", "4.7.3-2"]
    }
    packet_id_0_is_refused { 5: ["2.2.1-3"], 4: ["2.3.1-1"] }
    qos_0_has_no_packet_id { 5: ["2.2.1-2"], 4: ["2.3.1-5"] }
    a_message_comes_with_the_topic_and_payload_it_was_sent_with {
        5: ["3.3.2-3", "1.5.4-3"], 4: ["3.3.2-3", "1.5.3-3"]
    }
    properties_are_passed_on_unaltered {
        5: ["3.3.2-4", "3.3.2-15", "3.3.2-16", "3.3.2-17", "3.3.2-18", "3.3.2-20"], 4: []
    }
    a_response_topic_is_a_topic_name { 5: ["3.3.2-13", "3.3.2-14"], 4: [] }
    a_content_type_is_utf_8 { 5: ["3.3.2-19"], 4: [] }
    user_properties_are_utf_8 { 5: ["1.5.7-1"], 4: [] }
    an_expired_message_is_not_delivered { 5: ["3.3.2-5"], 4: [] }
    what_is_left_of_the_expiry_interval_is_passed_on { 5: ["3.3.2-6"], 4: [] }
    every_granted_alias_is_taken { 5: ["3.3.2-12"], 4: [] }
    alias_0_and_more_than_granted_are_refused { 5: ["3.3.2-8", "3.3.2-9", "3.2.2-17"], 4: [] }
    an_alias_ends_with_its_connection { 5: ["3.3.2-7"], 4: [] }
    no_alias_for_a_client_that_takes_none { 5: ["3.1.2-27"], 4: [] }
    no_alias_above_what_the_client_takes { 5: ["3.1.2-26", "3.3.2-11"], 4: [] }
    a_subscription_id_from_a_client_is_refused { 5: ["3.3.4-6"], 4: [] }
}

fn qos_3_is_refused(bench: &Bench) {
    let mut wire = bench.client("qos3");
    wire.send(&publish(bench.version, 6, bench.topic("a"), 1, &[], "x"));
    wire.is_disconnected(0x81);
}

fn dup_at_qos_0_is_refused(bench: &Bench) {
    let mut wire = bench.client("dup");
    wire.send(&publish(bench.version, 8, bench.topic("a"), 1, &[], "x"));
    wire.is_disconnected(0x81);
}

fn dup_is_not_passed_on(bench: &Bench) {
    let topic = bench.topic("dup");
    let mut subscriber = bench.client("sub");
    subscriber.subscribe(&topic, 2);
    let mut publisher = bench.client("pub");
    for flags in [2 | 8, 4 | 8] {
        publisher.publish_with(&topic, "again", flags, &[]);
        assert!(!subscriber.message().dup, "it is the server's first attempt");
    }
}

fn a_topic_name_with_a_wildcard_is_refused(bench: &Bench) {
    for topic in ["a/#", "a/+/b", "#", "+", "a+", "a#"] {
        let mut wire = bench.client("wild");
        wire.send(&publish(bench.version, 2, topic, 1, &[], "x"));
        wire.is_disconnected(0x90);
    }
}

fn a_topic_name_is_there_and_utf_8(bench: &Bench) {
    let v = bench.version;
    let bad: [&[u8]; 4] = [b"\xFF", b"\xC0\xAF", b"\xED\xA0\x80", b"a\0b"];
    for topic in bad {
        let mut wire = bench.client("utf8");
        wire.send(&publish(v, 0, topic, 0, &[], "x"));
        wire.is_disconnected(0x81);
    }
    let mut wire = bench.client("cut");
    wire.send(&packet(0x30, &[0, 9, b'a']));
    wire.is_disconnected(0x81);
    let mut wire = bench.client("none");
    wire.send(&packet(0x30, &[]));
    wire.is_disconnected(0x81);
}

fn packet_id_0_is_refused(bench: &Bench) {
    let v = bench.version;
    let zero = [
        publish(v, 2, bench.topic("a"), 0, &[], "x"),
        publish(v, 4, bench.topic("a"), 0, &[], "x"),
        crate::wire::bytes::subscribe(v, 0, &[], &[("a", 0)]),
        crate::wire::bytes::unsubscribe(v, 0, &["a"]),
    ];
    for bytes in zero {
        let mut wire = bench.client("zero");
        wire.send(&bytes);
        wire.is_disconnected(0x82);
    }
}

fn qos_0_has_no_packet_id(bench: &Bench) {
    let topic = bench.topic("bare");
    let mut wire = bench.client("bare");
    wire.subscribe(&topic, 2);
    // Were there one, it would be read as the beginning of what follows.
    let head = [text(&topic), properties(bench.version, &[])].concat();
    wire.send(&packet(0x30, &[&head[..], b"\0\x07payload"].concat()));
    let message = wire.message();
    assert_eq!((message.qos, &message.payload[..]), (0, &b"\0\x07payload"[..]));
}

fn a_message_comes_with_the_topic_and_payload_it_was_sent_with(bench: &Bench) {
    let mut wire = bench.client("same");
    wire.subscribe(&bench.topic("#"), 0);
    for name in ["\u{FEFF}bom", "bom\u{FEFF}", "ü/日本/🚗", " spaces ", "//", "$in/side"] {
        let topic = bench.topic(name);
        for payload in ["", "x", "\u{FEFF}", &"long ".repeat(1_000)] {
            wire.publish(&topic, payload, 0);
            let message = wire.message();
            assert_eq!((message.topic.as_str(), message.text().as_str()), (&*topic, payload));
        }
    }
}

fn properties_are_passed_on_unaltered(bench: &Bench) {
    let topic = bench.topic("properties");
    let mut wire = bench.client("properties");
    wire.subscribe(&topic, 2);
    let pairs = [("z", "1"), ("a", "2"), ("z", "1"), ("", "empty name"), ("ü", "ß")];
    for payload_format in [0, 1] {
        let mut said: Vec<u8> = Vec::new();
        said.extend(user_property(pairs[0].0, pairs[0].1));
        said.extend(property(id::PAYLOAD_FORMAT, &[payload_format]));
        said.extend(property(id::RESPONSE_TOPIC, &text("answers/here")));
        said.extend(property(id::CORRELATION_DATA, &text([0, 1, 0xFF])));
        said.extend(property(id::CONTENT_TYPE, &text("application/json")));
        said.extend(pairs[1..].iter().flat_map(|(name, value)| user_property(name, value)));
        for qos in 0..=2 {
            wire.publish_with(&topic, "{}", qos << 1, &said);
            let got = wire.message().properties;
            assert_eq!(got.number(id::PAYLOAD_FORMAT), Some(u32::from(payload_format)));
            assert_eq!(got.text(id::RESPONSE_TOPIC), Some("answers/here"));
            assert_eq!(got.text(id::CONTENT_TYPE), Some("application/json"));
            let data = got.all(id::CORRELATION_DATA).next();
            assert_eq!(data, Some(&Value::Bytes(vec![0, 1, 0xFF])));
            assert_eq!(got.pairs(), pairs);
        }
    }
}

/// A PUBLISH with one property that makes the server end the connection.
fn refused_with(bench: &Bench, said: &[u8]) -> Vec<u8> {
    let mut wire = bench.client("refused");
    wire.send(&publish(bench.version, 0, bench.topic("a"), 0, said, "x"));
    let words = wire.last_words();
    let [crate::wire::received::Packet::Disconnect { reason, .. }] = &words[..] else {
        panic!("one DISCONNECT was to come, not {words:?}")
    };
    vec![*reason]
}

fn a_response_topic_is_a_topic_name(bench: &Bench) {
    for topic in ["a/#", "+"] {
        let reason = refused_with(bench, &property(id::RESPONSE_TOPIC, &text(topic)));
        assert!(matches!(reason[..], [0x82 | 0x90]), "{topic}: {reason:x?}");
    }
    assert_eq!(refused_with(bench, &property(id::RESPONSE_TOPIC, &text(b"\xFF"))), [0x81]);
}

fn a_content_type_is_utf_8(bench: &Bench) {
    assert_eq!(refused_with(bench, &property(id::CONTENT_TYPE, &text(b"\xFF"))), [0x81]);
}

fn user_properties_are_utf_8(bench: &Bench) {
    let bad = text(b"\xED\xA0\x80");
    for pair in [[bad.clone(), text("value")], [text("name"), bad.clone()]] {
        let pair = property(id::USER_PROPERTY, &pair.concat());
        assert_eq!(refused_with(bench, &pair), [0x81]);
    }
    let null = property(id::USER_PROPERTY, &[text("a\0b"), text("value")].concat());
    assert_eq!(refused_with(bench, &null), [0x81]);
}

/// A message that lives for some seconds.
fn lives(secs: u32) -> Vec<u8> {
    property(id::MESSAGE_EXPIRY, &secs.to_be_bytes())
}

fn an_expired_message_is_not_delivered(bench: &Bench) {
    let topic = bench.topic("expiry");
    let (mut late, _) = bench.kept("late");
    late.subscribe(&topic, 1);
    late.disconnect();
    let mut publisher = bench.client("publisher");
    publisher.publish_with(&topic, "stale", 2, &lives(1));
    publisher.publish_with(&topic, "fresh", 2, &lives(1_000));
    publisher.publish_with(&format!("{topic}/kept"), "stale", 3, &lives(1));
    pause(millis(2_200));
    let (mut late, _) = bench.kept("late");
    assert_eq!(late.texts(1), ["fresh"]);
    late.subscribe(&format!("{topic}/kept"), 1);
    late.has_nothing();
}

fn what_is_left_of_the_expiry_interval_is_passed_on(bench: &Bench) {
    let topic = bench.topic("left");
    let (mut late, _) = bench.kept("late");
    late.subscribe(&topic, 1);
    late.disconnect();
    let mut publisher = bench.client("publisher");
    publisher.publish_with(&topic, "x", 2, &lives(1_000));
    publisher.publish(&topic, "for ever", 1);
    pause(millis(2_200));
    let (mut late, _) = bench.kept("late");
    let left = late.message().properties.number(id::MESSAGE_EXPIRY).expect("an expiry interval");
    assert!(left < 1_000, "{left}");
    assert_eq!(late.message().properties.number(id::MESSAGE_EXPIRY), None);
}

/// A topic alias.
fn alias(alias: u16) -> Vec<u8> {
    property(id::TOPIC_ALIAS, &alias.to_be_bytes())
}

fn every_granted_alias_is_taken(bench: &Bench) {
    let mut wire = bench.client("aliases");
    wire.subscribe(&bench.topic("#"), 0);
    let topic = |number: u16| bench.topic(&number.to_string());
    for number in 1..=TOPIC_ALIAS_MAXIMUM {
        wire.publish_with(&topic(number), "set", 0, &alias(number));
        assert_eq!(wire.message().topic, topic(number));
    }
    for number in (1..=TOPIC_ALIAS_MAXIMUM).rev() {
        wire.publish_with("", "used", 0, &alias(number));
        assert_eq!(wire.message().topic, topic(number));
    }
    // It may be given another topic.
    wire.publish_with(&topic(99), "moved", 0, &alias(1));
    wire.publish_with("", "used", 0, &alias(1));
    assert_eq!(wire.message().topic, topic(99));
    assert_eq!(wire.message().topic, topic(99));
}

fn alias_0_and_more_than_granted_are_refused(bench: &Bench) {
    for number in [0, TOPIC_ALIAS_MAXIMUM + 1, u16::MAX] {
        assert_eq!(refused_with(bench, &alias(number)), [0x94], "{number}");
    }
}

fn an_alias_ends_with_its_connection(bench: &Bench) {
    let (mut wire, _) = bench.kept("forgetful");
    wire.publish_with(&bench.topic("a"), "set", 2, &alias(1));
    wire.disconnect();
    let (mut wire, connack) = bench.kept("forgetful");
    assert!(connack.session_present);
    wire.send(&publish(bench.version, 0, "", 0, &alias(1), "used"));
    let words = wire.last_words();
    let [crate::wire::received::Packet::Disconnect { reason: 0x82 | 0x94, .. }] = &words[..] else {
        panic!("the alias is unknown: {words:?}")
    };
}

fn no_alias_for_a_client_that_takes_none(bench: &Bench) {
    let topic = bench.topic("busy");
    let mut wire = bench.client("plain");
    wire.subscribe(&topic, 0);
    for _ in 0..20 {
        wire.publish(&topic, "x", 1);
        let message = wire.message();
        assert_eq!(message.properties.number(id::TOPIC_ALIAS), None);
        assert_eq!(message.topic, topic);
    }
}

fn no_alias_above_what_the_client_takes(bench: &Bench) {
    const TAKEN: u16 = 2;
    let maximum = property(id::TOPIC_ALIAS_MAXIMUM, &TAKEN.to_be_bytes());
    let (mut wire, _) = bench.accept(&bench.connect("two").with(maximum));
    wire.subscribe(&bench.topic("#"), 0);
    let mut known = std::collections::BTreeMap::new();
    for round in 0..60 {
        let topic = bench.topic(&format!("busy/{}", round % 5));
        wire.publish(&topic, "x", 0);
        let mut message = wire.message();
        if let Some(alias) = message.properties.number(id::TOPIC_ALIAS) {
            assert!((1..=u32::from(TAKEN)).contains(&alias), "alias {alias}");
            if message.topic.is_empty() {
                message.topic = String::clone(&known[&alias]);
            } else {
                known.insert(alias, message.topic.clone());
            }
        }
        assert_eq!(message.topic, topic);
    }
}

fn a_subscription_id_from_a_client_is_refused(bench: &Bench) {
    assert_eq!(refused_with(bench, &property(id::SUBSCRIPTION_ID, &[1])), [0x82]);
}
