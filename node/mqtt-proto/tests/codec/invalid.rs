//! Broken packets: the rule each one breaks, and the reason code that answers it.

use verge_mqtt_proto::ProtocolVersion::{V3, V4, V5};
use verge_mqtt_proto::codec::property::PropertyId;
use verge_mqtt_proto::{
    DecodeError, DecodeLimits, PacketType, ProtocolVersion, ReasonCode, decode,
};

const MALFORMED: u8 = 0x81;
const PROTOCOL: u8 = 0x82;

#[test]
fn every_row_is_refused_for_its_reason() {
    let limits = DecodeLimits::default();
    for &(rule, version, bytes, error, code) in &rows() {
        let refused = decode(bytes, version, &limits).expect_err(rule);
        assert_eq!(refused, error, "{rule}");
        assert_eq!(refused.reason_code().byte(), code, "{rule}");
        assert!(
            rule.strip_prefix('[')
                .and_then(|it| it.split_once(']'))
                .is_none_or(|(number, _)| { refused.to_string().contains(number) }),
            "{rule}: the message cites the rule: {refused}"
        );
    }
}

type Row = (&'static str, ProtocolVersion, &'static [u8], DecodeError, u8);

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    use DecodeError as E;
    use PropertyId as P;
    vec![
        // 2: the fixed header.
        ("type 0 is reserved", V5, b"\x00\0", E::ReservedPacketType(0), MALFORMED),
        ("AUTH is reserved before 5.0", V4, b"\xf0\0", E::ReservedPacketType(15), MALFORMED),
        ("[MQTT-2.1.3-1] CONNECT", V5, b"\x11\0", E::FixedHeaderFlags(PacketType::Connect), MALFORMED),
        ("[MQTT-2.1.3-1] CONNACK", V5, b"\x21\0", E::FixedHeaderFlags(PacketType::Connack), MALFORMED),
        ("[MQTT-2.1.3-1] PUBACK", V5, b"\x42\0", E::FixedHeaderFlags(PacketType::Puback), MALFORMED),
        ("[MQTT-2.1.3-1] PUBREL", V4, b"\x60\x02\0\x01", E::FixedHeaderFlags(PacketType::Pubrel), MALFORMED),
        ("[MQTT-2.1.3-1] PUBREL with DUP", V4, b"\x6a\x02\0\x01", E::FixedHeaderFlags(PacketType::Pubrel), MALFORMED),
        ("[MQTT-2.1.3-1] SUBSCRIBE", V4, b"\x80\0", E::FixedHeaderFlags(PacketType::Subscribe), MALFORMED),
        ("[MQTT-2.1.3-1] UNSUBSCRIBE", V5, b"\xa0\0", E::FixedHeaderFlags(PacketType::Unsubscribe), MALFORMED),
        ("[MQTT-2.1.3-1] PINGREQ", V5, b"\xc1\0", E::FixedHeaderFlags(PacketType::Pingreq), MALFORMED),
        ("[MQTT-2.1.3-1] DISCONNECT", V5, b"\xe1\0", E::FixedHeaderFlags(PacketType::Disconnect), MALFORMED),
        ("[MQTT-2.1.3-1] AUTH", V5, b"\xf1\0", E::FixedHeaderFlags(PacketType::Auth), MALFORMED),
        ("five bytes of length", V5, b"\x30\xff\xff\xff\xff\x01", E::VarintTooLong, MALFORMED),
        ("[MQTT-1.5.5-1] remaining length", V5, b"\xc0\x80\0", E::VarintNotMinimal, MALFORMED),
        ("[MQTT-1.5.5-1] remaining length of CONNECT", V5, b"\x10\x8e\0\0\x04MQTT\x05\x02\0\0\0\0\x01c", E::VarintNotMinimal, MALFORMED),
        ("[MQTT-1.5.5-1] property length", V5, b"\x30\x05\0\x01a\x80\0", E::VarintNotMinimal, MALFORMED),
        ("a body for PINGREQ", V4, b"\xc0\x01\0", E::TrailingBytes(1), MALFORMED),
        ("a body for DISCONNECT before 5.0", V4, b"\xe0\x01\0", E::TrailingBytes(1), MALFORMED),
        ("a reason for PUBACK before 5.0", V4, b"\x40\x03\0\x01\0", E::TrailingBytes(1), MALFORMED),
        ("bytes after UNSUBACK before 5.0", V4, b"\xb0\x03\0\x01\0", E::TrailingBytes(1), MALFORMED),
        ("an empty PUBACK", V5, b"\x40\0", E::Truncated("packet identifier"), MALFORMED),

        // 2.2.1: packet identifiers.
        ("[MQTT-2.2.1-3] PUBLISH", V5, b"\x32\x06\0\x01a\0\0\0", E::PacketIdZero, PROTOCOL),
        ("[MQTT-2.2.1-3] SUBSCRIBE", V4, b"\x82\x06\0\0\0\x01a\0", E::PacketIdZero, PROTOCOL),
        ("[MQTT-2.2.1-3] UNSUBSCRIBE", V5, b"\xa2\x06\0\0\0\0\x01a", E::PacketIdZero, PROTOCOL),
        ("[MQTT-2.2.1-3] PUBREL", V4, b"\x62\x02\0\0", E::PacketIdZero, PROTOCOL),
        ("no room for it", V5, b"\x32\x03\0\x01a", E::Truncated("packet identifier"), MALFORMED),

        // 2.2.2: properties.
        ("an unknown property", V5, b"\x30\x06\0\x01a\x02\x04\0", E::PropertyUnknown(4), MALFORMED),
        ("an unknown property of two bytes", V5, b"\x30\x06\0\x01a\x02\x80\x01", E::PropertyUnknown(128), MALFORMED),
        ("a property of another packet", V5, b"\x30\x07\0\x01a\x03\x13\0\x01", E::PropertyNotAllowed(P::ServerKeepAlive), MALFORMED),
        ("a will property in CONNECT", V5, b"\x10\x13\0\x04MQTT\x05\x02\0\0\x05\x18\0\0\0\x01\0\x01c", E::PropertyNotAllowed(P::WillDelayInterval), MALFORMED),
        ("a property twice", V5, b"\x30\x08\0\x01a\x04\x01\0\x01\0", E::PropertyDuplicate(P::PayloadFormatIndicator), PROTOCOL),
        ("two subscription identifiers in SUBSCRIBE", V5, b"\x82\x0b\0\x01\x04\x0b\x01\x0b\x02\0\x01a\0", E::PropertyDuplicate(P::SubscriptionIdentifier), PROTOCOL),
        ("a property cut by the section's end", V5, b"\x30\x07\0\x01a\x02\x23\0\x01", E::Truncated("Topic Alias"), MALFORMED),
        ("a section longer than the packet", V5, b"\x30\x05\0\x01a\x09\x01", E::Truncated("properties"), MALFORMED),
        ("no property length", V5, b"\x30\x03\0\x01a", E::Truncated("property length"), MALFORMED),
        ("payload format 2", V5, b"\x30\x06\0\x01a\x02\x01\x02", E::PropertyValue(P::PayloadFormatIndicator), PROTOCOL),
        ("receive maximum 0", V5, b"\x10\x10\0\x04MQTT\x05\x02\0\0\x03\x21\0\0\0\0", E::PropertyValue(P::ReceiveMaximum), PROTOCOL),
        ("maximum packet size 0", V5, b"\x10\x12\0\x04MQTT\x05\x02\0\0\x05\x27\0\0\0\0\0\0", E::PropertyValue(P::MaximumPacketSize), PROTOCOL),
        ("request problem information 2", V5, b"\x10\x0f\0\x04MQTT\x05\x02\0\0\x02\x17\x02\0\0", E::PropertyValue(P::RequestProblemInformation), PROTOCOL),
        ("subscription identifier 0", V5, b"\x82\x09\0\x01\x02\x0b\0\0\x01a\0", E::PropertyValue(P::SubscriptionIdentifier), PROTOCOL),
        ("maximum QoS 2", V5, b"\x20\x05\0\0\x02\x24\x02", E::PropertyValue(P::MaximumQos), PROTOCOL),
        ("[MQTT-3.3.2-8]", V5, b"\x30\x07\0\x01a\x03\x23\0\0", E::TopicAliasZero, 0x94),
        ("MQTT-3.3.2-14: a wildcard in the response topic", V5, b"\x30\x08\0\x01a\x04\x08\0\x01#", E::PropertyValue(P::ResponseTopic), PROTOCOL),
        ("[MQTT-1.5.4-1] user property", V5, b"\x30\x0a\0\x01a\x06\x26\0\x01\xff\0\0", E::StringNotUtf8, MALFORMED),

        // 3.1: CONNECT.
        ("[MQTT-3.1.2-1]", V5, b"\x10\x0d\0\x04MQTX\x04\x02\0\0\0\x01c", E::ProtocolName, 0x84),
        ("[MQTT-3.1.2-2] level 6", V5, b"\x10\x0d\0\x04MQTT\x06\x02\0\0\0\x01c", E::ProtocolLevel(6), 0x84),
        ("[MQTT-3.1.2-2] a bridge of 5.0", V5, b"\x10\x0e\0\x04MQTT\x85\x02\0\0\0\0\x01c", E::ProtocolLevel(0x85), 0x84),
        ("[MQTT-3.1.2-2] level of 3.1 with the name of 3.1.1", V5, b"\x10\x0d\0\x04MQTT\x03\x02\0\0\0\x01c", E::ProtocolLevel(3), 0x84),
        ("[MQTT-3.1.2-3]", V4, b"\x10\x0d\0\x04MQTT\x04\x03\0\0\0\x01c", E::ConnectReservedFlag, MALFORMED),
        ("[MQTT-3.1.2-11]", V4, b"\x10\x0d\0\x04MQTT\x04\x0a\0\0\0\x01c", E::WillQosWithoutWill, MALFORMED),
        ("[MQTT-3.1.2-12]", V5, b"\x10\x0e\0\x04MQTT\x05\x1e\0\0\0\0\x01c", E::WillQos, MALFORMED),
        ("[MQTT-3.1.2-13]", V5, b"\x10\x0e\0\x04MQTT\x05\x22\0\0\0\0\x01c", E::WillRetainWithoutWill, MALFORMED),
        ("[3.1.1 MQTT-3.1.2-22]", V4, b"\x10\x10\0\x04MQTT\x04\x42\0\0\0\x01c\0\x01p", E::PasswordWithoutUsername, MALFORMED),
        ("no client identifier field", V4, b"\x10\x0a\0\x04MQTT\x04\x02\0\0", E::Truncated("client identifier"), MALFORMED),
        ("[MQTT-1.5.4-2] client identifier", V4, b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01\0", E::StringHasNull, MALFORMED),
        ("no will payload", V4, b"\x10\x10\0\x04MQTT\x04\x06\0\0\0\x01c\0\x01w", E::Truncated("will payload"), MALFORMED),
        ("[MQTT-3.3.2-2] will topic", V4, b"\x10\x12\0\x04MQTT\x04\x06\0\0\0\x01c\0\x01#\0\0", E::TopicNameWildcard, 0x90),
        ("no user name field", V4, b"\x10\x0d\0\x04MQTT\x04\x82\0\0\0\x01c", E::Truncated("user name"), MALFORMED),
        ("bytes after the last field", V4, b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x01c!", E::TrailingBytes(1), MALFORMED),
        ("authentication data alone", V5, b"\x10\x11\0\x04MQTT\x05\x02\0\0\x04\x16\0\x01d\0\0", E::AuthDataWithoutMethod, PROTOCOL),

        // 3.2: CONNACK.
        ("[MQTT-3.2.2-1]", V4, b"\x20\x02\x02\0", E::ConnackFlags, MALFORMED),
        ("[MQTT-3.2.2-6]", V5, b"\x20\x03\x01\x87\0", E::ConnackFlags, MALFORMED),
        ("[MQTT-3.2.2-6]", V4, b"\x20\x02\x01\x05", E::ConnackFlags, MALFORMED),
        ("return code 6", V4, b"\x20\x02\0\x06", E::ReasonCodeUnknown(6), PROTOCOL),
        ("a DISCONNECT's code", V5, b"\x20\x03\0\x8e\0", E::ReasonCodeNotAllowed(ReasonCode::SessionTakenOver, PacketType::Connack), PROTOCOL),

        // 3.3: PUBLISH.
        ("[MQTT-3.3.1-2]", V5, b"\x38\x04\0\x01a\0", E::DupAtQos0, MALFORMED),
        ("[MQTT-3.3.1-4]", V4, b"\x36\x05\0\x01a\0\x01", E::PublishQos, MALFORMED),
        ("[MQTT-3.3.2-2] #", V5, b"\x30\x06\0\x03a/#\0", E::TopicNameWildcard, 0x90),
        ("[MQTT-3.3.2-2] +", V4, b"\x30\x05\0\x03a/+", E::TopicNameWildcard, 0x90),
        ("[MQTT-4.7.3-1] no alias", V5, b"\x30\x03\0\0\0", E::TopicNameEmpty, 0x90),
        ("[MQTT-4.7.3-1] before 5.0", V4, b"\x30\x02\0\0", E::TopicNameEmpty, 0x90),
        ("[MQTT-1.5.4-1] topic", V4, b"\x30\x05\0\x03\xed\xa0\x80", E::StringNotUtf8, MALFORMED),
        ("[MQTT-1.5.4-2] topic", V4, b"\x30\x05\0\x03a\0b", E::StringHasNull, MALFORMED),
        ("a topic longer than the packet", V4, b"\x30\x03\0\x09a", E::Truncated("topic name"), MALFORMED),

        // 3.4 to 3.7: acknowledgements.
        ("an unknown code", V5, b"\x40\x03\0\x01\x05", E::ReasonCodeUnknown(5), PROTOCOL),
        ("PUBREL's code in PUBACK", V5, b"\x40\x03\0\x01\x92", E::ReasonCodeNotAllowed(ReasonCode::PacketIdentifierNotFound, PacketType::Puback), PROTOCOL),
        ("bytes after the properties", V5, b"\x40\x05\0\x01\0\0\0", E::TrailingBytes(1), MALFORMED),

        // 3.8 to 3.11: subscriptions.
        ("[MQTT-3.8.3-2] before 5.0", V4, b"\x82\x02\0\x01", E::SubscribeEmpty, PROTOCOL),
        ("[MQTT-3.8.3-2]", V5, b"\x82\x03\0\x01\0", E::SubscribeEmpty, PROTOCOL),
        ("[MQTT-3.8.3-5]", V5, b"\x82\x07\0\x01\0\0\x01a\x40", E::SubscriptionOptionsReserved, MALFORMED),
        ("[MQTT-3.8.3-5] before 5.0", V4, b"\x82\x06\0\x01\0\x01a\x04", E::SubscriptionOptionsReserved, MALFORMED),
        ("maximum QoS 3", V5, b"\x82\x07\0\x01\0\0\x01a\x03", E::SubscriptionQos, PROTOCOL),
        ("requested QoS 3", V4, b"\x82\x06\0\x01\0\x01a\x03", E::SubscriptionQos, PROTOCOL),
        ("retain handling 3", V5, b"\x82\x07\0\x01\0\0\x01a\x30", E::RetainHandling, PROTOCOL),
        ("[MQTT-3.8.3-4]", V5, b"\x82\x10\0\x01\0\0\x0a$share/g/a\x04", E::NoLocalOnShared, PROTOCOL),
        ("a filter without options", V4, b"\x82\x05\0\x01\0\x01a", E::Truncated("subscription options"), MALFORMED),
        ("[MQTT-1.5.4-1] second filter", V4, b"\x82\x0a\0\x01\0\x01a\0\0\x01\xc3\0", E::StringNotUtf8, MALFORMED),
        ("SUBACK without a code", V4, b"\x90\x02\0\x01", E::SubackEmpty, PROTOCOL),
        ("a code of 5.0 in SUBACK of 3.1.1", V4, b"\x90\x03\0\x01\x87", E::ReasonCodeNotAllowed(ReasonCode::NotAuthorized, PacketType::Suback), PROTOCOL),
        ("[MQTT-3.10.3-2]", V3, b"\xa2\x02\0\x01", E::UnsubscribeEmpty, PROTOCOL),
        ("[MQTT-3.10.3-2] 5.0", V5, b"\xa2\x03\0\x01\0", E::UnsubscribeEmpty, PROTOCOL),

        // 3.14, 3.15: DISCONNECT and AUTH.
        ("a CONNACK's code", V5, b"\xe0\x01\x84", E::ReasonCodeNotAllowed(ReasonCode::UnsupportedProtocolVersion, PacketType::Disconnect), PROTOCOL),
        ("an AUTH code that is no AUTH code", V5, b"\xf0\x01\x80", E::ReasonCodeNotAllowed(ReasonCode::UnspecifiedError, PacketType::Auth), PROTOCOL),
        ("AUTH data without a method", V5, b"\xf0\x06\x18\x04\x16\0\x01d", E::AuthDataWithoutMethod, PROTOCOL),
    ]
}

#[test]
fn dup_on_more_than_publish_is_read_from_clients_of_3_1() {
    for bytes in [&b"\x6a\x02\0\x01"[..], b"\x8a\x06\0\x01\0\x01a\0", b"\xaa\x05\0\x01\0\x01a"] {
        assert!(decode(bytes, V3, &DecodeLimits::default()).unwrap().is_some());
        assert!(decode(bytes, V4, &DecodeLimits::default()).is_err());
    }
}

#[test]
fn a_longer_form_of_the_length_is_read_from_clients_before_5_0() {
    // 3.1.1 has no rule that asks for the shortest form, and devices that reserve two bytes exist.
    for version in [V3, V4] {
        assert!(decode(b"\xc0\x80\0", version, &DecodeLimits::default()).unwrap().is_some());
    }
}
