//! A node of one shard: several clients say anything, connections break, commits fail, time passes,
//! the process is killed. Whatever comes, nothing panics, the invariants hold, the books balance, and
//! what is written to a client is MQTT in the client's version.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use verge_broker_core::rule::TopicRules;
use verge_broker_core::shard::api::{
    Answer, ConnId, ConnectionInfo, Mail, Output, Query, ShardConfig, StreamEnd, StreamKind,
    StreamNo, Terms, Ticket,
};
use verge_broker_core::shard::{Shard, restore};
use verge_broker_core::shared::NodeShared;
use verge_model::{Millis, NodeId, Now, UnixMillis};
use verge_mqtt_proto::{DecodeLimits, ProtocolVersion, decode};
use verge_storage::memory::{Crash, MemoryDisk};
use verge_storage::{Batch, MemoryStore, Promise, Store, StoreError};

/// Clients of an input.
const CLIENTS: u8 = 4;

/// What is said often, so that an input gets far: CONNECTs, subscriptions and publications of one
/// client, by their bytes.
const SAID: &[&[u8]] = &[
    b"\x10\x0f\0\x04MQTT\x05\x02\0\x3c\0\0\x02c1",
    b"\x10\x14\0\x04MQTT\x05\0\0\x3c\x05\x11\0\0\0\x0a\0\x02c1",
    b"\x10\x14\0\x04MQTT\x05\0\0\0\x05\x11\xff\xff\xff\xff\0\x02c2",
    b"\x10\x0e\0\x04MQTT\x04\0\0\x3c\0\x02c3",
    b"\x10\x16\0\x04MQTT\x04\x2e\0\x0a\0\x02c4\0\x01w\0\x03bye",
    b"\x10\x10\0\x06MQIsdp\x03\x02\0\x0a\0\x02c3",
    b"\x82\x07\0\x01\0\0\x01#\x02",
    b"\x82\x08\0\x02\0\0\x02t/\x01",
    b"\x82\x06\0\x03\0\x01t\x02",
    b"\x82\x10\0\x04\0\0\x0a$share/g/t\x02",
    b"\xa2\x06\0\x05\0\0\x01#",
    b"\x30\x05\0\x01t\0x",
    b"\x32\x07\0\x01t\0\x01\0x",
    b"\x34\x07\0\x01t\0\x02\0x",
    b"\x3c\x07\0\x01t\0\x02\0x",
    b"\x35\x07\0\x01t\0\x03\0x",
    b"\x31\x04\0\x01t\0",
    b"\x62\x02\0\x02",
    b"\x40\x02\0\x01",
    b"\x50\x02\0\x01",
    b"\x70\x02\0\x01",
    b"\xc0\0",
    b"\xe0\0",
    b"\xe0\x02\x04\0",
];

/// A script: one byte says who and what, and what follows it is taken as that needs.
pub(super) fn run(input: &[u8]) {
    let mut site = Site::start(MemoryDisk::default(), 1_000);
    let mut rest = input;
    while let Some((&step, after)) = rest.split_first() {
        rest = after;
        let client = step & (CLIENTS - 1);
        match step >> 2 & 0b111 {
            0 => site.open(client),
            1 | 2 => {
                let (said, after) = take(rest);
                rest = after;
                site.say(client, said);
            }
            3 | 4 => {
                let at = usize::from(rest.first().copied().unwrap_or_default());
                rest = rest.get(1..).unwrap_or_default();
                site.say(client, SAID[at % SAID.len()]);
            }
            5 => site.lose(client),
            6 => site.pass(u64::from(rest.first().copied().unwrap_or_default()) * 100),
            _ if client == 0 => site = site.crash(),
            _ if client < 3 => site.failing = client == 1,
            _ => rest = site.stream_step(rest),
        }
        site.settle();
    }
}

/// A length byte and as many bytes as it says, or as there are.
fn take(input: &[u8]) -> (&[u8], &[u8]) {
    let Some((&length, rest)) = input.split_first() else { return (&[], &[]) };
    rest.split_at(usize::from(length).min(rest.len()))
}

/// The streams a client may open: three bidirectional, one unidirectional (RFC 9000, 2.1).
const STREAMS: [(u64, StreamKind); 4] = [
    (4, StreamKind::Data),
    (8, StreamKind::Data),
    (12, StreamKind::Data),
    (2, StreamKind::Publish),
];

struct Site {
    shard: Shard,
    shared: Arc<NodeShared>,
    store: Arc<MemoryStore>,
    now: u64,
    wires: BTreeMap<u8, Wire>,
    next_conn: u64,
    failing: bool,
}

#[derive(Debug, Default)]
struct Wire {
    conn: u64,
    unread: Vec<u8>,
    received: Vec<u8>,
    version: Option<ProtocolVersion>,
    streams: BTreeMap<StreamNo, Vec<u8>>,
}

