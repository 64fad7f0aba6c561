//! `route_head`: how far each origin's routes are known.
//!
//! ```text
//! origin u64
//! ```

use verge_model::NodeKey;

use super::{Key, KeyBuf, KeyError, Reader, Row};
use crate::family::Family;
use crate::record::RouteHeadRecord;

/// The key of an origin's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteHeadKey(pub NodeKey);

impl Key for RouteHeadKey {
    const FAMILY: Family = Family::RouteHead;

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

impl Row for RouteHeadKey {
    type Record = RouteHeadRecord;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::order;

    #[test]
    fn rows_come_by_origin() {
        order::holds(&[
            RouteHeadKey(NodeKey(1)),
            RouteHeadKey(NodeKey(255)),
            RouteHeadKey(NodeKey(256)),
        ]);
        order::fixed_length(&RouteHeadKey(NodeKey(1)), 8);
    }
}
