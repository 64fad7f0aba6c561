//! Any packet, and any bytes.

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use verge_mqtt_proto::ProtocolVersion::{V3, V4, V5};
use verge_mqtt_proto::{
    Connect, ConnectProperties, DecodeLimits, Encode, OwnedPublishProperties, Packet, PacketId,
    ProtocolVersion, PublishParts, QoS, Subscribe, SubscribeFilters, SubscriptionOptions,
    SubscriptionRequest, TopicFilter, TopicName, UserProperties, Will, WillProperties, decode,
    encode_publish, matches, packet_size,
};

proptest! {
    #[test]
    fn decoding_never_panics_and_never_reads_past_the_packet(
        version in versions(),
        bytes in vec(any::<u8>(), 0..200),
    ) {
        let limits = DecodeLimits::default();
        if let Ok(Some((packet, size))) = decode(&bytes, version, &limits) {
            prop_assert!(size <= bytes.len());
            prop_assert_eq!(packet_size(&bytes, &limits), Ok(Some(size)));
            read_lists(&packet);
        }
    }

    /// As above, with a fixed header that fits, so that bodies are reached.
    #[test]
    fn what_decodes_encodes_to_what_decodes_to_the_same(
        version in versions(),
        first in any::<u8>(),
        body in vec(prop_oneof![Just(0), Just(1), Just(2), 0_u8..48, any::<u8>()], 0..60),
    ) {
        let mut bytes = vec![first, body.len() as u8];
        bytes.extend(&body);
        let limits = DecodeLimits::default();
        let Ok(Some((packet, _))) = decode(&bytes, version, &limits) else { return Ok(()) };
        let version = if let Packet::Connect(connect) = &packet { connect.version } else { version };
        let mut out = BytesMut::new();
        let size = packet.encode(version, &mut out).unwrap();
        prop_assert_eq!(size, out.len());
        let (again, _) = decode(&out, version, &limits).unwrap().unwrap();
        prop_assert_eq!(packet, again);
    }

    #[test]
    fn a_publish_comes_back_as_it_was(
        version in versions(),
        flags in (any::<bool>(), any::<bool>()),
        delivery in deliveries(),
        topic in "[^\0+#]{1,20}",
        properties in owned_properties(),
        subscription_ids in vec(1_u32..268_435_456, 0..4),
        topic_alias in option::of(1_u16..),
        message_expiry_interval in any::<Option<u32>>(),
        payload in vec(any::<u8>(), 0..300),
    ) {
        let (qos, packet_id) = delivery;
        let parts = PublishParts {
            dup: flags.0 && packet_id.is_some(),
            qos,
            retain: flags.1,
            packet_id,
            topic: &topic,
            subscription_ids: &subscription_ids,
            topic_alias,
            message_expiry_interval,
            properties: &properties,
            payload: &payload,
        };
        let mut out = BytesMut::new();
        let size = encode_publish(&mut out, version, &parts).unwrap();
        prop_assert_eq!(size, parts.encoded_len(version));
        let limits = DecodeLimits::default();
        let Some((Packet::Publish(seen), _)) = decode(&out, version, &limits).unwrap() else {
            panic!("a PUBLISH")
        };
        let mut sent = parts.to_publish();
        if !version.is_v5() {
            sent.properties = Default::default();
        }
        prop_assert_eq!(seen, sent);
    }

    #[test]
    fn a_connect_comes_back_as_it_was(
        version in versions(),
        (clean_start, keep_alive_secs) in any::<(bool, u16)>(),
        client_id in "[^\0]{0,30}",
        username in option::of("[^\0]{0,9}"),
        password in option::of(vec(any::<u8>(), 0..9)),
        will in option::of(("[^\0+#]{1,9}", vec(any::<u8>(), 0..9), any::<bool>(), any::<Option<u32>>())),
        numbers in (any::<Option<u32>>(), option::of(1_u16..), option::of(1_u32..), any::<Option<u16>>()),
        names in any::<(Option<bool>, Option<bool>)>(),
        method in option::of("[a-z]{1,9}"),
    ) {
        let is_v5 = version.is_v5();
        let connect = Connect {
            version,
            is_bridge: false,
            clean_start,
            keep_alive_secs,
            client_id: &client_id,
            will: will.as_ref().map(|(topic, payload, retain, delay)| Will {
                qos: QoS::ExactlyOnce,
                retain: *retain,
                topic,
                payload,
                properties: WillProperties {
                    will_delay_interval: delay.filter(|_| is_v5),
                    ..WillProperties::default()
                },
            }),
            username: username.as_deref(),
            password: password.as_deref().filter(|_| is_v5 || username.is_some()),
            properties: if is_v5 {
                ConnectProperties {
                    session_expiry_interval: numbers.0,
                    receive_maximum: numbers.1,
                    maximum_packet_size: numbers.2,
                    topic_alias_maximum: numbers.3,
                    request_response_information: names.0,
                    request_problem_information: names.1,
                    user_properties: UserProperties::NONE,
                    authentication_method: method.as_deref(),
                    authentication_data: method.as_ref().map(|it| it.as_bytes()),
                }
            } else {
                ConnectProperties::default()
            },
        };
        let mut out = BytesMut::new();
        connect.encode(version, &mut out).unwrap();
        let seen = decode(&out, V4, &DecodeLimits::default()).unwrap();
        prop_assert_eq!(seen, Some((Packet::Connect(connect), out.len())));
    }

    #[test]
    fn a_subscribe_comes_back_as_it_was(
        version in versions(),
        id in 1_u16..,
        subscription_id in option::of(1_u32..268_435_456),
        requests in vec(("[^\0$]{0,9}", 0_u8..48), 1..5),
    ) {
        let requests: Vec<_> = requests
            .iter()
            .filter_map(|(filter, byte)| {
                let byte = if version.is_v5() { *byte } else { byte & 0b11 };
                let options = SubscriptionOptions::from_byte(byte).ok()?;
                Some(SubscriptionRequest { filter, options })
            })
            .collect();
        prop_assume!(!requests.is_empty());
        let subscribe = Subscribe {
            packet_id: PacketId::new(id).unwrap(),
            subscription_id: subscription_id.filter(|_| version.is_v5()),
            user_properties: UserProperties::NONE,
            filters: SubscribeFilters::from_slice(&requests),
        };
        let mut out = BytesMut::new();
        subscribe.encode(version, &mut out).unwrap();
        let seen = decode(&out, version, &DecodeLimits::default()).unwrap();
        prop_assert_eq!(seen, Some((Packet::Subscribe(subscribe), out.len())));
    }

    #[test]
    fn a_name_is_a_filter_that_matches_itself_alone(
        topic in "[a-c/$]{1,9}",
        other in "[a-c/$]{1,9}",
    ) {
        let name = TopicName::parse(&topic).unwrap();
        let filter = TopicFilter::from(&name);
        prop_assert!(!filter.has_wildcards());
        prop_assert_eq!(filter.matches(&other), filter.pattern() == other);
    }

    /// The standard's words as a formula: replace the levels of a topic by `+`, or cut it by `#`.
    #[test]
    fn wildcards_put_in_place_of_levels_match(
        levels in vec("[a-c]{0,2}", 1..6),
        singles in any::<u8>(),
        cut in option::of(0_usize..6),
    ) {
        let topic = levels.join("/");
        prop_assume!(!topic.is_empty());
        let mut pattern: Vec<_> = levels
            .iter()
            .enumerate()
            .map(|(index, level)| if singles >> index & 1 == 1 { "+" } else { level })
            .collect();
        if let Some(cut) = cut.filter(|cut| *cut <= pattern.len()) {
            pattern.truncate(cut);
            pattern.push("#");
        }
        let filter = pattern.join("/");
        prop_assert!(TopicFilter::parse(&filter).is_ok());
        prop_assert!(matches(&filter, &topic), "{} matches {}", filter, topic);
        if !filter.ends_with('#') {
            let deeper = format!("{topic}/x");
            prop_assert!(!matches(&filter, &deeper));
        }
    }
}

