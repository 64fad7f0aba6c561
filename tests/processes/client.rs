//! A plain MQTT client whose session outlives its connections, as a careful vehicle's does.
//!
//! One thread drives one client: it connects, publishes, and lets the client [work](Client::work)
//! for a while. Acknowledgements are the client's own business. What is not acknowledged is sent
//! again over the next connection; identifiers of received QoS 2 messages are remembered until
//! PUBREL.

use std::collections::{BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use verge_mqtt_proto::packet::subscribe::SubscribeFilters;
use verge_mqtt_proto::{
    Ack, AckKind, Connect, ConnectProperties, DecodeLimits, Disconnect, Encode, Packet, PacketId,
    ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode, Subscribe, SubscriptionOptions,
    SubscriptionRequest, UserProperties, Will, WillProperties, decode,
};

use crate::time::{SOON, millis, now};

/// Longest wait for a CONNACK: a handover from an owner that does not answer takes seconds.
const CONNACK_WITHIN: Duration = Duration::from_secs(15);

/// Longer than any test.
const SESSION_EXPIRY_SECS: u32 = 3_600;

/// A received message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
}

impl Message {
    /// A QoS 0 message, for comparison.
    pub(crate) fn of(topic: &str, text: &str) -> Self {
        let payload = text.as_bytes().to_vec();
        Self { topic: topic.to_owned(), payload, qos: QoS::AtMostOnce, retain: false }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("payloads of these tests are text")
    }
}

/// Why there is no connection.
#[derive(Debug, PartialEq)]
pub(crate) enum NoConnection {
    /// Nobody answers, or whoever answered has gone.
    Gone,
    /// The CONNACK is a refusal.
    Refused(ReasonCode),
}

/// A message that is not acknowledged in full.
struct Outgoing {
    packet_id: PacketId,
    qos: QoS,
    topic: String,
    payload: Vec<u8>,
    retain: bool,
    expiry_secs: Option<u32>,
    /// PUBREC has come: only PUBREL is owed.
    released: bool,
    /// It was sent again over another connection.
    repeated: bool,
}

impl Outgoing {
    fn publish(&self, dup: bool) -> Publish<'_> {
        Publish {
            dup,
            qos: self.qos,
            retain: self.retain,
            topic: &self.topic,
            packet_id: Some(self.packet_id),
            properties: PublishProperties {
                message_expiry_interval: self.expiry_secs,
                ..PublishProperties::default()
            },
            payload: &self.payload,
        }
    }
}

/// What is to be published when the connection ends without DISCONNECT, at QoS 2.
#[derive(Debug, Clone)]
pub(crate) struct Testament {
    pub(crate) topic: String,
    pub(crate) text: String,
    pub(crate) delay_secs: u32,
}

/// A connection.
struct Link {
    stream: TcpStream,
    input: BytesMut,
}

/// A client's session, and its connection while it has one.
pub(crate) struct Client {
    id: String,
    version: ProtocolVersion,
    clean_start: bool,
    link: Option<Link>,
    last_id: u16,
    outgoing: VecDeque<Outgoing>,
    received: BTreeSet<PacketId>,
    inbox: VecDeque<Message>,
    granted: Option<Vec<ReasonCode>>,
    /// The will of later connections.
    pub(crate) testament: Option<Testament>,
    /// How long the session of a 5.0 client outlives later connections.
    pub(crate) session_expiry_secs: u32,
    /// How long what a 5.0 client publishes later lives.
    pub(crate) message_expiry_secs: Option<u32>,
    /// Why the server ended the last connection, if it said so.
    pub(crate) farewell: Option<ReasonCode>,
    /// Messages that the server has taken over.
    pub(crate) acknowledged: u64,
    /// Why messages were refused, where that is no failure of the test.
    pub(crate) refused: Option<Vec<ReasonCode>>,
}

impl Client {
    /// A 3.1.1 client that keeps its session.
    pub(crate) fn v4(id: &str) -> Self {
        Self::new(id, ProtocolVersion::V4)
    }

    /// A 5.0 client that keeps its session.
    pub(crate) fn v5(id: &str) -> Self {
        Self::new(id, ProtocolVersion::V5)
    }

