//! Reason strings: where they help, and only to whom they may be sent.

use bytes::BytesMut;
use verge_mqtt_proto::AckKind;

use super::bed::Bed;
use super::client::{Client, Who, post, v4, v5, want};

/// The words of the last packet the client received.
fn last(bed: &mut Bed, client: Client) -> Option<String> {
    bed.words(client).pop().expect("something was received")
}

fn bad_filter(who: &Who) -> Option<String> {
    let mut bed = Bed::new(1);
    let client = bed.connect(who);
    bed.send(client, client.subscribe(1, want("a/#/b", 0)));
    last(&mut bed, client)
}

const SUBACK_WORDS: &str = "a/#/b: # stands alone in the last level [MQTT-4.7.1-1]";

#[test]
fn a_refused_filter_is_explained_mqtt_3_1_2_29() {
    assert_eq!(bad_filter(&v5("c")).as_deref(), Some(SUBACK_WORDS));
    assert_eq!(bad_filter(&v5("c").no_problem_information()), None);
    assert_eq!(bad_filter(&v4("c")), None);
}

#[test]
fn words_are_left_out_where_the_packet_would_be_too_large_mqtt_3_9_2_1_mqtt_3_11_2_1() {
    // Two bytes of header, two of identifier, one of length, three of property, and the code.
    let size = u32::try_from(SUBACK_WORDS.len()).unwrap() + 9;
    assert!(bad_filter(&v5("c").packet_max(size)).is_some());
    assert_eq!(bad_filter(&v5("c").packet_max(size - 1)), None);

    let mut bed = Bed::new(1);
    for (who, said) in [(v5("c"), true), (v5("c").packet_max(40), false)] {
        let client = bed.connect(&who);
        bed.send(client, client.unsubscribe(1, "a/#/b"));
        assert_eq!(last(&mut bed, client).is_some(), said);
    }
}

#[test]
fn a_refused_publish_is_explained_mqtt_3_4_2_2_mqtt_3_5_2_2() {
    let rows = [
        (v5("c"), Some("the message could not be stored")),
        (v5("c").no_problem_information(), None),
        (v5("c").packet_max(32), None),
    ];
    for (who, words) in rows {
        let mut bed = Bed::new(1);
        let kept = bed.connect(&v5("kept").persistent());
        bed.send(kept, kept.subscribe(1, want("t", 2)));
        let client = bed.connect(&who);
        bed.commits = false;
        for publish in [post("t", "1").q1(1), post("t", "2").q2(2)] {
            bed.send(client, client.publish(publish));
            bed.fail_commit();
            assert_eq!(last(&mut bed, client).as_deref(), words);
        }
    }
}

#[test]
fn connack_and_disconnect_say_why_to_everyone_mqtt_3_2_2_19_mqtt_3_14_2_3() {
    let bad = || BytesMut::from(&[0x30, 5, 0, 1, b'+', 0, b'x'][..]);
    for (who, said) in [(v5("c"), true), (v5("c").no_problem_information(), true)] {
        let mut bed = Bed::new(1);
        let client = bed.connect(&who);
        bed.send(client, bad());
        let words = last(&mut bed, client);
        let expected = "the topic name contains a wildcard [MQTT-3.3.2-2]";
        assert_eq!(words.as_deref(), said.then_some(expected));
    }
    // Without words it fits; a client that accepts not even that hears nothing. [MQTT-3.1.2-25]
    for (limit, expected) in [(34, vec![None, None]), (2, vec![])] {
        let mut bed = Bed::new(1);
        let client = bed.connect(&v5("c").packet_max(limit));
        bed.send(client, bad());
        assert_eq!(bed.words(client), expected, "{limit}");
    }
    let mut bed = Bed::new(1);
    let first = bed.connect(&v5("c"));
    bed.connect(&v5("c"));
    assert_eq!(last(&mut bed, first).as_deref(), Some("another connection uses this ClientId"));
}

#[test]
fn what_went_well_needs_no_words() {
    let mut bed = Bed::new(1);
    let client = bed.connect(&v5("c"));
    bed.send(client, client.subscribe(1, want("a", 2)));
    bed.send(client, client.publish(post("b", "1").q1(1)));
    bed.send(client, client.publish(post("b", "2").q2(2)));
    bed.send(client, client.ack(AckKind::Pubrel, 2));
    bed.send(client, client.unsubscribe(3, "a"));
    assert_eq!(bed.words(client), vec![None; 6]);
}
