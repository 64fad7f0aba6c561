//! One Network Connection, as the Server sees it.
//!
//! ```text
//!                     CONNECT                accept()
//!  AwaitingConnect ───────────▶ AwaitingDecision ────────▶ Connected
//!        │                        │    ▲  │                   │
//!        │                        └────┘  │                   │ DISCONNECT
//!        │ error, timeout          AUTH   │ error, close()    │ error, timeout, close()
//!        └──────────────┬─────────────────┴───────────────────┘
//!                       ▼
//!                     Closed
//! ```
//!
//! | input | AwaitingConnect | AwaitingDecision | Connected | Closed |
//! |---|---|---|---|---|
//! | CONNECT | event, AwaitingDecision | waits in the buffer | closes, second CONNECT | ignored |
//! | AUTH | closes, CONNECT expected | event, if CONNECT named its method | the same | ignored |
//! | other packet of a client | closes, CONNECT expected | waits in the buffer; if a challenge is open, closes, but for DISCONNECT | event | ignored |
//! | packet of a Server | closes, CONNECT expected | waits in the buffer | closes | ignored |
//! | broken packet | closes | waits in the buffer | closes | ignored |
//! | `accept` | caller's mistake | Connected | caller's mistake | nothing |
//! | `close` | closes | closes, CONNACK | closes, DISCONNECT | closes again, silently |
//! | timeout | closes | closes, if a challenge is open | closes, keep alive | nothing |
//!
//! The machine holds what the standard binds to the Network Connection and not to the Session: the
//! version, the limits both sides stated, topic aliases, the Receive Maximum and silence. It reads
//! packets and says why to close; answers are written by whoever owns the session.

pub mod close;
pub mod event;
mod handshake;
mod keep_alive;
mod receive_maximum;
pub mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use verge_model::Millis;

use self::close::{CloseCause, CloseReason, Farewell};
use self::event::{Event, InboundPublish, ResolvedTopic};
use self::handshake::ClientTerms;
use self::keep_alive::{KeepAlive, server_keep_alive};
use self::receive_maximum::ReceiveWindow;
use crate::codec::fixed_header::FixedHeader;
use crate::codec::reason_code::ReasonCode;
use crate::codec::{
    DecodeLimits, PACKET_BYTES_MAX, ProtocolVersion, decode, decode_ack, decode_after,
    decode_publish,
};
use crate::packet::ack::AckKind;
use crate::packet::auth::Auth;
use crate::packet::connect::RECEIVE_MAXIMUM_DEFAULT;
use crate::packet::disconnect::Disconnect;
use crate::packet::fields::PacketId;
use crate::packet::publish::Publish;
use crate::packet::{Packet, PacketType};
use crate::topic::TOPIC_LEVELS_MAX;
use crate::topic::alias::InboundAliases;

/// What the Server allows on a connection; a 5.0 client is told in CONNACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionConfig {
    /// Largest packet, once the client is accepted. 1 MiB holds every V2X message with room.
    pub packet_bytes_max: usize,
    /// Largest CONNECT and AUTH before that: strangers get little of our memory.
    pub connect_bytes_max: usize,
    /// Most levels of a Topic Name.
    pub topic_levels_max: usize,
    /// Most QoS 1 and 2 messages a 5.0 client may have under way.
    pub receive_maximum: u16,
    /// Most topic aliases a client may set.
    pub topic_alias_maximum: u16,
    /// How long CONNECT, or an answer to a challenge, may take.
    pub connect_timeout: Duration,
    /// Longest Keep Alive of a 5.0 client; 0 for any. Earlier versions cannot be told.
    pub keep_alive_secs_max: u16,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            packet_bytes_max: 1024 * 1024,
            connect_bytes_max: 64 * 1024,
            topic_levels_max: TOPIC_LEVELS_MAX,
            receive_maximum: 1_024,
            topic_alias_maximum: 64,
            connect_timeout: Duration::from_secs(10),
            keep_alive_secs_max: 0,
        }
    }
}

