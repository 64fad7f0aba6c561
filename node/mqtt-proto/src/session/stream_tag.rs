//! Which of a connection's streams something belongs to, where the transport has streams.

/// A stream of one of a session's connections, as its session names it.
///
/// A tag is given once in a session's life, so that it never means another stream after the client
/// is back. What has no tag belongs to the control stream, as does everything of a session whose
/// client uses no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StreamTag(pub u32);

impl StreamTag {
    /// No tag: the control stream.
    pub const CONTROL: Self = Self(0);

    /// Whether it names the control stream.
    #[must_use]
    #[inline]
    pub const fn is_control(self) -> bool {
        self.0 == 0
    }
}
