//! A session moves between nodes.

use verge_mqtt_proto::AckKind;

use super::client::{Client, post, v5, want};
use super::mesh::Mesh;
use crate::shard::api::{Answer, HubMail, Mail, Query};

#[test]
fn a_session_follows_its_client_with_queue_and_flight() {
    let mut mesh = Mesh::new(&["a", "b"]);
    let sub = mesh.at(0, |a| a.connect(&v5("v").persistent()));
    let publisher = mesh.at(0, |a| a.connect(&v5("p")));
    mesh.at(0, |a| {
        a.send(sub, sub.subscribe(1, want("t", 2)));
        a.got(sub);
        a.send(publisher, publisher.publish(post("t", "one").q1(1)));
        a.send(publisher, publisher.publish(post("t", "two").q2(2)));
        a.send(publisher, publisher.publish(post("t", "three").q2(3)));
        a.send(sub, sub.ack(AckKind::Pubrec, 16_387));
        a.got(sub);
    });
    let new = mesh.at(1, |b| b.connect(&v5("v").persistent()));
    mesh.at(0, |a| a.expect(sub, &["disconnect Session taken over", "closed"]));
    let again = [
        "connack present=1",
        "publish t q1 id=16385 dup \"one\"",
        "publish t q2 id=16386 dup \"two\"",
        "pubrel 16387",
    ];
    mesh.at(1, |b| b.expect(new, &again));
    assert_eq!(mesh.nodes[0].held(), 0);
    assert_eq!(mesh.nodes[0].ledger().handed_over, 3);
    assert_eq!(mesh.nodes[1].ledger().imported, 3, "what one gives the other takes");
    mesh.wait(40_000);
    assert_eq!(mesh.nodes[0].rows(), (0, 0));
    assert!(mesh.frames.last().unwrap().ends_with("b→a Drained"), "{:?}", mesh.frames);
}

#[test]
fn a_second_connection_during_a_claim_waits_for_the_owner_too() {
    let mut mesh = Mesh::new(&["a", "b"]);
    subscribed(&mut mesh, 0);
    mesh.at(0, |a| a.forward(1, "t", "m"));
    mesh.cut(0, 1);
    let first = mesh.at(1, |b| b.connect(&v5("v").persistent()));
    mesh.wait(500);
    let second = mesh.at(1, |b| b.connect(&v5("v").persistent()));
    mesh.at(1, |b| b.expect(first, &["connack Unspecified error", "closed"]));
    mesh.at(1, |b| b.expect(second, &[]));
    mesh.heal(0, 1);
    let again = ["connack present=1", "publish t q2 id=16385 dup \"m\""];
    mesh.at(1, |b| b.expect(second, &again));
}

#[test]
fn a_claim_goes_on_after_a_crash_before_anybody_is_served() {
    let mut mesh = Mesh::new(&["a", "b"]);
    subscribed(&mut mesh, 0);
    mesh.cut(0, 1);
    mesh.at(1, |b| b.connect(&v5("v").persistent()));
    mesh.crash(1);
    let again = mesh.at(1, |b| b.connect(&v5("v").persistent()));
    mesh.at(1, |b| b.expect(again, &[]));
    mesh.heal(0, 1);
    mesh.at(1, |b| b.expect(again, &["connack present=1"]));
    mesh.at(1, |b| b.forward(1, "t", "m"));
    mesh.at(1, |b| b.expect(again, &["publish t q2 id=32769 \"m\""]));
}

#[test]
fn an_owner_that_knows_nothing_makes_a_new_session() {
    let mut mesh = Mesh::new(&["a", "b"]);
    let client = mesh.at(0, |a| a.connect(&v5("v").expiry(5)));
    mesh.at(0, |a| a.send(client, client.subscribe(1, want("t", 2))));
    mesh.at(0, |a| a.lose(client));
    mesh.cut(0, 1);
    mesh.wait(6_000);
    let gone = mesh.at(1, |b| b.connect(&v5("v").persistent()));
    mesh.at(1, |b| b.lose(gone));
    mesh.heal(0, 1);
    let client = mesh.at(1, |b| b.connect(&v5("v").persistent()));
    mesh.at(1, |b| b.expect(client, &["connack present=0"]));
}

