//! Every packet in every version: these bytes are this packet, both ways.
//!
//! Fields follow the standard's non-normative examples (figures 3-6, 3-9, 3-20, 3-22, 3-28): client
//! with user name, password and Will, Keep Alive 10; topic "a/b"; filters "a/b" and "c/d"; packet
//! identifier 10.

use bytes::BytesMut;
use verge_mqtt_proto::ProtocolVersion::{V3, V4, V5};
use verge_mqtt_proto::packet::ping::{PINGREQ, PINGRESP};
use verge_mqtt_proto::{
    Ack, AckKind, Auth, Connack, ConnackProperties, Connect, ConnectProperties, DecodeLimits,
    Disconnect, Packet, PacketId, PacketType, ProtocolVersion, Publish, PublishProperties, QoS,
    ReasonCode, ReasonCodes, ResponseProperties, RetainHandling, Suback, Subscribe,
    SubscribeFilters, SubscriptionOptions, SubscriptionRequest, Unsuback, Unsubscribe,
    UnsubscribeFilters, UserProperties, Will, WillProperties, decode, packet_size,
};

struct Row {
    name: &'static str,
    version: ProtocolVersion,
    bytes: Vec<u8>,
    packet: Packet<'static>,
}

#[test]
fn every_row_decodes_and_encodes() {
    let limits = DecodeLimits::default();
    for Row { name, version, bytes, packet } in rows() {
        let (decoded, size) = decode(&bytes, version, &limits).expect(name).expect(name);
        assert_eq!(decoded, packet, "{name}");
        assert_eq!(size, bytes.len(), "{name}");
        let mut out = BytesMut::from(&b"before"[..]);
        assert_eq!(packet.encode(version, &mut out), Ok(bytes.len()), "{name}");
        assert_eq!(out[..6], b"before"[..], "{name}");
        assert_eq!(out[6..], bytes, "{name}");
    }
}

#[test]
fn bytes_that_follow_are_left_alone() {
    let limits = DecodeLimits::default();
    for Row { name, version, mut bytes, packet } in rows() {
        let size = bytes.len();
        bytes.extend([0xff; 9]);
        assert_eq!(decode(&bytes, version, &limits), Ok(Some((packet, size))), "{name}");
    }
}

#[test]
fn wherever_a_packet_is_cut_the_rest_is_waited_for() {
    let limits = DecodeLimits::default();
    for Row { name, version, bytes, .. } in rows() {
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end], version, &limits), Ok(None), "{name} cut at {end}");
            let expected = if end < 2 { None } else { Some(bytes.len()) };
            assert_eq!(packet_size(&bytes[..end], &limits), Ok(expected), "{name} cut at {end}");
        }
    }
}

#[test]
fn the_rows_cover_every_packet_of_every_version() {
    let rows = rows();
    for version in [V3, V4, V5] {
        for packet_type in PacketType::ALL {
            let covered = rows
                .iter()
                .any(|row| row.version == version && row.packet.packet_type() == packet_type);
            assert_eq!(covered, packet_type.exists_in(version), "{packet_type:?} {version:?}");
        }
    }
}

