//! Why a Network Connection must close, and what the client is told first.

use bytes::BytesMut;
use thiserror::Error;

use crate::codec::error::DecodeError;
use crate::codec::reason_code::ReasonCode;
use crate::codec::{Encode, ProtocolVersion};
use crate::packet::PacketType;
use crate::packet::connack::Connack;
use crate::packet::disconnect::Disconnect;
use crate::topic::alias::AliasError;

/// What ended the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CloseCause {
    /// The client sent what breaks the packet format.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// "The first packet sent from the Client to the Server MUST be a CONNECT packet."
    #[error("the first packet is {0:?}, not CONNECT [MQTT-3.1.0-1]")]
    ConnectExpected(PacketType),
    /// "The Server MUST process a second CONNECT packet as a Protocol Error."
    #[error("a second CONNECT [MQTT-3.1.0-2]")]
    SecondConnect,
    /// A packet that only a Server sends.
    #[error("a client does not send {0:?} (2.1.2)")]
    NotForServer(PacketType),
    /// Before 5.0 a client without a Client Identifier must ask for a clean session.
    #[error("no client identifier and no clean session [3.1.1 MQTT-3.1.3-8]")]
    ClientIdEmpty,
    /// "A PUBLISH packet sent from a Client to a Server MUST NOT contain a Subscription
    /// Identifier."
    #[error("a client's PUBLISH contains a subscription identifier [MQTT-3.3.4-6]")]
    SubscriptionIdFromClient,
    /// More QoS 1 and 2 messages than we said we take at once.
    #[error("more messages at once than the receive maximum [MQTT-3.3.4-7]")]
    ReceiveMaximumExceeded,
    /// An alias that cannot be resolved.
    #[error(transparent)]
    TopicAlias(#[from] AliasError),
    /// Another packet while the client owes an answer to a challenge.
    #[error("{0:?} before the authentication is complete [MQTT-3.1.2-30]")]
    AuthExpected(PacketType),
    /// AUTH without enhanced authentication, with another method, or with a Server's code.
    #[error("AUTH that the CONNECT did not prepare [MQTT-4.12.0-7] [MQTT-4.12.1-1]")]
    UnexpectedAuth,
    /// A session that was to end with the connection cannot be prolonged by DISCONNECT.
    #[error("DISCONNECT sets a session expiry that CONNECT left at zero (3.14.2.2.2)")]
    SessionExpiryRaised,
    /// A packet that a stream of this kind does not carry.
    #[error("{0:?} does not come on a stream of this kind")]
    NotOnStream(PacketType),
    /// No CONNECT, or no answer in an authentication exchange, in time.
    #[error("no complete CONNECT in time (3.1.4)")]
    ConnectTimeout,
    /// No packet for one and a half times the Keep Alive.
    #[error("no packet within one and a half times the keep alive [MQTT-3.1.2-22]")]
    KeepAliveTimeout,
    /// The Server closes by its own decision, for this reason.
    #[error("closed by the server: {}", .0.name())]
    Server(ReasonCode),
}

impl CloseCause {
    /// What a 5.0 client is told.
    #[must_use]
    pub const fn reason_code(self) -> ReasonCode {
        match self {
            Self::Decode(error) => error.reason_code(),
            Self::ConnectExpected(_)
            | Self::SecondConnect
            | Self::NotForServer(_)
            | Self::NotOnStream(_)
            | Self::SubscriptionIdFromClient
            | Self::TopicAlias(AliasError::Unknown(_))
            | Self::AuthExpected(_)
            | Self::UnexpectedAuth
            | Self::SessionExpiryRaised => ReasonCode::ProtocolError,
            Self::ClientIdEmpty => ReasonCode::ClientIdentifierNotValid,
            Self::ReceiveMaximumExceeded => ReasonCode::ReceiveMaximumExceeded,
            Self::TopicAlias(AliasError::OutOfRange(_)) => ReasonCode::TopicAliasInvalid,
            Self::ConnectTimeout => ReasonCode::MaximumConnectTime,
            Self::KeepAliveTimeout => ReasonCode::KeepAliveTimeout,
            Self::Server(reason) => reason,
        }
    }

