//! QoS on streams: identifiers by stream, quotas of the connection, and what a restart or a lost
//! connection leaves.

use std::time::Duration;

use verge_mqtt_proto::AckKind::{Puback, Pubcomp, Pubrec, Pubrel};
use verge_mqtt_proto::QoS;

use super::bed::Bed;
use super::client::{Client, post, v5, want};

/// A car with its session, and a listener that is away for all that is published to `cam`.
fn bed() -> (Bed, Client) {
    let mut bed = Bed::new(1);
    let listener = bed.connect(&v5("listener").persistent());
    bed.send(listener, listener.subscribe(1, want("cam", 2)));
    bed.lose(listener);
    let car = bed.connect(&v5("car").persistent());
    bed.got(car);
    (bed, car)
}

#[test]
fn one_id_may_be_under_way_on_several_streams() {
    let (mut bed, car) = bed();
    let (one, two) = (bed.open_data(car, 4), bed.open_data(car, 8));
    bed.send(car, car.publish(post("cam", "control").q2(5)));
    bed.send_on(one, car.publish(post("cam", "one").q2(5)));
    bed.send_on(two, car.publish(post("cam", "two").q2(5)));
    bed.send_on(two, car.publish(post("cam", "two").q2(5).dup()));
    assert_eq!(bed.held(), 3);
    bed.send_on(one, car.ack(Pubrel, 5));
    bed.send_on(one, car.ack(Pubrel, 5));
    bed.send_on(one, car.publish(post("cam", "more").q2(5)));
    assert_eq!(bed.rows().0, 4);
    bed.send(car, car.ack(Pubrel, 5));
    bed.send_on(two, car.ack(Pubrel, 5));
    bed.expect(car, &["pubrec 5", "pubcomp 5"]);
    let unknown = "pubcomp 5 Packet Identifier not found";
    bed.expect_on(one, &["pubrec 5", "pubcomp 5", unknown, "pubrec 5"]);
    bed.expect_on(two, &["pubrec 5", "pubrec 5", "pubcomp 5"]);
}

#[test]
fn a_repetition_after_a_restart_is_answered_and_not_routed_again() {
    let (mut bed, car) = bed();
    let (one, two) = (bed.open_data(car, 4), bed.open_data(car, 8));
    bed.send_on(one, car.publish(post("cam", "one").q2(5)));
    bed.send_on(two, car.publish(post("cam", "two").q2(6)));
    bed.send_on(two, car.publish(post("cam", "done").q2(7)));
    bed.send_on(two, car.ack(Pubrel, 7));
    let mut bed = bed.crash();
    let car = bed.connect(&v5("car").persistent());
    bed.send(car, car.publish(post("cam", "one").q2(5).dup()));
    bed.send(car, car.ack(Pubrel, 5));
    bed.send(car, car.ack(Pubrel, 6));
    bed.send(car, car.ack(Pubrel, 7));
    let unknown = "pubcomp 7 Packet Identifier not found";
    bed.expect(car, &["connack present=1", "pubrec 5", "pubcomp 5", "pubcomp 6", unknown]);
    assert_eq!(bed.rows().0, 3);
    // Released for good: the next life knows nothing of them.
    let mut bed = bed.crash();
    let car = bed.connect(&v5("car").persistent());
    bed.send(car, car.publish(post("cam", "next").q2(5).dup()));
    assert_eq!(bed.held(), 4);
}

#[test]
fn an_id_used_anew_is_a_new_message() {
    let (mut bed, car) = bed();
    let one = bed.open_data(car, 4);
    bed.send_on(one, car.publish(post("cam", "one").q2(5)));
    bed.lose(car);
    let car = bed.connect(&v5("car").persistent());
    bed.send(car, car.publish(post("cam", "new").q2(5)));
    assert_eq!(bed.held(), 2);
    bed.send(car, car.ack(Pubrel, 5));
    let mut bed = bed.crash();
    let car = bed.connect(&v5("car").persistent());
    bed.send(car, car.publish(post("cam", "again").q2(5).dup()));
    assert_eq!(bed.held(), 3);
}

