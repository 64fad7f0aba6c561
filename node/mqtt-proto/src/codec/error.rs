//! What can be wrong with a packet, by rule.

use thiserror::Error;

use super::property::PropertyId;
use super::reason_code::ReasonCode;
use crate::packet::PacketType;

/// The peer broke a rule of the standard. Decoding changes no state, so none has changed.
///
/// [`reason_code`](Self::reason_code) tells a packet that cannot be parsed (Malformed Packet) from
/// one that can but is not allowed (Protocol Error); some rules have a code of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Packet type 0 is reserved, and 15 was before 5.0.
    #[error("packet type {0} is reserved (2.1.2)")]
    ReservedPacketType(u8),
    /// The low four bits of the fixed header are given for every packet but PUBLISH.
    #[error("reserved flags of {0:?} are not as listed [MQTT-2.1.3-1]")]
    FixedHeaderFlags(PacketType),
    /// A Variable Byte Integer has at most four bytes.
    #[error("a variable byte integer is longer than four bytes (1.5.5)")]
    VarintTooLong,
    /// A Variable Byte Integer uses more bytes than its value needs.
    #[error("a variable byte integer is not in its shortest form [MQTT-1.5.5-1]")]
    VarintNotMinimal,
    /// The packet says it is larger than we accept; known from its first five bytes.
    #[error("the packet has {size} bytes, {limit} are accepted (3.1.2.11.4, 3.2.2.3.6)")]
    PacketTooLarge {
        /// Size of the whole packet.
        size: usize,
        /// What is accepted.
        limit: usize,
    },
    /// The Remaining Length ends in the middle of this field.
    #[error("the packet ends inside {0}")]
    Truncated(&'static str),
    /// Bytes follow the last field.
    #[error("{0} bytes follow the last field")]
    TrailingBytes(usize),
    /// Not UTF-8, or UTF-8 with surrogates.
    #[error("a string is not well-formed UTF-8 [MQTT-1.5.4-1]")]
    StringNotUtf8,
    /// A string holds U+0000.
    #[error("a string includes U+0000 [MQTT-1.5.4-2]")]
    StringHasNull,
    /// Packet Identifier 0.
    #[error("the packet identifier is zero [MQTT-2.2.1-3]")]
    PacketIdZero,
    /// No such reason code.
    #[error("reason code {0:#04x} is not defined (2.4)")]
    ReasonCodeUnknown(u8),
    /// A reason code in a packet that may not carry it.
    #[error("reason code {0:?} is not for {1:?} (2.4)")]
    ReasonCodeNotAllowed(ReasonCode, PacketType),

    /// No such property.
    #[error("property identifier {0:#04x} is not defined (2.2.2.2)")]
    PropertyUnknown(u32),
    /// A property in a packet, or in Will Properties, that may not carry it.
    #[error("property {0:?} is not for this packet (2.2.2.2)")]
    PropertyNotAllowed(PropertyId),
    /// A property that may stand once stands twice.
    #[error("property {0:?} is there more than once (2.2.2.2)")]
    PropertyDuplicate(PropertyId),
    /// A value outside of what the property's section allows.
    #[error("property {0:?} has a value the standard excludes")]
    PropertyValue(PropertyId),
    /// Topic Alias 0.
    #[error("topic alias is zero [MQTT-3.3.2-8]")]
    TopicAliasZero,

    /// The protocol name is neither "MQTT" nor the "MQIsdp" of 3.1.
    #[error("the protocol name is not MQTT [MQTT-3.1.2-1]")]
    ProtocolName,
    /// A protocol level that is not 3, 4 or 5, or does not go with the name.
    #[error("protocol level {0} is not supported [MQTT-3.1.2-2]")]
    ProtocolLevel(u8),
    /// The reserved bit of the Connect Flags.
    #[error("the reserved connect flag is set [MQTT-3.1.2-3]")]
    ConnectReservedFlag,
    /// Will QoS without a Will.
    #[error("will QoS without will flag [MQTT-3.1.2-11]")]
    WillQosWithoutWill,
    /// Will QoS 3.
    #[error("will QoS is 3 [MQTT-3.1.2-12]")]
    WillQos,
    /// Will Retain without a Will.
    #[error("will retain without will flag [MQTT-3.1.2-13]")]
    WillRetainWithoutWill,
    /// Before 5.0 a password needs a user name.
    #[error("password without user name [3.1.1 MQTT-3.1.2-22]")]
    PasswordWithoutUsername,
    /// Authentication Data, or a re-authentication, without a method.
    #[error("authentication data without authentication method (3.1.2.11.10, 3.15.2)")]
    AuthDataWithoutMethod,
    /// Bits 7-1 of the Connect Acknowledge Flags, or Session Present with a refusal.
    #[error("connect acknowledge flags are set that must be 0 [MQTT-3.2.2-1, MQTT-3.2.2-6]")]
    ConnackFlags,

    /// DUP on a message that is never repeated.
    #[error("DUP is set at QoS 0 [MQTT-3.3.1-2]")]
    DupAtQos0,
    /// Both QoS bits are set.
    #[error("QoS is 3 [MQTT-3.3.1-4]")]
    PublishQos,
    /// A Topic Name with `+` or `#`.
    #[error("the topic name contains a wildcard [MQTT-3.3.2-2]")]
    TopicNameWildcard,
    /// A Topic Name without a character.
    #[error("the topic name is empty [MQTT-4.7.3-1]")]
    TopicNameEmpty,
    /// A Topic Name with more levels than we accept.
    #[error("the topic name has more levels than are accepted")]
    TopicNameLevels,

    /// SUBSCRIBE without a Topic Filter.
    #[error("SUBSCRIBE without a topic filter [MQTT-3.8.3-2]")]
    SubscribeEmpty,
    /// Subscription Options, or the Requested QoS byte of 3.1.1, with reserved bits.
    #[error("reserved bits of the subscription options are set [MQTT-3.8.3-5]")]
    SubscriptionOptionsReserved,
    /// Maximum QoS 3.
    #[error("maximum QoS of a subscription is 3 (3.8.3.1)")]
    SubscriptionQos,
    /// Retain Handling 3.
    #[error("retain handling is 3 (3.8.3.1)")]
    RetainHandling,
    /// No Local makes no sense for a group.
    #[error("no local on a shared subscription [MQTT-3.8.3-4]")]
    NoLocalOnShared,
    /// SUBACK without a code.
    #[error("SUBACK without a reason code (3.9.3)")]
    SubackEmpty,
    /// UNSUBSCRIBE without a Topic Filter.
    #[error("UNSUBSCRIBE without a topic filter [MQTT-3.10.3-2]")]
    UnsubscribeEmpty,
}

