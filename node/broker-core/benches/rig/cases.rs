//! What a PUBLISH causes, by QoS and by the number of those who want it: one case is a node with its
//! clients, and a step that can be repeated for ever.

use verge_mqtt_proto::QoS;

use super::{Client, Rig, publish};

/// A node, a publisher, and what the publisher sends again and again.
pub(crate) struct Case {
    rig: Rig,
    publisher: Client,
    packets: Vec<u8>,
    /// Messages published by one step.
    pub(crate) messages: u64,
    /// Deliveries caused by one step.
    pub(crate) deliveries: u64,
}

/// Payload bytes of a message: what a vehicle's position takes.
const PAYLOAD_BYTES: usize = 64;

/// Messages that arrive in one read.
pub(crate) const BATCH: u16 = 16;

impl Case {
    /// Subscribers of one topic, and a publisher to it; one message a step.
    pub(crate) fn fan_out(shards: u16, subscribers: usize, qos: QoS) -> Self {
        Self::new(shards, subscribers, qos, 1)
    }

    /// One subscriber; [`BATCH`] messages arrive in one read, as under load.
    pub(crate) fn batch(shards: u16, qos: QoS) -> Self {
        Self::new(shards, 1, qos, BATCH)
    }

    fn new(shards: u16, subscribers: usize, qos: QoS, batch: u16) -> Self {
        let mut rig = Rig::new(shards);
        let topic = "region/v2x/cam/17";
        for number in 0..subscribers {
            let client = rig.connect(&format!("subscriber-{number}"), true);
            rig.subscribe(client, topic, qos);
        }
        let publisher = rig.connect("publisher", true);
        if qos != QoS::AtMostOnce {
            rig.read_deliveries();
        }
        let one = |number| publish(topic, qos, number, &[0x2a; PAYLOAD_BYTES]);
        let packets: Vec<u8> = (1..=batch).flat_map(one).collect();
        let messages = u64::from(batch);
        let deliveries = messages * subscribers as u64;
        Self { rig, publisher, packets, messages, deliveries }
    }

    /// The messages in, their deliveries out, and every acknowledgement.
    pub(crate) fn step(&mut self) {
        self.rig.send(self.publisher, &self.packets);
        self.rig.acknowledge();
    }

    /// Whether steps do what is measured: everything is delivered, nothing is left behind.
    pub(crate) fn check(&mut self) {
        let before = self.rig.bytes_out;
        self.step();
        let each = (self.packets.len() as u64 / self.messages) * self.deliveries;
        assert!(self.rig.bytes_out - before >= each, "{} bytes", self.rig.bytes_out - before);
    }
}
