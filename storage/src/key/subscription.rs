//! `subscription`: what a session subscribed to.
//!
//! ```text
//! session number u64 │ filter
//! ```

use std::sync::Arc;

use super::{Key, KeyBuf, KeyError, KeyRange, Reader, Row};
use crate::family::Family;
use crate::record::SubscriptionRecord;

/// The key of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubscriptionKey {
    /// The session.
    pub session_no: u64,
    /// The Topic Filter, as the client wrote it.
    pub filter: Arc<str>,
}

impl SubscriptionKey {
    /// The subscriptions of one session.
    #[must_use]
    pub fn of(session_no: u64) -> KeyRange {
        KeyRange::prefix(&session_no.to_be_bytes())
    }
}

impl Key for SubscriptionKey {
    const FAMILY: Family = Family::Subscription;

    fn encode(&self) -> KeyBuf {
        let mut out = KeyBuf::from_slice(&self.session_no.to_be_bytes());
        out.extend_from_slice(self.filter.as_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut fields = Reader(bytes);
        Ok(Self { session_no: fields.u64()?, filter: fields.text()? })
    }
}

impl Row for SubscriptionKey {
    type Record = SubscriptionRecord;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::order;

    #[test]
    fn rows_come_by_session_then_filter() {
        let key = |session_no, filter: &str| SubscriptionKey { session_no, filter: filter.into() };
        order::holds(&[key(1, "#"), key(1, "a"), key(1, "a/b"), key(255, "a"), key(256, "")]);
        assert!(SubscriptionKey::of(1).contains(&key(1, "a").encode()));
        assert!(!SubscriptionKey::of(1).contains(&key(2, "").encode()));
        assert_eq!(SubscriptionKey::decode(&[0; 7]), Err(KeyError::Short));
        assert!(SubscriptionKey::decode(&[0xff; 9]).is_err());
    }
}
