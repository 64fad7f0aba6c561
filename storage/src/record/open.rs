//! Which session is a client's, and whose a timer is.

use serde::{Deserialize, Serialize};

use super::Record;

/// The session this node owns for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRecord {
    /// Its number.
    pub session_no: u64,
}

impl Record for OpenRecord {
    const NAME: &'static str = "client";
    const VERSION: u8 = 1;

    fn encoded_len_hint(&self) -> usize {
        11
    }
}

/// What must be known of a session to leave it to the shard that serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerRecord {
    /// The [stable hash](verge_model::ClientKey::stable_hash) of its client.
    #[serde(with = "postcard::fixint::be")]
    pub client_hash: u64,
}

impl Record for TimerRecord {
    const NAME: &'static str = "timer";
    const VERSION: u8 = 1;

    fn encoded_len_hint(&self) -> usize {
        9
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::golden;

    #[test]
    fn golden_bytes() {
        golden::holds(&OpenRecord { session_no: 300 }, "01ac02");
        golden::holds(&TimerRecord { client_hash: 0x0102_0304 }, "010000000001020304");
    }
}
