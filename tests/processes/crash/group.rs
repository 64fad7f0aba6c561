//! Members of a shared subscription that come and go: among them, nothing is lost, and nothing
//! doubled at QoS 2.

use std::net::SocketAddr;

use rand::RngExt as _;
use rand::rngs::StdRng;
use verge_mqtt_proto::QoS;

use super::{Phase, connect_or_wait, leave};
use crate::book::Received;
use crate::client::Client;
use crate::time::{millis, now};

/// Members, which are connected and subscribed.
pub(super) fn members(at: SocketAddr) -> Vec<Client> {
    let names = ["one", "two", "three"];
    let member = |name: &str| {
        let mut client = Client::v5(&format!("member-{name}"));
        assert!(!client.connect(at));
        client.subscribe("$share/group/crash/#", QoS::ExactlyOnce);
        client
    };
    names.map(member).into()
}

/// Receives what comes to any of them.
pub(super) fn receive(
    at: SocketAddr,
    members: &mut [Client],
    rng: &mut StdRng,
    phase: &Phase,
) -> Received {
    let mut received = Received::default();
    let mut back = vec![now(); members.len()];
    while !phase.ended() {
        for (client, back) in members.iter_mut().zip(&mut back) {
            if now() < *back && !phase.finishes() {
                continue;
            }
            connect_or_wait(client, at);
            client.work(millis(2));
            while let Some(message) = client.take() {
                received.add(&message);
            }
            if !phase.finishes() && rng.random_ratio(1, 60) {
                leave(client, rng);
                *back = now() + millis(rng.random_range(0..2_000));
            }
        }
    }
    received
}
