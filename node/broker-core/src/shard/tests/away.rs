//! What waits for a client that is away is in the store, once, and comes from there.

use std::time::Duration;

use verge_mqtt_proto::AckKind;
use verge_storage::key::QueueKey;
use verge_storage::{Batch, Store as _, StoreRows as _};

use super::bed::Bed;
use super::client::{Client, post, v5, want};
use crate::ledger::DropReason;

const LOST_AFTER: Duration = Duration::from_secs(11);

#[test]
fn a_message_for_several_is_stored_once_and_goes_with_the_last() {
    let mut bed = Bed::new(2);
    let names = ["one", "two", "three"];
    for name in names {
        let sub = bed.connect(&v5(name).persistent());
        bed.send(sub, sub.subscribe(1, want("t", 1)));
        bed.lose(sub);
    }
    let publisher = bed.connect(&v5("pub"));
    bed.send(publisher, publisher.publish(post("t", "m").q1(1)));
    assert_eq!((bed.held(), bed.rows()), (3, (3, 1)));
    let mut bed = bed.crash();
    for (name, rows) in names.into_iter().zip([(2, 1), (1, 1), (0, 0)]) {
        let sub = bed.connect(&v5(name).persistent());
        bed.expect(sub, &["connack present=1", "publish t q1 id=16385 \"m\""]);
        bed.send(sub, sub.ack(AckKind::Puback, 16_385));
        assert_eq!(bed.rows(), rows);
    }
    assert_eq!(bed.held(), 0);
}

#[test]
fn sessions_that_end_give_their_messages_up() {
    let mut bed = Bed::new(1);
    for name in ["one", "two"] {
        let sub = bed.connect(&v5(name).persistent());
        bed.send(sub, sub.subscribe(1, want("t", 1)));
        bed.lose(sub);
    }
    let publisher = bed.connect(&v5("pub"));
    bed.send(publisher, publisher.publish(post("t", "m").q1(1)));
    for (name, left) in [("one", (1, 1)), ("two", (0, 0))] {
        bed.connect(&v5(name).persistent().clean());
        assert_eq!(bed.rows(), left);
    }
    assert_eq!((bed.held(), bed.ledger().discarded), (0, 2));
}

#[test]
fn packet_ids_and_what_waits_behind_them_survive_a_crash() {
    let mut bed = Bed::new(1);
    let sub = subscriber(&mut bed);
    let publisher = bed.connect(&v5("pub"));
    for (id, text) in (1..).zip(["one", "two", "three"]) {
        bed.send(publisher, publisher.publish(post("t", text).q2(id)));
    }
    bed.expect(
        sub,
        &[
            "publish t q2 id=16385 \"one\"",
            "publish t q2 id=16386 \"two\"",
            "publish t q2 id=16387 \"three\"",
        ],
    );
    bed.send(sub, sub.ack(AckKind::Pubrec, 16_385));
    bed.lose(sub);
    bed.send(publisher, publisher.publish(post("t", "four").q2(4)));
    let mut bed = bed.crash();
    assert_eq!(bed.store.inflight_all().count(), 3);
    let sub = bed.connect(&v5("sub").persistent());
    bed.expect(
        sub,
        &[
            "connack present=1",
            "pubrel 16385",
            "publish t q2 id=16386 dup \"two\"",
            "publish t q2 id=16387 dup \"three\"",
            "publish t q2 id=16388 \"four\"",
        ],
    );
    for id in [16_386, 16_387, 16_388] {
        bed.send(sub, sub.ack(AckKind::Pubrec, id));
    }
    for id in [16_385, 16_386, 16_387, 16_388] {
        bed.send(sub, sub.ack(AckKind::Pubcomp, id));
    }
    assert_eq!((bed.held(), bed.rows(), bed.store.inflight_all().count()), (0, (0, 0), 0));
}

#[test]
fn a_row_that_is_missing_is_awaited_then_counted_as_damaged_and_the_rest_is_sent() {
    let mut bed = Bed::new(1);
    let sub = subscriber(&mut bed);
    bed.lose(sub);
    let publisher = bed.connect(&v5("pub"));
    for (id, text) in (1..).zip(["one", "two", "three"]) {
        bed.send(publisher, publisher.publish(post("t", text).q1(id)));
    }
    let keys: Vec<QueueKey> = bed.store.queues().map(|row| row.unwrap().0).collect();
    let mut batch = Batch::new();
    batch.delete_queue(keys[1]);
    bed.store.commit(&[batch], true).unwrap();
    let sub = bed.connect(&v5("sub").persistent());
    bed.expect(sub, &["connack present=1", "publish t q1 id=16385 \"one\""]);
    bed.wait(Duration::from_millis(500));
    assert!(bed.got(sub).is_empty(), "it may be on its way");
    bed.wait(LOST_AFTER);
    bed.expect(sub, &["publish t q1 id=16386 \"three\""]);
    assert_eq!((bed.held(), bed.ledger().dropped[&DropReason::Damaged]), (2, 1));
}

#[test]
fn a_row_that_is_damaged_is_left_out() {
    let mut bed = Bed::new(1);
    let sub = subscriber(&mut bed);
    bed.lose(sub);
    let publisher = bed.connect(&v5("pub"));
    for (id, text) in (1..).zip(["one", "two"]) {
        bed.send(publisher, publisher.publish(post("t", text).q1(id)));
    }
    let keys: Vec<QueueKey> = bed.store.queues().map(|row| row.unwrap().0).collect();
    let mut batch = Batch::new();
    batch.put_queue_bytes(keys[0], bytes::Bytes::from_static(b"\x03\xff\xff"));
    bed.store.commit(&[batch], true).unwrap();
    let sub = bed.connect(&v5("sub").persistent());
    bed.expect(sub, &["connack present=1", "publish t q1 id=16385 \"two\""]);
    assert_eq!(bed.ledger().dropped[&DropReason::Damaged], 1);
    assert_eq!(bed.store.queues().count(), 1);
}

fn subscriber(bed: &mut Bed) -> Client {
    let sub = bed.connect(&v5("sub").persistent());
    bed.send(sub, sub.subscribe(1, want("t", 2)));
    bed.got(sub);
    sub
}
