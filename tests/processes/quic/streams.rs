//! MQTT over several QUIC streams, spoken by an independent stack: `quic_streams.py`.

use super::Road;
use crate::programs::output_of;

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
