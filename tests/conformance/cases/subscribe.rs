//! SUBSCRIBE and SUBACK (3.8, 3.9), and messages that several subscriptions match (3.3.4).

use crate::bench::Bench;
use crate::table::behaviours;
use crate::wire::bytes::{id, packet, properties, property, subscribe, text, u16be};

behaviours! {
    a_subscribe_is_answered_filter_by_filter {
        5: ["2.2.1-6", "3.8.4-1", "3.8.4-2", "3.8.4-5", "3.8.4-6", "3.8.4-7", "3.9.3-1",
            "3.9.3-2"],
        4: ["2.3.1-7", "3.8.4-1", "3.8.4-2", "3.8.4-4", "3.8.4-5", "3.9.3-1", "3.9.3-2"]
    }
    flags_of_subscribe_are_checked { 5: ["3.8.1-1"], 4: ["3.8.1-1"] }
    a_filter_of_subscribe_is_utf_8 { 5: ["3.8.3-1"], 4: ["3.8.3-1"] }
    a_subscribe_for_nothing_is_refused { 5: ["3.8.3-2"], 4: ["3.8.3-3"] }
    reserved_bits_of_options_are_refused { 5: ["3.8.3-5"], 4: ["3.8.3-4"] }
    wildcards_are_supported { 5: ["4.7.1-1"], 4: ["3.8.3-2"] }
    no_local_keeps_a_clients_own_messages_from_it { 5: ["3.8.3-3"], 4: [] }
    no_local_is_not_for_a_group { 5: ["3.8.3-4"], 4: [] }
    a_filter_subscribed_again_replaces_the_subscription { 5: ["3.8.4-3"], 4: ["3.8.4-3"] }
    a_message_comes_at_the_lower_qos { 5: ["3.8.4-8"], 4: ["3.8.4-6"] }
    overlapping_subscriptions_deliver_at_the_highest_qos { 5: ["3.3.4-2"], 4: ["3.3.5-1"] }
    subscription_ids_come_with_the_message {
        5: ["3.3.4-3", "3.3.4-4", "3.3.4-5"], 4: []
    }
}

fn a_subscribe_is_answered_filter_by_filter(bench: &Bench) {
    let mut wire = bench.client("filters");
    let topics = ["a", "b", "c"].map(|name| bench.topic(name));
    let filters = [(&*topics[0], 2), ("bad/#/filter", 1), (&*topics[1], 0), (&*topics[2], 1)];
    wire.send(&subscribe(bench.version, 0xABCD, &[], &filters));
    let failure = if bench.is_v5() { 0x8F } else { 0x80 };
    assert_eq!(wire.suback(0xABCD), [2, failure, 0, 1]);
    for (topic, qos) in topics.iter().zip([2, 0, 1]) {
        wire.publish(topic, "x", 2);
        let message = wire.message();
        assert_eq!((&message.topic, message.qos), (topic, qos));
    }
}

fn flags_of_subscribe_are_checked(bench: &Bench) {
    for flags in [0b0000, 0b0011, 0b1010] {
        let mut wire = bench.client("flags");
        let mut bytes = subscribe(bench.version, 1, &[], &[("a", 0)]);
        bytes[0] = 0x80 | flags;
        wire.send(&bytes);
        wire.is_disconnected(0x81);
    }
}

fn a_filter_of_subscribe_is_utf_8(bench: &Bench) {
    for filter in [&b"\xFF"[..], b"a/\xED\xA0\x80", b"a\0b"] {
        let mut wire = bench.client("utf8");
        let head = [u16be(1), properties(bench.version, &[])].concat();
        wire.send(&packet(0x82, &[&head[..], &text(filter), &[0]].concat()));
        wire.is_disconnected(0x81);
    }
}

fn a_subscribe_for_nothing_is_refused(bench: &Bench) {
    let mut wire = bench.client("nothing");
    wire.send(&subscribe(bench.version, 1, &[], &[]));
    wire.is_disconnected(0x82);
    // A filter without its options is half of a pair.
    let mut wire = bench.client("half");
    let body = [u16be(1), properties(bench.version, &[]), text("a")].concat();
    wire.send(&packet(0x82, &body));
    wire.is_disconnected(0x81);
}

