//! SUBSCRIBE (3.8): which Topic Filters a client wants, and how.

use std::fmt;

use super::PacketType;
use super::fields::{PacketId, QoS, RetainHandling};
use crate::codec::error::DecodeError;
use crate::codec::property::{
    PropertyId, PropertyOwner, Section, UserProperties, WriteProperties, put_user_properties,
    put_varint, write_section,
};
use crate::codec::string::{Reader, Sink};
use crate::codec::{Encode, ProtocolVersion};
use crate::topic::share::SHARE_PREFIX;

const NO_LOCAL: u8 = 0b0000_0100;
const RETAIN_AS_PUBLISHED: u8 = 0b0000_1000;
const RESERVED: u8 = 0b1100_0000;
/// All but the Requested QoS. [3.1.1 MQTT-3.8.3-4]
const RESERVED_BEFORE_V5: u8 = 0b1111_1100;

/// A request for subscriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Returned by SUBACK. [MQTT-2.2.1-6]
    pub packet_id: PacketId,
    /// Sent back with every message these subscriptions match; 5.0 only, not 0.
    pub subscription_id: Option<u32>,
    /// Name and value pairs; 5.0 only.
    pub user_properties: UserProperties<'a>,
    /// At least one filter. [MQTT-3.8.3-2]
    pub filters: SubscribeFilters<'a>,
}

/// One filter of a SUBSCRIBE.
///
/// The text is UTF-8; whether it is a valid Topic Filter is found by
/// [`TopicFilter::parse`](crate::TopicFilter::parse), so that one bad filter is refused in SUBACK
/// and the others stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionRequest<'a> {
    /// The Topic Filter, perhaps of a shared subscription.
    pub filter: &'a str,
    /// How to deliver.
    pub options: SubscriptionOptions,
}

/// The Subscription Options. (3.8.3.1)
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct SubscriptionOptions {
    /// Highest QoS to deliver at.
    pub qos: QoS,
    /// Not what this client published itself. [MQTT-3.8.3-3]
    pub no_local: bool,
    /// Keep the RETAIN flag messages were published with.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
}

impl SubscriptionOptions {
    /// The options of 3.1.1 with this QoS.
    #[must_use]
    pub const fn at(qos: QoS) -> Self {
        Self {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }
    }

    /// The options `byte` stands for.
    ///
    /// # Errors
    ///
    /// Reserved bits or values.
    pub const fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        if byte & RESERVED != 0 {
            return Err(DecodeError::SubscriptionOptionsReserved);
        }
        let Some(qos) = QoS::from_bits(byte & 0b11) else {
            return Err(DecodeError::SubscriptionQos);
        };
        let Some(retain_handling) = RetainHandling::from_bits(byte >> 4 & 0b11) else {
            return Err(DecodeError::RetainHandling);
        };
        Ok(Self {
            qos,
            no_local: byte & NO_LOCAL != 0,
            retain_as_published: byte & RETAIN_AS_PUBLISHED != 0,
            retain_handling,
        })
    }

    /// The byte of the wire.
    #[must_use]
    pub const fn byte(self) -> u8 {
        let mut byte = self.qos.bits() | (self.retain_handling as u8) << 4;
        if self.no_local {
            byte |= NO_LOCAL;
        }
        if self.retain_as_published {
            byte |= RETAIN_AS_PUBLISHED;
        }
        byte
    }
}

/// The filters of a SUBSCRIBE, in order; read where they lie, or from a slice.
#[derive(Clone, Copy)]
pub struct SubscribeFilters<'a>(Filters<'a>);

#[derive(Clone, Copy)]
enum Filters<'a> {
    /// A payload, found valid when it was decoded.
    Payload(&'a [u8]),
    List(&'a [SubscriptionRequest<'a>]),
}

impl<'a> SubscribeFilters<'a> {
    /// These filters, to write; at least one. [MQTT-3.8.3-2]
    #[must_use]
    pub const fn from_slice(requests: &'a [SubscriptionRequest<'a>]) -> Self {
        Self(Filters::List(requests))
    }

    /// The filters, in order.
    #[must_use]
    pub fn iter(&self) -> SubscribeFiltersIter<'a> {
        SubscribeFiltersIter(self.0)
    }

    fn decode(reader: &mut Reader<'a>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        if reader.is_empty() {
            return Err(DecodeError::SubscribeEmpty);
        }
        let payload = reader.take_rest();
        let mut requests = Reader::new(payload);
        while !requests.is_empty() {
            let filter = requests.string("topic filter")?;
            let byte = requests.u8("subscription options")?;
            if !version.is_v5() && byte & RESERVED_BEFORE_V5 != 0 {
                return Err(DecodeError::SubscriptionOptionsReserved);
            }
            let options = SubscriptionOptions::from_byte(byte)?;
            if options.no_local && filter.starts_with(SHARE_PREFIX) {
                return Err(DecodeError::NoLocalOnShared);
            }
        }
        Ok(Self(Filters::Payload(payload)))
    }
}

impl<'a> IntoIterator for &SubscribeFilters<'a> {
    type Item = SubscriptionRequest<'a>;
    type IntoIter = SubscribeFiltersIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for SubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscribeFilters<'_> {}

impl fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Walks [`SubscribeFilters`].
#[derive(Clone)]
pub struct SubscribeFiltersIter<'a>(Filters<'a>);

impl<'a> Iterator for SubscribeFiltersIter<'a> {
    type Item = SubscriptionRequest<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            // Found valid before, so an error is the end.
            Filters::Payload(payload) => {
                let mut reader = Reader::new(payload);
                let filter = reader.string("").ok()?;
                let options = SubscriptionOptions::from_byte(reader.u8("").ok()?).ok()?;
                *payload = reader.take_rest();
                Some(SubscriptionRequest { filter, options })
            }
            Filters::List(requests) => {
                let (first, rest) = requests.split_first()?;
                *requests = rest;
                Some(*first)
            }
        }
    }
}

impl<'a> Subscribe<'a> {
    pub(crate) fn decode(
        reader: &mut Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        let mut section = Section::default();
        if version.is_v5() {
            section = Section::decode(reader, PropertyOwner::of(PacketType::Subscribe))?;
        }
        Ok(Self {
            packet_id,
            subscription_id: section.subscription_ids.first().copied(),
            user_properties: section.user_properties,
            filters: SubscribeFilters::decode(reader, version)?,
        })
    }
}

impl WriteProperties for Subscribe<'_> {
    fn write_properties<S: Sink>(&self, out: &mut S) {
        if let Some(id) = self.subscription_id {
            put_varint(out, PropertyId::SubscriptionIdentifier, id);
        }
        put_user_properties(out, &self.user_properties);
    }
}

impl Encode for Subscribe<'_> {
    fn packet_type(&self) -> PacketType {
        PacketType::Subscribe
    }

    fn write_body<S: Sink>(&self, version: ProtocolVersion, out: &mut S) {
        out.put_u16(self.packet_id.get());
        if version.is_v5() {
            write_section(out, self);
        }
        for request in &self.filters {
            out.put_str(request.filter);
            let byte = request.options.byte();
            out.put_u8(if version.is_v5() { byte } else { byte & !RESERVED_BEFORE_V5 });
        }
    }
}
