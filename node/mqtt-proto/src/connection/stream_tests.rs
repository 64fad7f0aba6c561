//! What streams share with their connection, and what they have for themselves.

use bytes::BytesMut;

use super::*;
use crate::connection::{ConnectionConfig, Granted};
use crate::packet::fields::QoS;
use crate::topic::alias::AliasError;
use crate::{Connect, ConnectProperties, Publish, PublishProperties};

const NOW: Millis = Millis(0);

/// A connection whose CONNECT was accepted: two messages at once, four aliases.
fn connection(keep_alive_secs: u16) -> Connection {
    let config =
        ConnectionConfig { receive_maximum: 2, topic_alias_maximum: 4, ..Default::default() };
    let mut connection = Connection::new(config, NOW);
    let connect = Packet::Connect(Connect {
        version: ProtocolVersion::V5,
        is_bridge: false,
        clean_start: true,
        keep_alive_secs,
        client_id: "car",
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    });
    connection.handle_bytes(&encode(&connect), NOW).unwrap().unwrap();
    connection.accept(Granted::default(), NOW);
    connection
}

fn encode(packet: &Packet<'_>) -> BytesMut {
    let mut out = BytesMut::new();
    packet.encode(ProtocolVersion::V5, &mut out).unwrap();
    out
}

fn publish(topic: &str, number: u16, alias: Option<u16>) -> BytesMut {
    encode(&Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic,
        packet_id: Some(id(number)),
        properties: PublishProperties { topic_alias: alias, ..Default::default() },
        payload: b"m",
    }))
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

/// The topic of a PUBLISH that is read from a stream, or why it is not.
fn read(
    connection: &mut Connection,
    stream: &mut Stream,
    bytes: &[u8],
) -> Result<String, CloseCause> {
    match connection.handle_stream_bytes(stream, bytes, NOW)? {
        Some((Event::Publish(publish), used)) if used == bytes.len() => {
            Ok(publish.topic.as_str().to_owned())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn aliases_are_a_streams_own() {
    let mut connection = connection(0);
    let mut one = connection.open_stream(StreamKind::Data);
    let mut two = connection.open_stream(StreamKind::Data);
    assert_eq!(read(&mut connection, &mut one, &publish("a", 1, Some(1))), Ok("a".into()));
    connection.on_answer_sent(&mut one, AckKind::Puback, id(1), ReasonCode::Success);
    assert_eq!(read(&mut connection, &mut one, &publish("", 1, Some(1))), Ok("a".into()));
    let unknown = Err(CloseCause::TopicAlias(AliasError::Unknown(1)));
    assert_eq!(read(&mut connection, &mut two, &publish("", 1, Some(1))), unknown);
    assert!(connection.is_connected());
}

#[test]
fn the_receive_maximum_counts_all_streams_each_with_its_own_ids() {
    let mut connection = connection(0);
    let mut one = connection.open_stream(StreamKind::Data);
    let mut two = connection.open_stream(StreamKind::Data);
    read(&mut connection, &mut one, &publish("a", 1, None)).unwrap();
    read(&mut connection, &mut two, &publish("a", 1, None)).unwrap();
    read(&mut connection, &mut two, &publish("a", 1, None)).unwrap();
    let full = Err(CloseCause::ReceiveMaximumExceeded);
    assert_eq!(read(&mut connection, &mut one, &publish("a", 2, None)), full);
    assert_eq!((one.open_publishes(), connection.open_publishes_on_streams()), (1, 2));
    connection.on_stream_closed(&one);
    connection.on_answer_sent(&mut two, AckKind::Pubrec, id(1), ReasonCode::Success);
    assert_eq!(connection.open_publishes_on_streams(), 1);
    connection.on_answer_sent(&mut two, AckKind::Pubcomp, id(1), ReasonCode::Success);
    connection.on_answer_sent(&mut two, AckKind::Pubcomp, id(1), ReasonCode::Success);
    assert_eq!(connection.open_publishes_on_streams(), 0);
    connection.check_invariants();
}

#[test]
fn a_publish_stream_counts_as_the_control_stream() {
    let mut connection = connection(0);
    let mut stream = connection.open_stream(StreamKind::Publish);
    read(&mut connection, &mut stream, &publish("a", 1, None)).unwrap();
    read(&mut connection, &mut stream, &publish("a", 2, None)).unwrap();
    assert_eq!(connection.open_publishes_on_streams(), 0);
    connection.handle_bytes(&publish("a", 2, None), NOW).unwrap().unwrap();
    assert_eq!(
        connection.handle_bytes(&publish("a", 3, None), NOW).unwrap_err().cause,
        CloseCause::ReceiveMaximumExceeded
    );
}

#[test]
fn what_a_stream_does_not_carry_is_refused_by_its_first_bytes() {
    let mut connection = connection(0);
    let cases = [
        (StreamKind::Data, [0x10, 0x20], PacketType::Connect),
        (StreamKind::Data, [0xe0, 0x00], PacketType::Disconnect),
        (StreamKind::Data, [0xf0, 0x00], PacketType::Auth),
        (StreamKind::Data, [0xd0, 0x00], PacketType::Pingresp),
        (StreamKind::Publish, [0x82, 0x20], PacketType::Subscribe),
        (StreamKind::Publish, [0x40, 0x02], PacketType::Puback),
        (StreamKind::Publish, [0xc0, 0x00], PacketType::Pingreq),
    ];
    for (kind, bytes, packet_type) in cases {
        let mut stream = connection.open_stream(kind);
        let error = connection.handle_stream_bytes(&mut stream, &bytes, NOW).unwrap_err();
        assert_eq!(error, CloseCause::NotOnStream(packet_type));
        assert_eq!(error.reason_code(), ReasonCode::ProtocolError);
    }
    let mut stream = connection.open_stream(StreamKind::Data);
    let pingreq = connection.handle_stream_bytes(&mut stream, &[0xc0, 0x00], NOW);
    assert_eq!(pingreq, Ok(Some((Event::Pingreq, 2))));
    assert!(connection.is_connected());
}

#[test]
fn packets_of_streams_keep_the_connection_alive() {
    let mut connection = connection(10);
    let mut stream = connection.open_stream(StreamKind::Data);
    let part = connection.handle_stream_bytes(&mut stream, &[0x30], Millis(9_000)).unwrap();
    assert_eq!((part, connection.poll_timeout()), (None, Some(Millis(15_000))));
    connection.handle_stream_bytes(&mut stream, &[0xc0, 0x00], Millis(9_000)).unwrap().unwrap();
    assert_eq!(connection.poll_timeout(), Some(Millis(24_000)));
}
