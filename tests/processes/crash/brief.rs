//! What expires: messages that a session was not there for in time do not come, and sessions whose
//! time is over are gone, with what they were owed.

use std::net::SocketAddr;

use rand::RngExt as _;
use rand::rngs::StdRng;
use verge_mqtt_proto::QoS;

use super::{Phase, connect_or_wait, settle};
use crate::book::{Received, Sent};
use crate::client::Client;
use crate::time::{SOON, millis, now, pause};

/// How long messages and sessions live, in seconds.
const LIFE_SECS: u32 = 1;

/// More than that, once nothing is killed any more.
const OVER_MILLIS: u64 = 5_000;

/// One publication in so many lasts.
const LASTING_EVERY: u32 = 5;

/// One turn in so many makes a session that will expire.
const SESSION_EVERY: u32 = 40;

/// Publishes for a session that is away, and makes sessions that nobody returns to in time.
pub(super) fn run(at: SocketAddr, mut rng: StdRng, phase: &Phase) -> String {
    let mut publisher = Client::v5("fleeting");
    let mut absent = Client::v5("absent");
    let mut is_subscribed = false;
    while !is_subscribed {
        connect_or_wait(&mut absent, at);
        is_subscribed =
            absent.is_connected() && absent.try_subscribe("brief/#", QoS::ExactlyOnce).is_some();
    }
    absent.disconnect();
    let (mut expiring, mut lasting, mut sessions) = (0_u64, 0_u64, 0_u64);
    while !phase.finishes() {
        connect_or_wait(&mut publisher, at);
        if publisher.is_connected() && publisher.unacknowledged() < 8 {
            let lasts = rng.random_ratio(1, LASTING_EVERY);
            publisher.message_expiry_secs = (!lasts).then_some(LIFE_SECS);
            let (topic, last) = match lasts {
                true => ("brief/lasting", &mut lasting),
                false => ("brief/expiring", &mut expiring),
            };
            *last += 1;
            publisher.publish(topic, &last.to_string(), QoS::ExactlyOnce);
        }
        publisher.work(millis(10));
        if rng.random_ratio(1, SESSION_EVERY) {
            let mut client = guest(sessions);
            sessions += 1;
            if client.try_connect(at).is_ok() {
                // It is owed what others publish, until it is gone.
                client.try_subscribe("crash/#", QoS::AtLeastOnce);
                super::leave(&mut client, &mut rng);
            }
        }
    }
    settle(&mut publisher, at);
    pause(millis(OVER_MILLIS));
    for number in 0..sessions {
        let mut client = guest(number);
        assert!(!client.connect(at), "{} has not expired", client.id());
        client.disconnect();
    }
    let sent = Sent::from([("brief/lasting".to_owned(), lasting)]);
    let mut received = Received::default();
    assert!(absent.connect(at), "the session is gone");
    let deadline = now() + SOON;
    while !received.has_all(&sent) {
        assert!(now() < deadline, "{}", received.against(&sent));
        absent.work(millis(20));
        while let Some(message) = absent.take() {
            received.add(&message);
        }
    }
    settle(&mut absent, at);
    received.against(&sent).is_none("what lasts, and nothing that has expired");
    format!(
        "expiry: {expiring} messages expired and {lasting} did not; {sessions} sessions expired"
    )
}

fn guest(number: u64) -> Client {
    let mut client = Client::v5(&format!("guest-{number}"));
    client.session_expiry_secs = LIFE_SECS;
    client
}
