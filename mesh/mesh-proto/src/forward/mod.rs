//! Messages from node to node: one log per peer and class, each message once and in order.
//!
//! ```text
//! accepting node                                  node that wants the message
//!   commit appends row n ──forward_appended
//!   │ window ──────────────Forward n────────────▶ n > handed? hand it on  ──Output::Forwarded
//!   │                                             commit(rows it caused, link_in = n)
//!   trim rows ≤ n ◀────────ForwardAck n────────── custody(n)
//! ```
//!
//! The sender's log and the receiver's `link_in` row are on disk; everything here can be lost. On
//! each link the receiver greets with what is durable there and the sender goes on after it; the
//! receiver hands on nothing twice in one life ([`receiver`]), and after a crash what it had handed
//! on but not committed comes again. The sender keeps little in memory ([`sender`]): what does not
//! fit is read from the log when its turn comes.

pub(crate) mod flush;
pub(crate) mod receiver;
pub(crate) mod sender;

pub(crate) use flush::Flushes;
pub(crate) use receiver::Receivers;
pub(crate) use sender::Senders;

use verge_model::{Class, NodeKey};
use verge_storage::LogBounds;

/// Which rows a forward log has, after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardBounds {
    /// The log's peer.
    pub peer: NodeKey,
    /// The log's class.
    pub class: Class,
    /// Its rows.
    pub rows: LogBounds,
}