fn rows() -> Vec<Row> {
    let mut rows = vec![
        row(
            "CONNECT 3.1, name MQIsdp",
            V3,
            b"\x10\x14\0\x06MQIsdp\x03\x02\0\x0a\0\x06client",
            Packet::Connect(Connect { version: V3, clean_start: true, ..connect() }),
        ),
        row(
            "CONNECT 3.1.1 of a bridge",
            V4,
            b"\x10\x12\0\x04MQTT\x84\x02\0\x0a\0\x06client",
            Packet::Connect(Connect {
                version: V4,
                is_bridge: true,
                clean_start: true,
                ..connect()
            }),
        ),
        row(
            "CONNECT 3.1.1, flags of figure 3.6",
            V4,
            b"\x10\x27\0\x04MQTT\x04\xce\0\x0a\0\x06client\0\x03a/b\0\x02hi\0\x04user\0\x04pass",
            Packet::Connect(Connect {
                version: V4,
                clean_start: true,
                will: Some(will()),
                username: Some("user"),
                password: Some(b"pass"),
                ..connect()
            }),
        ),
        row(
            "CONNECT 5.0, figure 3-6",
            V5,
            b"\x10\x2e\0\x04MQTT\x05\xce\0\x0a\x05\x11\0\0\0\x0a\0\x06client\
              \0\0\x03a/b\0\x02hi\0\x04user\0\x04pass",
            Packet::Connect(Connect {
                clean_start: true,
                will: Some(will()),
                username: Some("user"),
                password: Some(b"pass"),
                properties: ConnectProperties {
                    session_expiry_interval: Some(10),
                    ..ConnectProperties::default()
                },
                ..connect()
            }),
        ),
        row(
            "CONNECT 5.0, every property, retained will",
            V5,
            b"\x10\x61\0\x04MQTT\x05\x34\0\x0a\x28\x11\xff\xff\xff\xff\x21\0\x14\x27\0\0\x10\0\
              \x22\0\x05\x19\x01\x17\0\x15\0\x05SCRAM\x16\0\x02\0\x01\x26\0\x01k\0\x01v\
              \0\0\x22\x18\0\0\0\x1e\x01\x01\x02\0\0\0\x3c\x03\0\x04text\x08\0\x01r\x09\0\x01\x07\
              \x26\0\x01k\0\x01v\0\x03a/b\0\x02hi",
            Packet::Connect(Connect {
                client_id: "",
                will: Some(Will {
                    qos: QoS::ExactlyOnce,
                    retain: true,
                    properties: WillProperties {
                        will_delay_interval: Some(30),
                        payload_format_indicator: Some(true),
                        message_expiry_interval: Some(60),
                        content_type: Some("text"),
                        response_topic: Some("r"),
                        correlation_data: Some(&[7]),
                        user_properties: PAIR,
                    },
                    ..will()
                }),
                properties: ConnectProperties {
                    session_expiry_interval: Some(u32::MAX),
                    receive_maximum: Some(20),
                    maximum_packet_size: Some(4096),
                    topic_alias_maximum: Some(5),
                    request_response_information: Some(true),
                    request_problem_information: Some(false),
                    user_properties: PAIR,
                    authentication_method: Some("SCRAM"),
                    authentication_data: Some(&[0, 1]),
                },
                ..connect()
            }),
        ),
        row(
            "CONNECT 5.0, password alone",
            V5,
            b"\x10\x14\0\x04MQTT\x05\x40\0\x0a\0\0\x01c\0\x04pass",
            Packet::Connect(Connect { client_id: "c", password: Some(b"pass"), ..connect() }),
        ),
        row(
            "CONNACK 3.1.1, session present",
            V4,
            b"\x20\x02\x01\0",
            Packet::Connack(Connack::accepted(true, ConnackProperties::default())),
        ),
        row(
            "CONNACK 3.1, not authorized",
            V3,
            b"\x20\x02\0\x05",
            Packet::Connack(Connack::refused(ReasonCode::NotAuthorized)),
        ),
        row(
            "CONNACK 5.0, use another server",
            V5,
            b"\x20\x0e\0\x9c\x0b\x1c\0\x08rsu-3:18",
            Packet::Connack(Connack {
                properties: ConnackProperties {
                    server_reference: Some("rsu-3:18"),
                    ..ConnackProperties::default()
                },
                ..Connack::refused(ReasonCode::UseAnotherServer)
            }),
        ),
        row(
            "CONNACK 5.0, every property",
            V5,
            b"\x20\x49\x01\0\x46\x11\0\0\0\x01\x21\0\x02\x24\x01\x25\0\x27\0\0\0\x40\x12\0\x02id\
              \x22\0\x03\x1f\0\x02ok\x28\0\x29\0\x2a\x01\x13\0\x1e\x1a\0\x02ri\x1c\0\x01s\
              \x15\0\x01m\x16\0\x01d\x26\0\x01k\0\x01v\x26\0\x01k\0\x01w",
            Packet::Connack(Connack::accepted(true, every_connack_property())),
        ),
        row("PUBLISH 5.0, QoS 0", V5, b"\x30\x08\0\x03a/b\0hi", Packet::Publish(publish(None))),
        row("PUBLISH 5.0, figure 3-9", V5, b"\x32\x08\0\x03a/b\0\x0a\0", {
            Packet::Publish(Publish { payload: b"", ..publish(Some(QoS::AtLeastOnce)) })
        }),
        row(
            "PUBLISH 5.0, every property, from a server",
            V5,
            b"\x3d\x34\0\x03a/b\0\x0a\x2a\x01\x01\x02\0\0\0\x3c\x23\0\x02\x08\0\x01r\x09\0\x01\x07\
              \x0b\x01\x0b\x80\x01\x03\0\x04text\x26\0\x01k\0\x01v\x26\0\0\0\0hi",
            Packet::Publish(Publish {
                dup: true,
                retain: true,
                properties: PublishProperties {
                    payload_format_indicator: Some(true),
                    message_expiry_interval: Some(60),
                    topic_alias: Some(2),
                    response_topic: Some("r"),
                    correlation_data: Some(&[7]),
                    user_properties: UserProperties::from_pairs(&[("k", "v"), ("", "")]),
                    subscription_ids: [1, 128].into_iter().collect(),
                    content_type: Some("text"),
                },
                ..publish(Some(QoS::ExactlyOnce))
            }),
        ),
        row(
            "PUBLISH 5.0, alias alone",
            V5,
            b"\x30\x08\0\0\x03\x23\0\x02hi",
            Packet::Publish(Publish {
                topic: "",
                properties: PublishProperties {
                    topic_alias: Some(2),
                    ..PublishProperties::default()
                },
                ..publish(None)
            }),
        ),
        row(
            "SUBSCRIBE 5.0, figure 3-20",
            V5,
            b"\x82\x0f\0\x0a\0\0\x03a/b\x01\0\x03c/d\x02",
            Packet::Subscribe(subscribe()),
        ),
        row(
            "SUBSCRIBE 5.0, every option and property",
            V5,
            b"\x82\x19\0\x0a\x0c\x0b\xff\xff\xff\x7f\x26\0\x01k\0\x01v\0\x01#\x2e\0\x03$a/\x10",
            Packet::Subscribe(Subscribe {
                subscription_id: Some(268_435_455),
                user_properties: PAIR,
                filters: SubscribeFilters::from_slice(&EVERY_OPTION),
                ..subscribe()
            }),
        ),
        row(
            "SUBACK 5.0",
            V5,
            b"\x90\x0b\0\x0a\x05\x1f\0\x02no\0\x02\x97",
            Packet::Suback(Suback {
                packet_id: ID,
                reasons: ReasonCodes::from_slice(&[
                    ReasonCode::Success,
                    ReasonCode::GrantedQos2,
                    ReasonCode::QuotaExceeded,
                ]),
                properties: ResponseProperties {
                    reason_string: Some("no"),
                    user_properties: UserProperties::NONE,
                },
            }),
        ),
        row(
            "UNSUBSCRIBE 5.0, figure 3-28",
            V5,
            b"\xa2\x0d\0\x0a\0\0\x03a/b\0\x03c/d",
            Packet::Unsubscribe(unsubscribe()),
        ),
        row(
            "UNSUBACK 5.0",
            V5,
            b"\xb0\x05\0\x0a\0\0\x11",
            Packet::Unsuback(Unsuback {
                packet_id: ID,
                reasons: ReasonCodes::from_slice(&[
                    ReasonCode::Success,
                    ReasonCode::NoSubscriptionExisted,
                ]),
                properties: ResponseProperties::default(),
            }),
        ),
        row("DISCONNECT 5.0, normal", V5, b"\xe0\0", {
            Packet::Disconnect(Disconnect::new(ReasonCode::Success))
        }),
        row("DISCONNECT 5.0, reason alone", V5, b"\xe0\x01\x8e", {
            Packet::Disconnect(Disconnect::new(ReasonCode::SessionTakenOver))
        }),
        row(
            "DISCONNECT 5.0, every property",
            V5,
            b"\xe0\x17\x04\x15\x11\0\0\0\x05\x1c\0\x01s\x1f\0\x02by\x26\0\x01k\0\x01v",
            Packet::Disconnect(Disconnect {
                reason: ReasonCode::DisconnectWithWill,
                session_expiry_interval: Some(5),
                server_reference: Some("s"),
                reason_string: Some("by"),
                user_properties: PAIR,
            }),
        ),
        row("AUTH 5.0, success", V5, b"\xf0\0", Packet::Auth(Auth::new(ReasonCode::Success))),
        row(
            "AUTH 5.0, every property",
            V5,
            b"\xf0\x15\x18\x13\x15\0\x01m\x16\0\x01d\x1f\0\x01w\x26\0\x01k\0\x01v",
            Packet::Auth(Auth {
                reason: ReasonCode::ContinueAuthentication,
                authentication_method: Some("m"),
                authentication_data: Some(b"d"),
                reason_string: Some("w"),
                user_properties: PAIR,
            }),
        ),
    ];
    for version in [V3, V4] {
        rows.extend([
            row(
                "PUBLISH, QoS 0",
                version,
                b"\x31\x07\0\x03a/bhi",
                Packet::Publish(Publish { retain: true, ..publish(None) }),
            ),
            row(
                "PUBLISH, QoS 1",
                version,
                b"\x32\x09\0\x03a/b\0\x0ahi",
                Packet::Publish(publish(Some(QoS::AtLeastOnce))),
            ),
            row(
                "PUBLISH, QoS 2 again",
                version,
                b"\x3c\x09\0\x03a/b\0\x0ahi",
                Packet::Publish(Publish { dup: true, ..publish(Some(QoS::ExactlyOnce)) }),
            ),
            row(
                "SUBSCRIBE",
                version,
                b"\x82\x0e\0\x0a\0\x03a/b\x01\0\x03c/d\x02",
                Packet::Subscribe(subscribe()),
            ),
            row(
                "SUBACK",
                version,
                b"\x90\x05\0\x0a\x01\x02\x80",
                Packet::Suback(Suback {
                    packet_id: ID,
                    reasons: ReasonCodes::from_slice(&[
                        ReasonCode::GrantedQos1,
                        ReasonCode::GrantedQos2,
                        ReasonCode::UnspecifiedError,
                    ]),
                    properties: ResponseProperties::default(),
                }),
            ),
            row(
                "UNSUBSCRIBE",
                version,
                b"\xa2\x0c\0\x0a\0\x03a/b\0\x03c/d",
                Packet::Unsubscribe(unsubscribe()),
            ),
            row(
                "UNSUBACK",
                version,
                b"\xb0\x02\0\x0a",
                Packet::Unsuback(Unsuback {
                    packet_id: ID,
                    reasons: ReasonCodes::from_slice(&[]),
                    properties: ResponseProperties::default(),
                }),
            ),
            row("DISCONNECT", version, b"\xe0\0", {
                Packet::Disconnect(Disconnect::new(ReasonCode::Success))
            }),
        ]);
    }
    for version in [V3, V4, V5] {
        rows.extend([
            row("PINGREQ", version, &PINGREQ, Packet::Pingreq),
            row("PINGRESP", version, &PINGRESP, Packet::Pingresp),
            row("PUBACK", version, b"\x40\x02\0\x0a", ack(AckKind::Puback)),
            row("PUBREC", version, b"\x50\x02\0\x0a", ack(AckKind::Pubrec)),
            row("PUBREL", version, b"\x62\x02\0\x0a", ack(AckKind::Pubrel)),
            row("PUBCOMP", version, b"\x70\x02\0\x0a", ack(AckKind::Pubcomp)),
        ]);
    }
    rows.push(row("PUBACK 5.0, reason alone", V5, b"\x40\x03\0\x0a\x10", {
        Packet::Ack(Ack::new(AckKind::Puback, ID, ReasonCode::NoMatchingSubscribers))
    }));
    rows.push(row(
        "PUBREC 5.0, every property",
        V5,
        b"\x50\x10\0\x0a\x97\x0c\x1f\0\x02no\x26\0\x01k\0\x01v",
        Packet::Ack(Ack {
            properties: ResponseProperties { reason_string: Some("no"), user_properties: PAIR },
            ..Ack::new(AckKind::Pubrec, ID, ReasonCode::QuotaExceeded)
        }),
    ));
    rows
}

