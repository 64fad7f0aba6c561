//! What a PUBLISH costs, by the clock. Prints, asserts nothing about time:
//! `cargo run --release -p verge-mqtt-proto --example speed`

use std::hint::black_box;
use std::time::Instant;

use bytes::BytesMut;
use verge_mqtt_proto::ProtocolVersion::{V4, V5};
use verge_mqtt_proto::{
    DecodeLimits, OwnedPublishProperties, Packet, PacketId, ProtocolVersion, PublishParts, QoS,
    decode, encode_publish,
};

const ROUNDS: u32 = 2_000_000;
const TOPIC: &str = "region/v2x/cam/vehicle-17/0/3/1/2/0/3/1/2/0/3/1/2/0/3/1/2/0/3/1/2/0/3/1";

fn main() {
    let bare = OwnedPublishProperties::default();
    let rich = OwnedPublishProperties {
        content_type: Some("application/json".into()),
        user_properties: vec![("verge-position".into(), "52.5,13.4".into())],
        ..OwnedPublishProperties::default()
    };
    for (name, version, properties) in [
        ("3.1.1", V4, &bare),
        ("5.0 without properties", V5, &bare),
        ("5.0 with two properties", V5, &rich),
    ] {
        let (decoding, encoding) = measure(version, properties);
        println!("{name}: decode {decoding} ns, encode {encoding} ns");
    }
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn measure(version: ProtocolVersion, properties: &OwnedPublishProperties) -> (u128, u128) {
    let parts = PublishParts {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        packet_id: PacketId::new(10),
        topic: TOPIC,
        subscription_ids: &[],
        topic_alias: None,
        message_expiry_interval: None,
        properties,
        payload: &[0x2a; 200],
    };
    let mut out = BytesMut::with_capacity(1024);
    let started = Instant::now();
    for _ in 0..ROUNDS {
        out.clear();
        encode_publish(&mut out, version, black_box(&parts)).expect("it fits");
    }
    let encoding = started.elapsed().as_nanos() / u128::from(ROUNDS);

    let limits = DecodeLimits::default();
    let started = Instant::now();
    for _ in 0..ROUNDS {
        let packet = decode(black_box(&out), version, &limits).expect("it is valid");
        assert!(matches!(black_box(packet), Some((Packet::Publish(_), _))));
    }
    (started.elapsed().as_nanos() / u128::from(ROUNDS), encoding)
}