/// What CONNACK granted, where it differs from what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Granted {
    /// The Server Keep Alive that CONNACK carries; none if the client's own holds.
    pub server_keep_alive: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    AwaitingConnect {
        deadline: Millis,
    },
    AwaitingDecision {
        /// While the client owes us an AUTH.
        deadline: Option<Millis>,
    },
    Connected,
    Closed,
}

/// The machine. See the [module](self) for its states.
///
/// - [`handle_bytes`](Self::handle_bytes) in a loop on the unread bytes, until it yields none;
/// - [`accept`](Self::accept) once CONNACK with Success is written, or [`close`](Self::close);
/// - `on_…_sent` for each last answer to a PUBLISH;
/// - [`poll_timeout`](Self::poll_timeout) for the deadline, and
///   [`handle_timeout`](Self::handle_timeout) when it has passed.
///
/// After a [`CloseReason`] or [`Event::Disconnect`] the machine is Closed and ignores everything.
#[derive(Debug)]
pub struct Connection {
    /// The same for all connections of a listener.
    config: Arc<ConnectionConfig>,
    state: State,
    /// There from CONNECT on.
    terms: Option<ClientTerms>,
    keep_alive: KeepAlive,
    aliases: InboundAliases,
    receiving: ReceiveWindow,
}

impl Connection {
    /// A connection just opened.
    #[must_use]
    pub fn new(config: impl Into<Arc<ConnectionConfig>>, now: Millis) -> Self {
        let config = config.into();
        Self {
            state: State::AwaitingConnect { deadline: now + config.connect_timeout },
            terms: None,
            keep_alive: KeepAlive::new(0, now),
            aliases: InboundAliases::new(0),
            receiving: ReceiveWindow::new(config.receive_maximum),
            config,
        }
    }

