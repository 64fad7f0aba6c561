//! A node: the real shards and hub, the reference store, and a disk that outlives the process.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use verge_broker_core::hub::{Hub, HubConfig};
use verge_broker_core::rule::TopicRules;
use verge_broker_core::shard::api::{
    Answer, ConnId, HubMail, Mail, Query, ShardConfig, ShardIndex, Terms, Ticket,
};
use verge_broker_core::shard::{Shard, restore};
use verge_broker_core::shared::NodeShared;
use verge_mesh_proto::{Lane, LinkKind, MeshConfig, MeshCore, Restored};
use verge_model::{NodeId, NodeKey, Now, Role};
use verge_mqtt_proto::QoS;
use verge_mqtt_proto::session::Held;
use verge_storage::memory::{Crash, MemoryDisk};
use verge_storage::{Batch, LogKey, MemoryStore, Promise, Store};

use super::honest::Honesty;

/// How long old routes stay after a handover, at least: shorter than many cuts last.
pub(crate) const LINGER: Duration = Duration::from_secs(5);

/// A node, alive or not.
pub(crate) struct Node {
    /// Its name.
    pub(crate) id: NodeId,
    /// What it is.
    pub(crate) role: Role,
    /// Whom it asks to join.
    pub(crate) join: Vec<SocketAddr>,
    /// How many shards it has.
    pub(crate) shards: u16,
    /// What is left of it while it does not run.
    pub(crate) disk: MemoryDisk,
    /// The name of its logs.
    pub(crate) log_id: u64,
    /// The process, while it runs.
    pub(crate) process: Option<Process>,
    /// How many processes there have been.
    pub(crate) life: u64,
}

/// A thread of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Thread {
    /// A shard.
    Shard(usize),
    /// The hub.
    Hub,
}

/// What a shard's thread is woken by.
pub(crate) enum ShardIn {
    /// A transport was accepted.
    Open(ConnId),
    /// Bytes of a client.
    Bytes(ConnId, Bytes),
    /// A transport ended.
    Closed(ConnId),
    /// Mail.
    Mail(Mail),
    /// A commit.
    Committed(Ticket),
}

/// What the hub's thread is woken by.
pub(crate) enum HubIn {
    /// Mail.
    Mail(HubMail),
    /// A link stands.
    LinkUp(NodeId, LinkKind, SocketAddr),
    /// A greeting.
    Hello(NodeId, LinkKind, Bytes),
    /// A dial led to a linked node.
    DialAnswered(NodeId, SocketAddr),
    /// A link is gone.
    LinkDown(NodeKey, LinkKind),
    /// A frame.
    Frame(NodeKey, Lane, Bytes),
    /// A datagram.
    Datagram(NodeKey, Bytes),
    /// A commit of the hub.
    Committed(Ticket),
    /// Rows of logs.
    Appended(Vec<(LogKey, u64, Bytes)>),
}

/// A running process.
pub(crate) struct Process {
    /// The shards.
    pub(crate) shards: Vec<Shard>,
    /// The hub.
    pub(crate) hub: Hub,
    /// What they share.
    pub(crate) shared: Arc<NodeShared>,
    /// The store.
    pub(crate) store: Arc<MemoryStore>,
    /// What shards have not yet been told.
    pub(crate) shard_in: Vec<VecDeque<ShardIn>>,
    /// What the hub has not yet been told.
    pub(crate) hub_in: VecDeque<HubIn>,
    /// Batches handed to the writer, in order.
    pub(crate) writer: VecDeque<(Thread, Ticket, Batch)>,
    /// Whether the writer is at work.
    pub(crate) writing: bool,
    /// When each thread is to be woken, so that it is woken once.
    pub(crate) wake_at: BTreeMap<Thread, u64>,
    /// Bytes that shards did not consume.
    pub(crate) unread: BTreeMap<ConnId, Vec<u8>>,
    /// What may be acknowledged.
    pub(crate) honesty: Honesty,
}

/// The address of a node.
pub(crate) fn addr(node: usize) -> SocketAddr {
    let last = u8::try_from(node + 1).expect("there are few nodes");
    SocketAddr::from(([10, 0, 0, last], 14_600))
}

