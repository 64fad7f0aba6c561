//! Transcripts of a client's bytes and the Server's view of them, and the whole transition table.

use std::time::Duration;

use bytes::BytesMut;
use verge_model::Millis;

use super::close::{CloseCause, CloseReason, Farewell, FarewellWords};
use super::event::Event;
use super::{Connection, ConnectionConfig, Granted};
use crate::codec::ProtocolVersion::{V4, V5};
use crate::codec::error::DecodeError;
use crate::codec::reason_code::ReasonCode;
use crate::packet::PacketType;
use crate::packet::fields::PacketId;
use crate::topic::alias::AliasError;

const CONNECT_V3: &[u8] = b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x0a\0\x01c";
const CONNECT_V4: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\x0a\0\x01c";
const CONNECT_V5: &[u8] = b"\x10\x0e\0\x04MQTT\x05\x02\0\x0a\0\0\x01c";
/// Session Expiry Interval 60, Authentication Method "m".
const CONNECT_V5_AUTH: &[u8] =
    b"\x10\x17\0\x04MQTT\x05\x02\0\x0a\x09\x11\0\0\0\x3c\x15\0\x01m\0\x01c";
const AUTH_CONTINUE: &[u8] = b"\xf0\x06\x18\x04\x15\0\x01m";
const REAUTHENTICATE: &[u8] = b"\xf0\x06\x19\x04\x15\0\x01m";

#[test]
fn a_connection_from_connect_to_disconnect() {
    let mut connection = Connection::new(CONFIG, Millis(0));
    let mut input = [CONNECT_V4, b"\x30\x05\0\x03a/b", b"\xc0\0", b"\xe0\0"].concat();
    assert_eq!(read(&mut connection, &mut input, 0), ["CONNECT c"], "the rest waits");
    assert_eq!(read(&mut connection, &mut input, 1), [""; 0]);
    connection.accept(Granted::default(), Millis(2));
    assert_eq!(read(&mut connection, &mut input, 3), ["PUBLISH a/b", "PINGREQ", "DISCONNECT 0x00"]);
    assert!(connection.is_closed() && input.is_empty());
    assert_eq!(connection.poll_timeout(), None);
}

