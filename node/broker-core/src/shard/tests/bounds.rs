//! What one client may take of a node: beyond it, the reason code and the count.

use std::time::Duration;

use verge_mqtt_proto::TopicName;

use super::bed::Bed;
use super::client::{post, v4, v5, want};
use super::mesh::Mesh;
use crate::retained::RetainedLimits;
use crate::shard::api::{Mail, NodeMessage, Terms};

#[test]
fn security_a_session_has_so_many_subscriptions_and_no_more() {
    for (who, code) in [(v5("c"), 0x97), (v4("c"), 0x80)] {
        let mut bed = Bed::with(Terms { subscriptions_max: 2, ..Terms::default() });
        let client = bed.connect(&who);
        bed.got(client);
        bed.send(client, client.subscribe(1, want("a", 0)));
        bed.send(client, client.subscribe(2, want("b", 0)));
        bed.send(client, client.subscribe(3, want("c", 0)));
        // "it MUST replace that existing Subscription" [MQTT-3.8.4-3]
        bed.send(client, client.subscribe(4, want("a", 1)));
        let refused = format!("suback 3 [{code}]");
        bed.expect(client, &["suback 1 [0]", "suback 2 [0]", &refused, "suback 4 [1]"]);
        bed.send(client, client.unsubscribe(5, "a"));
        bed.got(client);
        bed.send(client, client.subscribe(6, want("c", 0)));
        bed.expect(client, &["suback 6 [0]"]);
        let refused = bed.shared.counters.snapshot().subscriptions_refused;
        assert_eq!(refused.into_iter().collect::<Vec<_>>(), [("Quota exceeded", 1)]);
    }
}

#[test]
fn security_filters_that_are_refused_are_counted() {
    let mut bed = Bed::new(1);
    let client = bed.connect(&v5("c"));
    bed.send(client, client.subscribe(1, want("a#", 0)));
    let refused = bed.shared.counters.snapshot().subscriptions_refused;
    assert_eq!(refused.into_iter().collect::<Vec<_>>(), [("Topic Filter invalid", 1)]);
}

fn two_retained(shared: crate::shared::NodeShared) -> crate::shared::NodeShared {
    shared.with_retained(RetainedLimits { messages_max: 2, ..RetainedLimits::default() })
}

#[test]
fn what_the_node_says_of_itself_takes_no_room_from_retained_messages() {
    let mut bed = Bed::configured(1, two_retained);
    for number in 0..5 {
        let topic = TopicName::parse(&format!("$SYS/n/{number}")).unwrap();
        let payload = bytes::Bytes::from_static(b"well");
        let message = NodeMessage { topic, payload, retain: true };
        bed.mail(0, Mail::Publish(vec![message]));
    }
    let client = bed.connect(&v5("c"));
    for number in 1..=3 {
        let topic = ["t/1", "t/2", "t/3"][usize::from(number - 1)];
        bed.send(client, client.publish(post(topic, "m").q1(number).retain()));
    }
    let nobody = "No matching subscribers";
    let first = format!("puback 1 {nobody}");
    let second = format!("puback 2 {nobody}");
    bed.expect(client, &["connack present=0", &first, &second, "puback 3 Quota exceeded"]);
    bed.send(client, client.subscribe(4, want("$SYS/#", 0)));
    assert_eq!(bed.got(client).len(), 1 + 5);
    assert_eq!((bed.shared.retained.count(), bed.shared.retained.refused_count()), (2, 1));
}

