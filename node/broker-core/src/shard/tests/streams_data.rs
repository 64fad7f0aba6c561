//! PUBLISH, SUBSCRIBE and their answers on streams of their own.

use verge_mqtt_proto::AckKind::{Puback, Pubcomp, Pubrec, Pubrel};

use super::bed::Bed;
use super::client::{post, v5, want};

#[test]
fn a_subscription_is_answered_and_served_on_its_stream() {
    let mut bed = Bed::new(1);
    let (car, lamp) = (bed.connect(&v5("car")), bed.connect(&v5("lamp")));
    let data = bed.open_data(car, 4);
    bed.send_on(data, car.subscribe(1, want("spat", 1)));
    bed.expect_on(data, &["suback 1 [1]"]);
    bed.send(lamp, lamp.publish(post("spat", "red").q1(7)));
    bed.send(lamp, lamp.publish(post("spat", "green")));
    bed.expect(lamp, &["connack present=0", "puback 7"]);
    bed.expect_on(data, &["publish spat q1 id=16385 \"red\"", "publish spat \"green\""]);
    bed.send_on(data, car.ack(Puback, 16385));
    assert_eq!(bed.held(), 0);
    bed.expect(car, &["connack present=0"]);
}

#[test]
fn a_publish_is_acknowledged_on_its_stream() {
    let mut bed = Bed::new(1);
    let car = bed.connect(&v5("car").persistent());
    let data = bed.open_data(car, 4);
    bed.send_on(data, car.publish(post("a", "1").q1(1)));
    bed.send_on(data, car.publish(post("a", "2").q2(2)));
    bed.send_on(data, car.ack(Pubrel, 2));
    let nobody = "No matching subscribers";
    bed.expect_on(
        data,
        &[&format!("puback 1 {nobody}"), &format!("pubrec 2 {nobody}"), "pubcomp 2"],
    );
    bed.expect(car, &["connack present=0"]);
}

#[test]
fn an_acknowledgement_on_another_stream_is_not_one() {
    let mut bed = Bed::new(1);
    let (car, lamp) = (bed.connect(&v5("car")), bed.connect(&v5("lamp")));
    let data = bed.open_data(car, 4);
    bed.send_on(data, car.subscribe(1, want("spat", 2)));
    bed.send(lamp, lamp.publish(post("spat", "red").q1(7)));
    bed.send(lamp, lamp.publish(post("spat", "green").q2(8)));
    bed.got_on(data);
    bed.send(car, car.ack(Puback, 16385));
    bed.send(car, car.ack(Pubrec, 16386));
    bed.send(car, car.ack(Pubcomp, 16386));
    bed.expect(car, &["connack present=0", "pubrel 16386 Packet Identifier not found"]);
    assert_eq!(bed.held(), 2);
    bed.send_on(data, car.ack(Puback, 16385));
    bed.send_on(data, car.ack(Pubrec, 16386));
    bed.send_on(data, car.ack(Pubcomp, 16386));
    bed.expect_on(data, &["pubrel 16386"]);
    assert_eq!(bed.held(), 0);
}
