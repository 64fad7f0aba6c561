//! Publishers wait for subscribers that do not keep up, within bounds.

use std::time::Duration;

use verge_mqtt_proto::AckKind;

use super::bed::{Bed, LIMIT};
use super::client::{Client, post, v5, want};
use crate::shard::api::Terms;

const HOLD: Duration = Duration::from_secs(1);

fn bed(shards: u16) -> Bed {
    Bed::granting(shards, Terms { publisher_hold_max: HOLD, ..Terms::default() })
}

fn subscriber(bed: &mut Bed, id: &'static str, filter: &'static str) -> Client {
    let client = bed.connect(&v5(id).receive_maximum(1));
    bed.send(client, client.subscribe(1, want(filter, 2)));
    bed.got(client);
    client
}

fn publisher(bed: &mut Bed, id: &'static str) -> Client {
    let client = bed.connect(&v5(id));
    bed.got(client);
    client
}

/// Publishes `count` messages at QoS 1; how many were acknowledged.
fn publish(bed: &mut Bed, client: Client, topic: &'static str, count: u16) -> usize {
    for number in 1..=count {
        bed.send(client, client.publish(post(topic, "m").q1(number)));
    }
    acknowledged(bed, client)
}

fn acknowledged(bed: &mut Bed, client: Client) -> usize {
    bed.got(client).iter().filter(|line| line.starts_with("puback")).count()
}

/// Acknowledges everything it is sent; how much that is.
fn drain(bed: &mut Bed, client: Client) -> usize {
    let mut count = 0;
    loop {
        let got = bed.got(client);
        if got.is_empty() {
            return count;
        }
        for line in got {
            let id = line.split("id=").nth(1).and_then(|rest| rest.split(' ').next());
            if let Some(id) = id.and_then(|id| id.parse().ok()) {
                count += 1;
                bed.send(client, client.ack(AckKind::Puback, id));
            }
        }
    }
}

fn counts(bed: &Bed) -> [u64; 3] {
    let metrics = bed.shared.router.pressure().metrics();
    [metrics[0].value, metrics[1].value, metrics[2].value]
}

#[test]
fn a_closed_loop_loses_nothing_however_slow_its_subscriber() {
    for shards in [1, 4] {
        let mut bed = bed(shards);
        let slow = subscriber(&mut bed, "slow", "t/#");
        let publishers = ["p", "q", "r"].map(|id| publisher(&mut bed, id));
        let (mut acked, mut got) = (0, 0);
        for client in &publishers {
            acked += publish(&mut bed, *client, "t/x", 10);
        }
        assert!((LIMIT / 2..LIMIT).contains(&acked), "{acked} of 30 are read so far");
        for _ in 0..30 {
            got += drain(&mut bed, slow);
            acked += publishers.iter().map(|client| acknowledged(&mut bed, *client)).sum::<usize>();
        }
        assert_eq!((acked, got), (30, 30));
        let [held, awaited, given_up] = counts(&bed);
        assert!(held >= 3 && awaited >= 1 && given_up == 0, "{held} {awaited}");
        assert!(bed.ledger().dropped.values().all(|count| *count == 0));
    }
}

#[test]
fn a_subscriber_that_stops_reading_is_given_up_and_then_its_bound_holds() {
    let mut bed = bed(1);
    let stopped = subscriber(&mut bed, "stopped", "t");
    let publisher = publisher(&mut bed, "p");
    assert_eq!(publish(&mut bed, publisher, "t", 12), LIMIT / 2);
    bed.wait(HOLD);
    assert_eq!(acknowledged(&mut bed, publisher), 12 - LIMIT / 2, "everything is read");
    assert_eq!(bed.ledger().dropped.values().sum::<u64>(), 12 - LIMIT as u64);
    assert_eq!(counts(&bed), [1, 1, 1]);
    // It reads again, and is not waited for at once.
    assert_eq!(drain(&mut bed, stopped), LIMIT);
    assert_eq!(publish(&mut bed, publisher, "t", 6), 6);
    drain(&mut bed, stopped);
    // A minute later it is.
    bed.wait(Duration::from_secs(60));
    assert_eq!(publish(&mut bed, publisher, "t", 6), LIMIT / 2);
    assert_eq!(counts(&bed), [2, 2, 1]);
}

