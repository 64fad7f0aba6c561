//! A session with streams moves between nodes.

use verge_mqtt_proto::AckKind::{Pubrec, Pubrel};

use super::bed::Bed;
use super::client::{post, v5, want};
use super::mesh::Mesh;
use crate::router::{Redeliver, SharedSettings};

#[test]
fn subscriptions_and_debts_of_streams_move_along_and_are_taken_over_there() {
    let mut mesh = Mesh::new(&["a", "b"]);
    let car = mesh.at(0, |a| a.connect(&v5("car").persistent()));
    let data = mesh.at(0, |a| a.open_data(car, 4));
    mesh.at(0, |a| {
        a.send_on(data, car.subscribe(1, want("spat", 2)));
        a.send_on(data, car.publish(post("spat", "mine").q2(5)));
        a.got_on(data);
        a.send_on(data, car.ack(Pubrec, 16385));
        a.forward(1, "spat", "far");
    });
    let car = mesh.at(1, |b| b.connect(&v5("car").persistent()));
    let again = ["connack present=1", "pubrel 16385", "publish spat q2 id=16386 dup \"far\""];
    mesh.at(1, |b| {
        b.expect(car, &again);
        b.send(car, car.publish(post("spat", "mine").q2(5).dup()));
        b.send(car, car.ack(Pubrel, 5));
        b.expect(car, &["pubrec 5", "pubcomp 5"]);
    });
    let data = mesh.at(1, |b| b.open_data(car, 4));
    mesh.at(1, |b| {
        b.send_on(data, car.subscribe(1, want("spat", 0)));
        b.forward(2, "spat", "near");
        b.expect_on(data, &["suback 1 [0]", "publish spat \"near\""]);
        b.expect(car, &[]);
    });
    mesh.wait(40_000);
    mesh.at(1, |b| {
        b.forward(3, "spat", "later");
        b.expect_on(data, &["publish spat \"later\""]);
        b.expect(car, &[]);
    });
}

#[test]
fn a_member_by_a_data_stream_is_away_with_its_connection_and_there_again_with_the_next() {
    let mut bed = Bed::configured(1, |shared| {
        let redeliver = Redeliver::ConnectionLost;
        shared.with_shared(SharedSettings { redeliver, ..SharedSettings::default() })
    });
    let car = bed.connect(&v5("car").persistent());
    let data = bed.open_data(car, 4);
    bed.send_on(data, car.subscribe(1, want("$share/g/t", 1)));
    let other = bed.connect(&v5("other").persistent());
    bed.send(other, other.subscribe(1, want("$share/g/t", 1)));
    let lamp = bed.connect(&v5("lamp"));
    bed.got_on(data);
    bed.got(other);
    bed.send(lamp, lamp.publish(post("t", "one").q1(1)));
    bed.expect_on(data, &["publish t q1 id=16385 \"one\""]);
    bed.lose(car);
    bed.expect(other, &["publish t q1 id=16385 \"one\""]);
    // Away: every message is the other's.
    for (number, text) in (2_u16..).zip(["two", "three"]) {
        bed.send(lamp, lamp.publish(post("t", text).q1(number)));
        bed.expect(other, &[&format!("publish t q1 id={} \"{text}\"", 16_384 + number)]);
    }
    let car = bed.connect(&v5("car").persistent());
    bed.expect(car, &["connack present=1"]);
    let mut got = [0, 0];
    for number in 4..=7 {
        bed.send(lamp, lamp.publish(post("t", "more").q1(number)));
        got = [got[0] + bed.got(car).len(), got[1] + bed.got(other).len()];
    }
    assert_eq!(got, [2, 2], "in turn, on the control stream");
    let data = bed.open_data(car, 4);
    bed.send_on(data, car.subscribe(1, want("$share/g/t", 1)));
    bed.got_on(data);
    let mut got = [0, 0];
    for number in 8..=11 {
        bed.send(lamp, lamp.publish(post("t", "more").q1(number)));
        got = [got[0] + bed.got_on(data).len(), got[1] + bed.got(other).len()];
    }
    assert_eq!(got, [2, 2], "in turn, on the data stream");
}

#[test]
fn a_message_for_two_streams_comes_on_both_while_an_older_log_is_merged() {
    let mut mesh = Mesh::new(&["a", "b"]);
    let car = mesh.at(0, |a| a.connect(&v5("car").persistent()));
    mesh.at(0, |a| a.send(car, car.subscribe(1, want("map", 1))));
    let car = mesh.at(1, |b| b.connect(&v5("car").persistent()));
    let (one, two) = mesh.at(1, |b| (b.open_data(car, 4), b.open_data(car, 8)));
    mesh.at(1, |b| {
        for data in [one, two] {
            b.send_on(data, car.subscribe(1, want("spat", 1)));
            b.got_on(data);
        }
        b.forward(1, "spat", "red");
        b.forward(1, "spat", "red");
        let red = |id: u16| format!("publish spat q1 id={id} \"red\"");
        assert_eq!(b.got_on(one), [red(32769)]);
        assert_eq!(b.got_on(two), [red(32770)]);
    });
}

#[test]
fn a_node_that_cannot_be_reached_is_served_without_and_streams_are_taken_over() {
    let mut mesh = Mesh::new(&["a", "b"]);
    let car = mesh.at(0, |a| a.connect(&v5("car").persistent()));
    let data = mesh.at(0, |a| a.open_data(car, 4));
    mesh.at(0, |a| a.send_on(data, car.subscribe(1, want("spat", 1))));
    mesh.cut(0, 1);
    let car = mesh.at(1, |b| b.connect(&v5("car").persistent()));
    mesh.wait(2_500);
    let data = mesh.at(1, |b| b.open_data(car, 4));
    mesh.at(1, |b| {
        b.expect(car, &["connack present=1"]);
        b.send_on(data, car.subscribe(1, want("spat", 1)));
    });
    mesh.heal(0, 1);
    mesh.wait(1_000);
    mesh.at(1, |b| {
        b.got_on(data);
        b.forward(1, "spat", "red");
        assert_eq!(b.got_on(data).len(), 1);
        b.expect(car, &[]);
    });
}
