//! PUBLISH inwards and outwards at every QoS.

use std::time::Duration;

use verge_mqtt_proto::{AckKind, QoS, ReasonCode};

use super::bed::{Bed, LIMIT};
use super::client::{Client, post, v4, v5, want};
use crate::ledger::DropReason;

#[test]
fn each_qos_is_acknowledged_as_it_should_be() {
    let mut bed = Bed::new(1);
    let (sub, publisher) = pair(&mut bed, 2);
    bed.send(publisher, publisher.publish(post("t", "zero")));
    bed.send(publisher, publisher.publish(post("t", "one").q1(7)));
    bed.send(publisher, publisher.publish(post("t", "two").q2(8)));
    bed.expect(publisher, &["puback 7", "pubrec 8"]);
    let got =
        ["publish t \"zero\"", "publish t q1 id=16385 \"one\"", "publish t q2 id=16386 \"two\""];
    bed.expect(sub, &got);
    bed.send(publisher, publisher.ack(AckKind::Pubrel, 8));
    bed.expect(publisher, &["pubcomp 8"]);
    bed.send(sub, sub.ack(AckKind::Puback, 16_385));
    bed.send(sub, sub.ack(AckKind::Pubrec, 16_386));
    bed.expect(sub, &["pubrel 16386"]);
    bed.send(sub, sub.ack(AckKind::Pubcomp, 16_386));
    assert_eq!((bed.held(), bed.rows(), bed.ledger().delivered), (0, (0, 0), 2));
}

#[test]
fn the_smaller_qos_of_message_and_subscription_counts() {
    let mut bed = Bed::new(1);
    let (sub, publisher) = pair(&mut bed, 1);
    bed.send(publisher, publisher.publish(post("t", "m").q2(1)));
    bed.expect(sub, &["publish t q1 id=16385 \"m\""]);
}

#[test]
fn a_qos_2_publish_again_is_routed_once() {
    // [MQTT-4.3.3-10]
    let mut bed = Bed::new(1);
    let (sub, publisher) = pair(&mut bed, 2);
    bed.send(publisher, publisher.publish(post("t", "m").q2(1)));
    bed.send(publisher, publisher.publish(post("t", "m").q2(1).dup()));
    bed.expect(publisher, &["pubrec 1", "pubrec 1"]);
    assert_eq!(bed.got(sub).len(), 1);
    bed.send(publisher, publisher.ack(AckKind::Pubrel, 1));
    bed.send(publisher, publisher.publish(post("t", "next").q2(1)));
    assert_eq!(bed.got(sub).len(), 1);
}

#[test]
fn a_session_is_told_again_with_the_same_ids() {
    // [MQTT-4.4.0-1]
    let mut bed = Bed::new(1);
    let (sub, publisher) = pair(&mut bed, 2);
    bed.send(publisher, publisher.publish(post("t", "one").q1(1)));
    bed.send(publisher, publisher.publish(post("t", "two").q2(2)));
    bed.send(publisher, publisher.publish(post("t", "three").q2(3)));
    bed.got(sub);
    bed.send(sub, sub.ack(AckKind::Pubrec, 16_386));
    bed.lose(sub);
    bed.send(publisher, publisher.publish(post("t", "later").q1(4)));
    let sub = bed.connect(&v5("sub").persistent());
    let again = [
        "connack present=1",
        "publish t q1 id=16385 dup \"one\"",
        "pubrel 16386",
        "publish t q2 id=16387 dup \"three\"",
        "publish t q1 id=16388 \"later\"",
    ];
    bed.expect(sub, &again);
}

#[test]
fn a_client_gets_no_more_at_once_than_it_takes() {
    // [MQTT-4.9.0-2]
    let mut bed = Bed::new(1);
    let sub = bed.connect(&v5("sub").persistent().receive_maximum(2));
    bed.send(sub, sub.subscribe(1, want("t", 1)));
    bed.got(sub);
    let publisher = bed.connect(&v5("pub"));
    for number in 1..=4 {
        bed.send(publisher, publisher.publish(post("t", "m").q1(number)));
    }
    assert_eq!(bed.got(sub).len(), 2);
    bed.send(sub, sub.ack(AckKind::Puback, 16_385));
    bed.expect(sub, &["publish t q1 id=16387 \"m\""]);
}

#[test]
fn what_is_too_large_for_a_client_is_left_out_and_counted() {
    // [MQTT-3.1.2-25]
    let mut bed = Bed::new(1);
    let sub = bed.connect(&v5("sub").persistent().packet_max(100));
    bed.send(sub, sub.subscribe(1, want("t", 1)));
    bed.got(sub);
    let publisher = bed.connect(&v5("pub"));
    let large = "x".repeat(200).leak();
    bed.send(publisher, publisher.publish(post("t", large).q1(1)));
    bed.send(publisher, publisher.publish(post("t", large)));
    bed.send(publisher, publisher.publish(post("t", "small").q1(2)));
    bed.expect(sub, &["publish t q1 id=16385 \"small\""]);
    assert_eq!(bed.ledger().dropped[&DropReason::TooLarge], 1);
}

