//! Shared Subscriptions (4.8.2).

use crate::bench::Bench;
use crate::table::behaviours;
use crate::wire::Wire;
use crate::wire::bytes::ack;

behaviours! {
    a_shared_filter_has_a_name_and_a_filter { 5: ["4.8.2-1", "4.8.2-2"], 4: [] }
    each_message_goes_to_one_of_the_group { 5: ["4.8.2-1"], 4: [] }
    a_member_gets_messages_at_its_own_qos { 5: ["4.8.2-3"], 4: [] }
    a_member_that_returns_gets_what_was_begun { 5: ["4.8.2-4"], 4: [] }
    what_was_begun_with_a_member_that_ends_goes_to_nobody { 5: ["4.8.2-5"], 4: [] }
    a_message_that_a_member_refuses_goes_to_nobody { 5: ["4.8.2-6"], 4: [] }
    a_group_gets_no_retained_messages { 5: ["3.3.1-9"], 4: [] }
}

/// The filter of a group of this run.
fn group(bench: &Bench, topic: &str) -> String {
    format!("$share/crew/{}", bench.topic(topic))
}

fn a_shared_filter_has_a_name_and_a_filter(bench: &Bench) {
    let mut wire = bench.client("names");
    for filter in ["$share/", "$share//a", "$share/a", "$share/a/", "$share/+/a", "$share/a#/b"] {
        assert_eq!(wire.subscribe(filter, 0), 0x8F, "{filter}");
    }
    for filter in [group(bench, "a"), group(bench, "+/#"), format!("$share/x/{}", "/")] {
        assert_eq!(wire.subscribe(&filter, 1), 1, "{filter}");
    }
}

fn each_message_goes_to_one_of_the_group(bench: &Bench) {
    let mut members: Vec<Wire> = (0..2).map(|n| bench.client(&format!("m{n}"))).collect();
    for member in &mut members {
        member.subscribe(&group(bench, "jobs"), 1);
        member.subscribe(&bench.topic("end"), 1);
    }
    // Who has a subscription of its own gets everything besides.
    let mut all = bench.client("all");
    all.subscribe(&bench.topic("jobs"), 1);
    let mut publisher = bench.client("publisher");
    let sent: Vec<String> = (10..40).map(|number| number.to_string()).collect();
    for text in &sent {
        publisher.publish(&bench.topic("jobs"), text, 1);
    }
    publisher.publish(&bench.topic("end"), "end", 1);
    let mut done = Vec::new();
    for member in &mut members {
        loop {
            match member.message().text().as_str() {
                "end" => break,
                text => done.push(text.to_owned()),
            }
        }
    }
    done.sort();
    assert_eq!(done, sent);
    assert_eq!(all.texts(sent.len()), sent);
}

fn a_member_gets_messages_at_its_own_qos(bench: &Bench) {
    let mut wire = bench.client("one");
    wire.subscribe(&group(bench, "jobs"), 1);
    let mut publisher = bench.client("publisher");
    for qos in 0..=2 {
        publisher.publish(&bench.topic("jobs"), "x", qos);
        assert_eq!(wire.message().qos, qos.min(1));
    }
}

fn a_member_that_returns_gets_what_was_begun(bench: &Bench) {
    let (mut wire, _) = bench.kept("member");
    wire.subscribe(&group(bench, "jobs"), 2);
    let mut publisher = bench.client("publisher");
    publisher.publish(&bench.topic("jobs"), "begun", 2);
    let begun = wire.delivery();
    let mut other = bench.client("other");
    other.subscribe(&group(bench, "jobs"), 2);
    wire.vanish();
    let (mut wire, _) = bench.kept("member");
    let again = wire.message();
    assert_eq!((again.id, again.text()), (begun.id, "begun".to_owned()));
    other.has_nothing();
}

fn what_was_begun_with_a_member_that_ends_goes_to_nobody(bench: &Bench) {
    let mut wire = bench.client("member");
    wire.subscribe(&group(bench, "jobs"), 2);
    bench.client("publisher").publish(&bench.topic("jobs"), "begun", 2);
    wire.delivery();
    let mut other = bench.client("other");
    other.subscribe(&group(bench, "jobs"), 2);
    // Its session ends with its connection.
    wire.disconnect();
    other.has_nothing();
    bench.client("publisher").publish(&bench.topic("jobs"), "next", 2);
    assert_eq!(other.texts(1), ["next"]);
    other.has_nothing();
}

fn a_message_that_a_member_refuses_goes_to_nobody(bench: &Bench) {
    let mut members: Vec<Wire> = (0..2).map(|n| bench.client(&format!("m{n}"))).collect();
    members[0].subscribe(&group(bench, "jobs"), 2);
    let mut publisher = bench.client("publisher");
    for (qos, kind) in [(1, 4), (2, 5)] {
        publisher.publish(&bench.topic("jobs"), "unwanted", qos);
        let id = members[0].delivery().id.expect("an id");
        members[1].subscribe(&group(bench, "jobs"), 2);
        members[0].send(&ack(kind, id, 0x83));
        members[0].has_nothing();
        members[1].has_nothing();
        let filter = group(bench, "jobs");
        members[1].send(&crate::wire::bytes::unsubscribe(bench.version, 900, &[&filter]));
        members[1].unsuback(900);
    }
}

fn a_group_gets_no_retained_messages(bench: &Bench) {
    let mut wire = bench.client("late");
    wire.retain(&bench.topic("kept"), "kept", 1);
    wire.subscribe(&group(bench, "kept"), 1);
    wire.has_nothing();
    wire.retain(&bench.topic("kept"), "", 1);
}