#[test]
fn every_state_answers_every_input() {
    use CloseCause as C;
    let rows: &[(&str, &[u8], [Outcome; 4])] = &[
        // input, then: AwaitingConnect, AwaitingDecision, Connected, Closed
        ("CONNECT", CONNECT_V5_AUTH, [Yields("CONNECT c"), Waits, Closes(C::SecondConnect), Waits]),
        (
            "AUTH continue",
            AUTH_CONTINUE,
            [expects_connect(PacketType::Auth), Yields("AUTH 0x18"), Yields("AUTH 0x18"), Waits],
        ),
        (
            "AUTH re-authenticate",
            REAUTHENTICATE,
            [
                expects_connect(PacketType::Auth),
                Closes(C::UnexpectedAuth),
                Yields("AUTH 0x19"),
                Waits,
            ],
        ),
        (
            "AUTH by another method",
            b"\xf0\x06\x18\x04\x15\0\x01n",
            [
                expects_connect(PacketType::Auth),
                Closes(C::UnexpectedAuth),
                Closes(C::UnexpectedAuth),
                Waits,
            ],
        ),
        (
            "AUTH with a server's code",
            b"\xf0\0",
            [
                expects_connect(PacketType::Auth),
                Closes(C::UnexpectedAuth),
                Closes(C::UnexpectedAuth),
                Waits,
            ],
        ),
        ("PUBLISH", b"\x30\x04\0\x01a\0", of_a_client(PacketType::Publish, "PUBLISH a")),
        ("PUBACK", b"\x40\x02\0\x01", of_a_client(PacketType::Puback, "PUBACK 1 0x00")),
        ("PUBREC", b"\x50\x03\0\x02\x97", of_a_client(PacketType::Pubrec, "PUBREC 2 0x97")),
        ("PUBREL", b"\x62\x02\0\x03", of_a_client(PacketType::Pubrel, "PUBREL 3 0x00")),
        ("PUBCOMP", b"\x70\x03\0\x04\x92", of_a_client(PacketType::Pubcomp, "PUBCOMP 4 0x92")),
        (
            "SUBSCRIBE",
            b"\x82\x07\0\x01\0\0\x01a\0",
            of_a_client(PacketType::Subscribe, "SUBSCRIBE a"),
        ),
        (
            "UNSUBSCRIBE",
            b"\xa2\x06\0\x01\0\0\x01a",
            of_a_client(PacketType::Unsubscribe, "UNSUBSCRIBE a"),
        ),
        ("PINGREQ", b"\xc0\0", of_a_client(PacketType::Pingreq, "PINGREQ")),
        ("DISCONNECT", b"\xe0\x01\x04", of_a_client(PacketType::Disconnect, "DISCONNECT 0x04")),
        ("CONNACK", b"\x20\x03\0\0\0", of_a_server(PacketType::Connack)),
        ("SUBACK", b"\x90\x04\0\x01\0\0", of_a_server(PacketType::Suback)),
        ("UNSUBACK", b"\xb0\x04\0\x01\0\0", of_a_server(PacketType::Unsuback)),
        ("PINGRESP", b"\xd0\0", of_a_server(PacketType::Pingresp)),
        (
            "a reserved packet type",
            b"\0\0",
            [
                Closes(C::Decode(DecodeError::ReservedPacketType(0))),
                Waits,
                Closes(C::Decode(DecodeError::ReservedPacketType(0))),
                Waits,
            ],
        ),
        ("part of a packet", b"\x10", [Waits, Waits, Waits, Waits]),
    ];
    for (name, input, outcomes) in rows {
        for (state, outcome) in outcomes.iter().enumerate() {
            let mut connection = in_state(state);
            let seen = match connection.handle_bytes(input, Millis(1)) {
                Ok(Some((event, size))) => {
                    assert_eq!(size, input.len());
                    format!("yields {}", describe(&event))
                }
                Ok(None) => "waits".to_owned(),
                Err(CloseReason { cause, .. }) => {
                    assert!(connection.is_closed(), "{name} in {}", STATES[state]);
                    format!("closes {cause:?}")
                }
            };
            let expected = match outcome {
                Yields(event) => format!("yields {event}"),
                Waits => "waits".to_owned(),
                Closes(cause) => format!("closes {cause:?}"),
            };
            assert_eq!(seen, expected, "{name} in {}", STATES[state]);
            connection.check_invariants();
        }
    }
}