    fn new(id: &str, version: ProtocolVersion) -> Self {
        Self {
            id: id.to_owned(),
            version,
            clean_start: false,
            link: None,
            last_id: 0,
            outgoing: VecDeque::new(),
            received: BTreeSet::new(),
            inbox: VecDeque::new(),
            granted: None,
            testament: None,
            session_expiry_secs: SESSION_EXPIRY_SECS,
            message_expiry_secs: None,
            farewell: None,
            acknowledged: 0,
            refused: None,
        }
    }

    /// A client that leaves no session behind.
    pub(crate) fn with_clean_start(self) -> Self {
        Self { clean_start: true, ..self }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Connects, which must succeed. True if the server has the session.
    pub(crate) fn connect(&mut self, to: SocketAddr) -> bool {
        self.try_connect(to).unwrap_or_else(|why| panic!("{} at {to}: {why:?}", self.id))
    }

    /// Connects, leaving any other connection without a word. True if the server has the session.
    pub(crate) fn try_connect(&mut self, to: SocketAddr) -> Result<bool, NoConnection> {
        self.link = None;
        self.farewell = None;
        let stream = TcpStream::connect_timeout(&to, SOON).map_err(|_| NoConnection::Gone)?;
        stream.set_nodelay(true).map_err(|_| NoConnection::Gone)?;
        self.link = Some(Link { stream, input: BytesMut::new() });
        let (id, testament) = (self.id.clone(), self.testament.clone());
        let mut packet = connect(&id, self.version, self.clean_start);
        if let Some(expiry) = &mut packet.properties.session_expiry_interval {
            *expiry = self.session_expiry_secs;
        }
        packet.will = testament.as_ref().map(|testament| Will {
            qos: QoS::ExactlyOnce,
            retain: false,
            topic: &testament.topic,
            payload: testament.text.as_bytes(),
            properties: WillProperties {
                will_delay_interval: Some(testament.delay_secs),
                ..WillProperties::default()
            },
        });
        self.send(&Packet::Connect(packet));
        let deadline = now() + CONNACK_WITHIN;
        let session_present = loop {
            let version = self.version;
            let link = self.link.as_mut().ok_or(NoConnection::Gone)?;
            let answer = match decode(&link.input, version, &DecodeLimits::default()) {
                Ok(Some((Packet::Connack(connack), size))) => {
                    Some((connack.reason, connack.session_present, size))
                }
                Ok(None) => None,
                other => panic!("{}: no CONNACK but {other:?}", self.id),
            };
            if let Some((reason, present, size)) = answer {
                let _ = link.input.split_to(size);
                if reason.is_error() {
                    self.link = None;
                    return Err(NoConnection::Refused(reason));
                }
                break present;
            }
            assert!(now() < deadline, "{}: no CONNACK from {to}", self.id);
            self.read(millis(50));
        };
        if !session_present {
            self.received.clear();
        }
        self.send_again();
        Ok(session_present)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// Ends the connection as the standard wants it.
    pub(crate) fn disconnect(&mut self) {
        self.send(&Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
        self.link = None;
    }

    /// Leaves the connection without a word.
    pub(crate) fn vanish(&mut self) {
        self.link = None;
    }

    /// Subscribes, and gives what was granted; the connection must hold.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: QoS) -> ReasonCode {
        let granted = self.try_subscribe(filter, qos);
        granted.unwrap_or_else(|| panic!("{}: the connection ended: {:?}", self.id, self.farewell))
    }

    /// Subscribes; none if the connection ends before that is acknowledged.
    pub(crate) fn try_subscribe(&mut self, filter: &str, qos: QoS) -> Option<ReasonCode> {
        let packet_id = self.next_id();
        let options = SubscriptionOptions::at(qos);
        let requests = [SubscriptionRequest { filter, options }];
        self.granted = None;
        self.send(&Packet::Subscribe(Subscribe {
            packet_id,
            subscription_id: None,
            user_properties: UserProperties::NONE,
            filters: SubscribeFilters::from_slice(&requests),
        }));
        let deadline = now() + SOON;
        loop {
            if let Some(granted) = self.granted.take() {
                return Some(granted[0]);
            }
            assert!(now() < deadline, "{}: no SUBACK", self.id);
            self.link.as_ref()?;
            self.work(millis(50));
        }
    }

    /// Publishes. A QoS 1 or 2 message is kept until it is acknowledged, over connections.
    pub(crate) fn publish(&mut self, topic: &str, payload: &str, qos: QoS) {
        self.publish_with(topic, payload, qos, false);
    }

    /// Publishes at QoS 1 what expires.
    pub(crate) fn publish_expiring(&mut self, topic: &str, payload: &str, secs: u32) {
        let usual = self.message_expiry_secs.replace(secs);
        self.publish(topic, payload, QoS::AtLeastOnce);
        self.message_expiry_secs = usual;
    }

    /// As [`publish`](Self::publish), to be retained or not.
    pub(crate) fn publish_with(&mut self, topic: &str, payload: &str, qos: QoS, retain: bool) {
        if qos == QoS::AtMostOnce {
            let publish = Publish {
                dup: false,
                qos,
                retain,
                topic,
                packet_id: None,
                properties: PublishProperties::default(),
                payload: payload.as_bytes(),
            };
            return self.send(&Packet::Publish(publish));
        }
        let message = Outgoing {
            packet_id: self.next_id(),
            qos,
            topic: topic.to_owned(),
            payload: payload.as_bytes().to_vec(),
            retain,
            expiry_secs: self.message_expiry_secs,
            released: false,
            repeated: false,
        };
        self.send(&Packet::Publish(message.publish(false)));
        self.outgoing.push_back(message);
    }

    /// Messages that are not acknowledged in full.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.outgoing.len()
    }

    /// Whether no exchange is under way: everything published is acknowledged, and of what came at
    /// QoS 2 everything is released.
    pub(crate) fn is_settled(&self) -> bool {
        self.outgoing.is_empty() && self.received.is_empty()
    }

    /// Works until everything published is acknowledged; the connection must hold.
    pub(crate) fn settle(&mut self) {
        let deadline = now() + SOON;
        while self.unacknowledged() > 0 {
            assert!(self.link.is_some(), "{}: the connection ended: {:?}", self.id, self.farewell);
            assert!(now() < deadline, "{}: no acknowledgement", self.id);
            self.work(millis(20));
        }
    }

    /// The next message, which must come; the connection must hold.
    pub(crate) fn next(&mut self) -> Message {
        let deadline = now() + SOON;
        loop {
            if let Some(message) = self.inbox.pop_front() {
                return message;
            }
            assert!(self.link.is_some(), "{}: the connection ended: {:?}", self.id, self.farewell);
            assert!(now() < deadline, "{}: no message", self.id);
            self.work(millis(50));
        }
    }

    /// What has arrived.
    pub(crate) fn take(&mut self) -> Option<Message> {
        self.inbox.pop_front()
    }

    /// Handles what arrives until nothing has for `wait`, or the connection ends.
    pub(crate) fn work(&mut self, wait: Duration) {
        loop {
            self.handle_input();
            if !self.read(wait) {
                return;
            }
        }
    }

    /// Reads once. True if something came.
    fn read(&mut self, wait: Duration) -> bool {
        let Some(link) = &mut self.link else { return false };
        let mut bytes = [0; 16 * 1024];
        let read = link.stream.set_read_timeout(Some(wait)).and_then(|()| {
            let count = link.stream.read(&mut bytes)?;
            if count == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
        });
        match read {
            Ok(count) => {
                link.input.extend_from_slice(&bytes[..count]);
                true
            }
            Err(error) => {
                let idle = [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted];
                if !idle.contains(&error.kind()) {
                    self.link = None;
                }
                false
            }
        }
    }

    fn handle_input(&mut self) {
        while let Some(link) = &mut self.link {
            let input = link.input.split();
            match decode(&input, self.version, &DecodeLimits::default()) {
                Ok(Some((packet, size))) => {
                    self.handle(&packet);
                    let Some(link) = &mut self.link else { return };
                    link.input = BytesMut::from(&input[size..]);
                }
                Ok(None) => {
                    link.input = input;
                    return;
                }
                Err(error) => panic!("{}: the server breaks the protocol: {error}", self.id),
            }
        }
    }

    fn handle(&mut self, packet: &Packet<'_>) {
        match packet {
            Packet::Publish(publish) => self.handle_publish(publish),
            Packet::Ack(ack) => self.handle_ack(ack),
            Packet::Suback(suback) => self.granted = Some(suback.reasons.iter().collect()),
            Packet::Disconnect(disconnect) => {
                self.farewell = Some(disconnect.reason);
                self.link = None;
            }
            Packet::Pingresp | Packet::Unsuback(_) => {}
            Packet::Connect(_)
            | Packet::Connack(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::Pingreq
            | Packet::Auth(_) => panic!("{}: a server does not send {packet:?} here", self.id),
        }
    }

    fn handle_publish(&mut self, publish: &Publish<'_>) {
        let mut is_new = true;
        if let Some(packet_id) = publish.packet_id {
            let kind = if publish.qos == QoS::ExactlyOnce {
                is_new = self.received.insert(packet_id);
                // "The DUP flag MUST be set to 1 when it attempts to re-deliver." [MQTT-3.3.1-1]
                assert!(is_new || publish.dup, "{}: id {packet_id} is in use", self.id);
                AckKind::Pubrec
            } else {
                AckKind::Puback
            };
            self.acknowledge(kind, packet_id);
        }
        if is_new {
            self.inbox.push_back(Message {
                topic: publish.topic.to_owned(),
                payload: publish.payload.to_vec(),
                qos: publish.qos,
                retain: publish.retain,
            });
        }
    }

    fn handle_ack(&mut self, ack: &Ack<'_>) {
        let place = self.outgoing.iter().position(|sent| sent.packet_id == ack.packet_id);
        if let Some(refused) = self.refused.as_mut().filter(|_| ack.reason.is_error()) {
            refused.push(ack.reason);
            self.outgoing.retain(|sent| sent.packet_id != ack.packet_id);
            return;
        }
        match ack.kind {
            AckKind::Puback | AckKind::Pubcomp => {
                // "This is not an error during recovery": the node had released it, and could not
                // say so. (5.0, 3.7.2.1)
                let recovers = ack.reason == ReasonCode::PacketIdentifierNotFound
                    && ack.kind == AckKind::Pubcomp
                    && place.is_some_and(|place| self.outgoing[place].repeated);
                assert!(recovers || !ack.reason.is_error(), "{}: {ack:?}", self.id);
                if let Some(place) = place {
                    self.outgoing.remove(place);
                    self.acknowledged += u64::from(ack.kind == AckKind::Puback);
                }
            }
            AckKind::Pubrec => {
                assert!(!ack.reason.is_error(), "{}: {ack:?}", self.id);
                if let Some(place) = place {
                    let first = !std::mem::replace(&mut self.outgoing[place].released, true);
                    self.acknowledged += u64::from(first);
                }
                self.acknowledge(AckKind::Pubrel, ack.packet_id);
            }
            AckKind::Pubrel => {
                self.received.remove(&ack.packet_id);
                self.acknowledge(AckKind::Pubcomp, ack.packet_id);
            }
        }
    }

    fn acknowledge(&mut self, kind: AckKind, packet_id: PacketId) {
        self.send(&Packet::Ack(Ack::new(kind, packet_id, ReasonCode::Success)));
    }

    /// "The Client and Server MUST resend any unacknowledged PUBLISH packets (where QoS > 0) and
    /// PUBREL packets using their original Packet Identifiers." [MQTT-4.4.0-1]
    fn send_again(&mut self) {
        for mut sent in std::mem::take(&mut self.outgoing) {
            sent.repeated = true;
            if sent.released {
                self.acknowledge(AckKind::Pubrel, sent.packet_id);
            } else {
                self.send(&Packet::Publish(sent.publish(true)));
            }
            self.outgoing.push_back(sent);
        }
    }

    /// Writes a packet. That a connection has ended is found by reading: what arrived before counts.
    fn send(&mut self, packet: &Packet<'_>) {
        let Some(link) = &mut self.link else { return };
        let mut bytes = BytesMut::new();
        packet.encode(self.version, &mut bytes).expect("packets of these tests can be written");
        let _ = link.stream.write_all(&bytes);
    }

    fn next_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(id) = PacketId::new(self.last_id)
                && self.outgoing.iter().all(|sent| sent.packet_id != id)
            {
                return id;
            }
        }
    }
}

/// A CONNECT without credentials and without keep alive.
pub(crate) fn connect(id: &str, version: ProtocolVersion, clean_start: bool) -> Connect<'_> {
    let expiry = (version.is_v5() && !clean_start).then_some(SESSION_EXPIRY_SECS);
    Connect {
        version,
        is_bridge: false,
        clean_start,
        keep_alive_secs: 0,
        client_id: id,
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties {
            session_expiry_interval: expiry,
            ..ConnectProperties::default()
        },
    }
}

/// The bytes of a packet.
pub(crate) fn bytes_of(packet: &impl Encode, version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    packet.encode(version, &mut bytes).expect("packets of these tests can be written");
    bytes.to_vec()
}
