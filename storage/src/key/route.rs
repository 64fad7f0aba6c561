//! `route`: replica of other origins' routes.
//!
//! ```text
//! origin u64 │ filter
//! ```

use std::sync::Arc;

use verge_model::NodeKey;

use super::{Key, KeyBuf, KeyError, KeyRange, Reader, Row};
use crate::family::Family;
use crate::record::RouteRecord;

/// The key of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    /// The node that wants the filter.
    pub origin: NodeKey,
    /// The Topic Filter.
    pub filter: Arc<str>,
}

impl RouteKey {
    /// The routes of one origin.
    #[must_use]
    pub fn of(origin: NodeKey) -> KeyRange {
        KeyRange::prefix(&origin.0.to_be_bytes())
    }
}

impl Key for RouteKey {
    const FAMILY: Family = Family::Route;

    fn encode(&self) -> KeyBuf {
        let mut out = KeyBuf::from_slice(&self.origin.0.to_be_bytes());
        out.extend_from_slice(self.filter.as_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut fields = Reader(bytes);
        Ok(Self { origin: fields.node()?, filter: fields.text()? })
    }
}

impl Row for RouteKey {
    type Record = RouteRecord;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::order;

    #[test]
    fn rows_come_by_origin_then_filter() {
        let key =
            |origin, filter: &str| RouteKey { origin: NodeKey(origin), filter: filter.into() };
        order::holds(&[key(1, "a"), key(1, "b/#"), key(255, "a"), key(256, "a")]);
        assert!(RouteKey::of(NodeKey(255)).contains(&key(255, "z").encode()));
        assert!(!RouteKey::of(NodeKey(255)).contains(&key(256, "").encode()));
    }
}
