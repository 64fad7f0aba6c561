//! CONNECT: what must be in it, and what becomes of one that is wrong (3.1).

use crate::bench::Bench;
use crate::table::behaviours;
use crate::wire::bytes::{
    CLEAN, Connect, DISCONNECT, PASSWORD, PINGREQ, USER_NAME, WILL, WILL_RETAIN, packet,
    properties, property, publish, subscribe, text,
};
use crate::wire::received::Packet;

behaviours! {
    the_first_packet_is_connect { 5: ["3.1.0-1"], 4: ["3.1.0-1"] }
    a_second_connect_ends_the_connection { 5: ["3.1.0-2"], 4: ["3.1.0-2"] }
    another_protocol_name_is_refused { 5: ["3.1.2-1"], 4: ["3.1.2-1"] }
    another_protocol_level_is_refused { 5: ["3.1.2-2"], 4: ["3.1.2-2"] }
    the_reserved_connect_flag_is_refused { 5: ["3.1.2-3"], 4: ["3.1.2-3", "3.2.2-6"] }
    flags_of_a_will_without_a_will_are_refused {
        5: ["3.1.2-11", "3.1.2-13"], 4: ["3.1.2-11", "3.1.2-13", "3.1.2-15"]
    }
    will_qos_3_is_refused { 5: ["3.1.2-12"], 4: ["3.1.2-14"] }
    fields_of_connect_are_those_the_flags_name {
        5: ["3.1.2-9", "3.1.2-16", "3.1.2-17", "3.1.2-18", "3.1.2-19", "3.1.3-1"],
        4: ["3.1.2-9", "3.1.2-18", "3.1.2-19", "3.1.2-20", "3.1.2-21", "3.1.3-1"]
    }
    a_password_needs_a_user_name_only_before_5_0 { 5: ["3.1.2-16"], 4: ["3.1.2-22"] }
    a_client_id_is_there { 5: ["3.1.3-3"], 4: ["3.1.3-3"] }
    strings_of_connect_are_utf_8 {
        5: ["1.5.4-1", "1.5.4-2", "3.1.3-4", "3.1.3-11", "3.1.3-12"],
        4: ["1.5.3-1", "1.5.3-2", "3.1.3-4", "3.1.3-10", "3.1.3-11"]
    }
    a_connect_of_another_form_is_refused { 5: ["3.1.4-1"], 4: ["3.1.4-1"] }
    what_follows_a_refused_connect_is_not_processed { 5: ["3.1.4-6"], 4: ["3.1.4-5"] }
    a_refusal_has_no_session_and_ends_the_connection {
        5: ["3.2.2-6", "3.2.2-7", "4.13.2-1"], 4: ["3.2.2-4", "3.2.2-5"]
    }
    no_disconnect_comes_before_connack { 5: ["3.14.0-1"], 4: [] }
}

fn the_first_packet_is_connect(bench: &Bench) {
    let v = bench.version;
    let first = [
        PINGREQ.to_vec(),
        DISCONNECT.to_vec(),
        publish(v, 0, "a", 0, &[], "x"),
        subscribe(v, 1, &[], &[("a", 0)]),
    ];
    for bytes in first {
        let mut wire = bench.open();
        wire.send(&bytes);
        assert_eq!(wire.last_words(), [], "before CONNECT there is nobody to answer");
    }
}

fn a_second_connect_ends_the_connection(bench: &Bench) {
    let mut wire = bench.client("twice");
    wire.send(&bench.connect("twice").bytes());
    wire.is_disconnected(0x82);
}

fn another_protocol_name_is_refused(bench: &Bench) {
    let connect = bench.connect("name");
    for name in ["MQTX", "mqtt", "", "MQTTT"] {
        let reason = bench.refusal(&packet(0x10, &connect.body(name, bench.version.level())));
        assert!(matches!(reason, None | Some(0x84)), "{name}: {reason:?}");
    }
}

fn another_protocol_level_is_refused(bench: &Bench) {
    let connect = bench.connect("level");
    // Each kind of client is answered so that it can read the answer.
    let level = if bench.is_v5() { 6 } else { 2 };
    let wanted = if bench.is_v5() { 0x84 } else { 1 };
    assert_eq!(bench.refusal(&packet(0x10, &connect.body("MQTT", level))), Some(wanted));
}

fn the_reserved_connect_flag_is_refused(bench: &Bench) {
    let reason = bench.refusal(&bench.connect("flag").field(1, &[]).bytes());
    assert_eq!(reason, bench.is_v5().then_some(0x81));
}

fn flags_of_a_will_without_a_will_are_refused(bench: &Bench) {
    for flags in [0b0_1000, 0b1_0000, WILL_RETAIN] {
        let reason = bench.refusal(&bench.connect("flags").field(flags, &[]).bytes());
        assert_eq!(reason, bench.is_v5().then_some(0x81), "{flags:08b}");
    }
}

fn will_qos_3_is_refused(bench: &Bench) {
    let reason = bench.refusal(&bench.connect("will").will("a", "x", 3, &[]).bytes());
    assert_eq!(reason, bench.is_v5().then_some(0x81));
}

