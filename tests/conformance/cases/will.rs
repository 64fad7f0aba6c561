//! The Will Message (3.1.2.5, 3.1.3.2).

use crate::bench::Bench;
use crate::table::behaviours;
use crate::wire::Wire;
use crate::wire::bytes::{WILL_RETAIN, id, packet, property, user_property};

behaviours! {
    a_will_is_published_when_the_connection_is_lost {
        5: ["3.1.2-7", "3.1.2-8", "3.1.2-12"], 4: ["3.1.2-8", "3.1.2-14"]
    }
    a_will_is_forgotten_at_disconnect {
        5: ["3.1.2-8", "3.1.2-10", "3.14.4-3"], 4: ["3.1.2-10", "3.14.4-3"]
    }
    a_will_is_published_once { 5: ["3.1.2-10"], 4: ["3.1.2-10", "3.1.2-12"] }
    disconnect_with_will_publishes_it { 5: ["3.1.2-8"], 4: [] }
    a_protocol_error_publishes_the_will { 5: ["3.1.2-8"], 4: ["3.1.2-8"] }
    silence_publishes_the_will { 5: ["3.1.2-22", "3.1.2-8"], 4: ["3.1.2-24", "3.1.2-8"] }
    a_will_is_retained_if_it_says_so {
        5: ["3.1.2-14", "3.1.2-15"], 4: ["3.1.2-16", "3.1.2-17"]
    }
    a_will_waits_for_its_delay { 5: ["3.1.2-8"], 4: [] }
    a_client_that_returns_in_time_has_its_will_kept_back { 5: ["3.1.3-9", "3.1.2-8"], 4: [] }
    a_will_comes_when_the_session_ends_before_its_delay { 5: ["3.1.2-8"], 4: [] }
    a_will_keeps_its_properties_in_order { 5: ["3.1.3-10"], 4: [] }
}

/// A client that sees Wills of this run.
fn witness(bench: &Bench) -> Wire {
    let mut witness = bench.client("witness");
    witness.subscribe(&bench.topic("will/#"), 2);
    witness
}

/// A topic for Wills.
fn topic(bench: &Bench) -> String {
    bench.topic("will/x")
}

fn a_will_is_published_when_the_connection_is_lost(bench: &Bench) {
    let mut witness = witness(bench);
    for qos in 0..=2 {
        let connect = bench.connect("mortal").will(&topic(bench), "gone", qos, &[]);
        let (mut mortal, _) = bench.accept(&connect);
        mortal.receive_pong();
        witness.has_nothing();
        mortal.vanish();
        let will = witness.message();
        assert_eq!((will.text(), will.qos, will.retain), ("gone".to_owned(), qos, false));
    }
}

fn a_will_is_forgotten_at_disconnect(bench: &Bench) {
    let mut witness = witness(bench);
    let connect = bench.connect("polite").will(&topic(bench), "gone", 1, &[]);
    bench.accept(&connect).0.disconnect();
    // Whatever the first life caused comes before the second one's Will.
    let connect = bench.connect("polite").will(&topic(bench), "second", 1, &[]);
    bench.accept(&connect).0.vanish();
    assert_eq!(witness.texts(1), ["second"]);
}

fn a_will_is_published_once(bench: &Bench) {
    let mut witness = witness(bench);
    let connect = bench.connect("mortal").kept();
    bench.accept(&connect.clone().will(&topic(bench), "gone", 1, &[])).0.vanish();
    assert_eq!(witness.texts(1), ["gone"]);
    // The next connection has none.
    bench.accept(&connect).0.vanish();
    bench.client("other").publish(&topic(bench), "after", 1);
    assert_eq!(witness.texts(1), ["after"]);
    witness.has_nothing();
}

fn disconnect_with_will_publishes_it(bench: &Bench) {
    let mut witness = witness(bench);
    let connect = bench.connect("mortal").will(&topic(bench), "gone", 1, &[]);
    let (mut mortal, _) = bench.accept(&connect);
    mortal.send(&packet(0xE0, &[0x04]));
    assert_eq!(mortal.last_words(), []);
    assert_eq!(witness.texts(1), ["gone"]);
}

