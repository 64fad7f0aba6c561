//! A node of shards over a store in memory, without hub or sockets.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use verge_model::{Class, ClientKey, Hlc, MessageId, Millis, NodeId, NodeKey, Now, UnixMillis};
use verge_mqtt_proto::message::Message;
use verge_mqtt_proto::session::Held;
use verge_mqtt_proto::{KeptProperties, QoS, TopicName};
use verge_storage::memory::{Crash, MemoryDisk};
use verge_storage::{Batch, MemoryStore, Promise, Store, StoreError};

use super::client::{Client, Who, read, read_words};
use super::reads::Reads;
use super::streams::StreamWire;
use crate::ledger::LedgerSnapshot;
use crate::planner::Planner;
use crate::record::{message_from_afar, message_to_record};
use crate::router::{ForwardTargets, Origin};
use crate::rule::TopicRules;
use crate::shard::Shard;
use crate::shard::api::{
    Answer, ConnId, ConnectionInfo, HubMail, Mail, Output, Query, ShardConfig, ShardIndex,
    StreamNo, Terms, Ticket,
};
use crate::shard::restore;
use crate::shared::NodeShared;

/// The bed. Time stands still unless a test moves it.
pub(super) struct Bed {
    pub(super) id: NodeId,
    pub(super) shards: Vec<Shard>,
    pub(super) shared: Arc<NodeShared>,
    pub(super) store: Arc<MemoryStore>,
    reads: Arc<Reads>,
    /// How far the wall clock is ahead.
    ahead: u64,
    pub(super) now: u64,
    /// Whether batches are committed as soon as they are handed out.
    pub(super) commits: bool,
    pub(super) uncommitted: VecDeque<(usize, Ticket, Batch, Promise)>,
    mail: VecDeque<(ShardIndex, Mail)>,
    /// What shards asked of the hub.
    pub(super) hub: VecDeque<(usize, HubMail)>,
    pub(super) wires: BTreeMap<ConnId, Wire>,
    pub(super) streams: BTreeMap<(ConnId, StreamNo), StreamWire>,
    next_conn: u64,
    /// Whether the client's side takes what is written.
    pub(super) reading: bool,
    mesh: bool,
    terms: Terms,
    setup: Setup,
    /// Whether clients without credentials may connect.
    pub(super) anonymous: bool,
}

/// Configures what the threads of a node share, in each of its lives.
pub(super) type Setup = fn(NodeShared) -> NodeShared;

pub(super) struct Wire {
    pub(super) shard: usize,
    unread: Vec<u8>,
    received: Vec<u8>,
    closed: bool,
}

pub(super) const LIMIT: usize = 8;

impl Bed {
    /// A node of its own with this many shards.
    pub(super) fn new(shards: u16) -> Self {
        Self::configured(shards, |shared| shared)
    }

    /// A node of its own that is configured.
    pub(super) fn configured(shards: u16, setup: Setup) -> Self {
        let how = (false, Terms::default(), setup);
        Self::start("n", MemoryDisk::default(), shards, 1_000, how)
    }

    /// A node of its own with one shard, and these terms.
    pub(super) fn with(terms: Terms) -> Self {
        Self::start("n", MemoryDisk::default(), 1, 1_000, (false, terms, |shared| shared))
    }

    /// The same, with more shards.
    pub(super) fn granting(shards: u16, terms: Terms) -> Self {
        Self::start("n", MemoryDisk::default(), shards, 1_000, (false, terms, |shared| shared))
    }

    /// A node of a mesh.
    pub(super) fn in_mesh(name: &str) -> Self {
        let how = (true, Terms::default(), (|shared| shared) as Setup);
        Self::start(name, MemoryDisk::default(), 1, 1_000, how)
    }

