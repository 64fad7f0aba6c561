//! A subscription of a session (MQTT 5.0, 3.8.3.1 and 3.8.2.1.2).

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::{QoS, RetainHandling};

/// What a client asked for with one of its subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subscription {
    /// Maximum QoS at which the client wants to receive.
    pub qos: QoS,
    /// Whether the client's own publications are left out [MQTT-3.8.3-3].
    pub no_local: bool,
    /// Whether the RETAIN flag is kept as it was published.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
    /// The Subscription Identifier to put into deliveries, 1 to 268,435,455.
    pub id: Option<NonZeroU32>,
}

impl Subscription {
    /// The Subscription Identifier's number.
    #[must_use]
    pub fn id_number(&self) -> Option<u32> {
        self.id.map(NonZeroU32::get)
    }

    /// A subscription as MQTT 3.1.1 knows it: a QoS and the defaults.
    #[must_use]
    pub fn with_qos(qos: QoS) -> Self {
        Self {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
            id: None,
        }
    }
}
