//! What goes into a [`Shard`](super::Shard) and what comes out of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use verge_mesh_proto::RouteHead;
use verge_mesh_proto::crdt::sessions::RegistryEntry;
use verge_model::{Claim, Class, ClientId, ClientKey, MessageId, NodeKey, UnixMillis};
use verge_mqtt_proto::QoS;
use verge_mqtt_proto::message::Message;
use verge_mqtt_proto::session::{Held, Stored, StreamTag};
use verge_mqtt_proto::topic::filter::TopicFilter;
use verge_mqtt_proto::topic::name::TopicName;
use verge_storage::Batch;
use verge_storage::promise::Promise;

pub use super::streams::api::{StreamCode, StreamEnd, StreamKind, StreamNo};
pub use super::terms::Terms;
use crate::authn::{PasswordCheck, PasswordVerdict};

/// A connection of this shard, as its driver numbers it. Never re-used within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

impl From<ConnId> for u64 {
    fn from(id: ConnId) -> Self {
        id.0
    }
}

/// A shard of this node, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardIndex(pub u16);

impl ShardIndex {
    /// The shard that serves a client, of `count` shards.
    #[must_use]
    pub fn of(client: &ClientKey, count: u16) -> Self {
        Self::of_hash(client.stable_hash(), count)
    }

    /// The same, by the client's [stable hash](ClientKey::stable_hash).
    #[must_use]
    pub fn of_hash(client_hash: u64, count: u16) -> Self {
        Self((client_hash % u64::from(count)) as u16)
    }
}

/// A session of this node. Numbers are given once and never re-used in a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionNo(pub u64);

impl From<SessionNo> for u64 {
    fn from(no: SessionNo) -> Self {
        no.0
    }
}

/// What is known of a connection before its CONNECT.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// The peer's address.
    pub peer: SocketAddr,
    /// The listener it came through, as configured: `tcp://127.0.0.1:1883`.
    pub listener: Arc<str>,
    /// The subject of a verified client certificate, if the listener asks for one.
    pub certificate_subject: Option<Arc<str>>,
    /// Promise for what is published through this listener.
    pub promise: Promise,
    /// Whether a client without credentials may connect.
    pub allow_anonymous: bool,
    /// Longest keep alive the transport can hold, in seconds; 0 for any.
    pub keep_alive_secs_max: u16,
}

/// One message for one session of another (or this) shard. Its row, if any, was written by the
/// planner that made it.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The session.
    pub session: SessionNo,
    /// Its position in the session's own lane.
    pub seq: u64,
    /// The message.
    pub message: Arc<Message>,
    /// QoS of the delivery.
    pub qos: QoS,
    /// RETAIN flag of the delivery.
    pub retain: bool,
    /// Identifiers of the matching subscriptions.
    pub subscription_ids: SmallVec<[u32; 2]>,
    /// The stream its subscriptions were made on.
    pub tag: StreamTag,
    /// The row that was written.
    pub stored: Stored,
    /// The shared subscription that chose the session.
    pub share: Option<Arc<TopicFilter>>,
}

/// What a shard receives from other shards, the hub and the administrator.
pub enum Mail {
    /// Messages for sessions of this shard.
    Deliver(Vec<Delivery>),
    /// A handover frame ([`verge_mesh_proto::handover::HandoverFrame`]) from another node.
    Handover {
        /// The node it came from.
        from: NodeKey,
        /// The frame.
        frame: Bytes,
    },
    /// The answer to [`HubMail::Lookup`].
    LookupAnswer {
        /// The asker's number.
        ticket: u64,
        /// What the homes of the session know; `None` if nobody knows it.
        entry: Option<Box<RegistryEntry>>,
        /// Whether all of them answered. If not, somebody out of reach may know more.
        complete: bool,
    },
    /// A greater claim on a session of this shard exists.
    Superseded {
        /// The session.
        client: ClientKey,
        /// The greater claim.
        winner: Claim,
        /// Whether the new owner started clean: the session here is to be discarded.
        clean: bool,
    },
    /// The answer to [`HubMail::RouteHead`].
    RouteHead {
        /// The asker's number.
        token: u64,
        /// How far the routes of this node are.
        head: RouteHead,
    },
    /// Whatever any node planned before it had the owner's routes up to `head` has reached this
    /// node, as far as it is this node's.
    Flushed {
        /// Whose routes.
        owner: NodeKey,
        /// Up to which operation.
        head: RouteHead,
    },
    /// A password of [`Output::CheckPassword`] was checked.
    PasswordChecked {
        /// The connection that gave it.
        conn: ConnId,
        /// How it was found.
        verdict: PasswordVerdict,
    },
    /// Say [`HubMail::Barrier`] when all that was planned so far is committed.
    Barrier,
    /// A link to this node came up.
    PeerUp(NodeKey),
    /// The last link to this node went down.
    PeerDown(NodeKey),
    /// Publishers need not wait for this session any more.
    Relieved(SessionNo),
    /// Messages of the node itself, for subscribers of this node.
    Publish(Vec<NodeMessage>),
    /// A question of the administrator; the answer goes through the closure.
    Query(Query, Box<dyn FnOnce(Answer) + Send>),
    /// End the connection of this client, with reason "Administrative action" (0x98).
    Kick(ClientKey),
    /// The node is going down: end every connection with "Server shutting down" (0x8B).
    Shutdown,
}

