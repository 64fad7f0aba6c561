//! Families of scenarios: what a seed makes happen.

use rand::RngExt as _;
use verge_mesh_proto::LinkKind;
use verge_mqtt_proto::{ProtocolVersion, QoS};

use crate::invariants;
use crate::world::{Act, MS, SECOND, World};

/// How long a mesh may take to form.
const FORMING_MAX: u64 = 30 * SECOND;

/// How long trouble lasts.
const TROUBLE: u64 = 20 * SECOND;

/// How long a pair that is cut off cannot talk, in milliseconds.
const SHORT: std::ops::Range<u64> = 100..4_000;
const LONG: std::ops::Range<u64> = 6_000..20_000;

/// How long a mesh may take to settle once trouble is over: some rounds of the slowest back-off,
/// the linger of old routes, and the time for which messages are remembered after it.
const SETTLING_MAX: u64 = 180 * SECOND;

/// What kind of trouble there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Vehicles roam between nodes that are well.
    Alive,
    /// Nodes crash and come back, in the midst of handovers too.
    Crash,
    /// Links are cut and heal, in the midst of handovers too.
    Cut,
    /// Vehicles change their mind faster than handovers finish.
    PingPong,
    /// Nobody roams; senders, receivers and links fail.
    Forward,
    /// Publishers roam.
    Publisher,
    /// Links are cut for longer than old routes are kept for their own sake.
    Severed,
}

impl Family {
    /// Every family.
    pub(crate) const ALL: [Self; 7] = [
        Self::Alive,
        Self::Crash,
        Self::Cut,
        Self::PingPong,
        Self::Forward,
        Self::Publisher,
        Self::Severed,
    ];

    /// Whether only clients cause trouble.
    pub(crate) fn is_fault_free(self) -> bool {
        match self {
            Self::Alive | Self::PingPong | Self::Publisher => true,
            Self::Crash | Self::Cut | Self::Forward | Self::Severed => false,
        }
    }
}

/// Runs a seed of a family to its end. The world that comes back has been judged.
pub(crate) fn run(family: Family, seed: u64) -> World {
    let mut world = World::new(seed, 0);
    let nodes = world.rng.random_range(3..=4);
    world = World::new(seed ^ 0x5bd1_e995, nodes);
    let cast = Cast::enter(&mut world, family);
    let end = world.now + FORMING_MAX;
    let formed = world.run_while(end, |world| {
        world.clients.iter().any(|client| !client.up || !client.subscribed)
            || world.links() < nodes * (nodes - 1)
            || invariants::routes_differ(world).is_some()
    });
    if !formed {
        let why = invariants::routes_differ(&mut world).unwrap_or_else(|| "somebody waits".into());
        world.oracle.fail("a mesh forms", why);
        return world;
    }
    for client in 0..world.clients.len() {
        let name = world.clients[client].name.clone();
        let now = world.now;
        world.oracle.counts_from(&name, now);
    }
    cast.plan(&mut world, family);
    let end = world.now + TROUBLE;
    world.run_until(end);
    world.heal();
    let end = world.now + SETTLING_MAX;
    let settled = world.run_while(end, |world| invariants::unsettled(world).is_some());
    if settled {
        invariants::judge(&mut world, family);
    } else if let Some(why) = invariants::unsettled(&mut world) {
        world.oracle.fail("a mesh settles", why);
    }
    world
}

/// Who takes part.
struct Cast {
    operator: usize,
    others: Vec<usize>,
    vehicles: Vec<usize>,
}

impl Cast {
    fn enter(world: &mut World, family: Family) -> Self {
        let nodes = world.nodes.len();
        let version = |world: &mut World| {
            if world.rng.random() { ProtocolVersion::V5 } else { ProtocolVersion::V4 }
        };
        let spoken = version(world);
        let operator = world.add_client("operator", spoken, &[], 0);
        let mut others = Vec::new();
        let count = if family == Family::Publisher { 2 } else { 1 };
        for number in 0..count {
            let (spoken, node) = (version(world), world.rng.random_range(1..nodes));
            others.push(world.add_client(&format!("app-{number}"), spoken, &[], node));
        }
        let mut vehicles = Vec::new();
        for number in 0..world.rng.random_range(2..=3) {
            let name = format!("v{number}");
            let command = format!("cmd/{name}");
            let wants = [(command.as_str(), QoS::ExactlyOnce), ("denm/#", QoS::AtLeastOnce)];
            let (spoken, node) = (version(world), world.rng.random_range(0..nodes));
            vehicles.push(world.add_client(&name, spoken, &wants, node));
        }
        Self { operator, others, vehicles }
    }

