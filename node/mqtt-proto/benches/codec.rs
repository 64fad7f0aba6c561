//! Each Control Packet, read and written.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use verge_mqtt_proto::ProtocolVersion::{V4, V5};
use verge_mqtt_proto::{
    Ack, AckKind, Connack, ConnackProperties, Connect, ConnectProperties, DecodeLimits, Disconnect,
    OwnedPublishProperties, Packet, PacketId, ProtocolVersion, PublishParts, QoS, ReasonCode,
    Subscribe, SubscribeFilters, SubscriptionOptions, SubscriptionRequest, Unsubscribe,
    UnsubscribeFilters, UserProperties, decode,
};

const TOPIC: &str = "region/v2x/cam/vehicle-17/0/3/1/2/0/3/1/2";

fn publish(c: &mut Criterion) {
    let bare = OwnedPublishProperties::default();
    let rich = OwnedPublishProperties {
        content_type: Some("application/json".into()),
        user_properties: vec![("verge-position".into(), "52.5,13.4".into())],
        ..OwnedPublishProperties::default()
    };
    let payloads: [(&str, &[u8]); 4] = [
        ("64_B", &[0x2a; 64]),
        ("256_B", &[0x2a; 256]),
        ("1_KB", &[0x2a; 1024]),
        ("64_KB", &[0x2a; 64 * 1024]),
    ];
    for (size, payload) in payloads {
        let mut group = c.benchmark_group(format!("codec/publish_{size}"));
        group.throughput(Throughput::Bytes(payload.len() as u64));
        let versions = [("3.1.1", V4, &bare), ("5.0", V5, &bare), ("5.0_properties", V5, &rich)];
        for (name, version, properties) in versions {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
                let parts = PublishParts {
                    dup: false,
                    qos,
                    retain: false,
                    packet_id: (qos != QoS::AtMostOnce).then(|| id(7)),
                    topic: TOPIC,
                    subscription_ids: &[],
                    topic_alias: None,
                    message_expiry_interval: None,
                    properties,
                    payload,
                };
                let packet = Packet::Publish(parts.to_publish());
                both(&mut group, &format!("{name}_qos{}", qos.bits()), version, &packet);
            }
        }
        group.finish();
    }
}

fn others(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    for (name, version) in [("3.1.1", V4), ("5.0", V5)] {
        let ack = Packet::Ack(Ack::new(AckKind::Puback, id(7), ReasonCode::Success));
        both(&mut group, &format!("puback_{name}"), version, &ack);
        let connect = Packet::Connect(Connect {
            version,
            is_bridge: false,
            clean_start: true,
            keep_alive_secs: 60,
            client_id: "vehicle-17",
            will: None,
            username: Some("vehicle-17"),
            password: Some(b"secret"),
            properties: ConnectProperties::default(),
        });
        both(&mut group, &format!("connect_{name}"), version, &connect);
        let connack = Packet::Connack(Connack::accepted(false, ConnackProperties::default()));
        both(&mut group, &format!("connack_{name}"), version, &connack);
        let options = SubscriptionOptions::at(QoS::AtLeastOnce);
        let requests = [SubscriptionRequest { filter: "region/v2x/+/#", options }];
        let subscribe = Packet::Subscribe(Subscribe {
            packet_id: id(7),
            subscription_id: None,
            user_properties: UserProperties::NONE,
            filters: SubscribeFilters::from_slice(&requests),
        });
        both(&mut group, &format!("subscribe_{name}"), version, &subscribe);
        let unsubscribe = Packet::Unsubscribe(Unsubscribe {
            packet_id: id(7),
            user_properties: UserProperties::NONE,
            filters: UnsubscribeFilters::from_slice(&["region/v2x/+/#"]),
        });
        both(&mut group, &format!("unsubscribe_{name}"), version, &unsubscribe);
        both(&mut group, &format!("pingreq_{name}"), version, &Packet::Pingreq);
        let disconnect = Packet::Disconnect(Disconnect::new(ReasonCode::Success));
        both(&mut group, &format!("disconnect_{name}"), version, &disconnect);
    }
    group.finish();
}

fn both(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    version: ProtocolVersion,
    packet: &Packet<'_>,
) {
    let mut out = BytesMut::with_capacity(128 * 1024);
    group.bench_function(format!("encode/{name}"), |b| {
        b.iter(|| {
            out.clear();
            black_box(packet).encode(version, &mut out).expect("it fits")
        });
    });
    let limits = DecodeLimits::default();
    group.bench_function(format!("decode/{name}"), |b| {
        b.iter(|| {
            let (packet, size) = decode(black_box(&out), version, &limits)
                .expect("it is valid")
                .expect("it is whole");
            black_box(packet);
            size
        });
    });
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("not 0")
}

criterion_group!(benches, publish, others);
criterion_main!(benches);
