//! A session that follows its client from node to node.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use verge_mqtt_proto::QoS;

use crate::book::{Difference, Received, Sent};
use crate::client::Client;
use crate::node::{Node, linked, routed};
use crate::site::Site;
use crate::time::{SOON, millis, now, pause, until};

/// Changes of node in one drive.
const MOVES: usize = 20;

/// Commands that the operator has under way at once.
const WINDOW: usize = 16;

const COMMANDS: &str = "commands/vehicle";

/// Two nodes on the road, and the region's, which the operator is connected to.
struct Road {
    a: Node,
    b: Node,
    region: Node,
}

impl Road {
    fn new(site: &Site) -> Self {
        // An old owner lets go soon, so that the end of a handover is seen.
        let started = |node: Node| node.with(["handover.linger=1s"]).started();
        let region = started(site.mesh_node("region", "regional", &[]));
        let a = started(site.mesh_node("a", "rsu", &[&region]));
        let b = started(site.mesh_node("b", "rsu", &[&region]));
        linked(&[&a, &b, &region]);
        Self { a, b, region }
    }

    /// Waits until the session is at one node, with everything of the others.
    fn has_let_go(&self) {
        until("every log of the session is imported", || {
            let lists = [&self.a, &self.b].map(|node| node.list("sessions"));
            let sessions: Vec<_> = lists.iter().flatten().collect();
            sessions.len() == 1 && sessions[0]["open_fragments"] == 0
        });
    }

    /// Both nodes of the road together have counted this.
    fn sum_is(&self, metric: &str, wanted: u64) {
        let sum: u64 = [&self.a, &self.b].map(|node| node.metric(metric, "")).iter().sum();
        assert_eq!(sum, wanted, "{metric}");
    }

    fn balances(&self) {
        for node in [&self.a, &self.b, &self.region] {
            node.balances();
        }
    }
}

/// Sends numbered commands until it is told to finish, then waits until all are acknowledged.
fn operate(at: std::net::SocketAddr, finish: &AtomicBool) -> Sent {
    let mut operator = Client::v5("operator");
    operator.connect(at);
    let mut last = 0;
    while !finish.load(Ordering::Acquire) {
        if operator.unacknowledged() < WINDOW {
            last += 1;
            operator.publish(COMMANDS, &last.to_string(), QoS::ExactlyOnce);
        }
        operator.work(millis(3));
        assert!(operator.is_connected(), "the operator's node stays");
    }
    operator.settle();
    Sent::from([(COMMANDS.to_owned(), last)])
}

/// A drive: what the vehicle got, against what was sent.
fn drive(
    road: &mut Road,
    vehicle: &mut Client,
    along: impl FnOnce(&mut Road, &mut Client, &mut Received),
) -> Difference {
    let finish = AtomicBool::new(false);
    let mut received = Received::default();
    let operator = road.region.mqtt;
    let sent = thread::scope(|scope| {
        let operator = scope.spawn(|| operate(operator, &finish));
        along(road, vehicle, &mut received);
        finish.store(true, Ordering::Release);
        operator.join().expect("an operator")
    });
    let deadline = now() + SOON;
    while !received.has_all(&sent) && now() < deadline {
        receive(vehicle, &mut received, 50);
    }
    // What should not come has time to.
    receive(vehicle, &mut received, 500);
    println!("{sent:?}");
    received.against(&sent)
}

/// Receives until nothing has come for some time.
fn receive(vehicle: &mut Client, received: &mut Received, idle_millis: u64) {
    let end = now() + millis(idle_millis);
    while now() < end {
        vehicle.work(millis(5));
        while let Some(message) = vehicle.take() {
            received.add(&message);
        }
    }
}

fn roam(mut vehicle: Client) {
    let site = Site::new();
    let mut road = Road::new(&site);
    assert!(!vehicle.connect(road.a.mqtt));
    vehicle.subscribe("commands/#", QoS::ExactlyOnce);
    routed(&road.region, "commands/#", &road.a);
    let difference = drive(&mut road, &mut vehicle, |road, vehicle, received| {
        for number in 0..MOVES {
            receive(vehicle, received, 120);
            match number % 4 {
                // The old node hears of it from the new one.
                0 | 1 => {}
                2 => vehicle.disconnect(),
                _ => {
                    vehicle.vanish();
                    pause(millis(200));
                }
            }
            let next = if number % 2 == 0 { &road.b } else { &road.a };
            assert!(vehicle.connect(next.mqtt), "move {number}: session present");
        }
    });
    difference.is_none("the vehicle");
    road.sum_is("verge_handover_started_sessions_total", MOVES as u64);
    road.sum_is("verge_handover_given_sessions_total", MOVES as u64);
    road.has_let_go();
    road.balances();
}

