//! Packet identifiers given by the server.

use verge_model::Epoch;

use crate::PacketId;

/// Packet ids of one owner of a session.
///
/// The 65,535 ids are split into four bands, and an owner uses the band of its epoch modulo four.
/// So an id given by an earlier owner that cannot be reached never meets an id of ours, and its
/// messages in flight can join ours later under their own ids: to the client they are the
/// retransmissions the standard asks for [MQTT-4.4.0-1].
#[derive(Debug, Clone)]
pub struct PacketIds {
    band: u16,
    next: u16,
}

/// Ids in a band, numbered from 1.
pub const BAND_IDS: u16 = 16_383;

impl PacketIds {
    /// The ids of the owner with this epoch.
    #[must_use]
    pub const fn new(epoch: Epoch) -> Self {
        Self { band: (epoch % 4) as u16, next: 1 }
    }

    /// The next id of the band for which `in_use` is false; `None` if all are in use.
    pub fn allocate(&mut self, in_use: impl Fn(PacketId) -> bool) -> Option<PacketId> {
        for _ in 0..BAND_IDS {
            let raw = self.band * (BAND_IDS + 1) + self.next;
            self.next = if self.next == BAND_IDS { 1 } else { self.next + 1 };
            let id = PacketId::new(raw).expect("an id in a band is at least 1");
            if !in_use(id) {
                return Some(id);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_of_four_epochs_are_disjoint_and_then_repeat() {
        let first = |epoch| PacketIds::new(epoch).allocate(|_| false).unwrap().get();
        assert_eq!([0, 1, 2, 3, 4].map(first), [1, 16_385, 32_769, 49_153, 1]);
        let mut last = PacketIds::new(3);
        let ids: Vec<u16> =
            (0..BAND_IDS).map(|_| last.allocate(|_| false).unwrap().get()).collect();
        assert_eq!((ids[0], *ids.last().unwrap()), (49_153, 65_535));
    }

    #[test]
    fn ids_in_use_are_skipped_and_a_full_band_gives_none() {
        let mut ids = PacketIds::new(0);
        assert_eq!(ids.allocate(|id| id.get() < 5).unwrap().get(), 5);
        assert_eq!(ids.allocate(|_| true), None);
        assert_eq!(ids.allocate(|_| false).unwrap().get(), 6);
    }
}
