//! Retained messages: what is retained is what was acknowledged last.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rand::RngExt as _;
use rand::rngs::StdRng;
use verge_mqtt_proto::QoS;

use super::{Phase, connect_or_wait, settle};
use crate::client::Client;
use crate::time::{SOON, millis, now};

/// Topics.
const TOPICS: u32 = 20;

/// One publication in so many removes what is retained.
const REMOVED_EVERY: u32 = 6;

/// What somebody looks at after so many publications.
const LOOKED_EVERY: u64 = 40;

/// Replaces and removes retained messages, and looks what there is.
pub(super) fn run(at: SocketAddr, mut rng: StdRng, phase: &Phase) -> String {
    let mut publisher = Client::v5("keeper");
    let mut state = BTreeMap::new();
    let (mut count, mut looks) = (0, 0);
    while !phase.finishes() {
        connect_or_wait(&mut publisher, at);
        if publisher.is_connected() && publisher.unacknowledged() < 8 {
            count += 1;
            let topic = format!("kept/{}", rng.random_range(0..TOPICS));
            let text = match rng.random_ratio(1, REMOVED_EVERY) {
                true => String::new(),
                false => format!("{count}"),
            };
            publisher.publish_with(&topic, &text, QoS::AtLeastOnce, true);
            match text.is_empty() {
                true => state.remove(&topic),
                false => state.insert(topic, text),
            };
            if count % LOOKED_EVERY == 0 {
                settle(&mut publisher, at);
                looks += 1;
                look(at, looks, &state);
            }
        }
        publisher.work(millis(5));
    }
    settle(&mut publisher, at);
    look(at, looks + 1, &state);
    format!("retained: {count} replaced or removed, looked at {} times", looks + 1)
}

/// Somebody new is sent exactly this.
fn look(at: SocketAddr, number: u64, state: &BTreeMap<String, String>) {
    let deadline = now() + SOON;
    for attempt in 0_u64.. {
        assert!(now() < deadline, "nobody could look");
        let mut looker = Client::v5(&format!("looker-{number}-{attempt}"));
        looker.session_expiry_secs = 0;
        connect_or_wait(&mut looker, at);
        let mut found = BTreeMap::new();
        if looker.is_connected() && looker.try_subscribe("kept/#", QoS::AtLeastOnce).is_some() {
            while looker.is_connected() && now() < deadline && found.len() < state.len() {
                looker.work(millis(20));
                collect(&mut looker, &mut found);
            }
            // What should not be there would come now.
            looker.work(millis(20));
            collect(&mut looker, &mut found);
        }
        if looker.is_connected() {
            assert_eq!(found, *state, "look {number}");
            return looker.disconnect();
        }
    }
}

fn collect(looker: &mut Client, found: &mut BTreeMap<String, String>) {
    while let Some(message) = looker.take() {
        assert!(message.retain, "{message:?}");
        let text = message.text().to_owned();
        found.insert(message.topic, text);
    }
}