#[test]
fn commands_follow_a_roaming_vehicle_of_3_1_1() {
    roam(Client::v4("vehicle"));
}

#[test]
fn commands_follow_a_roaming_vehicle_of_5_0() {
    roam(Client::v5("vehicle"));
}

#[test]
fn nothing_is_lost_or_doubled_when_the_owner_is_killed_and_comes_back() {
    let site = Site::new();
    let mut road = Road::new(&site);
    let mut vehicle = Client::v5("vehicle");
    vehicle.connect(road.a.mqtt);
    vehicle.subscribe("commands/#", QoS::ExactlyOnce);
    routed(&road.region, "commands/#", &road.a);
    let difference = drive(&mut road, &mut vehicle, |road, vehicle, received| {
        for _ in 0..2 {
            receive(vehicle, received, 300);
            // Commands gather at the owner, so that it has something to lose.
            vehicle.vanish();
            pause(millis(300));
            road.a.kill();
            assert!(vehicle.connect(road.b.mqtt), "the session is served without its owner");
            receive(vehicle, received, 700);
            road.a.start();
            receive(vehicle, received, 1_500);
            assert!(vehicle.connect(road.a.mqtt), "and goes back to it");
        }
    });
    // Two logs are merged, and that from before is late.
    difference.without_order().is_none("the vehicle");
    until("every log of the session is imported", || {
        [&road.a, &road.b]
            .iter()
            .all(|node| node.list("sessions").iter().all(|session| session["open_fragments"] == 0))
    });
    road.balances();
}

#[test]
fn a_parked_session_waits_where_it_was_and_is_fetched_with_its_queue() {
    let site = Site::new();
    let mut road = Road::new(&site);
    let mut vehicle = Client::v4("vehicle");
    vehicle.connect(road.a.mqtt);
    vehicle.subscribe("commands/#", QoS::ExactlyOnce);
    vehicle.disconnect();
    routed(&road.region, "commands/#", &road.a);
    let difference = drive(&mut road, &mut vehicle, |road, vehicle, received| {
        pause(millis(1_500));
        road.a.kill();
        road.a.start();
        linked(&[&road.a, &road.b, &road.region]);
        assert!(vehicle.connect(road.b.mqtt));
        receive(vehicle, received, 500);
    });
    difference.is_none("the vehicle");
    road.balances();
}

/// `VERGE_ROAD_SEED` replays, as far as real time allows.
#[test]
fn nothing_is_lost_whichever_node_of_the_road_is_killed_when() {
    let seed = std::env::var("VERGE_ROAD_SEED").map_or(3, |text| text.parse().expect("a number"));
    println!("VERGE_ROAD_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let site = Site::new();
    let mut road = Road::new(&site);
    let mut vehicle = Client::v5("vehicle");
    vehicle.connect(road.a.mqtt);
    vehicle.subscribe("commands/#", QoS::ExactlyOnce);
    routed(&road.region, "commands/#", &road.a);
    let difference = drive(&mut road, &mut vehicle, |road, vehicle, received| {
        for _ in 0..6 {
            receive(vehicle, received, rng.random_range(0..400));
            let (victim, other) =
                if rng.random() { (&mut road.a, &road.b) } else { (&mut road.b, &road.a) };
            println!("{} is killed, {}", victim.name, received.last());
            victim.kill();
            // So that it notices if that was its node.
            vehicle.work(millis(5));
            if rng.random() || !vehicle.is_connected() {
                assert!(vehicle.connect(other.mqtt), "the session is served where it can be");
                receive(vehicle, received, rng.random_range(0..400));
                println!("at {}, {}", other.name, received.last());
            }
            victim.start();
            if rng.random() || !vehicle.is_connected() {
                println!("to {}, {}", victim.name, received.last());
                assert!(vehicle.connect(victim.mqtt), "the session is served where it was");
            }
        }
    });
    // Several logs are merged. What only a dead node knows to be delivered comes again, if the
    // vehicle goes back to a node that was dead before and had the message too.
    difference.without_order().without_doubled().is_none("the vehicle");
    road.has_let_go();
    road.balances();
}
