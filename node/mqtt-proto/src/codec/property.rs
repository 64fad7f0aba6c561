//! The standard's table of properties (2.2.2.2), as a table, and the section that holds them.

use std::fmt;

use smallvec::SmallVec;

use super::error::DecodeError;
use super::string::{Measure, Reader, Sink};
use super::varint;
use crate::packet::PacketType;

/// Who a property section belongs to: a packet, or the Will inside CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PropertyOwner(u32);

impl PropertyOwner {
    /// The Will Properties of CONNECT's payload. Packet type 0 is reserved, so its bit is free.
    pub const WILL: Self = Self(1);

    /// The section of this packet's variable header.
    #[must_use]
    pub const fn of(packet_type: PacketType) -> Self {
        Self(1 << packet_type.number())
    }
}

/// Defines [`PropertyId`] from one table: number, name, data type, and who may carry it.
macro_rules! properties {
    ($($number:literal $variant:ident $name:literal [$($packet:ident)*] $(+ $will:ident)?;)*) => {
        /// A property's identifier. (2.2.2.2)
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum PropertyId {
            $(#[doc = concat!(stringify!($number), " ", $name)] $variant = $number,)*
        }

        impl PropertyId {
            /// Every property, in numeric order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The property with this identifier, if the standard defines one.
            #[must_use]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The standard's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Whether the standard lets this owner carry the property.
            #[must_use]
            pub const fn allowed_in(self, owner: PropertyOwner) -> bool {
                let owners = match self {
                    $(Self::$variant => {
                        0 $(| PropertyOwner::of(PacketType::$packet).0)*
                          $(| PropertyOwner::$will.0)?
                    })*
                };
                owners & owner.0 != 0
            }
        }
    };
}

properties! {
    0x01 PayloadFormatIndicator "Payload Format Indicator" [Publish] + WILL;
    0x02 MessageExpiryInterval "Message Expiry Interval" [Publish] + WILL;
    0x03 ContentType "Content Type" [Publish] + WILL;
    0x08 ResponseTopic "Response Topic" [Publish] + WILL;
    0x09 CorrelationData "Correlation Data" [Publish] + WILL;
    0x0B SubscriptionIdentifier "Subscription Identifier" [Publish Subscribe];
    0x11 SessionExpiryInterval "Session Expiry Interval" [Connect Connack Disconnect];
    0x12 AssignedClientIdentifier "Assigned Client Identifier" [Connack];
    0x13 ServerKeepAlive "Server Keep Alive" [Connack];
    0x15 AuthenticationMethod "Authentication Method" [Connect Connack Auth];
    0x16 AuthenticationData "Authentication Data" [Connect Connack Auth];
    0x17 RequestProblemInformation "Request Problem Information" [Connect];
    0x18 WillDelayInterval "Will Delay Interval" [] + WILL;
    0x19 RequestResponseInformation "Request Response Information" [Connect];
    0x1A ResponseInformation "Response Information" [Connack];
    0x1C ServerReference "Server Reference" [Connack Disconnect];
    0x1F ReasonString "Reason String"
        [Connack Puback Pubrec Pubrel Pubcomp Suback Unsuback Disconnect Auth];
    0x21 ReceiveMaximum "Receive Maximum" [Connect Connack];
    0x22 TopicAliasMaximum "Topic Alias Maximum" [Connect Connack];
    0x23 TopicAlias "Topic Alias" [Publish];
    0x24 MaximumQos "Maximum QoS" [Connack];
    0x25 RetainAvailable "Retain Available" [Connack];
    0x26 UserProperty "User Property"
        [Connect Connack Publish Puback Pubrec Pubrel Pubcomp Subscribe Suback Unsubscribe Unsuback
         Disconnect Auth] + WILL;
    0x27 MaximumPacketSize "Maximum Packet Size" [Connect Connack];
    0x28 WildcardSubscriptionAvailable "Wildcard Subscription Available" [Connack];
    0x29 SubscriptionIdentifierAvailable "Subscription Identifier Available" [Connack];
    0x2A SharedSubscriptionAvailable "Shared Subscription Available" [Connack];
}

/// The Subscription Identifiers of one PUBLISH; one per matching subscription that has one.
pub type SubscriptionIds = SmallVec<[u32; 4]>;

/// Every property there is, as one section had them. A packet picks those it may carry.
#[derive(Debug, Default)]
pub(crate) struct Section<'a> {
    pub(crate) payload_format_indicator: Option<bool>,
    pub(crate) message_expiry_interval: Option<u32>,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) response_topic: Option<&'a str>,
    pub(crate) correlation_data: Option<&'a [u8]>,
    pub(crate) subscription_ids: SubscriptionIds,
    pub(crate) session_expiry_interval: Option<u32>,
    pub(crate) assigned_client_identifier: Option<&'a str>,
    pub(crate) server_keep_alive: Option<u16>,
    pub(crate) authentication_method: Option<&'a str>,
    pub(crate) authentication_data: Option<&'a [u8]>,
    pub(crate) request_problem_information: Option<bool>,
    pub(crate) will_delay_interval: Option<u32>,
    pub(crate) request_response_information: Option<bool>,
    pub(crate) response_information: Option<&'a str>,
    pub(crate) server_reference: Option<&'a str>,
    pub(crate) reason_string: Option<&'a str>,
    pub(crate) receive_maximum: Option<u16>,
    pub(crate) topic_alias_maximum: Option<u16>,
    pub(crate) topic_alias: Option<u16>,
    pub(crate) maximum_qos: Option<bool>,
    pub(crate) retain_available: Option<bool>,
    pub(crate) user_properties: UserProperties<'a>,
    pub(crate) maximum_packet_size: Option<u32>,
    pub(crate) wildcard_subscription_available: Option<bool>,
    pub(crate) subscription_identifier_available: Option<bool>,
    pub(crate) shared_subscription_available: Option<bool>,
}

