//! MQTT 3.1, 3.1.1 and 5.0 without I/O.
//!
//! Bytes and time go in, packets and deadlines come out; nothing here opens a socket, reads a clock
//! or waits. Four layers, each usable without the ones above it:
//!
//! | module | turns | into |
//! |---|---|---|
//! | [`codec`] | bytes | fields: integers, strings, properties, reason codes |
//! | [`packet`] | fields | the fifteen Control Packets, borrowed from the input buffer |
//! | [`topic`] | text | Topic Names and Topic Filters that are valid by construction |
//! | [`connection`] | packets of one Network Connection | events for a Server, and why it must close |
//! | [`session`] | messages owed and received | steps towards the client, whatever connection serves it |
//!
//! Decoding is strict and copies nothing: a [`Publish`] points into the buffer it came from, its
//! user properties are walked where they lie. Whatever breaks a rule of the standard is a
//! [`DecodeError`] that names the rule and the reason code to answer with. Rules are cited by the
//! number MQTT 5.0 gives them; where only the older standard has a rule, the number is preceded by
//! "3.1.1".
//!
//! The same structs encode, for a Server and for a Client, so that what one side wrote the other
//! side can be shown to read.

pub mod codec;
pub mod connection;
pub mod message;
pub mod packet;
pub mod session;
pub mod topic;

pub use codec::error::{DecodeError, EncodeError};
pub use codec::property::UserProperties;
pub use codec::reason_code::ReasonCode;
pub use codec::{DecodeLimits, Encode, ProtocolVersion, decode, packet_size};
pub use connection::close::{CloseCause, CloseReason, Farewell, FarewellWords};
pub use connection::event::{Event, InboundPublish, ResolvedTopic};
pub use connection::stream::{Stream, StreamKind};
pub use connection::{Connection, ConnectionConfig, Granted};
pub use packet::ack::{Ack, AckKind, ResponseProperties};
pub use packet::auth::Auth;
pub use packet::connack::{Connack, ConnackProperties};
pub use packet::connect::{Connect, ConnectProperties, Will, WillProperties};
pub use packet::disconnect::Disconnect;
pub use packet::fields::{PacketId, QoS, RetainHandling};
pub use packet::publish::{
    KeptProperties, OwnedPublishProperties, Publish, PublishParts, PublishProperties,
    encode_publish,
};
pub use packet::suback::{ReasonCodes, Suback};
pub use packet::subscribe::{
    Subscribe, SubscribeFilters, SubscriptionOptions, SubscriptionRequest,
};
pub use packet::unsuback::Unsuback;
pub use packet::unsubscribe::{Unsubscribe, UnsubscribeFilters};
pub use packet::{Packet, PacketType};
pub use topic::filter::TopicFilter;
pub use topic::matching::matches;
pub use topic::name::TopicName;
pub use topic::{TOPIC_LEVELS_MAX, TopicError};
