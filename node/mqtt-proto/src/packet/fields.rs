//! Small fields that several packets share.

use std::fmt;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

/// Quality of Service: how hard sender and receiver work for one delivery. (4.3)
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[repr(u8)]
pub enum QoS {
    /// At most once: no acknowledgement, no retry.
    #[default]
    AtMostOnce = 0,
    /// At least once: repeated until PUBACK.
    AtLeastOnce = 1,
    /// Exactly once: PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce = 2,
}

impl QoS {
    /// Every level, ascending.
    pub const ALL: [Self; 3] = [Self::AtMostOnce, Self::AtLeastOnce, Self::ExactlyOnce];

    /// The level `bits` stands for; none for 3, which is reserved.
    #[must_use]
    #[inline]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }

    /// The two bits of the wire.
    #[must_use]
    #[inline]
    pub const fn bits(self) -> u8 {
        self as u8
    }
}

/// "SUBSCRIBE, UNSUBSCRIBE, and PUBLISH (where QoS > 0) Control Packets MUST contain a non-zero
/// 16-bit Packet Identifier." (2.2.1)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PacketId(pub NonZeroU16);

impl PacketId {
    /// The identifier with this number; none for 0. [MQTT-2.2.1-3]
    #[must_use]
    #[inline]
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number of the wire.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// "Whether retained messages are sent when the subscription is established." (3.8.3.1)
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[repr(u8)]
pub enum RetainHandling {
    /// Send retained messages at the time of the subscribe; what 3.1.1 always does.
    #[default]
    Send = 0,
    /// Send them only if the subscription does not exist yet.
    SendIfNew = 1,
    /// Do not send them.
    DoNotSend = 2,
}

impl RetainHandling {
    /// The value `bits` stands for; none for 3, which is reserved.
    #[must_use]
    #[inline]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Send),
            1 => Some(Self::SendIfNew),
            2 => Some(Self::DoNotSend),
            _ => None,
        }
    }
}