impl Site {
    fn start(disk: MemoryDisk, now: u64) -> Self {
        let id: NodeId = "n".parse().expect("a NodeId");
        let store = Arc::new(MemoryStore::open(disk, &id, 7).expect("the disk is its own"));
        let incarnation = store.identity().incarnation;
        let shared = NodeShared::new(id.key(), incarnation, TopicRules::default());
        let shared = Arc::new(shared.with_store(Arc::clone(&store) as Arc<dyn Store>));
        let restored = restore::load(&*store, &shared, 1).expect("memory can be read");
        assert_eq!(restored.damaged, 0, "what was written can be read");
        let config = ShardConfig {
            node: id.key(),
            packet_bytes_max: 1_024,
            receive_maximum: 4,
            inflight_max: 3,
            topic_alias_maximum: 4,
            queue_messages_max: 8,
            queue_bytes_max: 4 * 1024,
            output_bytes_high: 512,
            park_after: Duration::from_millis(200),
            terms: Terms { publisher_hold_max: Duration::from_secs(1), ..Terms::default() },
            ..ShardConfig::default()
        };
        let mut site = Self {
            shard: Shard::new(config, Arc::clone(&shared), 5),
            shared,
            store,
            now,
            wires: BTreeMap::new(),
            next_conn: 1,
            failing: false,
        };
        for session in restored.sessions {
            let now = site.clock();
            site.shard.restore(session, now);
        }
        let now = site.clock();
        site.shard.start(now);
        site.settle();
        site
    }

    fn crash(self) -> Self {
        Self::start(self.store.durable_copy(Crash::Process), self.now)
    }

    fn clock(&self) -> Now {
        Now { mono: Millis(self.now), wall: UnixMillis(self.now) }
    }

    fn open(&mut self, client: u8) {
        self.lose(client);
        let conn = self.next_conn;
        self.next_conn += 1;
        let info = ConnectionInfo {
            peer: ([127, 0, 0, 1], 50_000).into(),
            listener: "tcp://127.0.0.1:1883".into(),
            certificate_subject: None,
            promise: Promise::Buffered,
            allow_anonymous: true,
            keep_alive_secs_max: 0,
        };
        let now = self.clock();
        self.shard.handle_open(ConnId(conn), info, now);
        self.wires.insert(client, Wire { conn, ..Wire::default() });
    }

    fn say(&mut self, client: u8, said: &[u8]) {
        if !self.wires.contains_key(&client) {
            self.open(client);
        }
        let Some(wire) = self.wires.get_mut(&client) else { return };
        wire.unread.extend_from_slice(said);
        let conn = ConnId(wire.conn);
        self.feed(conn);
    }

