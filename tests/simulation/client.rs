//! An MQTT client as the standard wants it: its half of a session survives its connections.
//!
//! It publishes what it is given, in order, and receives at QoS 1 and 2. What it knows is told to
//! the [`Oracle`], which is outside of everything that is simulated.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::BytesMut;
use verge_mqtt_proto::{
    Ack, AckKind, Connect, ConnectProperties, DecodeLimits, Disconnect, Packet, PacketId,
    ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode, Subscribe, SubscribeFilters,
    SubscriptionOptions, SubscriptionRequest, UserProperties, decode,
};

use crate::oracle::{MessageNo, Oracle};

/// Most of its own messages a client has under way.
const UNDER_WAY_MAX: usize = 8;

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its ClientId.
    pub(crate) name: String,
    /// What it speaks.
    pub(crate) version: ProtocolVersion,
    /// What it subscribes to, at which QoS.
    pub(crate) wants: Vec<(String, QoS)>,
    /// The node it would be connected to.
    pub(crate) node: usize,
    /// Whether it wants to be connected at all.
    pub(crate) online: bool,
    /// Its connection, if any.
    pub(crate) conn: Option<u64>,
    /// When it last began to connect.
    pub(crate) connecting_since: u64,
    /// Whether CONNACK came on this connection.
    pub(crate) up: bool,
    /// Whether a SUBACK says that its subscriptions stand, in the present session.
    pub(crate) subscribed: bool,
    unread: Vec<u8>,
    /// Messages it was given and has not sent.
    pub(crate) to_send: VecDeque<MessageNo>,
    under_way: BTreeMap<u16, UnderWay>,
    received: BTreeSet<u16>,
    next_id: u16,
}

#[derive(Debug, Clone, Copy)]
struct UnderWay {
    message: MessageNo,
    /// PUBREC came.
    released: bool,
    order: u64,
    /// Where it was sent first.
    node: usize,
}

const SUBSCRIBE_ID: u16 = 1;

impl Client {
    /// A client that has never been connected.
    pub(crate) fn new(
        name: &str,
        version: ProtocolVersion,
        wants: Vec<(String, QoS)>,
        node: usize,
    ) -> Self {
        Self {
            name: name.into(),
            version,
            subscribed: wants.is_empty(),
            wants,
            node,
            online: true,
            conn: None,
            connecting_since: 0,
            up: false,
            unread: Vec::new(),
            to_send: VecDeque::new(),
            under_way: BTreeMap::new(),
            received: BTreeSet::new(),
            next_id: 2,
        }
    }

    /// The transport is there: CONNECT.
    pub(crate) fn opened(&mut self, conn: u64, now: u64) -> BytesMut {
        self.conn = Some(conn);
        self.connecting_since = now;
        self.up = false;
        self.unread.clear();
        let properties = ConnectProperties {
            session_expiry_interval: self.version.is_v5().then_some(u32::MAX),
            ..ConnectProperties::default()
        };
        let connect = Connect {
            version: self.version,
            is_bridge: false,
            clean_start: false,
            keep_alive_secs: 0,
            client_id: &self.name,
            will: None,
            username: None,
            password: None,
            properties,
        };
        self.encode(&Packet::Connect(connect))
    }

    /// The transport is gone.
    pub(crate) fn closed(&mut self) {
        self.conn = None;
        self.up = false;
    }

    /// DISCONNECT.
    pub(crate) fn farewell(&self) -> BytesMut {
        self.encode(&Packet::Disconnect(Disconnect::new(ReasonCode::Success)))
    }

    /// Whether everything it was given is acknowledged to the end.
    pub(crate) fn is_done(&self) -> bool {
        self.to_send.is_empty() && self.under_way.is_empty()
    }

    /// Packet ids of QoS 2 messages it has received and that are not released.
    pub(crate) fn unreleased(&self) -> Vec<u16> {
        self.received.iter().copied().collect()
    }

    /// Sends what it may of what it was given.
    pub(crate) fn publish(&mut self, now: u64, oracle: &mut Oracle, out: &mut BytesMut) {
        while self.up && self.subscribed && self.under_way.len() < UNDER_WAY_MAX {
            let Some(message) = self.to_send.pop_front() else { return };
            let id = self.free_id();
            let order = message.0 as u64;
            let under_way = UnderWay { message, released: false, order, node: self.node };
            self.under_way.insert(id, under_way);
            self.put_publish(id, message, false, now, oracle, out);
        }
    }

    /// Takes bytes; answers go to `out`.
    pub(crate) fn take(&mut self, bytes: &[u8], now: u64, oracle: &mut Oracle, out: &mut BytesMut) {
        self.unread.extend_from_slice(bytes);
        let unread = std::mem::take(&mut self.unread);
        let mut at = 0;
        let limits = DecodeLimits::default();
        while let Some((packet, size)) =
            decode(&unread[at..], self.version, &limits).expect("a server sends what it should")
        {
            at += size;
            self.packet(&packet, now, oracle, out);
        }
        self.unread = unread[at..].to_vec();
    }

    fn packet(&mut self, packet: &Packet<'_>, now: u64, oracle: &mut Oracle, out: &mut BytesMut) {
        if !self.up && !matches!(packet, Packet::Connack(_)) {
            oracle.fail("connack", format!("{} was told {packet:?} before CONNACK", self.name));
            return;
        }
        match packet {
            Packet::Connack(ack) if ack.reason == ReasonCode::Success => {
                self.up = true;
                oracle.moves(&self.name, now);
                self.accepted(ack.session_present, now, oracle, out);
            }
            Packet::Suback(ack) => {
                assert!(ack.reasons.iter().all(|reason| !reason.is_error()));
                self.subscribed = true;
                oracle.subscribed(&self.name, now);
            }
            Packet::Publish(publish) => self.deliver(publish, now, oracle, out),
            Packet::Ack(ack) => self.acknowledged(ack, now, oracle, out),
            Packet::Connack(_) | Packet::Disconnect(_) | Packet::Unsuback(_) | Packet::Pingresp => {
            }
            Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::Pingreq
            | Packet::Auth(_) => panic!("a server does not send {packet:?}"),
        }
        self.publish(now, oracle, out);
    }

