//! What CONNACK grants, and what becomes of a client that wants more (MQTT 5.0, 3.2.2.3).

use std::time::Duration;

use bytes::BytesMut;
use verge_mqtt_proto::{Packet, ProtocolVersion, ReasonCode, decode};

use super::bed::Bed;
use super::client::{Client, post, v4, v5, want};
use crate::shard::api::{Mail, Terms};

#[test]
fn retained_messages_may_be_unavailable_mqtt_3_2_2_13_mqtt_3_2_2_14() {
    let mut bed = Bed::with(Terms { retain_available: false, ..Terms::default() });
    let client = bed.connect(&v5("c"));
    bed.send(client, client.publish(post("t", "1").retain()));
    bed.expect(client, &["connack present=0", "disconnect Retain not supported", "closed"]);
    let client = bed.connect(&v5("c").will("t", "m", 0).retained_will());
    bed.expect(client, &["connack Retain not supported", "closed"]);
    let client = bed.connect(&v4("c").will("t", "m", 0).retained_will());
    bed.lose(client);
    assert_eq!(bed.shared.retained.count(), 0, "a 3.1.1 client's Will is not kept");
}

#[test]
fn subscriptions_may_be_less_than_the_standard_has() {
    let plain = Terms::default;
    let rows = [
        (Terms { wildcard_subscription_available: false, ..plain() }, want("a/+", 0), 0xA2),
        (Terms { wildcard_subscription_available: false, ..plain() }, want("$share/g/#", 0), 0xA2),
        (Terms { shared_subscription_available: false, ..plain() }, want("$share/g/a", 0), 0x9E),
        (Terms { subscription_identifier_available: false, ..plain() }, want("a", 0).id(1), 0xA1),
        (Terms { wildcard_subscription_available: false, ..plain() }, want("a", 0), 0),
    ];
    for (terms, want, code) in rows {
        for (who, code) in [(v5("c"), code), (v4("c"), if code == 0 { 0 } else { 0x80 })] {
            if who.version == ProtocolVersion::V4 && code == 0x80 && terms_of_v5(&terms) {
                continue;
            }
            let mut bed = Bed::with(terms.clone());
            let client = bed.connect(&who);
            bed.send(client, client.subscribe(1, want));
            assert_eq!(bed.got(client)[1], format!("suback 1 [{code}]"));
        }
    }
}

/// Subscription Identifiers exist in 5.0 only.
fn terms_of_v5(terms: &Terms) -> bool {
    !terms.subscription_identifier_available
}

#[test]
fn connack_names_what_is_missing_and_only_that() {
    let properties = |terms: Terms, ask: bool| {
        let mut bed = Bed::with(terms);
        let who = if ask { v5("c").asks_response_information() } else { v5("c") };
        let client = bed.connect(&who);
        let bytes = bed.raw(client);
        let limits = verge_mqtt_proto::DecodeLimits::default();
        let (packet, _) = decode(&bytes, ProtocolVersion::V5, &limits).unwrap().unwrap();
        let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
        let said = connack.properties;
        (
            said.retain_available,
            said.wildcard_subscription_available,
            said.subscription_identifier_available,
            said.shared_subscription_available,
            said.response_information.map(str::to_owned),
        )
    };
    let terms = Terms { response_information: Some("answers".into()), ..Terms::default() };
    // [MQTT-3.1.2-28]
    assert_eq!(properties(terms.clone(), false), (None, None, None, None, None));
    assert_eq!(properties(terms, true), (None, None, None, None, Some("answers".to_owned())));
    let terms = Terms {
        retain_available: false,
        wildcard_subscription_available: false,
        subscription_identifier_available: false,
        shared_subscription_available: false,
        ..Terms::default()
    };
    let no = Some(false);
    assert_eq!(properties(terms, true), (no, no, no, no, None));
}

#[test]
fn a_payload_that_is_not_what_it_says_is_refused_if_that_is_checked() {
    let bad = |client: Client, qos: u8, id: u16| {
        let mut bytes = BytesMut::from(&[0x30 | qos << 1, 0, 0, 1, b't'][..]);
        if qos > 0 {
            bytes.extend_from_slice(&id.to_be_bytes());
        }
        bytes.extend_from_slice(&[2, 1, 1, 0xff]);
        bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
        (client, bytes)
    };
    for (checked, got) in [
        (true, ["puback 1 Payload format invalid", "pubrec 2 Payload format invalid"]),
        (false, ["puback 1 No matching subscribers", "pubrec 2 No matching subscribers"]),
    ] {
        let mut bed = Bed::with(Terms { payload_format_checked: checked, ..Terms::default() });
        let client = bed.connect(&v5("c"));
        bed.got(client);
        for (qos, id) in [(0, 0), (1, 1), (2, 2)] {
            let (client, bytes) = bad(client, qos, id);
            bed.send(client, bytes);
        }
        bed.expect(client, &got);
        let refused = bed.shared.counters.snapshot().payloads_refused;
        assert_eq!(refused, if checked { 3 } else { 0 });
    }
}

#[test]
fn security_a_client_that_publishes_too_fast_is_disconnected() {
    let mut bed = Bed::with(Terms { publish_rate_max: 2, ..Terms::default() });
    let client = bed.connect(&v5("c"));
    for _ in 0..3 {
        bed.wait(Duration::from_secs(1));
        bed.send(client, client.publish(post("t", "1")));
        bed.send(client, client.publish(post("t", "2")));
    }
    bed.expect(client, &["connack present=0"]);
    bed.send(client, client.publish(post("t", "3")));
    assert_eq!(bed.words(client), [Some("at most 2 messages a second".to_owned())]);

    let terms = Terms { publish_bytes_rate_max: 100_000, ..Terms::default() };
    let mut bed = Bed::with(terms);
    let client = bed.connect(&v5("c"));
    bed.got(client);
    let text: &'static str = "x".repeat(49_999).leak();
    for _ in 0..2 {
        bed.send(client, client.publish(post("t", text)));
    }
    bed.expect(client, &[]);
    bed.send(client, client.publish(post("t", "")));
    bed.expect(client, &["disconnect Message rate too high", "closed"]);
}

#[test]
fn a_node_that_goes_down_says_where_to_go() {
    for (reference, disconnect, connack) in [
        (None, ReasonCode::ServerShuttingDown, ReasonCode::ServerUnavailable),
        (Some("b:1883"), ReasonCode::UseAnotherServer, ReasonCode::UseAnotherServer),
    ] {
        let server_reference = reference.map(Into::into);
        let mut bed = Bed::with(Terms { server_reference, ..Terms::default() });
        let client = bed.connect(&v5("c"));
        bed.got(client);
        bed.mail(0, Mail::Shutdown);
        let to = reference.map_or_else(String::new, |to| format!(" to={to}"));
        let line = format!("disconnect {}{to}", disconnect.name());
        bed.expect(client, &[&line, "closed"]);
        let late = bed.connect(&v5("late"));
        let line = format!("connack {}{to}", connack.name());
        bed.expect(late, &[&line, "closed"]);
    }
}