impl Mail {
    /// How much of a mailbox it takes: one for each message, more for large ones.
    #[must_use]
    pub fn weight(&self) -> usize {
        const MESSAGE_BYTES: usize = 2 * 1024;
        if let Self::Deliver(deliveries) = self {
            let bytes = |delivery: &Delivery| delivery.message.payload.len();
            deliveries.iter().map(|delivery| 1 + bytes(delivery) / MESSAGE_BYTES).sum()
        } else {
            1
        }
    }
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Deliver(_) => "Deliver",
            Self::Handover { .. } => "Handover",
            Self::LookupAnswer { .. } => "LookupAnswer",
            Self::Superseded { .. } => "Superseded",
            Self::RouteHead { .. } => "RouteHead",
            Self::Flushed { .. } => "Flushed",
            Self::PasswordChecked { .. } => "PasswordChecked",
            Self::Barrier => "Barrier",
            Self::PeerUp(_) => "PeerUp",
            Self::PeerDown(_) => "PeerDown",
            Self::Relieved(_) => "Relieved",
            Self::Publish(_) => "Publish",
            Self::Query(..) => "Query",
            Self::Kick(_) => "Kick",
            Self::Shutdown => "Shutdown",
        })
    }
}

/// What an administrator may ask a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// All connections.
    Clients,
    /// All sessions.
    Sessions,
    /// All subscriptions.
    Subscriptions,
    /// What is owed now, for the ledger.
    Held,
    /// The sessions that are owed the most, at most so many by messages and as many by bytes.
    Holders(usize),
    /// All messages that are published later.
    Delayed,
    /// How many of each there are.
    Counts,
}

/// A shard's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Query::Clients`].
    Clients(Vec<ClientView>),
    /// To [`Query::Sessions`].
    Sessions(Vec<SessionView>),
    /// To [`Query::Subscriptions`].
    Subscriptions(Vec<SubscriptionView>),
    /// To [`Query::Held`]: what is queued or in flight in all sessions.
    Held(Held),
    /// To [`Query::Holders`], in no order; one that has most of both is there once.
    Holders(Vec<HolderView>),
    /// To [`Query::Delayed`].
    Delayed(Vec<DelayedView>),
    /// To [`Query::Counts`].
    Counts(ShardCounts),
}

/// A connection, for the administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientView {
    /// Whose it is.
    pub client: ClientKey,
    /// The peer's address.
    pub peer: SocketAddr,
    /// The listener it came through.
    pub listener: Arc<str>,
    /// 3, 4 or 5.
    pub protocol_version: u8,
    /// Keep alive in seconds; 0 is off.
    pub keep_alive_secs: u16,
    /// Whether the session started clean.
    pub clean_start: bool,
    /// When it connected.
    pub connected_at: UnixMillis,
}

/// A session, for the administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// Whose it is.
    pub client: ClientKey,
    /// The claim under which this node has it.
    pub claim: Claim,
    /// Whether a connection serves it.
    pub connected: bool,
    /// Whether it was handed over and only its log is still here.
    pub sealed: bool,
    /// Session Expiry Interval in seconds; `None` never expires.
    pub session_expiry_secs: Option<u32>,
    /// Number of subscriptions.
    pub subscriptions: u64,
    /// Messages queued or in flight.
    pub queued: u64,
    /// Messages in flight.
    pub inflight: u64,
    /// Fragments of earlier owners still being pulled.
    pub open_fragments: u64,
}

