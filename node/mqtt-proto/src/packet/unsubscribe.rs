//! UNSUBSCRIBE (3.10): which Topic Filters a client no longer wants.

use std::fmt;

use super::PacketType;
use super::fields::PacketId;
use crate::codec::error::DecodeError;
use crate::codec::property::{
    PropertyOwner, Section, UserProperties, WriteProperties, put_user_properties, write_section,
};
use crate::codec::string::{Reader, Sink};
use crate::codec::{Encode, ProtocolVersion};

/// A request to end subscriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Returned by UNSUBACK. [MQTT-2.2.1-6]
    pub packet_id: PacketId,
    /// Name and value pairs; 5.0 only.
    pub user_properties: UserProperties<'a>,
    /// At least one filter. [MQTT-3.10.3-2]
    pub filters: UnsubscribeFilters<'a>,
}

/// The filters of an UNSUBSCRIBE, in order; read where they lie, or from a slice.
///
/// They are UTF-8; compared character by character with those subscribed to. [MQTT-3.10.4-1]
#[derive(Clone, Copy)]
pub struct UnsubscribeFilters<'a>(Filters<'a>);

#[derive(Clone, Copy)]
enum Filters<'a> {
    /// A payload, found valid when it was decoded.
    Payload(&'a [u8]),
    List(&'a [&'a str]),
}

impl<'a> UnsubscribeFilters<'a> {
    /// These filters, to write; at least one. [MQTT-3.10.3-2]
    #[must_use]
    pub const fn from_slice(filters: &'a [&'a str]) -> Self {
        Self(Filters::List(filters))
    }

    /// The filters, in order.
    #[must_use]
    pub fn iter(&self) -> UnsubscribeFiltersIter<'a> {
        UnsubscribeFiltersIter(self.0)
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        if reader.is_empty() {
            return Err(DecodeError::UnsubscribeEmpty);
        }
        let payload = reader.take_rest();
        let mut filters = Reader::new(payload);
        while !filters.is_empty() {
            filters.string("topic filter")?;
        }
        Ok(Self(Filters::Payload(payload)))
    }
}

impl<'a> IntoIterator for &UnsubscribeFilters<'a> {
    type Item = &'a str;
    type IntoIter = UnsubscribeFiltersIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for UnsubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UnsubscribeFilters<'_> {}

impl fmt::Debug for UnsubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Walks [`UnsubscribeFilters`].
#[derive(Clone)]
pub struct UnsubscribeFiltersIter<'a>(Filters<'a>);

impl<'a> Iterator for UnsubscribeFiltersIter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            // Found valid before, so an error is the end.
            Filters::Payload(payload) => {
                let mut reader = Reader::new(payload);
                let filter = reader.string("").ok()?;
                *payload = reader.take_rest();
                Some(filter)
            }
            Filters::List(filters) => {
                let (first, rest) = filters.split_first()?;
                *filters = rest;
                Some(first)
            }
        }
    }
}

impl<'a> Unsubscribe<'a> {
    pub(crate) fn decode(
        reader: &mut Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        let mut user_properties = UserProperties::NONE;
        if version.is_v5() {
            let owner = PropertyOwner::of(PacketType::Unsubscribe);
            user_properties = Section::decode(reader, owner)?.user_properties;
        }
        Ok(Self { packet_id, user_properties, filters: UnsubscribeFilters::decode(reader)? })
    }
}

impl WriteProperties for Unsubscribe<'_> {
    fn write_properties<S: Sink>(&self, out: &mut S) {
        put_user_properties(out, &self.user_properties);
    }
}

impl Encode for Unsubscribe<'_> {
    fn packet_type(&self) -> PacketType {
        PacketType::Unsubscribe
    }

    fn write_body<S: Sink>(&self, version: ProtocolVersion, out: &mut S) {
        out.put_u16(self.packet_id.get());
        if version.is_v5() {
            write_section(out, self);
        }
        for filter in &self.filters {
            out.put_str(filter);
        }
    }
}