impl DecodeError {
    /// What a 5.0 peer is told.
    #[must_use]
    pub const fn reason_code(self) -> ReasonCode {
        match self {
            Self::ReservedPacketType(_)
            | Self::FixedHeaderFlags(_)
            | Self::VarintTooLong
            | Self::VarintNotMinimal
            | Self::Truncated(_)
            | Self::TrailingBytes(_)
            | Self::StringNotUtf8
            | Self::StringHasNull
            | Self::PropertyUnknown(_)
            | Self::PropertyNotAllowed(_)
            | Self::ConnectReservedFlag
            | Self::WillQosWithoutWill
            | Self::WillQos
            | Self::WillRetainWithoutWill
            | Self::PasswordWithoutUsername
            | Self::ConnackFlags
            | Self::DupAtQos0
            | Self::PublishQos
            | Self::SubscriptionOptionsReserved => ReasonCode::MalformedPacket,
            Self::PacketIdZero
            | Self::ReasonCodeUnknown(_)
            | Self::ReasonCodeNotAllowed(..)
            | Self::PropertyDuplicate(_)
            | Self::PropertyValue(_)
            | Self::AuthDataWithoutMethod
            | Self::SubscribeEmpty
            | Self::SubscriptionQos
            | Self::RetainHandling
            | Self::NoLocalOnShared
            | Self::SubackEmpty
            | Self::UnsubscribeEmpty => ReasonCode::ProtocolError,
            Self::ProtocolName | Self::ProtocolLevel(_) => ReasonCode::UnsupportedProtocolVersion,
            Self::TopicAliasZero => ReasonCode::TopicAliasInvalid,
            Self::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::TopicNameWildcard | Self::TopicNameEmpty | Self::TopicNameLevels => {
                ReasonCode::TopicNameInvalid
            }
        }
    }
}

/// The packet was not written, and the output buffer is as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The peer, or the standard, accepts no packet of this size. [MQTT-3.1.2-24]
    #[error("the packet has {size} bytes, the receiver accepts {limit} [MQTT-3.1.2-24]")]
    PacketTooLarge {
        /// Size of the whole packet.
        size: usize,
        /// What the receiver accepts.
        limit: usize,
    },
    /// A string or binary field has more than 65,535 bytes. (1.5.4, 1.5.6)
    #[error("a string or binary field is longer than 65,535 bytes (1.5.4, 1.5.6)")]
    FieldTooLong,
    /// The packet does not exist in the protocol version of this connection.
    #[error("{0:?} does not exist in this protocol version")]
    NotInVersion(PacketType),
}
