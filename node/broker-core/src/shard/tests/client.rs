//! A client, as far as a transcript needs one: what it sends, and how what it got reads.

use bytes::BytesMut;
use verge_mqtt_proto::{
    Ack, AckKind, Auth, Connect, ConnectProperties, DecodeLimits, Disconnect, Packet, PacketId,
    ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode, RetainHandling, Subscribe,
    SubscribeFilters, SubscriptionOptions, SubscriptionRequest, Unsubscribe, UnsubscribeFilters,
    UserProperties, Will, WillProperties, decode,
};

use crate::authn::scram::METHOD;
use crate::shard::api::ConnId;

/// A connection, by its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) conn: ConnId,
    pub(super) version: ProtocolVersion,
}

/// What a CONNECT says.
#[derive(Debug, Clone)]
pub(super) struct Who {
    id: &'static str,
    pub(super) version: ProtocolVersion,
    clean_start: bool,
    expiry: Option<u32>,
    keep_alive: u16,
    receive_maximum: Option<u16>,
    packet_max: Option<u32>,
    aliases: Option<u16>,
    response_information: Option<bool>,
    will_retained: bool,
    user: Option<&'static str>,
    password: Option<&'static str>,
    method: Option<(&'static str, &'static str)>,
    problem_information: Option<bool>,
    will: Option<(&'static str, &'static str, QoS, u32)>,
    is_bridge: bool,
}

/// A 5.0 client with clean start and a session that ends with its connection.
pub(super) fn v5(id: &'static str) -> Who {
    Who {
        id,
        version: ProtocolVersion::V5,
        clean_start: true,
        expiry: None,
        keep_alive: 0,
        receive_maximum: None,
        packet_max: None,
        aliases: None,
        response_information: None,
        will_retained: false,
        user: None,
        password: None,
        method: None,
        problem_information: None,
        will: None,
        is_bridge: false,
    }
}

/// A 3.1.1 client with Clean Session 1.
pub(super) fn v4(id: &'static str) -> Who {
    Who { version: ProtocolVersion::V4, ..v5(id) }
}

impl Who {
    /// Resumes, and keeps its session.
    pub(super) fn persistent(self) -> Self {
        let expiry = self.version.is_v5().then_some(u32::MAX);
        Self { clean_start: false, expiry, ..self }
    }

    pub(super) fn clean(self) -> Self {
        Self { clean_start: true, ..self }
    }

    pub(super) fn expiry(self, secs: u32) -> Self {
        Self { expiry: Some(secs), ..self }
    }

    pub(super) fn keep_alive(self, secs: u16) -> Self {
        Self { keep_alive: secs, ..self }
    }

    pub(super) fn receive_maximum(self, count: u16) -> Self {
        Self { receive_maximum: Some(count), ..self }
    }

    pub(super) fn packet_max(self, bytes: u32) -> Self {
        Self { packet_max: Some(bytes), ..self }
    }

    pub(super) fn no_problem_information(self) -> Self {
        Self { problem_information: Some(false), ..self }
    }

    pub(super) fn user(self, name: &'static str, password: &'static str) -> Self {
        Self { user: Some(name), password: Some(password), ..self }
    }

    pub(super) fn password_only(self, password: &'static str) -> Self {
        Self { password: Some(password), ..self }
    }

    pub(super) fn method(self, name: &'static str, data: &'static str) -> Self {
        Self { method: Some((name, data)), ..self }
    }

    pub(super) fn scram(self, first: &'static str) -> Self {
        self.method(METHOD, first)
    }

    pub(super) fn asks_response_information(self) -> Self {
        Self { response_information: Some(true), ..self }
    }

    pub(super) fn bridge(self) -> Self {
        Self { is_bridge: true, ..self }
    }

    pub(super) fn retained_will(self) -> Self {
        Self { will_retained: true, ..self }
    }

    pub(super) fn aliases(self, count: u16) -> Self {
        Self { aliases: Some(count), ..self }
    }

    pub(super) fn will(self, topic: &'static str, payload: &'static str, delay: u32) -> Self {
        Self { will: Some((topic, payload, QoS::AtLeastOnce, delay)), ..self }
    }