impl<'a> Section<'a> {
    /// Reads Property Length and that many bytes of properties.
    pub(crate) fn decode(
        reader: &mut Reader<'a>,
        owner: PropertyOwner,
    ) -> Result<Self, DecodeError> {
        let length = reader.varint("property length")? as usize;
        let mut section = Self::default();
        if length == 0 {
            return Ok(section);
        }
        let bytes = reader.take(length, "properties")?;
        let mut properties = Reader::new(bytes);
        let mut seen = 0_u64;
        let mut has_user_properties = false;
        while !properties.is_empty() {
            let number = properties.varint("property identifier")?;
            let id = PropertyId::from_number(number).ok_or(DecodeError::PropertyUnknown(number))?;
            if !id.allowed_in(owner) {
                return Err(DecodeError::PropertyNotAllowed(id));
            }
            // One Subscription Identifier for each that matched, where the Server sends it.
            // (3.3.2.3.8)
            let repeats = id == PropertyId::UserProperty
                || id == PropertyId::SubscriptionIdentifier
                    && owner == PropertyOwner::of(PacketType::Publish);
            if seen & (1 << number) != 0 && !repeats {
                return Err(DecodeError::PropertyDuplicate(id));
            }
            seen |= 1 << number;
            has_user_properties |= id == PropertyId::UserProperty;
            section.read_value(id, &mut properties)?;
        }
        if has_user_properties {
            section.user_properties = UserProperties(Pairs::Section(bytes));
        }
        Ok(section)
    }

