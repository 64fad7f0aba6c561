//! MQTT over several QUIC streams, spoken by an independent stack: `quic_streams.py`.

use super::Road;
use crate::programs::{Running, output_of, refusal_of};
use crate::time::until;

fn scenario(road: &Road, name: &str) {
    let said = output_of(&mut road.script("quic_streams", &[name]));
    assert!(said.ends_with("ok\n"), "{said}");
}

fn on_one_node(name: &str) -> Road {
    let road = Road::started();
    scenario(&road, name);
    road.node.balances();
    road
}

#[test]
fn quic_streams_carry_subscriptions_and_identifiers_of_their_own() {
    on_one_node("subscribe_and_publish");
}

#[test]
fn quic_streams_subscribe_and_unsubscribe_each_for_itself() {
    on_one_node("subscriptions");
}

#[test]
fn quic_streams_end_for_their_faults_alone_security() {
    let road = on_one_node("faults");
    for (reason, count) in [("incomplete_packet", 1), ("malformed_packet", 1)] {
        let label = format!("reason=\"{reason}\"");
        assert_eq!(road.node.metric("verge_streams_reset_total", &label), count, "{reason}");
    }
}

#[test]
fn quic_clients_publish_on_one_way_streams() {
    on_one_node("unidirectional");
}

#[test]
fn quic_streams_wait_for_connack_security() {
    on_one_node("before_connack");
}

#[test]
fn quic_streams_keep_the_connection_alive() {
    let road = on_one_node("keeps_alive");
    assert_eq!(road.node.closed_for("keep_alive_timeout"), 0);
}

#[test]
fn quic_subscriptions_of_streams_outlive_a_lost_connection() {
    on_one_node("detached");
}

#[test]
fn quic_streams_that_are_not_read_are_given_up_security() {
    let road = on_one_node("stalled");
    assert_eq!(road.node.metric("verge_streams_reset_total", "reason=\"stalled\""), 1);
}

#[test]
fn quic_streams_without_end_harm_nobody_security() {
    let road = on_one_node("flood");
    assert!(road.node.metric("verge_streams_reset_total", "reason=\"partial_bytes_max\"") > 0);
}

#[test]
fn verge_pub_and_sub_use_several_streams() {
    let road = Road::started();
    let sub =
        ["-t", "a/+", "-t", "b/+", "-t", "c/+", "--streams", "2", "-q", "2", "-i", "listener"];
    let mut sub = road.client("sub", sub);
    sub.args(["-C", "360", "-W", "60", "-v"]);
    let sub = Running::spawn(&mut sub);
    until("it is subscribed", || road.node.list("subscriptions").len() == 3);
    let lines: String = (0..60).map(|number| format!("{number}\n")).collect();
    let input = road.site.path("lines");
    std::fs::write(&input, lines).expect("a file can be written");
    let mut expected = Vec::new();
    for (topic, qos) in [("a/x", "0"), ("b/x", "1"), ("c/x", "2")] {
        for streams in ["0", "3"] {
            let mut publish = road.client("pub", ["-t", topic, "-l", "-q", qos]);
            publish.args(["--streams", streams]);
            let file = std::fs::File::open(&input).expect("it was written");
            let status = publish.stdin(file).status().expect("verge can be started");
            assert!(status.success(), "QoS {qos} on {streams}");
            expected.extend((0..60).map(|number| format!("{topic} {number}")));
        }
    }
    let said = sub.output();
    let mut got: Vec<_> = said.lines().map(str::to_owned).collect();
    got.sort();
    expected.sort();
    assert_eq!(got, expected, "each twice, by one stream and by three");
    road.node.balances();

    let url = format!("tcp://{}", road.node.mqtt);
    let mut command = road.site.verge(["pub", "--url", &url, "-t", "a", "-m", "x"]);
    let said = refusal_of(command.args(["--streams", "2"]), 2);
    assert!(said.contains("--streams: tcp://") && said.contains("has one stream"), "{said}");
}
