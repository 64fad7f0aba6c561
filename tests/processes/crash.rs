//! A node that is killed again and again, while it serves and while it starts, beside clients that
//! know what was acknowledged to them.
//!
//! | who | what must hold |
//! |---|---|
//! | publishers and subscribers, some of which come and go or are away for long | nothing acknowledged is lost, nothing is doubled at QoS 2, each topic stays in order |
//! | [`group`]: members of a shared subscription | the same without order, among all of them |
//! | [`kept`]: retained messages, replaced and removed | what is retained is what was acknowledged last |
//! | [`later`]: delayed messages | each comes, at QoS 2 once |
//! | [`wills`]: clients that die, and some that return in time | the wills of the dead come once, the others' never |
//! | [`brief`]: messages and sessions that expire | expired messages do not come, expired sessions are gone |
//! | [`space`]: the store when all is settled | nothing is left of what nobody is owed |
//!
//! `VERGE_CRASH_SEED` replays the moments of a failing run as far as real time allows;
//! `VERGE_CRASH_KILLS` makes a longer one.

mod brief;
mod group;
mod kept;
mod later;
mod space;
mod wills;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use verge_mqtt_proto::QoS;

use crate::book::{Received, Sent};
use crate::client::Client;
use crate::node::Node;
use crate::site::Site;
use crate::time::{SOON, millis, now, pause};

/// Kills by default.
const KILLS: u64 = 12;

/// One life in so many ends as an operator ends it, which is no kill.
const ASKED_EVERY: u32 = 10;

/// One kill in so many hits a node that starts.
const STARTING_EVERY: u32 = 5;

/// Messages a publisher has under way at once, within the node's receive maximum.
const WINDOW: usize = 24;

/// Messages of a publisher in a second: some hundred kills later a session that was away all the
/// time is owed less than half of what a queue may hold.
const PUBLISHER_RATE: u128 = 400;

/// How long the slowest may take to say all that it was owed.
const DRAIN_WITHIN: Duration = Duration::from_secs(120);

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

/// How a subscriber is away.
#[derive(Clone, Copy, PartialEq)]
enum Absence {
    Never,
    /// For parts of a second, now and then.
    Short,
    /// For seconds, over several kills.
    Long,
    /// Until the end.
    Whole,
}