    fn read_value(&mut self, id: PropertyId, r: &mut Reader<'a>) -> Result<(), DecodeError> {
        let name = id.name();
        match id {
            PropertyId::PayloadFormatIndicator => {
                self.payload_format_indicator = Some(flag(id, r)?);
            }
            PropertyId::MessageExpiryInterval => self.message_expiry_interval = Some(r.u32(name)?),
            PropertyId::ContentType => self.content_type = Some(r.string(name)?),
            PropertyId::ResponseTopic => {
                let topic = r.string(name)?;
                // "The Response Topic MUST NOT contain wildcard characters." [MQTT-3.3.2-14]
                if topic.is_empty() || topic.contains(['+', '#']) {
                    return Err(DecodeError::PropertyValue(id));
                }
                self.response_topic = Some(topic);
            }
            PropertyId::CorrelationData => self.correlation_data = Some(r.binary(name)?),
            PropertyId::SubscriptionIdentifier => {
                self.subscription_ids.push(not_zero(id, r.varint(name)?)?);
            }
            PropertyId::SessionExpiryInterval => self.session_expiry_interval = Some(r.u32(name)?),
            PropertyId::AssignedClientIdentifier => {
                self.assigned_client_identifier = Some(r.string(name)?);
            }
            PropertyId::ServerKeepAlive => self.server_keep_alive = Some(r.u16(name)?),
            PropertyId::AuthenticationMethod => self.authentication_method = Some(r.string(name)?),
            PropertyId::AuthenticationData => self.authentication_data = Some(r.binary(name)?),
            PropertyId::RequestProblemInformation => {
                self.request_problem_information = Some(flag(id, r)?);
            }
            PropertyId::WillDelayInterval => self.will_delay_interval = Some(r.u32(name)?),
            PropertyId::RequestResponseInformation => {
                self.request_response_information = Some(flag(id, r)?);
            }
            PropertyId::ResponseInformation => self.response_information = Some(r.string(name)?),
            PropertyId::ServerReference => self.server_reference = Some(r.string(name)?),
            PropertyId::ReasonString => self.reason_string = Some(r.string(name)?),
            PropertyId::ReceiveMaximum => {
                self.receive_maximum = Some(not_zero(id, r.u16(name)?)?);
            }
            PropertyId::TopicAliasMaximum => self.topic_alias_maximum = Some(r.u16(name)?),
            PropertyId::TopicAlias => match r.u16(name)? {
                0 => return Err(DecodeError::TopicAliasZero),
                alias => self.topic_alias = Some(alias),
            },
            PropertyId::MaximumQos => self.maximum_qos = Some(flag(id, r)?),
            PropertyId::RetainAvailable => self.retain_available = Some(flag(id, r)?),
            PropertyId::UserProperty => {
                r.string(name)?;
                r.string(name)?;
            }
            PropertyId::MaximumPacketSize => {
                self.maximum_packet_size = Some(not_zero(id, r.u32(name)?)?);
            }
            PropertyId::WildcardSubscriptionAvailable => {
                self.wildcard_subscription_available = Some(flag(id, r)?);
            }
            PropertyId::SubscriptionIdentifierAvailable => {
                self.subscription_identifier_available = Some(flag(id, r)?);
            }
            PropertyId::SharedSubscriptionAvailable => {
                self.shared_subscription_available = Some(flag(id, r)?);
            }
        }
        Ok(())
    }
}

fn flag(id: PropertyId, reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8(id.name())? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::PropertyValue(id)),
    }
}

fn not_zero<T: Default + PartialEq>(id: PropertyId, value: T) -> Result<T, DecodeError> {
    if value == T::default() { Err(DecodeError::PropertyValue(id)) } else { Ok(value) }
}

