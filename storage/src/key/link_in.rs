//! `link_in`: how far each log of each origin was taken.
//!
//! ```text
//! origin u64 │ log id u64 │ class u8
//! ```
//!
//! The log id is the origin's data directory: one that was wiped numbers its logs from 1 again.

use verge_model::{Class, NodeKey};

use super::{Key, KeyBuf, KeyError, KeyRange, Reader, Row};
use crate::family::Family;
use crate::record::LinkInRecord;

/// The key of the last sequence taken from a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkInKey {
    /// The node whose log it is.
    pub origin: NodeKey,
    /// The log id of its data directory.
    pub log_id: u64,
    /// The class.
    pub class: Class,
}

impl LinkInKey {
    /// What was taken from one origin.
    #[must_use]
    pub fn of(origin: NodeKey) -> KeyRange {
        KeyRange::prefix(&origin.0.to_be_bytes())
    }
}

impl Key for LinkInKey {
    const FAMILY: Family = Family::LinkIn;

    fn encode(&self) -> KeyBuf {
        let mut out = KeyBuf::from_slice(&self.origin.0.to_be_bytes());
        out.extend_from_slice(&self.log_id.to_be_bytes());
        out.push(self.class as u8);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut fields = Reader(bytes);
        let key = Self { origin: fields.node()?, log_id: fields.u64()?, class: fields.class()? };
        fields.end()?;
        Ok(key)
    }
}

impl Row for LinkInKey {
    type Record = LinkInRecord;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::order;

    #[test]
    fn rows_come_by_origin_then_log_then_class() {
        let key = |origin, log_id, class| LinkInKey { origin: NodeKey(origin), log_id, class };
        order::holds(&[
            key(1, 255, Class::Bulk),
            key(1, 256, Class::Safety),
            key(1, 256, Class::Telemetry),
            key(2, 0, Class::Safety),
        ]);
        order::fixed_length(&key(1, 1, Class::Safety), 17);
        assert!(LinkInKey::of(NodeKey(1)).contains(&key(1, 9, Class::Bulk).encode()));
    }
}
