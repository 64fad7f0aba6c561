//! `retained`: retained messages, and tombstones of removed ones.
//!
//! ```text
//! topic
//! ```

use std::sync::Arc;

use super::{Key, KeyBuf, KeyError, Reader, Row};
use crate::family::Family;
use crate::record::RetainedRecord;

/// The key of a retained message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RetainedKey(pub Arc<str>);

impl Key for RetainedKey {
    const FAMILY: Family = Family::Retained;

    fn encode(&self) -> KeyBuf {
        KeyBuf::from_slice(self.0.as_bytes())
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        Reader(bytes).text().map(Self)
    }
}

impl Row for RetainedKey {
    type Record = RetainedRecord;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::order;

    #[test]
    fn rows_come_by_topic() {
        let key = |topic: &str| RetainedKey(topic.into());
        order::holds(&[key("a"), key("a/b"), key("a0"), key("b")]);
        assert!(RetainedKey::decode(&[0xff]).is_err());
    }
}
