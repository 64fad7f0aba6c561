//! The client's side of MQTT, without I/O.
//!
//! [`ClientSession`] outlives its connections. A driver opens a transport, calls
//! [`handle_connected`](ClientSession::handle_connected), writes whatever
//! [`poll_transmit`](ClientSession::poll_transmit) yields, hands every received packet to
//! [`handle_packet`](ClientSession::handle_packet), and calls
//! [`handle_closed`](ClientSession::handle_closed) when the transport is gone; the next transport
//! may lead to another server.
//!
//! ```text
//!            handle_connected            CONNACK, no error
//!  ┌──────┐ ─────────────────► ┌────────┐ ───────────────► ┌────────┐
//!  │ Idle │                    │ Opening│                  │ Open   │
//!  └──────┘ ◄───────────────── └────────┘                  └────────┘
//!      ▲      handle_closed         │ refused                   │ DISCONNECT, either side
//!      │                            ▼                           ▼
//!      └─────────────────────── Closing ◄───────────────────────┘
//! ```
//!
//! A QoS 2 message is given to the application when its PUBLISH first comes, and its identifier
//! remembered until PUBREL: method B of the standard (4.3.3, figure 4.3).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use verge_broker_core::authn::scram::METHOD;
use verge_broker_core::authn::scram_client::ClientExchange;
use verge_model::Millis;
use verge_mqtt_proto::packet::connect::RECEIVE_MAXIMUM_DEFAULT;
use verge_mqtt_proto::packet::subscribe::SubscribeFilters;
use verge_mqtt_proto::packet::unsubscribe::UnsubscribeFilters;
use verge_mqtt_proto::{
    Ack, AckKind, Auth, Connack, Connect, ConnectProperties, Disconnect, Encode, Packet, PacketId,
    ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode, Subscribe, SubscriptionOptions,
    SubscriptionRequest, Unsubscribe, UserProperties,
};

use super::event::{Event, Fault, Incoming, Nonce, Refused, SessionOptions};
use super::outgoing::{Outgoing, Publication, Step, Ticket};

/// Bytes that wait for the transport before no further PUBLISH is written behind them.
const TRANSMIT_BYTES_MAX: usize = 64 << 10;

/// SUBSCRIBE and UNSUBSCRIBE packets under way at once.
const REQUESTS_MAX: usize = 64;

/// Part of the keep alive after which a silent client pings, so that the ping arrives in time.
const PING_AFTER: f32 = 0.75;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Opening,
    Open,
    Closing,
}

/// What the server of this connection has granted.
#[derive(Debug, Clone, Copy)]
struct Granted {
    receive_maximum: u16,
    packet_bytes_max: usize,
    keep_alive: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Request {
    Subscribe(Ticket),
    Unsubscribe(Ticket),
}

/// A client's session and the protocol state of its present connection.
#[derive(Debug)]
pub struct ClientSession {
    options: SessionOptions,
    outgoing: Outgoing,
    /// QoS 2 messages given to the application and not yet released by the server.
    received: BTreeSet<PacketId>,
    next_ticket: u64,

    phase: Phase,
    granted: Granted,
    requests: BTreeMap<PacketId, Request>,
    last_request_id: u16,
    transmit: BytesMut,
    events: VecDeque<Event>,
    /// The proof under way; there from CONNECT to CONNACK.
    proof: Option<ClientExchange>,
    connections: u64,
    last_transmit: Millis,
    ping_sent: Option<Millis>,
}

impl ClientSession {
    /// A session that was never connected.
    #[must_use]
    pub fn new(options: SessionOptions) -> Self {
        let outgoing = Outgoing::new(options.publications_max);
        let granted = Granted {
            receive_maximum: RECEIVE_MAXIMUM_DEFAULT,
            packet_bytes_max: usize::MAX,
            keep_alive: Duration::ZERO,
        };
        Self {
            options,
            outgoing,
            received: BTreeSet::new(),
            next_ticket: 0,
            phase: Phase::Idle,
            granted,
            requests: BTreeMap::new(),
            last_request_id: u16::MAX,
            transmit: BytesMut::new(),
            events: VecDeque::new(),
            proof: None,
            connections: 0,
            last_transmit: Millis(0),
            ping_sent: None,
        }
    }

