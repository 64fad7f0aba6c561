//! Nothing is acknowledged before it is stored.

use verge_mqtt_proto::AckKind;

use super::bed::Bed;
use super::client::{post, v4, v5, want};
use verge_storage::Promise;

#[test]
fn connack_and_suback_wait_for_their_rows() {
    let mut bed = Bed::new(1);
    bed.commits = false;
    let client = bed.connect(&v5("v").persistent());
    bed.expect(client, &[]);
    bed.commit();
    bed.expect(client, &["connack present=0"]);
    bed.send(client, client.subscribe(1, want("t", 1)));
    bed.send(client, client.unsubscribe(2, "t"));
    bed.expect(client, &[]);
    bed.commit();
    bed.expect(client, &["suback 1 [1]"]);
    bed.commit();
    bed.expect(client, &["unsuback 2"]);
}

#[test]
fn puback_pubrec_and_pubcomp_wait_for_their_rows() {
    let mut bed = Bed::new(1);
    let sub = bed.connect(&v5("sub").persistent());
    bed.send(sub, sub.subscribe(1, want("t", 2)));
    let publisher = bed.connect(&v5("pub").persistent());
    bed.got(publisher);
    bed.commits = false;
    bed.send(publisher, publisher.publish(post("t", "one").q1(1)));
    bed.send(publisher, publisher.publish(post("t", "two").q2(2)));
    bed.send(publisher, publisher.publish(post("t", "two").q2(2).dup()));
    bed.expect(publisher, &[]);
    bed.commit();
    bed.expect(publisher, &["puback 1"]);
    bed.commit();
    bed.expect(publisher, &["pubrec 2"]);
    bed.commit_all();
    bed.expect(publisher, &["pubrec 2"]);
    // A PUBCOMP frees the id: were it said early and the node lost, its next use would be taken
    // for a repetition. The second one may not pass the first.
    bed.send(publisher, publisher.ack(AckKind::Pubrel, 2));
    bed.send(publisher, publisher.ack(AckKind::Pubrel, 2));
    bed.expect(publisher, &[]);
    assert_eq!(bed.uncommitted[0].3, Promise::Buffered);
    bed.commit();
    bed.expect(publisher, &["pubcomp 2"]);
    bed.commit_all();
    bed.expect(publisher, &["pubcomp 2 Packet Identifier not found"]);
}

#[test]
fn a_qos_2_publish_and_its_pubrel_wait_for_the_packet_id() {
    let mut bed = Bed::new(1);
    let sub = bed.connect(&v5("sub").persistent());
    bed.send(sub, sub.subscribe(1, want("t", 2)));
    bed.got(sub);
    let publisher = bed.connect(&v5("pub"));
    bed.commits = false;
    bed.send(publisher, publisher.publish(post("t", "m").q2(1)));
    bed.commit();
    bed.expect(sub, &[]);
    bed.commit();
    bed.expect(sub, &["publish t q2 id=16385 \"m\""]);
    bed.send(sub, sub.ack(AckKind::Pubrec, 16_385));
    bed.expect(sub, &[]);
    bed.commit();
    bed.expect(sub, &["pubrel 16385"]);
}

#[test]
fn what_is_not_stored_is_refused_and_leaves_no_trace() {
    let mut bed = Bed::new(1);
    let sub = bed.connect(&v5("sub").persistent());
    bed.send(sub, sub.subscribe(1, want("t", 2)));
    bed.got(sub);
    let five = bed.connect(&v5("five").persistent());
    let four = bed.connect(&v4("four").persistent());
    bed.got(five);
    bed.got(four);
    bed.commits = false;
    bed.send(five, five.publish(post("t", "m").q2(1)));
    bed.fail_commit();
    bed.send(four, four.publish(post("t", "m").q1(1)));
    bed.fail_commit();
    bed.expect(five, &["pubrec 1 Quota exceeded"]);
    bed.expect(four, &["closed"]);
    bed.commit_all();
    bed.send(five, five.publish(post("t", "m").q2(1)));
    bed.commit_all();
    bed.expect(five, &["pubrec 1"]);
    bed.expect(sub, &["publish t q2 id=16385 \"m\""]);
}

#[test]
fn nothing_waits_for_a_session_without_rows() {
    let mut bed = Bed::new(1);
    bed.commits = false;
    let client = bed.connect(&v4("v"));
    bed.send(client, client.subscribe(1, want("t", 2)));
    bed.send(client, client.publish(post("t", "m").q2(1)));
    let lines = ["connack present=0", "suback 1 [2]", "pubrec 1", "publish t q2 id=16385 \"m\""];
    bed.expect(client, &lines);
    assert!(bed.uncommitted.is_empty());
}
