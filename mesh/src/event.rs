//! What the link layer tells the node, and how it refuses.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use verge_model::{NodeId, NodeKey};

use crate::{FRAME_BYTES_MAX, Lane, LinkKind};

/// Something that happened on the links.
///
/// The events of one peer and kind come as `Up`, `Hello`, then frames in the order of their lane and
/// datagrams, then `Down`; nothing comes between `Down` and the next `Up`. `Down` may come at any
/// place after `Up`. There is no order between kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// A link may be used. Both sides know each other's certificate.
    Up {
        /// The node at the other end.
        peer: NodeId,
        /// Which of the two links.
        kind: LinkKind,
        /// Its address.
        addr: SocketAddr,
        /// Whether this side dialled.
        dialled: bool,
    },
    /// A link may no longer be used. What was queued may or may not have arrived.
    Down {
        /// The node at the other end.
        peer: NodeId,
        /// Which of the two links.
        kind: LinkKind,
        /// Why, for the log.
        reason: String,
    },
    /// The peer's hello arrived. Nothing else of a link is read before it.
    Hello {
        /// The node at the other end.
        peer: NodeId,
        /// Which of the two links.
        kind: LinkKind,
        /// What it said.
        bytes: Bytes,
    },
    /// A frame arrived on a lane.
    Frame {
        /// The sender.
        peer: NodeKey,
        /// The lane.
        lane: Lane,
        /// The frame.
        bytes: Bytes,
    },
    /// A datagram arrived.
    Datagram {
        /// The sender.
        peer: NodeKey,
        /// The datagram.
        bytes: Bytes,
    },
    /// A dial reached a node that has a link already, and that one stays.
    DialAnswered {
        /// The node found there.
        peer: NodeId,
        /// What was dialled.
        addr: SocketAddr,
    },
    /// A dial gave no link.
    DialFailed {
        /// What was dialled.
        addr: SocketAddr,
        /// Which link. A failed bulk link is dialled again by itself.
        kind: LinkKind,
        /// Who was expected there, or, once it is known, who is there.
        node: Option<NodeId>,
        /// Why, in one line.
        reason: String,
    },
}

/// Why a frame was not queued. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The link is not up, as far as the events that were taken tell.
    #[error("no link to this node")]
    NoLink,
    /// The lane's queue is full, or the hello was said already.
    #[error("the lane is full")]
    Full,
    /// The frame is longer than any link carries.
    #[error("a frame has at most {FRAME_BYTES_MAX} bytes, this one has {0}")]
    TooLarge(usize),
}

/// Why a datagram was not sent. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// The fast link is not up, as far as the events that were taken tell.
    #[error("no link to this node")]
    NoLink,
    /// The path does not carry a datagram of this size.
    #[error("this path carries datagrams of at most {0} bytes")]
    TooLarge(usize),
}

/// Why the link layer did not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be listened on.
    #[error("mesh address {addr}: {source}; choose another with --mesh-listen")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A development mesh does not leave the machine.
    #[error(
        "mesh address {addr}: with mesh.dev=true only a loopback address is listened on; use \
         127.0.0.1, or make certificates with `verge pki init` and `verge pki issue`"
    )]
    NotLoopback {
        /// The address.
        addr: SocketAddr,
    },
    /// The identity cannot be used for TLS.
    #[error("mesh certificate of this node: {0}")]
    Tls(#[from] rustls::Error),
    /// There is no runtime to run links on.
    #[error("links need a tokio runtime")]
    NoRuntime,
}