    /// One byte says whose stream, which, and what happens to it.
    fn stream_step<'a>(&mut self, input: &'a [u8]) -> &'a [u8] {
        let Some((&step, rest)) = input.split_first() else { return input };
        let now = self.clock();
        let Some(wire) = self.wires.get_mut(&(step & (CLIENTS - 1))) else { return rest };
        let conn = ConnId(wire.conn);
        let (number, kind) = STREAMS[usize::from(step >> 2 & 0b11)];
        let stream = StreamNo(number);
        if let Entry::Vacant(entry) = wire.streams.entry(stream) {
            entry.insert(Vec::new());
            self.shard.handle_stream_open(conn, stream, kind, now);
        }
        match step >> 4 & 0b11 {
            0 => {
                let (said, rest) = take(rest);
                self.say_on(conn, stream, said);
                return rest;
            }
            1 => {
                let at = usize::from(rest.first().copied().unwrap_or_default());
                self.say_on(conn, stream, SAID[at % SAID.len()]);
                return rest.get(1..).unwrap_or_default();
            }
            action => {
                let end = if action == 2 { StreamEnd::Finished } else { StreamEnd::Reset };
                self.shard.handle_stream_end(conn, stream, end, now);
            }
        }
        rest
    }

    fn say_on(&mut self, conn: ConnId, stream: StreamNo, said: &[u8]) {
        let Some(wire) = self.wire(conn) else { return };
        let Some(unread) = wire.streams.get_mut(&stream) else { return };
        unread.extend_from_slice(said);
        self.feed_stream(conn, stream);
    }

    fn feed_stream(&mut self, conn: ConnId, stream: StreamNo) {
        let now = self.clock();
        let Some(wire) = self.wires.values_mut().find(|wire| wire.conn == conn.0) else { return };
        let Some(unread) = wire.streams.get_mut(&stream) else { return };
        if !self.shard.wants_stream_bytes(conn, stream) {
            return;
        }
        let used = self.shard.handle_stream_bytes(conn, stream, unread, now);
        assert!(used <= unread.len());
        unread.drain(..used);
    }

    fn lose(&mut self, client: u8) {
        if let Some(wire) = self.wires.remove(&client) {
            let now = self.clock();
            self.shard.handle_closed(ConnId(wire.conn), now);
        }
    }

    fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        while let Some(due) = self.shard.poll_timeout().filter(|due| due.0 <= end) {
            self.now = self.now.max(due.0);
            let now = self.clock();
            self.shard.handle_timeout(now);
            self.settle();
        }
        self.now = end;
    }

    fn wire(&mut self, conn: ConnId) -> Option<&mut Wire> {
        self.wires.values_mut().find(|wire| wire.conn == conn.0)
    }

    fn feed(&mut self, conn: ConnId) {
        let now = self.clock();
        let Some(wire) = self.wires.values_mut().find(|wire| wire.conn == conn.0) else { return };
        let used = self.shard.handle_bytes(conn, &wire.unread, now);
        assert!(used <= wire.unread.len());
        if wire.version.is_none() && used > 0 {
            wire.version = version_of(&wire.unread);
        }
        wire.unread.drain(..used);
    }

    /// Turns until nothing is left to do, then checks.
    fn settle(&mut self) {
        let mut mail = VecDeque::new();
        loop {
            let mut again = false;
            let now = self.clock();
            while let Some(letter) = mail.pop_front() {
                self.shard.handle_mail(letter, now);
                again = true;
            }
            self.shard.end_turn(now);
            while let Some(output) = self.shard.poll_output() {
                again = true;
                match output {
                    Output::Commit { ticket, batch, .. } => self.commit(ticket, batch),
                    Output::Mail { mail: letter, .. } => mail.push_back(letter),
                    Output::Hub(_) => {}
                    Output::Feed(conn) => self.feed(conn),
                    Output::FeedStream { conn, stream } => self.feed_stream(conn, stream),
                    Output::CloseStream { conn, stream, .. } => {
                        if let Some(wire) = self.wire(conn) {
                            wire.streams.remove(&stream);
                        }
                    }
                    // Nobody has a password here: no users are configured.
                    Output::CheckPassword { .. } => unreachable!("no user is known"),
                    Output::Close { conn, last } => self.closed(conn, &last),
                }
            }
            while let Some(conn) = self.shard.poll_dirty() {
                again = true;
                self.read(conn);
            }
            while let Some((conn, stream)) = self.shard.poll_dirty_stream() {
                again = true;
                self.read_stream(conn, stream);
            }
            if !again {
                break;
            }
        }
        self.check();
    }

    fn commit(&mut self, ticket: Ticket, batch: Batch) {
        let result = if self.failing {
            Err(StoreError::Full { detail: "as asked".into() })
        } else {
            self.store.commit(&[batch], true).map(drop)
        };
        let now = self.clock();
        self.shard.handle_commit(ticket, result, now);
    }

    fn read(&mut self, conn: ConnId) {
        let now = self.clock();
        let Some(out) = self.shard.output_mut(conn) else { return };
        let bytes = out.split();
        self.shard.handle_writable(conn, now);
        if let Some(wire) = self.wire(conn) {
            wire.received.extend_from_slice(&bytes);
            wire.check();
        }
    }

    fn read_stream(&mut self, conn: ConnId, stream: StreamNo) {
        let now = self.clock();
        let Some(out) = self.shard.stream_output_mut(conn, stream) else { return };
        let bytes = out.split();
        self.shard.handle_stream_writable(conn, stream, now);
        let version = self.wire(conn).and_then(|wire| wire.version);
        whole_packets(&bytes, version.unwrap_or(ProtocolVersion::V4));
    }

    fn closed(&mut self, conn: ConnId, last: &[u8]) {
        if let Some(wire) = self.wire(conn) {
            wire.received.extend_from_slice(last);
            wire.check();
            assert!(wire.received.is_empty(), "the last packet is whole: {:02x?}", wire.received);
        }
        self.wires.retain(|_, wire| wire.conn != conn.0);
    }

    fn check(&mut self) {
        self.shard.check_invariants();
        let now = self.clock();
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let reply = Box::new(move |answer| sender.send(answer).expect("somebody asked"));
        self.shard.handle_mail(Mail::Query(Query::Held, reply), now);
        let Ok(Answer::Held(held)) = receiver.recv() else { panic!("Held answers Held") };
        for (books, held) in self.shared.ledger.by_class().iter().zip(held.messages) {
            assert_eq!(books.balance(held), 0, "the books of each class balance: {books:?}");
        }
    }
}

impl Wire {
    /// Takes whole packets off what was received.
    fn check(&mut self) {
        let version = self.version.unwrap_or(ProtocolVersion::V4);
        let limits = DecodeLimits::default();
        while !self.received.is_empty() {
            let read = decode(&self.received, version, &limits);
            let Some((_, size)) = read.expect("what is written to a client is well formed") else {
                return;
            };
            self.received.drain(..size);
        }
    }
}

/// What is taken from a stream's output at once is whole packets.
fn whole_packets(mut bytes: &[u8], version: ProtocolVersion) {
    while !bytes.is_empty() {
        let read = decode(bytes, version, &DecodeLimits::default());
        let read = read.expect("what is written to a stream is well formed");
        bytes = &bytes[read.expect("what is written to a stream is whole").1..];
    }
}

/// The version a CONNECT names.
fn version_of(bytes: &[u8]) -> Option<ProtocolVersion> {
    let connect = decode(bytes, ProtocolVersion::V5, &DecodeLimits::default()).ok()??.0;
    let verge_mqtt_proto::Packet::Connect(connect) = connect else { return None };
    Some(connect.version)
}
