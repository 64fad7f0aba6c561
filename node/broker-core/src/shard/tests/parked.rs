//! Sessions leave memory when their clients are away, and are there when they are touched.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use verge_model::ClientKey;
use verge_mqtt_proto::AckKind;
use verge_storage::key::{Key as _, OpenKey, SessionKey};
use verge_storage::{Batch, Family, Op, Store, StoreRows as _};

use super::bed::{Bed, LIMIT};
use super::client::{Client, post, v5, want};
use super::mesh::Mesh;
use crate::parked::Counted;
use crate::shard::api::{Answer, Mail, Query};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_session_leaves_memory_and_its_client_finds_it() {
    let mut bed = Bed::new(2);
    let sub = parked(&mut bed);
    assert_eq!((in_memory(&bed), sessions(&mut bed)), (0, 1));
    let again = bed.connect(&v5("sub").persistent());
    bed.expect(again, &["connack present=1"]);
    bed.expect(sub, &["closed"]);
    let publisher = bed.connect(&v5("pub"));
    bed.send(publisher, publisher.publish(post("t", "m").q1(1)));
    bed.expect(again, &["publish t q1 id=16385 \"m\""]);
    assert_eq!((in_memory(&bed), sessions(&mut bed)), (2, 2));
}

#[test]
fn a_message_waits_for_a_session_that_is_not_in_memory() {
    let mut bed = Bed::new(2);
    parked(&mut bed);
    let publisher = bed.connect(&v5("pub"));
    bed.send(publisher, publisher.publish(post("t", "at most once")));
    assert_eq!(in_memory(&bed), 1, "nobody is owed it");
    bed.send(publisher, publisher.publish(post("t", "owed").q1(1)));
    bed.send(publisher, publisher.publish(post("t", "owed too").q1(2)));
    assert_eq!((bed.held(), bed.ledger().accepted), (2, 2));
    assert_eq!(in_memory(&bed), 1, "it is noted");
    bed.wait(10 * SECOND);
    let sub = bed.connect(&v5("sub").persistent());
    let owed = ["publish t q1 id=16385 \"owed\"", "publish t q1 id=16386 \"owed too\""];
    assert_eq!(bed.got(sub), [&["connack present=1"][..], &owed].concat());
}

#[test]
fn what_is_owed_is_on_disk_in_flight_or_not_and_in_order_over_a_restart() {
    for restart in [false, true] {
        let mut bed = Bed::new(2);
        let sub = bed.connect(&v5("sub").persistent().receive_maximum(3));
        bed.send(sub, sub.subscribe(1, want("t", 2)));
        let publisher = bed.connect(&v5("pub"));
        bed.send(publisher, publisher.publish(post("t", "flying").q1(1)));
        bed.send(publisher, publisher.publish(post("t", "sent").q2(2)));
        bed.send(publisher, publisher.publish(post("t", "released").q2(3)));
        bed.send(publisher, publisher.publish(post("t", "queued").q1(4)));
        bed.send(sub, sub.ack(AckKind::Pubrec, 16_387));
        bed.lose(sub);
        bed.wait(30 * SECOND);
        assert_eq!((in_memory(&bed), bed.held()), (1, 4));
        bed.send(publisher, publisher.publish(post("t", "later").q2(5)));
        assert_eq!((in_memory(&bed), bed.held()), (1, 5));
        if restart {
            bed = bed.crash();
            assert_eq!(bed.held(), 0, "nobody has looked");
            let publisher = bed.connect(&v5("pub"));
            bed.send(publisher, publisher.publish(post("t", "last").q2(6)));
            assert_eq!((in_memory(&bed), bed.held()), (1, 6), "its rows are counted");
        }
        // In memory, and out of it again.
        let again = bed.connect(&v5("sub").persistent().receive_maximum(1));
        assert_eq!(
            bed.got(again)[..2],
            ["connack present=1", "publish t q1 id=16385 dup \"flying\""]
        );
        bed.lose(again);
        bed.wait(30 * SECOND);
        assert_eq!((in_memory(&bed), bed.held()), (1, if restart { 6 } else { 5 }));
        let again = bed.connect(&v5("sub").persistent());
        let mut wanted = vec![
            "connack present=1",
            "publish t q1 id=16385 dup \"flying\"",
            "publish t q2 id=16386 dup \"sent\"",
            "pubrel 16387",
            "publish t q1 id=16388 \"queued\"",
            "publish t q2 id=16389 \"later\"",
        ];
        let got = bed.got(again);
        let texts = |lines: &[String]| -> Vec<String> {
            lines.iter().map(|line| line.split("id=").next().unwrap().to_owned()).collect()
        };
        if restart {
            wanted.push("publish t q2 id=16390 \"last\"");
        }
        let last = |line: &str| line.rsplit(' ').next().unwrap().to_owned();
        let words: Vec<String> = got.iter().map(|line| last(line)).collect();
        assert_eq!(words, wanted.iter().map(|line| last(line)).collect::<Vec<_>>());
        assert_eq!(got[1..4], wanted[1..4]);
        assert_eq!(texts(&got), texts(&wanted.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>()));
        for number in [16_385, 16_388] {
            bed.send(again, again.ack(AckKind::Puback, number));
        }
    }
}