    fn start(
        name: &str,
        disk: MemoryDisk,
        shards: u16,
        now: u64,
        (mesh, terms, setup): (bool, Terms, Setup),
    ) -> Self {
        let id: NodeId = name.parse().unwrap();
        let store = Arc::new(MemoryStore::open(disk, &id, 7).unwrap());
        let incarnation = store.identity().incarnation;
        let reads = Arc::new(Reads::of(Arc::clone(&store)));
        let shared = setup(NodeShared::new(id.key(), incarnation, TopicRules::default()));
        let shared = Arc::new(shared.with_store(Arc::clone(&reads) as Arc<dyn Store>));
        let restored = restore::load(&*store, &shared, shards).unwrap();
        assert_eq!(restored.damaged, 0);
        let config = |index| ShardConfig {
            terms: terms.clone(),
            ..config(&id, ShardIndex(index), shards, mesh)
        };
        let mut bed = Self {
            shards: (0..shards)
                .map(|index| Shard::new(config(index), Arc::clone(&shared), 5))
                .collect(),
            id,
            shared,
            store,
            reads,
            ahead: 0,
            now,
            commits: true,
            uncommitted: VecDeque::new(),
            mail: VecDeque::new(),
            hub: VecDeque::new(),
            wires: BTreeMap::new(),
            streams: BTreeMap::new(),
            next_conn: 1,
            reading: true,
            mesh,
            terms,
            setup,
            anonymous: true,
        };
        let now = bed.clock();
        for session in restored.sessions {
            let shard = usize::from(session.shard(shards).0);
            bed.shards[shard].restore(session, now);
        }
        for delayed in restored.delayed {
            let shard = usize::from(delayed.shard(shards).0);
            bed.shards[shard].restore_delayed(delayed, now).unwrap();
        }
        for shard in &mut bed.shards {
            shard.start(now);
        }
        bed.settle();
        bed
    }

    /// Whether nothing can be read from the store for now.
    pub(super) fn break_reads(&self, broken: bool) {
        self.reads.break_all(broken);
    }

    /// The wall clock leaps forward.
    pub(super) fn leap(&mut self, by: Duration) {
        self.ahead += u64::try_from(by.as_millis()).unwrap();
    }

    /// Grants no more than this QoS from now on.
    pub(super) fn grant_at_most(&mut self, qos: QoS) {
        for shard in &mut self.shards {
            shard.config.qos_max = qos;
        }
    }

    /// Kills the process; what was committed survives in the next life.
    pub(super) fn crash(self) -> Self {
        let disk = self.store.durable_copy(Crash::Process);
        let shards = u16::try_from(self.shards.len()).unwrap();
        let how = (self.mesh, self.terms, self.setup);
        Self::start(self.id.as_str(), disk, shards, self.now, how)
    }

    pub(super) fn clock(&self) -> Now {
        Now { mono: Millis(self.now), wall: UnixMillis(self.now + self.ahead) }
    }

    pub(super) fn connect(&mut self, who: &Who) -> Client {
        let shards = u16::try_from(self.shards.len()).unwrap();
        let shard = ShardIndex::of(&ClientKey::anonymous(who.id()), shards);
        let client = Client { conn: ConnId(self.next_conn), version: who.version };
        self.next_conn += 1;
        let wire = Wire {
            shard: usize::from(shard.0),
            unread: Vec::new(),
            received: Vec::new(),
            closed: false,
        };
        self.wires.insert(client.conn, wire);
        let info = ConnectionInfo {
            peer: ([127, 0, 0, 1], 50_000).into(),
            listener: "tcp://127.0.0.1:1883".into(),
            certificate_subject: None,
            promise: Promise::Buffered,
            keep_alive_secs_max: 0,
            allow_anonymous: self.anonymous,
        };
        let now = self.clock();
        self.shards[usize::from(shard.0)].handle_open(client.conn, info, now);
        self.send(client, who.bytes());
        client
    }

    /// Sends bytes of a client, and runs to quiet.
    pub(super) fn send(&mut self, client: Client, bytes: BytesMut) {
        let wire = self.wires.get_mut(&client.conn).unwrap();
        wire.unread.extend_from_slice(&bytes);
        self.feed(client.conn);
        self.settle();
    }

    /// The client's transport breaks.
    pub(super) fn lose(&mut self, client: Client) {
        let now = self.clock();
        let wire = self.wires.get_mut(&client.conn).unwrap();
        wire.closed = true;
        let shard = wire.shard;
        self.shards[shard].handle_closed(client.conn, now);
        self.settle();
    }

    pub(super) fn mail(&mut self, shard: usize, mail: Mail) {
        let now = self.clock();
        self.shards[shard].handle_mail(mail, now);
        self.settle();
    }

    /// A message that another node accepted reaches this one, as the hub would take it in.
    pub(super) fn forward(&mut self, seq: u64, topic: &str, payload: &'static str) {
        let targets = ForwardTargets { plain: true, ..ForwardTargets::default() };
        self.forward_to(seq, topic, payload, &targets);
    }

