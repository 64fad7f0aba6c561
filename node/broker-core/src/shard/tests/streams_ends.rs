//! How streams end, and what remains of them.

use bytes::BytesMut;
use verge_mqtt_proto::AckKind::{Puback, Pubrel};
use verge_mqtt_proto::ReasonCode;

use super::bed::Bed;
use super::client::{post, v5, want};
use super::streams::OnStream;
use crate::shard::api::StreamNo;
use crate::shard::streams::STREAMS_MAX;

/// A car with a data stream, and a lamp.
fn bed() -> (Bed, super::client::Client, OnStream, super::client::Client) {
    let mut bed = Bed::new(1);
    let car = bed.connect(&v5("car").persistent());
    let lamp = bed.connect(&v5("lamp"));
    let data = bed.open_data(car, 4);
    bed.got(car);
    bed.got(lamp);
    (bed, car, data, lamp)
}

#[test]
fn fin_at_a_packet_boundary_ends_subscriptions_and_debts_and_is_answered_by_fin() {
    let (mut bed, car, data, lamp) = bed();
    bed.send_on(data, car.subscribe(1, want("spat", 1)));
    bed.send(lamp, lamp.publish(post("spat", "red").q1(7)));
    bed.expect_on(data, &["suback 1 [1]", "publish spat q1 id=16385 \"red\""]);
    bed.finish(data);
    bed.expect_on(data, &["fin"]);
    assert_eq!(bed.held(), 0);
    assert_eq!(bed.ledger().dropped[&crate::ledger::DropReason::StreamEnded], 1);
    bed.send(lamp, lamp.publish(post("spat", "green").q1(8)));
    bed.expect(lamp, &["puback 7", "puback 8 No matching subscribers"]);
    bed.expect(car, &[]);
}

#[test]
fn what_is_owed_is_written_before_the_fin() {
    let (mut bed, car, data, _) = bed();
    let listener = bed.connect(&v5("listener").persistent());
    bed.send(listener, listener.subscribe(1, want("a", 1)));
    bed.commits = false;
    bed.send_on(data, car.publish(post("a", "1").q1(1)));
    bed.finish(data);
    bed.expect_on(data, &[]);
    bed.commit_all();
    bed.expect_on(data, &["puback 1", "fin"]);
}

#[test]
fn fin_inside_a_packet_resets_the_stream_and_the_connection_stays() {
    let (mut bed, car, data, _) = bed();
    let mut bytes = car.publish(post("a", "1").q1(1));
    bytes.truncate(bytes.len() - 1);
    bed.send_on(data, bytes);
    bed.finish(data);
    bed.expect_on(data, &["reset 0xba"]);
    bed.send(car, car.subscribe(2, want("b", 0)));
    bed.expect(car, &["suback 2 [0]"]);
}

#[test]
fn a_reset_ends_subscriptions_and_debts_and_the_connection_stays() {
    let (mut bed, car, data, lamp) = bed();
    bed.send_on(data, car.subscribe(1, want("spat", 2)));
    bed.send(lamp, lamp.publish(post("spat", "red").q2(7)));
    bed.send(lamp, lamp.publish(post("spat", "green").q1(8)));
    bed.reset(data);
    assert_eq!(bed.held(), 0);
    bed.send(lamp, lamp.publish(post("spat", "blue").q1(9)));
    bed.expect(lamp, &["pubrec 7", "puback 8", "puback 9 No matching subscribers"]);
    bed.send(car, car.subscribe(2, want("b", 0)));
    bed.expect(car, &["suback 2 [0]"]);
}

#[test]
fn security_a_broken_large_or_forbidden_packet_resets_its_stream_only() {
    let (mut bed, car, _, _) = bed();
    let malformed = BytesMut::from(&[0x30, 0x03, 0x00, 0x05, b'a'][..]);
    let large = BytesMut::from(&[0x30, 0xff, 0xff, 0x7f][..]);
    let connect = v5("car").bytes();
    let disconnect = car.disconnect(ReasonCode::Success);
    let suback = BytesMut::from(&[0x90, 0x04][..]);
    let cases = [
        (malformed, "reset 0x81"),
        (large, "reset 0x95"),
        (connect, "reset 0x82"),
        (disconnect, "reset 0x82"),
        (suback, "reset 0x82"),
    ];
    for (number, (bytes, end)) in (2_u64..).zip(cases) {
        let stream = bed.open_data(car, 4 * number);
        bed.send_on(stream, bytes);
        bed.expect_on(stream, &[end]);
    }
    let publish = bed.open_publish(car, 2);
    bed.send_on(publish, car.subscribe(1, want("a", 0)));
    bed.expect_on(publish, &["reset 0x82"]);
    bed.send(car, car.subscribe(2, want("b", 0)));
    bed.expect(car, &["suback 2 [0]"]);
}