fn a_protocol_error_publishes_the_will(bench: &Bench) {
    let mut witness = witness(bench);
    let connect = bench.connect("rude").will(&topic(bench), "gone", 1, &[]);
    let (mut rude, _) = bench.accept(&connect);
    rude.send(&connect.bytes());
    rude.is_disconnected(0x82);
    assert_eq!(witness.texts(1), ["gone"]);
}

fn silence_publishes_the_will(bench: &Bench) {
    let mut witness = witness(bench);
    let mut connect = bench.connect("silent").will(&topic(bench), "gone", 1, &[]);
    connect.keep_alive = 1;
    let (mut silent, _) = bench.accept(&connect);
    assert_eq!(witness.texts(1), ["gone"]);
    silent.is_disconnected(0x8D);
}

fn a_will_is_retained_if_it_says_so(bench: &Bench) {
    let mut witness = witness(bench);
    for (flags, kept) in [(0, None), (WILL_RETAIN, Some("gone"))] {
        let connect = bench.connect("mortal").will(&topic(bench), "gone", 1, &[]);
        bench.accept(&connect.field(flags, &[])).0.vanish();
        assert_eq!(witness.texts(1), ["gone"]);
        let mut late = bench.client("late");
        late.subscribe(&topic(bench), 1);
        match kept {
            Some(text) => {
                let message = late.message();
                assert_eq!((message.text(), message.retain), (text.to_owned(), true));
            }
            None => late.has_nothing(),
        }
    }
}

/// A client with a Will that waits, and a session of `expiry` seconds.
fn delayed(bench: &Bench, text: &str, delay: u8, expiry: u32) -> Wire {
    let delay = property(id::WILL_DELAY, &[0, 0, 0, delay]);
    let connect = bench.connect("mortal").unclean().expiry(expiry);
    bench.accept(&connect.will(&topic(bench), text, 1, &delay)).0
}

fn a_will_waits_for_its_delay(bench: &Bench) {
    let mut witness = witness(bench);
    delayed(bench, "late", 2, 3_600).vanish();
    bench.client("other").publish(&topic(bench), "meanwhile", 1);
    assert_eq!(witness.texts(2), ["meanwhile", "late"]);
}

fn a_client_that_returns_in_time_has_its_will_kept_back(bench: &Bench) {
    let mut witness = witness(bench);
    delayed(bench, "never", 60, 3_600).vanish();
    // Back in time, and lost again with another Will.
    delayed(bench, "second", 0, 3_600).vanish();
    assert_eq!(witness.texts(1), ["second"]);
    witness.has_nothing();
}

fn a_will_comes_when_the_session_ends_before_its_delay(bench: &Bench) {
    let mut witness = witness(bench);
    delayed(bench, "expired", 200, 1).vanish();
    assert_eq!(witness.texts(1), ["expired"]);
    delayed(bench, "discarded", 200, 3_600).vanish();
    bench.accept(&bench.connect("mortal"));
    assert_eq!(witness.texts(1), ["discarded"], "Clean Start ends the session");
}

fn a_will_keeps_its_properties_in_order(bench: &Bench) {
    let mut witness = witness(bench);
    let pairs = [("b", "1"), ("a", "2"), ("b", "3"), ("", "")];
    let mut will: Vec<u8> = pairs.iter().flat_map(|(k, v)| user_property(k, v)).collect();
    will.extend(property(id::CONTENT_TYPE, &crate::wire::bytes::text("text/plain")));
    bench.accept(&bench.connect("mortal").will(&topic(bench), "gone", 1, &will)).0.vanish();
    let message = witness.message();
    assert_eq!(message.properties.pairs(), pairs);
    assert_eq!(message.properties.text(id::CONTENT_TYPE), Some("text/plain"));
}
