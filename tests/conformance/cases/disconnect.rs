//! DISCONNECT, from a client and from the Server (3.14).

use crate::bench::Bench;
use crate::table::behaviours;
use crate::wire::bytes::{DISCONNECT, id, packet, property, publish};
use crate::wire::received::Packet;

behaviours! {
    what_follows_disconnect_is_not_processed {
        5: ["3.14.4-1", "3.14.4-2"], 4: ["3.14.4-1", "3.14.4-2"]
    }
    the_server_closes_after_its_disconnect {
        5: ["3.14.4-1", "3.14.4-2", "3.14.2-1", "3.14.2-2", "4.13.1-1", "4.13.2-1"], 4: []
    }
    disconnect_may_change_the_session_expiry { 5: ["4.1.0-2"], 4: [] }
    disconnect_must_not_raise_a_session_expiry_of_0 { 5: ["4.13.1-1"], 4: [] }
}

fn what_follows_disconnect_is_not_processed(bench: &Bench) {
    let topic = bench.topic("after");
    let mut witness = bench.client("witness");
    witness.subscribe(&topic, 0);
    let mut wire = bench.client("gone");
    let after = publish(bench.version, 0, &topic, 0, &[], "after");
    wire.send(&[DISCONNECT.to_vec(), after].concat());
    assert_eq!(wire.last_words(), []);
    witness.publish(&topic, "end", 0);
    assert_eq!(witness.texts(1), ["end"]);
}

fn the_server_closes_after_its_disconnect(bench: &Bench) {
    let mut wire = bench.client("rude");
    wire.send(&packet(0xD0, &[]));
    let words = wire.last_words();
    let [Packet::Disconnect { reason, properties }] = &words[..] else {
        panic!("one DISCONNECT was to come, not {words:?}")
    };
    assert!(*reason >= 0x80);
    assert_eq!(properties.number(id::SESSION_EXPIRY), None);
}

fn disconnect_may_change_the_session_expiry(bench: &Bench) {
    let (mut wire, _) = bench.kept("leaver");
    let now = property(id::SESSION_EXPIRY, &[0, 0, 0, 0]);
    wire.send(&packet(0xE0, &[vec![0, now.len() as u8], now].concat()));
    assert_eq!(wire.last_words(), []);
    assert!(!bench.kept("leaver").1.session_present);
}

fn disconnect_must_not_raise_a_session_expiry_of_0(bench: &Bench) {
    let mut wire = bench.client("stayer");
    let later = property(id::SESSION_EXPIRY, &[0, 0, 0, 9]);
    wire.send(&packet(0xE0, &[vec![0, later.len() as u8], later].concat()));
    wire.is_disconnected(0x82);
}
