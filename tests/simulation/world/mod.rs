//! Nodes, network, disks, clients and time, from one seed.
//!
//! Time is virtual, in microseconds; whatever happens next happens next. A node's threads are
//! driven as production drives them: what has arrived is taken in, the turn is ended, outputs are
//! done in order. Batches wait in the writer's queue and are committed in groups; a process that
//! dies takes the queue with it.

pub(crate) mod honest;
pub(crate) mod network;
pub(crate) mod node;
mod run;

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use verge_broker_core::shard::api::ConnId;
use verge_broker_core::shard::api::ShardIndex;
use verge_mesh_proto::{Lane, LinkKind};
use verge_model::{ClientKey, Millis, NodeId, Now, Role, UnixMillis};
use verge_mqtt_proto::{ProtocolVersion, QoS};
use verge_storage::memory::MemoryDisk;

use self::network::Network;
use self::node::{HubIn, Node, ShardIn, Thread, addr};
use crate::client::Client;
use crate::oracle::Oracle;

/// A millisecond of virtual time.
pub(crate) const MS: u64 = 1_000;
/// A second.
pub(crate) const SECOND: u64 = 1_000 * MS;

/// How long a client waits for its CONNACK.
const CONNACK_WAIT: u64 = 10 * SECOND;

/// Everything there is.
pub(crate) struct World {
    /// Virtual time.
    pub(crate) now: u64,
    /// Chance.
    pub(crate) rng: StdRng,
    /// The nodes.
    pub(crate) nodes: Vec<Node>,
    /// The network between them.
    pub(crate) network: Network,
    /// The clients.
    pub(crate) clients: Vec<Client>,
    /// The judge.
    pub(crate) oracle: Oracle,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    wires: BTreeMap<u64, Wire>,
    next_conn: u64,
    /// How long a client takes to answer, at most.
    pub(crate) think: u64,
    /// Events that happened.
    pub(crate) steps: u64,
    /// How often a node that ended had served a session without its owner's word.
    unreachable: u64,
}

/// A client's connection.
struct Wire {
    client: usize,
    node: usize,
    life: u64,
    shard: usize,
    /// The last arrival in each direction: what is sent in order arrives in order.
    up_until: u64,
    down_until: u64,
    /// Whether each end still listens.
    client_open: bool,
    node_open: bool,
}

enum Event {
    /// A thread of a node has something to do.
    Wake {
        node: usize,
        life: u64,
        thread: Thread,
    },
    /// The writer commits what waits.
    Write {
        node: usize,
        life: u64,
    },
    /// A dial arrives.
    Dial {
        from: usize,
        to: usize,
        kind: LinkKind,
    },
    Hello {
        from: usize,
        to: usize,
        kind: LinkKind,
        link: u64,
        frame: Bytes,
    },
    Frame {
        from: usize,
        to: usize,
        lane: Lane,
        link: u64,
        frame: Bytes,
    },
    Datagram {
        from: usize,
        to: usize,
        bytes: Bytes,
    },
    /// A client's connection reaches a node.
    Accept {
        conn: u64,
    },
    /// Bytes reach a node.
    Up {
        conn: u64,
        bytes: Bytes,
    },
    /// The client's end closed.
    UpClosed {
        conn: u64,
    },
    /// Bytes reach a client.
    Down {
        conn: u64,
        bytes: Bytes,
    },
    /// The node's end closed.
    DownClosed {
        conn: u64,
    },
    /// A client tries to connect.
    Try {
        client: usize,
    },
    /// A node starts.
    Boot {
        node: usize,
    },
    /// What a scenario has planned.
    Act(Act),
}

