//! Marks: rows whose key says nearly all.

use serde::{Deserialize, Serialize};
use verge_model::UnixMillis;

use super::Record;

/// PUBREC was promised for this packet id of a publisher; a PUBLISH with it is a repetition until
/// PUBREL comes. [MQTT-4.3.3-10]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedRecord {}

impl Record for ReceivedRecord {
    const NAME: &'static str = "received";
    const VERSION: u8 = 1;

    fn encoded_len_hint(&self) -> usize {
        1
    }
}

/// The session had this message, whatever became of it; a late fragment must not deliver it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRecord {
    /// When it had it: the mark may go a linger after that, once no fragment is open.
    pub seen_at: UnixMillis,
}

impl Record for SeenRecord {
    const NAME: &'static str = "seen";
    const VERSION: u8 = 1;

    fn encoded_len_hint(&self) -> usize {
        8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::golden;

    #[test]
    fn golden_bytes() {
        golden::holds(&ReceivedRecord {}, "01");
        golden::holds(&SeenRecord { seen_at: UnixMillis(300) }, "01ac02");
    }
}