#[test]
fn a_full_queue_refuses_what_comes_as_in_memory() {
    let mut bed = Bed::new(1);
    parked(&mut bed);
    let publisher = bed.connect(&v5("pub"));
    for number in 1..=10 {
        bed.send(publisher, publisher.publish(post("t", "m").q1(number)));
    }
    assert_eq!(bed.held(), LIMIT as u64);
    assert_eq!(bed.rows().0, LIMIT);
    let sub = bed.connect(&v5("sub").persistent());
    assert_eq!(bed.got(sub).len(), 1 + LIMIT);
}

#[test]
fn a_session_that_expires_on_disk_settles_what_it_was_owed() {
    let mut bed = Bed::new(1);
    let sub = bed.connect(&v5("sub").persistent().expiry(60));
    bed.send(sub, sub.subscribe(1, want("t", 1)));
    bed.lose(sub);
    bed.wait(10 * SECOND);
    let publisher = bed.connect(&v5("pub"));
    bed.send(publisher, publisher.publish(post("t", "m").q1(1)));
    bed.send(publisher, publisher.publish(post("t", "n").q1(2)));
    assert_eq!((in_memory(&bed), bed.held()), (1, 2));
    let Answer::Holders(holders) = bed.query(Query::Holders(1)).swap_remove(0) else {
        panic!("Holders answers Holders")
    };
    let holders: Vec<_> =
        holders.iter().map(|of| (&*of.client.client_id, of.held.total())).collect();
    assert_eq!(holders, [("sub", 2)]);
    bed.wait(60 * SECOND);
    assert_eq!((bed.held(), bed.ledger().expired, bed.rows()), (0, 2, (0, 0)));
}

#[test]
fn it_stays_while_it_is_touched_before_all_of_it_is_stored() {
    let mut bed = Bed::new(1);
    let sub = bed.connect(&v5("sub").persistent());
    bed.send(sub, sub.subscribe(1, want("t", 1)));
    bed.lose(sub);
    bed.commits = false;
    bed.wait(2 * SECOND);
    assert!(!bed.uncommitted.is_empty(), "it waits for what was written");
    let again = bed.connect(&v5("sub").persistent());
    bed.commit_all();
    bed.expect(again, &["connack present=1"]);
    assert_eq!(in_memory(&bed), 1);
}

#[test]
fn it_stays_if_something_of_it_was_not_stored() {
    let mut bed = Bed::new(1);
    let sub = bed.connect(&v5("sub").persistent());
    bed.commits = false;
    bed.send(sub, sub.subscribe(1, want("t", 1)));
    bed.fail_commit();
    bed.commits = true;
    bed.wait(20 * SECOND);
    assert_eq!(in_memory(&bed), 1);
}

#[test]
fn a_clean_start_ends_it() {
    let mut bed = Bed::new(1);
    parked(&mut bed);
    let fresh = bed.connect(&v5("sub").clean());
    bed.expect(fresh, &["connack present=0"]);
    let publisher = bed.connect(&v5("pub"));
    bed.send(publisher, publisher.publish(post("t", "m").q1(1)));
    bed.expect(fresh, &[]);
    assert_eq!(rows(&bed), [0, 0, 0, 0], "nothing is left of it");
    assert_eq!(sessions(&mut bed), 2);
}

#[test]
fn one_that_ended_is_not_found_before_its_rows_are_gone() {
    let mut bed = Bed::new(1);
    parked(&mut bed);
    bed.commits = false;
    let fresh = bed.connect(&v5("sub").clean());
    bed.lose(fresh);
    let again = bed.connect(&v5("sub").persistent());
    bed.commit_all();
    bed.expect(again, &["connack present=0"]);
    assert_eq!(rows(&bed), [1, 1, 1, 0]);
}