impl Node {
    /// Starts a process on what the disk holds.
    pub(crate) fn boot(&mut self, index: usize, now: Now, seed: u64) {
        let disk = std::mem::take(&mut self.disk);
        let store = MemoryStore::open(disk, &self.id, self.log_id).expect("the disk is its own");
        let store = Arc::new(store);
        let identity = store.identity().clone();
        let rules = TopicRules::default();
        let shared = NodeShared::new(self.id.key(), identity.incarnation, rules);
        let shared = Arc::new(shared.with_store(Arc::clone(&store) as Arc<dyn Store>));
        let restored = restore::load(&*store, &shared, self.shards).expect("memory can be read");
        assert_eq!(restored.damaged, 0, "no row of {} is damaged", self.id);
        let mesh_restored = Restored::load(&*store).expect("memory can be read");
        assert_eq!(mesh_restored.corrupt, 0);
        let mut shards: Vec<Shard> = (0..self.shards)
            .map(|shard| Shard::new(self.shard_config(shard), Arc::clone(&shared), seed))
            .collect();
        for session in restored.sessions {
            shards[usize::from(session.shard(self.shards).0)].restore(session, now);
        }
        for delayed in restored.delayed {
            let shard = usize::from(delayed.shard(self.shards).0);
            shards[shard].restore_delayed(delayed, now).expect("it was written by a node");
        }
        shards.iter_mut().for_each(|shard| shard.start(now));
        let config = MeshConfig {
            node_id: self.id.clone(),
            role: self.role,
            region: "north".into(),
            advertise: addr(index),
            position: None,
            listeners: vec![],
            admin: None,
            incarnation: identity.incarnation,
            log_id: identity.log_id,
            dials_only: false,
            join: self.join.clone(),
            lookup_timeout: MeshConfig::LOOKUP_TIMEOUT,
        };
        let mut core = MeshCore::new(config, mesh_restored, now, seed);
        for filter in shared.router.routes() {
            core.add_route(filter.shared_text());
        }
        let config = HubConfig { shards: self.shards, promise: Promise::Buffered };
        let hub = Hub::new(config, core, Arc::clone(&shared));
        self.process = Some(Process {
            shard_in: shards.iter().map(|_| VecDeque::new()).collect(),
            honesty: Honesty::new(shards.len()),
            shards,
            hub,
            shared,
            store,
            hub_in: VecDeque::new(),
            writer: VecDeque::new(),
            writing: false,
            wake_at: BTreeMap::new(),
            unread: BTreeMap::new(),
        });
    }

    /// Ends the process; what was committed survives.
    pub(crate) fn kill(&mut self) {
        self.life += 1;
        if let Some(process) = self.process.take() {
            self.disk = process.store.durable_copy(Crash::Process);
        }
    }

    /// How often this process has served a session without its owner's word.
    pub(crate) fn served_without_owner(&self) -> u64 {
        let counters = self.process.as_ref().map(|process| process.shared.counters.snapshot());
        counters.map_or(0, |counters| counters.handovers_unreachable)
    }

    fn shard_config(&self, shard: u16) -> ShardConfig {
        ShardConfig {
            index: ShardIndex(shard),
            count: self.shards,
            node: self.id.key(),
            mesh: true,
            packet_bytes_max: 64 * 1024,
            receive_maximum: 16,
            inflight_max: 8,
            topic_alias_maximum: 8,
            keep_alive_secs_max: 0,
            connect_timeout: Duration::from_secs(10),
            session_expiry_secs_max: None,
            v3_session_expiry_secs: None,
            park_after: Duration::from_millis(100),
            queue_messages_max: 10_000,
            queue_bytes_max: 16 * 1024 * 1024,
            output_bytes_high: 4 * 1024,
            promise: Promise::Buffered,
            qos_max: QoS::ExactlyOnce,
            handover_hold: Duration::from_secs(2),
            handover_unreachable_wait: Duration::from_secs(2),
            handover_linger: LINGER,
            handovers_max: 64,
            terms: Terms::default(),
        }
    }
}

impl Process {
    /// Asks every shard.
    pub(crate) fn query(&mut self, query: &Query, now: Now) -> Vec<Answer> {
        let mut answers = Vec::new();
        for shard in &mut self.shards {
            let (sender, receiver) = std::sync::mpsc::sync_channel(1);
            let reply = Box::new(move |answer| sender.send(answer).expect("somebody asked"));
            shard.handle_mail(Mail::Query(query.clone(), reply), now);
            answers.push(receiver.recv().expect("questions are answered at once"));
        }
        answers
    }

    /// What the sessions hold.
    pub(crate) fn held(&mut self, now: Now) -> Held {
        let mut held = Held::default();
        for answer in self.query(&Query::Held, now) {
            if let Answer::Held(of_shard) = answer {
                held += of_shard;
            }
        }
        held
    }
}
