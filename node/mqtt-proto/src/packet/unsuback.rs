//! UNSUBACK (3.11): one reason code for each filter of the UNSUBSCRIBE, in order; before 5.0 none.

use super::PacketType;
use super::ack::ResponseProperties;
use super::fields::PacketId;
use super::suback::ReasonCodes;
use crate::codec::error::DecodeError;
use crate::codec::property::write_section;
use crate::codec::string::{Reader, Sink};
use crate::codec::{Encode, ProtocolVersion};

/// The answer to an UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsuback<'a> {
    /// The identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// How each filter went. [MQTT-3.11.3-1] Before 5.0 not sent.
    pub reasons: ReasonCodes<'a>,
    /// 5.0 only.
    pub properties: ResponseProperties<'a>,
}

impl<'a> Unsuback<'a> {
    pub(crate) fn decode(
        reader: &mut Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        if !version.is_v5() {
            let (reasons, properties) =
                (ReasonCodes::from_slice(&[]), ResponseProperties::default());
            return Ok(Self { packet_id, reasons, properties });
        }
        let properties = ResponseProperties::decode(reader, PacketType::Unsuback)?;
        let reasons = ReasonCodes::decode(reader, PacketType::Unsuback)?;
        Ok(Self { packet_id, reasons, properties })
    }
}

impl Encode for Unsuback<'_> {
    fn packet_type(&self) -> PacketType {
        PacketType::Unsuback
    }

    fn write_body<S: Sink>(&self, version: ProtocolVersion, out: &mut S) {
        out.put_u16(self.packet_id.get());
        if !version.is_v5() {
            return;
        }
        write_section(out, &self.properties);
        for reason in self.reasons.iter() {
            out.put_u8(reason.byte());
        }
    }

    fn trimmed(&self) -> Option<Self> {
        Some(Self { properties: ResponseProperties::default(), ..self.clone() })
    }
}