    /// A transport is open: CONNECT is due.
    pub fn handle_connected(&mut self, now: Millis) {
        self.handle_closed();
        self.phase = Phase::Opening;
        self.last_transmit = now;
        if self.options.clean_start {
            self.received.clear();
        }
        self.connections += 1;
        self.proof = begin_proof(&self.options, self.connections);
        let options = &self.options;
        let first = self.proof.as_ref().map(ClientExchange::first);
        let mut properties = ConnectProperties::default();
        if options.version.is_v5() {
            let expiry = options.session_expiry_secs;
            properties.session_expiry_interval = (expiry > 0).then_some(expiry);
            let maximum = options.receive_maximum;
            properties.receive_maximum = (maximum < RECEIVE_MAXIMUM_DEFAULT).then_some(maximum);
        }
        if let Some(first) = &first {
            properties.authentication_method = Some(METHOD);
            properties.authentication_data = Some(first.as_bytes());
        }
        let connect = Connect {
            version: options.version,
            is_bridge: false,
            clean_start: options.clean_start,
            keep_alive_secs: options.keep_alive_secs,
            client_id: &options.client_id,
            will: None,
            username: options.username.as_deref().filter(|_| first.is_none()),
            password: options.password.as_deref().filter(|_| first.is_none()),
            properties,
        };
        write(&mut self.transmit, options.version, &Packet::Connect(connect));
    }

    /// The transport is gone. What the connection owned is forgotten, what the session owns stays.
    pub fn handle_closed(&mut self) {
        self.phase = Phase::Idle;
        self.transmit.clear();
        self.requests.clear();
        self.ping_sent = None;
        self.events.retain(|event| match event {
            Event::Connected { .. } | Event::Refused { .. } | Event::Disconnected { .. } => false,
            Event::Message(_)
            | Event::Published(..)
            | Event::Subscribed(..)
            | Event::Unsubscribed(..) => true,
        });
    }

    /// A packet came.
    ///
    /// # Errors
    /// The server broke the protocol; the transport is to be closed.
    pub fn handle_packet(&mut self, packet: Packet<'_>) -> Result<(), Fault> {
        let packet_type = packet.packet_type();
        match (self.phase, packet) {
            (Phase::Opening, Packet::Connack(connack)) => return self.handle_connack(&connack),
            (Phase::Opening, Packet::Auth(auth)) if self.proof.is_some() => {
                let Some(proof) = &mut self.proof else { return Ok(()) };
                let answer = proof.answer(auth.authentication_data.unwrap_or_default())?;
                let auth = Auth {
                    authentication_method: Some(METHOD),
                    authentication_data: Some(answer.as_bytes()),
                    ..Auth::new(ReasonCode::ContinueAuthentication)
                };
                write(&mut self.transmit, self.options.version, &Packet::Auth(auth));
            }
            (Phase::Open, Packet::Publish(publish)) => return self.handle_publish(&publish),
            (Phase::Open, Packet::Ack(ack)) => self.handle_ack(&ack),
            (Phase::Open, Packet::Suback(suback)) => {
                if let Some(Request::Subscribe(ticket)) = self.requests.remove(&suback.packet_id) {
                    self.events
                        .push_back(Event::Subscribed(ticket, suback.reasons.iter().collect()));
                }
            }
            (Phase::Open, Packet::Unsuback(unsuback)) => {
                let request = self.requests.remove(&unsuback.packet_id);
                if let Some(Request::Unsubscribe(ticket)) = request {
                    let reasons = unsuback.reasons.iter().collect();
                    self.events.push_back(Event::Unsubscribed(ticket, reasons));
                }
            }
            (Phase::Open, Packet::Pingresp) => self.ping_sent = None,
            (Phase::Open, Packet::Disconnect(disconnect)) if self.options.version.is_v5() => {
                self.phase = Phase::Closing;
                self.events.push_back(Event::Disconnected {
                    reason: disconnect.reason,
                    server_reference: disconnect.server_reference.map(str::to_owned),
                });
            }
            // What was under way when either side said goodbye.
            (Phase::Closing, _) => {}
            (Phase::Idle | Phase::Opening | Phase::Open, _) => {
                return Err(Fault::Unexpected(packet_type));
            }
        }
        Ok(())
    }