    /// The same, for these.
    pub(super) fn forward_to(
        &mut self,
        seq: impl Into<u64>,
        topic: &str,
        payload: &'static str,
        targets: &ForwardTargets,
    ) {
        let seq = seq.into();
        let message = Message {
            id: MessageId { node: NodeKey(99), incarnation: 1, seq },
            publisher: "far".into(),
            stamp: Hlc::from_wall(UnixMillis(self.now)),
            expires_at: None,
            topic: TopicName::parse(topic).unwrap(),
            qos: QoS::ExactlyOnce,
            retain: false,
            class: Class::Control,
            properties: KeptProperties::default(),
            payload: Bytes::from_static(payload.as_bytes()),
            row: None,
        };
        let row = self.shared.next_message_id();
        let message = message_from_afar(message_to_record(&message), row).unwrap();
        let (mut batch, now) = (Batch::new(), self.clock());
        let mut planner = Planner::new(Arc::clone(&self.shared));
        let plan = planner.plan(&message, Origin::Forwarded(targets), now, &mut batch);
        self.store.commit(&[batch], true).unwrap();
        for (shard, delivery) in plan.deliveries {
            self.mail.push_back((shard, Mail::Deliver(vec![delivery])));
        }
        self.settle();
    }

    /// Lets time pass, doing what is due when it is due.
    pub(super) fn wait(&mut self, duration: Duration) {
        let end = self.now + u64::try_from(duration.as_millis()).unwrap();
        self.wait_until(end);
    }

