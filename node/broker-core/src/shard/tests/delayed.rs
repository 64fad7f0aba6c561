//! `$delayed/<seconds>/<topic>`: published once, later, whatever happens meanwhile.

use std::time::Duration;

use verge_mqtt_proto::AckKind;
use verge_storage::StoreRows as _;

use super::bed::Bed;
use super::client::{Client, post, v4, v5, want};
use crate::extension::counts::Counted;
use crate::extension::{DelayedBounds, Extensions};
use crate::shard::api::{Answer, Query};
use crate::shared::NodeShared;

fn roomy(shared: NodeShared) -> NodeShared {
    let delayed = DelayedBounds::new(3, 10_000);
    shared.with_extensions(Extensions { delayed, ..Extensions::default() })
}

fn pair(bed: &mut Bed) -> (Client, Client) {
    let sub = bed.connect(&v5("sub").persistent());
    bed.send(sub, sub.subscribe(1, want("t", 2)));
    let publisher = bed.connect(&v5("pub"));
    bed.got(sub);
    bed.got(publisher);
    (sub, publisher)
}

fn waiting(bed: &Bed) -> (u64, usize) {
    (bed.shared.extensions.delayed.waiting().0, bed.store.delayed().count())
}

#[test]
fn a_message_is_published_after_its_delay() {
    let mut bed = Bed::configured(2, roomy);
    let (sub, publisher) = pair(&mut bed);
    bed.send(publisher, publisher.publish(post("$delayed/10/t", "later").q1(1)));
    bed.send(publisher, publisher.publish(post("$delayed/5/t", "sooner")));
    bed.send(publisher, publisher.publish(post("t", "now").q1(2)));
    bed.expect(publisher, &["puback 1", "puback 2"]);
    bed.expect(sub, &["publish t q1 id=16385 \"now\""]);
    assert_eq!(waiting(&bed), (2, 1));
    bed.wait(Duration::from_secs(5));
    bed.expect(sub, &["publish t \"sooner\""]);
    bed.wait(Duration::from_secs(5));
    bed.expect(sub, &["publish t q1 id=16386 \"later\""]);
    bed.wait(Duration::from_secs(60));
    bed.expect(sub, &[]);
    for id in [16_385, 16_386] {
        bed.send(sub, sub.ack(AckKind::Puback, id));
    }
    assert_eq!((waiting(&bed), bed.rows(), bed.held()), ((0, 0), (0, 0), 0));
    assert_eq!(bed.shared.extensions.counts.get(Counted::DelayedPublished), 2);
}

#[test]
fn it_is_acknowledged_when_it_is_stored_and_refused_when_it_is_not() {
    let mut bed = Bed::configured(1, roomy);
    let (sub, publisher) = pair(&mut bed);
    bed.commits = false;
    bed.send(publisher, publisher.publish(post("$delayed/5/t", "one").q2(1)));
    bed.expect(publisher, &[]);
    bed.commit_all();
    bed.expect(publisher, &["pubrec 1"]);
    bed.send(publisher, publisher.publish(post("$delayed/5/t", "two").q1(2)));
    bed.fail_commit();
    bed.expect(publisher, &["puback 2 Quota exceeded"]);
    assert_eq!(waiting(&bed), (1, 1));
    bed.commits = true;
    bed.wait(Duration::from_secs(5));
    bed.expect(sub, &["publish t q2 id=16385 \"one\""]);
}

#[test]
fn it_survives_a_restart_and_is_published_once() {
    let mut bed = Bed::configured(2, roomy);
    let (_, publisher) = pair(&mut bed);
    bed.send(publisher, publisher.publish(post("$delayed/10/t", "kept").q1(1)));
    bed.send(publisher, publisher.publish(post("$delayed/10/t", "lost with the process")));
    bed.wait(Duration::from_secs(4));
    let mut bed = bed.crash();
    assert_eq!(waiting(&bed), (1, 1));
    let sub = bed.connect(&v5("sub").persistent());
    bed.got(sub);
    bed.wait(Duration::from_millis(5_999));
    bed.expect(sub, &[]);
    bed.wait(Duration::from_millis(1));
    bed.expect(sub, &["publish t q1 id=16385 \"kept\""]);
    // The row went with the batch that holds the debt.
    let mut bed = bed.crash();
    bed.wait(Duration::from_secs(60));
    let sub = bed.connect(&v5("sub").persistent());
    bed.expect(sub, &["connack present=1", "publish t q1 id=16385 dup \"kept\""]);
    assert_eq!(waiting(&bed), (0, 0));
}

