//! The simulated mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use verge_model::{Class, ClientKey, Millis, NodeId, NodeKey, Now, Role, UnixMillis};
use verge_storage::key::LinkInKey;
use verge_storage::memory::Crash;
use verge_storage::{Batch, LogKey, MemoryStore, Store};

use crate::{
    Lane, LinkKind, LookupAnswer, MeshConfig, MeshCore, NodeInfo, Output, RegistryEntry, Restored,
    Ticket,
};

/// The log in which a node keeps what it received, in the commit that also holds its `link_in` row.
const INBOX: LogKey = LogKey::Outbox { stream: 0 };

pub(super) struct World {
    now: u64,
    pub(super) nodes: Vec<Node>,
    events: BTreeMap<(u64, u64), Event>,
    /// Events of one lane, datagrams apart, keep their order.
    busy_until: BTreeMap<(usize, usize, u8), u64>,
    next_event: u64,
    links: BTreeMap<(usize, usize, LinkKind), u64>,
    next_link: u64,
    cut: BTreeSet<(usize, usize)>,
    pub(super) datagram_loss: f64,
    /// How many of the frames have a byte changed on their way.
    pub(super) damage: f64,
    /// Bytes of frames sent on lanes.
    pub(super) frame_bytes: usize,
    rng: StdRng,
    /// Everything that was delivered, as one hash and a count.
    pub(super) trace: (u64, u64),
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) core: Option<MeshCore>,
    pub(super) store: MemoryStore,
    config: MeshConfig,
    /// What sessions here would subscribe to; survives as sessions do.
    pub(super) wanted: BTreeSet<String>,
    pub(super) remote: BTreeMap<NodeKey, BTreeSet<String>>,
    pub(super) up: BTreeMap<NodeId, NodeInfo>,
    pub(super) lookups: Vec<LookupAnswer>,
    pub(super) told: Vec<String>,
    life: u64,
}

#[derive(Debug)]
enum Event {
    Connect { from: usize, to: usize, kind: LinkKind },
    Hello { from: usize, to: usize, kind: LinkKind, link: u64, frame: Bytes },
    Frame { from: usize, to: usize, lane: Lane, link: u64, frame: Bytes },
    Datagram { from: usize, to: usize, bytes: Bytes },
    Commit { node: usize, life: u64, batch: Batch, then: Then },
    Boot { node: usize },
}

#[derive(Debug)]
enum Then {
    Committed(Ticket),
    Custody { origin: NodeKey, log_id: u64, class: Class, seq: u64 },
    Appended,
    Barrier,
}

impl World {
    /// A mesh of regional node `r` and `rsus` roadside units, which join through it.
    pub(super) fn new(rsus: usize, seed: u64) -> Self {
        let mut this = Self {
            now: 1_000,
            nodes: Vec::new(),
            events: BTreeMap::new(),
            busy_until: BTreeMap::new(),
            next_event: 0,
            links: BTreeMap::new(),
            next_link: 0,
            cut: BTreeSet::new(),
            datagram_loss: 0.05,
            damage: 0.0,
            frame_bytes: 0,
            rng: StdRng::seed_from_u64(seed),
            trace: (0, 0),
        };
        this.add("r", Role::Regional);
        for number in 1..=rsus {
            this.add(&format!("rsu-{number}"), Role::Rsu);
        }
        this
    }

    pub(super) fn add(&mut self, name: &str, role: Role) -> usize {
        let index = self.nodes.len();
        let id: NodeId = name.parse().unwrap();
        let log_id = self.rng.random();
        let join = if index == 0 { vec![] } else { vec![addr(0)] };
        let config = MeshConfig {
            node_id: id.clone(),
            role,
            region: "north".into(),
            advertise: addr(index),
            position: None,
            listeners: vec![format!("tcp://10.0.0.{index}:1883")],
            admin: None,
            incarnation: 0,
            log_id,
            dials_only: false,
            join,
            lookup_timeout: MeshConfig::LOOKUP_TIMEOUT,
        };
        let node = Node {
            store: MemoryStore::new(&id, log_id),
            id,
            core: None,
            config,
            wanted: BTreeSet::new(),
            remote: BTreeMap::new(),
            up: BTreeMap::new(),
            lookups: Vec::new(),
            told: Vec::new(),
            life: 0,
        };
        self.nodes.push(node);
        self.boot(index);
        index
    }

