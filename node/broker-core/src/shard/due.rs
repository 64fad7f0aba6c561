//! A moment at which something is due, or never, in one word.

use verge_model::Millis;

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