    fn plan(&self, world: &mut World, family: Family) {
        self.messages(world);
        match family {
            Family::Alive => self.roam(world, 2_000..6_000),
            Family::PingPong => self.roam(world, 20..900),
            Family::Crash => {
                self.roam(world, 1_000..5_000);
                crashes(world);
            }
            Family::Cut => {
                self.roam(world, 1_000..5_000);
                cuts(world, SHORT);
            }
            Family::Severed => {
                self.roam(world, 1_000..5_000);
                cuts(world, LONG);
            }
            Family::Forward => {
                crashes(world);
                cuts(world, SHORT);
            }
            Family::Publisher => {
                self.roam(world, 3_000..8_000);
                self.publishers_roam(world);
            }
        }
    }

    /// Numbered commands for each vehicle, and warnings for all.
    fn messages(&self, world: &mut World) {
        for vehicle in self.vehicles.clone() {
            let topic = format!("cmd/{}", world.clients[vehicle].name);
            for _ in 0..world.rng.random_range(10..25) {
                let at = world.now + world.rng.random_range(0..TROUBLE);
                let qos =
                    if world.rng.random_bool(0.8) { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
                let topic = topic.clone();
                world.plan(at, Act::Publish { client: self.operator, topic, qos });
            }
        }
        for client in self.others.clone() {
            for _ in 0..world.rng.random_range(5..20) {
                let at = world.now + world.rng.random_range(0..TROUBLE);
                let topic = format!("denm/{}", world.rng.random_range(0..2));
                let qos = if world.rng.random() { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
                world.plan(at, Act::Publish { client, topic, qos });
            }
        }
    }

    /// Every vehicle moves every so many milliseconds, sometimes by way of nowhere.
    fn roam(&self, world: &mut World, every: std::ops::Range<u64>) {
        for client in self.vehicles.clone() {
            let mut at = world.now;
            loop {
                at += world.rng.random_range(every.clone()) * MS;
                if at > world.now + TROUBLE {
                    break;
                }
                let polite = world.rng.random_bool(0.3);
                let to = world.rng.random_range(0..world.nodes.len());
                if world.rng.random_bool(0.15) {
                    world.plan(at, Act::Park { client, polite });
                } else {
                    world.plan(at, Act::Roam { client, to, polite });
                }
            }
        }
    }

    fn publishers_roam(&self, world: &mut World) {
        for client in self.others.iter().copied().chain([self.operator]) {
            let mut at = world.now;
            loop {
                at += world.rng.random_range(500..4_000) * MS;
                if at > world.now + TROUBLE {
                    break;
                }
                let polite = world.rng.random_bool(0.3);
                let to = world.rng.random_range(0..world.nodes.len());
                world.plan(at, Act::Roam { client, to, polite });
            }
        }
    }
}

fn crashes(world: &mut World) {
    for _ in 0..world.rng.random_range(1..=5) {
        let at = world.now + world.rng.random_range(0..TROUBLE);
        let node = world.rng.random_range(0..world.nodes.len());
        let down = world.rng.random_range(50..6_000) * MS;
        world.plan(at, Act::Crash { node, down });
    }
}

fn cuts(world: &mut World, lengths: std::ops::Range<u64>) {
    let nodes = world.nodes.len();
    for _ in 0..world.rng.random_range(2..=8) {
        let at = world.now + world.rng.random_range(0..TROUBLE);
        let a = world.rng.random_range(0..nodes);
        let b = (a + world.rng.random_range(1..nodes)) % nodes;
        let kind = LinkKind::ALL[world.rng.random_range(0..2)];
        if world.rng.random_bool(0.4) {
            world.plan(at, Act::Break { a, b, kind });
            continue;
        }
        let kinds = if world.rng.random_bool(0.7) { LinkKind::ALL.to_vec() } else { vec![kind] };
        let down = world.rng.random_range(lengths.clone()) * MS;
        world.plan(at, Act::Cut { a, b, kinds, down });
    }
}
