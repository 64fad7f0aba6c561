//! CONNACK within a client's Maximum Packet Size (MQTT 5.0, 3.2.2.3).

use verge_mqtt_proto::{AckKind, ReasonCode};

use super::bed::Bed;
use super::client::{post, v5, want};
use crate::shard::api::{Answer, Query, Terms};

#[test]
fn a_connack_that_never_fits_refuses_its_client_mqtt_3_1_2_24_mqtt_3_2_0_1() {
    let served = |size| {
        let mut bed = Bed::new(1);
        let client = bed.connect(&v5("c").packet_max(size).will("w", "gone", 0));
        bed.send(client, client.pingreq());
        let Answer::Sessions(sessions) = bed.query(Query::Sessions).remove(0) else { panic!() };
        (bed.got(client), bed.raw(client).len(), sessions.len(), bed)
    };
    // Three bytes of Receive Maximum and five of Maximum Packet Size a client cannot do without.
    for size in 1..13 {
        let (got, _, sessions, bed) = served(size);
        let refusal = "connack Implementation specific error";
        let wanted: &[&str] = if size < 5 { &["closed"] } else { &[refusal, "closed"] };
        assert_eq!((&got[..], sessions), (wanted_lines(wanted).as_slice(), 0), "{size} bytes");
        let counters = bed.shared.counters.snapshot();
        let refused = &counters.connects_refused;
        assert_eq!(refused["Implementation specific error"], 1, "{size} bytes");
        assert_eq!((counters.connects_accepted, counters.received), (0, [0; 3]), "no Will");
    }
    for size in 13..40 {
        let (got, _, sessions, _) = served(size);
        assert_eq!((got[0].as_str(), sessions), ("connack present=0", 1), "{size} bytes");
        assert_eq!(got[1], "pingresp", "{size} bytes");
    }
}

fn wanted_lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

#[test]
fn what_connack_can_do_without_is_left_out_first() {
    let size = |who| {
        let terms =
            Terms { response_information: Some("answers/of/all".into()), ..Terms::default() };
        let mut bed = Bed::with(terms);
        let client = bed.connect(&who);
        bed.raw(client).len()
    };
    let asks = || v5("c").asks_response_information();
    let (whole, without) = (size(asks()), size(v5("c")));
    assert_eq!(whole, without + 1 + 2 + "answers/of/all".len());
    let most = u32::try_from(whole).unwrap();
    assert_eq!(size(asks().packet_max(most)), whole);
    assert_eq!(size(asks().packet_max(most - 1)), without);
    let most = u32::try_from(without).unwrap();
    assert_eq!(size(v5("c").packet_max(most - 1)), 13);
    // An expiry that is another than was asked for must be told.
    assert_eq!(size(v5("c").expiry(7).packet_max(13)), 13);
}

#[test]
fn a_session_that_cannot_be_told_of_stays_for_a_client_that_can() {
    let mut bed = Bed::new(1);
    let sub = bed.connect(&v5("sub").persistent());
    bed.send(sub, sub.subscribe(1, want("t", 1)));
    bed.lose(sub);
    let small = bed.connect(&v5("sub").persistent().packet_max(6));
    bed.expect(small, &["connack Implementation specific error", "closed"]);
    let publisher = bed.connect(&v5("pub"));
    bed.send(publisher, publisher.publish(post("t", "m").q1(1)));
    let sub = bed.connect(&v5("sub").persistent());
    bed.expect(sub, &["connack present=1", "publish t q1 id=16385 \"m\""]);
    bed.send(sub, sub.ack(AckKind::Puback, 16_385));
    bed.send(sub, sub.disconnect(ReasonCode::Success));
    assert_eq!((bed.held(), bed.rows(), bed.ledger().delivered), (0, (0, 0), 1));
}
