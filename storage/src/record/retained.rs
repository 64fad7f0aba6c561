//! A retained message.

use serde::{Deserialize, Serialize};
use verge_model::{Hlc, NodeKey};

use super::{MessageRecord, Record};

/// The retained message of a topic, or the fact that there is none any more. The greatest
/// (stamp, node) wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedRecord {
    /// When it was set or removed.
    pub stamp: Hlc,
    /// Where.
    pub node: NodeKey,
    /// The message; `None`: it was removed, and an older one must not come back.
    pub message: Option<MessageRecord>,
}

impl Record for RetainedRecord {
    const NAME: &'static str = "retained";
    const VERSION: u8 = 1;

    fn encoded_len_hint(&self) -> usize {
        24 + self.message.as_ref().map_or(0, Record::encoded_len_hint)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use verge_model::{Class, MessageId};

    use super::*;
    use crate::record::golden;

    #[test]
    fn golden_bytes() {
        let gone = RetainedRecord { stamp: Hlc(300), node: NodeKey(1), message: None };
        golden::holds(&gone, "01ac020100");
        let message = MessageRecord {
            id: MessageId { node: NodeKey(1), incarnation: 2, seq: 3 },
            publisher: "v".into(),
            stamp: Hlc(4),
            expires_at: None,
            topic: "t".into(),
            qos: 0,
            retain: true,
            class: Class::Bulk,
            properties: Bytes::new(),
            payload: Bytes::from_static(b"p"),
        };
        let set = RetainedRecord { message: Some(message), ..gone };
        golden::holds(&set, "01ac020101010203017604000174000103000170");
    }
}