#[test]
fn it_expires_while_nobody_looks_and_across_a_restart() {
    for restart in [false, true] {
        let mut bed = Bed::new(2);
        let sub = bed.connect(&v5("sub").persistent().expiry(60));
        bed.send(sub, sub.subscribe(1, want("t", 1)));
        bed.lose(sub);
        bed.wait(40 * SECOND);
        assert_eq!((in_memory(&bed), sessions(&mut bed)), (0, 1));
        if restart {
            bed = bed.crash();
        }
        bed.wait(19 * SECOND);
        assert_eq!((sessions(&mut bed), rows(&bed)), (1, [1, 1, 1, 1]), "not yet");
        bed.wait(2 * SECOND);
        assert_eq!((sessions(&mut bed), rows(&bed)), (0, [0; 4]), "restart: {restart}");
        assert_eq!(bed.shared.router.subscription_count(), 0);
    }
}

#[test]
fn a_delayed_will_is_published_while_nobody_looks_and_across_a_restart() {
    // [MQTT-3.1.3-9]
    for restart in [false, true] {
        let mut bed = Bed::new(2);
        let client = bed.connect(&v5("v").persistent().will("w", "gone", 30));
        bed.lose(client);
        bed.wait(20 * SECOND);
        assert_eq!(in_memory(&bed), 0);
        if restart {
            bed = bed.crash();
        }
        let watcher = bed.connect(&v5("watcher"));
        bed.send(watcher, watcher.subscribe(1, want("w", 0)));
        bed.got(watcher);
        bed.wait(9 * SECOND);
        bed.expect(watcher, &[]);
        bed.wait(2 * SECOND);
        bed.expect(watcher, &["publish w \"gone\""]);
        bed.wait(10 * SECOND);
        assert_eq!((in_memory(&bed), sessions(&mut bed)), (1, 2));
        let again = bed.connect(&v5("v").persistent());
        bed.expect(again, &["connack present=1"]);
    }
}

#[test]
fn who_was_connected_when_the_node_went_down_is_away_from_its_start_on() {
    let mut bed = Bed::new(2);
    let client = bed.connect(&v5("v").persistent().expiry(60).will("w", "gone", 20));
    bed.send(client, client.subscribe(1, want("t", 1)));
    bed.wait(1_000 * SECOND);
    let mut bed = bed.crash();
    assert_eq!(in_memory(&bed), 0, "it is not read before the node serves");
    let watcher = bed.connect(&v5("watcher"));
    bed.send(watcher, watcher.subscribe(1, want("w", 0)));
    bed.got(watcher);
    bed.wait(10 * SECOND);
    bed = {
        let mut next = bed.crash();
        next.wait(SECOND);
        next
    };
    let watcher = bed.connect(&v5("watcher"));
    bed.send(watcher, watcher.subscribe(1, want("w", 0)));
    bed.got(watcher);
    bed.wait(10 * SECOND);
    bed.expect(watcher, &["publish w \"gone\""]);
    bed.wait(50 * SECOND);
    assert_eq!(sessions(&mut bed), 1, "it expired, and the watcher is there");
}

#[test]
fn a_start_reads_subscriptions_and_no_sessions() {
    let mut bed = Bed::new(3);
    for id in ["a", "b", "c", "d"] {
        let client = bed.connect(&v5(id).persistent());
        bed.send(client, client.subscribe(1, want("t", 1)));
        bed.lose(client);
    }
    let mut bed = bed.crash();
    assert_eq!((in_memory(&bed), bed.shared.router.subscription_count()), (0, 4));
    bed.wait(SECOND);
    assert_eq!((in_memory(&bed), sessions(&mut bed)), (0, 4));
    let publisher = bed.connect(&v5("pub"));
    bed.send(publisher, publisher.publish(post("t", "m").q1(1)));
    assert_eq!((in_memory(&bed), bed.held()), (1, 4));
    for id in ["a", "b", "c", "d"] {
        let client = bed.connect(&v5(id).persistent());
        bed.expect(client, &["connack present=1", "publish t q1 id=16385 \"m\""]);
    }
}

#[test]
fn no_local_and_shares_are_planned_for_without_the_session() {
    let mut bed = Bed::new(2);
    let own = bed.connect(&v5("own").persistent());
    bed.send(own, own.subscribe(1, want("t", 1).no_local()));
    bed.send(own, own.subscribe(2, want("$share/g/s", 1)));
    bed.lose(own);
    let mut bed = bed.crash();
    let own = bed.connect(&v5("own").persistent());
    bed.send(own, own.publish(post("t", "mine").q1(1)));
    bed.send(own, own.publish(post("s", "shared").q1(2)));
    let got = ["connack present=1", "puback 1 No matching subscribers"];
    assert_eq!(bed.got(own)[..2], got);
    let other = bed.connect(&v5("other"));
    bed.send(other, other.publish(post("t", "another's").q1(1)));
    assert_eq!(bed.got(own).len(), 1);
}