    /// The value of a metric's `reason` label; of a small, fixed set.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Decode(error) => match error.reason_code().byte() {
                0x82 => "protocol_error",
                0x84 => "protocol_version",
                0x90 => "topic_name",
                0x94 => "topic_alias",
                0x95 => "packet_too_large",
                _ => "malformed_packet",
            },
            Self::ConnectExpected(_) => "connect_expected",
            Self::SecondConnect => "second_connect",
            Self::ClientIdEmpty => "client_id",
            Self::NotForServer(_)
            | Self::NotOnStream(_)
            | Self::SubscriptionIdFromClient
            | Self::AuthExpected(_)
            | Self::UnexpectedAuth
            | Self::SessionExpiryRaised => "protocol_error",
            Self::ReceiveMaximumExceeded => "receive_maximum",
            Self::TopicAlias(_) => "topic_alias",
            Self::ConnectTimeout => "connect_timeout",
            Self::KeepAliveTimeout => "keep_alive_timeout",
            Self::Server(_) => "server",
        }
    }
}

/// The last packet to send, if one is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// Close without a word: the client is before 5.0, or not an MQTT client.
    None,
    /// CONNACK with a refusal.
    Connack {
        /// The version to write it in.
        version: ProtocolVersion,
        /// Why.
        reason: ReasonCode,
    },
    /// DISCONNECT, 5.0 only. [MQTT-4.13.1-1]
    Disconnect(ReasonCode),
}

/// The connection is Closed: send the farewell, then close the Network Connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{cause}")]
pub struct CloseReason {
    /// What ended it.
    #[source]
    pub cause: CloseCause,
    /// What to send first.
    pub farewell: Farewell,
}

/// What a farewell says to people, and where it sends the client. Either may always be said:
/// Request Problem Information is about other packets. [MQTT-3.1.2-29]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FarewellWords<'a> {
    /// The reason in words; left out where the packet would be larger than the client accepts.
    /// [MQTT-3.2.2-19] [MQTT-3.14.2-3]
    pub reason_string: Option<&'a str>,
    /// Where the client should go instead.
    pub server_reference: Option<&'a str>,
}

impl CloseReason {
    /// Appends the farewell to `out`, if there is one and the client accepts packets of its size.
    pub fn encode_farewell(
        &self,
        words: FarewellWords<'_>,
        packet_bytes_max: usize,
        out: &mut BytesMut,
    ) {
        let FarewellWords { reason_string, server_reference } = words;
        // What does not fit is left out, and at last the packet. [MQTT-3.1.2-25]
        let _ = match self.farewell {
            Farewell::None => return,
            Farewell::Connack { version, reason } => {
                let mut connack = Connack::refused(reason);
                connack.properties.reason_string = reason_string;
                connack.properties.server_reference = server_reference;
                connack.encode_within(version, packet_bytes_max, out)
            }
            Farewell::Disconnect(reason) => {
                let disconnect =
                    Disconnect { reason_string, server_reference, ..Disconnect::new(reason) };
                disconnect.encode_within(ProtocolVersion::V5, packet_bytes_max, out)
            }
        };
    }
}

/// The refusal of a CONNECT: `reason`, or the nearest code a CONNACK may carry.
pub(crate) fn connack(version: ProtocolVersion, reason: ReasonCode) -> Farewell {
    Farewell::Connack { version, reason: nearest(reason, PacketType::Connack) }
}

/// A DISCONNECT with `reason`, or the nearest code it may carry.
pub(crate) fn disconnect(version: ProtocolVersion, reason: ReasonCode) -> Farewell {
    if version.is_v5() {
        Farewell::Disconnect(nearest(reason, PacketType::Disconnect))
    } else {
        Farewell::None
    }
}

fn nearest(reason: ReasonCode, packet_type: PacketType) -> ReasonCode {
    if reason.allowed_in(packet_type) {
        reason
    } else if reason == ReasonCode::ServerShuttingDown {
        ReasonCode::ServerUnavailable
    } else {
        ReasonCode::UnspecifiedError
    }
}