    /// Reads the first packet of `input`, the bytes not read yet, and yields it with its size; none
    /// if more bytes, or a decision about CONNECT, must come first.
    ///
    /// # Errors
    ///
    /// The client broke a rule. The machine is Closed.
    pub fn handle_bytes<'a>(
        &mut self,
        input: &'a [u8],
        now: Millis,
    ) -> Result<Option<(Event<'a>, usize)>, CloseReason> {
        let read = match self.state {
            State::AwaitingConnect { .. } => self.read_connect(input),
            State::AwaitingDecision { .. } => self.read_auth(input),
            State::Connected => self.read_packet(input),
            State::Closed => return Ok(None),
        };
        match read {
            Ok(Some(event)) => {
                self.keep_alive.on_packet(now);
                Ok(Some(event))
            }
            Ok(None) => Ok(None),
            Err(cause) => {
                let farewell = self.farewell_after(cause, input);
                self.state = State::Closed;
                Err(CloseReason { cause, farewell })
            }
        }
    }

    /// The CONNECT is accepted and CONNACK written: packets that wait in the buffer may be read.
    ///
    /// # Panics
    ///
    /// If no CONNECT awaits a decision, which is a mistake of the caller.
    pub fn accept(&mut self, granted: Granted, now: Millis) {
        if self.state == State::Closed {
            return;
        }
        assert!(self.is_awaiting_decision(), "accept() answers Event::Connect");
        let terms = self.terms.as_ref().expect("CONNECT was read before a decision is due");
        let keep_alive_secs = granted.server_keep_alive.unwrap_or(terms.keep_alive_secs);
        self.keep_alive = KeepAlive::new(keep_alive_secs, now);
        self.state = State::Connected;
        self.check_invariants();
    }

    /// An AUTH with Continue authentication was written before CONNACK; the client owes an answer.
    pub fn on_challenge_sent(&mut self, now: Millis) {
        if let State::AwaitingDecision { deadline } = &mut self.state {
            *deadline = Some(now + self.config.connect_timeout);
        }
    }

    /// PUBACK goes out.
    #[inline]
    pub fn on_puback_sent(&mut self, packet_id: PacketId) {
        self.receiving.on_answered(packet_id);
    }

    /// PUBREC goes out; with an error it is the last answer.
    #[inline]
    pub fn on_pubrec_sent(&mut self, packet_id: PacketId, reason: ReasonCode) {
        self.receiving.on_pubrec_sent(packet_id, reason);
    }

    /// PUBCOMP goes out.
    #[inline]
    pub fn on_pubcomp_sent(&mut self, packet_id: PacketId) {
        self.receiving.on_answered(packet_id);
    }

    /// The Server closes: refuses the CONNECT, or disconnects the client, for `reason`.
    pub fn close(&mut self, reason: ReasonCode) -> CloseReason {
        let farewell = match (self.state, self.version()) {
            (State::AwaitingDecision { .. }, Some(version)) => close::connack(version, reason),
            (State::Connected, Some(version)) => close::disconnect(version, reason),
            (State::AwaitingConnect { .. } | State::Closed, _) | (_, None) => Farewell::None,
        };
        self.state = State::Closed;
        CloseReason { cause: CloseCause::Server(reason), farewell }
    }

    /// Looks at the clock; closes if the client took too long.
    pub fn handle_timeout(&mut self, now: Millis) -> Option<CloseReason> {
        if self.poll_timeout().is_none_or(|deadline| now < deadline) {
            return None;
        }
        let version = self.version().unwrap_or(ProtocolVersion::V4);
        let cause = if self.state == State::Connected {
            CloseCause::KeepAliveTimeout
        } else {
            CloseCause::ConnectTimeout
        };
        let farewell = if self.state == State::Connected {
            close::disconnect(version, cause.reason_code())
        } else {
            Farewell::None
        };
        self.state = State::Closed;
        Some(CloseReason { cause, farewell })
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due. It moves with every packet; being
    /// called early does no harm, so a timer need not follow it.
    #[must_use]
    #[inline]
    pub fn poll_timeout(&self) -> Option<Millis> {
        match self.state {
            State::AwaitingConnect { deadline } => Some(deadline),
            State::AwaitingDecision { deadline } => deadline,
            State::Connected => self.keep_alive.deadline(),
            State::Closed => None,
        }
    }

    /// The version of the client; none before CONNECT.
    #[must_use]
    #[inline]
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.terms.as_ref().map(|terms| terms.version)
    }

    /// Whether the client is a bridge of before 5.0: its subscriptions have No Local and Retain As
    /// Published.
    #[must_use]
    pub fn client_is_bridge(&self) -> bool {
        self.terms.as_ref().is_some_and(|terms| terms.is_bridge)
    }

    /// The Session Expiry Interval the client asked for.
    #[must_use]
    pub fn client_session_expiry_interval(&self) -> u32 {
        self.terms.as_ref().map_or(0, |terms| terms.session_expiry_interval)
    }

    /// Whether a CONNECT awaits [`accept`](Self::accept) or [`close`](Self::close).
    #[must_use]
    pub const fn is_awaiting_decision(&self) -> bool {
        matches!(self.state, State::AwaitingDecision { .. })
    }

    /// Whether the CONNECT was accepted and nothing has ended the connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Whether the connection is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Most QoS 1 and 2 messages the client takes at once. [MQTT-3.3.4-9]
    #[must_use]
    pub fn client_receive_maximum(&self) -> u16 {
        self.terms.as_ref().map_or(RECEIVE_MAXIMUM_DEFAULT, |terms| terms.receive_maximum)
    }

    /// Largest packet the client accepts. [MQTT-3.1.2-24]
    #[must_use]
    #[inline]
    pub fn client_packet_bytes_max(&self) -> usize {
        self.terms.as_ref().map_or(PACKET_BYTES_MAX, |terms| terms.packet_bytes_max as usize)
    }

    /// Most topic aliases the client keeps. [MQTT-3.3.2-11]
    #[must_use]
    pub fn client_topic_alias_maximum(&self) -> u16 {
        self.terms.as_ref().map_or(0, |terms| terms.topic_alias_maximum)
    }

    /// Whether responses other than CONNACK and DISCONNECT may carry Reason String and User
    /// Properties. [MQTT-3.1.2-29]
    #[must_use]
    #[inline]
    pub fn client_wants_problem_information(&self) -> bool {
        self.terms.as_ref().is_some_and(|terms| terms.wants_problem_information)
    }

    /// Whether CONNACK may carry Response Information. [MQTT-3.1.2-28]
    #[must_use]
    pub fn client_wants_response_information(&self) -> bool {
        self.terms.as_ref().is_some_and(|terms| terms.wants_response_information)
    }

    /// The Server Keep Alive that CONNACK must carry; none if the client's own is short enough, or
    /// the client is before 5.0. [MQTT-3.2.2-21]
    #[must_use]
    pub fn server_keep_alive(&self) -> Option<u16> {
        let terms = self.terms.as_ref().filter(|terms| terms.version.is_v5())?;
        server_keep_alive(terms.keep_alive_secs, self.config.keep_alive_secs_max)
    }

    /// What this connection was configured with.
    #[must_use]
    pub fn config(&self) -> &ConnectionConfig {
        &self.config
    }

    /// Asserts what holds between two calls.
    pub fn check_invariants(&self) {
        self.receiving.check_invariants();
        if matches!(self.state, State::AwaitingDecision { .. } | State::Connected) {
            assert!(self.terms.is_some(), "past CONNECT, its terms are known");
        }
    }

    fn limits(&self, packet_bytes_max: usize) -> DecodeLimits {
        DecodeLimits { packet_bytes_max, topic_levels_max: self.config.topic_levels_max }
    }

    fn read_connect<'a>(
        &mut self,
        input: &'a [u8],
    ) -> Result<Option<(Event<'a>, usize)>, CloseCause> {
        // Known from the first byte, long before a stranger's packet is complete. [MQTT-3.1.0-1]
        if let Some(packet_type) =
            input.first().and_then(|&byte| PacketType::from_number(byte >> 4))
            && packet_type != PacketType::Connect
        {
            return Err(CloseCause::ConnectExpected(packet_type));
        }
        let limits = self.limits(self.config.connect_bytes_max);
        // The version asked for has no effect on CONNECT, which names its own.
        let decoded = decode(input, ProtocolVersion::V5, &limits)?;
        let Some((Packet::Connect(connect), size)) = decoded else { return Ok(None) };
        let terms = ClientTerms::of(&connect);
        if terms.version.is_v5() {
            self.aliases = InboundAliases::new(self.config.topic_alias_maximum);
        } else {
            // Before 5.0 only the number of identifiers bounds what is under way.
            self.receiving = ReceiveWindow::new(u16::MAX);
        }
        self.terms = Some(terms);
        self.state = State::AwaitingDecision { deadline: None };
        handshake::check(&connect)?;
        Ok(Some((Event::Connect(Box::new(connect)), size)))
    }

    /// Reads what may come before CONNACK is sent and cannot wait. A client that is challenged sends
    /// AUTH or DISCONNECT and nothing else. [MQTT-3.1.2-30]
    fn read_auth<'a>(&mut self, input: &'a [u8]) -> Result<Option<(Event<'a>, usize)>, CloseCause> {
        let is_challenged = matches!(self.state, State::AwaitingDecision { deadline: Some(_) });
        match input.first().and_then(|&byte| PacketType::from_number(byte >> 4)) {
            Some(PacketType::Auth) => {}
            Some(PacketType::Disconnect) if is_challenged => {}
            Some(packet_type) if is_challenged => {
                return Err(CloseCause::AuthExpected(packet_type));
            }
            Some(_) | None => return Ok(None),
        }
        let limits = self.limits(self.config.connect_bytes_max);
        let version = self.version().unwrap_or(ProtocolVersion::V4);
        match decode(input, version, &limits)? {
            Some((Packet::Auth(auth), size)) => {
                self.check_auth(&auth)?;
                if auth.reason != ReasonCode::ContinueAuthentication {
                    return Err(CloseCause::UnexpectedAuth);
                }
                self.state = State::AwaitingDecision { deadline: None };
                Ok(Some((Event::Auth(auth), size)))
            }
            Some((Packet::Disconnect(disconnect), size)) => {
                self.check_disconnect(&disconnect)?;
                self.state = State::Closed;
                Ok(Some((Event::Disconnect(disconnect), size)))
            }
            Some(_) | None => Ok(None),
        }
    }

    fn read_packet<'a>(
        &mut self,
        input: &'a [u8],
    ) -> Result<Option<(Event<'a>, usize)>, CloseCause> {
        if let Some(event) = bare_ack(input) {
            return Ok(Some((event, BARE_ACK_BYTES)));
        }
        let version = self.version().unwrap_or(ProtocolVersion::V4);
        let Some(header) = FixedHeader::decode(input)? else { return Ok(None) };
        refuse_by_type(header.packet_type)?;
        let limits = self.limits(self.config.packet_bytes_max);
        let size = header.packet_size();
        if header.packet_type == PacketType::Publish {
            let Some(publish) = decode_publish(&header, input, version, &limits)? else {
                return Ok(None);
            };
            return Ok(Some((Event::Publish(self.on_publish(publish)?), size)));
        }
        if let Some(kind) = AckKind::of(header.packet_type) {
            let ack = decode_ack(kind, &header, input, version, &limits)?;
            return Ok(ack.map(|ack| (Event::of_ack(&ack), size)));
        }
        let Some((packet, size)) = decode_after(&header, input, version, &limits)? else {
            return Ok(None);
        };
        let event = match packet {
            Packet::Publish(publish) => Event::Publish(self.on_publish(publish)?),
            Packet::Ack(ack) => Event::of_ack(&ack),
            Packet::Subscribe(subscribe) => Event::Subscribe(subscribe),
            Packet::Unsubscribe(unsubscribe) => Event::Unsubscribe(unsubscribe),
            Packet::Pingreq => Event::Pingreq,
            Packet::Disconnect(disconnect) => {
                self.check_disconnect(&disconnect)?;
                self.state = State::Closed;
                Event::Disconnect(disconnect)
            }
            Packet::Auth(auth) => {
                self.check_auth(&auth)?;
                Event::Auth(auth)
            }
            Packet::Connect(_) => return Err(CloseCause::SecondConnect),
            Packet::Connack(_) | Packet::Suback(_) | Packet::Unsuback(_) | Packet::Pingresp => {
                return Err(CloseCause::NotForServer(packet.packet_type()));
            }
        };
        Ok(Some((event, size)))
    }

    #[inline]
    fn on_publish<'a>(&mut self, publish: Publish<'a>) -> Result<InboundPublish<'a>, CloseCause> {
        let publish = inbound_publish(publish, &mut self.aliases)?;
        if let Some(packet_id) = publish.packet_id
            && !self.receiving.on_publish(packet_id)
        {
            return Err(CloseCause::ReceiveMaximumExceeded);
        }
        Ok(publish)
    }

    /// "If the Session Expiry Interval in the CONNECT packet was zero, then it is a Protocol Error
    /// to set a non-zero Session Expiry Interval in the DISCONNECT packet." (3.14.2.2.2)
    fn check_disconnect(&self, disconnect: &Disconnect<'_>) -> Result<(), CloseCause> {
        let at_connect = self.terms.as_ref().map_or(0, |terms| terms.session_expiry_interval);
        match disconnect.session_expiry_interval {
            Some(interval) if interval > 0 && at_connect == 0 => {
                Err(CloseCause::SessionExpiryRaised)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// "If the Client does not include an Authentication Method in the CONNECT, the Client MUST NOT
    /// send an AUTH packet to the Server." [MQTT-4.12.0-7] The method stays the same throughout.
    /// [MQTT-4.12.0-5]
    fn check_auth(&self, auth: &Auth<'_>) -> Result<(), CloseCause> {
        let method =
            self.terms.as_ref().and_then(|terms| Some(&**terms.authentication_method.as_deref()?));
        let is_from_client = auth.reason != ReasonCode::Success;
        if method.is_none() || method != auth.authentication_method || !is_from_client {
            return Err(CloseCause::UnexpectedAuth);
        }
        Ok(())
    }

    fn farewell_after(&self, cause: CloseCause, input: &[u8]) -> Farewell {
        match (self.state, &self.terms, cause) {
            (State::AwaitingConnect { .. }, _, CloseCause::Decode(error)) => {
                handshake::farewell(input, error)
            }
            // 3.1.1 has a return code for the one thing that is wrong with a well-formed CONNECT.
            (State::AwaitingDecision { .. }, Some(terms), cause) => {
                close::connack(terms.version, cause.reason_code())
            }
            (State::Connected, Some(terms), cause) => {
                close::disconnect(terms.version, cause.reason_code())
            }
            (_, _, _) => Farewell::None,
        }
    }
}

/// Bytes of an acknowledgement that is its identifier alone.
const BARE_ACK_BYTES: usize = 4;

/// An acknowledgement that is its identifier alone, as nearly all are. Whatever is not exactly that
/// is read by the decoder, which says what is wrong with it.
fn bare_ack<'a>(input: &[u8]) -> Option<Event<'a>> {
    let [first, 2, high, low, ..] = *input else { return None };
    let packet_id = PacketId::new(u16::from_be_bytes([high, low]))?;
    let reason = ReasonCode::Success;
    match first {
        0x40 => Some(Event::Puback { packet_id, reason }),
        0x50 => Some(Event::Pubrec { packet_id, reason }),
        0x62 => Some(Event::Pubrel { packet_id, reason }),
        0x70 => Some(Event::Pubcomp { packet_id, reason }),
        _ => None,
    }
}

/// A PUBLISH with its topic, if a client may send it so.
#[inline]
fn inbound_publish<'a>(
    mut publish: Publish<'a>,
    aliases: &mut InboundAliases,
) -> Result<InboundPublish<'a>, CloseCause> {
    if !publish.properties.subscription_ids.is_empty() {
        return Err(CloseCause::SubscriptionIdFromClient);
    }
    let topic = match publish.properties.topic_alias.take() {
        Some(alias) if publish.topic.is_empty() => {
            ResolvedTopic::Aliased(Arc::clone(aliases.resolve(alias)?))
        }
        Some(alias) => {
            aliases.set(alias, publish.topic)?;
            ResolvedTopic::Given(publish.topic)
        }
        None => ResolvedTopic::Given(publish.topic),
    };
    Ok(InboundPublish {
        dup: publish.dup,
        qos: publish.qos,
        retain: publish.retain,
        topic,
        packet_id: publish.packet_id,
        properties: (!publish.properties.is_empty()).then(|| Box::new(publish.properties)),
        payload: publish.payload,
    })
}

/// Refuses by its type what a connected client never sends, before its body arrives.
fn refuse_by_type(packet_type: PacketType) -> Result<(), CloseCause> {
    match packet_type {
        PacketType::Connect => Err(CloseCause::SecondConnect),
        PacketType::Connack | PacketType::Suback | PacketType::Unsuback | PacketType::Pingresp => {
            Err(CloseCause::NotForServer(packet_type))
        }
        PacketType::Publish
        | PacketType::Puback
        | PacketType::Pubrec
        | PacketType::Pubrel
        | PacketType::Pubcomp
        | PacketType::Subscribe
        | PacketType::Unsubscribe
        | PacketType::Pingreq
        | PacketType::Disconnect
        | PacketType::Auth => Ok(()),
    }
}
