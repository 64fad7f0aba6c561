//! What the core asks of its driver, and tells the node.

use std::net::SocketAddr;

use bytes::Bytes;
use verge_model::{Claim, Class, ClientKey, NodeId, NodeKey};
use verge_storage::Batch;

use crate::config::NodeInfo;
use crate::crdt::sessions::RegistryEntry;
use crate::wire::RouteHead;

/// One of the two connections of a pair of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LinkKind {
    /// Datagrams, [`Lane::Safety`] and [`Lane::Control`].
    Fast,
    /// [`Lane::Telemetry`] and [`Lane::Bulk`].
    Bulk,
}

impl LinkKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Fast, Self::Bulk];
}

/// A stream of a link. Frames of one lane arrive in order, each whole; lanes do not wait for each
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Messages of class `safety`.
    Safety,
    /// Operations, registry, handover, acknowledgements, messages of class `control`.
    Control,
    /// Messages of class `telemetry`.
    Telemetry,
    /// Messages of class `bulk`, uplinks, repair.
    Bulk,
}

impl Lane {
    /// Every lane, most urgent first.
    pub const ALL: [Self; 4] = [Self::Safety, Self::Control, Self::Telemetry, Self::Bulk];

    /// The link that carries the lane.
    #[must_use]
    pub fn link(self) -> LinkKind {
        match self {
            Self::Safety | Self::Control => LinkKind::Fast,
            Self::Telemetry | Self::Bulk => LinkKind::Bulk,
        }
    }

    /// The lane of messages of `class`.
    #[must_use]
    pub fn of(class: Class) -> Self {
        match class {
            Class::Safety => Self::Safety,
            Class::Control => Self::Control,
            Class::Telemetry => Self::Telemetry,
            Class::Bulk => Self::Bulk,
        }
    }
}

/// Names a batch whose commit the core waits for. Tickets grow; a commit stands for all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The outcome of a look-up.
#[derive(Debug, Clone, PartialEq)]
pub struct LookupAnswer {
    /// The caller's name for the look-up.
    pub ticket: u64,
    /// Whose session.
    pub client: ClientKey,
    /// What the homes know, merged; `None`: nothing.
    pub entry: Option<RegistryEntry>,
    /// Whether every home answered. If not, an owner may exist that nobody reached knows.
    pub complete: bool,
}

/// What to do next. Outputs are to be taken in order, all of them, after every input or command.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Write `frame` as the link's greeting: the first thing on it, before any lane.
    Hello {
        /// The peer.
        peer: NodeKey,
        /// Which link.
        kind: LinkKind,
        /// For the peer's `handle_hello`.
        frame: Bytes,
    },
    /// Write `frame` to a lane of an established link. A driver that cannot keep it closes the
    /// link: frames of a lane are never skipped.
    Send {
        /// The peer.
        peer: NodeKey,
        /// The lane.
        lane: Lane,
        /// For the peer's `handle_frame`.
        frame: Bytes,
    },
    /// Send a datagram on the fast link; it may be lost.
    Datagram {
        /// The peer.
        peer: NodeKey,
        /// For the peer's `handle_datagram`.
        bytes: Bytes,
    },
    /// Try to make a link. The core asks again, later and later, until `handle_link_up`; a driver
    /// already trying ignores it.
    Dial {
        /// Whom to dial.
        addr: SocketAddr,
        /// Who must answer, if known.
        node: Option<NodeId>,
        /// Which link is missing.
        kind: LinkKind,
    },
    /// Close the peer's links: it broke the protocol. Its links are refused for
    /// [`QUARANTINE`](crate::QUARANTINE).
    Close {
        /// The peer.
        peer: NodeKey,
        /// For the log and the peer.
        reason: String,
    },
    /// Close the link: the peer may not be talked to as things are.
    Refused {
        /// Who greeted.
        peer: NodeId,
        /// Which link to close.
        kind: LinkKind,
        /// For the log and the peer.
        reason: String,
    },
    /// A join address has not answered for a while; said once per
    /// [`JOIN_REPORT_PERIOD`](crate::JOIN_REPORT_PERIOD).
    JoinUnanswered {
        /// The address.
        addr: SocketAddr,
        /// How often it was dialled.
        attempts: u32,
    },
    /// Peers know a later life of this node, or more of its logs, than its disk does: a copy was
    /// restored, or the disk was wiped. The node must end and start again with an incarnation above
    /// `incarnation` and a new log id; until then nothing is forwarded to that peer.
    DiskBehind {
        /// Who said so.
        peer: NodeKey,
        /// The greatest incarnation that peer knows of this node.
        incarnation: verge_model::Incarnation,
    },
    /// Commit the batch, in order with all others; then `handle_committed`.
    Persist {
        /// What to commit.
        batch: Batch,
        /// What to confirm.
        ticket: Ticket,
    },
    /// A node and all it says of itself: it came up, or changed while up.
    MemberUp(NodeInfo),
    /// A node is gone, by the mesh's judgement or its own word. What it owned stays its own.
    MemberDown(NodeId),
    /// Another node's wanted filters changed. Said at the start for all restored ones.
    RemoteRoutes {
        /// Who wants them.
        origin: NodeKey,
        /// Filters now wanted.
        added: Vec<String>,
        /// Filters not wanted any more.
        removed: Vec<String>,
    },
    /// Make sure that all this node has planned so far is committed, and its appended rows told
    /// by `forward_appended`; then say `barrier_passed`.
    Barrier,
    /// Whatever any node planned before it had the owner's routes up to `head` is in this node's
    /// custody, as far as it is this node's. Said in answer to `flush`, and as the head grows.
    Flushed {
        /// Whose routes.
        owner: NodeKey,
        /// Up to which operation.
        head: RouteHead,
    },
    /// A message from another node, for the first time in this process's life. Store what it
    /// causes and the link_in row in one batch, then say `custody`.
    Forwarded {
        /// The node whose log it is.
        origin: NodeKey,
        /// Which log of that node.
        log_id: u64,
        /// Which class.
        class: Class,
        /// Its place in the log.
        seq: u64,
        /// The record, as given to `forward_appended` there.
        record: Bytes,
    },
    /// A message from another node that no log holds: QoS 0.
    Transient {
        /// Who sent it.
        from: NodeKey,
        /// The record, as given to `send_transient` there.
        record: Bytes,
    },
    /// Read rows of a forward log and answer with `forward_rows`, naming the same `from_seq`.
    ReadForward {
        /// The log's peer.
        peer: NodeKey,
        /// The log's class.
        class: Class,
        /// The first row wanted.
        from_seq: u64,
        /// About how much; at least one row if there is one.
        bytes_max: usize,
    },
    /// A frame of the handover protocol.
    Handover {
        /// Who sent it.
        from: NodeKey,
        /// The frame.
        bytes: Bytes,
    },
    /// A frame of the uplink protocol.
    Uplink {
        /// Who sent it.
        from: NodeKey,
        /// The frame.
        bytes: Bytes,
    },
    /// A look-up is over.
    Lookup(LookupAnswer),
    /// A session this node owned, or claimed, has a greater claim now.
    Superseded {
        /// Whose session.
        client: ClientKey,
        /// The greatest claim known.
        winner: Claim,
        /// Whether the winner's client asked for a clean start: what this node holds is discarded.
        clean: bool,
    },
}
