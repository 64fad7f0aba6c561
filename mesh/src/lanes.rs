//! How lanes are laid out on links: which link carries a lane, its number on the wire, its priority.

use crate::{Lane, LinkKind};

/// Lanes of one link.
pub(crate) const LANES_PER_LINK: usize = 2;

/// The lanes of a kind of link, the more urgent one first.
pub(crate) fn lanes_of(kind: LinkKind) -> [Lane; LANES_PER_LINK] {
    match kind {
        LinkKind::Fast => [Lane::Safety, Lane::Control],
        LinkKind::Bulk => [Lane::Telemetry, Lane::Bulk],
    }
}

/// The kind of link that carries a lane, and the lane's place in [`lanes_of`] that kind.
pub(crate) fn place_of(lane: Lane) -> (LinkKind, usize) {
    match lane {
        Lane::Safety => (LinkKind::Fast, 0),
        Lane::Control => (LinkKind::Fast, 1),
        Lane::Telemetry => (LinkKind::Bulk, 0),
        Lane::Bulk => (LinkKind::Bulk, 1),
    }
}

/// The first byte of a lane's stream. Never reused for another lane.
pub(crate) fn wire_number(lane: Lane) -> u8 {
    match lane {
        Lane::Safety => 0,
        Lane::Control => 1,
        Lane::Telemetry => 2,
        Lane::Bulk => 3,
    }
}

/// The inverse of [`wire_number`], for the lanes of one kind of link.
pub(crate) fn lane_of_wire(kind: LinkKind, number: u8) -> Option<Lane> {
    lanes_of(kind).into_iter().find(|lane| wire_number(*lane) == number)
}

/// QUIC stream priority; a higher one is sent first.
pub(crate) fn priority(lane: Lane) -> i32 {
    match lane {
        Lane::Safety => 3,
        Lane::Control => 2,
        Lane::Telemetry => 1,
        Lane::Bulk => 0,
    }
}

/// The place of a kind in a pair of links.
pub(crate) fn kind_index(kind: LinkKind) -> usize {
    match kind {
        LinkKind::Fast => 0,
        LinkKind::Bulk => 1,
    }
}

/// The name of a kind in logs and reasons.
pub(crate) fn kind_name(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Fast => "fast",
        LinkKind::Bulk => "bulk",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_has_its_own_place_number_and_priority() {
        let all = [Lane::Safety, Lane::Control, Lane::Telemetry, Lane::Bulk];
        for (number, lane) in all.into_iter().enumerate() {
            let (kind, place) = place_of(lane);
            assert_eq!(kind, lane.link());
            assert_eq!(lanes_of(kind)[place], lane);
            assert_eq!(usize::from(wire_number(lane)), number);
            assert_eq!(lane_of_wire(kind, wire_number(lane)), Some(lane));
            assert_eq!(priority(lane), 3 - i32::try_from(number).unwrap());
        }
    }

    #[test]
    fn a_lane_of_the_other_link_is_not_known() {
        assert_eq!(lane_of_wire(LinkKind::Fast, 2), None);
        assert_eq!(lane_of_wire(LinkKind::Bulk, 0), None);
        assert_eq!(lane_of_wire(LinkKind::Bulk, 200), None);
    }
}
