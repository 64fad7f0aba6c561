//! What comes out of a [`Hub`](super::Hub).

use std::net::SocketAddr;

use bytes::Bytes;
use verge_mesh_proto::{Lane, LinkKind, NodeInfo};
use verge_model::{Class, Incarnation, NodeId, NodeKey};
use verge_storage::{Batch, Promise};

use crate::shard::api::{Mail, ShardIndex, Ticket};

/// What a driver does for the hub, in this order.
pub enum HubOutput {
    /// Hand the batch to the storage writer, and call
    /// [`Hub::handle_commit`](super::Hub::handle_commit) when it is durable at the promise.
    Commit {
        /// Names the batch.
        ticket: Ticket,
        /// The rows.
        batch: Batch,
        /// The promise.
        promise: Promise,
    },
    /// Put mail into a shard's mailbox.
    Mail {
        /// The shard.
        to: ShardIndex,
        /// The mail.
        mail: Mail,
    },
    /// Write the greeting of a link.
    Hello {
        /// The peer.
        peer: NodeKey,
        /// Which link.
        kind: LinkKind,
        /// The frame.
        frame: Bytes,
    },
    /// Write a frame to a lane.
    Send {
        /// The peer.
        peer: NodeKey,
        /// The lane.
        lane: Lane,
        /// The frame.
        frame: Bytes,
    },
    /// Send a datagram.
    Datagram {
        /// The peer.
        peer: NodeKey,
        /// The datagram.
        bytes: Bytes,
    },
    /// Try to make a link.
    Dial {
        /// Whom to dial.
        addr: SocketAddr,
        /// Who must answer, if known.
        node: Option<NodeId>,
        /// Which link is missing.
        kind: LinkKind,
    },
    /// Close the links of a peer.
    Close {
        /// The peer.
        peer: NodeKey,
        /// For the log and the peer.
        reason: String,
    },
    /// Close a link: the peer may not be talked to as things are.
    Refused {
        /// Who greeted.
        peer: NodeId,
        /// Which link to close.
        kind: LinkKind,
        /// For the log and the peer.
        reason: String,
    },
    /// A join address has not answered for a while: tell the operator.
    JoinUnanswered {
        /// The address.
        addr: SocketAddr,
        /// How often it was dialled.
        attempts: u32,
    },
    /// Peers know a later life of this node than its disk: it must start again above it.
    DiskBehind {
        /// Who said so.
        peer: NodeKey,
        /// The greatest incarnation that peer knows of this node.
        incarnation: Incarnation,
    },
    /// Read rows of a forward log, then call
    /// [`Hub::handle_forward_rows`](super::Hub::handle_forward_rows).
    ReadForward {
        /// The log's peer.
        peer: NodeKey,
        /// The log's class.
        class: Class,
        /// The first row wanted.
        from_seq: u64,
        /// About how many bytes.
        bytes_max: usize,
    },
    /// A row was added to an outbox: its uplink may send.
    OutboxAppended {
        /// The outbox.
        stream: u16,
        /// The row's place.
        seq: u64,
    },
    /// A frame of the uplink protocol, for the uplinks.
    Uplink {
        /// Who sent it.
        from: NodeKey,
        /// The frame.
        bytes: Bytes,
    },
    /// A node came up, or changed what it says of itself.
    MemberUp(NodeInfo),
    /// A node is gone.
    MemberDown(NodeId),
}
