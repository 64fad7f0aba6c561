//! Replica of another origin's routes.

use serde::{Deserialize, Serialize};
use verge_model::Incarnation;

use super::Record;

/// The dot of the operation that added a route; a removal names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteRecord {
    /// The origin's life.
    pub incarnation: Incarnation,
    /// The operation in that life.
    pub seq: u64,
}

/// The last operation known of an origin; all before it are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteHeadRecord {
    /// The origin's life.
    pub incarnation: Incarnation,
    /// The operation in that life.
    pub seq: u64,
}

impl Record for RouteRecord {
    const NAME: &'static str = "route";
    const VERSION: u8 = 1;

    fn encoded_len_hint(&self) -> usize {
        16
    }
}

impl Record for RouteHeadRecord {
    const NAME: &'static str = "route_head";
    const VERSION: u8 = 1;

    fn encoded_len_hint(&self) -> usize {
        16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::golden;

    #[test]
    fn golden_bytes() {
        golden::holds(&RouteRecord { incarnation: 1, seq: 300 }, "0101ac02");
        golden::holds(&RouteHeadRecord { incarnation: 200, seq: 2 }, "01c80102");
    }
}