#[test]
fn a_disk_that_cannot_be_read_gives_no_fresh_session() {
    let mut bed = Bed::new(1);
    parked(&mut bed);
    bed.break_reads(true);
    let refused = bed.connect(&v5("sub").persistent());
    bed.expect(refused, &["connack Server unavailable", "closed"]);
    let publisher = bed.connect(&v5("pub"));
    bed.expect(publisher, &["connack Server unavailable", "closed"]);
    assert_eq!(bed.shared.parked.get(Counted::Unread), 2);
    bed.break_reads(false);
    let sub = bed.connect(&v5("sub").persistent());
    bed.expect(sub, &["connack present=1"]);
}

#[test]
fn a_message_that_a_session_could_not_be_read_for_is_there_after_a_restart() {
    let mut bed = Bed::new(1);
    parked(&mut bed);
    let publisher = bed.connect(&v5("pub"));
    bed.break_reads(true);
    bed.send(publisher, publisher.publish(post("t", "m").q1(1)));
    bed.expect(publisher, &["connack present=0", "puback 1"]);
    let mut bed = bed.crash();
    let sub = bed.connect(&v5("sub").persistent());
    bed.expect(sub, &["connack present=1", "publish t q1 id=16385 \"m\""]);
}

#[test]
fn a_damaged_header_is_counted_and_left_out() {
    let mut bed = Bed::new(1);
    parked(&mut bed);
    let no = bed.store.open_session(&ClientKey::anonymous("sub")).unwrap().unwrap();
    let mut batch = Batch::new();
    let (key, value) = (SessionKey(no).encode(), Bytes::from_static(&[9]));
    batch.push(Op::Put { family: Family::Session, key, value });
    bed.store.commit(&[batch], true).unwrap();
    let sub = bed.connect(&v5("sub").persistent());
    bed.expect(sub, &["connack present=0"]);
    assert_eq!(bed.shared.parked.get(Counted::Damaged), 1);
    let publisher = bed.connect(&v5("pub"));
    bed.send(publisher, publisher.publish(post("t", "m").q1(1)));
    assert_eq!(bed.held(), 0);
}

#[test]
fn a_session_that_another_one_of_its_client_came_after_is_forgotten() {
    let mut bed = Bed::new(1);
    parked(&mut bed);
    // As if neither the end of the first nor what names it had been stored.
    let client = ClientKey::anonymous("sub");
    let no = bed.store.open_session(&client).unwrap().unwrap();
    let mut batch = Batch::new();
    batch.put_open(&client, no + 1_000);
    bed.store.commit(&[batch], true).unwrap();
    let publisher = bed.connect(&v5("pub"));
    bed.send(publisher, publisher.publish(post("t", "m").q1(1)));
    assert_eq!((bed.held(), bed.rows()), (0, (0, 0)));
    assert_eq!(bed.shared.router.subscription_count(), 0);
    assert_eq!(rows(&bed)[0], 0);
}

#[test]
fn a_leap_of_the_wall_clock_ages_nobody() {
    let mut bed = Bed::new(1);
    let sub = bed.connect(&v5("sub").persistent().expiry(3_600));
    bed.lose(sub);
    bed.wait(600 * SECOND);
    assert_eq!(in_memory(&bed), 0);
    bed.leap(Duration::from_secs(7_200));
    bed.wait(10 * SECOND);
    assert_eq!((sessions(&mut bed), in_memory(&bed)), (1, 0), "it was put off");
    bed.wait(2_900 * SECOND);
    assert_eq!(sessions(&mut bed), 1);
    bed.wait(200 * SECOND);
    assert_eq!(sessions(&mut bed), 0);
    assert_eq!(bed.shared.parked.get(Counted::ClockLeapt), 1);
}