    /// Kills a node's process; what is committed survives.
    pub(super) fn crash(&mut self, index: usize) {
        let disk = self.nodes[index].store.durable_copy(Crash::Process);
        let gone: Vec<_> =
            self.links.keys().filter(|(a, b, _)| *a == index || *b == index).copied().collect();
        self.nodes[index].core = None;
        self.nodes[index].life += 1;
        for link in gone {
            self.unlink(link);
        }
        let node = &mut self.nodes[index];
        node.store = MemoryStore::open(disk, &node.id, node.config.log_id).unwrap();
    }

    /// Starts a crashed node after a while.
    pub(super) fn restart_in(&mut self, index: usize, millis: u64) {
        self.at(millis, Event::Boot { node: index });
    }

    /// Takes the node's disk away; the next start is a first start.
    pub(super) fn wipe(&mut self, index: usize) {
        self.crash(index);
        let log_id = self.rng.random();
        let node = &mut self.nodes[index];
        node.config.log_id = log_id;
        node.store = MemoryStore::new(&node.id, log_id);
    }

    /// Separates two nodes until `heal`.
    pub(super) fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert(pair(a, b));
        for kind in LinkKind::ALL {
            self.drop_link(a, b, kind);
        }
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(super) fn drop_link(&mut self, a: usize, b: usize, kind: LinkKind) {
        let (a, b) = pair(a, b);
        self.unlink((a, b, kind));
    }

    pub(super) fn want(&mut self, index: usize, filter: &str) {
        self.nodes[index].wanted.insert(filter.into());
        self.with(index, |core, _| {
            core.add_route(filter);
        });
    }

    pub(super) fn unwant(&mut self, index: usize, filter: &str) {
        self.nodes[index].wanted.remove(filter);
        self.with(index, |core, _| {
            core.remove_route(filter);
        });
    }

    pub(super) fn put(&mut self, index: usize, client: &ClientKey, entry: RegistryEntry) {
        self.with(index, |core, _| core.put_registry(client, entry).unwrap());
    }

    pub(super) fn lookup(&mut self, index: usize, ticket: u64, client: &ClientKey) {
        self.with(index, |core, now| core.lookup(ticket, client.clone(), now));
    }

    pub(super) fn leave(&mut self, index: usize) {
        self.with(index, |core, now| core.leave(now));
    }

    /// Sends a handover frame and an uplink frame.
    pub(super) fn send(&mut self, from: usize, to: usize, text: &'static str) {
        let (to, bytes) = (self.key(to), Bytes::from_static(text.as_bytes()));
        self.with(from, |core, _| {
            assert!(core.send_handover(to, bytes.clone()));
            assert!(core.send_uplink(to, bytes));
        });
    }

    /// Puts a frame on the control lane that no core made.
    pub(super) fn inject(&mut self, from: usize, to: usize, frame: Bytes) {
        if let Some(link) = self.link(from, to, LinkKind::Fast) {
            self.at(1, Event::Frame { from, to, lane: Lane::Control, link, frame });
        }
    }

    /// Publishes at `from` what `to` wants.
    pub(super) fn forward(&mut self, from: usize, to: usize, class: Class, record: Bytes) {
        let mut batch = Batch::new();
        batch.append_forward(self.key(to), class, record);
        self.commit(from, batch, Then::Appended);
    }

    /// What a node received durably, in order: (origin, class, record).
    pub(super) fn inbox(&self, index: usize) -> Vec<(u64, u8, Bytes)> {
        let rows = self.nodes[index].store.read_log(INBOX, 1, usize::MAX, usize::MAX).unwrap();
        rows.into_iter()
            .map(|(_, row)| {
                let origin = u64::from_be_bytes(row[..8].try_into().unwrap());
                (origin, row[8], row.slice(9..))
            })
            .collect()
    }

    pub(super) fn key(&self, index: usize) -> NodeKey {
        self.nodes[index].id.key()
    }

    pub(super) fn core(&self, index: usize) -> &MeshCore {
        self.nodes[index].core.as_ref().unwrap()
    }

    pub(super) fn chance(&mut self, of: f64) -> bool {
        self.rng.random_bool(of)
    }

