//! `member`: members of the mesh, up or down.
//!
//! ```text
//! node u64
//! ```

use verge_model::NodeKey;

use super::{Key, KeyBuf, KeyError, Reader, Row};
use crate::family::Family;
use crate::record::MemberRecord;

/// The key of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberKey(pub NodeKey);

impl Key for MemberKey {
    const FAMILY: Family = Family::Member;

    fn encode(&self) -> KeyBuf {
        KeyBuf::from_slice(&self.0.0.to_be_bytes())
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut fields = Reader(bytes);
        let key = Self(fields.node()?);
        fields.end()?;
        Ok(key)
    }
}

impl Row for MemberKey {
    type Record = MemberRecord;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::order;

    #[test]
    fn rows_come_by_node() {
        order::holds(&[MemberKey(NodeKey(1)), MemberKey(NodeKey(255)), MemberKey(NodeKey(256))]);
        order::fixed_length(&MemberKey(NodeKey(1)), 8);
    }
}
