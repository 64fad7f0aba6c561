//! Publishers that are faster than their subscribers: nothing that was acknowledged is lost while the
//! subscribers read, and one that stops reading keeps nobody for long.

use serde_json::Value;
use verge_mqtt_proto::{ProtocolVersion, QoS};

use crate::bad_input::{Raw, packet, text};
use crate::client::Client;
use crate::node::Node;
use crate::programs::run;
use crate::site::Site;
use crate::time::until;

/// A closed loop of 50 publishers that have ten times as much under way as queues hold; what became
/// of the messages.
fn closed_loop(site: &Site, node: &Node, shape: &str, subscribers: &str) -> Value {
    let target = node.mqtt.to_string();
    let mut bench = site.verge(["bench", "run", "--json", "--target", &target]);
    bench.args(["--shape", shape, "--subscribers", subscribers, "--qos", "1", "--v5"]);
    bench.args(["--publishers", "50", "--window", "200", "--warmup", "0.5", "--seconds", "1.5"]);
    let output = run(&mut bench);
    let outcome: Value = serde_json::from_slice(&output.stdout).expect("it was asked for JSON");
    outcome["counts"].clone()
}

#[test]
fn a_closed_loop_of_many_publishers_loses_nothing_that_was_acknowledged() {
    let site = Site::new();
    let settings = ["queue.messages_max=1000", "node.shards=2"];
    let node = site.node("narrow").with(settings).started();
    for (shape, subscribers) in [("fan-in", "1"), ("shared", "4"), ("fan-out", "3")] {
        let counts = closed_loop(&site, &node, shape, subscribers);
        let count = |name: &str| counts[name].as_u64().expect("a count");
        let fan = if shape == "fan-out" { 3 } else { 1 };
        assert!(count("sent") > 0, "{shape}: {counts}");
        assert_eq!(count("delivered"), count("sent") * fan, "{shape}: {counts}");
        assert_eq!((count("lost"), count("acked")), (0, count("sent")), "{shape}: {counts}");
    }
    assert_eq!(node.metric("verge_ledger_dropped_debts_total", "queue_full"), 0);
    assert!(node.metric("verge_publishers_held_total", "") > 0);
    assert!(node.metric("verge_slow_subscribers_awaited_total", "") > 0);
    node.balances();
}

#[test]
fn security_a_subscriber_that_stops_reading_keeps_publishers_for_a_moment_only() {
    let site = Site::new();
    let node = site.node("patient").with(["queue.messages_max=100"]).started();
    let mut deaf = Raw::connected_as(&node, ProtocolVersion::V5, 0, "deaf");
    let filter = [&[0, 1, 0][..], &text("flood"), &[1]].concat();
    deaf.send(&packet(0x82, &filter));
    until("it has subscribed", || !node.list("subscriptions").is_empty());
    let mut publisher = Client::v5("publisher");
    publisher.connect(node.mqtt);
    for _ in 0..20 {
        for number in 0..20 {
            publisher.publish("flood", &format!("{number}"), QoS::AtLeastOnce);
        }
        publisher.settle();
    }
    assert!(node.metric("verge_publishers_held_total", "") > 0, "it waited");
    assert_eq!(node.metric("verge_slow_subscribers_given_up_total", ""), 1, "and then did not");
    until("its bound holds", || {
        node.metric("verge_ledger_dropped_debts_total", "queue_full") == 300
    });
    node.balances();
}
