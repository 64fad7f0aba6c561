//! CONNECT (3.1.4): what the client's first packet settles for the whole connection.

use super::close::{self, CloseCause, Farewell};
use crate::codec::error::DecodeError;
use crate::codec::fixed_header::FixedHeader;
use crate::codec::string::Reader;
use crate::codec::{PACKET_BYTES_MAX, ProtocolVersion};
use crate::packet::PacketType;
use crate::packet::connect::{Connect, decode_version};

/// What the client asked of us in CONNECT, as far as the connection needs it later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientTerms {
    pub(crate) version: ProtocolVersion,
    pub(crate) is_bridge: bool,
    pub(crate) keep_alive_secs: u16,
    pub(crate) receive_maximum: u16,
    /// No packet is larger than four bytes of length tell.
    pub(crate) packet_bytes_max: u32,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) wants_problem_information: bool,
    pub(crate) wants_response_information: bool,
    pub(crate) session_expiry_interval: u32,
    /// Boxed twice: few clients have one, and the others a word for it.
    pub(crate) authentication_method: Option<Box<Box<str>>>,
}

impl ClientTerms {
    /// The terms of `connect`, with the standard's defaults for what it leaves out.
    pub(crate) fn of(connect: &Connect<'_>) -> Self {
        let properties = &connect.properties;
        Self {
            version: connect.version,
            is_bridge: connect.is_bridge,
            keep_alive_secs: connect.keep_alive_secs,
            receive_maximum: properties.receive_maximum(),
            packet_bytes_max: properties.maximum_packet_size.unwrap_or(PACKET_BYTES_MAX as u32),
            topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
            wants_problem_information: properties.request_problem_information.unwrap_or(true),
            wants_response_information: properties.request_response_information.unwrap_or(false),
            session_expiry_interval: properties.session_expiry_interval.unwrap_or(0),
            authentication_method: properties
                .authentication_method
                .map(|name| Box::new(name.into())),
        }
    }
}

/// What is well-formed but must be refused.
pub(crate) fn check(connect: &Connect<'_>) -> Result<(), CloseCause> {
    // "If the Client supplies a zero-byte ClientId with CleanSession set to 0, the Server MUST
    // respond with return code 0x02 (Identifier rejected)." [3.1.1 MQTT-3.1.3-8] 3.1 has no empty
    // identifiers at all.
    let may_be_nameless = match connect.version {
        ProtocolVersion::V3 => false,
        ProtocolVersion::V4 => connect.clean_start,
        ProtocolVersion::V5 => true,
    };
    if connect.client_id.is_empty() && !may_be_nameless {
        return Err(CloseCause::ClientIdEmpty);
    }
    Ok(())
}

/// How to take leave of a client whose CONNECT is wrong.
///
/// A version we do not speak is answered so that its speaker may understand: by 3.1.1's return code
/// 1, or in 5.0's form to a later version. A 5.0 client learns its mistake; others learn nothing,
/// as 3.1.1 has no code for it. [MQTT-3.1.2-2] [MQTT-3.1.4-1] [MQTT-3.1.4-2]
pub(crate) fn farewell(input: &[u8], error: DecodeError) -> Farewell {
    if let DecodeError::ProtocolLevel(level) = error {
        let is_later = level > ProtocolVersion::V5.level();
        let version = if is_later { ProtocolVersion::V5 } else { ProtocolVersion::V4 };
        return close::connack(version, error.reason_code());
    }
    match version_of(input) {
        Some(ProtocolVersion::V5) => close::connack(ProtocolVersion::V5, error.reason_code()),
        Some(ProtocolVersion::V3 | ProtocolVersion::V4) | None => Farewell::None,
    }
}

/// The version of a CONNECT of which the beginning is there.
fn version_of(input: &[u8]) -> Option<ProtocolVersion> {
    let header = FixedHeader::decode(input).ok()??;
    if header.packet_type != PacketType::Connect {
        return None;
    }
    let body = input.get(header.header_size..)?;
    decode_version(&mut Reader::new(body)).ok().map(|(version, _)| version)
}
