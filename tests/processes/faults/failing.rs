//! A disk that returns errors.

use verge_mqtt_proto::{QoS, ReasonCode};

use super::shim::{EIO, EROFS, Faults};
use super::{Publisher, away, closes_311, drain, goes_on_without_a_disk, refuses, takes};
use crate::client::Client;
use crate::site::Site;
use crate::time::{millis, until};

/// A fault begins, is borne, ends, and the books are right afterwards.
fn bears(name: &str, promise: &str, kind: &str, fault: impl Fn(&Faults, bool)) {
    let site = Site::new();
    let (node, faults) = Faults::node(&site, name);
    let set = format!("storage.promise={promise}");
    let mut node = node.with([set.as_str()]).started();
    let mut once = away(&node, QoS::ExactlyOnce);
    let mut first = Publisher::new(&node, QoS::AtLeastOnce, 500);
    let mut second = Publisher::new(&node, QoS::ExactlyOnce, 500);
    first.publish_all(&node, 20);
    second.publish_all(&node, 20);

    fault(&faults, true);
    for publisher in [&mut first, &mut second] {
        for _ in 0..5 {
            assert_eq!(publisher.publish(&node), Some(ReasonCode::QuotaExceeded));
        }
    }
    refuses(&node, kind);
    goes_on_without_a_disk(&node);
    closes_311(&node);

    fault(&faults, false);
    takes(&node);
    assert!(node.metric("verge_storage_recoveries_total", "") > 0);
    first.publish_all(&node, 20);
    second.publish_all(&node, 20);
    node.balances();

    // What is on the disk is what was acknowledged, in order, once.
    node.kill();
    node.start();
    let mut came = drain(&mut once, &node);
    let mut taken = [first.taken.clone(), second.taken.clone()].concat();
    came.sort_unstable();
    taken.sort_unstable();
    assert_eq!(came, taken);
    node.balances();
}

#[test]
fn a_write_that_fails_is_refused_and_the_node_recovers_by_itself() {
    bears("eio-write", "buffered", "write", |faults, on| faults.writes(if on { EIO } else { 0 }));
}

#[test]
fn an_fsync_that_fails_is_no_promise_and_leaves_nothing_behind() {
    bears("eio-fsync", "synced", "write", |faults, on| faults.syncs(if on { EIO } else { 0 }));
}

#[test]
fn a_file_system_that_becomes_read_only_is_borne_until_it_is_writable() {
    bears("erofs", "buffered", "read_only", |faults, on| {
        let errno = if on { EROFS } else { 0 };
        faults.writes(errno);
        faults.syncs(errno);
    });
}

#[test]
fn what_is_acknowledged_by_subscribers_while_the_disk_fails_is_settled_afterwards() {
    let site = Site::new();
    let (node, faults) = Faults::node(&site, "settles");
    let mut node = node.started();
    let mut reader = away(&node, QoS::AtLeastOnce);
    let mut publisher = Publisher::new(&node, QoS::AtLeastOnce, 100);
    publisher.publish_all(&node, 50);
    // It reads and acknowledges while nothing can be deleted.
    reader.connect(node.mqtt);
    faults.writes(EIO);
    assert_eq!(publisher.publish(&node), Some(ReasonCode::QuotaExceeded));
    let mut came = 0;
    until("the queue is read", || {
        reader.work(millis(20));
        while reader.take().is_some() {
            came += 1;
        }
        came == 50 && node.get("/api/v1/ledger")["held"] == 0
    });
    faults.writes(0);
    takes(&node);
    publisher.publish_all(&node, 1);
    reader.work(millis(100));
    assert!(reader.take().is_some());
    until("all is settled", || {
        reader.work(millis(20));
        node.get("/api/v1/ledger")["held"] == 0
    });
    reader.disconnect();
    node.balances();
    crate::time::pause(millis(300));
    node.kill();
    node.start();
    assert_eq!(drain(&mut reader, &node), [0; 0], "what was settled does not come again");
}

#[test]
fn a_disk_that_cannot_be_read_is_refused_at_start_with_one_line() {
    let site = Site::new();
    let (node, faults) = Faults::node(&site, "eio-read");
    let mut node = node.started();
    away(&node, QoS::AtLeastOnce);
    Publisher::new(&node, QoS::AtLeastOnce, 100).publish_all(&node, 5);
    node.kill();
    faults.reads(EIO);
    let line = node.refuses_to_start();
    assert!(line.contains("the disk of the data directory failed"), "{line}");
    faults.reads(0);
    node.start();
    let mut reader = Client::v5("away-1");
    assert_eq!(drain(&mut reader, &node), [0, 1, 2, 3, 4]);
}
