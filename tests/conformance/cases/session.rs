//! Sessions: begun, resumed, kept, expired (3.1.2.4, 3.2.2.1.1, 4.1).

use crate::bench::Bench;
use crate::table::behaviours;
use crate::time::{millis, pause};
use crate::wire::bytes::{ack, publish};
use crate::wire::received::Packet;

behaviours! {
    clean_start_discards_an_earlier_session {
        5: ["3.1.2-4", "3.1.4-4", "3.2.2-2"], 4: ["3.1.2-6", "3.1.4-3", "3.2.2-1"]
    }
    a_session_is_resumed_with_what_came_meanwhile {
        5: ["3.1.2-5", "3.1.2-23", "3.2.2-3", "4.5.0-1"],
        4: ["3.1.2-4", "3.1.2-5", "3.2.2-2", "4.1.0-1", "4.5.0-1"]
    }
    a_client_without_a_session_gets_a_new_one {
        5: ["3.1.2-6", "3.2.2-3"], 4: ["3.1.2-4", "3.2.2-3"]
    }
    a_session_lasts_while_its_connection_does { 5: ["4.1.0-1"], 4: ["4.1.0-2"] }
    a_session_of_a_clean_client_ends_with_its_connection { 5: ["4.1.0-2"], 4: ["3.1.2-6"] }
    a_session_expires { 5: ["4.1.0-2", "3.1.2-23"], 4: [] }
    half_a_qos_2_exchange_outlives_the_connection {
        5: ["3.1.2-23", "4.1.0-1"], 4: ["3.1.2-4", "4.1.0-1"]
    }
}

fn clean_start_discards_an_earlier_session(bench: &Bench) {
    let topic = bench.topic("old");
    let (mut old, _) = bench.kept("again");
    old.subscribe(&topic, 1);
    old.disconnect();
    bench.client("publisher").publish(&topic, "queued", 1);
    let (mut new, connack) = bench.accept(&bench.connect("again").expiry(3_600));
    assert!(!connack.session_present);
    bench.client("publisher").publish(&topic, "live", 1);
    new.has_nothing();
}

fn a_session_is_resumed_with_what_came_meanwhile(bench: &Bench) {
    let topic = bench.topic("kept");
    let (mut client, connack) = bench.kept("away");
    assert!(!connack.session_present);
    client.subscribe(&topic, 2);
    client.disconnect();
    let mut publisher = bench.client("publisher");
    for (text, qos) in [("one", 1), ("two", 2)] {
        publisher.publish(&topic, text, qos);
    }
    let (mut client, connack) = bench.kept("away");
    assert!(connack.session_present);
    let mut got = client.texts(2);
    got.sort();
    assert_eq!(got, ["one", "two"]);
    publisher.publish(&topic, "three", 1);
    assert_eq!(client.texts(1), ["three"], "the subscription is still there");
    client.has_nothing();
}

fn a_client_without_a_session_gets_a_new_one(bench: &Bench) {
    let (mut client, connack) = bench.kept("new");
    assert!(!connack.session_present);
    client.has_nothing();
}

fn a_session_lasts_while_its_connection_does(bench: &Bench) {
    let topic = bench.topic("long");
    let mut client = bench.client("long");
    client.subscribe(&topic, 1);
    // Other clients, of other sessions, come and go meanwhile.
    for _ in 0..3 {
        bench.client("other").publish(&topic, "x", 1);
    }
    assert_eq!(client.texts(3), ["x", "x", "x"]);
}

fn a_session_of_a_clean_client_ends_with_its_connection(bench: &Bench) {
    let topic = bench.topic("short");
    let mut client = bench.client("short");
    client.subscribe(&topic, 1);
    client.disconnect();
    bench.client("publisher").publish(&topic, "x", 1);
    let (mut client, connack) = bench.kept("short");
    assert!(!connack.session_present);
    client.has_nothing();
}

fn a_session_expires(bench: &Bench) {
    let connect = bench.connect("mayfly").unclean().expiry(1);
    bench.accept(&connect).0.vanish();
    pause(millis(2_500));
    assert!(!bench.accept(&connect).1.session_present, "a second has passed");
}

fn half_a_qos_2_exchange_outlives_the_connection(bench: &Bench) {
    let topic = bench.topic("half");
    let mut witness = bench.client("witness");
    witness.subscribe(&topic, 0);
    let (mut client, _) = bench.kept("half");
    client.send(&publish(bench.version, 4, &topic, 7, &[], "once"));
    client.acknowledged(5, 7);
    client.vanish();
    let (mut client, connack) = bench.kept("half");
    assert!(connack.session_present);
    // Sent again, it is the same message; released, it is done.
    client.send(&publish(bench.version, 4 | 8, &topic, 7, &[], "once"));
    client.acknowledged(5, 7);
    client.send(&ack(6, 7, 0));
    let reason = client.acknowledged(7, 7);
    assert_eq!(reason, 0, "the server knows of it");
    client.publish(&topic, "last", 1);
    let got: Vec<String> = (0..2).map(|_| witness.message().text()).collect();
    assert_eq!(got, ["once", "last"]);
    client.send(&crate::wire::bytes::PINGREQ);
    assert_eq!(client.receive(), Packet::Pingresp);
}
