//! `session`: headers of the sessions this node owns, or owned and has sealed.
//!
//! ```text
//! session u64
//! ```
//!
//! Not the client: while a session comes back to a node that has not yet given away its older log
//! of it, that node holds two for one client.

use super::{Key, KeyBuf, KeyError, Reader, Row};
use crate::family::Family;
use crate::record::SessionRecord;

/// The key of a session's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionKey(pub u64);

impl Key for SessionKey {
    const FAMILY: Family = Family::Session;

    fn encode(&self) -> KeyBuf {
        KeyBuf::from_slice(&self.0.to_be_bytes())
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut fields = Reader(bytes);
        let key = Self(fields.u64()?);
        fields.end()?;
        Ok(key)
    }
}

impl Row for SessionKey {
    type Record = SessionRecord;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::order;

    #[test]
    fn rows_come_in_the_order_sessions_began() {
        order::holds(&[SessionKey(0), SessionKey(1), SessionKey(256), SessionKey(u64::MAX)]);
        order::fixed_length(&SessionKey(7), 8);
    }
}
