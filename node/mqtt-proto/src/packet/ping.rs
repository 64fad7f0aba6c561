//! PINGREQ and PINGRESP (3.12, 3.13): two bytes each, in every version.

use super::PacketType;
use crate::codec::string::Sink;
use crate::codec::{Encode, ProtocolVersion};

/// A whole PINGREQ.
pub const PINGREQ: [u8; 2] = [0xc0, 0x00];

/// A whole PINGRESP, the answer due to every PINGREQ. [MQTT-3.12.4-1]
pub const PINGRESP: [u8; 2] = [0xd0, 0x00];

/// "Are you there?"
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pingreq;

/// "Yes."
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pingresp;

impl Encode for Pingreq {
    fn packet_type(&self) -> PacketType {
        PacketType::Pingreq
    }

    fn write_body<S: Sink>(&self, _version: ProtocolVersion, _out: &mut S) {}
}

impl Encode for Pingresp {
    fn packet_type(&self) -> PacketType {
        PacketType::Pingresp
    }

    fn write_body<S: Sink>(&self, _version: ProtocolVersion, _out: &mut S) {}
}
