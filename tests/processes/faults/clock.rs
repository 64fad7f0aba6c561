//! Wall clocks that jump.

use verge_mqtt_proto::QoS;

use super::shim::Faults;
use super::{Publisher, away, drain};
use crate::client::Client;
use crate::site::Site;
use crate::time::{millis, until};

const HOURS: i64 = 3_600;

#[test]
fn a_clock_that_jumps_loses_and_doubles_nothing() {
    let site = Site::new();
    let (node, faults) = Faults::node(&site, "jumps");
    let mut node = node.started();
    let mut once = away(&node, QoS::ExactlyOnce);
    let mut first = Publisher::new(&node, QoS::AtLeastOnce, 50);
    let mut second = Publisher::new(&node, QoS::ExactlyOnce, 50);
    for jump in [0, 5 * HOURS, -3 * HOURS, 9 * HOURS, -12 * HOURS, 0] {
        faults.clock(jump);
        first.publish_all(&node, 10);
        second.publish_all(&node, 10);
        if jump < 0 {
            // A start in what the directory takes for the past.
            node.kill();
            node.start();
        }
    }
    let mut taken = [first.taken.clone(), second.taken.clone()].concat();
    let mut came = drain(&mut once, &node);
    came.sort_unstable();
    taken.sort_unstable();
    assert_eq!(came, taken);
    node.balances();
}

#[test]
fn what_is_retained_later_is_later_whatever_the_clock_says() {
    let site = Site::new();
    let (node, faults) = Faults::node(&site, "later");
    let mut node = node.started();
    let mut speaker = Client::v5("speaker");
    speaker.connect(node.mqtt);
    for (number, jump) in [2 * HOURS, 0, -4 * HOURS].into_iter().enumerate() {
        faults.clock(jump);
        // In the past of its own directory, at first.
        node.kill();
        node.start();
        speaker.connect(node.mqtt);
        let text = number.to_string();
        speaker.publish_with("retained", &text, QoS::AtLeastOnce, true);
        speaker.settle();
        let mut reader = Client::v5("reader").with_clean_start();
        reader.connect(node.mqtt);
        reader.subscribe("retained", QoS::AtLeastOnce);
        assert_eq!(reader.next().text(), text, "after a jump to {jump} s");
    }
}

#[test]
fn a_session_outlives_a_clock_that_jumps_back_and_its_messages_expire_by_the_clock() {
    let site = Site::new();
    let (node, faults) = Faults::node(&site, "expires");
    let node = node.started();
    let mut once = away(&node, QoS::AtLeastOnce);
    let mut speaker = Client::v5("speaker");
    speaker.connect(node.mqtt);
    speaker.publish_expiring("faults/1", "00000001:expires", 3_600);
    speaker.publish("faults/1", "00000002:stays", QoS::AtLeastOnce);
    speaker.settle();
    faults.clock(-6 * HOURS);
    let mut reader = Client::v5("away-1");
    speaker.publish_expiring("faults/1", "00000003:expires", 60);
    speaker.settle();
    // By the wall clock the first two are of the future and the last is fresh.
    assert_eq!(drain(&mut once, &node), [1, 2, 3]);
    speaker.publish_expiring("faults/1", "00000004:expires", 60);
    speaker.publish("faults/1", "00000005:stays", QoS::AtLeastOnce);
    speaker.settle();
    faults.clock(6 * HOURS);
    assert_eq!(drain(&mut reader, &node), [5]);
    until("the expired one is settled", || {
        speaker.work(millis(10));
        node.get("/api/v1/ledger")["balance"] == 0
    });
}