    fn accepted(&mut self, present: bool, now: u64, oracle: &mut Oracle, out: &mut BytesMut) {
        if !present {
            if self.subscribed && !self.wants.is_empty() {
                oracle.session_lost(&self.name);
            }
            self.received.clear();
            self.subscribed = self.wants.is_empty();
        }
        let mut all: Vec<(u16, UnderWay)> =
            self.under_way.iter().map(|(id, under_way)| (*id, *under_way)).collect();
        all.sort_by_key(|(_, under_way)| under_way.order);
        for (id, under_way) in all {
            if under_way.node != self.node {
                oracle.resent_elsewhere(under_way.message);
            }
            if !present {
                // The server has forgotten what it received: a released one is over, and the
                // others begin again.
                if under_way.released {
                    self.under_way.remove(&id);
                    continue;
                }
                oracle.resent_to_new_session(under_way.message);
            }
            if under_way.released {
                self.put_ack(AckKind::Pubrel, id, out);
            } else {
                self.put_publish(id, under_way.message, true, now, oracle, out);
            }
        }
        if !self.subscribed {
            self.subscribe(out);
        }
    }

    fn subscribe(&self, out: &mut BytesMut) {
        let request =
            |(filter, qos): &'_ (String, QoS)| (filter.clone(), SubscriptionOptions::at(*qos));
        let wants: Vec<_> = self.wants.iter().map(request).collect();
        let filters: Vec<SubscriptionRequest<'_>> = wants
            .iter()
            .map(|(filter, options)| SubscriptionRequest { filter, options: *options })
            .collect();
        let subscribe = Subscribe {
            packet_id: id_of(SUBSCRIBE_ID),
            subscription_id: None,
            user_properties: UserProperties::NONE,
            filters: SubscribeFilters::from_slice(&filters),
        };
        out.extend_from_slice(&self.encode(&Packet::Subscribe(subscribe)));
    }

    fn deliver(
        &mut self,
        publish: &Publish<'_>,
        now: u64,
        oracle: &mut Oracle,
        out: &mut BytesMut,
    ) {
        let text = std::str::from_utf8(publish.payload).expect("payloads are numbers");
        let message = MessageNo(text.parse().expect("payloads are numbers"));
        match publish.packet_id.map(PacketId::get) {
            None => oracle.delivered(&self.name, message, publish, now),
            Some(id) if publish.qos == QoS::AtLeastOnce => {
                oracle.delivered(&self.name, message, publish, now);
                self.put_ack(AckKind::Puback, id, out);
            }
            Some(id) => {
                if self.received.insert(id) {
                    oracle.delivered(&self.name, message, publish, now);
                }
                self.put_ack(AckKind::Pubrec, id, out);
            }
        }
    }

    fn acknowledged(&mut self, ack: &Ack<'_>, now: u64, oracle: &mut Oracle, out: &mut BytesMut) {
        let id = ack.packet_id.get();
        match ack.kind {
            AckKind::Puback => {
                if let Some(under_way) = self.under_way.remove(&id) {
                    oracle.acknowledged(under_way.message, now, !ack.reason.is_error());
                }
            }
            AckKind::Pubrec => {
                let Some(under_way) = self.under_way.get_mut(&id) else {
                    return self.put_ack(AckKind::Pubrel, id, out);
                };
                let good = !ack.reason.is_error();
                oracle.acknowledged(under_way.message, now, good);
                if good {
                    under_way.released = true;
                    self.put_ack(AckKind::Pubrel, id, out);
                } else {
                    self.under_way.remove(&id);
                }
            }
            AckKind::Pubcomp => {
                self.under_way.remove(&id);
            }
            AckKind::Pubrel => {
                self.received.remove(&id);
                self.put_ack(AckKind::Pubcomp, id, out);
            }
        }
    }

    fn put_publish(
        &self,
        id: u16,
        message: MessageNo,
        dup: bool,
        now: u64,
        oracle: &mut Oracle,
        out: &mut BytesMut,
    ) {
        oracle.sent(message, now);
        let (topic, qos) = oracle.what(message);
        let payload = message.0.to_string();
        let publish = Publish {
            dup,
            qos,
            retain: false,
            topic: &topic,
            packet_id: Some(id_of(id)),
            properties: PublishProperties::default(),
            payload: payload.as_bytes(),
        };
        out.extend_from_slice(&self.encode(&Packet::Publish(publish)));
    }

    fn put_ack(&self, kind: AckKind, id: u16, out: &mut BytesMut) {
        let ack = Ack::new(kind, id_of(id), ReasonCode::Success);
        out.extend_from_slice(&self.encode(&Packet::Ack(ack)));
    }

    fn free_id(&mut self) -> u16 {
        loop {
            // A small range, so that ids are used again soon: a stale one would show.
            self.next_id = if self.next_id >= 20 { 2 } else { self.next_id + 1 };
            if !self.under_way.contains_key(&self.next_id) {
                return self.next_id;
            }
        }
    }

    fn encode(&self, packet: &Packet<'_>) -> BytesMut {
        let mut out = BytesMut::new();
        packet.encode(self.version, &mut out).expect("clients send what they may");
        out
    }
}

fn id_of(id: u16) -> PacketId {
    PacketId::new(id).expect("ids are above zero")
}
