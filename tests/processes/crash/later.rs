//! Delayed messages: each that was acknowledged is published, and at QoS 2 once.

use std::net::SocketAddr;

use rand::RngExt as _;
use rand::rngs::StdRng;
use verge_mqtt_proto::QoS;

use super::{Phase, connect_or_wait, settle};
use crate::book::{Received, Sent};
use crate::client::Client;
use crate::time::{SOON, millis, now};

/// Longest delay, in seconds.
const DELAY_SECS_MAX: u32 = 4;

/// Publishes for later, and receives.
pub(super) fn run(at: SocketAddr, mut rng: StdRng, phase: &Phase) -> String {
    let (mut publisher, mut subscriber) = (Client::v5("postponer"), Client::v5("patient"));
    let mut is_subscribed = false;
    while !is_subscribed {
        connect_or_wait(&mut subscriber, at);
        is_subscribed = subscriber.is_connected()
            && subscriber.try_subscribe("later/#", QoS::ExactlyOnce).is_some();
    }
    let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce];
    let topics = qos.map(|qos| format!("later/qos{}", qos.bits()));
    let mut sent = Sent::from(topics.clone().map(|topic| (topic, 0)));
    let mut received = Received::default();
    let mut deadline = None;
    loop {
        connect_or_wait(&mut publisher, at);
        connect_or_wait(&mut subscriber, at);
        if phase.finishes() {
            if publisher.unacknowledged() == 0 && received.has_all(&sent) {
                break;
            }
            let deadline = *deadline.get_or_insert_with(|| now() + SOON);
            let missing = || received.against(&sent).to_string();
            assert!(now() < deadline, "delayed: {}", missing());
        } else if publisher.is_connected() && publisher.unacknowledged() < 8 {
            let which = rng.random_range(0..2);
            let last = sent.get_mut(&topics[which]).expect("both topics are there");
            *last += 1;
            let delay = rng.random_range(1..=DELAY_SECS_MAX);
            let topic = format!("$delayed/{delay}/{}", topics[which]);
            publisher.publish(&topic, &last.to_string(), qos[which]);
        }
        publisher.work(millis(5));
        subscriber.work(millis(5));
        while let Some(message) = subscriber.take() {
            received.add(&message);
        }
    }
    settle(&mut subscriber, at);
    for (topic, last) in &sent {
        let of_topic = Sent::from([(topic.clone(), *last)]);
        let difference = received.of(topic).against(&of_topic).without_order();
        // A QoS 1 publisher repeats what was taken over and not acknowledged.
        let once = topic.ends_with('2');
        let difference = if once { difference } else { difference.without_doubled() };
        difference.is_none("delayed");
    }
    format!("delayed: {sent:?}")
}