    pub(super) fn id(&self) -> &'static str {
        self.id
    }

    pub(super) fn bytes(&self) -> BytesMut {
        let will = self.will.map(|(topic, payload, qos, delay)| Will {
            qos,
            retain: self.will_retained,
            topic,
            payload: payload.as_bytes(),
            properties: WillProperties {
                will_delay_interval: (delay > 0).then_some(delay),
                ..WillProperties::default()
            },
        });
        let connect = Connect {
            version: self.version,
            is_bridge: self.is_bridge,
            clean_start: self.clean_start,
            keep_alive_secs: self.keep_alive,
            client_id: self.id,
            will,
            username: self.user,
            password: self.password.map(str::as_bytes),
            properties: ConnectProperties {
                session_expiry_interval: self.expiry,
                receive_maximum: self.receive_maximum,
                maximum_packet_size: self.packet_max,
                topic_alias_maximum: self.aliases,
                request_response_information: self.response_information,
                authentication_method: self.method.map(|(name, _)| name),
                authentication_data: self.method.map(|(_, data)| data.as_bytes()),
                request_problem_information: self.problem_information,
                ..ConnectProperties::default()
            },
        };
        encode(self.version, &Packet::Connect(connect))
    }
}

/// A subscription to ask for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    filter: &'static str,
    options: SubscriptionOptions,
    id: Option<u32>,
}

pub(super) fn want(filter: &'static str, qos: u8) -> Want {
    Want { filter, options: SubscriptionOptions::at(QoS::from_bits(qos).unwrap()), id: None }
}

impl Want {
    pub(super) fn id(self, id: u32) -> Self {
        Self { id: Some(id), ..self }
    }

    pub(super) fn no_local(mut self) -> Self {
        self.options.no_local = true;
        self
    }

    pub(super) fn as_published(mut self) -> Self {
        self.options.retain_as_published = true;
        self
    }

    pub(super) fn retained(mut self, handling: RetainHandling) -> Self {
        self.options.retain_handling = handling;
        self
    }
}

impl Client {
    pub(super) fn subscribe(self, packet_id: u16, want: Want) -> BytesMut {
        let request = [SubscriptionRequest { filter: want.filter, options: want.options }];
        let packet = Packet::Subscribe(Subscribe {
            packet_id: id(packet_id),
            subscription_id: want.id,
            user_properties: UserProperties::NONE,
            filters: SubscribeFilters::from_slice(&request),
        });
        encode(self.version, &packet)
    }

    pub(super) fn unsubscribe(self, packet_id: u16, filter: &str) -> BytesMut {
        let filters = [filter];
        let packet = Packet::Unsubscribe(Unsubscribe {
            packet_id: id(packet_id),
            user_properties: UserProperties::NONE,
            filters: UnsubscribeFilters::from_slice(&filters),
        });
        encode(self.version, &packet)
    }

    pub(super) fn publish(self, post: Post) -> BytesMut {
        let packet = Packet::Publish(Publish {
            dup: post.dup,
            qos: post.qos,
            retain: post.retain,
            topic: post.topic,
            packet_id: (post.qos != QoS::AtMostOnce).then(|| id(post.packet_id)),
            properties: PublishProperties {
                message_expiry_interval: post.expiry,
                ..PublishProperties::default()
            },
            payload: post.payload.as_bytes(),
        });
        encode(self.version, &packet)
    }

    pub(super) fn ack(self, kind: AckKind, packet_id: u16) -> BytesMut {
        self.answer(kind, packet_id, ReasonCode::Success)
    }

    pub(super) fn answer(self, kind: AckKind, packet_id: u16, reason: ReasonCode) -> BytesMut {
        encode(self.version, &Packet::Ack(Ack::new(kind, id(packet_id), reason)))
    }

    pub(super) fn pingreq(self) -> BytesMut {
        encode(self.version, &Packet::Pingreq)
    }

    pub(super) fn auth(self, reason: ReasonCode, data: &str) -> BytesMut {
        let auth = Auth {
            authentication_method: Some(METHOD),
            authentication_data: Some(data.as_bytes()),
            ..Auth::new(reason)
        };
        encode(self.version, &Packet::Auth(auth))
    }

    pub(super) fn disconnect(self, reason: ReasonCode) -> BytesMut {
        encode(self.version, &Packet::Disconnect(Disconnect::new(reason)))
    }
}

/// A PUBLISH to send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Post {
    topic: &'static str,
    payload: &'static str,
    qos: QoS,
    packet_id: u16,
    retain: bool,
    dup: bool,
    expiry: Option<u32>,
}

/// A message at QoS 0; `q1` and `q2` make it more.
pub(super) fn post(topic: &'static str, payload: &'static str) -> Post {
    let qos = QoS::AtMostOnce;
    Post { topic, payload, qos, packet_id: 0, retain: false, dup: false, expiry: None }
}

impl Post {
    pub(super) fn q1(self, packet_id: u16) -> Self {
        Self { qos: QoS::AtLeastOnce, packet_id, ..self }
    }

    pub(super) fn q2(self, packet_id: u16) -> Self {
        Self { qos: QoS::ExactlyOnce, packet_id, ..self }
    }

    pub(super) fn retain(self) -> Self {
        Self { retain: true, ..self }
    }