const ID: PacketId = PacketId::new(10).expect("not zero");

const PAIR: UserProperties<'static> = UserProperties::from_pairs(&[("k", "v")]);

const TWO_FILTERS: [SubscriptionRequest<'static>; 2] = [
    SubscriptionRequest { filter: "a/b", options: SubscriptionOptions::at(QoS::AtLeastOnce) },
    SubscriptionRequest { filter: "c/d", options: SubscriptionOptions::at(QoS::ExactlyOnce) },
];

const EVERY_OPTION: [SubscriptionRequest<'static>; 2] = [
    SubscriptionRequest {
        filter: "#",
        options: SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
        },
    },
    SubscriptionRequest {
        filter: "$a/",
        options: SubscriptionOptions {
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendIfNew,
        },
    },
];

fn row(name: &'static str, version: ProtocolVersion, bytes: &[u8], packet: Packet<'static>) -> Row {
    Row { name, version, bytes: bytes.to_vec(), packet }
}

fn connect() -> Connect<'static> {
    Connect {
        version: V5,
        is_bridge: false,
        clean_start: false,
        keep_alive_secs: 10,
        client_id: "client",
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

fn will() -> Will<'static> {
    Will {
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "a/b",
        payload: b"hi",
        properties: WillProperties::default(),
    }
}

