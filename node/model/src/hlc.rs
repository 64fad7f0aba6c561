//! Hybrid logical clocks (Kulkarni et al., "Logical Physical Clocks", 2014).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::HLC_AHEAD_MAX;
use crate::time::UnixMillis;

/// A stamp that respects causality and stays near the wall clock: 48 bits of milliseconds and 16
/// bits of count. Used for retained messages, expiry and human-readable order only.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The first stamp of a millisecond.
    #[must_use]
    pub fn from_wall(wall: UnixMillis) -> Self {
        Self(wall.0 << 16)
    }

    /// The stamp's wall-clock part.
    #[must_use]
    pub fn wall(self) -> UnixMillis {
        UnixMillis(self.0 >> 16)
    }
}

/// A stamp lies further in the future than [`HLC_AHEAD_MAX`]; the clock did not follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a peer's stamp is {} ms ahead of this node's clock", ahead.as_millis())]
pub struct HlcTooFarAhead {
    /// How far ahead the stamp is.
    pub ahead: Duration,
}

/// The clock that gives stamps.
#[derive(Debug, Default)]
pub struct HlcClock {
    last: Hlc,
}

impl HlcClock {
    /// A stamp greater than every stamp given or observed before.
    pub fn stamp(&mut self, wall: UnixMillis) -> Hlc {
        self.last = Hlc((self.last.0 + 1).max(Hlc::from_wall(wall).0));
        self.last
    }

    /// Takes note of a peer's stamp, so that later stamps are greater.
    ///
    /// # Errors
    /// A stamp too far ahead is refused and changes nothing: one broken clock must not carry the
    /// whole mesh into the future.
    pub fn observe(&mut self, stamp: Hlc, wall: UnixMillis) -> Result<(), HlcTooFarAhead> {
        let ahead = stamp.wall().since(wall);
        if ahead > HLC_AHEAD_MAX {
            return Err(HlcTooFarAhead { ahead });
        }
        self.last = self.last.max(stamp);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_when_the_wall_clock_stands_or_falls() {
        let mut clock = HlcClock::default();
        let first = clock.stamp(UnixMillis(1_000));
        let second = clock.stamp(UnixMillis(1_000));
        let third = clock.stamp(UnixMillis(10));
        assert!(first < second && second < third);
        assert_eq!(third.wall(), UnixMillis(1_000));
    }

    #[test]
    fn a_peer_far_ahead_is_refused_and_not_followed() {
        let mut clock = HlcClock::default();
        let far = Hlc::from_wall(UnixMillis(10_000));
        assert!(clock.observe(far, UnixMillis(1_000)).is_err());
        assert!(clock.stamp(UnixMillis(1_000)) < far);
        let near = Hlc::from_wall(UnixMillis(1_400));
        assert!(clock.observe(near, UnixMillis(1_000)).is_ok());
        assert!(clock.stamp(UnixMillis(1_000)) > near);
    }
}