#[test]
fn security_no_more_messages_are_retained_than_there_is_room_for() {
    let mut bed = Bed::configured(1, two_retained);
    let client = bed.connect(&v5("c").persistent());
    bed.send(client, client.subscribe(1, want("t/#", 0)));
    bed.got(client);
    for (number, topic) in (1..).zip(["t/1", "t/2", "t/3"]) {
        bed.send(client, client.publish(post(topic, "m").q1(number).retain()));
    }
    let got = bed.got(client);
    let (acks, messages): (Vec<_>, Vec<_>) = got.iter().partition(|it| it.starts_with("puback"));
    assert_eq!(acks, ["puback 1", "puback 2", "puback 3 Quota exceeded"]);
    assert_eq!(messages.len(), 2, "what is refused is not delivered");
    // The id of a refused QoS 2 message is free again, and room for one topic is room for one.
    bed.send(client, client.publish(post("t/3", "m").q2(4).retain()));
    bed.expect(client, &["pubrec 4 Quota exceeded"]);
    bed.send(client, client.publish(post("t/1", "").q1(5).retain()));
    bed.got(client);
    bed.send(client, client.publish(post("t/3", "m").q2(4).retain()));
    assert!(bed.got(client).contains(&"pubrec 4".to_owned()));
    // At QoS 0 it goes to who is there, and is not kept.
    bed.send(client, client.publish(post("t/4", "now").retain()));
    bed.expect(client, &["publish t/4 \"now\""]);
    assert_eq!((bed.shared.retained.count(), bed.shared.retained.refused_count()), (2, 3));
    // A known topic changes its message.
    bed.send(client, client.publish(post("t/3", "new").q1(6).retain()));
    assert!(bed.got(client).contains(&"puback 6".to_owned()));
    // MQTT 3.1.1 has no way to refuse a PUBLISH but to close (3.1.1, 3.3.5).
    let old = bed.connect(&v4("old"));
    bed.got(old);
    bed.send(old, old.publish(post("t/5", "m").q1(1).retain()));
    bed.expect(old, &["closed"]);
}

#[test]
fn security_a_refusal_keeps_its_place_among_acknowledgements() {
    // [MQTT-4.6.0-2]
    let mut bed = Bed::configured(1, two_retained);
    let client = bed.connect(&v5("c"));
    bed.got(client);
    bed.commits = false;
    for (number, topic) in (1..).zip(["t/1", "t/2", "t/3"]) {
        bed.send(client, client.publish(post(topic, "m").q1(number).retain()));
    }
    bed.expect(client, &[]);
    bed.commits = true;
    bed.commit_all();
    let none = "No matching subscribers";
    let wanted = [format!("puback 1 {none}"), format!("puback 2 {none}")];
    let got = bed.got(client);
    assert_eq!(got[..2], wanted);
    assert_eq!(got[2..], ["puback 3 Quota exceeded"]);
}

#[test]
fn security_a_storm_of_subscriptions_waits_for_others() {
    let mut bed = Bed::new(1);
    let publisher = bed.connect(&v5("p"));
    for number in 0..1_000 {
        let topic: &'static str = format!("t/{number}").leak();
        bed.send(publisher, publisher.publish(post(topic, "m").retain()));
    }
    let client = bed.connect(&v5("c"));
    bed.got(client);
    let mut bytes = client.subscribe(1, want("#", 0));
    bytes.extend_from_slice(&client.subscribe(2, want("#", 0)));
    bytes.extend_from_slice(&client.pingreq());
    bed.send(client, bytes);
    let subacks = |lines: &[String]| lines.iter().filter(|it| it.starts_with("suback")).count();
    let got = bed.got(client);
    assert_eq!((subacks(&got), got.iter().any(|it| it == "pingresp")), (1, false));
    // Others are served meanwhile.
    bed.got(publisher);
    bed.send(publisher, publisher.pingreq());
    bed.expect(publisher, &["pingresp"]);
    bed.wait(Duration::from_millis(9));
    bed.expect(client, &[]);
    bed.wait(Duration::from_millis(1));
    assert_eq!(subacks(&bed.got(client)), 1);
    bed.wait(Duration::from_millis(10));
    bed.expect(client, &["pingresp"]);
    // Who leaves in a pause is gone.
    bed.send(client, client.subscribe(3, want("#", 0)));
    bed.lose(client);
    bed.wait(Duration::from_secs(1));
}

#[test]
fn security_a_client_that_connects_again_while_it_is_sought_waits_once() {
    let mut mesh = Mesh::new(&["a"]);
    let bed = &mut mesh.nodes[0];
    let clients: Vec<_> = (0..3).map(|_| bed.connect(&v5("c").persistent())).collect();
    for earlier in &clients[..2] {
        // Session taken over is no reason of a CONNACK.
        bed.expect(*earlier, &["connack Unspecified error", "closed"]);
    }
    bed.expect(clients[2], &[]);
    mesh.settle();
    mesh.nodes[0].expect(clients[2], &["connack present=0"]);
}
