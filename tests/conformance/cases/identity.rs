//! ClientIds: which are taken, which are assigned, and two clients with the same one (3.1.3.1).

use crate::bench::{Bench, connack};
use crate::table::behaviours;
use crate::wire::Version;
use crate::wire::bytes::{Connect, id};

behaviours! {
    client_ids_of_1_to_23_letters_and_digits_are_taken { 5: ["3.1.3-5"], 4: ["3.1.3-5"] }
    a_client_without_an_id_is_given_one {
        5: ["3.1.3-6", "3.1.3-7", "3.2.2-16"], 4: ["3.1.3-6"]
    }
    a_client_without_an_id_keeps_no_session_before_5_0 {
        5: [], 4: ["3.1.3-7", "3.1.3-8", "3.1.3-9"]
    }
    sessions_are_told_apart_by_client_id { 5: ["3.1.3-2"], 4: ["3.1.3-2"] }
    a_new_connection_takes_the_session_over { 5: ["3.1.4-3"], 4: ["3.1.4-2"] }
}

fn client_ids_of_1_to_23_letters_and_digits_are_taken(bench: &Bench) {
    let letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    // Another letter in each run: two clients with one id would take over from each other.
    let place = bench.number() as usize % letters.len();
    bench.accept(&Connect::new(bench.version, &letters[place..=place]));
    let number = format!("{:023}", bench.number());
    bench.accept(&Connect::new(bench.version, number));
    for part in [&letters[..23], &letters[23..46], &letters[39..]] {
        let own = format!("{}{}", bench.number(), part);
        bench.accept(&Connect::new(bench.version, &own[..23]));
    }
}

fn a_client_without_an_id_is_given_one(bench: &Bench) {
    let mut given = Vec::new();
    for _ in 0..2 {
        let connect = Connect::new(bench.version, "").expiry(3_600);
        let (mut wire, connack) = bench.accept(&connect);
        assert!(!connack.session_present);
        let topic = bench.topic("nameless");
        wire.subscribe(&topic, 0);
        wire.publish(&topic, "x", 1);
        assert_eq!(wire.texts(1), ["x"], "it is a client like any other");
        if bench.is_v5() {
            let id = connack.properties.text(id::ASSIGNED_CLIENT_ID);
            given.push(id.expect("an Assigned Client Identifier").to_owned());
        }
        wire.disconnect();
    }
    if let [one, other] = &given[..] {
        assert_ne!(one, other);
        let again = Connect::new(Version::V5, one).unclean();
        assert!(bench.accept(&again).1.session_present, "the id works like one of its own");
    }
}

fn a_client_without_an_id_keeps_no_session_before_5_0(bench: &Bench) {
    let connect = Connect::new(bench.version, "").unclean();
    assert_eq!(bench.refusal(&connect.bytes()), Some(2), "identifier rejected");
}

fn sessions_are_told_apart_by_client_id(bench: &Bench) {
    let (mut one, _) = bench.kept("one");
    one.subscribe(&bench.topic("of/one"), 1);
    one.disconnect();
    let (mut other, connack) = bench.kept("One");
    assert!(!connack.session_present, "ids differ in the case of a letter");
    other.publish(&bench.topic("of/one"), "x", 1);
    other.has_nothing();
    let (mut one, connack) = bench.kept("one");
    assert!(connack.session_present);
    assert_eq!(one.texts(1), ["x"]);
}

fn a_new_connection_takes_the_session_over(bench: &Bench) {
    let topic = bench.topic("taken");
    let (mut old, _) = bench.kept("same");
    old.subscribe(&topic, 1);
    let mut new = bench.open();
    new.send(&bench.connect("same").kept().bytes());
    old.is_disconnected(0x8E);
    assert!(connack(&mut new).session_present);
    new.publish(&topic, "x", 1);
    assert_eq!(new.texts(1), ["x"]);
}
