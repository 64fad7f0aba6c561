//! Disks that fill, fail, forget and lie, and clocks that jump, under a node that serves.
//!
//! In each case the same holds: what must be stored is refused while it cannot be, what need not be
//! goes on, what was acknowledged is there afterwards, once, and nobody has to restart anything.

mod clock;
mod damaged;
mod failing;
mod full;
mod shim;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use verge_mqtt_proto::{QoS, ReasonCode};

use crate::client::Client;
use crate::node::Node;
use crate::time::{SOON, millis, now, until};

/// A publisher that knows what was acknowledged.
struct Publisher {
    client: Client,
    qos: QoS,
    payload_bytes: usize,
    rng: StdRng,
    next: u64,
    /// The numbers that the node has taken over, in order.
    taken: Vec<u64>,
}

impl Publisher {
    fn new(node: &Node, qos: QoS, payload_bytes: usize) -> Self {
        let mut client = Client::v5(&format!("publisher-{}", qos.bits()));
        client.refused = Some(Vec::new());
        client.connect(node.mqtt);
        let rng = StdRng::seed_from_u64(7);
        Self { client, qos, payload_bytes, rng, next: 0, taken: Vec::new() }
    }

    /// Publishes the next number, and says why it was refused if it was.
    fn publish(&mut self, node: &Node) -> Option<ReasonCode> {
        let number = self.next;
        self.next += 1;
        let text: String = (number..number + 1).map(|number| format!("{number:08}:")).collect();
        // Text that does not compress well.
        let filler = (0..self.payload_bytes).map(|_| char::from(self.rng.random_range(33..127_u8)));
        let payload = text + &filler.collect::<String>();
        self.client.publish(&format!("faults/{}", self.qos.bits()), &payload, self.qos);
        let deadline = now() + SOON;
        while self.client.unacknowledged() > 0 {
            assert!(now() < deadline, "no answer to a PUBLISH");
            if !self.client.is_connected() {
                self.client.connect(node.mqtt);
            }
            self.client.work(millis(2));
        }
        let refused = self.client.refused.as_mut().expect("refusals are borne").pop();
        if refused.is_none() {
            self.taken.push(number);
        }
        refused
    }

    fn publish_all(&mut self, node: &Node, count: usize) {
        for _ in 0..count {
            assert_eq!(self.publish(node), None, "{}", node.log());
        }
    }
}

/// A session that is subscribed to everything here and away.
fn away(node: &Node, qos: QoS) -> Client {
    let mut client = Client::v5(&format!("away-{}", qos.bits()));
    client.connect(node.mqtt);
    assert!(!client.subscribe("faults/+", qos).is_error());
    client.disconnect();
    client
}

/// The numbers of what waits for a client, as they come.
fn drain(client: &mut Client, node: &Node) -> Vec<u64> {
    client.connect(node.mqtt);
    let deadline = now() + SOON;
    let mut numbers = Vec::new();
    loop {
        client.work(millis(100));
        while let Some(message) = client.take() {
            let number = message.text().split(':').next().and_then(|text| text.parse().ok());
            numbers.push(number.expect("a number"));
        }
        if node.get("/api/v1/ledger")["held"] == 0 {
            client.work(millis(200));
            if client.take().is_none() {
                break;
            }
        }
        assert!(now() < deadline, "not drained: {}", node.get("/api/v1/ledger"));
    }
    client.disconnect();
    numbers
}

/// Waits until the node refuses for this reason, and looks at all that says so.
fn refuses(node: &Node, kind: &str) {
    until(&format!("the node refuses: {kind}"), || {
        let (status, text) = node.answer("/readyz");
        status == 503 && text.contains(&format!("storage: {kind}: "))
    });
    assert_eq!(node.status("/healthz"), Some(200));
    assert_eq!(node.metric("verge_storage_writable", ""), 0);
    assert!(node.metric("verge_storage_failures_total", &format!("kind=\"{kind}\"")) > 0);
    assert!(node.log().contains("messages that must be stored are refused"), "{}", node.log());
}

/// Waits until the node takes everything again.
fn takes(node: &Node) {
    until("the node takes writes again", || node.status("/readyz") == Some(200));
    assert_eq!(node.metric("verge_storage_writable", ""), 1);
}

/// What needs no disk goes on: QoS 0, and QoS 1 to who is there and keeps no session.
fn goes_on_without_a_disk(node: &Node) {
    let mut there = Client::v5("there").with_clean_start();
    there.connect(node.mqtt);
    there.subscribe("live/#", QoS::AtLeastOnce);
    let mut speaker = Client::v5("speaker").with_clean_start();
    speaker.connect(node.mqtt);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        speaker.publish("live/a", "still here", qos);
        speaker.settle();
        assert_eq!(there.next().text(), "still here", "{qos:?}");
    }
}

/// A 3.1.1 client has its connection closed: there is no other way to refuse its PUBLISH.
fn closes_311(node: &Node) {
    let mut old = Client::v4("of-311").with_clean_start();
    old.connect(node.mqtt);
    old.publish("faults/1", "00000000:no", QoS::AtLeastOnce);
    until("the connection is closed", || {
        old.work(millis(20));
        !old.is_connected()
    });
}