#[test]
fn no_acknowledged_message_is_lost_or_doubled_by_sigkill() {
    let seed = number("VERGE_CRASH_SEED").unwrap_or(7);
    let kills = number("VERGE_CRASH_KILLS").unwrap_or(KILLS);
    println!("VERGE_CRASH_SEED={seed} VERGE_CRASH_KILLS={kills}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut child = || StdRng::seed_from_u64(rng.random());
    let site = Site::new();
    // Small memtables, so that restarts happen in every state of the store's files.
    let mut node = site.node("mortal").with([
        "storage.write_buffer_bytes=262144",
        "queue.messages_max=1000000",
        "queue.bytes_max=1073741824",
    ]);
    node.start();
    let at = node.mqtt;

    let mut subscribers = Vec::new();
    for (name, qos) in [("s1", QoS::AtLeastOnce), ("s2", QoS::ExactlyOnce)] {
        let client = |what: &str| Client::v5(&format!("{name}-{what}"));
        subscribers.push((Client::v4(&format!("{name}-steady")), qos, Absence::Never));
        subscribers.push((client("coming-and-going"), qos, Absence::Short));
        subscribers.push((client("parked"), qos, Absence::Long));
        subscribers.push((client("away"), qos, Absence::Whole));
    }
    for (client, qos, _) in &mut subscribers {
        assert!(!client.connect(at));
        client.subscribe("crash/#", *qos);
    }

    let phase = Phase::default();
    let phase = &phase;
    thread::scope(|scope| {
        let mut members = group::members(at);
        let publishers: Vec<ScopedJoinHandle<'_, (String, u64)>> = (0..4)
            .map(|index| {
                let qos = if index % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
                scope.spawn(move || publish_until_told(at, index, qos, phase))
            })
            .collect();
        let readers: Vec<_> = subscribers
            .into_iter()
            .map(|(client, qos, absence)| {
                let rng = child();
                let read = move || receive_until_told(at, client, absence, rng, phase);
                (qos, scope.spawn(read))
            })
            .collect();
        let mut rng_of_group = child();
        let members =
            scope.spawn(move || group::receive(at, &mut members, &mut rng_of_group, phase));
        type Beside = fn(SocketAddr, StdRng, &Phase) -> String;
        let beside: [Beside; 4] = [kept::run, later::run, wills::run, brief::run];
        let beside = beside.map(|run| {
            let rng = child();
            scope.spawn(move || run(at, rng, phase))
        });

        let moments = child();
        kill_again_and_again(&mut node, kills, moments);
        phase.finish.store(true, Ordering::Release);
        let sent: Sent =
            publishers.into_iter().map(|thread| thread.join().expect("a publisher")).collect();
        println!("published and acknowledged: {sent:?}");
        assert!(sent.values().all(|count| *count > 0), "{sent:?}");
        for told in beside.map(|thread| thread.join().expect("what goes on beside")) {
            println!("{told}");
        }

        let deadline = now() + DRAIN_WITHIN;
        while now() < deadline && node.get("/api/v1/ledger")["held"] != 0 {
            pause(millis(50));
        }
        // What was acknowledged may be on its way through a socket.
        pause(millis(500));
        phase.end.store(true, Ordering::Release);
        let check = |name: &str, qos: QoS, received: &Received, ordered: bool| {
            for (topic, count) in &sent {
                let of_topic = Sent::from([(topic.clone(), *count)]);
                let difference = received.of(topic).against(&of_topic);
                // A QoS 1 publisher repeats what was taken over and not acknowledged.
                let once = qos == QoS::ExactlyOnce && topic.starts_with("crash/qos2");
                let difference = if once { difference } else { difference.without_doubled() };
                let difference = if ordered { difference } else { difference.without_order() };
                difference.is_none(name);
            }
        };
        for (qos, reader) in readers {
            let (name, received) = reader.join().expect("a subscriber");
            check(&name, qos, &received, true);
        }
        let received = members.join().expect("the members of the group");
        check("the group", QoS::ExactlyOnce, &received, false);
        let ledger = node.get("/api/v1/ledger");
        assert_eq!((&ledger["balance"], &ledger["held"]), (&0.into(), &0.into()), "{ledger}");
    });
    node.terminate();
    println!("{}", space::nothing_is_left(&site.path("mortal.data"), "mortal"));
}

/// Kills the node at moments of chance, also while it starts, and sometimes asks it to end.
fn kill_again_and_again(node: &mut Node, kills: u64, mut rng: StdRng) {
    let (mut killed, mut starting, mut asked) = (0, 0, 0);
    while killed < kills {
        pause(Duration::from_millis(rng.random_range(20..900)));
        if rng.random_ratio(1, ASKED_EVERY) {
            node.terminate();
            asked += 1;
        } else {
            node.kill();
            killed += 1;
        }
        pause(Duration::from_millis(rng.random_range(0..150)));
        if killed < kills && rng.random_ratio(1, STARTING_EVERY) {
            node.spawn();
            pause(Duration::from_millis(rng.random_range(0..120)));
            node.kill();
            killed += 1;
            starting += 1;
        }
        node.start();
        node.balances();
    }
    println!(
        "{killed} times killed, {starting} of them while starting; {asked} times asked to end"
    );
}

/// Publishes numbers in a topic of its own, and gives the topic and the last number: all of them
/// are acknowledged.
fn publish_until_told(at: SocketAddr, index: u64, qos: QoS, phase: &Phase) -> (String, u64) {
    let topic = format!("crash/qos{}/{index}", qos.bits());
    let name = format!("publisher-{index}");
    let mut client = if index < 2 { Client::v4(&name) } else { Client::v5(&name) };
    let (mut last, began) = (0, now());
    let mut deadline = None;
    loop {
        connect_or_wait(&mut client, at);
        let due = began.elapsed().as_millis() * PUBLISHER_RATE / 1_000;
        if phase.finishes() {
            if client.unacknowledged() == 0 {
                return (topic, last);
            }
            let deadline = *deadline.get_or_insert_with(|| now() + SOON);
            assert!(now() < deadline, "{topic}: {} unacknowledged", client.unacknowledged());
        } else {
            while client.is_connected()
                && client.unacknowledged() < WINDOW
                && u128::from(last) < due
            {
                last += 1;
                client.publish(&topic, &last.to_string(), qos);
            }
        }
        client.work(millis(1));
    }
}

/// Receives, and is away as told.
fn receive_until_told(
    at: SocketAddr,
    mut client: Client,
    absence: Absence,
    mut rng: StdRng,
    phase: &Phase,
) -> (String, Received) {
    let mut received = Received::default();
    if absence == Absence::Whole {
        client.disconnect();
        away(Duration::MAX, phase);
    }
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
        let (ratio, span) = match absence {
            Absence::Never | Absence::Whole => continue,
            Absence::Short => (40, 0..300),
            Absence::Long => (100, 1_000..6_000),
        };
        if !phase.finishes() && rng.random_ratio(1, ratio) {
            leave(&mut client, &mut rng);
            away(Duration::from_millis(rng.random_range(span)), phase);
        }
    }
    (client.id().to_owned(), received)
}

/// Waits, but not beyond the last kill.
fn away(span: Duration, phase: &Phase) {
    let began = now();
    while began.elapsed() < span && !phase.finishes() {
        pause(millis(5));
    }
}

/// Leaves, with or without a word.
fn leave(client: &mut Client, rng: &mut StdRng) {
    if rng.random() { client.disconnect() } else { client.vanish() }
}

/// Connects if it is not connected; a node that is down is waited for a moment.
fn connect_or_wait(client: &mut Client, at: SocketAddr) {
    if !client.is_connected() && client.try_connect(at).is_err() {
        pause(millis(10));
    }
}

/// Works until no exchange is under way, over as many connections as that takes.
fn settle(client: &mut Client, at: SocketAddr) {
    let deadline = now() + SOON;
    while !client.is_settled() {
        assert!(now() < deadline, "{}: {} unacknowledged", client.id(), client.unacknowledged());
        connect_or_wait(client, at);
        client.work(millis(5));
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}