fn every_connack_property() -> ConnackProperties<'static> {
    ConnackProperties {
        session_expiry_interval: Some(1),
        receive_maximum: Some(2),
        maximum_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        maximum_packet_size: Some(64),
        assigned_client_identifier: Some("id"),
        topic_alias_maximum: Some(3),
        reason_string: Some("ok"),
        user_properties: UserProperties::from_pairs(&[("k", "v"), ("k", "w")]),
        wildcard_subscription_available: Some(false),
        subscription_identifier_available: Some(false),
        shared_subscription_available: Some(true),
        server_keep_alive: Some(30),
        response_information: Some("ri"),
        server_reference: Some("s"),
        authentication_method: Some("m"),
        authentication_data: Some(b"d"),
    }
}

fn publish(acknowledged: Option<QoS>) -> Publish<'static> {
    Publish {
        dup: false,
        qos: acknowledged.unwrap_or(QoS::AtMostOnce),
        retain: false,
        topic: "a/b",
        packet_id: acknowledged.map(|_| ID),
        properties: PublishProperties::default(),
        payload: b"hi",
    }
}

fn subscribe() -> Subscribe<'static> {
    Subscribe {
        packet_id: ID,
        subscription_id: None,
        user_properties: UserProperties::NONE,
        filters: SubscribeFilters::from_slice(&TWO_FILTERS),
    }
}

fn unsubscribe() -> Unsubscribe<'static> {
    Unsubscribe {
        packet_id: ID,
        user_properties: UserProperties::NONE,
        filters: UnsubscribeFilters::from_slice(&["a/b", "c/d"]),
    }
}

fn ack(kind: AckKind) -> Packet<'static> {
    Packet::Ack(Ack::new(kind, ID, ReasonCode::Success))
}
