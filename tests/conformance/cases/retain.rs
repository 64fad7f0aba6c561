//! Retained messages, Retain Handling, Retain As Published (3.3.1.3).

use crate::bench::Bench;
use crate::table::behaviours;
use crate::wire::bytes::subscribe;

behaviours! {
    a_retained_message_is_kept_and_replaced { 5: ["3.3.1-5"], 4: ["3.3.1-5", "3.3.1-6"] }
    an_empty_retained_message_removes_it {
        5: ["3.3.1-6", "3.3.1-7"], 4: ["3.3.1-10", "3.3.1-11"]
    }
    a_message_that_is_not_retained_changes_nothing { 5: ["3.3.1-8"], 4: ["3.3.1-12"] }
    a_retained_message_of_qos_0_replaces_another { 5: ["3.3.1-5"], 4: ["3.3.1-7"] }
    retained_messages_come_with_retain_and_live_ones_without {
        5: ["3.3.1-12"], 4: ["3.3.1-8", "3.3.1-9"]
    }
    retained_messages_outlive_the_session { 5: [], 4: ["3.1.2-7"] }
    retain_handling_0_sends_them_always { 5: ["3.3.1-9", "3.8.4-4"], 4: [] }
    retain_handling_1_sends_them_to_new_subscriptions { 5: ["3.3.1-10"], 4: [] }
    retain_handling_2_sends_none { 5: ["3.3.1-11"], 4: [] }
    retain_as_published_keeps_the_flag { 5: ["3.3.1-13"], 4: [] }
    wildcards_find_retained_messages { 5: ["3.3.1-9"], 4: ["3.3.1-6"] }
}

/// What a client that subscribes now is sent of `filter`: topics and payloads in order of topic.
fn retained(bench: &Bench, filter: &str) -> Vec<String> {
    let mut wire = bench.client("late");
    wire.subscribe(filter, 2);
    // The end of what is retained is known by a message that is not.
    let end = bench.topic("end");
    wire.subscribe(&end, 0);
    wire.publish(&end, "end", 0);
    let mut found = Vec::new();
    loop {
        let message = wire.message();
        if message.topic == end {
            break;
        }
        assert!(message.retain, "{message:?}");
        found.push(message.text());
    }
    found.sort();
    found
}

fn a_retained_message_is_kept_and_replaced(bench: &Bench) {
    let topic = bench.topic("sign");
    let mut wire = bench.client("publisher");
    for (text, qos) in [("50", 1), ("30", 2), ("70", 0)] {
        wire.retain(&topic, text, qos);
        assert_eq!(retained(bench, &topic), [text]);
    }
    let mut late = bench.client("reader");
    wire.retain(&topic, "80", 2);
    late.subscribe(&topic, 2);
    assert_eq!(late.message().qos, 2, "its QoS is kept");
    wire.retain(&topic, "", 1);
}

fn an_empty_retained_message_removes_it(bench: &Bench) {
    let topic = bench.topic("removed");
    let mut wire = bench.client("publisher");
    wire.subscribe(&topic, 1);
    wire.retain(&topic, "here", 1);
    assert_eq!(wire.texts(1), ["here"]);
    wire.retain(&topic, "", 1);
    assert_eq!(wire.texts(1), [""], "it is a message like any other");
    assert_eq!(retained(bench, &topic), [""; 0]);
}

fn a_message_that_is_not_retained_changes_nothing(bench: &Bench) {
    let topic = bench.topic("kept");
    let mut wire = bench.client("publisher");
    wire.publish(&topic, "passing", 1);
    assert_eq!(retained(bench, &topic), [""; 0]);
    wire.retain(&topic, "stays", 1);
    for text in ["passing", ""] {
        wire.publish(&topic, text, 1);
        assert_eq!(retained(bench, &topic), ["stays"]);
    }
    wire.retain(&topic, "", 1);
}

fn a_retained_message_of_qos_0_replaces_another(bench: &Bench) {
    let topic = bench.topic("replaced");
    let mut wire = bench.client("publisher");
    wire.retain(&topic, "old", 2);
    wire.retain(&topic, "new", 0);
    assert_eq!(retained(bench, &topic), ["new"]);
    wire.retain(&topic, "", 0);
}