/// What a session is owed, for the administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderView {
    /// Whose it is.
    pub client: ClientKey,
    /// Whether a connection serves it.
    pub connected: bool,
    /// The node that has taken it over and pulls what is held here.
    pub moves_to: Option<NodeKey>,
    /// What is held.
    pub held: Held,
}

/// A subscription, for the administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionView {
    /// Whose it is.
    pub client: ClientKey,
    /// The filter, with any `$share/…` or `$local/` prefix.
    pub filter: TopicFilter,
    /// Granted QoS.
    pub qos: u8,
}

/// A message of the node itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeMessage {
    /// Where.
    pub topic: TopicName,
    /// What.
    pub payload: Bytes,
    /// Whether it is kept for later subscribers.
    pub retain: bool,
}

/// How many there are at a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardCounts {
    /// Clients that have their CONNACK.
    pub connected: u64,
    /// Sessions that are this node's.
    pub sessions: u64,
    /// Those of them that are not in memory, as far as they are counted since the start.
    pub parked: u64,
    /// Messages queued or in flight in all sessions.
    pub held: u64,
}

/// A message that is published later, for the administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayedView {
    /// The message.
    pub id: MessageId,
    /// Where it is published.
    pub topic: String,
    /// Whose it is.
    pub publisher: ClientId,
    /// Its QoS.
    pub qos: u8,
    /// Its RETAIN flag.
    pub retain: bool,
    /// Length of its payload.
    pub payload_bytes: usize,
    /// When it was accepted.
    pub accepted_at: UnixMillis,
    /// When it is published.
    pub due_at: UnixMillis,
}

/// What a shard asks of the hub.
#[derive(Debug)]
pub enum HubMail {
    /// A filter has its first subscriber at this node.
    AddRoute(TopicFilter),
    /// A filter has lost its last subscriber at this node.
    RemoveRoute(TopicFilter),
    /// What this node knows of a session, for the session's homes.
    PutRegistry {
        /// The session.
        client: ClientKey,
        /// Its entry, merged by the homes.
        entry: Box<RegistryEntry>,
    },
    /// Who owns this session?
    Lookup {
        /// Where to answer.
        shard: ShardIndex,
        /// The asker's number.
        ticket: u64,
        /// The session.
        client: ClientKey,
    },
    /// A handover frame for another node.
    Handover {
        /// That node.
        to: NodeKey,
        /// The frame.
        frame: Bytes,
    },
    /// A message that no disk holds, for another node: QoS 0.
    Transient {
        /// That node.
        to: NodeKey,
        /// Its class.
        class: Class,
        /// The encoded [`ForwardRecord`](crate::record::ForwardRecord).
        record: Bytes,
    },
    /// How far are the routes of this node now?
    RouteHead {
        /// Where to answer.
        shard: ShardIndex,
        /// The asker's number.
        token: u64,
    },
    /// Say [`Mail::Flushed`] when whatever was planned without the owner's routes up to `head` has
    /// arrived.
    Flush {
        /// Whose routes.
        owner: NodeKey,
        /// Up to which operation.
        head: RouteHead,
    },
    /// The answer to [`Mail::Barrier`].
    Barrier,
}

