//! UNSUBSCRIBE and UNSUBACK (3.10, 3.11).

use crate::bench::Bench;
use crate::table::behaviours;
use crate::wire::bytes::{ack, packet, properties, text, u16be, unsubscribe};

behaviours! {
    an_unsubscribe_is_answered_filter_by_filter {
        5: ["2.2.1-6", "3.10.4-4", "3.10.4-5", "3.10.4-6", "3.11.3-1", "3.11.3-2"],
        4: ["2.3.1-7", "3.10.4-4", "3.10.4-5", "3.10.4-6"]
    }
    flags_of_unsubscribe_are_checked { 5: ["3.10.1-1"], 4: ["3.10.1-1"] }
    a_filter_of_unsubscribe_is_utf_8 { 5: ["3.10.3-1"], 4: ["3.10.3-1"] }
    an_unsubscribe_for_nothing_is_refused { 5: ["3.10.3-2"], 4: ["3.10.3-2"] }
    filters_are_compared_character_by_character { 5: ["3.10.4-1"], 4: ["3.10.4-1"] }
    nothing_new_comes_after_unsubscribe { 5: ["3.10.4-2"], 4: ["3.10.4-2"] }
    what_was_begun_is_finished_after_unsubscribe { 5: ["3.10.4-3"], 4: ["3.10.4-3"] }
}

fn an_unsubscribe_is_answered_filter_by_filter(bench: &Bench) {
    let mut wire = bench.client("filters");
    let topics = ["a", "b", "c"].map(|name| bench.topic(name));
    wire.subscribe(&topics[0], 0);
    wire.subscribe(&topics[2], 0);
    let filters: Vec<&str> = topics.iter().map(String::as_str).collect();
    wire.send(&unsubscribe(bench.version, 0xABCD, &filters));
    let reasons: &[u8] = if bench.is_v5() { &[0, 0x11, 0] } else { &[] };
    assert_eq!(wire.unsuback(0xABCD), reasons);
    for topic in &topics {
        wire.publish(topic, "x", 1);
    }
    wire.has_nothing();
}

fn flags_of_unsubscribe_are_checked(bench: &Bench) {
    for flags in [0b0000, 0b0011, 0b1010] {
        let mut wire = bench.client("flags");
        let mut bytes = unsubscribe(bench.version, 1, &["a"]);
        bytes[0] = 0xA0 | flags;
        wire.send(&bytes);
        wire.is_disconnected(0x81);
    }
}

fn a_filter_of_unsubscribe_is_utf_8(bench: &Bench) {
    for filter in [&b"\xFF"[..], b"a/\xED\xA0\x80", b"a\0b"] {
        let mut wire = bench.client("utf8");
        let body = [u16be(1), properties(bench.version, &[]), text(filter)].concat();
        wire.send(&packet(0xA2, &body));
        wire.is_disconnected(0x81);
    }
}

fn an_unsubscribe_for_nothing_is_refused(bench: &Bench) {
    let mut wire = bench.client("nothing");
    wire.send(&unsubscribe(bench.version, 1, &[]));
    wire.is_disconnected(0x82);
}

fn filters_are_compared_character_by_character(bench: &Bench) {
    let mut wire = bench.client("exact");
    let topic = bench.topic("a/b");
    for filter in ["a/b", "a/+", "#"] {
        wire.subscribe(&bench.topic(filter), 0);
    }
    // Those that match, or look alike, are not those that were made.
    let others = ["A/b", "a/B", "a/b/", "/a/b", "+/b", "a/#"].map(|name| bench.topic(name));
    let filters: Vec<&str> = others.iter().map(String::as_str).collect();
    wire.send(&unsubscribe(bench.version, 500, &filters));
    let reasons = wire.unsuback(500);
    assert!(reasons.iter().all(|reason| *reason == 0x11), "{reasons:x?}");
    wire.publish(&topic, "x", 1);
    wire.message();
    for filter in ["a/b", "a/+", "#"] {
        wire.send(&unsubscribe(bench.version, 501, &[&bench.topic(filter)]));
        assert!(wire.unsuback(501).iter().all(|reason| *reason == 0));
    }
}

fn nothing_new_comes_after_unsubscribe(bench: &Bench) {
    let topic = bench.topic("over");
    let mut wire = bench.client("over");
    wire.subscribe(&topic, 1);
    wire.send(&unsubscribe(bench.version, 500, &[&topic]));
    wire.unsuback(500);
    bench.client("publisher").publish(&topic, "x", 1);
    wire.has_nothing();
}

fn what_was_begun_is_finished_after_unsubscribe(bench: &Bench) {
    let topic = bench.topic("begun");
    let (mut wire, _) = bench.kept("begun");
    wire.subscribe(&topic, 2);
    let mut publisher = bench.client("publisher");
    publisher.publish(&topic, "one", 1);
    publisher.publish(&topic, "two", 2);
    let (one, two) = (wire.delivery(), wire.delivery());
    wire.send(&unsubscribe(bench.version, 500, &[&topic]));
    wire.unsuback(500);
    let id = two.id.expect("an id");
    wire.send(&ack(5, id, 0));
    wire.acknowledged(6, id);
    wire.send(&ack(7, id, 0));
    wire.receive_pong();
    wire.vanish();
    // The other one is still owed.
    let (mut wire, _) = bench.kept("begun");
    let again = wire.message();
    assert_eq!((again.id, again.dup), (one.id, true));
    wire.has_nothing();
}
