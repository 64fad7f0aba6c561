//! A packet id in use.

use serde::{Deserialize, Serialize};

use super::Record;

/// How far the delivery of a queued message is that was given a packet id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InflightRecord {
    /// The packet id it was, or is about to be, sent with.
    pub packet_id: u16,
    /// Whether PUBREC came, so that PUBREL may have been sent; else PUBLISH may have been.
    pub released: bool,
}

impl Record for InflightRecord {
    const NAME: &'static str = "inflight";
    const VERSION: u8 = 1;

    fn encoded_len_hint(&self) -> usize {
        5
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::golden;

    #[test]
    fn golden_bytes() {
        golden::holds(&InflightRecord { packet_id: 1, released: false }, "010100");
        golden::holds(&InflightRecord { packet_id: 65_535, released: true }, "01ffff0301");
    }
}