/// A batch of this shard that was handed to the storage writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What a driver does for a shard, in this order.
#[derive(Debug)]
pub enum Output {
    /// Hand the batch to the storage writer, and call
    /// [`Shard::handle_commit`](super::Shard::handle_commit) when it is durable at the promise.
    /// Batches of one shard are committed in order, and reported in order.
    Commit {
        /// Names the batch.
        ticket: Ticket,
        /// The rows.
        batch: Batch,
        /// The strictest promise in it.
        promise: Promise,
    },
    /// Put mail into another shard's mailbox; after the commits before it were submitted.
    Mail {
        /// The shard.
        to: ShardIndex,
        /// The mail.
        mail: Mail,
    },
    /// Put mail into the hub's mailbox.
    Hub(HubMail),
    /// Offer the connection's unconsumed bytes again: it was waiting and now goes on.
    Feed(ConnId),
    /// Offer a stream's unconsumed bytes, and its end if it came: its connection was accepted.
    FeedStream {
        /// The connection.
        conn: ConnId,
        /// The stream.
        stream: StreamNo,
    },
    /// End a stream; its connection goes on. The stream is forgotten.
    CloseStream {
        /// The connection.
        conn: ConnId,
        /// The stream.
        stream: StreamNo,
        /// Its last output, to be followed by FIN; none if it is reset.
        last: Bytes,
        /// RESET_STREAM and STOP_SENDING with this code; `None`: FIN.
        code: Option<StreamCode>,
    },
    /// Check a password on a thread that serves no clients, and send [`Mail::PasswordChecked`].
    CheckPassword {
        /// The connection that gave it.
        conn: ConnId,
        /// What to check.
        check: PasswordCheck,
    },
    /// Write what is in the connection's output, then close it. The connection is forgotten, and
    /// its streams.
    Close {
        /// The connection.
        conn: ConnId,
        /// Its last output.
        last: Bytes,
    },
}

/// Bounds and times of a shard.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// This shard.
    pub index: ShardIndex,
    /// How many shards the node has.
    pub count: u16,
    /// This node's key.
    pub node: NodeKey,
    /// Whether other nodes exist or may come: off, a session is never looked up elsewhere.
    pub mesh: bool,
    /// Largest packet taken from a client, in bytes.
    pub packet_bytes_max: usize,
    /// Receive Maximum granted to clients.
    pub receive_maximum: u16,
    /// Most messages a client may have in flight from us, whatever it allows.
    pub inflight_max: u16,
    /// Topic Alias Maximum granted to clients.
    pub topic_alias_maximum: u16,
    /// Longest keep alive granted, in seconds; also what a client gets that asks for none, if set.
    pub keep_alive_secs_max: u16,
    /// How long a connection may take for its CONNECT.
    pub connect_timeout: Duration,
    /// Longest Session Expiry Interval granted; `None` for no bound.
    pub session_expiry_secs_max: Option<u32>,
    /// Session Expiry Interval of a 3.1.1 client with Clean Session 0.
    pub v3_session_expiry_secs: Option<u32>,
    /// How long a session stays in memory without a connection.
    pub park_after: Duration,
    /// Most messages queued for a session.
    pub queue_messages_max: usize,
    /// Most bytes queued for a session.
    pub queue_bytes_max: usize,
    /// Bytes in a connection's output above which its QoS 0 messages are dropped and its queue waits.
    pub output_bytes_high: usize,
    /// Promise for sessions and handovers.
    pub promise: Promise,
    /// Highest QoS granted.
    pub qos_max: QoS,
    /// How long new messages wait for an import that comes before them.
    pub handover_hold: Duration,
    /// How long a CONNECT waits for an old owner that does not answer before the session is served
    /// from its replicated subscriptions.
    pub handover_unreachable_wait: Duration,
    /// How long the old owner keeps its routes after a handover, at least.
    pub handover_linger: Duration,
    /// Most imports at once; beyond it a CONNECT is refused with "Connection rate exceeded" (0x9F).
    pub handovers_max: usize,
    /// What clients are granted beyond the above.
    pub terms: Terms,
}

/// The only shard of a node of its own, with the bounds of a roadside unit. For tests and tools; a
/// node takes its configuration from its file.
impl Default for ShardConfig {
    fn default() -> Self {
        Self {
            index: ShardIndex(0),
            count: 1,
            node: NodeKey(1),
            mesh: false,
            packet_bytes_max: 1024 * 1024,
            receive_maximum: 1_024,
            inflight_max: 64,
            topic_alias_maximum: 64,
            keep_alive_secs_max: 0,
            terms: Terms::default(),
            connect_timeout: Duration::from_secs(10),
            session_expiry_secs_max: None,
            v3_session_expiry_secs: None,
            park_after: Duration::from_secs(5),
            queue_messages_max: 10_000,
            queue_bytes_max: 16 * 1024 * 1024,
            output_bytes_high: 64 * 1024,
            promise: Promise::Buffered,
            qos_max: QoS::ExactlyOnce,
            handover_hold: Duration::from_secs(2),
            handover_unreachable_wait: Duration::from_secs(2),
            handover_linger: Duration::from_secs(30),
            handovers_max: 64,
        }
    }
}