fn reserved_bits_of_options_are_refused(bench: &Bench) {
    let mut wrong = vec![0b1000_0000, 0b0100_0000];
    if !bench.is_v5() {
        wrong.extend([0b0000_0100, 0b0000_1000, 0b0001_0000, 0b0000_0011]);
    }
    for options in wrong {
        let mut wire = bench.client("bits");
        wire.send(&subscribe(bench.version, 1, &[], &[("a", options)]));
        wire.is_disconnected(0x81);
    }
    if bench.is_v5() {
        for options in [0b0000_0011, 0b0011_0000] {
            let mut wire = bench.client("bits");
            wire.send(&subscribe(bench.version, 1, &[], &[("a", options)]));
            wire.is_disconnected(0x82);
        }
    }
}

fn wildcards_are_supported(bench: &Bench) {
    let mut wire = bench.client("wild");
    for filter in ["+/x", "#", "a/+/#", "/+", "+", "+/+"] {
        assert_eq!(wire.subscribe(&bench.topic(filter), 0), 0, "{filter}");
    }
}

fn no_local_keeps_a_clients_own_messages_from_it(bench: &Bench) {
    let topic = bench.topic("echo");
    let mut wire = bench.client("narcissus");
    wire.subscribe(&topic, 1 | 0b100);
    wire.publish(&topic, "own", 1);
    bench.client("other").publish(&topic, "another's", 1);
    assert_eq!(wire.texts(1), ["another's"]);
    wire.has_nothing();
}

fn no_local_is_not_for_a_group(bench: &Bench) {
    let mut wire = bench.client("group");
    let filter = format!("$share/g/{}", bench.topic("a"));
    wire.send(&subscribe(bench.version, 1, &[], &[(&filter, 0b100)]));
    wire.is_disconnected(0x82);
}

fn a_filter_subscribed_again_replaces_the_subscription(bench: &Bench) {
    let topic = bench.topic("replaced");
    let mut wire = bench.client("replaced");
    wire.subscribe(&topic, 2);
    wire.subscribe(&topic, 0);
    wire.publish(&topic, "x", 2);
    assert_eq!(wire.message().qos, 0);
    wire.has_nothing();
    wire.retain(&topic, "kept", 1);
    wire.texts(1);
    wire.subscribe(&topic, 1);
    let again = wire.message();
    assert_eq!((again.text(), again.retain), ("kept".to_owned(), true));
    wire.retain(&topic, "", 1);
}

fn a_message_comes_at_the_lower_qos(bench: &Bench) {
    let topic = bench.topic("lower");
    let mut publisher = bench.client("publisher");
    for granted in 0..=2 {
        let mut wire = bench.client("lower");
        assert_eq!(wire.subscribe(&topic, granted), granted);
        for published in 0..=2 {
            publisher.publish(&topic, "x", published);
            assert_eq!(wire.message().qos, granted.min(published));
        }
    }
}

fn overlapping_subscriptions_deliver_at_the_highest_qos(bench: &Bench) {
    let mut wire = bench.client("overlap");
    wire.subscribe(&bench.topic("#"), 0);
    wire.subscribe(&bench.topic("a/+"), 2);
    wire.subscribe(&bench.topic("a/b"), 1);
    let mut publisher = bench.client("publisher");
    publisher.publish(&bench.topic("a/b"), "x", 2);
    publisher.publish(&bench.topic("end"), "end", 0);
    let mut highest = 0;
    let mut copies = 0;
    loop {
        let message = wire.message();
        if message.text() == "end" {
            break;
        }
        highest = highest.max(message.qos);
        copies += 1;
    }
    assert_eq!(highest, 2);
    assert!((1..=3).contains(&copies), "one, or one for each subscription: {copies}");
}

fn subscription_ids_come_with_the_message(bench: &Bench) {
    let mut wire = bench.client("ids");
    let number =
        |number: u32| property(id::SUBSCRIPTION_ID, &crate::wire::bytes::varint(number as usize));
    wire.subscribe_with(&bench.topic("#"), 0, &number(1));
    wire.subscribe_with(&bench.topic("a/+"), 1, &number(268_435_455));
    wire.subscribe(&bench.topic("a/b"), 1);
    let mut publisher = bench.client("publisher");
    publisher.publish(&bench.topic("a/b"), "x", 1);
    publisher.publish(&bench.topic("end"), "end", 1);
    let mut seen = Vec::new();
    loop {
        let message = wire.message();
        let ids = message.properties.numbers(id::SUBSCRIPTION_ID);
        if message.text() == "end" {
            assert_eq!(ids, [1]);
            break;
        }
        seen.extend(ids);
    }
    seen.sort_unstable();
    assert_eq!(seen, [1, 268_435_455]);
}
