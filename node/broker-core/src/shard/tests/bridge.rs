//! Bridges of before 5.0, and who a message is kept from by No Local.

use verge_mqtt_proto::ReasonCode;

use super::bed::Bed;
use super::client::{post, v4, v5, want};

#[test]
fn a_bridge_is_sent_nothing_of_its_own_and_retained_messages_as_they_are() {
    let mut bed = Bed::new(1);
    let bridge = bed.connect(&v4("bridge").bridge());
    bed.send(bridge, bridge.publish(post("b/kept", "own").retain()));
    bed.send(bridge, bridge.subscribe(1, want("b/#", 1)));
    bed.expect(bridge, &["connack present=0", "suback 1 [1]"]);
    bed.send(bridge, bridge.publish(post("b/x", "own")));
    bed.expect(bridge, &[]);
    let other = bed.connect(&v4("other"));
    bed.send(other, other.publish(post("b/x", "plain")));
    bed.send(other, other.publish(post("b/kept", "new").retain()));
    bed.expect(bridge, &["publish b/x \"plain\"", "publish b/kept retain \"new\""]);
    // A group has no No Local, and hears what its member says.
    bed.send(bridge, bridge.subscribe(2, want("$share/g/s", 0)));
    bed.send(bridge, bridge.publish(post("s", "shared")));
    bed.expect(bridge, &["suback 2 [0]", "publish s \"shared\""]);
}

#[test]
fn what_a_bridge_asked_for_outlives_a_crash() {
    let mut bed = Bed::new(1);
    let who = v4("bridge").bridge().persistent();
    let bridge = bed.connect(&who);
    bed.send(bridge, bridge.subscribe(1, want("b", 0)));
    let mut bed = bed.crash();
    let bridge = bed.connect(&who);
    bed.send(bridge, bridge.publish(post("b", "own")));
    let other = bed.connect(&v4("other"));
    bed.send(other, other.publish(post("b", "kept").retain()));
    bed.expect(bridge, &["connack present=1", "publish b retain \"kept\""]);
}

#[test]
fn no_local_holds_for_retained_messages_mqtt_3_8_3_3() {
    let mut bed = Bed::new(1);
    let client = bed.connect(&v5("c"));
    bed.send(client, client.publish(post("t/own", "own").retain()));
    let other = bed.connect(&v5("other"));
    bed.send(other, other.publish(post("t/other", "other").retain()));
    bed.send(client, client.subscribe(1, want("t/+", 0).no_local()));
    let got = ["connack present=0", "suback 1 [0]", "publish t/other retain \"other\""];
    bed.expect(client, &got);
    bed.send(client, client.disconnect(ReasonCode::Success));
}
