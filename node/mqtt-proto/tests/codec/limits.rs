//! What is refused for its size, and when.

use bytes::BytesMut;
use verge_mqtt_proto::ProtocolVersion::{V4, V5};
use verge_mqtt_proto::{
    Ack, AckKind, Connack, ConnackProperties, DecodeError, DecodeLimits, Encode, EncodeError,
    OwnedPublishProperties, Packet, PacketId, PublishParts, QoS, ReasonCode, ResponseProperties,
    UserProperties, decode, encode_publish, packet_size,
};

#[test]
fn a_packet_too_large_is_refused_by_its_fixed_header_alone() {
    let limits = DecodeLimits { packet_bytes_max: 100, ..DecodeLimits::default() };
    let error = DecodeError::PacketTooLarge { size: 101, limit: 100 };
    assert_eq!(packet_size(b"\x30\x63", &limits), Err(error));
    assert_eq!(decode(b"\x30\x63", V4, &limits), Err(error));
    assert_eq!(error.reason_code(), ReasonCode::PacketTooLarge);
    assert_eq!(packet_size(b"\x30\x62", &limits), Ok(Some(100)));
}

#[test]
fn a_topic_with_too_many_levels_is_refused() {
    let limits = DecodeLimits { topic_levels_max: 3, ..DecodeLimits::default() };
    assert!(decode(b"\x30\x07\0\x05a/b/c", V4, &limits).is_ok());
    assert_eq!(decode(b"\x30\x09\0\x07a/b/c/d", V4, &limits), Err(DecodeError::TopicNameLevels));
}

#[test]
fn words_are_left_out_where_they_would_not_fit_mqtt_3_2_2_19_mqtt_3_4_2_2() {
    let puback = Ack {
        properties: ResponseProperties {
            reason_string: Some("the disk is full"),
            user_properties: UserProperties::from_pairs(&[("node", "rsu-1")]),
        },
        ..Ack::new(AckKind::Puback, ID, ReasonCode::QuotaExceeded)
    };
    let whole = puback.encoded_len(V5);
    let mut out = BytesMut::new();
    assert_eq!(puback.encode_within(V5, whole, &mut out), Ok(whole));
    assert_eq!(puback.encode_within(V5, whole - 1, &mut out), Ok(5));
    assert_eq!(out[whole..], b"\x40\x03\0\x0a\x97"[..]);
    let error = EncodeError::PacketTooLarge { size: whole, limit: 4 };
    assert_eq!(puback.encode_within(V5, 4, &mut out), Err(error));
    assert_eq!(out.len(), whole + 5, "a packet that does not fit leaves no bytes");

    let connack = Connack::accepted(
        false,
        ConnackProperties {
            reason_string: Some("welcome"),
            assigned_client_identifier: Some("auto-1"),
            ..ConnackProperties::default()
        },
    );
    let mut out = BytesMut::new();
    connack.encode_within(V5, 20, &mut out).unwrap();
    let limits = DecodeLimits::default();
    let Ok(Some((Packet::Connack(seen), _))) = decode(&out, V5, &limits) else {
        panic!("a CONNACK")
    };
    assert_eq!(seen.properties.assigned_client_identifier, Some("auto-1"));
    assert_eq!(seen.properties.reason_string, None);
}

#[test]
fn the_size_of_a_publish_is_known_before_it_is_written_mqtt_3_1_2_24() {
    let properties = OwnedPublishProperties {
        payload_format_indicator: Some(true),
        content_type: Some("application/json".into()),
        response_topic: None,
        correlation_data: Some(vec![1, 2, 3].into()),
        user_properties: vec![("a".into(), "b".into()), ("a".into(), "c".into())],
    };
    let parts = PublishParts {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        packet_id: Some(ID),
        topic: "region/v2x/cam",
        subscription_ids: &[7, 300],
        topic_alias: Some(3),
        message_expiry_interval: Some(30),
        properties: &properties,
        payload: &[0x55; 200],
    };
    for version in [V4, V5] {
        let mut out = BytesMut::new();
        let size = encode_publish(&mut out, version, &parts).unwrap();
        assert_eq!((size, size), (out.len(), parts.encoded_len(version)));
    }
    let mut out = BytesMut::new();
    encode_publish(&mut out, V5, &parts).unwrap();
    let Ok(Some((Packet::Publish(seen), _))) = decode(&out, V5, &DecodeLimits::default()) else {
        panic!("a PUBLISH")
    };
    assert_eq!(seen, parts.to_publish());
    assert_eq!(OwnedPublishProperties::from(&seen.properties), properties);
}

#[test]
fn a_field_whose_length_has_no_encoding_is_refused() {
    let topic = "t".repeat(65_536);
    let parts = PublishParts {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        packet_id: None,
        topic: &topic,
        subscription_ids: &[],
        topic_alias: None,
        message_expiry_interval: None,
        properties: &OwnedPublishProperties::default(),
        payload: b"",
    };
    let mut out = BytesMut::new();
    assert_eq!(encode_publish(&mut out, V4, &parts), Err(EncodeError::FieldTooLong));
    assert!(out.is_empty());
    let parts = PublishParts { topic: &topic[1..], ..parts };
    assert_eq!(encode_publish(&mut out, V4, &parts), Ok(65_537 + 4));
}

#[test]
fn auth_is_not_written_before_5_0() {
    let auth = Packet::Auth(verge_mqtt_proto::Auth::new(ReasonCode::Success));
    let mut out = BytesMut::new();
    assert!(matches!(auth.encode(V4, &mut out), Err(EncodeError::NotInVersion(_))));
    assert!(out.is_empty());
}

const ID: PacketId = PacketId::new(10).expect("not zero");
