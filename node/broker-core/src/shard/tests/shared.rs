//! Shared subscriptions: what a member leaves goes to another, once, and the books balance.

use verge_model::NodeKey;
use verge_mqtt_proto::{AckKind, ReasonCode, TopicFilter};
use verge_storage::LogKey;

use super::bed::Bed;
use super::client::{Client, post, v5, want};
use super::mesh::Mesh;
use crate::ledger::DropReason;
use crate::record::ForwardRecord;
use crate::router::{ForwardTargets, Redeliver, SharedSettings};

/// The first member goes by the first turn.
fn two_members(bed: &mut Bed) -> (Client, Client, Client) {
    let first = bed.connect(&v5("first").persistent().receive_maximum(1));
    bed.send(first, first.subscribe(1, want("$share/g/t", 2).id(7)));
    let second = bed.connect(&v5("second").persistent());
    bed.send(second, second.subscribe(1, want("$share/g/t", 2)));
    let publisher = bed.connect(&v5("pub"));
    bed.got(first);
    bed.got(second);
    bed.got(publisher);
    (first, second, publisher)
}

#[test]
fn members_take_turns_and_acknowledge_for_the_group() {
    let mut bed = Bed::new(2);
    let (first, second, publisher) = two_members(&mut bed);
    for number in 1..=2 {
        bed.send(publisher, publisher.publish(post("t", "m").q1(number)));
    }
    bed.expect(first, &["publish t q1 id=16385 for=[7] \"m\""]);
    bed.expect(second, &["publish t q1 id=16385 \"m\""]);
    for member in [first, second] {
        bed.send(member, member.ack(AckKind::Puback, 16_385));
    }
    assert_eq!((bed.held(), bed.rows(), bed.ledger().delivered), (0, (0, 0), 2));
}

#[test]
fn queue_is_the_group_without_a_name() {
    let mut bed = Bed::new(1);
    let first = bed.connect(&v5("first"));
    bed.send(first, first.subscribe(1, want("$queue/t", 0)));
    let second = bed.connect(&v5("second"));
    bed.send(second, second.subscribe(1, want("$share/$queue/t", 0)));
    bed.send(second, second.publish(post("t", "one")));
    bed.send(second, second.publish(post("t", "two")));
    bed.expect(first, &["connack present=0", "suback 1 [0]", "publish t \"one\""]);
    bed.expect(second, &["connack present=0", "suback 1 [0]", "publish t \"two\""]);
    bed.send(first, first.unsubscribe(2, "$queue/t"));
    bed.send(second, second.publish(post("t", "three")));
    bed.expect(second, &["publish t \"three\""]);
    bed.send(first, first.subscribe(3, want("$queue/", 0)));
    bed.expect(first, &["unsuback 2", "suback 3 [143]"]);
}

#[test]
fn a_refused_message_goes_to_nobody_else_mqtt_4_8_2_6() {
    for (bad, answer) in
        [(post("t", "bad").q1(1), AckKind::Puback), (post("t", "bad").q2(1), AckKind::Pubrec)]
    {
        let mut bed = Bed::new(1);
        let (first, second, publisher) = two_members(&mut bed);
        bed.send(publisher, publisher.publish(bad));
        bed.got(first);
        bed.send(first, first.answer(answer, 16_385, ReasonCode::UnspecifiedError));
        bed.send(first, first.disconnect(ReasonCode::Success));
        bed.expect(second, &[]);
        assert_eq!((bed.held(), bed.rows()), (0, (0, 0)));
        let ledger = bed.ledger();
        assert_eq!((ledger.delivered, ledger.dropped[&DropReason::Refused]), (0, 1));
    }
}

#[test]
fn the_others_are_given_what_an_unsubscribing_member_was_not_sent() {
    let mut bed = Bed::new(2);
    let (first, second, publisher) = two_members(&mut bed);
    // First has one in flight and one queued; its turns are the odd ones.
    for number in 1..=4 {
        let text = ["sent", "a", "queued", "b"][usize::from(number - 1)];
        bed.send(publisher, publisher.publish(post("t", text).q1(number)));
    }
    bed.expect(first, &["publish t q1 id=16385 for=[7] \"sent\""]);
    bed.got(second);
    bed.send(first, first.unsubscribe(2, "$share/g/t"));
    bed.expect(first, &["unsuback 2"]);
    bed.expect(second, &["publish t q1 id=16387 \"queued\""]);
    // What it was sent is still the leaver's [MQTT-3.10.4-3].
    bed.send(first, first.ack(AckKind::Puback, 16_385));
    for id in 16_385..=16_387 {
        bed.send(second, second.ack(AckKind::Puback, id));
    }
    assert_eq!((bed.held(), bed.rows()), (0, (0, 0)));
    assert_eq!((bed.ledger().delivered, bed.ledger().redelivered), (4, 1));
}