/// What a scenario does to the world.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// A client goes to a node: politely, or as a radio link ends.
    Roam { client: usize, to: usize, polite: bool },
    /// A client goes away and stays away until it roams.
    Park { client: usize, polite: bool },
    /// A client is given a message.
    Publish { client: usize, topic: String, qos: QoS },
    /// A node's process is killed, and starts again after a while.
    Crash { node: usize, down: u64 },
    /// A pair cannot talk on these links for a while.
    Cut { a: usize, b: usize, kinds: Vec<LinkKind>, down: u64 },
    /// A pair's links break and may come again at once.
    Break { a: usize, b: usize, kind: LinkKind },
    /// A pair can talk again.
    Heal { a: usize, b: usize },
}

impl World {
    /// A mesh of a regional node and `nodes - 1` roadside units.
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let nodes = (0..nodes)
            .map(|index| {
                let name = if index == 0 { "regional".into() } else { format!("rsu-{index}") };
                Node {
                    id: name.parse::<NodeId>().expect("names are labels"),
                    role: if index == 0 { Role::Regional } else { Role::Rsu },
                    join: if index == 0 { vec![] } else { vec![addr(0)] },
                    shards: rng.random_range(1..=2),
                    disk: MemoryDisk::default(),
                    log_id: rng.random(),
                    process: None,
                    life: 0,
                }
            })
            .collect();
        let mut world = Self {
            now: SECOND,
            rng,
            nodes,
            network: Network::losing(0.03),
            clients: Vec::new(),
            oracle: Oracle::default(),
            events: BTreeMap::new(),
            next_event: 0,
            wires: BTreeMap::new(),
            next_conn: 0,
            think: 10 * MS,
            steps: 0,
            unreachable: 0,
        };
        for node in 0..world.nodes.len() {
            world.boot(node);
        }
        world
    }

    /// Adds a client, which connects.
    pub(crate) fn add_client(
        &mut self,
        name: &str,
        version: ProtocolVersion,
        wants: &[(&str, QoS)],
        node: usize,
    ) -> usize {
        let wants: Vec<_> = wants.iter().map(|(filter, qos)| ((*filter).into(), *qos)).collect();
        self.oracle.add(name, &wants);
        self.clients.push(Client::new(name, version, wants, node));
        let client = self.clients.len() - 1;
        self.at(0, Event::Try { client });
        client
    }

    /// Plans an act.
    pub(crate) fn plan(&mut self, at: u64, act: Act) {
        let delay = at.saturating_sub(self.now);
        self.at(delay, Event::Act(act));
    }

    /// Lets everything happen that happens until `end`.
    pub(crate) fn run_until(&mut self, end: u64) {
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > end || !self.oracle.failures.is_empty() {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = self.now.max(at);
            self.steps += 1;
            self.happen(event);
        }
        self.now = end;
    }

    /// Runs until something holds, at most until `end`; whether it does.
    pub(crate) fn run_while(&mut self, end: u64, mut going: impl FnMut(&mut Self) -> bool) -> bool {
        while going(self) {
            if self.now >= end || !self.oracle.failures.is_empty() {
                return false;
            }
            self.run_until((self.now + 100 * MS).min(end));
        }
        true
    }

    /// Both clocks of the nodes, which all agree.
    pub(crate) fn clock(&self) -> Now {
        let millis = self.now / MS;
        Now { mono: Millis(millis), wall: UnixMillis(1_700_000_000_000 + millis) }
    }

    /// Ends all trouble: pairs can talk, nodes run, clients want to be connected.
    pub(crate) fn heal(&mut self) {
        let all = self.nodes.len();
        for a in 0..all {
            for b in a + 1..all {
                self.network.heal(a, b);
            }
        }
        for node in 0..all {
            if self.nodes[node].process.is_none() {
                self.boot(node);
            }
        }
        for client in 0..self.clients.len() {
            self.clients[client].online = true;
            self.at(0, Event::Try { client });
        }
        self.note(format_args!("healed"));
    }

    /// Established links, each seen from both its ends, of the kind that carries routes.
    pub(crate) fn links(&self) -> usize {
        let fast = |peer: &verge_mesh_proto::PeerSnapshot| peer.fast && peer.bulk;
        let of =
            |process: &node::Process| process.hub.core().peers().iter().filter(|p| fast(p)).count();
        self.nodes.iter().filter_map(|node| node.process.as_ref()).map(of).sum()
    }

    /// How often a session was served from what is replicated, since its owner did not answer.
    pub(crate) fn served_without_owner(&self) -> u64 {
        self.nodes.iter().map(Node::served_without_owner).sum::<u64>() + self.unreachable
    }

    fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.oracle.note(self.now, what);
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now + delay, self.next_event), event);
    }

    fn chance(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.rng.random_range(range)
    }

    fn boot(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            return;
        }
        let (now, seed) = (self.clock(), self.rng.random());
        self.nodes[node].boot(node, now, seed);
        self.note(format_args!("{} starts", self.nodes[node].id.clone()));
        for shard in 0..usize::from(self.nodes[node].shards) {
            self.wake(node, Thread::Shard(shard), 0);
        }
        self.wake(node, Thread::Hub, 0);
    }

    fn crash(&mut self, node: usize) {
        if self.nodes[node].process.is_none() {
            return;
        }
        self.note(format_args!("{} is killed", self.nodes[node].id.clone()));
        self.unreachable += self.nodes[node].served_without_owner();
        self.nodes[node].kill();
        for (peer, kind) in self.network.links_of(node) {
            self.part(node, peer, kind);
        }
        let served: Vec<u64> = self
            .wires
            .iter()
            .filter(|(_, wire)| wire.node == node)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in served {
            let delay = self.chance(MS..20 * MS);
            let wire = self.wires.get_mut(&conn).expect("it was there a moment ago");
            wire.node_open = false;
            wire.down_until = wire.down_until.max(self.now + delay);
            let delay = wire.down_until - self.now;
            self.at(delay, Event::DownClosed { conn });
        }
    }

    fn part(&mut self, a: usize, b: usize, kind: LinkKind) {
        if !self.network.part(a, b, kind) {
            return;
        }
        for (node, peer) in [(a, b), (b, a)] {
            let key = self.nodes[peer].id.key();
            self.tell_hub(node, HubIn::LinkDown(key, kind));
        }
    }

    /// Puts something into the hub's mailbox.
    fn tell_hub(&mut self, node: usize, what: HubIn) {
        if let Some(process) = &mut self.nodes[node].process {
            process.hub_in.push_back(what);
            self.wake_soon(node, Thread::Hub);
        }
    }

    /// Puts something into a shard's mailbox.
    fn tell_shard(&mut self, node: usize, shard: usize, what: ShardIn) {
        if let Some(process) = &mut self.nodes[node].process {
            process.shard_in[shard].push_back(what);
            self.wake_soon(node, Thread::Shard(shard));
        }
    }

    /// A thread notices that its mailbox is not empty.
    fn wake_soon(&mut self, node: usize, thread: Thread) {
        let delay = self.chance(5..300);
        self.wake(node, thread, delay);
    }

    fn wake(&mut self, node: usize, thread: Thread, delay: u64) {
        let at = self.now + delay;
        let life = self.nodes[node].life;
        let Some(process) = &mut self.nodes[node].process else { return };
        if process.wake_at.get(&thread).is_some_and(|planned| *planned <= at) {
            return;
        }
        process.wake_at.insert(thread, at);
        self.at(delay, Event::Wake { node, life, thread });
    }

    fn act(&mut self, act: Act) {
        self.note(format_args!("{act:?}"));
        match act {
            Act::Roam { client, to, polite } => {
                self.leave(client, polite);
                self.clients[client].online = true;
                self.clients[client].node = to;
                let delay = self.chance(MS..400 * MS);
                self.at(delay, Event::Try { client });
            }
            Act::Park { client, polite } => {
                self.leave(client, polite);
                self.clients[client].online = false;
            }
            Act::Publish { client, topic, qos } => {
                let name = self.clients[client].name.clone();
                let message = self.oracle.make(&name, &topic, qos);
                self.clients[client].to_send.push_back(message);
                let mut out = BytesMut::new();
                self.clients[client].publish(self.now, &mut self.oracle, &mut out);
                self.send_up(client, out.freeze());
            }
            Act::Crash { node, down } => {
                self.crash(node);
                self.at(down, Event::Boot { node });
            }
            Act::Cut { a, b, kinds, down } => {
                for kind in kinds {
                    self.network.cut(a, b, kind);
                    self.part(a, b, kind);
                }
                self.at(down, Event::Act(Act::Heal { a, b }));
            }
            Act::Break { a, b, kind } => self.part(a, b, kind),
            Act::Heal { a, b } => self.network.heal(a, b),
        }
    }

    /// A client's connection ends from its side.
    fn leave(&mut self, client: usize, polite: bool) {
        let Some(conn) = self.clients[client].conn else { return };
        self.oracle.moves(&self.clients[client].name, self.now);
        if polite && self.clients[client].up {
            let farewell = self.clients[client].farewell().freeze();
            self.send_up(client, farewell);
        }
        self.clients[client].closed();
        let delay = self.chance(MS..50 * MS);
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        wire.client_open = false;
        wire.up_until = wire.up_until.max(self.now + delay);
        let delay = wire.up_until - self.now;
        self.at(delay, Event::UpClosed { conn });
    }

    /// A client tries to connect to the node it would be at.
    fn try_connect(&mut self, client: usize) {
        let state = &self.clients[client];
        if !state.online {
            return;
        }
        if state.conn.is_some() {
            let waited = self.now.saturating_sub(state.connecting_since);
            if state.up || waited < CONNACK_WAIT {
                return;
            }
            // No CONNACK: it gives up and begins again.
            self.leave(client, false);
        }
        let node = self.clients[client].node;
        let retry = self.chance(100 * MS..500 * MS);
        if self.nodes[node].process.is_none() {
            return self.at(retry, Event::Try { client });
        }
        self.next_conn += 1;
        let conn = self.next_conn;
        let key = ClientKey::anonymous(&self.clients[client].name);
        let wire = Wire {
            client,
            node,
            life: self.nodes[node].life,
            shard: usize::from(ShardIndex::of(&key, self.nodes[node].shards).0),
            up_until: self.now,
            down_until: self.now,
            client_open: true,
            node_open: true,
        };
        self.wires.insert(conn, wire);
        let hello = self.clients[client].opened(conn, self.now).freeze();
        self.oracle.moves(&self.clients[client].name, self.now);
        let delay = self.chance(MS..5 * MS);
        self.wires.get_mut(&conn).expect("it was made above").up_until = self.now + delay;
        self.at(delay, Event::Accept { conn });
        self.send_up(client, hello);
        self.at(CONNACK_WAIT + MS, Event::Try { client });
    }

    /// Sends bytes of a client.
    fn send_up(&mut self, client: usize, bytes: Bytes) {
        let Some(conn) = self.clients[client].conn else { return };
        if bytes.is_empty() {
            return;
        }
        let delay = self.chance(MS..8 * MS);
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        wire.up_until = wire.up_until.max(self.now + delay);
        let delay = wire.up_until - self.now;
        self.at(delay, Event::Up { conn, bytes });
    }

    /// Sends bytes of a node to a client.
    fn send_down(&mut self, conn: ConnId, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let (latency, think) = (self.chance(MS..8 * MS), self.chance(0..self.think + 1));
        let Some(wire) = self.wires.get_mut(&conn.0) else { return };
        wire.down_until = wire.down_until.max(self.now + latency + think);
        let delay = wire.down_until - self.now;
        self.at(delay, Event::Down { conn: conn.0, bytes });
    }
}