    pub(super) fn wait_until(&mut self, end: u64) {
        while let Some(due) = self.next_due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let now = self.clock();
            for shard in &mut self.shards {
                shard.handle_timeout(now);
            }
            self.settle();
        }
        self.now = end;
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.shards.iter().filter_map(|shard| shard.poll_timeout()).map(|due| due.0).min()
    }

    /// What the client received since it was last asked, then "closed" if its transport ended.
    pub(super) fn got(&mut self, client: Client) -> Vec<String> {
        let wire = self.wires.get_mut(&client.conn).unwrap();
        let mut lines = read(client.version, &mut wire.received);
        if wire.closed {
            lines.push("closed".into());
        }
        lines
    }

    /// The bytes the client received.
    pub(super) fn raw(&mut self, client: Client) -> Vec<u8> {
        std::mem::take(&mut self.wires.get_mut(&client.conn).unwrap().received)
    }

    /// The reason strings of what the client received.
    pub(super) fn words(&mut self, client: Client) -> Vec<Option<String>> {
        read_words(client.version, &mut self.wires.get_mut(&client.conn).unwrap().received)
    }

    pub(super) fn expect(&mut self, client: Client, lines: &[&str]) {
        assert_eq!(self.got(client), lines);
    }

    /// Commits the oldest batch that waits.
    pub(super) fn commit(&mut self) {
        let (shard, ticket, batch, _) = self.uncommitted.pop_front().expect("a batch waits");
        self.commit_batch(shard, ticket, batch);
        self.settle();
    }

    pub(super) fn fail_commit(&mut self) {
        let (shard, ticket, ..) = self.uncommitted.pop_front().expect("a batch waits");
        let error = StoreError::Full { detail: "as asked".into() };
        let now = self.clock();
        self.shards[shard].handle_commit(ticket, Err(error), now);
        self.settle();
    }

    /// Commits all there is, and what comes of it.
    pub(super) fn commit_all(&mut self) {
        while !self.uncommitted.is_empty() {
            self.commit();
        }
    }

    pub(super) fn ledger(&self) -> LedgerSnapshot {
        self.shared.ledger.snapshot()
    }

    /// Rows of queues and messages that are stored.
    pub(super) fn rows(&self) -> (usize, usize) {
        use verge_storage::StoreRows as _;
        (self.store.queues().count(), self.store.messages().count())
    }

    pub(super) fn held(&mut self) -> u64 {
        (0..self.shards.len()).map(|shard| self.held_by(shard)).sum()
    }

    pub(super) fn query(&mut self, query: Query) -> Vec<Answer> {
        let now = self.clock();
        let mut answers = Vec::new();
        for shard in &mut self.shards {
            let (sender, receiver) = std::sync::mpsc::sync_channel(1);
            let reply = Box::new(move |answer| sender.send(answer).unwrap());
            shard.handle_mail(Mail::Query(query.clone(), reply), now);
            answers.push(receiver.recv().unwrap());
        }
        answers
    }

    fn held_by(&mut self, shard: usize) -> u64 {
        let Answer::Held(held) = self.query(Query::Held).swap_remove(shard) else {
            panic!("Held answers Held")
        };
        held.total()
    }

    fn feed(&mut self, conn: ConnId) {
        let now = self.clock();
        let wire = self.wires.get_mut(&conn).unwrap();
        if wire.closed {
            return;
        }
        let used = self.shards[wire.shard].handle_bytes(conn, &wire.unread, now);
        wire.unread.drain(..used);
    }

    /// Turns until nothing is left to do, then checks.
    pub(super) fn settle(&mut self) {
        loop {
            let mut again = false;
            for index in 0..self.shards.len() {
                again |= self.turn(index);
            }
            while let Some((to, mail)) = self.mail.pop_front() {
                let now = self.clock();
                self.shards[usize::from(to.0)].handle_mail(mail, now);
                again = true;
            }
            if !again {
                break;
            }
        }
        self.check();
    }

    fn turn(&mut self, index: usize) -> bool {
        let now = self.clock();
        let mut again = false;
        self.shards[index].end_turn(now);
        while let Some(output) = self.shards[index].poll_output() {
            again = true;
            match output {
                Output::Commit { ticket, batch, promise } => {
                    if self.commits {
                        self.commit_batch(index, ticket, batch);
                    } else {
                        self.uncommitted.push_back((index, ticket, batch, promise));
                    }
                }
                Output::Mail { to, mail } => self.mail.push_back((to, mail)),
                Output::Hub(mail) => self.hub.push_back((index, mail)),
                Output::Feed(conn) => self.feed(conn),
                Output::FeedStream { conn, stream } => self.feed_stream(conn, stream),
                Output::CloseStream { conn, stream, last, code } => {
                    self.end_stream(conn, stream, &last, code);
                }
                Output::CheckPassword { conn, check } => {
                    let authn = self.terms.authn.as_ref().unwrap();
                    let verdict = authn.check_password(&check, now.mono);
                    let to = ShardIndex(u16::try_from(index).unwrap());
                    self.mail.push_back((to, Mail::PasswordChecked { conn, verdict }));
                }
                Output::Close { conn, last } => self.end(conn, &last),
            }
        }
        self.read_streams(index);
        while let Some(conn) = self.shards[index].poll_dirty() {
            if !self.reading {
                continue;
            }
            let out: Bytes = self.shards[index].output_mut(conn).unwrap().split().freeze();
            self.wires.get_mut(&conn).unwrap().received.extend_from_slice(&out);
        }
        again
    }

    /// The clients read everything that waits for them.
    pub(super) fn read_all(&mut self) {
        self.reading = true;
        let now = self.clock();
        let conns: Vec<_> = self.wires.iter().map(|(conn, wire)| (*conn, wire.shard)).collect();
        for (conn, shard) in conns {
            let Some(out) = self.shards[shard].output_mut(conn) else { continue };
            let out: Bytes = out.split().freeze();
            self.wires.get_mut(&conn).unwrap().received.extend_from_slice(&out);
            self.shards[shard].handle_writable(conn, now);
        }
        self.settle();
    }

    fn commit_batch(&mut self, shard: usize, ticket: Ticket, batch: Batch) {
        let result = self.store.commit(&[batch], true).map(drop);
        let now = self.clock();
        self.shards[shard].handle_commit(ticket, result, now);
    }

    fn end(&mut self, conn: ConnId, last: &[u8]) {
        let wire = self.wires.get_mut(&conn).unwrap();
        if !wire.closed {
            wire.received.extend_from_slice(last);
            wire.closed = true;
        }
    }

    fn check(&mut self) {
        for shard in &self.shards {
            shard.check_invariants();
        }
        let mut held = Held::default();
        for answer in self.query(Query::Held) {
            let Answer::Held(of_shard) = answer else { panic!("Held answers Held") };
            held += of_shard;
        }
        for (books, held) in self.shared.ledger.by_class().iter().zip(held.messages) {
            assert_eq!(books.balance(held), 0, "the books of each class balance: {books:?}");
        }
    }
}

fn config(id: &NodeId, index: ShardIndex, count: u16, mesh: bool) -> ShardConfig {
    ShardConfig {
        index,
        count,
        node: id.key(),
        mesh,
        packet_bytes_max: 64 * 1024,
        receive_maximum: 16,
        inflight_max: 64,
        topic_alias_maximum: 8,
        keep_alive_secs_max: 0,
        connect_timeout: Duration::from_secs(10),
        session_expiry_secs_max: None,
        v3_session_expiry_secs: None,
        park_after: Duration::from_secs(1),
        queue_messages_max: LIMIT,
        queue_bytes_max: 1024 * 1024,
        output_bytes_high: 1024,
        promise: Promise::Buffered,
        qos_max: QoS::ExactlyOnce,
        handover_hold: Duration::from_secs(2),
        handover_unreachable_wait: Duration::from_secs(2),
        handover_linger: Duration::from_secs(30),
        handovers_max: 4,
        terms: Terms::default(),
    }
}
