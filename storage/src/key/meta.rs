//! `meta`: what the data directory is, by name.
//!
//! ```text
//! "format" │ "node" │ "log_id" │ "boots" │ "migrating"
//! "trimmed/" log: family u8, then the log's prefix in that family
//! ```

use super::{Key, KeyBuf, KeyError};
use crate::family::Family;
use crate::log::LogKey;

const FORMAT: &[u8] = b"format";
const NODE: &[u8] = b"node";
const LOG_ID: &[u8] = b"log_id";
const BOOTS: &[u8] = b"boots";
const MIGRATING: &[u8] = b"migrating";
const TRIMMED: &[u8] = b"trimmed/";

/// The key of a fact about the data directory. Values: numbers big-endian, names as UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetaKey {
    /// Boot counter, u32.
    Boots,
    /// Format of everything else, u32; this row keeps its layout in every format.
    Format,
    /// The directory's log id, u64.
    LogId,
    /// The format whose rows are being changed to those of [`MetaKey::Format`], u32; absent but
    /// during a migration.
    Migrating,
    /// The node's id.
    Node,
    /// The last sequence ever trimmed from a log, u64.
    Trimmed(LogKey),
}

impl MetaKey {
    /// The prefix of every [`MetaKey::Trimmed`].
    #[must_use]
    pub fn trimmed_prefix() -> &'static [u8] {
        TRIMMED
    }
}

impl Key for MetaKey {
    const FAMILY: Family = Family::Meta;

    fn encode(&self) -> KeyBuf {
        match self {
            Self::Boots => KeyBuf::from_slice(BOOTS),
            Self::Format => KeyBuf::from_slice(FORMAT),
            Self::LogId => KeyBuf::from_slice(LOG_ID),
            Self::Migrating => KeyBuf::from_slice(MIGRATING),
            Self::Node => KeyBuf::from_slice(NODE),
            Self::Trimmed(log) => {
                let mut out = KeyBuf::from_slice(TRIMMED);
                out.push(log.family().number());
                out.extend_from_slice(&log.prefix());
                out
            }
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        match bytes {
            BOOTS => Ok(Self::Boots),
            FORMAT => Ok(Self::Format),
            LOG_ID => Ok(Self::LogId),
            MIGRATING => Ok(Self::Migrating),
            NODE => Ok(Self::Node),
            _ => {
                let log = bytes.strip_prefix(TRIMMED).ok_or(KeyError::NoName)?;
                let (&family, prefix) = log.split_first().ok_or(KeyError::Short)?;
                let family = Family::from_number(family).ok_or(KeyError::NoName)?;
                LogKey::from_prefix(family, prefix).map(Self::Trimmed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use verge_model::{Class, NodeKey};

    use super::*;
    use crate::key::order;

    #[test]
    fn names_read_back_and_trim_marks_come_last() {
        let forward = |peer, class| LogKey::Forward { peer: NodeKey(peer), class };
        order::holds(&[
            MetaKey::Boots,
            MetaKey::Format,
            MetaKey::LogId,
            MetaKey::Migrating,
            MetaKey::Node,
            MetaKey::Trimmed(forward(1, Class::Bulk)),
            MetaKey::Trimmed(forward(2, Class::Safety)),
            MetaKey::Trimmed(LogKey::Outbox { stream: 0 }),
        ]);
        assert_eq!(MetaKey::decode(b"boot"), Err(KeyError::NoName));
        assert_eq!(MetaKey::decode(b"trimmed/"), Err(KeyError::Short));
        assert_eq!(MetaKey::decode(b"trimmed/\x01\0\0"), Err(KeyError::NoName));
    }
}
