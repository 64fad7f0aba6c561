//! QoS 2 messages on their way in (MQTT 5.0, 4.3.3, the receiver's side).
//!
//! ```text
//!            PUBLISH: route it            PUBREL
//!   unknown ────────────────▶ received ──────────▶ unknown
//!                              │    ▲
//!                              └────┘ PUBLISH again: acknowledge only
//! ```

use std::collections::BTreeSet;

use crate::PacketId;

/// What to do with an arriving QoS 2 PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// First sight of this packet id: route the message, then answer PUBREC.
    Fresh,
    /// The message was routed before; answer PUBREC again [MQTT-4.3.3-10].
    Again,
}

/// The packet ids a client has used for QoS 2 messages and not yet released.
#[derive(Debug, Clone, Default)]
pub struct Inbound {
    received: BTreeSet<PacketId>,
}

impl Inbound {
    /// Notes a QoS 2 PUBLISH. The caller stores the id in the same batch as the message.
    pub fn handle_publish(&mut self, id: PacketId) -> Receipt {
        if self.received.insert(id) { Receipt::Fresh } else { Receipt::Again }
    }

    /// Notes a PUBREL; false if no message with this id was pending (answered with 0x92 in
    /// MQTT 5.0). The caller deletes the stored id before it answers.
    pub fn handle_pubrel(&mut self, id: PacketId) -> bool {
        self.received.remove(&id)
    }

    /// Takes back a PUBLISH that could not be stored, so that its retransmission is fresh.
    pub fn forget(&mut self, id: PacketId) {
        self.received.remove(&id);
    }

    /// The pending ids, ascending.
    pub fn iter(&self) -> impl Iterator<Item = PacketId> {
        self.received.iter().copied()
    }

    /// How many ids are pending.
    #[must_use]
    pub fn len(&self) -> usize {
        self.received.len()
    }

    /// Whether none is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }
}

impl FromIterator<PacketId> for Inbound {
    fn from_iter<I: IntoIterator<Item = PacketId>>(ids: I) -> Self {
        Self { received: ids.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_routed_once_until_its_release() {
        let id = PacketId::new(7).unwrap();
        let mut inbound = Inbound::default();
        assert_eq!(inbound.handle_publish(id), Receipt::Fresh);
        assert_eq!(inbound.handle_publish(id), Receipt::Again);
        assert!(inbound.handle_pubrel(id));
        assert!(!inbound.handle_pubrel(id));
        assert_eq!(inbound.handle_publish(id), Receipt::Fresh);
    }
}
