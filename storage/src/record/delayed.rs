//! A message that is published later.

use serde::{Deserialize, Serialize};

use super::{MessageRecord, Record};

/// A message that is published later. Its topic is the one it is published to; its stamp says when
/// it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayedRecord {
    /// The message, without an expiry.
    pub message: MessageRecord,
    /// Message Expiry Interval in seconds, counted from when it is published.
    pub message_expiry_secs: Option<u32>,
}

impl Record for DelayedRecord {
    const NAME: &'static str = "delayed";
    const VERSION: u8 = 1;

    fn encoded_len_hint(&self) -> usize {
        8 + self.message.encoded_len_hint()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use verge_model::{Class, Hlc, MessageId, NodeKey};

    use super::*;
    use crate::record::golden;

    #[test]
    fn golden_bytes() {
        let message = MessageRecord {
            id: MessageId { node: NodeKey(1), incarnation: 2, seq: 3 },
            publisher: "v".into(),
            stamp: Hlc(4),
            expires_at: None,
            topic: "t".into(),
            qos: 1,
            retain: true,
            class: Class::Bulk,
            properties: Bytes::new(),
            payload: Bytes::from_static(b"p"),
        };
        let record = DelayedRecord { message: message.clone(), message_expiry_secs: Some(300) };
        golden::holds(&record, "0101020301760400017401010300017001ac02");
        let record = DelayedRecord { message, message_expiry_secs: None };
        golden::holds(&record, "0101020301760400017401010300017000");
    }
}
