//! The Will of a session (MQTT 5.0, 3.1.2.5).

use bytes::Bytes;

use crate::QoS;
use crate::packet::publish::OwnedPublishProperties;
use crate::topic::name::TopicName;

/// What the server publishes for a client whose connection ends without a DISCONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Will Topic.
    pub topic: TopicName,
    /// Will Payload.
    pub payload: Bytes,
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Will Delay Interval in seconds: how long the server waits for the client to come back.
    pub delay_secs: u32,
    /// Message Expiry Interval of the published Will, in seconds.
    pub message_expiry_secs: Option<u32>,
    /// Properties of the published Will.
    pub properties: OwnedPublishProperties,
}
