//! Subscriptions: overlap, identifiers, No Local, and what becomes of them.

use verge_mqtt_proto::AckKind;

use super::bed::Bed;
use super::client::{post, v4, v5, want};

#[test]
fn a_message_comes_once_however_many_subscriptions_match() {
    // [MQTT-3.3.4-2, MQTT-3.3.4-4]
    let mut bed = Bed::new(1);
    let client = bed.connect(&v5("v"));
    bed.send(client, client.subscribe(1, want("a/#", 0).id(3)));
    bed.send(client, client.subscribe(2, want("a/b", 2).id(4)));
    bed.send(client, client.subscribe(3, want("+/b", 1)));
    bed.got(client);
    bed.send(client, client.publish(post("a/b", "m").q1(1)));
    bed.expect(client, &["puback 1", "publish a/b q1 id=16385 for=[3, 4] \"m\""]);
}

#[test]
fn no_local_leaves_out_ones_own() {
    // [MQTT-3.8.3-3]
    let mut bed = Bed::new(1);
    let own = bed.connect(&v5("own"));
    let other = bed.connect(&v5("other"));
    bed.send(own, own.subscribe(1, want("t", 0).no_local()));
    bed.send(other, other.subscribe(1, want("t", 0)));
    bed.got(own);
    bed.got(other);
    bed.send(own, own.publish(post("t", "m")));
    bed.expect(own, &[]);
    bed.expect(other, &["publish t \"m\""]);
    bed.send(other, other.publish(post("t", "n")));
    bed.expect(own, &["publish t \"n\""]);
}

#[test]
fn unsubscribing_ends_what_is_new_and_keeps_what_is_owed() {
    let mut bed = Bed::new(1);
    let client = bed.connect(&v5("v").persistent());
    bed.send(client, client.subscribe(1, want("t", 1)));
    bed.send(client, client.publish(post("t", "owed").q1(1)));
    bed.send(client, client.unsubscribe(2, "t"));
    bed.got(client);
    bed.send(client, client.publish(post("t", "late").q1(2)));
    bed.expect(client, &["puback 2 No matching subscribers"]);
    bed.lose(client);
    let client = bed.connect(&v5("v").persistent());
    bed.expect(client, &["connack present=1", "publish t q1 id=16385 dup \"owed\""]);
    bed.send(client, client.ack(AckKind::Puback, 16_385));
    assert_eq!(bed.rows(), (0, 0));
}

#[test]
fn a_filter_that_is_none_is_refused_alone() {
    let mut bed = Bed::new(1);
    let client = bed.connect(&v5("v"));
    bed.send(client, client.subscribe(1, want("a/#/b", 1)));
    bed.expect(client, &["connack present=0", "suback 1 [143]"]);
    let old = bed.connect(&v4("old"));
    bed.send(old, old.subscribe(1, want("a+", 1)));
    bed.expect(old, &["connack present=0", "suback 1 [128]"]);
}

#[test]
fn subscriptions_are_there_again_after_a_crash() {
    let mut bed = Bed::new(2);
    let client = bed.connect(&v5("v").persistent());
    bed.send(client, client.subscribe(1, want("keep", 1).id(9)));
    bed.send(client, client.subscribe(2, want("gone", 1)));
    bed.send(client, client.unsubscribe(3, "gone"));
    let mut bed = bed.crash();
    let publisher = bed.connect(&v4("p"));
    bed.send(publisher, publisher.publish(post("keep", "k").q1(1)));
    bed.send(publisher, publisher.publish(post("gone", "g").q1(2)));
    let client = bed.connect(&v5("v").persistent());
    bed.expect(client, &["connack present=1", "publish keep q1 id=16385 for=[9] \"k\""]);
}