#[test]
fn an_id_of_a_stream_the_client_ended_is_kept_for_its_repetition() {
    let (mut bed, car) = bed();
    let one = bed.open_data(car, 4);
    bed.send_on(one, car.publish(post("cam", "one").q2(5)));
    bed.finish(one);
    bed.expect_on(one, &["pubrec 5", "fin"]);
    bed.send(car, car.publish(post("cam", "one").q2(5).dup()));
    bed.send(car, car.ack(Pubrel, 5));
    bed.expect(car, &["pubrec 5", "pubcomp 5"]);
    assert_eq!(bed.held(), 1);
}

#[test]
fn what_was_not_stored_is_refused_on_its_stream_and_taken_the_next_time() {
    let (mut bed, car) = bed();
    let one = bed.open_data(car, 4);
    bed.commits = false;
    bed.send_on(one, car.publish(post("cam", "one").q2(5)));
    bed.fail_commit();
    bed.commits = true;
    bed.send_on(one, car.publish(post("cam", "one").q2(5)));
    bed.expect_on(one, &["pubrec 5 Quota exceeded", "pubrec 5"]);
    assert_eq!(bed.held(), 1);
}

#[test]
fn exchanges_of_a_lost_connection_go_on_on_the_control_stream() {
    let mut bed = Bed::new(1);
    let (car, lamp) = (bed.connect(&v5("car").persistent()), bed.connect(&v5("lamp")));
    let data = bed.open_data(car, 4);
    bed.send_on(data, car.subscribe(1, want("spat", 2)));
    for (id, payload) in [(1, "one"), (2, "two"), (3, "three")] {
        bed.send(lamp, lamp.publish(post("spat", payload).q2(id)));
    }
    bed.send_on(data, car.ack(Pubrec, 16385));
    bed.got_on(data);
    bed.lose(car);
    let car = bed.connect(&v5("car").persistent());
    let again = [
        "connack present=1",
        "pubrel 16385",
        "publish spat q2 id=16386 dup \"two\"",
        "publish spat q2 id=16387 dup \"three\"",
    ];
    bed.expect(car, &again);
    bed.send(car, car.ack(Pubcomp, 16385));
    let mut bed = bed.crash();
    let car = bed.connect(&v5("car").persistent());
    bed.expect(car, &["connack present=1", again[2], again[3]]);
    for id in [16386, 16387] {
        bed.send(car, car.ack(Pubrec, id));
        bed.send(car, car.ack(Pubcomp, id));
    }
    assert_eq!((bed.held(), bed.rows()), (0, (0, 0)));
}

#[test]
fn the_clients_receive_maximum_holds_for_all_streams_together() {
    let mut bed = Bed::new(1);
    let car = bed.connect(&v5("car").receive_maximum(2));
    let lamp = bed.connect(&v5("lamp"));
    let data = bed.open_data(car, 4);
    bed.send_on(data, car.subscribe(1, want("spat", 1)));
    bed.send(car, car.subscribe(1, want("map", 1)));
    bed.got(car);
    for topic in ["spat", "map", "spat", "map"] {
        bed.send(lamp, lamp.publish(post(topic, "m").q1(1)));
    }
    bed.expect_on(data, &["suback 1 [1]", "publish spat q1 id=16385 \"m\""]);
    bed.expect(car, &["publish map q1 id=16386 \"m\""]);
    bed.send_on(data, car.ack(Puback, 16385));
    bed.expect_on(data, &["publish spat q1 id=16387 \"m\""]);
    // A stream that ends gives back what it took.
    bed.reset(data);
    bed.expect(car, &["publish map q1 id=16388 \"m\""]);
}

