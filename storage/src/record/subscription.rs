//! A subscription of a session.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use verge_model::ClientId;

use super::{Record, RecordError};

/// The options of a subscription; the filter is in the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionRecord {
    /// Maximum QoS, 0 to 2.
    pub qos: u8,
    /// The session's own publications are not delivered to it.
    pub no_local: bool,
    /// The RETAIN flag is delivered as it was published.
    pub retain_as_published: bool,
    /// Retain Handling, 0 to 2; with 4 added, the subscription was made on a stream other than the
    /// control stream.
    pub retain_handling: u8,
    /// Subscription Identifier.
    pub subscription_id: Option<u32>,
    /// Whose it is, as far as messages are planned for it.
    ///
    /// Version 2 has it behind what version 1 has; `None` is written as version 1.
    #[serde(skip)]
    pub subscriber: Option<SubscriberRecord>,
}

/// Whose a subscription is, so that messages are planned for it without the session's header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriberRecord {
    /// The [stable hash](verge_model::ClientKey::stable_hash) of the client, which names its shard.
    #[serde(with = "postcard::fixint::be")]
    pub client_hash: u64,
    /// The [author](verge_model::ClientKey::author) whose own publications are left out, if
    /// `no_local` is set.
    pub author: Option<ClientId>,
}

impl Record for SubscriptionRecord {
    const NAME: &'static str = "subscription";
    const VERSION: u8 = 2;

    fn encoded_len_hint(&self) -> usize {
        let author = self.subscriber.as_ref().and_then(|subscriber| subscriber.author.as_ref());
        20 + author.map_or(0, |author| author.len() + 2)
    }

    fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded_len_hint());
        out.push(if self.subscriber.is_some() { Self::VERSION } else { FIRST });
        let mut out = postcard::to_extend(self, out).expect(WRITABLE);
        if let Some(subscriber) = &self.subscriber {
            out = postcard::to_extend(subscriber, out).expect(WRITABLE);
        }
        out.into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let malformed = |detail| RecordError::Malformed { record: Self::NAME, detail };
        let Some((&version, body)) = bytes.split_first() else {
            return Err(RecordError::Empty { record: Self::NAME });
        };
        if version != FIRST && version != Self::VERSION {
            return Self::decode_old(version, body);
        }
        let (mut record, mut rest) = postcard::take_from_bytes::<Self>(body).map_err(malformed)?;
        if version == Self::VERSION {
            let (subscriber, after) = postcard::take_from_bytes(rest).map_err(malformed)?;
            record.subscriber = Some(subscriber);
            rest = after;
        }
        if !rest.is_empty() {
            return Err(RecordError::Trailing { record: Self::NAME, bytes: rest.len() });
        }
        Ok(record)
    }
}

/// The version that does not say whose it is.
const FIRST: u8 = 1;

const WRITABLE: &str = "records hold only what postcard can write, into memory that grows";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::golden;

    #[test]
    fn golden_bytes() {
        let plain = SubscriptionRecord {
            qos: 2,
            no_local: false,
            retain_as_published: true,
            retain_handling: 1,
            subscription_id: None,
            subscriber: None,
        };
        golden::holds(&plain, "010200010100");
        golden::holds(
            &SubscriptionRecord { subscription_id: Some(268_435_455), ..plain.clone() },
            "010200010101ffffff7f",
        );
        let subscriber = SubscriberRecord { client_hash: 0x0102_0304, author: None };
        let known = SubscriptionRecord { subscriber: Some(subscriber), ..plain };
        golden::holds(&known, "020200010100000000000102030400");
        let author = Some("v".into());
        let subscriber = SubscriberRecord { client_hash: 0x0102_0304, author };
        golden::holds(
            &SubscriptionRecord { no_local: true, subscriber: Some(subscriber), ..known },
            "0202010101000000000001020304010176",
        );
    }
}
