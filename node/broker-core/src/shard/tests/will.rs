//! Wills.

use std::time::Duration;

use verge_mqtt_proto::ReasonCode;

use super::bed::Bed;
use super::client::{Client, v4, v5, want};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_lost_connection_publishes_the_will_and_a_disconnect_does_not() {
    // [MQTT-3.1.2-8, MQTT-3.14.4-3]
    for persistent in [false, true] {
        let mut bed = Bed::new(1);
        let watcher = watch(&mut bed);
        let who = if persistent { v5("v").persistent() } else { v4("v") }.will("w", "gone", 0);
        let client = bed.connect(&who);
        bed.send(client, client.disconnect(ReasonCode::Success));
        bed.expect(watcher, &[]);
        let client = bed.connect(&who);
        bed.lose(client);
        bed.expect(watcher, &["publish w q1 id=16385 \"gone\""]);
        bed.wait(100 * SECOND);
        bed.expect(watcher, &[]);
    }
}

#[test]
fn disconnect_with_will_publishes_it() {
    let mut bed = Bed::new(1);
    let watcher = watch(&mut bed);
    let client = bed.connect(&v5("v").will("w", "gone", 0));
    bed.send(client, client.disconnect(ReasonCode::DisconnectWithWill));
    assert_eq!(bed.got(watcher).len(), 1);
}

#[test]
fn a_delayed_will_waits_and_a_return_cancels_it() {
    // [MQTT-3.1.3-9]
    let mut bed = Bed::new(1);
    let watcher = watch(&mut bed);
    let who = v5("v").persistent().will("w", "gone", 10);
    let client = bed.connect(&who);
    bed.lose(client);
    bed.wait(9 * SECOND);
    let client = bed.connect(&who);
    bed.wait(30 * SECOND);
    bed.expect(watcher, &[]);
    bed.lose(client);
    bed.wait(9 * SECOND);
    bed.expect(watcher, &[]);
    bed.wait(2 * SECOND);
    assert_eq!(bed.got(watcher).len(), 1);
}

#[test]
fn a_delayed_will_comes_with_the_end_of_its_session() {
    let mut bed = Bed::new(1);
    let watcher = watch(&mut bed);
    let client = bed.connect(&v5("v").persistent().expiry(5).will("w", "gone", 100));
    bed.lose(client);
    bed.wait(6 * SECOND);
    assert_eq!(bed.got(watcher).len(), 1);
    bed.wait(200 * SECOND);
    bed.expect(watcher, &[]);
}

#[test]
fn the_will_of_a_client_whose_node_crashed_is_published_after_its_delay() {
    let mut bed = Bed::new(1);
    let watcher = watch(&mut bed);
    bed.connect(&v5("v").persistent().will("w", "gone", 10));
    bed.got(watcher);
    let mut bed = bed.crash();
    let watcher = watch(&mut bed);
    bed.wait(9 * SECOND);
    bed.expect(watcher, &[]);
    bed.wait(2 * SECOND);
    assert_eq!(bed.got(watcher).len(), 1);
}

fn watch(bed: &mut Bed) -> Client {
    let watcher = bed.connect(&v5("watcher"));
    bed.send(watcher, watcher.subscribe(1, want("w", 1)));
    bed.got(watcher);
    watcher
}