#[test]
fn security_a_stream_that_is_not_acknowledged_leaves_room_for_others() {
    let mut bed = Bed::new(1);
    let car = bed.connect(&v5("car").receive_maximum(4));
    let lamp = bed.connect(&v5("lamp"));
    let (mute, good) = (bed.open_data(car, 4), bed.open_data(car, 8));
    bed.send_on(mute, car.subscribe(1, want("mute", 1)));
    bed.send_on(good, car.subscribe(1, want("good", 1)));
    bed.got_on(mute);
    bed.got_on(good);
    for id in 1..=4 {
        bed.send(lamp, lamp.publish(post("mute", "m").q1(id)));
    }
    assert_eq!(bed.got_on(mute).len(), 2, "half of the window");
    for round in 0..5 {
        bed.send(lamp, lamp.publish(post("good", "m").q1(1)));
        let id = 16_387 + round;
        bed.expect_on(good, &[&format!("publish good q1 id={id} \"m\"")]);
        bed.send_on(good, car.ack(Puback, id));
    }
    // It goes on where it is acknowledged.
    bed.send_on(mute, car.ack(Puback, 16_385));
    assert_eq!(bed.got_on(mute).len(), 1);
    assert_eq!(bed.held(), 3);
}

#[test]
fn security_our_receive_maximum_holds_for_all_streams_together() {
    let (mut bed, car) = bed();
    let (one, two) = (bed.open_data(car, 4), bed.open_data(car, 8));
    for id in 1..=8 {
        bed.send_on(one, car.publish(post("x", "m").q2(id)));
        bed.send(car, car.publish(post("x", "m").q2(id)));
    }
    bed.send_on(one, car.publish(post("x", "m").q2(1).dup()));
    assert_eq!(bed.got_on(one).len(), 9);
    bed.send_on(two, car.publish(post("x", "m").q1(1)));
    bed.expect_on(two, &["reset 0x93"]);
    bed.reset(one);
    let two = bed.open_data(car, 12);
    bed.send_on(two, car.publish(post("x", "m").q1(1)));
    bed.expect_on(two, &["puback 1 No matching subscribers"]);
}

#[test]
fn packets_on_any_stream_keep_the_connection_alive() {
    let mut bed = Bed::new(1);
    let car = bed.connect(&v5("car").keep_alive(10));
    let data = bed.open_data(car, 4);
    let publish = bed.open_publish(car, 2);
    bed.got(car);
    for round in 0..4 {
        bed.wait(Duration::from_secs(9));
        if round % 2 == 0 {
            bed.send_on(data, car.pingreq());
        } else {
            bed.send_on(publish, car.publish(post("x", "m")));
        }
    }
    bed.expect(car, &[]);
    bed.expect_on(data, &["pingresp", "pingresp"]);
    bed.wait(Duration::from_secs(16));
    bed.expect(car, &["disconnect Keep Alive timeout", "closed"]);
}

#[test]
fn order_holds_within_a_stream() {
    let mut bed = Bed::new(1);
    let (car, lamp) = (bed.connect(&v5("car").persistent()), bed.connect(&v5("lamp")));
    let data = bed.open_data(car, 4);
    bed.send_on(data, car.subscribe(1, want("spat/#", 1)));
    bed.got_on(data);
    bed.stall(data, true);
    for (id, topic) in [(1, "spat/1"), (2, "spat/2"), (3, "spat/1"), (4, "spat/3")] {
        bed.send(lamp, lamp.publish(post(topic, "m").q1(id)));
    }
    bed.stall(data, false);
    let publish = |topic: u16, id| format!("publish spat/{topic} q1 id={id} \"m\"");
    let all = [publish(1, 16385), publish(2, 16386), publish(1, 16387), publish(3, 16388)];
    assert_eq!(bed.got_on(data), all);
    assert_eq!(bed.shared.counters.snapshot().sent[QoS::AtLeastOnce as usize], 4);
}
