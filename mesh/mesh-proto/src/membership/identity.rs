//! What SWIM knows a node by.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use verge_model::{Incarnation, NodeId};

/// A life of a node. Two lives of one node contend, and the later wins: by boot counter, then by
/// renewals within a boot. No clock is in it: one set back would lose for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) node_id: NodeId,
    pub(crate) addr: SocketAddr,
    /// The boot counter, from disk.
    pub(crate) incarnation: Incarnation,
    /// How often the node was declared down in this boot and came back. In memory: coming back
    /// must not wait for a disk.
    pub(crate) renewal: u32,
}

impl Identity {
    /// Whom to announce to when only the name is known.
    pub(crate) fn unknown(node_id: NodeId, addr: SocketAddr) -> Self {
        Self { node_id, addr, incarnation: 0, renewal: 0 }
    }

    fn rank(&self) -> (Incarnation, u32, SocketAddr) {
        (self.incarnation, self.renewal, self.addr)
    }
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        let renewal = self.renewal.checked_add(1)?;
        Some(Self { renewal, ..self.clone() })
    }

    fn addr(&self) -> NodeId {
        self.node_id.clone()
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.rank() > adversary.rank()
    }
}