#[test]
fn without_another_member_what_was_queued_stays() {
    let mut bed = Bed::new(1);
    let only = bed.connect(&v5("only").persistent().receive_maximum(1));
    bed.send(only, only.subscribe(1, want("$share/g/t", 1)));
    let publisher = bed.connect(&v5("pub"));
    for number in 1..=2 {
        bed.send(publisher, publisher.publish(post("t", "m").q1(number)));
    }
    bed.got(only);
    bed.send(only, only.unsubscribe(2, "$share/g/t"));
    bed.send(only, only.ack(AckKind::Puback, 16_385));
    bed.expect(only, &["unsuback 2", "publish t q1 id=16386 \"m\""]);
}

#[test]
fn the_end_of_a_session_gives_qos_1_away_and_not_a_qos_2_message_that_was_sent() {
    // [MQTT-4.8.2-5]
    let mut bed = Bed::new(2);
    let first = bed.connect(&v5("first"));
    bed.send(first, first.subscribe(1, want("$share/g/t", 2)));
    let second = bed.connect(&v5("second").persistent());
    bed.send(second, second.subscribe(1, want("$share/g/t", 2)));
    let publisher = bed.connect(&v5("pub"));
    bed.send(publisher, publisher.publish(post("t", "one").q1(1)));
    bed.send(publisher, publisher.publish(post("t", "other").q1(2)));
    bed.send(publisher, publisher.publish(post("t", "two").q2(3)));
    assert_eq!(bed.got(first).len(), 4);
    bed.got(second);
    bed.lose(first);
    bed.expect(second, &["publish t q1 id=16386 \"one\""]);
    for id in [16_385, 16_386] {
        bed.send(second, second.ack(AckKind::Puback, id));
    }
    assert_eq!((bed.held(), bed.rows()), (0, (0, 0)));
    assert_eq!(bed.ledger().redelivered, 1);
}

#[test]
fn what_is_given_away_is_stored_with_its_new_owner_before_it_is_sent() {
    let mut bed = Bed::new(2);
    let (first, second, publisher) = two_members(&mut bed);
    bed.send(publisher, publisher.publish(post("t", "m").q1(1)));
    bed.got(first);
    bed.commits = false;
    bed.send(first, first.disconnect(ReasonCode::Success));
    // A persistent session goes on; a clean start ends it.
    let again = bed.connect(&v5("first"));
    bed.expect(second, &[]);
    let mut bed = bed.crash();
    let _ = again;
    // Nothing of it was committed: the message is where it was.
    let first = bed.connect(&v5("first").persistent());
    bed.expect(first, &["connack present=1", "publish t q1 id=16385 dup for=[7] \"m\""]);
    bed.lose(first);
    bed.connect(&v5("first"));
    // Committed now: it is the other's, over a crash too.
    let mut bed = bed.crash();
    let second = bed.connect(&v5("second").persistent());
    bed.expect(second, &["connack present=1", "publish t q1 id=16385 \"m\""]);
    bed.send(second, second.ack(AckKind::Puback, 16_385));
    assert_eq!((bed.held(), bed.rows()), (0, (0, 0)));
}

#[test]
fn a_member_that_is_away_gets_messages_only_if_all_are() {
    let mut bed = Bed::new(1);
    let (first, second, publisher) = two_members(&mut bed);
    bed.lose(first);
    for number in 1..=2 {
        bed.send(publisher, publisher.publish(post("t", "m").q1(number)));
    }
    assert_eq!(bed.got(second).len(), 2);
    bed.lose(second);
    bed.send(publisher, publisher.publish(post("t", "kept").q1(3)));
    let first = bed.connect(&v5("first").persistent());
    let second = bed.connect(&v5("second").persistent());
    let lines = [bed.got(first), bed.got(second)].concat();
    let kept = lines.iter().filter(|line| line.contains("kept")).count();
    assert_eq!(kept, 1, "{lines:?}");
}

