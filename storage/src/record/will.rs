//! The will of a session.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// "The Will Message [...] is published after the Network Connection is subsequently closed".
/// [MQTT-3.1.2-8] Part of [`SessionRecord`](super::SessionRecord), never a row of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WillRecord {
    /// Where it is published.
    pub topic: Arc<str>,
    /// What is published.
    pub payload: Bytes,
    /// At which QoS.
    pub qos: u8,
    /// Whether as a retained message.
    pub retain: bool,
    /// Will Delay Interval.
    pub delay_secs: u32,
    /// The will's publish properties as `verge-mqtt-proto` encodes them, opaque here.
    pub properties: Bytes,
}