    /// Time has passed: a ping may be due, or a pong overdue.
    ///
    /// # Errors
    /// The server is silent; the transport is to be closed.
    pub fn handle_timeout(&mut self, now: Millis) -> Result<(), Fault> {
        let keep_alive = self.granted.keep_alive;
        if self.phase != Phase::Open || keep_alive.is_zero() {
            return Ok(());
        }
        if let Some(at) = self.ping_sent {
            return if now >= at + keep_alive { Err(Fault::Silent) } else { Ok(()) };
        }
        if now >= self.last_transmit + keep_alive.mul_f32(PING_AFTER) {
            self.ping_sent = Some(now);
            write(&mut self.transmit, self.options.version, &Packet::Pingreq);
        }
        Ok(())
    }

    /// Publishes a message, now or as soon as a connection is open and the server has room.
    ///
    /// # Errors
    /// The session holds as many publications as it may.
    pub fn publish(&mut self, publication: Publication) -> Result<Ticket, Refused> {
        let ticket = Ticket(self.next_ticket);
        self.outgoing.push(ticket, publication).map_err(|_| Refused::Full)?;
        self.next_ticket += 1;
        Ok(ticket)
    }

    /// Asks for subscriptions, of which there is at least one.
    ///
    /// # Errors
    /// There is no open connection, or too many requests are under way.
    pub fn subscribe(&mut self, filters: &[(&str, QoS)]) -> Result<Ticket, Refused> {
        let (packet_id, ticket) = self.begin_request(Request::Subscribe)?;
        let requests: Vec<SubscriptionRequest<'_>> = filters
            .iter()
            .map(|&(filter, qos)| SubscriptionRequest {
                filter,
                options: SubscriptionOptions::at(qos),
            })
            .collect();
        let subscribe = Subscribe {
            packet_id,
            subscription_id: None,
            user_properties: UserProperties::NONE,
            filters: SubscribeFilters::from_slice(&requests),
        };
        write(&mut self.transmit, self.options.version, &Packet::Subscribe(subscribe));
        Ok(ticket)
    }

    /// Ends subscriptions, of which at least one is named.
    ///
    /// # Errors
    /// There is no open connection, or too many requests are under way.
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Result<Ticket, Refused> {
        let (packet_id, ticket) = self.begin_request(Request::Unsubscribe)?;
        let unsubscribe = Unsubscribe {
            packet_id,
            user_properties: UserProperties::NONE,
            filters: UnsubscribeFilters::from_slice(filters),
        };
        write(&mut self.transmit, self.options.version, &Packet::Unsubscribe(unsubscribe));
        Ok(ticket)
    }

    /// Says goodbye: DISCONNECT is written, then the driver closes the transport. The session lives
    /// on at the server for as long as it was told.
    pub fn disconnect(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Closing;
            let disconnect = Disconnect::new(ReasonCode::Success);
            write(&mut self.transmit, self.options.version, &Packet::Disconnect(disconnect));
        }
    }

    /// Bytes to write, all of them before the next call.
    pub fn poll_transmit(&mut self, now: Millis) -> Option<Bytes> {
        self.pump();
        if self.transmit.is_empty() {
            return None;
        }
        self.last_transmit = now;
        Some(self.transmit.split().freeze())
    }

    /// The next event for the application.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The first event that is wanted; the others stay in order.
    pub fn take_event(&mut self, wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        let index = self.events.iter().position(wanted)?;
        self.events.remove(index)
    }

