//! QoS 2 messages on their way in (MQTT 5.0, 4.3.3, the receiver's side).
//!
//! ```text
//!            PUBLISH: route it            PUBREL
//!   unknown ────────────────▶ received ──────────▶ unknown
//!                              │    ▲
//!                              └────┘ PUBLISH again: acknowledge only
//! ```

use std::collections::VecDeque;

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
    /// Ascending. Clients count upwards and release in order, so that most come and go at the ends.
    /// There once the client has published at QoS 2.
    #[allow(clippy::box_collection, reason = "most clients never do, and have a word for it")]
    received: Option<Box<VecDeque<PacketId>>>,
}

impl Inbound {
    /// Notes a QoS 2 PUBLISH. The caller stores the id in the same batch as the message.
    pub fn handle_publish(&mut self, id: PacketId) -> Receipt {
        let received = self.received.get_or_insert_default();
        if received.back().is_none_or(|last| *last < id) {
            received.push_back(id);
            return Receipt::Fresh;
        }
        match received.binary_search(&id) {
            Ok(_) => Receipt::Again,
            Err(place) => {
                received.insert(place, id);
                Receipt::Fresh
            }
        }
    }

    /// Notes a PUBREL; false if no message with this id was pending (answered with 0x92 in
    /// MQTT 5.0). The caller deletes the stored id before it answers.
    pub fn handle_pubrel(&mut self, id: PacketId) -> bool {
        let Some(received) = &mut self.received else { return false };
        let place = received.binary_search(&id);
        place.is_ok_and(|place| received.remove(place).is_some())
    }

    /// Takes back a PUBLISH that could not be stored, so that its retransmission is fresh.
    pub fn forget(&mut self, id: PacketId) {
        self.handle_pubrel(id);
    }

    /// The pending ids, ascending.
    pub fn iter(&self) -> impl Iterator<Item = PacketId> {
        self.received.iter().flat_map(|received| received.iter().copied())
    }

    /// How many ids are pending.
    #[must_use]
    pub fn len(&self) -> usize {
        self.received.as_ref().map_or(0, |received| received.len())
    }

    /// Whether none is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl FromIterator<PacketId> for Inbound {
    fn from_iter<I: IntoIterator<Item = PacketId>>(ids: I) -> Self {
        let mut received: Vec<_> = ids.into_iter().collect();
        received.sort_unstable();
        received.dedup();
        Self { received: (!received.is_empty()).then(|| Box::new(received.into())) }
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