    pub(super) fn pick(&mut self, below: usize) -> usize {
        self.rng.random_range(0..below)
    }

    pub(super) fn run(&mut self, millis: u64) {
        let end = self.now + millis;
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let timers = self.nodes.iter().enumerate().filter_map(|(index, node)| {
                node.core.as_ref().map(|core| (core.poll_timeout().0, index))
            });
            let timer = timers.min();
            let next = event.into_iter().chain(timer.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if event == Some(next) {
                let (_, event) = self.events.pop_first().unwrap();
                self.happen(event);
            } else if let Some((_, index)) = timer {
                self.with(index, |core, now| core.handle_timeout(now));
            }
        }
        self.now = end;
    }

    /// Runs until `holds`, at most `millis`; says how long it took.
    pub(super) fn run_until(&mut self, millis: u64, holds: impl Fn(&Self) -> bool) -> u64 {
        let start = self.now;
        while !holds(self) {
            assert!(self.now - start < millis, "not reached in {millis} ms\n{}", self.describe());
            self.run(50);
        }
        self.now - start
    }

    pub(super) fn all_up(&self) -> bool {
        self.nodes.iter().all(|node| node.up.len() + 1 == self.nodes.len())
    }

    pub(super) fn routes_equal(&self) -> bool {
        (0..self.nodes.len()).all(|origin| {
            (0..self.nodes.len()).filter(|other| *other != origin).all(|other| {
                let node = &self.nodes[other];
                let empty = BTreeSet::new();
                let known = node.remote.get(&self.key(origin)).unwrap_or(&empty);
                let held: BTreeSet<String> = node.core.as_ref().map_or(BTreeSet::new(), |core| {
                    let all = core.remote_routes();
                    let of = all.filter(|(node, _)| *node == self.key(origin));
                    of.map(|(_, filter)| filter.to_owned()).collect()
                });
                *known == self.nodes[origin].wanted && held == *known
            })
        })
    }

    pub(super) fn describe(&self) -> String {
        let mut text = format!("at {} ms, links {:?}\n", self.now, self.links.keys());
        for node in &self.nodes {
            let up: Vec<_> = node.up.keys().collect();
            writeln!(text, "{}: up {up:?}, routes {:?}", node.id, node.remote).unwrap();
            if let Some(core) = &node.core {
                writeln!(text, "   {:?}\n   {:?}", core.counters(), core.peers()).unwrap();
            }
        }
        text
    }

    fn boot(&mut self, index: usize) {
        let now = self.clock();
        let seed = self.rng.random();
        let node = &mut self.nodes[index];
        let identity = node.store.identity();
        node.config.incarnation = identity.incarnation;
        node.config.log_id = identity.log_id;
        let restored = Restored::load(&node.store).unwrap();
        node.remote.clear();
        node.up.clear();
        let mut core = MeshCore::new(node.config.clone(), restored, now, seed);
        for filter in &node.wanted {
            core.add_route(filter.as_str());
        }
        node.core = Some(core);
        self.drain(index);
    }

