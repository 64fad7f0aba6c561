//! Subscriptions of streams: each its own, detached with the connection, taken over again.

use verge_mqtt_proto::AckKind::Puback;
use verge_mqtt_proto::RetainHandling;

use super::bed::Bed;
use super::client::{Client, post, v5, want};
use crate::shard::api::{Answer, Query};

fn pair(bed: &mut Bed) -> (Client, Client) {
    let (car, lamp) = (bed.connect(&v5("car").persistent()), bed.connect(&v5("lamp")));
    bed.got(car);
    bed.got(lamp);
    (car, lamp)
}

#[test]
fn a_filter_on_two_streams_is_two_subscriptions() {
    let mut bed = Bed::new(1);
    let (car, lamp) = pair(&mut bed);
    bed.send(lamp, lamp.publish(post("spat", "yellow").q1(1).retain()));
    let (one, two) = (bed.open_data(car, 4), bed.open_data(car, 8));
    bed.send(car, car.subscribe(1, want("spat", 0)));
    bed.send_on(one, car.subscribe(1, want("spat", 1).id(1)));
    bed.send_on(two, car.subscribe(1, want("+", 1).id(2)));
    bed.expect(car, &["suback 1 [0]", "publish spat retain \"yellow\""]);
    let yellow = |id, by| format!("publish spat q1 id={id} retain for=[{by}] \"yellow\"");
    bed.expect_on(one, &["suback 1 [1]", &yellow(16385, 1)]);
    bed.expect_on(two, &["suback 1 [1]", &yellow(16386, 2)]);
    bed.send(lamp, lamp.publish(post("spat", "red").q1(2)));
    bed.expect(car, &["publish spat \"red\""]);
    bed.expect_on(one, &["publish spat q1 id=16387 for=[1] \"red\""]);
    bed.expect_on(two, &["publish spat q1 id=16388 for=[2] \"red\""]);
    let Answer::Sessions(sessions) = bed.query(Query::Sessions).remove(0) else { panic!() };
    assert_eq!(sessions[0].subscriptions, 3);
}

#[test]
fn two_filters_of_one_stream_that_match_are_one_delivery() {
    let mut bed = Bed::new(1);
    let (car, lamp) = pair(&mut bed);
    let data = bed.open_data(car, 4);
    bed.send_on(data, car.subscribe(1, want("spat", 0).id(1)));
    bed.send_on(data, car.subscribe(2, want("+", 1).id(2)));
    bed.send(lamp, lamp.publish(post("spat", "red").q1(1)));
    let red = "publish spat q1 id=16385 for=[1, 2] \"red\"";
    bed.expect_on(data, &["suback 1 [0]", "suback 2 [1]", red]);
}

#[test]
fn a_shared_subscription_has_one_member_a_stream() {
    let mut bed = Bed::new(1);
    let (car, lamp) = pair(&mut bed);
    let (one, two) = (bed.open_data(car, 4), bed.open_data(car, 8));
    for data in [one, two] {
        bed.send_on(data, car.subscribe(1, want("$share/g/spat", 0)));
        bed.got_on(data);
    }
    for _ in 0..2 {
        bed.send(lamp, lamp.publish(post("spat", "red")));
    }
    bed.expect_on(one, &["publish spat \"red\""]);
    bed.expect_on(two, &["publish spat \"red\""]);
}

#[test]
fn unsubscribe_on_a_stream_touches_that_stream_only() {
    let mut bed = Bed::new(1);
    let (car, lamp) = pair(&mut bed);
    let (one, two) = (bed.open_data(car, 4), bed.open_data(car, 8));
    bed.send(car, car.subscribe(1, want("spat", 0)));
    bed.send_on(one, car.subscribe(1, want("spat", 0)));
    bed.send_on(two, car.unsubscribe(2, "spat"));
    bed.expect_on(two, &["unsuback 2 [17]"]);
    bed.send_on(one, car.unsubscribe(3, "spat"));
    bed.expect_on(one, &["suback 1 [0]", "unsuback 3"]);
    bed.send(lamp, lamp.publish(post("spat", "red")));
    bed.expect(car, &["suback 1 [0]", "publish spat \"red\""]);
    bed.expect_on(one, &[]);
}

#[test]
fn unsubscribe_on_the_control_stream_finds_its_own_first_then_those_of_all_streams() {
    let mut bed = Bed::new(1);
    let (car, lamp) = pair(&mut bed);
    let (one, two) = (bed.open_data(car, 4), bed.open_data(car, 8));
    bed.send(car, car.subscribe(1, want("spat", 0)));
    for data in [one, two] {
        bed.send_on(data, car.subscribe(1, want("spat", 0)));
        bed.got_on(data);
    }
    bed.send(car, car.unsubscribe(2, "spat"));
    bed.send(lamp, lamp.publish(post("spat", "red")));
    bed.expect(car, &["suback 1 [0]", "unsuback 2"]);
    bed.expect_on(one, &["publish spat \"red\""]);
    bed.expect_on(two, &["publish spat \"red\""]);
    bed.send(car, car.unsubscribe(3, "spat"));
    bed.send(car, car.unsubscribe(4, "spat"));
    bed.send(lamp, lamp.publish(post("spat", "green").q1(5)));
    bed.expect(car, &["unsuback 3", "unsuback 4 [17]"]);
    bed.expect(lamp, &["puback 5 No matching subscribers"]);
    bed.expect_on(one, &[]);
    // Nothing of it is back after a restart.
    let mut bed = bed.crash();
    let lamp = bed.connect(&v5("lamp"));
    bed.send(lamp, lamp.publish(post("spat", "blue").q1(6)));
    bed.expect(lamp, &["connack present=0", "puback 6 No matching subscribers"]);
}

