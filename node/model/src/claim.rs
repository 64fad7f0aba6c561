//! Who owns a session.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::node_id::NodeKey;

/// Counts the owners a session has had. Never a clock.
pub type Epoch = u64;

/// A node's claim to own a session. Claims are ordered by epoch, then by node; the greatest wins.
///
/// A claim also names the *fragment* its node writes for the session: the log `L(epoch, node)`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct Claim {
    /// One more than the epoch of the owner it supersedes.
    pub epoch: Epoch,
    /// The node that claims.
    pub node: NodeKey,
}

impl Claim {
    /// The claim by which `node` supersedes `self`.
    #[must_use]
    pub fn superseded_by(self, node: NodeKey) -> Self {
        Self { epoch: self.epoch + 1, node }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {})", self.epoch, self.node)
    }
}
