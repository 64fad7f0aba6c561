//! A session moves between nodes.

use verge_mqtt_proto::AckKind;

use super::client::{post, v5, want};
use super::mesh::Mesh;

#[test]
fn a_session_follows_its_client_with_queue_and_flight() {
    let mut mesh = Mesh::new(&["a", "b"]);
    let sub = mesh.at(0, |a| a.connect(&v5("v").persistent()));
    let publisher = mesh.at(0, |a| a.connect(&v5("p")));
    mesh.at(0, |a| {
        a.send(sub, sub.subscribe(1, want("t", 2)));
        a.got(sub);
        a.send(publisher, publisher.publish(post("t", "one").q1(1)));
        a.send(publisher, publisher.publish(post("t", "two").q2(2)));
        a.send(publisher, publisher.publish(post("t", "three").q2(3)));
        a.send(sub, sub.ack(AckKind::Pubrec, 16_387));
        a.got(sub);
    });
    let new = mesh.at(1, |b| b.connect(&v5("v").persistent()));
    mesh.at(0, |a| a.expect(sub, &["disconnect Session taken over", "closed"]));
    let again = [
        "connack present=1",
        "publish t q1 id=16385 dup \"one\"",
        "publish t q2 id=16386 dup \"two\"",
        "pubrel 16387",
    ];
    mesh.at(1, |b| b.expect(new, &again));
    assert_eq!(mesh.nodes[0].held(), 0);
    assert_eq!(mesh.nodes[0].ledger().handed_over, 3);
    mesh.wait(40_000);
    assert_eq!(mesh.nodes[0].rows(), (0, 0));
    assert!(mesh.frames.last().unwrap().ends_with("b→a Drained"), "{:?}", mesh.frames);
}