#[test]
fn subscriptions_of_a_lost_connection_are_the_control_streams_until_taken_over() {
    let mut bed = Bed::new(1);
    let (car, lamp) = pair(&mut bed);
    let data = bed.open_data(car, 4);
    bed.send_on(data, car.subscribe(1, want("spat", 1)));
    bed.send_on(data, car.subscribe(2, want("map", 1)));
    bed.send_on(data, car.subscribe(3, want("denm", 1)));
    bed.lose(car);
    bed.send(lamp, lamp.publish(post("spat", "red").q1(1)));
    let car = bed.connect(&v5("car").persistent());
    bed.expect(car, &["connack present=1", "publish spat q1 id=16385 \"red\""]);
    bed.send(car, car.ack(Puback, 16385));
    assert_eq!(bed.held(), 0);
    let data = bed.open_data(car, 4);
    let new_only = want("spat", 1).retained(RetainHandling::SendIfNew);
    bed.send(lamp, lamp.publish(post("spat", "kept").q1(2).retain()));
    bed.expect(car, &["publish spat q1 id=16386 \"kept\""]);
    bed.send_on(data, car.subscribe(1, new_only));
    bed.send(car, car.subscribe(1, want("map", 1)));
    for topic in ["spat", "map", "denm"] {
        bed.send(lamp, lamp.publish(post(topic, "green")));
    }
    bed.expect_on(data, &["suback 1 [1]", "publish spat \"green\""]);
    let rest = ["suback 1 [1]", "publish map \"green\"", "publish denm \"green\""];
    bed.expect(car, &rest);
    // What the control stream took is its own from now on.
    bed.send_on(data, car.subscribe(2, want("map", 0)));
    bed.send(lamp, lamp.publish(post("map", "blue")));
    bed.expect_on(data, &["suback 2 [0]", "publish map \"blue\""]);
    bed.expect(car, &["publish map \"blue\""]);
}

#[test]
fn subscriptions_of_several_streams_are_one_once_detached() {
    let mut bed = Bed::new(1);
    let (car, lamp) = pair(&mut bed);
    let (one, two) = (bed.open_data(car, 4), bed.open_data(car, 8));
    bed.send_on(one, car.subscribe(1, want("spat", 0)));
    bed.send_on(two, car.subscribe(1, want("spat", 1)));
    bed.send(car, car.subscribe(1, want("map", 0)));
    bed.send_on(two, car.subscribe(2, want("map", 1)));
    bed.lose(car);
    bed.send(lamp, lamp.publish(post("spat", "red").q1(1)));
    bed.send(lamp, lamp.publish(post("map", "1").q1(2)));
    assert_eq!(bed.held(), 1, "the control stream's own is as it was");
    let car = bed.connect(&v5("car").persistent());
    bed.expect(car, &["connack present=1", "publish spat q1 id=16385 \"red\""]);
}

#[test]
fn a_session_that_ends_with_its_connection_leaves_nothing_of_its_streams() {
    let mut bed = Bed::new(2);
    let (car, lamp) = (bed.connect(&v5("car")), bed.connect(&v5("lamp")));
    let data = bed.open_data(car, 4);
    bed.send_on(data, car.subscribe(1, want("spat", 1)));
    bed.send_on(data, car.publish(post("x", "1").q2(5)));
    bed.send(lamp, lamp.publish(post("spat", "red").q1(1)));
    assert_eq!(bed.held(), 1);
    bed.lose(car);
    bed.send(lamp, lamp.publish(post("spat", "red").q1(2)));
    assert_eq!(bed.held(), 0);
    bed.expect(lamp, &["connack present=0", "puback 1", "puback 2 No matching subscribers"]);
    assert_eq!(bed.shared.router.subscription_count(), 0);
}

#[test]
fn a_connection_that_is_taken_over_detaches_as_a_lost_one() {
    let mut bed = Bed::new(1);
    let (car, lamp) = pair(&mut bed);
    let data = bed.open_data(car, 4);
    bed.send_on(data, car.subscribe(1, want("spat", 1)));
    let again = bed.connect(&v5("car").persistent());
    bed.expect(car, &["disconnect Session taken over", "closed"]);
    bed.send(lamp, lamp.publish(post("spat", "red").q1(1)));
    bed.expect(again, &["connack present=1", "publish spat q1 id=16385 \"red\""]);
    let clean = bed.connect(&v5("car").persistent().clean());
    bed.send(lamp, lamp.publish(post("spat", "green").q1(2)));
    bed.expect(clean, &["connack present=0"]);
    bed.expect(lamp, &["puback 1", "puback 2 No matching subscribers"]);
}

#[test]
fn what_a_stream_that_ends_owes_of_a_group_goes_to_another_member() {
    let mut bed = Bed::new(1);
    let (car, lamp) = pair(&mut bed);
    let (one, two) = (bed.open_data(car, 4), bed.open_data(car, 8));
    bed.send_on(one, car.subscribe(1, want("$share/g/spat", 1)));
    bed.send(lamp, lamp.publish(post("spat", "red").q1(1)));
    bed.send(lamp, lamp.publish(post("spat", "green").q1(2)));
    bed.send_on(two, car.subscribe(1, want("$share/g/spat", 1)));
    bed.reset(one);
    let moved = ["publish spat q1 id=16387 \"red\"", "publish spat q1 id=16388 \"green\""];
    bed.expect_on(two, &["suback 1 [1]", moved[0], moved[1]]);
    assert_eq!((bed.held(), bed.rows()), (2, (2, 0)));
}
