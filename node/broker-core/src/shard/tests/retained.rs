//! Retained messages.

use std::time::Duration;

use verge_mqtt_proto::RetainHandling;

use super::bed::Bed;
use super::client::{post, v5, want};

#[test]
fn a_new_subscription_gets_the_last_retained_message_after_its_suback() {
    // [MQTT-3.3.1-9]
    let mut bed = Bed::new(1);
    let client = bed.connect(&v5("v").persistent());
    bed.send(client, client.publish(post("s/1", "old").q1(1).retain()));
    bed.send(client, client.publish(post("s/1", "new").q1(2).retain()));
    bed.send(client, client.publish(post("s/2", "zero").retain()));
    bed.got(client);
    bed.send(client, client.subscribe(1, want("s/#", 1)));
    let mut got = bed.got(client);
    assert_eq!(got.remove(0), "suback 1 [1]");
    got.sort();
    assert_eq!(got, ["publish s/1 q1 id=16385 retain \"new\"", "publish s/2 retain \"zero\""]);
    assert_eq!(bed.rows().0, 1);
}

#[test]
fn an_empty_payload_removes_it() {
    // [MQTT-3.3.1-6]
    let mut bed = Bed::new(1);
    let client = bed.connect(&v5("v"));
    bed.send(client, client.publish(post("t", "m").q1(1).retain()));
    bed.send(client, client.publish(post("t", "").q1(2).retain()));
    bed.got(client);
    bed.send(client, client.subscribe(1, want("t", 1)));
    bed.expect(client, &["suback 1 [1]"]);
}

#[test]
fn retain_handling_is_kept() {
    // [MQTT-3.3.1-10, MQTT-3.3.1-11]
    let mut bed = Bed::new(1);
    let client = bed.connect(&v5("v"));
    bed.send(client, client.publish(post("t", "m").retain()));
    bed.got(client);
    let table = [
        (RetainHandling::DoNotSend, 1),
        (RetainHandling::SendIfNew, 1),
        (RetainHandling::Send, 2),
        (RetainHandling::SendIfNew, 1),
    ];
    for (number, (handling, packets)) in (1..).zip(table) {
        bed.send(client, client.subscribe(number, want("t", 0).retained(handling)));
        assert_eq!(bed.got(client).len(), packets, "{handling:?}");
    }
}

#[test]
fn the_flag_is_kept_for_who_asks_and_cleared_for_others() {
    // [MQTT-3.3.1-12, MQTT-3.3.1-13]
    let mut bed = Bed::new(1);
    let plain = bed.connect(&v5("plain"));
    let kept = bed.connect(&v5("kept"));
    bed.send(plain, plain.subscribe(1, want("t", 0)));
    bed.send(kept, kept.subscribe(1, want("t", 0).as_published()));
    bed.got(plain);
    bed.got(kept);
    bed.send(plain, plain.publish(post("t", "m").retain()));
    bed.expect(plain, &["publish t \"m\""]);
    bed.expect(kept, &["publish t retain \"m\""]);
}

#[test]
fn retained_messages_survive_a_crash_and_their_expiry_does_not_stop() {
    let mut bed = Bed::new(1);
    let client = bed.connect(&v5("v"));
    bed.send(client, client.publish(post("long", "l").q1(1).retain()));
    bed.send(client, client.publish(post("short", "s").q1(2).retain().expiry(30)));
    bed.wait(Duration::from_secs(20));
    let mut bed = bed.crash();
    let client = bed.connect(&v5("v"));
    bed.send(client, client.subscribe(1, want("short", 0)));
    bed.expect(
        client,
        &["connack present=0", "suback 1 [0]", "publish short retain expiry=10 \"s\""],
    );
    bed.wait(Duration::from_secs(20));
    bed.send(client, client.subscribe(2, want("#", 0)));
    bed.expect(client, &["suback 2 [0]", "publish long retain \"l\""]);
}

#[test]
fn a_client_that_reads_slowly_gets_every_retained_message_at_qos_0() {
    let mut bed = Bed::new(1);
    let publisher = bed.connect(&v5("p"));
    for number in 0..200 {
        let topic: &'static str = Box::leak(format!("s/{number:03}").into_boxed_str());
        bed.send(publisher, publisher.publish(post(topic, "as long as a message may be").retain()));
    }
    let client = bed.connect(&v5("v"));
    bed.got(client);
    bed.reading = false;
    bed.send(client, client.subscribe(1, want("s/#", 0)));
    // Live, it finds no room; it is what the client gets in place of the old one.
    bed.send(publisher, publisher.publish(post("s/199", "new").retain()));
    let mut got = Vec::new();
    for _ in 0..200 {
        bed.read_all();
        got.extend(bed.got(client));
        bed.reading = false;
    }
    got.retain(|line| line.starts_with("publish "));
    got.sort();
    assert_eq!(got.len(), 200);
    assert!(got[0].starts_with("publish s/000 "), "{}", got[0]);
    assert_eq!(got[199], "publish s/199 retain \"new\"");
}