    fn clock(&self) -> Now {
        Now { mono: Millis(self.now), wall: UnixMillis(self.now) }
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now + delay, self.next_event), event);
    }

    /// Schedules after what was scheduled on the same lane before.
    fn in_order(&mut self, lane: (usize, usize, u8), delay: u64, event: Event) {
        let busy = self.busy_until.entry(lane).or_default();
        *busy = (*busy).max(self.now + delay);
        let delay = *busy - self.now;
        self.at(delay, event);
    }

    fn commit(&mut self, node: usize, batch: Batch, then: Then) {
        let delay = self.rng.random_range(1..6);
        let life = self.nodes[node].life;
        self.in_order((node, node, u8::MAX), delay, Event::Commit { node, life, batch, then });
    }

    fn happen(&mut self, event: Event) {
        let text = format!("{} {event:?}", self.now);
        for byte in text.bytes() {
            self.trace.0 = (self.trace.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.trace.1 += 1;
        match event {
            Event::Connect { from, to, kind } => self.connect(from, to, kind),
            Event::Hello { from, to, kind, link, frame } => {
                if self.link(from, to, kind) == Some(link) {
                    let peer = self.nodes[from].id.clone();
                    self.with(to, |core, now| core.handle_hello(&peer, kind, frame, now));
                }
            }
            Event::Frame { from, to, lane, link, frame } => {
                if self.link(from, to, lane.link()) == Some(link) {
                    let peer = self.key(from);
                    self.with(to, |core, now| core.handle_frame(peer, lane, frame, now));
                }
            }
            Event::Datagram { from, to, bytes } => {
                let peer = self.key(from);
                if self.link(from, to, LinkKind::Fast).is_some() {
                    self.with(to, |core, now| core.handle_datagram(peer, &bytes, now));
                }
            }
            Event::Commit { node, life, batch, then } => {
                if self.nodes[node].life == life {
                    self.committed(node, &batch, then);
                }
            }
            Event::Boot { node } => self.boot(node),
        }
    }

    fn committed(&mut self, node: usize, batch: &Batch, then: Then) {
        let outcome = self.nodes[node].store.commit(std::slice::from_ref(batch), true).unwrap();
        let appended = outcome.into_iter().flat_map(|one| one.appended);
        self.with(node, |core, _| match then {
            Then::Committed(ticket) => core.handle_committed(ticket),
            Then::Barrier => core.barrier_passed(),
            Then::Custody { origin, log_id, class, seq } => {
                core.custody(origin, log_id, class, seq);
            }
            Then::Appended => {
                for (log, seq, record) in appended {
                    if let LogKey::Forward { peer, class } = log {
                        core.forward_appended(peer, class, seq, record);
                    }
                }
            }
        });
    }

    fn connect(&mut self, from: usize, to: usize, kind: LinkKind) {
        let both = [from, to];
        if self.cut.contains(&pair(from, to))
            || both.iter().any(|node| self.nodes[*node].core.is_none())
        {
            return;
        }
        if self.link(from, to, kind).is_some() {
            let peer = self.nodes[to].id.clone();
            self.with(from, |core, _| core.handle_dial_answered(&peer, addr(to)));
            return;
        }
        self.next_link += 1;
        let (a, b) = pair(from, to);
        self.links.insert((a, b, kind), self.next_link);
        for (node, peer) in [(from, to), (to, from)] {
            let id = self.nodes[peer].id.clone();
            self.with(node, |core, now| core.handle_link_up(&id, kind, addr(peer), now));
        }
    }

    fn link(&self, from: usize, to: usize, kind: LinkKind) -> Option<u64> {
        let (a, b) = pair(from, to);
        self.links.get(&(a, b, kind)).copied()
    }

    fn unlink(&mut self, (a, b, kind): (usize, usize, LinkKind)) {
        if self.links.remove(&(a, b, kind)).is_none() {
            return;
        }
        for (node, peer) in [(a, b), (b, a)] {
            let key = self.key(peer);
            self.with(node, |core, now| core.handle_link_down(key, kind, now));
        }
    }

    /// Calls a core, if its node runs, and does what it asks.
    pub(super) fn with(&mut self, index: usize, call: impl FnOnce(&mut MeshCore, Now)) {
        let now = self.clock();
        if let Some(core) = &mut self.nodes[index].core {
            call(core, now);
            self.drain(index);
        }
    }

    fn drain(&mut self, index: usize) {
        loop {
            let Some(core) = &mut self.nodes[index].core else { return };
            let Some(output) = core.poll_output() else { return };
            self.output(index, output);
        }
    }

    fn output(&mut self, index: usize, output: Output) {
        let latency = self.rng.random_range(1..20);
        match output {
            Output::Hello { peer, kind, frame } => {
                let to = self.index(peer);
                if let Some(link) = self.link(index, to, kind) {
                    let event = Event::Hello { from: index, to, kind, link, frame };
                    for lane in Lane::ALL.into_iter().filter(|lane| lane.link() == kind) {
                        let busy = self.busy_until.entry((index, to, lane as u8)).or_default();
                        *busy = (*busy).max(self.now + latency);
                    }
                    self.at(latency, event);
                }
            }
            Output::Send { peer, lane, frame } => {
                let to = self.index(peer);
                if let Some(link) = self.link(index, to, lane.link()) {
                    let frame = self.damaged(frame);
                    self.frame_bytes += frame.len();
                    let event = Event::Frame { from: index, to, lane, link, frame };
                    self.in_order((index, to, lane as u8), latency, event);
                }
            }
            Output::Datagram { peer, bytes } => {
                let to = self.index(peer);
                assert!(bytes.len() <= crate::SWIM_PACKET_BYTES_MAX);
                if !self.rng.random_bool(self.datagram_loss) {
                    self.at(latency, Event::Datagram { from: index, to, bytes });
                }
            }
            Output::Dial { addr, kind, .. } => {
                if let Some(to) = (0..self.nodes.len()).find(|to| self::addr(*to) == addr) {
                    self.at(2 * latency, Event::Connect { from: index, to, kind });
                }
            }
            Output::Persist { batch, ticket } => {
                self.commit(index, batch, Then::Committed(ticket));
            }
            Output::Forwarded { origin, log_id, class, seq, record } => {
                let mut batch = Batch::new();
                let row = [&origin.0.to_be_bytes()[..], &[class as u8], &record].concat();
                batch.append(INBOX, row.into());
                batch.put_link_in(LinkInKey { origin, log_id, class }, seq);
                self.commit(index, batch, Then::Custody { origin, log_id, class, seq });
            }
            Output::ReadForward { peer, class, from_seq, bytes_max } => {
                let log = LogKey::Forward { peer, class };
                let store = &self.nodes[index].store;
                let rows = store.read_log(log, from_seq, 100, bytes_max).unwrap();
                let next = rows.last().map_or(from_seq, |(seq, _)| seq + 1);
                let at_end = next >= store.log_bounds(log).unwrap().next;
                self.with(index, |core, _| core.forward_rows(peer, class, from_seq, rows, at_end));
            }
            Output::RemoteRoutes { origin, added, removed } => {
                let known = self.nodes[index].remote.entry(origin).or_default();
                for filter in removed {
                    assert!(known.remove(&filter), "{filter} was not there");
                }
                for filter in added {
                    assert!(known.insert(filter.clone()), "{filter} was there");
                }
            }
            Output::MemberUp(info) => {
                self.nodes[index].up.insert(info.node_id.clone(), info);
            }
            Output::MemberDown(node) => {
                assert!(self.nodes[index].up.remove(&node).is_some(), "{node} was not up");
            }
            Output::Lookup(answer) => self.nodes[index].lookups.push(answer),
            Output::Superseded { client, winner, clean } => {
                let text = format!("superseded {client} by {} clean {clean}", winner.epoch);
                self.nodes[index].told.push(text);
            }
            Output::Barrier => self.commit(index, Batch::new(), Then::Barrier),
            Output::Flushed { owner, .. } => {
                let text = format!("flushed {}", self.nodes[self.index(owner)].id);
                self.nodes[index].told.push(text);
            }
            Output::Handover { bytes, .. } => {
                self.nodes[index].told.push(format!("handover {bytes:?}"));
            }
            Output::Transient { .. } => {}
            Output::Uplink { bytes, .. } => {
                self.nodes[index].told.push(format!("uplink {bytes:?}"));
            }
            Output::JoinUnanswered { addr, .. } => {
                self.nodes[index].told.push(format!("join {addr} unanswered"));
            }
            Output::DiskBehind { incarnation, .. } => {
                self.nodes[index].told.push(format!("disk behind {incarnation}"));
            }
            Output::Refused { peer, kind, reason } => {
                self.nodes[index].told.push(format!("refused {peer}: {reason}"));
                let other = self.index(peer.key());
                self.drop_link(index, other, kind);
            }
            Output::Close { peer, reason } => {
                let other = self.index(peer);
                let text = format!("closed {}: {reason}", self.nodes[other].id);
                self.nodes[index].told.push(text);
                for kind in LinkKind::ALL {
                    self.drop_link(index, other, kind);
                }
            }
        }
    }

    fn damaged(&mut self, frame: Bytes) -> Bytes {
        if self.damage == 0.0 || !self.rng.random_bool(self.damage) {
            return frame;
        }
        let mut bytes = frame.to_vec();
        let at = self.rng.random_range(0..bytes.len());
        bytes[at] = self.rng.random();
        if self.rng.random_bool(0.2) {
            bytes.truncate(at + 1);
        }
        bytes.into()
    }

    fn index(&self, key: NodeKey) -> usize {
        self.nodes.iter().position(|node| node.id.key() == key).unwrap()
    }
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

fn addr(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(index).unwrap()], 14_600))
}