fn versions() -> impl Strategy<Value = ProtocolVersion> {
    prop_oneof![Just(V3), Just(V4), Just(V5)]
}

fn deliveries() -> impl Strategy<Value = (QoS, Option<PacketId>)> {
    (0_u8..3, 1_u16..).prop_map(|(qos, id)| {
        let qos = QoS::from_bits(qos).expect("below 3");
        (qos, PacketId::new(id).filter(|_| qos != QoS::AtMostOnce))
    })
}

fn owned_properties() -> impl Strategy<Value = OwnedPublishProperties> {
    (
        any::<Option<bool>>(),
        option::of("[^\0]{0,9}"),
        option::of("[^\0+#]{1,9}"),
        option::of(vec(any::<u8>(), 0..9)),
        vec(("[^\0]{0,5}", "[^\0]{0,5}"), 0..4),
    )
        .prop_map(|(format, content_type, response_topic, correlation, pairs)| {
            OwnedPublishProperties {
                payload_format_indicator: format,
                content_type: content_type.map(Into::into),
                response_topic: response_topic.map(Into::into),
                correlation_data: correlation.map(Into::into),
                user_properties: pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
            }
        })
}

/// Walks what is read lazily.
fn read_lists(packet: &Packet<'_>) {
    let _ = format!("{packet:?}");
}