#[test]
fn a_log_whose_end_was_not_heard_of_is_reminded_of_until_it_is_gone() {
    let mut mesh = Mesh::new(&["a", "b"]);
    subscribed(&mut mesh, 0);
    mesh.lost = vec!["Drained"];
    mesh.at(1, |b| b.connect(&v5("v").persistent()));
    mesh.wait(40_000);
    assert_eq!(sealed(&mut mesh, 0), 1);
    mesh.lost.clear();
    mesh.wait(70_000);
    assert_eq!(sealed(&mut mesh, 0), 0);
}

#[test]
fn a_log_keeps_its_routes_until_all_that_was_planned_without_the_owners_has_arrived() {
    let mut mesh = Mesh::new(&["a", "b"]);
    subscribed(&mut mesh, 0);
    mesh.unflushed = true;
    let client = mesh.at(1, |b| b.connect(&v5("v").persistent()));
    mesh.at(1, |b| b.expect(client, &["connack present=1"]));
    mesh.wait(300_000);
    assert_eq!(sealed(&mut mesh, 0), 1);
    let frames = mesh.frames.len();
    assert!(frames < 60, "five quiet minutes cost {frames} frames");
    // It was accepted by a node that has been cut off since before the client moved.
    mesh.at(0, |a| a.forward(1, "t", "late"));
    mesh.at(1, |b| b.expect(client, &["publish t q2 id=32769 \"late\""]));
    mesh.flush();
    mesh.wait(2_000);
    assert_eq!(sealed(&mut mesh, 0), 0);
    assert_eq!(mesh.nodes[0].rows(), (0, 0));
}

#[test]
fn a_session_with_very_many_logs_does_not_wait_for_nodes_that_are_away() {
    let mut mesh = Mesh::new(&["a", "b"]);
    subscribed(&mut mesh, 0);
    mesh.unflushed = true;
    for turn in 0..120 {
        mesh.at((turn + 1) % 2, |node| node.connect(&v5("v").persistent()));
        mesh.wait(15_000);
    }
    let open = sealed(&mut mesh, 0) + sealed(&mut mesh, 1);
    assert!((30..40).contains(&open), "{open} logs");
    mesh.flush();
    mesh.wait(100_000);
    assert_eq!(sealed(&mut mesh, 0) + sealed(&mut mesh, 1), 0);
}

#[test]
fn a_new_owner_is_waited_for_anew() {
    let mut mesh = Mesh::new(&["a", "b", "c"]);
    subscribed(&mut mesh, 0);
    mesh.unflushed = true;
    mesh.at(1, |b| b.connect(&v5("v").persistent()));
    mesh.wait(31_000);
    mesh.lost = vec!["Routed"];
    let client = mesh.at(2, |c| c.connect(&v5("v").persistent()));
    mesh.flush();
    mesh.wait(2_000);
    assert_eq!(sealed(&mut mesh, 0), 1, "what is flushed are not the routes of its owner");
    mesh.at(0, |a| a.forward(1, "t", "late"));
    mesh.at(2, |c| c.expect(client, &["connack present=1", "publish t q2 id=49153 \"late\""]));
    mesh.lost.clear();
    mesh.wait(100_000);
    assert_eq!(sealed(&mut mesh, 0) + sealed(&mut mesh, 1), 0);
}

#[test]
fn a_barrier_is_passed_when_all_that_was_planned_before_is_stored() {
    let mut mesh = Mesh::new(&["a"]);
    subscribed(&mut mesh, 0);
    let a = &mut mesh.nodes[0];
    let publisher = a.connect(&v5("p"));
    a.commits = false;
    a.hub.clear();
    a.send(publisher, publisher.publish(post("t", "planned").q1(1)));
    a.mail(0, Mail::Barrier);
    assert!(a.hub.is_empty());
    a.commit();
    assert!(a.hub.is_empty());
    a.fail_commit();
    assert!(matches!(a.hub.pop_front(), Some((0, HubMail::Barrier))));
}

