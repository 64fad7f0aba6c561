//! CONNECT, takeover, keep alive, and how sessions come and go.

use std::time::Duration;

use verge_mqtt_proto::{AckKind, ReasonCode};

use super::bed::Bed;
use super::client::{post, v4, v5, want};
use crate::shard::api::{Answer, Mail, Query};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn only_a_client_without_an_id_is_assigned_one_mqtt_3_2_2_16() {
    let mut bed = Bed::new(1);
    let own = bed.connect(&v5("mine"));
    bed.expect(own, &["connack present=0"]);
    let none = bed.connect(&v5(""));
    bed.expect(none, &["connack present=0 assigned"]);
}

#[test]
fn versions_are_greeted_in_their_own_words() {
    let mut bed = Bed::new(1);
    let four = bed.connect(&v4("four"));
    let five = bed.connect(&v5("five"));
    bed.expect(four, &["connack present=0"]);
    bed.expect(five, &["connack present=0"]);
    bed.send(five, five.disconnect(ReasonCode::Success));
    bed.expect(five, &["closed"]);
}

#[test]
fn a_second_connection_of_a_client_ends_the_first() {
    // [MQTT-3.1.4-3]
    let mut bed = Bed::new(1);
    let first = bed.connect(&v5("v").persistent());
    bed.expect(first, &["connack present=0"]);
    let second = bed.connect(&v5("v").persistent());
    bed.expect(first, &["disconnect Session taken over", "closed"]);
    bed.expect(second, &["connack present=1"]);
    let third = bed.connect(&v4("v"));
    bed.expect(second, &["disconnect Session taken over", "closed"]);
    bed.expect(third, &["connack present=0"]);
}

#[test]
fn clean_start_discards_what_was_owed() {
    let mut bed = Bed::new(1);
    let sub = bed.connect(&v5("sub").persistent());
    bed.send(sub, sub.subscribe(1, want("t", 1)));
    bed.lose(sub);
    let publisher = bed.connect(&v5("pub"));
    bed.send(publisher, publisher.publish(post("t", "m").q1(1)));
    assert_eq!((bed.held(), bed.rows()), (1, (1, 0)));
    let sub = bed.connect(&v5("sub").persistent().clean());
    bed.expect(sub, &["connack present=0"]);
    assert_eq!((bed.held(), bed.rows(), bed.ledger().discarded), (0, (0, 0), 1));
}

#[test]
fn a_session_with_expiry_zero_ends_with_its_connection() {
    for who in [v5("v"), v4("v")] {
        let mut bed = Bed::new(1);
        let client = bed.connect(&who);
        bed.send(client, client.subscribe(1, want("t", 1)));
        bed.lose(client);
        let Answer::Sessions(sessions) = bed.query(Query::Sessions).remove(0) else { panic!() };
        assert_eq!(sessions, []);
    }
}

#[test]
fn a_session_expires_after_its_interval_and_not_before() {
    let mut bed = Bed::new(1);
    let who = v5("v").persistent().expiry(10);
    let client = bed.connect(&who);
    bed.lose(client);
    bed.wait(9 * SECOND);
    let client = bed.connect(&who);
    bed.expect(client, &["connack present=1"]);
    bed.wait(20 * SECOND);
    bed.lose(client);
    bed.wait(10 * SECOND);
    let client = bed.connect(&who);
    bed.expect(client, &["connack present=0"]);
}

#[test]
fn disconnect_may_shorten_the_session() {
    let mut bed = Bed::new(1);
    let client = bed.connect(&v4("v").persistent());
    bed.send(client, client.subscribe(1, want("t", 1)));
    bed.send(client, client.disconnect(ReasonCode::Success));
    let again = bed.connect(&v4("v").persistent());
    bed.expect(again, &["connack present=1"]);
}

#[test]
fn a_silent_client_is_disconnected_after_one_and_a_half_keep_alives() {
    // [MQTT-3.1.2-22]
    let mut bed = Bed::new(1);
    let client = bed.connect(&v5("v").keep_alive(10));
    bed.expect(client, &["connack present=0"]);
    bed.wait(14 * SECOND);
    bed.expect(client, &[]);
    bed.wait(2 * SECOND);
    bed.expect(client, &["disconnect Keep Alive timeout", "closed"]);
}

#[test]
fn clients_that_start_clean_take_no_room_from_those_that_roam() {
    let mut bed = Bed::in_mesh("a");
    // More than may roam at once; the homes have not answered about any of them.
    for name in ["c1", "c2", "c3", "c4", "c5"] {
        let clean = bed.connect(&v5(name));
        bed.expect(clean, &["connack present=0"]);
    }
    let roaming = bed.connect(&v5("v").persistent());
    bed.expect(roaming, &[]);
}

#[test]
fn packets_sent_before_connack_wait_for_it() {
    let mut bed = Bed::new(1);
    bed.commits = false;
    let client = bed.connect(&v5("v").persistent());
    bed.send(client, client.subscribe(1, want("t", 1)));
    bed.expect(client, &[]);
    bed.commit();
    bed.expect(client, &["connack present=0"]);
    bed.commit();
    bed.expect(client, &["suback 1 [1]"]);
}

#[test]
fn nothing_is_said_before_connack() {
    // [MQTT-3.2.0-1]: at QoS 0 as at QoS 2, whose packet id was being stored for a lost connection.
    let mut bed = Bed::new(1);
    let sub = bed.connect(&v5("sub").persistent());
    bed.send(sub, sub.subscribe(1, want("t", 2)));
    let publisher = bed.connect(&v5("pub"));
    bed.commits = false;
    bed.send(publisher, publisher.publish(post("t", "two").q2(1)));
    bed.commit();
    let again = bed.connect(&v5("sub").persistent());
    bed.send(publisher, publisher.publish(post("t", "zero")));
    bed.commit();
    bed.expect(again, &[]);
    bed.commit_all();
    bed.expect(again, &["connack present=1", "publish t q2 id=16385 \"two\""]);
}

#[test]
fn an_operator_can_end_a_connection() {
    let mut bed = Bed::new(1);
    let client = bed.connect(&v5("v"));
    bed.mail(0, Mail::Kick(verge_model::ClientKey::anonymous("v")));
    bed.expect(client, &["connack present=0", "disconnect Administrative action", "closed"]);
}

#[test]
fn bad_bytes_close_with_the_reason_and_harm_nobody() {
    let mut bed = Bed::new(1);
    let good = bed.connect(&v5("good"));
    let bad = bed.connect(&v5("bad"));
    bed.got(bad);
    bed.send(bad, bytes::BytesMut::from(&[0xf3, 0xff, 0xff, 0xff, 0xff, 0xff][..]));
    bed.expect(bad, &["disconnect Malformed Packet", "closed"]);
    bed.send(good, good.ack(AckKind::Pubrel, 9));
    bed.expect(good, &["connack present=0", "pubcomp 9 Packet Identifier not found"]);
}
