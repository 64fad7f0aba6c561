//! A node that is killed again and again while clients publish and subscribe.
//!
//! `VERGE_CRASH_SEED` replays the moments of a failing run as far as real time allows;
//! `VERGE_CRASH_KILLS` makes a longer one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use verge_mqtt_proto::QoS;

use crate::book::{Received, Sent};
use crate::client::Client;
use crate::site::Site;
use crate::time::{SOON, millis, now, pause};

/// Kills by default.
const KILLS: u64 = 12;

/// Messages a publisher has under way at once, within the node's receive maximum.
const WINDOW: usize = 24;

/// What the clients are to do.
#[derive(Default)]
struct Phase {
    /// No new messages; those under way are finished.
    finish: AtomicBool,
    /// The end, whatever is missing.
    end: AtomicBool,
}

impl Phase {
    fn finishes(&self) -> bool {
        self.finish.load(Ordering::Acquire)
    }

    fn ended(&self) -> bool {
        self.end.load(Ordering::Acquire)
    }
}

#[test]
fn no_acknowledged_message_is_lost_or_doubled_by_sigkill() {
    let seed = number("VERGE_CRASH_SEED").unwrap_or(7);
    let kills = number("VERGE_CRASH_KILLS").unwrap_or(KILLS);
    println!("VERGE_CRASH_SEED={seed} VERGE_CRASH_KILLS={kills}");
    let mut rng = StdRng::seed_from_u64(seed);
    let site = Site::new();
    // So that restarts happen in every state of the store's files.
    let mut node = site.node("mortal").with(["storage.write_buffer_bytes=262144"]).started();
    let at = node.mqtt;

    let mut subscribers = Vec::new();
    for (name, qos) in [("s1", QoS::AtLeastOnce), ("s2", QoS::ExactlyOnce)] {
        subscribers.push((Client::v4(&format!("{name}-steady")), qos, false));
        subscribers.push((Client::v5(&format!("{name}-coming-and-going")), qos, true));
    }
    for (client, qos, _) in &mut subscribers {
        assert!(!client.connect(at));
        client.subscribe("crash/#", *qos);
    }

    let phase = Phase::default();
    let phase = &phase;
    thread::scope(|scope| {
        let publishers: Vec<ScopedJoinHandle<'_, (String, u64)>> = (0..4)
            .map(|index| {
                let qos = if index % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
                scope.spawn(move || publish_until_told(at, index, qos, phase))
            })
            .collect();
        let readers: Vec<_> = subscribers
            .into_iter()
            .map(|(client, qos, goes)| {
                let rng = StdRng::seed_from_u64(rng.random());
                let reader = scope.spawn(move || receive_until_told(at, client, goes, rng, phase));
                (qos, reader)
            })
            .collect();

        for _ in 0..kills {
            pause(Duration::from_millis(rng.random_range(20..900)));
            node.kill();
            pause(Duration::from_millis(rng.random_range(0..150)));
            node.start();
            node.balances();
        }
        phase.finish.store(true, Ordering::Release);
        let sent: Sent =
            publishers.into_iter().map(|thread| thread.join().expect("a publisher")).collect();
        println!("published and acknowledged: {sent:?}");
        assert!(sent.values().all(|count| *count > 0), "{sent:?}");

        let deadline = now() + SOON;
        while now() < deadline && node.get("/api/v1/ledger")["held"] != 0 {
            pause(millis(50));
        }
        // What was acknowledged may be on its way through a socket.
        pause(millis(500));
        phase.end.store(true, Ordering::Release);
        for (qos, reader) in readers {
            let (name, received) = reader.join().expect("a subscriber");
            for (topic, count) in &sent {
                let of_topic = Sent::from([(topic.clone(), *count)]);
                let difference = received.of(topic).against(&of_topic);
                // A QoS 1 publisher repeats what was taken over and not acknowledged.
                let once = qos == QoS::ExactlyOnce && topic.starts_with("crash/qos2");
                let difference = if once { difference } else { difference.without_doubled() };
                difference.is_none(&name);
            }
        }
        let ledger = node.get("/api/v1/ledger");
        assert_eq!((&ledger["balance"], &ledger["held"]), (&0.into(), &0.into()), "{ledger}");
    });
}

/// Publishes numbers in a topic of its own, and gives the topic and the last number: all of them
/// are acknowledged.
fn publish_until_told(at: SocketAddr, index: u64, qos: QoS, phase: &Phase) -> (String, u64) {
    let topic = format!("crash/qos{}/{index}", qos.bits());
    let name = format!("publisher-{index}");
    let mut client = if index < 2 { Client::v4(&name) } else { Client::v5(&name) };
    let mut last = 0;
    let mut deadline = None;
    loop {
        if !client.is_connected() && client.try_connect(at).is_err() {
            pause(millis(10));
        }
        if phase.finishes() {
            if client.unacknowledged() == 0 {
                return (topic, last);
            }
            let deadline = *deadline.get_or_insert_with(|| now() + SOON);
            assert!(now() < deadline, "{topic}: {} unacknowledged", client.unacknowledged());
        } else if client.is_connected() && client.unacknowledged() < WINDOW {
            last += 1;
            client.publish(&topic, &last.to_string(), qos);
        }
        client.work(millis(1));
    }
}

/// Receives; one that `goes` leaves now and then, with or without a word.
fn receive_until_told(
    at: SocketAddr,
    mut client: Client,
    goes: bool,
    mut rng: StdRng,
    phase: &Phase,
) -> (String, Received) {
    let mut received = Received::default();
    while !phase.ended() {
        if !client.is_connected() {
            match client.try_connect(at) {
                Ok(present) => assert!(present, "{}: the session is gone", client.id()),
                Err(_) => pause(millis(10)),
            }
        }
        client.work(millis(5));
        while let Some(message) = client.take() {
            received.add(&message);
        }
        if goes && !phase.finishes() && rng.random_ratio(1, 40) {
            if rng.random() {
                client.disconnect()
            } else {
                client.vanish()
            }
            pause(Duration::from_millis(rng.random_range(0..300)));
        }
    }
    (client.id().to_owned(), received)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}