#[test]
fn a_log_of_a_session_that_ended_elsewhere_is_given_up() {
    let mut mesh = Mesh::new(&["a", "b"]);
    subscribed(&mut mesh, 0);
    mesh.lost = vec!["Routed"];
    let client = mesh.at(1, |b| b.connect(&v5("v").persistent().expiry(1)));
    mesh.at(1, |b| b.lose(client));
    mesh.wait(2_000);
    mesh.at(0, |a| a.forward(1, "t", "for nobody"));
    mesh.wait(70_000);
    assert_eq!(sealed(&mut mesh, 0), 0);
    assert_eq!(mesh.nodes[0].rows(), (0, 0));
    assert_eq!(mesh.nodes[0].ledger().discarded, 1);
}

#[test]
fn a_copy_that_waits_gives_way_when_the_owner_says_that_it_was_delivered() {
    // The message went to the old owner and to its sealed log; its client comes back to that node
    // while the owner cannot be asked.
    let mut mesh = Mesh::new(&["a", "b"]);
    subscribed(&mut mesh, 0);
    let client = mesh.at(1, |b| b.connect(&v5("v").persistent()));
    mesh.cut(0, 1);
    for node in [0, 1] {
        mesh.at(node, |node| node.forward(1, "t", "once"));
    }
    mesh.at(1, |b| {
        b.expect(client, &["connack present=1", "publish t q2 id=32769 \"once\""]);
        b.send(client, client.ack(AckKind::Pubrec, 32_769));
        b.send(client, client.ack(AckKind::Pubcomp, 32_769));
    });
    mesh.crash(1);
    let client = mesh.at(0, |a| a.connect(&v5("v").persistent()));
    mesh.wait(500);
    mesh.heal(0, 1);
    mesh.wait(5_000);
    mesh.at(0, |a| a.expect(client, &["connack present=1"]));
    assert_eq!(mesh.nodes[0].held(), 0);
}

#[test]
fn an_id_under_which_a_message_was_sent_is_released_though_it_came_by_another_way() {
    // Without the owner's word the client gets the copy; what the owner had begun is then ended,
    // or the next message under that id would be taken for a repetition.
    let mut mesh = Mesh::new(&["a", "b"]);
    subscribed(&mut mesh, 0);
    let client = mesh.at(1, |b| b.connect(&v5("v").persistent()));
    mesh.cut(0, 1);
    for node in [0, 1] {
        mesh.at(node, |node| node.forward(1, "t", "m"));
    }
    mesh.at(1, |b| b.expect(client, &["connack present=1", "publish t q2 id=32769 \"m\""]));
    let client = mesh.at(0, |a| a.connect(&v5("v").persistent()));
    mesh.wait(2_500);
    mesh.at(0, |a| a.expect(client, &["connack present=1", "publish t q2 id=49153 \"m\""]));
    mesh.heal(0, 1);
    mesh.wait(500);
    mesh.at(0, |a| a.expect(client, &["pubrel 32769"]));
}

#[test]
fn copies_of_one_message_for_two_sessions_do_not_share_their_row() {
    let mut mesh = Mesh::new(&["a", "b"]);
    subscribed(&mut mesh, 0);
    let other = mesh.at(1, |b| b.connect(&v5("other").persistent()));
    mesh.at(1, |b| b.send(other, other.subscribe(1, want("t", 2))));
    mesh.at(1, |b| b.lose(other));
    for node in [0, 1] {
        mesh.at(node, |node| node.forward(1, "t", "m"));
    }
    let client = mesh.at(1, |b| b.connect(&v5("v").persistent()));
    mesh.at(1, |b| {
        b.send(client, client.ack(AckKind::Pubrec, 32_769));
        b.send(client, client.ack(AckKind::Pubcomp, 32_769));
    });
    mesh.crash(1);
    let other = mesh.at(1, |b| b.connect(&v5("other").persistent()));
    mesh.at(1, |b| b.expect(other, &["connack present=1", "publish t q2 id=16385 \"m\""]));
}

