//! What a client did, for whoever owns its session.

use std::ops::Deref;
use std::sync::Arc;

use crate::codec::reason_code::ReasonCode;
use crate::packet::ack::{Ack, AckKind};
use crate::packet::auth::Auth;
use crate::packet::connect::Connect;
use crate::packet::disconnect::Disconnect;
use crate::packet::fields::{PacketId, QoS};
use crate::packet::publish::PublishProperties;
use crate::packet::subscribe::Subscribe;
use crate::packet::unsubscribe::Unsubscribe;
use crate::topic::name::TopicName;

/// What a client did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// It wants in. Decide with [`Connection::accept`](super::Connection::accept) or
    /// [`Connection::close`](super::Connection::close).
    ///
    /// Boxed: it comes once, and every other event is a third of its size.
    Connect(Box<Connect<'a>>),
    /// It published.
    Publish(InboundPublish<'a>),
    /// It has a QoS 1 message.
    Puback {
        /// Of our PUBLISH.
        packet_id: PacketId,
        /// How it went.
        reason: ReasonCode,
    },
    /// It has taken over a QoS 2 message, or refuses it.
    Pubrec {
        /// Of our PUBLISH.
        packet_id: PacketId,
        /// How it went; an error ends the exchange.
        reason: ReasonCode,
    },
    /// It has let go of a QoS 2 message it published.
    Pubrel {
        /// Of its PUBLISH.
        packet_id: PacketId,
        /// Success, or that it does not know the identifier.
        reason: ReasonCode,
    },
    /// A QoS 2 exchange of ours is complete.
    Pubcomp {
        /// Of our PUBLISH.
        packet_id: PacketId,
        /// Success, or that it does not know the identifier.
        reason: ReasonCode,
    },
    /// It wants messages. Filters are to be parsed one by one.
    Subscribe(Subscribe<'a>),
    /// It no longer wants messages.
    Unsubscribe(Unsubscribe<'a>),
    /// It wants to hear PINGRESP. [MQTT-3.12.4-1]
    Pingreq,
    /// It leaves; the connection is Closed.
    Disconnect(Disconnect<'a>),
    /// A step of enhanced authentication.
    Auth(Auth<'a>),
}

impl Event<'_> {
    pub(super) fn of_ack(ack: &Ack<'_>) -> Self {
        let (packet_id, reason) = (ack.packet_id, ack.reason);
        match ack.kind {
            AckKind::Puback => Self::Puback { packet_id, reason },
            AckKind::Pubrec => Self::Pubrec { packet_id, reason },
            AckKind::Pubrel => Self::Pubrel { packet_id, reason },
            AckKind::Pubcomp => Self::Pubcomp { packet_id, reason },
        }
    }
}

/// An Application Message from a client, with its topic whether or not an alias was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundPublish<'a> {
    /// Perhaps not the first attempt.
    pub dup: bool,
    /// The level the client publishes at.
    pub qos: QoS,
    /// Keep it for later subscribers.
    pub retain: bool,
    /// Where; a valid Topic Name.
    pub topic: ResolvedTopic<'a>,
    /// There exactly if QoS is above 0.
    pub packet_id: Option<PacketId>,
    /// As received, but for the alias, which is done with; none if there are no others.
    ///
    /// Boxed: most messages have none, and are moved on without the room for them.
    pub properties: Option<Box<PublishProperties<'a>>>,
    /// The message.
    pub payload: &'a [u8],
}

/// A valid Topic Name, from the packet or from an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolvedTopic<'a> {
    /// The packet spells it out.
    Given(&'a str),
    /// The packet names an alias.
    Aliased(Arc<str>),
}

impl ResolvedTopic<'_> {
    /// The text.
    #[must_use]
    #[inline]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Given(topic) => topic,
            Self::Aliased(topic) => topic,
        }
    }

    /// The topic, to keep.
    #[must_use]
    pub fn to_name(&self) -> TopicName {
        TopicName::from_checked(self.as_str())
    }
}

impl Deref for ResolvedTopic<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}