/// "The User Property is allowed to appear multiple times to represent multiple name, value pairs."
///
/// Read from a packet, these are the section's bytes, walked again at each look; to write, they
/// come from a slice. Order is kept. [MQTT-3.3.2-18]
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a>(Pairs<'a>);

#[derive(Clone, Copy)]
enum Pairs<'a> {
    /// A whole property section, found valid when it was decoded.
    Section(&'a [u8]),
    Borrowed(&'a [(&'a str, &'a str)]),
    Owned(&'a [(Box<str>, Box<str>)]),
}

impl Default for Pairs<'_> {
    fn default() -> Self {
        Self::Section(&[])
    }
}

impl<'a> UserProperties<'a> {
    /// No pair.
    pub const NONE: Self = Self(Pairs::Section(&[]));

    /// These pairs, to write.
    #[must_use]
    pub const fn from_pairs(pairs: &'a [(&'a str, &'a str)]) -> Self {
        Self(Pairs::Borrowed(pairs))
    }

    /// These pairs, to write.
    #[must_use]
    pub const fn from_owned(pairs: &'a [(Box<str>, Box<str>)]) -> Self {
        Self(Pairs::Owned(pairs))
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The pairs, in order.
    #[must_use]
    pub fn iter(&self) -> UserPropertiesIter<'a> {
        UserPropertiesIter(self.0)
    }

    /// The value of the first pair with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|pair| pair.0 == name).map(|pair| pair.1)
    }
}

impl<'a> IntoIterator for &UserProperties<'a> {
    type Item = (&'a str, &'a str);
    type IntoIter = UserPropertiesIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Walks [`UserProperties`].
#[derive(Clone)]
pub struct UserPropertiesIter<'a>(Pairs<'a>);

impl<'a> Iterator for UserPropertiesIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Pairs::Section(bytes) => next_in_section(bytes),
            Pairs::Borrowed(pairs) => {
                let (first, rest) = pairs.split_first()?;
                *pairs = rest;
                Some(*first)
            }
            Pairs::Owned(pairs) => {
                let (first, rest) = pairs.split_first()?;
                *pairs = rest;
                Some((&first.0, &first.1))
            }
        }
    }
}

/// The next pair of a section, past all other properties. The section was found valid before, so
/// an error is its end.
fn next_in_section<'a>(bytes: &mut &'a [u8]) -> Option<(&'a str, &'a str)> {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let id = PropertyId::from_number(reader.varint("").ok()?)?;
        if id == PropertyId::UserProperty {
            let pair = (reader.string("").ok()?, reader.string("").ok()?);
            *bytes = reader.take_rest();
            return Some(pair);
        }
        Section::default().read_value(id, &mut reader).ok()?;
    }
    *bytes = &[];
    None
}

/// A packet's properties, able to write themselves.
pub(crate) trait WriteProperties {
    /// Writes every property that is there, without the length in front.
    fn write_properties<S: Sink>(&self, out: &mut S);

    /// The bytes [`write_properties`](Self::write_properties) writes.
    fn properties_len(&self) -> Measure {
        let mut measure = Measure::default();
        self.write_properties(&mut measure);
        measure
    }
}

/// Writes Property Length and the properties. [MQTT-2.2.2-1]
pub(crate) fn write_section<S: Sink>(out: &mut S, properties: &impl WriteProperties) {
    varint::write(out, properties.properties_len().len());
    properties.write_properties(out);
}

pub(crate) fn put_flag<S: Sink>(out: &mut S, id: PropertyId, value: Option<bool>) {
    if let Some(value) = value {
        out.put_u8(id as u8);
        out.put_u8(u8::from(value));
    }
}

pub(crate) fn put_u16<S: Sink>(out: &mut S, id: PropertyId, value: Option<u16>) {
    if let Some(value) = value {
        out.put_u8(id as u8);
        out.put_u16(value);
    }
}

pub(crate) fn put_u32<S: Sink>(out: &mut S, id: PropertyId, value: Option<u32>) {
    if let Some(value) = value {
        out.put_u8(id as u8);
        out.put_u32(value);
    }
}

pub(crate) fn put_varint<S: Sink>(out: &mut S, id: PropertyId, value: u32) {
    out.put_u8(id as u8);
    varint::write(out, value as usize);
}

pub(crate) fn put_str<S: Sink>(out: &mut S, id: PropertyId, value: Option<&str>) {
    put_binary(out, id, value.map(str::as_bytes));
}

pub(crate) fn put_binary<S: Sink>(out: &mut S, id: PropertyId, value: Option<&[u8]>) {
    if let Some(value) = value {
        out.put_u8(id as u8);
        out.put_binary(value);
    }
}

pub(crate) fn put_user_properties<S: Sink>(out: &mut S, pairs: &UserProperties<'_>) {
    for (name, value) in pairs {
        out.put_u8(PropertyId::UserProperty as u8);
        out.put_str(name);
        out.put_str(value);
    }
}