#[test]
fn a_client_that_was_elsewhere_while_its_node_was_down_gets_nothing_twice() {
    let mut mesh = Mesh::new(&["a", "b"]);
    let sub = subscribed(&mut mesh, 0);
    mesh.at(0, |a| a.forward(1, "t", "before"));
    mesh.at(0, |a| a.expect(sub, &["publish t q2 id=16385 \"before\""]));
    mesh.cut(0, 1);
    let there = mesh.at(1, |b| b.connect(&v5("v").persistent()));
    mesh.wait(3_000);
    mesh.at(1, |b| b.expect(there, &["connack present=1"]));
    mesh.at(1, |b| b.forward(2, "t", "meanwhile"));
    mesh.at(1, |b| b.expect(there, &["publish t q2 id=32769 \"meanwhile\""]));
    mesh.at(1, |b| b.send(there, there.ack(AckKind::Pubrec, 32_769)));
    mesh.at(1, |b| b.expect(there, &["pubrel 32769"]));
    mesh.at(1, |b| b.send(there, there.ack(AckKind::Pubcomp, 32_769)));
    mesh.crash(0);
    // What came while it was down was kept for it by its sender.
    mesh.at(0, |a| a.forward(2, "t", "meanwhile"));
    let back = mesh.at(0, |a| a.connect(&v5("v").persistent()));
    mesh.at(0, |a| a.expect(back, &[]));
    mesh.heal(0, 1);
    let expected = ["connack present=1", "publish t q2 id=16385 dup \"before\""];
    mesh.at(0, |a| a.expect(back, &expected));
}

#[test]
fn homes_are_told_only_what_is_stored() {
    let mut mesh = Mesh::new(&["a"]);
    let client = subscribed(&mut mesh, 0);
    let a = &mut mesh.nodes[0];
    a.commits = false;
    a.send(client, client.subscribe(2, want("more", 1)));
    assert!(a.hub.iter().all(|(_, mail)| !matches!(mail, HubMail::PutRegistry { .. })));
    a.commit_all();
    assert!(a.hub.iter().any(|(_, mail)| matches!(mail, HubMail::PutRegistry { .. })));
}

#[test]
fn logs_of_several_nodes_are_brought_into_one_order() {
    let mut mesh = Mesh::new(&["a", "b", "c"]);
    subscribed(&mut mesh, 0);
    let client = mesh.at(1, |b| b.connect(&v5("v").persistent()));
    mesh.at(1, |b| b.lose(client));
    mesh.cut(0, 1);
    // Two went only to the node that had been left already, between those of the new one.
    for (at, seq, node, text) in [(10, 1, 1, "1"), (20, 2, 0, "2"), (30, 3, 1, "3")] {
        mesh.wait(at);
        mesh.at(node, |node| node.forward(seq, "t", text));
    }
    let client = mesh.at(2, |c| c.connect(&v5("v").persistent()));
    let all = [
        "connack present=1",
        "publish t q2 id=49153 \"1\"",
        "publish t q2 id=49154 \"2\"",
        "publish t q2 id=49155 \"3\"",
    ];
    mesh.at(2, |c| c.expect(client, &all));
}

/// A persistent client `v` at a node, subscribed to `t`.
fn subscribed(mesh: &mut Mesh, node: usize) -> Client {
    let client = mesh.at(node, |node| node.connect(&v5("v").persistent()));
    mesh.at(node, |node| {
        node.send(client, client.subscribe(1, want("t", 2)));
        node.got(client);
    });
    client
}

/// Logs of a node that are on their way out.
fn sealed(mesh: &mut Mesh, node: usize) -> usize {
    let Answer::Sessions(sessions) = mesh.nodes[node].query(Query::Sessions).remove(0) else {
        panic!("Sessions answers Sessions")
    };
    sessions.iter().filter(|session| session.sealed).count()
}