#[test]
fn who_is_away_is_not_waited_for() {
    let mut bed = bed(1);
    let parked = bed.connect(&v5("parked").persistent().receive_maximum(1));
    bed.send(parked, parked.subscribe(1, want("t", 1)));
    let publisher = publisher(&mut bed, "p");
    let acked = publish(&mut bed, publisher, "t", 6);
    assert!(acked < 6, "it waits with {acked}");
    // Its connection is lost while they wait.
    bed.lose(parked);
    assert_eq!(acknowledged(&mut bed, publisher), 6 - acked);
    assert_eq!(publish(&mut bed, publisher, "t", 6), 6);
    assert_eq!(bed.ledger().dropped.values().sum::<u64>(), 12 - LIMIT as u64);
}

#[test]
fn a_circle_of_clients_does_not_wait_for_itself() {
    let mut bed = bed(1);
    let a = subscriber(&mut bed, "a", "to/b");
    let b = subscriber(&mut bed, "b", "to/a");
    assert_eq!(publish(&mut bed, a, "to/a", 6), LIMIT / 2, "a waits for b");
    // What b publishes fills the queue of a, who is read again: its acknowledgements are wanted.
    let mut acked = publish(&mut bed, b, "to/b", 6);
    acked += acknowledged(&mut bed, a);
    assert_eq!(acked, 2 + 6);
    drain(&mut bed, a);
    drain(&mut bed, b);
    assert_eq!(counts(&bed)[2], 0);
    // Nor does a client wait for itself.
    let echo = subscriber(&mut bed, "echo", "echo");
    for number in 1..=6 {
        bed.send(echo, echo.publish(post("echo", "m").q1(number)));
    }
    let got = bed.got(echo);
    assert_eq!(got.iter().filter(|line| line.starts_with("puback")).count(), 6);
}

#[test]
fn a_group_goes_past_members_without_room_and_then_waits() {
    let mut bed = bed(2);
    let slow = subscriber(&mut bed, "slow", "$share/g/t");
    let quick = subscriber(&mut bed, "quick", "$share/g/t");
    let publisher = publisher(&mut bed, "p");
    let (mut acked, mut got) = (0, 0);
    for number in 1..=40 {
        bed.send(publisher, publisher.publish(post("t", "m").q1(number)));
        acked += acknowledged(&mut bed, publisher);
        got += drain(&mut bed, quick);
    }
    assert_eq!((acked, got), (40, 40 - LIMIT / 2), "one has room and gets them all");
    assert_eq!(counts(&bed), [0, 1, 0]);
    // Nobody reads: the publisher waits until one does.
    let acked = publish(&mut bed, publisher, "t", 20);
    assert_eq!(acked, LIMIT / 2);
    assert_eq!(counts(&bed), [1, 2, 0]);
    let mut rest = 0;
    for _ in 0..20 {
        rest += drain(&mut bed, quick) + drain(&mut bed, slow);
    }
    assert_eq!((rest, acknowledged(&mut bed, publisher)), (20 + LIMIT / 2, 20 - LIMIT / 2));
    assert!(bed.ledger().dropped.values().all(|count| *count == 0));
}

#[test]
fn security_a_publisher_that_leaves_while_it_waits_is_forgotten() {
    let mut bed = bed(1);
    let slow = subscriber(&mut bed, "slow", "t");
    for id in ["p", "q", "r", "s"] {
        let publisher = publisher(&mut bed, id);
        publish(&mut bed, publisher, "t", 6);
        bed.lose(publisher);
    }
    assert!(drain(&mut bed, slow) >= LIMIT / 2);
    let publisher = publisher(&mut bed, "last");
    assert_eq!(publish(&mut bed, publisher, "t", 2), 2);
}