#[test]
fn farewells_say_why_to_those_who_can_read_them() {
    // Rule, the client's packets, the Server's last bytes.
    type Row = (&'static str, &'static [&'static [u8]], &'static [u8]);
    let rows: &[Row] = &[
        ("[MQTT-3.1.0-1] not CONNECT", &[b"\xc0\0"], b""),
        ("not MQTT at all", &[b"GET / HTTP/1.1\r\n"], b""),
        ("[MQTT-3.1.2-1] another protocol", &[b"\x10\x0d\0\x04MQTX\x05\x02\0\0\0\x01c"], b""),
        (
            "[MQTT-3.1.2-2] a version to come",
            &[b"\x10\x0d\0\x04MQTT\x06\x02\0\0\0\x01c"],
            b"\x20\x03\0\x84\0",
        ),
        (
            "[MQTT-3.1.2-2] a version that never was",
            &[b"\x10\x0d\0\x04MQTT\x02\x02\0\0\0\x01c"],
            b"\x20\x02\0\x01",
        ),
        ("malformed CONNECT 3.1.1", &[b"\x10\x0d\0\x04MQTT\x04\x03\0\0\0\x01c"], b""),
        (
            "[MQTT-3.1.4-1] malformed CONNECT 5.0",
            &[b"\x10\x0e\0\x04MQTT\x05\x03\0\0\0\0\x01c"],
            b"\x20\x03\0\x81\0",
        ),
        (
            "[3.1.1 MQTT-3.1.3-8] no identifier, session kept",
            &[b"\x10\x0c\0\x04MQTT\x04\0\0\0\0\0"],
            b"\x20\x02\0\x02",
        ),
        ("no identifier in 3.1", &[b"\x10\x0e\0\x06MQIsdp\x03\x02\0\0\0\0"], b"\x20\x02\0\x02"),
        ("CONNECT too large", &[b"\x10\xff\xff\x03"], b""),
        (
            "CONNECT 5.0 too large, its beginning there",
            &[b"\x10\xff\xff\x03\0\x04MQTT\x05\0"],
            b"\x20\x03\0\x95\0",
        ),
        ("[MQTT-3.1.0-2] second CONNECT", &[CONNECT_V5, CONNECT_V5], b"\xe0\x01\x82"),
        ("second CONNECT 3.1.1", &[CONNECT_V4, CONNECT_V4], b""),
        ("[MQTT-4.13.1-1] malformed", &[CONNECT_V5, b"\x36\x04\0\x01a\0"], b"\xe0\x01\x81"),
        ("too large", &[CONNECT_V5, b"\x30\xff\xff\x7f"], b"\xe0\x01\x95"),
        ("[MQTT-3.3.2-2] wildcard topic", &[CONNECT_V5, b"\x30\x04\0\x01#\0"], b"\xe0\x01\x90"),
        (
            "[MQTT-3.3.4-6] subscription identifier",
            &[CONNECT_V5, b"\x30\x06\0\x01a\x02\x0b\x01"],
            b"\xe0\x01\x82",
        ),
        (
            "(3.14.2.2.2) session expiry raised from zero",
            &[CONNECT_V5, b"\xe0\x07\0\x05\x11\0\0\0\x01"],
            b"\xe0\x01\x82",
        ),
        ("[MQTT-4.12.0-7] AUTH unprepared", &[CONNECT_V5, REAUTHENTICATE], b"\xe0\x01\x82"),
    ];
    for (name, packets, farewell) in rows {
        let mut connection = Connection::new(CONFIG, Millis(0));
        let reason = packets
            .iter()
            .find_map(|packet| {
                let read = connection.handle_bytes(packet, Millis(0));
                if connection.is_awaiting_decision() {
                    connection.accept(Granted::default(), Millis(0));
                }
                read.err()
            })
            .expect(name);
        let mut out = BytesMut::new();
        reason.encode_farewell(FarewellWords::default(), usize::MAX, &mut out);
        assert_eq!(out[..], **farewell, "{name}: {reason}");
        assert!(connection.is_closed(), "{name}");
    }
}

#[test]
fn a_session_may_be_shortened_or_prolonged_at_the_end() {
    let mut connection = connected(CONNECT_V5_AUTH);
    let (event, _) = connection
        .handle_bytes(b"\xe0\x07\0\x05\x11\0\0\0\x78", Millis(0))
        .unwrap()
        .expect("a DISCONNECT");
    let Event::Disconnect(disconnect) = event else { panic!("a DISCONNECT") };
    assert_eq!(disconnect.session_expiry_interval, Some(120));
}

#[test]
fn aliases_are_resolved_and_their_misuse_closes() {
    let mut connection = connected(CONNECT_V5);
    let mut input = [
        &b"\x30\x09\0\x03a/b\x03\x23\0\x02"[..],
        b"\x30\x06\0\0\x03\x23\0\x02",
        b"\x30\x07\0\x01c\x03\x23\0\x02",
        b"\x30\x06\0\0\x03\x23\0\x02",
    ]
    .concat();
    let seen = read(&mut connection, &mut input, 0);
    assert_eq!(seen, ["PUBLISH a/b", "PUBLISH a/b", "PUBLISH c", "PUBLISH c"]);

    let rows: [(&str, &[u8], CloseCause, u8); 3] = [
        (
            "[MQTT-3.3.2-9] above the maximum",
            b"\x30\x07\0\x01a\x03\x23\0\x03",
            CloseCause::TopicAlias(AliasError::OutOfRange(3)),
            0x94,
        ),
        (
            "[MQTT-3.3.2-8] zero",
            b"\x30\x07\0\x01a\x03\x23\0\0",
            CloseCause::Decode(DecodeError::TopicAliasZero),
            0x94,
        ),
        (
            "(3.3.2.3.4) never set",
            b"\x30\x06\0\0\x03\x23\0\x01",
            CloseCause::TopicAlias(AliasError::Unknown(1)),
            0x82,
        ),
    ];
    for (name, bytes, cause, code) in rows {
        let reason = connected(CONNECT_V5).handle_bytes(bytes, Millis(0)).expect_err(name);
        assert_eq!(reason.cause, cause, "{name}");
        assert_eq!(reason.cause.reason_code().byte(), code, "{name}");
    }
}

#[test]
fn the_receive_maximum_counts_what_is_not_answered_for_good_mqtt_3_3_4_7() {
    let publish = |flags: u8, id: u8| [flags, 6, 0, 1, b'a', 0, id, 0];
    let mut connection = connected(CONNECT_V5);
    let accepts = |connection: &mut Connection, flags, id| {
        connection.handle_bytes(&publish(flags, id), Millis(0)).map(|event| event.is_some())
    };
    assert_eq!(accepts(&mut connection, 0x32, 1), Ok(true));
    assert_eq!(accepts(&mut connection, 0x34, 2), Ok(true));
    assert_eq!(accepts(&mut connection, 0x3c, 2), Ok(true), "the same message again");
    connection.on_puback_sent(id(1));
    assert_eq!(accepts(&mut connection, 0x32, 3), Ok(true));
    connection.on_pubrec_sent(id(2), ReasonCode::Success);
    connection.on_pubcomp_sent(id(2));
    assert_eq!(accepts(&mut connection, 0x32, 4), Ok(true));
    let reason = accepts(&mut connection, 0x32, 5).unwrap_err();
    assert_eq!(reason.cause, CloseCause::ReceiveMaximumExceeded);
    assert_eq!(reason.farewell, Farewell::Disconnect(ReasonCode::ReceiveMaximumExceeded));

    let mut before_v5 = connected(CONNECT_V4);
    for id in 1..=200 {
        let publish = [0x32, 5, 0, 1, b'a', 0, id];
        assert!(before_v5.handle_bytes(&publish, Millis(0)).unwrap().is_some());
    }
}

#[test]
fn silence_ends_a_connection_after_one_and_a_half_keep_alives_mqtt_3_1_2_22() {
    for (connect, farewell) in [
        (CONNECT_V3, Farewell::None),
        (CONNECT_V4, Farewell::None),
        (CONNECT_V5, Farewell::Disconnect(ReasonCode::KeepAliveTimeout)),
    ] {
        let mut connection = connected(connect);
        assert_eq!(connection.poll_timeout(), Some(Millis(15_000)));
        assert_eq!(connection.handle_timeout(Millis(14_999)), None);
        connection.handle_bytes(b"\xc0\0", Millis(10_000)).unwrap();
        assert_eq!(connection.handle_timeout(Millis(15_000)), None);
        connection.handle_bytes(b"\xc0", Millis(20_000)).unwrap();
        assert_eq!(connection.poll_timeout(), Some(Millis(25_000)), "half a packet is silence");
        let reason = connection.handle_timeout(Millis(25_000)).expect("too long");
        assert_eq!(reason, CloseReason { cause: CloseCause::KeepAliveTimeout, farewell });
        assert_eq!(connection.handle_timeout(Millis(99_000)), None);
    }
}

#[test]
fn a_server_keep_alive_overrules_the_client_mqtt_3_2_2_21() {
    let config = ConnectionConfig { keep_alive_secs_max: 4, ..CONFIG };
    let mut connection = Connection::new(config, Millis(0));
    connection.handle_bytes(CONNECT_V5, Millis(0)).unwrap();
    let server_keep_alive = connection.server_keep_alive();
    assert_eq!(server_keep_alive, Some(4));
    connection.accept(Granted { server_keep_alive }, Millis(100));
    assert_eq!(connection.poll_timeout(), Some(Millis(6_100)));

    let mut connection = Connection::new(config, Millis(0));
    connection.handle_bytes(CONNECT_V4, Millis(0)).unwrap();
    assert_eq!(connection.server_keep_alive(), None, "a 3.1.1 client cannot be told");
}

#[test]
fn a_stranger_must_come_to_the_point() {
    let mut connection = Connection::new(CONFIG, Millis(500));
    assert_eq!(connection.poll_timeout(), Some(Millis(2_500)));
    connection.handle_bytes(&CONNECT_V4[..5], Millis(2_400)).unwrap();
    assert_eq!(connection.handle_timeout(Millis(2_499)), None);
    let reason = connection.handle_timeout(Millis(2_500)).expect("too long");
    assert_eq!(reason.cause, CloseCause::ConnectTimeout);
    assert_eq!(reason.farewell, Farewell::None);
}

#[test]
fn a_decision_may_take_its_time_but_an_answer_to_a_challenge_may_not() {
    let mut connection = Connection::new(CONFIG, Millis(0));
    connection.handle_bytes(CONNECT_V5_AUTH, Millis(0)).unwrap();
    assert_eq!(connection.poll_timeout(), None);
    connection.on_challenge_sent(Millis(5_000));
    assert_eq!(connection.poll_timeout(), Some(Millis(7_000)));
    connection.handle_bytes(AUTH_CONTINUE, Millis(6_000)).unwrap();
    assert_eq!(connection.poll_timeout(), None);
    connection.on_challenge_sent(Millis(6_000));
    let reason = connection.handle_timeout(Millis(8_000)).expect("too long");
    assert_eq!(reason.cause, CloseCause::ConnectTimeout);
}

#[test]
fn the_server_closes_in_the_form_the_state_allows() {
    let rows: [(&str, Connection, ReasonCode, &[u8]); 7] = [
        ("refused, 5.0", awaiting(CONNECT_V5), ReasonCode::NotAuthorized, b"\x20\x03\0\x87\0"),
        (
            "refused, 3.1.1",
            awaiting(CONNECT_V4),
            ReasonCode::BadUserNameOrPassword,
            b"\x20\x02\0\x04",
        ),
        ("refused, 3.1", awaiting(CONNECT_V3), ReasonCode::UseAnotherServer, b"\x20\x02\0\x03"),
        ("taken over, 5.0", connected(CONNECT_V5), ReasonCode::SessionTakenOver, b"\xe0\x01\x8e"),
        ("taken over, 3.1.1", connected(CONNECT_V4), ReasonCode::SessionTakenOver, b""),
        // Shutting down has no CONNACK code of its own.
        (
            "shutting down",
            awaiting(CONNECT_V5),
            ReasonCode::ServerShuttingDown,
            b"\x20\x03\0\x88\0",
        ),
        ("before CONNECT", Connection::new(CONFIG, Millis(0)), ReasonCode::ServerBusy, b""),
    ];
    for (name, mut connection, reason, farewell) in rows {
        let close = connection.close(reason);
        assert_eq!(close.cause, CloseCause::Server(reason), "{name}");
        let mut out = BytesMut::new();
        close.encode_farewell(FarewellWords::default(), usize::MAX, &mut out);
        assert_eq!(out[..], *farewell, "{name}");
        assert_eq!(connection.close(reason).farewell, Farewell::None, "{name}: only once");
        assert_eq!(connection.handle_bytes(b"\xc0\0", Millis(0)), Ok(None), "{name}");
    }
}

#[test]
fn a_farewell_says_as_much_as_the_client_accepts_mqtt_3_2_2_19_mqtt_3_14_2_3() {
    let words = FarewellWords { reason_string: Some("why"), server_reference: Some("b:1883") };
    let connack_in_full = b"\x20\x12\0\x9c\x0f\x1f\0\x03why\x1c\0\x06b:1883";
    let connack = b"\x20\x0c\0\x9c\x09\x1c\0\x06b:1883";
    let disconnect_in_full = b"\xe0\x11\x9c\x0f\x1c\0\x06b:1883\x1f\0\x03why";
    let disconnect = b"\xe0\x0b\x9c\x09\x1c\0\x06b:1883";
    let rows: [(Connection, usize, &[u8]); 6] = [
        (awaiting(CONNECT_V5), 20, connack_in_full),
        (awaiting(CONNECT_V5), 19, connack),
        (awaiting(CONNECT_V5), 13, b""),
        (connected(CONNECT_V5), 19, disconnect_in_full),
        (connected(CONNECT_V5), 18, disconnect),
        (awaiting(CONNECT_V4), 20, b"\x20\x02\0\x03"),
    ];
    for (mut connection, limit, expected) in rows {
        let mut out = BytesMut::new();
        connection.close(ReasonCode::UseAnotherServer).encode_farewell(words, limit, &mut out);
        assert_eq!(out[..], *expected, "{limit}");
    }
}

#[test]
fn what_the_client_stated_in_connect_is_known() {
    let connection = connected(
        b"\x10\x1b\0\x04MQTT\x05\x02\0\x0a\x0d\x21\0\x05\x27\0\0\x10\0\x22\0\x07\x17\0\0\x01c",
    );
    assert_eq!(connection.version(), Some(V5));
    assert_eq!(connection.client_receive_maximum(), 5);
    assert_eq!(connection.client_packet_bytes_max(), 4_096);
    assert_eq!(connection.client_topic_alias_maximum(), 7);
    assert!(!connection.client_wants_problem_information());

    let connection = connected(CONNECT_V4);
    assert_eq!(connection.version(), Some(V4));
    assert_eq!(connection.client_receive_maximum(), 65_535);
    assert_eq!(connection.client_packet_bytes_max(), crate::codec::PACKET_BYTES_MAX);
    assert_eq!(connection.client_topic_alias_maximum(), 0);
    assert!(connection.client_wants_problem_information());
}

#[test]
fn bytes_may_arrive_in_any_pieces() {
    let whole = [
        CONNECT_V5,
        b"\x30\x09\0\x03a/b\x03\x23\0\x02",
        b"\x32\x08\0\0\0\x05\x03\x23\0\x02",
        b"\x82\x07\0\x01\0\0\x01a\0",
        b"\xe0\0",
    ]
    .concat();
    let expected = ["CONNECT c", "PUBLISH a/b", "PUBLISH a/b", "SUBSCRIBE a", "DISCONNECT 0x00"];
    for size in 1..=whole.len() {
        let mut connection = Connection::new(CONFIG, Millis(0));
        let (mut unread, mut seen) = (Vec::new(), Vec::new());
        for piece in whole.chunks(size) {
            unread.extend_from_slice(piece);
            seen.extend(read(&mut connection, &mut unread, 0));
            if connection.is_awaiting_decision() {
                connection.accept(Granted::default(), Millis(0));
                seen.extend(read(&mut connection, &mut unread, 0));
            }
        }
        assert_eq!(seen, expected, "in pieces of {size}");
    }
}

#[test]
fn every_cause_has_a_label_for_a_metric() {
    let broken = |error| CloseCause::Decode(error).label();
    assert_eq!(broken(DecodeError::PacketTooLarge { size: 2, limit: 1 }), "packet_too_large");
    assert_eq!(broken(DecodeError::ProtocolLevel(9)), "protocol_version");
    assert_eq!(broken(DecodeError::PublishQos), "malformed_packet");
    assert_eq!(broken(DecodeError::SubscribeEmpty), "protocol_error");
    assert_eq!(broken(DecodeError::TopicNameWildcard), "topic_name");
    assert_eq!(CloseCause::KeepAliveTimeout.label(), "keep_alive_timeout");
    assert_eq!(CloseCause::Server(ReasonCode::SessionTakenOver).label(), "server");
}

const CONFIG: ConnectionConfig = ConnectionConfig {
    packet_bytes_max: 10_000,
    connect_bytes_max: 1_000,
    topic_levels_max: 128,
    receive_maximum: 2,
    topic_alias_maximum: 2,
    connect_timeout: Duration::from_secs(2),
    keep_alive_secs_max: 0,
};

const STATES: [&str; 4] = ["AwaitingConnect", "AwaitingDecision", "Connected", "Closed"];

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Yields(&'static str),
    Waits,
    Closes(CloseCause),
}

use Outcome::{Closes, Waits, Yields};

fn of_a_client(packet_type: PacketType, event: &'static str) -> [Outcome; 4] {
    [expects_connect(packet_type), Waits, Yields(event), Waits]
}

fn of_a_server(packet_type: PacketType) -> [Outcome; 4] {
    let refused = Closes(CloseCause::NotForServer(packet_type));
    [expects_connect(packet_type), Waits, refused, Waits]
}

fn expects_connect(packet_type: PacketType) -> Outcome {
    Closes(CloseCause::ConnectExpected(packet_type))
}

fn in_state(state: usize) -> Connection {
    let mut connection = Connection::new(CONFIG, Millis(0));
    if state > 0 {
        connection.handle_bytes(CONNECT_V5_AUTH, Millis(0)).unwrap();
    }
    if state > 1 {
        connection.accept(Granted::default(), Millis(0));
    }
    if state > 2 {
        connection.handle_bytes(b"\xe0\0", Millis(0)).unwrap();
    }
    connection
}

fn awaiting(connect: &[u8]) -> Connection {
    let mut connection = Connection::new(CONFIG, Millis(0));
    connection.handle_bytes(connect, Millis(0)).unwrap();
    connection
}

fn connected(connect: &[u8]) -> Connection {
    let mut connection = Connection::new(CONFIG, Millis(0));
    let (_, size) = connection.handle_bytes(connect, Millis(0)).unwrap().expect("a CONNECT");
    assert_eq!(size, connect.len());
    connection.accept(Granted::default(), Millis(0));
    connection
}

/// Reads all that can be read, as a driver does; leaves the rest in `input`.
fn read(connection: &mut Connection, input: &mut Vec<u8>, now: u64) -> Vec<String> {
    let mut seen = Vec::new();
    let mut taken = 0;
    while let Some((event, size)) =
        connection.handle_bytes(&input[taken..], Millis(now)).expect("valid packets")
    {
        seen.push(describe(&event));
        taken += size;
        connection.check_invariants();
    }
    input.drain(..taken);
    seen
}

fn describe(event: &Event<'_>) -> String {
    let code = |reason: ReasonCode| format!("{:#04x}", reason.byte());
    let ack = |name: &str, id: PacketId, reason| format!("{name} {id} {}", code(reason));
    match event {
        Event::Connect(connect) => format!("CONNECT {}", connect.client_id),
        Event::Publish(publish) => {
            assert_eq!(publish.topic.to_name().as_str(), &*publish.topic);
            // An alias is done with, and what is not there has no room.
            assert!(publish.properties.as_deref().is_none_or(|sent| sent.topic_alias.is_none()));
            assert!(publish.properties.as_deref().is_none_or(|sent| !sent.is_empty()));
            format!("PUBLISH {}", publish.topic.as_str())
        }
        Event::Puback { packet_id, reason } => ack("PUBACK", *packet_id, *reason),
        Event::Pubrec { packet_id, reason } => ack("PUBREC", *packet_id, *reason),
        Event::Pubrel { packet_id, reason } => ack("PUBREL", *packet_id, *reason),
        Event::Pubcomp { packet_id, reason } => ack("PUBCOMP", *packet_id, *reason),
        Event::Subscribe(subscribe) => {
            let filters: Vec<_> = subscribe.filters.iter().map(|it| it.filter).collect();
            format!("SUBSCRIBE {}", filters.join(" "))
        }
        Event::Unsubscribe(unsubscribe) => {
            format!("UNSUBSCRIBE {}", unsubscribe.filters.iter().collect::<Vec<_>>().join(" "))
        }
        Event::Pingreq => "PINGREQ".to_owned(),
        Event::Disconnect(disconnect) => format!("DISCONNECT {}", code(disconnect.reason)),
        Event::Auth(auth) => format!("AUTH {}", code(auth.reason)),
    }
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}
