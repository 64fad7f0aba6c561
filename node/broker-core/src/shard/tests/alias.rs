//! Topic aliases towards clients (MQTT 5.0, 3.3.2.3.4).

use super::bed::Bed;
use super::client::{post, v4, v5, want};
use crate::shard::api::Terms;

#[test]
fn a_topic_is_spelt_out_once() {
    let mut bed = Bed::new(1);
    let sub = bed.connect(&v5("sub").aliases(2));
    bed.send(sub, sub.subscribe(1, want("#", 1)));
    let publisher = bed.connect(&v5("pub"));
    for text in ["1", "2"] {
        bed.send(publisher, publisher.publish(post("road/a", text)));
        bed.send(publisher, publisher.publish(post("road/b", text).q1(1)));
        bed.send(publisher, publisher.publish(post("t", text)));
    }
    let got = [
        "connack present=0",
        "suback 1 [1]",
        "publish road/a alias=1 \"1\"",
        "publish road/b q1 id=16385 alias=2 \"1\"",
        "publish t \"1\"",
        "publish  alias=1 \"2\"",
        "publish  q1 id=16386 alias=2 \"2\"",
        "publish t \"2\"",
    ];
    bed.expect(sub, &got);
}

#[test]
fn no_more_aliases_are_set_than_either_side_allows_mqtt_3_1_2_26_mqtt_3_1_2_27() {
    for (client, server, set) in [(0, 9, 0), (2, 9, 2), (9, 1, 1), (9, 0, 0)] {
        let mut bed = Bed::with(Terms { topic_alias_maximum_out: server, ..Terms::default() });
        let sub = bed.connect(&v5("sub").aliases(client));
        bed.send(sub, sub.subscribe(1, want("#", 0)));
        let publisher = bed.connect(&v5("pub"));
        for topic in ["road/a", "road/b", "road/c"] {
            bed.send(publisher, publisher.publish(post(topic, "m")));
        }
        let aliases = bed.got(sub).iter().filter(|line| line.contains("alias=")).count();
        assert_eq!(aliases, set, "client {client}, server {server}");
    }
    // A client that says nothing accepts none, and before 5.0 there is nothing to say.
    for who in [v5("sub"), v4("sub")] {
        let mut bed = Bed::new(1);
        let sub = bed.connect(&who);
        bed.send(sub, sub.subscribe(1, want("#", 0)));
        bed.send(sub, sub.publish(post("road/a", "m")));
        assert_eq!(bed.got(sub)[2], "publish road/a \"m\"");
    }
}

#[test]
fn a_new_connection_has_no_aliases_yet_mqtt_3_3_2_7() {
    let mut bed = Bed::new(1);
    let who = v5("sub").aliases(4).persistent();
    let sub = bed.connect(&who);
    bed.send(sub, sub.subscribe(1, want("#", 1)));
    let publisher = bed.connect(&v5("pub"));
    bed.send(publisher, publisher.publish(post("road/a", "1").q1(1)));
    bed.send(publisher, publisher.publish(post("road/a", "2").q1(2)));
    bed.lose(sub);
    let sub = bed.connect(&who);
    let got = [
        "connack present=1",
        "publish road/a q1 id=16385 dup alias=1 \"1\"",
        "publish  q1 id=16386 dup alias=1 \"2\"",
    ];
    bed.expect(sub, &got);
}

#[test]
fn what_is_left_out_for_its_size_sets_no_alias_mqtt_3_1_2_25() {
    let mut bed = Bed::new(1);
    let sub = bed.connect(&v5("sub").aliases(4).packet_max(40));
    bed.send(sub, sub.subscribe(1, want("#", 0)));
    let publisher = bed.connect(&v5("pub"));
    let long = "0123456789012345678901234567890123456789";
    bed.send(publisher, publisher.publish(post("road/a", long)));
    // It fits, but not with an alias beside its topic.
    bed.send(publisher, publisher.publish(post("road/a", &long[..28])));
    bed.send(publisher, publisher.publish(post("road/a", "x")));
    bed.send(publisher, publisher.publish(post("road/a", "y")));
    let got = [
        "connack present=0",
        "suback 1 [0]",
        "publish road/a \"0123456789012345678901234567\"",
        "publish road/a alias=1 \"x\"",
        "publish  alias=1 \"y\"",
    ];
    bed.expect(sub, &got);
}

#[test]
fn a_full_output_leaves_no_hole() {
    let mut bed = Bed::new(1);
    let sub = bed.connect(&v5("sub").aliases(4));
    bed.send(sub, sub.subscribe(1, want("#", 0)));
    bed.got(sub);
    let publisher = bed.connect(&v5("pub"));
    bed.reading = false;
    let text = "0123456789".repeat(11).leak();
    for _ in 0..12 {
        bed.send(publisher, publisher.publish(post("road/a", text)));
    }
    bed.send(publisher, publisher.publish(post("road/b", text)));
    bed.read_all();
    bed.send(publisher, publisher.publish(post("road/b", "1")));
    bed.send(publisher, publisher.publish(post("road/b", "2")));
    bed.read_all();
    let got = bed.got(sub);
    assert!(got[0].starts_with("publish road/a alias=1"), "{got:?}");
    let last = ["publish road/b alias=2 \"1\"", "publish  alias=2 \"2\""];
    assert_eq!(got[got.len() - 2..], last);
}
