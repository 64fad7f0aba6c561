//! The greeting: the first frame on each link, in both directions.

use serde::{Deserialize, Serialize};
use verge_model::{Class, Incarnation};

use crate::config::NodeInfo;
use crate::limits::{
    INCARNATION_AHEAD_MAX, LISTENERS_MAX, LOGS_PER_ORIGIN_MAX, REGION_BYTES_MAX, WIRE_VERSION,
};

/// How far an origin's route operations are known: all of `incarnation` up to `seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct RouteHead {
    /// The origin's life.
    pub incarnation: Incarnation,
    /// The last operation of that life; 0: none.
    pub seq: u64,
}

/// How far the greeted node's forward log of one class is durable here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// The class.
    pub class: Class,
    /// Which log of the greeted node.
    pub log_id: u64,
    /// The last sequence whose effects are durable.
    pub last: u64,
}

/// Who the sender is, and what it has of the receiver, so that both resume where they were.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`WIRE_VERSION`].
    pub version: u16,
    /// The sender.
    pub info: NodeInfo,
    /// What the sender knows of the receiver's routes.
    pub routes: Option<RouteHead>,
    /// What the sender has of the receiver's logs.
    pub received: Vec<Received>,
    /// The greatest incarnation of the receiver the sender ever heard of.
    pub known_incarnation: Incarnation,
}

impl Hello {
    /// Checks what decoding cannot.
    ///
    /// # Errors
    /// Says what is wrong, for the peer's operator.
    pub fn validate(&self, receiver: &NodeInfo) -> Result<(), String> {
        if self.version != WIRE_VERSION {
            return Err(format!(
                "it speaks mesh version {}, this node speaks {WIRE_VERSION}",
                self.version
            ));
        }
        if self.info.region.len() > REGION_BYTES_MAX {
            return Err(format!("its region name is longer than {REGION_BYTES_MAX} bytes"));
        }
        if self.info.listeners.len() > LISTENERS_MAX {
            return Err(format!("it announces more than {LISTENERS_MAX} listeners"));
        }
        if self.known_incarnation > receiver.incarnation.saturating_add(INCARNATION_AHEAD_MAX) {
            return Err(format!(
                "it speaks of life {} of this node, whose life {} this is",
                self.known_incarnation, receiver.incarnation
            ));
        }
        if self.received.len() > LOGS_PER_ORIGIN_MAX * Class::ALL.len() {
            return Err("it names more logs than it may remember".into());
        }
        Ok(())
    }
}