fn fields_of_connect_are_those_the_flags_name(bench: &Bench) {
    let connect = || bench.connect("fields");
    let (name, word) = (text("name"), text("word"));
    let will = [properties(bench.version, &[]), text("w"), text("x")].concat();
    // All of them, in order.
    let all = WILL | USER_NAME | PASSWORD;
    let fields = [&will[..], &name, &word].concat();
    bench.accept(&connect().field(all, &fields));
    // One less, or one more, than the flags name.
    let wrong = [
        connect().field(WILL, &will[..will.len() - 3]),
        connect().field(WILL, &[]),
        connect().field(USER_NAME, &[]),
        connect().field(USER_NAME | PASSWORD, &name),
        connect().field(0, &name),
        connect().field(USER_NAME, &[&name[..], &word].concat()),
    ];
    for connect in wrong {
        let reason = bench.refusal(&connect.bytes());
        assert_eq!(reason, bench.is_v5().then_some(0x81), "{:08b}", connect.flags);
    }
}

fn a_password_needs_a_user_name_only_before_5_0(bench: &Bench) {
    let connect = bench.connect("word").field(PASSWORD, &text("word"));
    if bench.is_v5() {
        bench.accept(&connect);
    } else {
        assert_eq!(bench.refusal(&connect.bytes()), None);
    }
}

fn a_client_id_is_there(bench: &Bench) {
    let whole = bench.connect("").body("MQTT", bench.version.level());
    let id = bench.id("");
    let reason = bench.refusal(&packet(0x10, &whole[..whole.len() - 2 - id.len()]));
    assert_eq!(reason, bench.is_v5().then_some(0x81));
}

fn strings_of_connect_are_utf_8(bench: &Bench) {
    // A lone byte, an overlong form, a surrogate, more than Unicode has, and U+0000.
    let bad: [&[u8]; 5] = [b"\xFF", b"\xC0\xAF", b"\xED\xA0\x80", b"\xF4\x90\x80\x80", b"a\0b"];
    for bytes in bad {
        let string = text(bytes);
        let will = [properties(bench.version, &[]), string.clone(), text("x")].concat();
        let wrong = [
            Connect::new(bench.version, bytes),
            bench.connect("name").field(USER_NAME, &string),
            bench.connect("will").field(WILL, &will),
        ];
        for connect in wrong {
            let reason = bench.refusal(&connect.bytes());
            assert_eq!(reason, bench.is_v5().then_some(0x81), "{bytes:x?} {:08b}", connect.flags);
        }
    }
}

fn a_connect_of_another_form_is_refused(bench: &Bench) {
    let good = bench.connect("form");
    let body = good.body("MQTT", bench.version.level());
    let longer = [&body[..], &[0]].concat();
    let shorter = &body[..body.len() - 1];
    for wrong in [packet(0x10, &longer), packet(0x10, shorter), packet(0x11, &body)] {
        let reason = bench.refusal(&wrong);
        assert!(reason == bench.is_v5().then_some(0x81) || wrong[0] == 0x11, "{reason:?}");
    }
    if bench.is_v5() {
        // A property twice, one of PUBLISH, and one that does not exist.
        let expiry = property(17, &[0, 0, 0, 1]);
        for wrong in [[&expiry[..], &expiry].concat(), property(35, &[0, 1]), property(99, &[1])] {
            let reason = bench.refusal(&good.clone().with(wrong).bytes());
            assert!(matches!(reason, Some(0x81 | 0x82)), "{reason:?}");
        }
    }
}

fn what_follows_a_refused_connect_is_not_processed(bench: &Bench) {
    let topic = bench.topic("refused");
    let refused = if bench.is_v5() {
        bench.connect("refused").field(1, &[]).bytes()
    } else {
        Connect::new(bench.version, "").unclean().bytes()
    };
    let message = publish(bench.version, 1, &topic, 0, &[], "from a stranger");
    let reason = bench.refusal(&[refused, message].concat());
    assert_eq!(reason, Some(if bench.is_v5() { 0x81 } else { 2 }));
    let mut witness = bench.client("witness");
    witness.subscribe(&topic, 0);
    witness.has_nothing();
}

fn a_refusal_has_no_session_and_ends_the_connection(bench: &Bench) {
    // The session exists, but this CONNECT does not get it.
    bench.kept("there").0.disconnect();
    let mut wire = bench.open();
    if bench.is_v5() {
        wire.send(&bench.connect("there").unclean().field(1, &[]).bytes());
    } else {
        wire.send(&Connect { flags: 0, ..Connect::new(bench.version, "") }.bytes());
    }
    let words = wire.last_words();
    let [Packet::Connack { session_present: false, reason, .. }] = &words[..] else {
        panic!("a CONNACK and the end, not {words:?}")
    };
    assert_ne!(*reason, 0);
}

fn no_disconnect_comes_before_connack(bench: &Bench) {
    let wrong = [
        PINGREQ.to_vec(),
        packet(0x10, &[0, 4]),
        packet(0xF0, &[]),
        Connect { flags: CLEAN | 1, ..bench.connect("early") }.bytes(),
    ];
    for bytes in wrong {
        let mut wire = bench.open();
        wire.send(&bytes);
        for word in wire.last_words() {
            assert!(matches!(word, Packet::Connack { .. }), "{word:?} for {bytes:x?}");
        }
    }
}
