//! What a client's session and its application say to each other.

use bytes::Bytes;
use verge_broker_core::authn::scram_client::ServerFault;
use verge_mqtt_proto::packet::connect::RECEIVE_MAXIMUM_DEFAULT;
use verge_mqtt_proto::{PacketType, ProtocolVersion, QoS, ReasonCode};

use super::outgoing::Ticket;

/// How a client presents itself at every connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOptions {
    /// The Client Identifier; empty to be given one.
    pub client_id: String,
    /// 3.1.1 or 5.0.
    pub version: ProtocolVersion,
    /// Begin every connection without the state of an earlier one.
    pub clean_start: bool,
    /// Seconds the session outlives its connection; said in 5.0 only.
    pub session_expiry_secs: u32,
    /// Longest silence; 0 for any.
    pub keep_alive_secs: u16,
    /// User Name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Vec<u8>>,
    /// Proves that it knows the password by SCRAM-SHA-256, and does not say it; 5.0 only.
    pub scram: Option<Nonce>,
    /// Most QoS 1 and 2 messages the server may have under way to us; said in 5.0 only.
    pub receive_maximum: u16,
    /// Most publications held until the server has taken them over.
    pub publications_max: usize,
}

/// What makes a client's proofs differ from all others: random text of printable ASCII without commas.
/// Each connection adds its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce(pub String);

impl SessionOptions {
    /// A client with this identifier, a session that ends with the connection, and common bounds.
    #[must_use]
    pub fn new(client_id: &str, version: ProtocolVersion) -> Self {
        Self {
            client_id: client_id.to_owned(),
            version,
            clean_start: true,
            session_expiry_secs: 0,
            keep_alive_secs: 60,
            username: None,
            password: None,
            scram: None,
            receive_maximum: RECEIVE_MAXIMUM_DEFAULT,
            publications_max: 10_000,
        }
    }
}

/// An Application Message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Where it was published.
    pub topic: String,
    /// The message.
    pub payload: Bytes,
    /// The level of this delivery.
    pub qos: QoS,
    /// Whether the server had kept it.
    pub retain: bool,
    /// Whether the server may have sent it before.
    pub dup: bool,
}

/// What the application is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The server has accepted the connection.
    Connected {
        /// Whether the server resumes a session it had.
        session_present: bool,
        /// Publications that were in flight in a session the server does not know. They may or may
        /// not have reached it, and will not be sent again. [MQTT-3.2.2-5]
        discarded: Vec<Ticket>,
    },
    /// The server has refused the connection.
    Refused {
        /// Why.
        reason: ReasonCode,
        /// Where it says to go instead.
        server_reference: Option<String>,
    },
    /// A message for a subscription.
    Message(Incoming),
    /// A publication is done: written at QoS 0, acknowledged at QoS 1, complete at QoS 2. With an
    /// error the server has not accepted it.
    Published(Ticket, ReasonCode),
    /// The server has answered a SUBSCRIBE, filter by filter.
    Subscribed(Ticket, Vec<ReasonCode>),
    /// The server has answered an UNSUBSCRIBE; before 5.0 without codes.
    Unsubscribed(Ticket, Vec<ReasonCode>),
    /// The server ends the connection.
    Disconnected {
        /// Why.
        reason: ReasonCode,
        /// Where it says to go instead.
        server_reference: Option<String>,
    },
}

/// The server broke the protocol, or fell silent. The connection is of no further use; the session
/// keeps its state for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A packet that has no place here.
    #[error("the server sent {0:?} where it may not")]
    Unexpected(PacketType),
    /// A topic alias, though none was offered.
    #[error("the server used a topic alias, though none was allowed")]
    TopicAlias,
    /// What the server says of the password is not SCRAM-SHA-256, or proves nothing.
    #[error(transparent)]
    Scram(#[from] ServerFault),
    /// No PINGRESP within the keep alive.
    #[error("the server did not answer a ping within the keep alive")]
    Silent,
}

/// The application asked for what the session cannot do now. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The session holds as many publications as it may.
    #[error("too many publications are waiting for the server")]
    Full,
    /// Subscriptions need an open connection.
    #[error("not connected")]
    NotOpen,
}
