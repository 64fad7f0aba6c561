//! A moment at which something is due, or never, in one word.

use verge_model::{Millis, UnixMillis};

/// When something is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due(Millis);

impl Due {
    /// Never: later than any clock shows.
    pub(crate) const NEVER: Self = Self(Millis(u64::MAX));

    /// When; none if never.
    pub(crate) fn at(self) -> Option<Millis> {
        (self != Self::NEVER).then_some(self.0)
    }
}

impl From<Option<Millis>> for Due {
    fn from(at: Option<Millis>) -> Self {
        at.map_or(Self::NEVER, Self)
    }
}

impl From<Millis> for Due {
    fn from(at: Millis) -> Self {
        Self(at)
    }
}

/// A moment by the wall clock, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(UnixMillis);

impl Moment {
    /// None: later than any clock shows.
    pub(crate) const NONE: Self = Self(UnixMillis(u64::MAX));

    /// When; none if never.
    pub(crate) fn at(self) -> Option<UnixMillis> {
        (self != Self::NONE).then_some(self.0)
    }
}

impl From<Option<UnixMillis>> for Moment {
    fn from(at: Option<UnixMillis>) -> Self {
        at.map_or(Self::NONE, Self)
    }
}

impl From<UnixMillis> for Moment {
    fn from(at: UnixMillis) -> Self {
        Self(at)
    }
}