    pub(super) fn dup(self) -> Self {
        Self { dup: true, ..self }
    }

    pub(super) fn expiry(self, secs: u32) -> Self {
        Self { expiry: Some(secs), ..self }
    }
}

/// Takes whole packets off what a client received, each as a line.
pub(super) fn read(version: ProtocolVersion, bytes: &mut Vec<u8>) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let limits = DecodeLimits::default();
        let (line, size) = match decode(bytes, version, &limits).unwrap() {
            Some((packet, size)) => (line(&packet), size),
            None => return lines,
        };
        lines.push(line);
        bytes.drain(..size);
    }
}

/// Takes whole packets off what a client received, each as its reason string.
pub(super) fn read_words(version: ProtocolVersion, bytes: &mut Vec<u8>) -> Vec<Option<String>> {
    let mut words = Vec::new();
    while let Some((packet, size)) = decode(bytes, version, &DecodeLimits::default()).unwrap() {
        let reason = match &packet {
            Packet::Connack(packet) => packet.properties.reason_string,
            Packet::Ack(packet) => packet.properties.reason_string,
            Packet::Suback(packet) => packet.properties.reason_string,
            Packet::Unsuback(packet) => packet.properties.reason_string,
            Packet::Disconnect(packet) => packet.reason_string,
            Packet::Auth(packet) => packet.reason_string,
            Packet::Publish(_) | Packet::Pingresp => None,
            Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::Pingreq => panic!("a server does not send {packet:?}"),
        };
        words.push(reason.map(str::to_owned));
        bytes.drain(..size);
    }
    words
}

fn line(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Connack(ack) if ack.reason == ReasonCode::Success => {
            let assigned = ack.properties.assigned_client_identifier.map_or("", |_| " assigned");
            let auth = ack.properties.authentication_method.map_or_else(String::new, |method| {
                format!(" auth={method} {}", text(ack.properties.authentication_data))
            });
            format!("connack present={}{assigned}{auth}", u8::from(ack.session_present))
        }
        Packet::Connack(ack) => {
            let to = to(ack.properties.server_reference);
            format!("connack {}{to}", ack.reason.name())
        }
        Packet::Publish(publish) => {
            let mut text = format!("publish {}", publish.topic);
            if let Some(id) = publish.packet_id {
                text += &format!(" q{} id={}", publish.qos.bits(), id.get());
            }
            for (set, name) in [(publish.dup, " dup"), (publish.retain, " retain")] {
                text += if set { name } else { "" };
            }
            if let Some(secs) = publish.properties.message_expiry_interval {
                text += &format!(" expiry={secs}");
            }
            if let Some(alias) = publish.properties.topic_alias {
                text += &format!(" alias={alias}");
            }
            if !publish.properties.subscription_ids.is_empty() {
                text += &format!(" for={:?}", publish.properties.subscription_ids.as_slice());
            }
            format!("{text} {:?}", String::from_utf8_lossy(publish.payload))
        }
        Packet::Ack(ack) => {
            let kind = format!("{:?}", ack.kind).to_lowercase();
            let id = ack.packet_id.get();
            if ack.reason == ReasonCode::Success {
                format!("{kind} {id}")
            } else {
                format!("{kind} {id} {}", ack.reason.name())
            }
        }
        Packet::Suback(ack) => {
            let codes: Vec<u8> = ack.reasons.iter().map(ReasonCode::byte).collect();
            format!("suback {} {codes:?}", ack.packet_id.get())
        }
        Packet::Unsuback(ack) => {
            let codes: Vec<u8> = ack.reasons.iter().map(ReasonCode::byte).collect();
            let codes = if codes.iter().any(|code| *code != 0) {
                format!(" {codes:?}")
            } else {
                String::new()
            };
            format!("unsuback {}{codes}", ack.packet_id.get())
        }
        Packet::Disconnect(packet) => {
            format!("disconnect {}{}", packet.reason.name(), to(packet.server_reference))
        }
        Packet::Pingresp => "pingresp".into(),
        Packet::Auth(auth) => {
            let method = auth.authentication_method.unwrap_or("without method");
            format!("auth {} {method} {}", auth.reason.name(), text(auth.authentication_data))
        }
        Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::Pingreq => {
            panic!("a server does not send {packet:?}")
        }
    }
}

fn to(reference: Option<&str>) -> String {
    reference.map_or_else(String::new, |reference| format!(" to={reference}"))
}

fn text(data: Option<&[u8]>) -> &str {
    data.map_or("", |data| std::str::from_utf8(data).unwrap())
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn encode(version: ProtocolVersion, packet: &Packet<'_>) -> BytesMut {
    let mut out = BytesMut::new();
    packet.encode(version, &mut out).unwrap();
    out
}
