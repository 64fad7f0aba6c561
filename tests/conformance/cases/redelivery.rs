//! Messages sent again over the next connection (4.4), and what expiry does not undo (4.3.3).

use crate::bench::Bench;
use crate::table::behaviours;
use crate::time::{millis, pause};
use crate::wire::bytes::{ack, id, property, publish};
use crate::wire::received::{Packet, Publish};

behaviours! {
    unacknowledged_messages_come_again_with_dup_and_their_ids {
        5: ["3.3.1-1", "4.3.2-3", "4.3.3-3", "4.4.0-1"],
        4: ["3.3.1-1", "2.3.1-4", "4.3.2-1", "4.3.3-1", "4.4.0-1", "4.6.0-1"]
    }
    an_unfinished_release_comes_again {
        5: ["4.3.3-5", "4.3.3-6", "4.4.0-1"], 4: ["4.3.3-1", "4.4.0-1"]
    }
    nothing_comes_again_over_the_same_connection { 5: ["4.4.0-1"], 4: ["4.4.0-1"] }
    what_was_acknowledged_does_not_come_again { 5: ["4.3.2-3"], 4: ["4.3.2-1"] }
    a_message_that_was_sent_does_not_expire { 5: ["4.3.3-7"], 4: [] }
    an_exchange_goes_on_though_the_message_expired { 5: ["4.3.3-13"], 4: [] }
}

fn unacknowledged_messages_come_again_with_dup_and_their_ids(bench: &Bench) {
    let topic = bench.topic("again");
    let (mut wire, _) = bench.kept("again");
    wire.subscribe(&topic, 2);
    let mut publisher = bench.client("publisher");
    for (text, qos) in [("one", 1), ("two", 2), ("three", 1), ("four", 2)] {
        publisher.publish(&topic, text, qos);
    }
    let first: Vec<_> = (0..4).map(|_| wire.delivery()).collect();
    wire.vanish();
    let (mut wire, connack) = bench.kept("again");
    assert!(connack.session_present);
    let again: Vec<_> = (0..4).map(|_| wire.message()).collect();
    assert!(again.iter().all(|message| message.dup), "{again:?}");
    // In the order of the first time, QoS by QoS: the one does not wait for the other's disk.
    for qos in [1, 2] {
        let of = |messages: &[Publish]| -> Vec<_> {
            let of = messages.iter().filter(|message| message.qos == qos);
            of.map(|message| (message.id, message.text())).collect()
        };
        assert_eq!(of(&again), of(&first), "QoS {qos}");
    }
    wire.has_nothing();
}

fn an_unfinished_release_comes_again(bench: &Bench) {
    let topic = bench.topic("rel");
    let (mut wire, _) = bench.kept("rel");
    wire.subscribe(&topic, 2);
    bench.client("publisher").publish(&topic, "x", 2);
    let id = wire.delivery().id.expect("an id");
    wire.send(&ack(5, id, 0));
    wire.acknowledged(6, id);
    wire.vanish();
    let (mut wire, _) = bench.kept("rel");
    let next = wire.receive();
    assert!(matches!(next, Packet::Ack { kind: 6, id: of, .. } if of == id), "{next:?}");
    wire.send(&ack(7, id, 0));
    wire.has_nothing();
}

fn nothing_comes_again_over_the_same_connection(bench: &Bench) {
    let topic = bench.topic("patient");
    let mut wire = bench.client("patient");
    wire.subscribe(&topic, 2);
    let mut publisher = bench.client("publisher");
    publisher.publish(&topic, "x", 1);
    publisher.publish(&topic, "x", 2);
    wire.delivery();
    wire.delivery();
    pause(millis(1_500));
    wire.has_nothing();
}

fn what_was_acknowledged_does_not_come_again(bench: &Bench) {
    let topic = bench.topic("done");
    let (mut wire, _) = bench.kept("done");
    wire.subscribe(&topic, 2);
    let mut publisher = bench.client("publisher");
    publisher.publish(&topic, "one", 1);
    publisher.publish(&topic, "two", 2);
    wire.texts(2);
    wire.has_nothing();
    wire.vanish();
    let (mut wire, connack) = bench.kept("done");
    assert!(connack.session_present);
    wire.has_nothing();
}

/// A message that lives for a second.
fn short() -> Vec<u8> {
    property(id::MESSAGE_EXPIRY, &[0, 0, 0, 1])
}

fn a_message_that_was_sent_does_not_expire(bench: &Bench) {
    let topic = bench.topic("sent");
    let (mut wire, _) = bench.kept("sent");
    wire.subscribe(&topic, 2);
    bench.client("publisher").publish_with(&topic, "x", 4, &short());
    let sent = wire.delivery();
    wire.vanish();
    pause(millis(2_200));
    let (mut wire, _) = bench.kept("sent");
    let again = wire.message();
    assert_eq!((again.id, again.dup, again.text()), (sent.id, true, "x".to_owned()));
}

fn an_exchange_goes_on_though_the_message_expired(bench: &Bench) {
    let mut wire = bench.client("slow");
    wire.send(&publish(bench.version, 4, bench.topic("slow"), 9, &short(), "x"));
    wire.acknowledged(5, 9);
    pause(millis(2_200));
    wire.send(&ack(6, 9, 0));
    assert_eq!(wire.acknowledged(7, 9), 0);
}
