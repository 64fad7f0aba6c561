//! The wall clock, read here and nowhere else in this crate: certificates live by it.

use time::OffsetDateTime;

/// The present time.
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
