//! Sessions by the hundred thousand, as a road's vehicles have them, and what each more of them costs.

use verge_mqtt_proto::QoS;

use super::{Client, Rig, publish};

/// Subscriptions of each vehicle.
pub(crate) const SUBSCRIPTIONS: usize = 5;
/// Vehicles that want the same area.
const PER_AREA: usize = 50;

/// A node and its vehicles.
pub(crate) struct Fleet {
    rig: Rig,
    clients: Vec<Client>,
}

impl Fleet {
    /// Nobody yet, on two shards.
    pub(crate) fn new() -> Self {
        let mut rig = Rig::new(2);
        rig.give_back();
        Self { rig, clients: Vec::new() }
    }

    /// How many are connected.
    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Room for these many, so that the fleet's own list is not counted with the broker's memory.
    pub(crate) fn reserve(&mut self, count: usize) {
        self.clients.reserve_exact(count);
    }

    /// One more connects, to a session that lasts.
    pub(crate) fn connect(&mut self) {
        let client = self.rig.connect(&format!("vehicle-{}", self.clients.len()), false);
        self.clients.push(client);
    }

    /// A vehicle makes its subscriptions: orders and requests of its own, and its area's warnings.
    pub(crate) fn subscribe(&mut self, number: usize) {
        let client = self.clients[number];
        for filter in filters(number) {
            self.rig.subscribe(client, &filter, QoS::AtLeastOnce);
        }
    }

    /// A vehicle ends its subscriptions.
    pub(crate) fn unsubscribe(&mut self, number: usize) {
        let client = self.clients[number];
        for filter in filters(number) {
            self.rig.unsubscribe(client, &filter);
        }
    }

    /// An order for a vehicle, from another.
    pub(crate) fn order(&mut self, number: usize) {
        let from = self.clients[(number + 1) % self.clients.len()];
        let topic = format!("vehicle/{number}/order");
        let before = self.rig.bytes_out;
        self.rig.send(from, &publish(&topic, QoS::AtMostOnce, 0, &[0x2a; 64]));
        assert!(self.rig.bytes_out > before + 64, "the order arrived");
    }

    /// Subscriptions the router knows.
    pub(crate) fn subscriptions(&self) -> usize {
        self.rig.shared().router.subscription_count()
    }
}

fn filters(number: usize) -> [String; SUBSCRIPTIONS] {
    let area = number / PER_AREA;
    [
        format!("vehicle/{number}/order"),
        format!("vehicle/{number}/update"),
        format!("vehicle/{number}/request/+"),
        format!("area/{area}/warning/#"),
        format!("area/{area}/+/signal"),
    ]
}