#[test]
fn a_message_that_expires_in_the_queue_is_not_sent_and_the_rest_is_told() {
    // [MQTT-3.3.2-5, MQTT-3.3.2-6]
    let mut bed = Bed::new(1);
    let (sub, publisher) = pair(&mut bed, 1);
    bed.lose(sub);
    bed.send(publisher, publisher.publish(post("t", "short").q1(1).expiry(5)));
    bed.send(publisher, publisher.publish(post("t", "long").q1(2).expiry(60)));
    bed.wait(Duration::from_secs(20));
    let sub = bed.connect(&v5("sub").persistent());
    bed.expect(sub, &["connack present=1", "publish t q1 id=16385 expiry=40 \"long\""]);
    assert_eq!(bed.ledger().expired, 1);
}

#[test]
fn a_full_queue_drops_the_newest_and_counts_it() {
    let mut bed = Bed::new(1);
    let (sub, publisher) = pair(&mut bed, 1);
    bed.lose(sub);
    for number in 1..=LIMIT as u16 + 3 {
        bed.send(publisher, publisher.publish(post("t", "m").q1(number)));
    }
    assert_eq!(bed.held(), LIMIT as u64);
    assert_eq!((bed.rows(), bed.ledger().dropped[&DropReason::QueueFull]), ((LIMIT, 0), 3));
}

#[test]
fn a_slow_client_loses_qos_0_only() {
    let mut bed = Bed::new(1);
    let (sub, publisher) = pair(&mut bed, 1);
    bed.reading = false;
    let payload = "x".repeat(400).leak();
    for number in 1..=6 {
        bed.send(publisher, publisher.publish(post("t", payload).q1(number)));
        bed.send(publisher, publisher.publish(post("t", payload)));
    }
    assert!(bed.shards[0].output_mut(sub.conn).unwrap().len() < 2_000);
    bed.read_all();
    bed.read_all();
    bed.read_all();
    let got = bed.got(sub);
    assert_eq!(got.iter().filter(|line| line.contains("q1")).count(), 6);
    assert!(got.iter().filter(|line| !line.contains("q1")).count() < 6);
}

#[test]
fn a_client_may_refuse_a_message() {
    let mut bed = Bed::new(1);
    let (sub, publisher) = pair(&mut bed, 2);
    bed.send(publisher, publisher.publish(post("t", "m").q2(1)));
    bed.got(sub);
    bed.send(sub, sub.answer(AckKind::Pubrec, 16_385, ReasonCode::QuotaExceeded));
    bed.expect(sub, &[]);
    assert_eq!((bed.held(), bed.ledger().dropped[&DropReason::Refused]), (0, 1));
}

#[test]
fn two_shards_deliver_to_each_other_and_keep_the_books() {
    let mut bed = Bed::new(2);
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut clients = Vec::new();
    for name in names {
        let client = bed.connect(&v5(name).persistent());
        bed.send(client, client.subscribe(1, want("t", 2)));
        bed.got(client);
        clients.push(client);
    }
    bed.lose(clients[0]);
    bed.send(clients[1], clients[1].publish(post("t", "all").q2(1)));
    assert_eq!((bed.held(), bed.rows()), (6, (6, 1)));
    for client in &clients[1..] {
        let got = bed.got(*client);
        assert!(got.contains(&"publish t q2 id=16385 \"all\"".to_owned()), "{got:?}");
        bed.send(*client, client.ack(AckKind::Pubrec, 16_385));
        bed.send(*client, client.ack(AckKind::Pubcomp, 16_385));
    }
    assert_eq!((bed.held(), bed.rows()), (1, (1, 1)));
    let back = bed.connect(&v5("a").persistent());
    bed.expect(back, &["connack present=1", "publish t q2 id=16385 \"all\""]);
}

#[test]
fn a_publisher_is_told_that_nobody_listens() {
    let mut bed = Bed::new(1);
    let five = bed.connect(&v5("five"));
    let four = bed.connect(&v4("four"));
    bed.send(five, five.publish(post("t", "m").q1(1)));
    bed.send(four, four.publish(post("t", "m").q1(1)));
    bed.expect(five, &["connack present=0", "puback 1 No matching subscribers"]);
    bed.expect(four, &["connack present=0", "puback 1"]);
}

/// A persistent subscriber of `t`, and a publisher.
fn pair(bed: &mut Bed, qos: u8) -> (Client, Client) {
    let sub = bed.connect(&v5("sub").persistent());
    bed.send(sub, sub.subscribe(1, want("t", qos)));
    let publisher = bed.connect(&v5("pub"));
    bed.got(sub);
    bed.got(publisher);
    (sub, publisher)
}

#[test]
fn a_qos_above_the_maximum_ends_the_connection_of_who_was_told() {
    // [MQTT-3.2.2-11], [MQTT-3.2.2-12]: a client before 5.0 cannot be told, and is served.
    let mut bed = Bed::new(1);
    bed.grant_at_most(QoS::AtLeastOnce);
    let told = bed.connect(&v5("told"));
    bed.send(told, told.publish(post("t", "x").q1(1)));
    bed.send(told, told.publish(post("t", "x").q2(2)));
    let ack = "puback 1 No matching subscribers";
    bed.expect(told, &["connack present=0", ack, "disconnect QoS not supported", "closed"]);
    let old = bed.connect(&v4("old"));
    bed.send(old, old.publish(post("t", "x").q2(2)));
    bed.expect(old, &["connack present=0", "pubrec 2"]);
    bed.grant_at_most(QoS::AtMostOnce);
    let mortal = bed.connect(&v5("mortal").will("t", "gone", 0));
    bed.expect(mortal, &["connack QoS not supported", "closed"]);
}