fn retained_messages_come_with_retain_and_live_ones_without(bench: &Bench) {
    let topic = bench.topic("flag");
    let mut publisher = bench.client("publisher");
    publisher.retain(&topic, "kept", 1);
    let mut wire = bench.client("subscriber");
    wire.subscribe(&topic, 1);
    assert!(wire.message().retain, "it was kept");
    publisher.retain(&topic, "live", 1);
    let live = wire.message();
    assert_eq!((live.text(), live.retain), ("live".to_owned(), false));
    publisher.retain(&topic, "", 1);
}

fn retained_messages_outlive_the_session(bench: &Bench) {
    let topic = bench.topic("legacy");
    let mut wire = bench.client("mortal");
    wire.retain(&topic, "stays", 1);
    wire.disconnect();
    assert_eq!(retained(bench, &topic), ["stays"]);
    bench.client("tidy").retain(&topic, "", 1);
}

/// SUBSCRIBE options: QoS 1 and a Retain Handling.
const fn handling(retain_handling: u8) -> u8 {
    1 | retain_handling << 4
}

fn retain_handling_0_sends_them_always(bench: &Bench) {
    let topic = bench.topic("always");
    let mut wire = bench.client("always");
    wire.retain(&topic, "kept", 1);
    for _ in 0..2 {
        wire.subscribe(&topic, handling(0));
        assert_eq!(wire.texts(1), ["kept"]);
    }
    // Nothing is lost while a subscription is replaced.
    let mut publisher = bench.client("publisher");
    publisher.publish(&topic, "before", 1);
    wire.send(&subscribe(bench.version, 900, &[], &[(&topic, handling(0))]));
    publisher.publish(&topic, "after", 1);
    wire.suback(900);
    let mut got = wire.texts(3);
    got.sort();
    assert_eq!(got, ["after", "before", "kept"]);
    publisher.retain(&topic, "", 1);
}

fn retain_handling_1_sends_them_to_new_subscriptions(bench: &Bench) {
    let topic = bench.topic("new");
    let mut wire = bench.client("new");
    wire.retain(&topic, "kept", 1);
    wire.subscribe(&topic, handling(1));
    assert_eq!(wire.texts(1), ["kept"]);
    wire.subscribe(&topic, handling(1));
    wire.has_nothing();
    wire.retain(&topic, "", 1);
}

fn retain_handling_2_sends_none(bench: &Bench) {
    let topic = bench.topic("none");
    let mut wire = bench.client("none");
    wire.retain(&topic, "kept", 1);
    wire.subscribe(&topic, handling(2));
    wire.publish(&topic, "live", 1);
    assert_eq!(wire.texts(1), ["live"]);
    wire.has_nothing();
    wire.retain(&topic, "", 1);
}

fn retain_as_published_keeps_the_flag(bench: &Bench) {
    let topic = bench.topic("flag");
    let mut wire = bench.client("flag");
    wire.subscribe(&topic, 1 | 0b1000);
    wire.retain(&topic, "kept", 1);
    assert!(wire.message().retain);
    wire.publish(&topic, "live", 1);
    assert!(!wire.message().retain);
    wire.retain(&topic, "", 1);
    assert!(wire.message().retain);
}

fn wildcards_find_retained_messages(bench: &Bench) {
    let mut wire = bench.client("publisher");
    let topics = ["w/a", "w/a/b", "w/c/b"].map(|name| bench.topic(name));
    for topic in &topics {
        wire.retain(topic, &topic.split_once('/').expect("a slash").1.replace('/', "."), 1);
    }
    assert_eq!(retained(bench, &bench.topic("w/#")), ["w.a", "w.a.b", "w.c.b"]);
    assert_eq!(retained(bench, &bench.topic("w/+")), ["w.a"]);
    assert_eq!(retained(bench, &bench.topic("w/+/b")), ["w.a.b", "w.c.b"]);
    for topic in &topics {
        wire.retain(topic, "", 1);
    }
}
