//! A subscription of a session.

use serde::{Deserialize, Serialize};

use super::Record;

/// The options of a subscription; the filter is in the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl Record for SubscriptionRecord {
    const NAME: &'static str = "subscription";
    const VERSION: u8 = 1;

    fn encoded_len_hint(&self) -> usize {
        11
    }
}

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
        };
        golden::holds(&plain, "010200010100");
        golden::holds(
            &SubscriptionRecord { subscription_id: Some(268_435_455), ..plain },
            "010200010101ffffff7f",
        );
    }
}