#[test]
fn another_node_takes_it_over_from_disk() {
    let mut mesh = Mesh::new(&["a", "b"]);
    let sub = mesh.at(0, |a| a.connect(&v5("v").persistent()));
    mesh.at(0, |a| {
        a.send(sub, sub.subscribe(1, want("t", 2)));
        a.lose(sub);
    });
    mesh.wait(5_000);
    assert_eq!(in_memory(&mesh.nodes[0]), 0);
    let new = mesh.at(1, |b| b.connect(&v5("v").persistent()));
    mesh.at(1, |b| b.expect(new, &["connack present=1"]));
    mesh.at(0, |a| a.forward(1, "t", "late"));
    mesh.at(1, |b| b.expect(new, &["publish t q2 id=32769 \"late\""]));
    mesh.wait(60_000);
    assert_eq!(rows(&mesh.nodes[0]), [0; 4]);
    // And back.
    mesh.at(1, |b| b.lose(new));
    mesh.wait(90_000);
    assert_eq!((in_memory(&mesh.nodes[1]), mesh.nodes[1].held()), (0, 1));
    let back = mesh.at(0, |a| a.connect(&v5("v").persistent()));
    let again = ["connack present=1", "publish t q2 id=32769 dup \"late\""];
    mesh.at(0, |a| a.expect(back, &again));
}

#[test]
fn in_a_mesh_it_is_confirmed_once_in_a_life() {
    let mut mesh = Mesh::new(&["a"]);
    let sub = mesh.at(0, |a| a.connect(&v5("v").persistent()));
    mesh.at(0, |a| a.lose(sub));
    mesh.wait(5_000);
    mesh.crash(0);
    let asked = |mesh: &mut Mesh| {
        let (client, hub) = (&v5("v").persistent(), "Lookup");
        let bed = &mut mesh.nodes[0];
        let client = bed.connect(client);
        let asked = bed.hub.iter().any(|(_, mail)| format!("{mail:?}").starts_with(hub));
        mesh.settle();
        mesh.at(0, |a| {
            a.expect(client, &["connack present=1"]);
            a.lose(client);
        });
        mesh.wait(20_000);
        assert_eq!(in_memory(&mesh.nodes[0]), 0);
        asked
    };
    assert!(asked(&mut mesh), "the first time after a start");
    assert!(!asked(&mut mesh) && !asked(&mut mesh), "and no more");
}

#[test]
fn homes_hear_of_sessions_after_a_restart_without_a_connection() {
    let mut mesh = Mesh::new(&["a"]);
    let sub = mesh.at(0, |a| a.connect(&v5("v").persistent()));
    mesh.at(0, |a| {
        a.send(sub, sub.subscribe(1, want("t", 2)));
        a.lose(sub);
    });
    mesh.wait(5_000);
    mesh.forget_registry();
    mesh.crash(0);
    mesh.wait(20_000);
    assert_eq!(mesh.registered("v"), ["t"]);
    assert_eq!(in_memory(&mesh.nodes[0]), 0, "it leaves memory again");
}

#[test]
fn one_that_was_discarded_elsewhere_goes() {
    let mut mesh = Mesh::new(&["a", "b"]);
    let sub = mesh.at(0, |a| a.connect(&v5("v").persistent()));
    mesh.at(0, |a| a.lose(sub));
    mesh.wait(5_000);
    assert_eq!(in_memory(&mesh.nodes[0]), 0);
    let client = ClientKey::anonymous("v");
    let winner = verge_model::Claim { epoch: 9, node: mesh.nodes[1].id.key() };
    mesh.at(0, |a| a.mail(0, Mail::Superseded { client, winner, clean: true }));
    assert_eq!(rows(&mesh.nodes[0]), [0; 4]);
}

/// A client with a subscription to `t` at QoS 1, whose session left memory.
fn parked(bed: &mut Bed) -> Client {
    let sub = bed.connect(&v5("sub").persistent());
    bed.send(sub, sub.subscribe(1, want("t", 1)));
    bed.got(sub);
    bed.lose(sub);
    bed.wait(3 * SECOND);
    assert_eq!(in_memory(bed), 0);
    sub
}

fn in_memory(bed: &Bed) -> usize {
    bed.shards.iter().map(|shard| shard.sessions.len()).sum()
}

fn sessions(bed: &mut Bed) -> u64 {
    let answers = bed.query(Query::Counts).into_iter();
    answers
        .map(|answer| if let Answer::Counts(counts) = answer { counts.sessions } else { 0 })
        .sum()
}

/// Headers, clients, timers and subscriptions that are stored.
fn rows(bed: &Bed) -> [usize; 4] {
    let store = Arc::clone(&bed.store);
    let timers = store.rows::<verge_storage::key::TimerKey>(verge_storage::KeyRange::all());
    let clients = store.rows::<OpenKey>(verge_storage::KeyRange::all());
    [store.sessions().count(), clients.count(), timers.count(), store.subscriptions().count()]
}
