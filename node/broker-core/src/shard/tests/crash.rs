//! A node is killed: what it acknowledged is there in its next life, QoS 2 once.

use verge_mqtt_proto::AckKind;

use super::bed::Bed;
use super::client::{Client, post, v5, want};

#[test]
fn queue_and_flight_are_as_they_were() {
    let mut bed = Bed::new(2);
    let (sub, publisher) = pair(&mut bed);
    bed.send(publisher, publisher.publish(post("t", "acked").q1(1)));
    bed.send(publisher, publisher.publish(post("t", "flying").q1(2)));
    bed.send(publisher, publisher.publish(post("t", "sent").q2(3)));
    bed.send(publisher, publisher.publish(post("t", "released").q2(4)));
    bed.got(sub);
    bed.send(sub, sub.ack(AckKind::Puback, 16_385));
    bed.send(sub, sub.ack(AckKind::Pubrec, 16_388));
    bed.lose(sub);
    bed.send(publisher, publisher.publish(post("t", "queued").q2(5)));
    let mut bed = bed.crash();
    assert_eq!(bed.held(), 0, "nobody asked for it");
    let sub = bed.connect(&v5("sub").persistent());
    assert_eq!((bed.held(), bed.ledger().recovered), (4, 4));
    let again = [
        "connack present=1",
        "publish t q1 id=16386 dup \"flying\"",
        "publish t q2 id=16387 dup \"sent\"",
        "pubrel 16388",
        "publish t q2 id=16385 \"queued\"",
    ];
    bed.expect(sub, &again);
    bed.send(sub, sub.ack(AckKind::Puback, 16_386));
    for number in [16_385, 16_387] {
        bed.send(sub, sub.ack(AckKind::Pubrec, number));
    }
    for number in [16_385, 16_387, 16_388] {
        bed.send(sub, sub.ack(AckKind::Pubcomp, number));
    }
    assert_eq!(bed.rows(), (0, 0));
}

#[test]
fn a_qos_2_publish_that_came_before_the_crash_is_not_taken_again() {
    let mut bed = Bed::new(1);
    let (sub, publisher) = pair(&mut bed);
    bed.send(publisher, publisher.publish(post("t", "m").q2(1)));
    bed.lose(sub);
    let mut bed = bed.crash();
    let publisher = bed.connect(&v5("pub").persistent());
    bed.send(publisher, publisher.publish(post("t", "m").q2(1).dup()));
    bed.send(publisher, publisher.ack(AckKind::Pubrel, 1));
    bed.expect(publisher, &["connack present=1", "pubrec 1", "pubcomp 1"]);
    bed.send(publisher, publisher.publish(post("t", "next").q2(1)));
    assert_eq!(bed.held(), 2);
}

#[test]
fn what_was_not_acknowledged_may_be_gone_but_never_half() {
    // The crash comes before each commit in turn; the client then does what it must.
    for survivors in 0..8 {
        let mut bed = Bed::new(2);
        let (sub, publisher) = pair(&mut bed);
        bed.commits = false;
        bed.send(publisher, publisher.publish(post("t", "m").q2(1)));
        let mut delivered = 0;
        for _ in 0..survivors {
            if bed.uncommitted.is_empty() {
                break;
            }
            bed.commit();
            answer(&mut bed, sub, &mut delivered);
            if bed.got(publisher).contains(&"pubrec 1".to_owned()) {
                bed.send(publisher, publisher.ack(AckKind::Pubrel, 1));
            }
        }
        let mut bed = bed.crash();
        let publisher = bed.connect(&v5("pub").persistent());
        if bed.got(publisher) == ["connack present=1"] {
            // It has no PUBCOMP: it cannot know whether its PUBLISH was taken.
            bed.send(publisher, publisher.publish(post("t", "m").q2(1).dup()));
            bed.send(publisher, publisher.ack(AckKind::Pubrel, 1));
        }
        let sub = bed.connect(&v5("sub").persistent());
        answer(&mut bed, sub, &mut delivered);
        let expected = if survivors < 3 { 1..=1 } else { 1..=2 };
        assert!(expected.contains(&delivered), "{survivors}: {delivered}");
        assert_eq!(bed.held(), 0);
    }
}

/// Acts as a QoS 2 receiver that counts.
fn answer(bed: &mut Bed, sub: Client, delivered: &mut u32) {
    loop {
        let got = bed.got(sub);
        if got.is_empty() {
            return;
        }
        for line in got {
            let id = |text: &str| text.parse::<u16>().unwrap();
            if let Some((_, rest)) = line.split_once("id=") {
                let number = id(rest.split(' ').next().unwrap());
                *delivered += u32::from(!line.contains(" dup"));
                bed.send(sub, sub.ack(AckKind::Pubrec, number));
            } else if let Some(number) = line.strip_prefix("pubrel ") {
                bed.send(sub, sub.ack(AckKind::Pubcomp, id(number)));
            }
        }
    }
}

/// Persistent both: a subscriber of `t`, and a publisher.
fn pair(bed: &mut Bed) -> (Client, Client) {
    let sub = bed.connect(&v5("sub").persistent());
    bed.send(sub, sub.subscribe(1, want("t", 2)));
    let publisher = bed.connect(&v5("pub").persistent());
    bed.got(sub);
    bed.got(publisher);
    (sub, publisher)
}
