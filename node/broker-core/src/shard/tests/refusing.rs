//! A store that takes no writes: what must be stored is refused, the rest goes on.

use verge_storage::Trouble;

use super::bed::Bed;
use super::client::{Client, post, v4, v5, want};

/// A publisher that keeps no session, and two subscribers of it: one that stays, one that does not.
fn three(bed: &mut Bed) -> (Client, Client, Client) {
    let kept = bed.connect(&v5("kept").persistent());
    let there = bed.connect(&v5("there"));
    bed.send(kept, kept.subscribe(1, want("kept", 2)));
    bed.send(there, there.subscribe(1, want("+", 1)));
    let publisher = bed.connect(&v5("publisher"));
    for client in [kept, there, publisher] {
        bed.got(client);
    }
    (publisher, kept, there)
}

#[test]
fn what_must_be_stored_is_refused_and_what_need_not_be_goes_on() {
    for trouble in Trouble::ALL {
        let mut bed = Bed::new(1);
        let (publisher, kept, there) = three(&mut bed);
        bed.shared.storage.refuse(trouble);
        bed.send(publisher, publisher.publish(post("kept", "0")));
        bed.send(publisher, publisher.publish(post("kept", "1").q1(1)));
        bed.send(publisher, publisher.publish(post("kept", "2").q2(2)));
        bed.send(publisher, publisher.publish(post("live", "3").q1(3)));
        bed.send(publisher, publisher.publish(post("live", "4").q1(4).retain()));
        bed.expect(
            publisher,
            &[
                "puback 1 Quota exceeded",
                "pubrec 2 Quota exceeded",
                "puback 3",
                "puback 4 Quota exceeded",
            ],
        );
        bed.expect(kept, &["publish kept \"0\""]);
        bed.expect(there, &["publish kept \"0\"", "publish live q1 id=16385 \"3\""]);
        assert_eq!(bed.rows(), (0, 0));

        // A refused QoS 2 PUBLISH is new when it comes again.
        bed.shared.storage.accept();
        bed.send(publisher, publisher.publish(post("kept", "2").q2(2)));
        bed.expect(publisher, &["pubrec 2"]);
        assert_eq!(bed.got(kept).len(), 1);
    }
}

#[test]
fn a_311_client_whose_message_cannot_be_stored_is_disconnected() {
    // [MQTT-3.3.5-2] of 3.1.1: there is no other way to refuse it.
    let mut bed = Bed::new(1);
    let (_, kept, _) = three(&mut bed);
    let old = bed.connect(&v4("old"));
    bed.got(old);
    bed.shared.storage.refuse(Trouble::Full);
    bed.send(old, old.publish(post("live", "goes").q1(1)));
    bed.expect(old, &["puback 1"]);
    bed.send(old, old.publish(post("kept", "does not").q1(2)));
    bed.expect(old, &["closed"]);
    assert!(bed.got(kept).is_empty());
}
