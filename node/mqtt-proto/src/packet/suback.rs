//! SUBACK (3.9): one reason code for each filter of the SUBSCRIBE, in order. [MQTT-3.9.3-1]

use std::fmt;

use super::PacketType;
use super::ack::{ResponseProperties, decode_reason};
use super::fields::{PacketId, QoS};
use crate::codec::error::DecodeError;
use crate::codec::property::write_section;
use crate::codec::reason_code::ReasonCode;
use crate::codec::string::{Reader, Sink};
use crate::codec::{Encode, ProtocolVersion};

/// The only failure 3.1.1 knows.
const FAILURE_BEFORE_V5: u8 = 0x80;

/// The answer to a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suback<'a> {
    /// The identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// The granted QoS or the failure of each filter; before 5.0 every failure is 0x80.
    pub reasons: ReasonCodes<'a>,
    /// 5.0 only.
    pub properties: ResponseProperties<'a>,
}

impl ReasonCode {
    /// The code that grants a subscription this QoS.
    #[must_use]
    pub const fn granted(qos: QoS) -> Self {
        match qos {
            QoS::AtMostOnce => Self::Success,
            QoS::AtLeastOnce => Self::GrantedQos1,
            QoS::ExactlyOnce => Self::GrantedQos2,
        }
    }
}

/// A list of reason codes; read where they lie, or from a slice.
#[derive(Clone, Copy)]
pub struct ReasonCodes<'a>(Codes<'a>);

#[derive(Clone, Copy)]
enum Codes<'a> {
    /// A payload, found valid when it was decoded.
    Payload(&'a [u8]),
    List(&'a [ReasonCode]),
}

impl<'a> ReasonCodes<'a> {
    /// These codes, to write.
    #[must_use]
    pub const fn from_slice(codes: &'a [ReasonCode]) -> Self {
        Self(Codes::List(codes))
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.0 {
            Codes::Payload(bytes) => bytes.len(),
            Codes::List(codes) => codes.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The codes, in order.
    pub fn iter(&self) -> impl Iterator<Item = ReasonCode> + use<'a> {
        let (payload, list): (&[u8], &[ReasonCode]) = match self.0 {
            Codes::Payload(bytes) => (bytes, &[]),
            Codes::List(codes) => (&[], codes),
        };
        // Found valid before, so no byte is left out.
        let read = payload.iter().filter_map(|&byte| ReasonCode::from_byte(byte));
        read.chain(list.iter().copied())
    }

    pub(crate) fn decode(
        reader: &mut Reader<'a>,
        packet_type: PacketType,
    ) -> Result<Self, DecodeError> {
        let payload = reader.take_rest();
        let mut codes = Reader::new(payload);
        while !codes.is_empty() {
            decode_reason(&mut codes, packet_type)?;
        }
        Ok(Self(Codes::Payload(payload)))
    }
}

impl PartialEq for ReasonCodes<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for ReasonCodes<'_> {}

impl fmt::Debug for ReasonCodes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Suback<'a> {
    pub(crate) fn decode(
        reader: &mut Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        let mut properties = ResponseProperties::default();
        if version.is_v5() {
            properties = ResponseProperties::decode(reader, PacketType::Suback)?;
        }
        let reasons = ReasonCodes::decode(reader, PacketType::Suback)?;
        if reasons.is_empty() {
            return Err(DecodeError::SubackEmpty);
        }
        // "SUBACK return codes other than 0x00, 0x01, 0x02 and 0x80 are reserved."
        // [3.1.1 MQTT-3.9.3-2]
        let reserved = |reason: &ReasonCode| reason.byte() > FAILURE_BEFORE_V5;
        if let (false, Some(reason)) = (version.is_v5(), reasons.iter().find(reserved)) {
            return Err(DecodeError::ReasonCodeNotAllowed(reason, PacketType::Suback));
        }
        Ok(Self { packet_id, reasons, properties })
    }
}

impl Encode for Suback<'_> {
    fn packet_type(&self) -> PacketType {
        PacketType::Suback
    }

    fn write_body<S: Sink>(&self, version: ProtocolVersion, out: &mut S) {
        out.put_u16(self.packet_id.get());
        if version.is_v5() {
            write_section(out, &self.properties);
        }
        for reason in self.reasons.iter() {
            let lossless = version.is_v5() || !reason.is_error();
            out.put_u8(if lossless { reason.byte() } else { FAILURE_BEFORE_V5 });
        }
    }

    fn trimmed(&self) -> Option<Self> {
        Some(Self { properties: ResponseProperties::default(), ..self.clone() })
    }
}
