//! The form of every packet (1.5, 2), and what becomes of one that is not of it (4.13).

use crate::bench::Bench;
use crate::table::behaviours;
use crate::wire::bytes::{ack, packet, property, publish, text, u16be};

behaviours! {
    reserved_flags_are_checked_in_every_packet {
        5: ["2.1.3-1", "3.6.1-1", "3.14.1-1", "3.15.1-1"], 4: ["2.2.2-1", "2.2.2-2", "3.6.1-1", "3.14.1-1"]
    }
    packet_types_that_do_not_exist_end_the_connection { 5: ["4.13.1-1"], 4: ["4.8.0-1"] }
    packets_of_a_server_end_the_connection { 5: ["4.13.1-1"], 4: ["4.8.0-1"] }
    a_length_is_written_in_the_fewest_bytes { 5: ["1.5.5-1"], 4: ["4.8.0-1"] }
    a_packet_has_a_property_length { 5: ["2.2.2-1"], 4: [] }
    properties_are_those_of_their_packet { 5: ["4.13.1-1"], 4: [] }
    what_is_cut_short_or_too_long_ends_the_connection { 5: ["4.13.1-1"], 4: ["4.8.0-1"] }
    auth_without_a_method_ends_the_connection { 5: ["4.12.0-7", "4.12.0-6"], 4: ["4.8.0-1"] }
}

fn reserved_flags_are_checked_in_every_packet(bench: &Bench) {
    let id = [0, 1];
    for (kind, flags, body) in
        [(4, 0, &id[..]), (5, 0, &id), (6, 0b10, &id), (7, 0, &id), (12, 0, &[]), (14, 0, &[])]
    {
        for bit in [0b0001, 0b0010, 0b0100, 0b1000] {
            let mut wire = bench.client("flags");
            wire.send(&packet(kind << 4 | (flags ^ bit), body));
            wire.is_disconnected(0x81);
        }
    }
}

fn packet_types_that_do_not_exist_end_the_connection(bench: &Bench) {
    let mut wire = bench.client("zero");
    wire.send(&packet(0, &[]));
    wire.is_disconnected(0x81);
    if !bench.is_v5() {
        let mut wire = bench.client("fifteen");
        wire.send(&packet(0xF0, &[]));
        wire.is_closed();
    }
}

fn packets_of_a_server_end_the_connection(bench: &Bench) {
    for bytes in [
        packet(0x20, &[0, 0, 0]),
        packet(0x90, &[0, 1, 0, 0]),
        packet(0xB0, &[0, 1, 0, 0]),
        packet(0xD0, &[]),
    ] {
        let mut wire = bench.client("server");
        wire.send(&bytes);
        wire.is_disconnected(0x82);
    }
}

fn a_length_is_written_in_the_fewest_bytes(bench: &Bench) {
    // PINGREQ with a length in five bytes.
    let mut wire = bench.client("length");
    wire.send(&[0xC0, 0x80, 0x80, 0x80, 0x80, 0x01]);
    wire.is_disconnected(0x81);
    if bench.is_v5() {
        // And with a length of 0 in two, which 3.1.1 does not forbid.
        let mut wire = bench.client("length");
        wire.send(&[0xC0, 0x80, 0x00]);
        wire.is_disconnected(0x81);
        // The same for the length of properties.
        let topic = bench.topic("a");
        let mut wire = bench.client("length");
        wire.send(&packet(0x30, &[text(topic), vec![0x80, 0x00]].concat()));
        wire.is_disconnected(0x81);
    }
}

fn a_packet_has_a_property_length(bench: &Bench) {
    // SUBSCRIBE in the form of 3.1.1: the filter's length stands where that of properties belongs.
    let mut wire = bench.client("none");
    wire.send(&packet(0x82, &[u16be(1), text("aaaa"), vec![0]].concat()));
    assert!(!wire.last_words().is_empty());
    let mut wire = bench.client("none");
    wire.send(&packet(0x30, &text("a")));
    wire.is_disconnected(0x81);
    // PUBACK may end after its id, or after its reason.
    let mut wire = bench.client("short");
    for body in [&[0, 9][..], &[0, 9, 0x10], &[0, 9, 0x10, 0]] {
        wire.send(&packet(0x40, body));
        wire.has_nothing();
    }
}

fn properties_are_those_of_their_packet(bench: &Bench) {
    let topic = bench.topic("a");
    let expiry = property(2, &[0, 0, 0, 9]);
    for (said, reason) in [
        // One that does not exist, one of CONNECT, one with a value cut short.
        (property(99, &[1]), 0x81),
        (property(17, &[0, 0, 0, 1]), 0x81),
        (property(2, &[0, 0]), 0x81),
        // One twice, and values that the standard excludes.
        ([&expiry[..], &expiry].concat(), 0x82),
        (property(1, &[2]), 0x82),
    ] {
        let mut wire = bench.client("wrong");
        wire.send(&publish(bench.version, 0, &topic, 0, &said, "x"));
        wire.is_disconnected(reason);
    }
}

fn what_is_cut_short_or_too_long_ends_the_connection(bench: &Bench) {
    let mut wrong = vec![packet(0x40, &[0]), packet(0xC0, &[0]), packet(0xA2, &[0])];
    if bench.is_v5() {
        // A reason that does not exist, and bytes behind the properties.
        wrong.push(packet(0x40, &[0, 1, 0x10, 0, 0]));
    } else {
        wrong.push(packet(0x40, &[0, 1, 0]));
        wrong.push(packet(0xE0, &[0]));
    }
    for bytes in wrong {
        let mut wire = bench.client("short");
        wire.send(&bytes);
        wire.is_disconnected(0x81);
    }
    if bench.is_v5() {
        let mut wire = bench.client("reason");
        wire.send(&ack(4, 1, 0x55));
        assert_eq!(wire.last_words().len(), 1);
    }
}

fn auth_without_a_method_ends_the_connection(bench: &Bench) {
    let mut wire = bench.client("auth");
    wire.send(&packet(0xF0, &[0x19, 0]));
    if bench.is_v5() {
        wire.is_disconnected(0x82);
    } else {
        wire.is_closed();
    }
}