#[test]
fn security_streams_of_a_connection_are_bounded() {
    let (mut bed, car, data, _) = bed();
    for number in 2..=STREAMS_MAX as u64 {
        let stream = bed.open_data(car, 4 * number);
        bed.expect_on(stream, &[]);
    }
    let beyond = bed.open_data(car, 4 * (STREAMS_MAX as u64 + 1));
    bed.expect_on(beyond, &["reset 0x97"]);
    bed.reset(data);
    let room = bed.open_data(car, 4 * (STREAMS_MAX as u64 + 2));
    bed.send_on(room, car.subscribe(1, want("a", 0)));
    bed.expect_on(room, &["suback 1 [0]"]);
}

#[test]
fn a_stream_is_read_from_connack_on() {
    let mut bed = Bed::new(1);
    bed.commits = false;
    let car = bed.connect(&v5("car").persistent());
    let data = bed.open_data(car, 4);
    let publish = bed.open_publish(car, 2);
    bed.send_on(data, car.publish(post("a", "1").q1(1)));
    bed.finish(data);
    bed.send_on(publish, car.publish(post("a", "2").q1(1)));
    assert!(!bed.shards[0].wants_stream_bytes(car.conn, StreamNo(4)));
    bed.expect_on(data, &[]);
    bed.commits = true;
    bed.commit_all();
    let nobody = "puback 1 No matching subscribers";
    bed.expect_on(data, &[nobody, "fin"]);
    bed.expect(car, &["connack present=0", nobody]);
}

#[test]
fn what_comes_on_a_publish_stream_is_answered_on_the_control_stream() {
    let (mut bed, car, _, lamp) = bed();
    bed.send(lamp, lamp.subscribe(1, want("cam", 2)));
    let publish = bed.open_publish(car, 2);
    bed.send_on(publish, car.publish(post("cam", "1").q1(1)));
    bed.send_on(publish, car.publish(post("cam", "2").q2(2)));
    bed.finish(publish);
    bed.expect_on(publish, &["fin"]);
    bed.send(car, car.ack(Pubrel, 2));
    bed.expect(car, &["puback 1", "pubrec 2", "pubcomp 2"]);
    let got = ["suback 1 [2]", "publish cam q1 id=16385 \"1\"", "publish cam q2 id=16386 \"2\""];
    bed.expect(lamp, &got);
    bed.send(lamp, lamp.ack(Puback, 16385));
}

#[test]
fn a_stream_that_is_not_read_lets_the_others_pass() {
    let (mut bed, car, data, lamp) = bed();
    bed.send_on(data, car.subscribe(1, want("map", 1)));
    bed.send(car, car.subscribe(1, want("denm", 1)));
    bed.got(car);
    bed.got_on(data);
    bed.stall(data, true);
    let long = "a map of the crossing ".repeat(40);
    let long: &'static str = Box::leak(long.into_boxed_str());
    for id in 1..=4 {
        bed.send(lamp, lamp.publish(post("map", long).q1(id)));
    }
    bed.send(lamp, lamp.publish(post("denm", "black ice").q1(9)));
    bed.expect(car, &["publish denm q1 id=16387 \"black ice\""]);
    bed.expect_on(data, &[]);
    bed.stall(data, false);
    assert_eq!(bed.got_on(data).len(), 4);
    let now = bed.clock();
    let code = crate::shard::api::StreamCode::STALLED;
    bed.shards[0].close_stream(car.conn, StreamNo(4), code, "stalled", now);
    bed.settle();
    bed.expect_on(data, &["reset 0xbc"]);
    assert_eq!(bed.held(), 1);
}

#[test]
fn a_stream_is_as_urgent_as_the_most_urgent_message_it_waits_to_send() {
    let (mut bed, car, data, lamp) = bed();
    let priority = |bed: &Bed, no| bed.shards[0].stream_priority(car.conn, StreamNo(no));
    bed.send_on(data, car.subscribe(1, want("#", 0)));
    assert_eq!((priority(&bed, 0), priority(&bed, 4)), (4, 2), "answers go with commands");
    bed.stall(data, true);
    bed.send(lamp, lamp.publish(post("cam", "1")));
    assert_eq!(priority(&bed, 4), 1);
    bed.stall(data, false);
    assert!(priority(&bed, 0) > priority(&bed, 4));
}