    /// Events the application has not taken. The driver reads no packets while there are too many.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events.len()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        let keep_alive = self.granted.keep_alive;
        if self.phase != Phase::Open || keep_alive.is_zero() {
            return None;
        }
        Some(match self.ping_sent {
            Some(at) => at + keep_alive,
            None => self.last_transmit + keep_alive.mul_f32(PING_AFTER),
        })
    }

    /// How this client presents itself.
    #[must_use]
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// Publications the server has not taken over yet, sent or not.
    #[must_use]
    pub fn publications(&self) -> usize {
        self.outgoing.len()
    }

    /// Publications that were sent and not acknowledged.
    #[must_use]
    pub fn inflight(&self) -> usize {
        self.outgoing.inflight_len()
    }

    /// Whether the server has accepted the connection and nobody has said goodbye.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The transport is a further stream of a connection that was accepted with these bounds.
    pub fn handle_joined(&mut self, receive_maximum: u16, packet_bytes_max: usize) {
        self.handle_closed();
        self.phase = Phase::Open;
        // The control stream keeps the connection alive.
        let keep_alive = Duration::ZERO;
        self.granted = Granted { receive_maximum, packet_bytes_max, keep_alive };
    }

    /// Most unacknowledged publications and the largest packet that the server takes.
    #[must_use]
    pub fn granted(&self) -> (u16, usize) {
        (self.granted.receive_maximum, self.granted.packet_bytes_max)
    }

    fn handle_connack(&mut self, connack: &Connack<'_>) -> Result<(), Fault> {
        let properties = &connack.properties;
        if connack.reason.is_error() {
            self.phase = Phase::Closing;
            self.events.push_back(Event::Refused {
                reason: connack.reason,
                server_reference: properties.server_reference.map(str::to_owned),
            });
            return Ok(());
        }
        if let Some(proof) = self.proof.take() {
            proof.verify(properties.authentication_data)?;
        }
        self.phase = Phase::Open;
        let keep_alive = properties.server_keep_alive.unwrap_or(self.options.keep_alive_secs);
        self.granted = Granted {
            receive_maximum: properties.receive_maximum.unwrap_or(RECEIVE_MAXIMUM_DEFAULT),
            packet_bytes_max: properties.maximum_packet_size.map_or(usize::MAX, |max| max as usize),
            keep_alive: Duration::from_secs(u64::from(keep_alive)),
        };
        if let Some(assigned) = properties.assigned_client_identifier {
            assigned.clone_into(&mut self.options.client_id);
        }
        // "If the Client does have Session State and receives Session Present set to 0 it MUST
        // discard its Session State if it continues with the Network Connection." [MQTT-3.2.2-5]
        // The opposite, a session at the server and none here, is a client that was started anew
        // and wants its session back, so it is not an error.
        let mut discarded = Vec::new();
        if connack.session_present {
            self.outgoing.handle_resumed();
        } else {
            discarded = self.outgoing.handle_discarded();
            self.received.clear();
        }
        let session_present = connack.session_present;
        self.events.push_back(Event::Connected { session_present, discarded });
        Ok(())
    }

    fn handle_publish(&mut self, publish: &Publish<'_>) -> Result<(), Fault> {
        if publish.topic.is_empty() || publish.properties.topic_alias.is_some() {
            return Err(Fault::TopicAlias);
        }
        let is_first = match (publish.qos, publish.packet_id) {
            (QoS::ExactlyOnce, Some(id)) => self.received.insert(id),
            (QoS::AtMostOnce | QoS::AtLeastOnce | QoS::ExactlyOnce, _) => true,
        };
        if is_first {
            self.events.push_back(Event::Message(Incoming {
                topic: publish.topic.to_owned(),
                payload: Bytes::copy_from_slice(publish.payload),
                qos: publish.qos,
                retain: publish.retain,
                dup: publish.dup,
            }));
        }
        if let Some(id) = publish.packet_id {
            let kind =
                if publish.qos == QoS::ExactlyOnce { AckKind::Pubrec } else { AckKind::Puback };
            self.acknowledge(kind, id, ReasonCode::Success);
        }
        Ok(())
    }

    fn handle_ack(&mut self, ack: &Ack<'_>) {
        let id = ack.packet_id;
        match ack.kind {
            AckKind::Puback => {
                if let Some(ticket) = self.outgoing.handle_puback(id) {
                    self.events.push_back(Event::Published(ticket, ack.reason));
                }
            }
            AckKind::Pubrec if ack.reason.is_error() => {
                if let Some(ticket) = self.outgoing.handle_refused(id) {
                    self.events.push_back(Event::Published(ticket, ack.reason));
                }
            }
            AckKind::Pubrec => {
                let known = self.outgoing.handle_pubrec(id);
                self.acknowledge(AckKind::Pubrel, id, found(known));
            }
            AckKind::Pubrel => {
                let known = self.received.remove(&id);
                self.acknowledge(AckKind::Pubcomp, id, found(known));
            }
            AckKind::Pubcomp => {
                if let Some(ticket) = self.outgoing.handle_pubcomp(id) {
                    self.events.push_back(Event::Published(ticket, ReasonCode::Success));
                }
            }
        }
    }

    fn acknowledge(&mut self, kind: AckKind, id: PacketId, reason: ReasonCode) {
        write(&mut self.transmit, self.options.version, &Packet::Ack(Ack::new(kind, id, reason)));
    }

    fn begin_request(
        &mut self,
        request: fn(Ticket) -> Request,
    ) -> Result<(PacketId, Ticket), Refused> {
        if self.phase != Phase::Open || self.requests.len() >= REQUESTS_MAX {
            return Err(Refused::NotOpen);
        }
        // From the top down, where the ascending ids of publications come last.
        let packet_id = loop {
            let id = PacketId::new(self.last_request_id).unwrap_or(PacketId(NonZeroU16::MAX));
            self.last_request_id = id.get() - 1;
            if !self.outgoing.uses(id) && !self.requests.contains_key(&id) {
                break id;
            }
        };
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.requests.insert(packet_id, request(ticket));
        Ok((packet_id, ticket))
    }

    /// Writes publications as far as the server and the transport have room.
    fn pump(&mut self) {
        let version = self.options.version;
        while self.phase == Phase::Open && self.transmit.len() < TRANSMIT_BYTES_MAX {
            let requests = &self.requests;
            let in_use = |id| requests.contains_key(&id);
            let Some(step) = self.outgoing.next(self.granted.receive_maximum, in_use) else {
                break;
            };
            let limit = self.granted.packet_bytes_max;
            match step {
                Step::Release(id) => self.acknowledge(AckKind::Pubrel, id, ReasonCode::Success),
                Step::Fire(ticket, publication) => {
                    let packet = publish_packet(&publication, None, false);
                    let reason = write_within(&mut self.transmit, version, limit, &packet);
                    self.events.push_back(Event::Published(ticket, reason));
                }
                Step::Publish { packet_id, dup, publication, ticket } => {
                    let packet = publish_packet(publication, Some(packet_id), dup);
                    let reason = write_within(&mut self.transmit, version, limit, &packet);
                    if reason.is_error() {
                        self.outgoing.abandon(packet_id);
                        self.events.push_back(Event::Published(ticket, reason));
                    }
                }
            }
        }
    }
}