#[test]
fn what_is_due_while_the_node_is_down_is_published_at_its_start() {
    let mut bed = Bed::configured(1, roomy);
    let (_, publisher) = pair(&mut bed);
    bed.send(publisher, publisher.publish(post("$delayed/10/t", "m").q1(1)));
    bed.now += 60_000;
    let mut bed = bed.crash();
    bed.wait(Duration::from_millis(1));
    let sub = bed.connect(&v5("sub").persistent());
    bed.expect(sub, &["connack present=1", "publish t q1 id=16385 \"m\""]);
}

#[test]
fn a_publication_that_is_not_stored_is_tried_again() {
    let mut bed = Bed::configured(1, roomy);
    let (sub, publisher) = pair(&mut bed);
    bed.send(publisher, publisher.publish(post("$delayed/5/t", "m").q1(1)));
    bed.commits = false;
    bed.wait(Duration::from_secs(5));
    bed.expect(sub, &[]);
    bed.fail_commit();
    bed.commits = true;
    bed.expect(sub, &[]);
    assert_eq!(waiting(&bed), (1, 1));
    bed.wait(Duration::from_secs(5));
    bed.expect(sub, &["publish t q1 id=16385 \"m\""]);
    assert_eq!(waiting(&bed), (0, 0));
}

#[test]
fn retain_and_properties_are_kept_and_expiry_counts_from_the_publication() {
    let mut bed = Bed::configured(1, roomy);
    let (_, publisher) = pair(&mut bed);
    let message = post("$delayed/100/t", "m").q1(1).retain().expiry(30);
    bed.send(publisher, publisher.publish(message));
    bed.wait(Duration::from_secs(110));
    let late = bed.connect(&v5("late"));
    bed.send(late, late.subscribe(1, want("t", 1)));
    let got = "publish t q1 id=16385 retain expiry=20 \"m\"";
    bed.expect(late, &["connack present=0", "suback 1 [1]", got]);
}

#[test]
fn security_malformed_topics_are_refused_and_their_number_is_bounded() {
    let mut bed = Bed::configured(1, roomy);
    let (_, publisher) = pair(&mut bed);
    for topic in ["$delayed/x/t", "$delayed/5/", "$delayed/99999999999999/t", "$delayed/5/$SYS/a"] {
        bed.send(publisher, publisher.publish(post(topic, "m").q1(1)));
        bed.expect(publisher, &["puback 1 Topic Name invalid"]);
    }
    bed.send(publisher, publisher.publish(post("$delayed/5", "m").q2(2)));
    bed.expect(publisher, &["pubrec 2 Topic Name invalid"]);
    let old = bed.connect(&v4("old"));
    bed.send(old, old.publish(post("$delayed/x/t", "m").q1(1)));
    bed.expect(old, &["connack present=0", "puback 1"]);
    for number in 1..=3 {
        bed.send(publisher, publisher.publish(post("$delayed/5/t", "m").q1(number)));
    }
    bed.send(publisher, publisher.publish(post("$delayed/5/t", "m").q1(4)));
    let answers = ["puback 1", "puback 2", "puback 3", "puback 4 Quota exceeded"];
    bed.expect(publisher, &answers);
    let counts = &bed.shared.extensions.counts;
    assert_eq!(counts.get(Counted::DelayedMalformed), 6);
    assert_eq!((counts.get(Counted::DelayedFull), waiting(&bed)), (1, (3, 3)));
}

#[test]
fn they_are_listed_in_the_order_in_which_they_are_due() {
    let mut bed = Bed::configured(1, roomy);
    let (_, publisher) = pair(&mut bed);
    bed.send(publisher, publisher.publish(post("$delayed/20/b", "xyz").q1(1).retain()));
    bed.send(publisher, publisher.publish(post("$delayed/10/a", "m")));
    let answer = bed.query(Query::Delayed).remove(0);
    let Answer::Delayed(views) = answer else { panic!("{answer:?}") };
    let shown: Vec<_> = views
        .iter()
        .map(|view| (view.topic.as_str(), view.qos, view.retain, view.payload_bytes, view.due_at.0))
        .collect();
    assert_eq!(shown, [("a", 0, false, 1, 11_000), ("b", 1, true, 3, 21_000)]);
    assert_eq!((&*views[1].publisher, views[1].accepted_at.0), ("pub", 1_000));
}

#[test]
fn a_will_may_be_delayed_so_too() {
    let mut bed = Bed::configured(1, roomy);
    let (sub, _) = pair(&mut bed);
    let mortal = bed.connect(&v5("mortal").will("$delayed/30/t", "gone", 0));
    bed.lose(mortal);
    bed.wait(Duration::from_secs(29));
    bed.expect(sub, &[]);
    let mut bed = bed.crash();
    let sub = bed.connect(&v5("sub").persistent());
    bed.got(sub);
    bed.wait(Duration::from_secs(1));
    bed.expect(sub, &["publish t q1 id=16385 \"gone\""]);
}