#[test]
fn a_lost_connection_gives_away_what_was_not_acknowledged_if_so_configured() {
    let mut bed = Bed::configured(2, |shared| {
        let redeliver = Redeliver::ConnectionLost;
        shared.with_shared(SharedSettings { redeliver, ..SharedSettings::default() })
    });
    let (first, second, publisher) = two_members(&mut bed);
    bed.send(publisher, publisher.publish(post("t", "one").q1(1)));
    bed.got(first);
    bed.lose(first);
    bed.expect(second, &["publish t q1 id=16385 \"one\""]);
    // Nobody else is there: it waits for this one.
    bed.lose(second);
    let second = bed.connect(&v5("second").persistent());
    bed.expect(second, &["connack present=1", "publish t q1 id=16385 dup \"one\""]);
    let first = bed.connect(&v5("first").persistent());
    bed.expect(first, &["connack present=1"]);
    bed.send(second, second.ack(AckKind::Puback, 16_385));
    assert_eq!((bed.held(), bed.rows(), bed.ledger().redelivered), (0, (0, 0), 1));
}

#[test]
fn a_member_of_another_node_is_sent_what_is_left_through_the_log() {
    let mut bed = Bed::in_mesh("a");
    let member = bed.connect(&v5("member").clean().expiry(100));
    bed.send(member, member.subscribe(1, want("$share/g/t", 1)));
    let publisher = bed.connect(&v5("pub"));
    bed.send(publisher, publisher.publish(post("t", "m").q1(1)));
    bed.got(member);
    bed.shared.router.set_remote(NodeKey(9), &["$share/g/t"], &[]);
    bed.lose(member);
    bed.connect(&v5("member"));
    let log =
        verge_storage::LogKey::Forward { peer: NodeKey(9), class: verge_model::Class::default() };
    let rows = forwarded(&bed, log);
    let [record] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(record.targets, only("$share/g/t", 0));
    assert_eq!((bed.held(), bed.rows()), (0, (0, 0)));
}

#[test]
fn a_message_for_a_group_that_left_is_passed_on_and_not_for_ever() {
    let mut bed = Bed::in_mesh("a");
    bed.shared.router.set_remote(NodeKey(9), &["$share/g/t"], &[]);
    let log = LogKey::Forward { peer: NodeKey(9), class: verge_model::Class::Control };
    for (hops, sent) in [(0, true), (3, true), (4, false)] {
        let before = forwarded(&bed, log).len();
        bed.forward_to(hops, "t", "m", &only("$share/g/t", hops));
        let rows = forwarded(&bed, log);
        assert_eq!(rows.len() - before, usize::from(sent), "{hops}");
        if sent {
            let targets = &rows.last().unwrap().targets;
            assert_eq!(*targets, only("$share/g/t", hops + 1));
        }
    }
    assert_eq!(bed.shared.counters.snapshot().share_unserved, 1);
}

#[test]
fn what_a_group_owes_moves_with_its_member_and_is_the_groups_still() {
    let mut mesh = Mesh::new(&["a", "b"]);
    let filter = "$share/g/t";
    let first = mesh.at(0, |a| a.connect(&v5("first").persistent()));
    mesh.at(0, |a| {
        a.send(first, first.subscribe(1, want(filter, 1)));
        a.lose(first);
        let publisher = a.connect(&v5("pub"));
        a.send(publisher, publisher.publish(post("t", "m").q1(1)));
    });
    let moved = mesh.at(1, |b| b.connect(&v5("first").persistent()));
    let second = mesh.at(1, |b| b.connect(&v5("second").persistent()));
    mesh.at(1, |b| {
        b.expect(moved, &["connack present=1", "publish t q1 id=32769 \"m\""]);
        b.send(second, second.subscribe(1, want(filter, 1)));
        b.got(second);
        b.lose(moved);
        b.connect(&v5("first"));
        b.expect(second, &["publish t q1 id=16385 \"m\""]);
    });
}

fn only(group: &str, hops: u8) -> ForwardTargets {
    let group = TopicFilter::parse(group).unwrap();
    ForwardTargets { plain: false, groups: vec![group.shared_text()], hops }
}

fn forwarded(bed: &Bed, log: LogKey) -> Vec<ForwardRecord> {
    use verge_storage::Store as _;
    let rows = bed.store.read_log(log, 1, 100, 1 << 20).unwrap();
    rows.into_iter().map(|(_, bytes)| ForwardRecord::decode(&bytes).unwrap()).collect()
}