/// The proof of a client that has one to give.
fn begin_proof(options: &SessionOptions, connection: u64) -> Option<ClientExchange> {
    let Nonce(nonce) = options.scram.as_ref()?;
    let user = options.username.as_deref().filter(|_| options.version.is_v5())?;
    let password = options.password.as_deref().unwrap_or_default();
    ClientExchange::begin(user, password, &format!("{nonce}{connection}"))
}

fn found(known: bool) -> ReasonCode {
    if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound }
}

fn publish_packet(
    publication: &Publication,
    packet_id: Option<PacketId>,
    dup: bool,
) -> Publish<'_> {
    Publish {
        dup,
        qos: publication.qos,
        retain: publication.retain,
        topic: &publication.topic,
        packet_id,
        properties: PublishProperties::default(),
        payload: &publication.payload,
    }
}

fn write(out: &mut BytesMut, version: ProtocolVersion, packet: &Packet<'_>) {
    if let Err(error) = packet.encode(version, out) {
        // Only strings of 65,536 bytes and more cannot be written, and those are options or
        // filters of the caller: the server, hearing nothing, answers nothing.
        tracing::debug!(%error, packet = ?packet.packet_type(), "a packet cannot be written");
    }
}

fn write_within(
    out: &mut BytesMut,
    version: ProtocolVersion,
    limit: usize,
    publish: &Publish<'_>,
) -> ReasonCode {
    match publish.encode_within(version, limit, out) {
        Ok(_) => ReasonCode::Success,
        Err(_) => ReasonCode::PacketTooLarge,
    }
}

#[cfg(test)]
mod tests;
