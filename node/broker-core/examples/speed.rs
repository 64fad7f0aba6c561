//! What a PUBLISH costs a shard, without sockets and disk. Prints, asserts nothing about time:
//! `cargo run --release -p verge-broker-core --example speed [ROUNDS [QOS [SHAPE]]]`
//!
//! Pairs of clients exchange messages in batches, as busy sockets bring them; or all publish to one
//! subscriber (`fan-in`), or to four that share a subscription (`shared`). Under
//! `valgrind --tool=callgrind` it tells instructions by function.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use verge_broker_core::rule::TopicRules;
use verge_broker_core::shard::Shard;
use verge_broker_core::shard::api::{
    ConnId, ConnectionInfo, Output, ShardConfig, ShardIndex, Terms,
};
use verge_broker_core::shared::NodeShared;
use verge_model::{Millis, NodeKey, Now, UnixMillis};
use verge_mqtt_proto::{
    Ack, AckKind, Connect, ConnectProperties, DecodeLimits, Encode, OwnedPublishProperties, Packet,
    PacketId, ProtocolVersion, PublishParts, QoS, ReasonCode, Subscribe, SubscribeFilters,
    SubscriptionOptions, SubscriptionRequest, UserProperties, decode, encode_publish,
};
use verge_storage::Promise;

/// Messages a client sends at once.
const BATCH: u16 = 16;
/// Publishers, and for pairs as many subscribers.
const PAIRS: u64 = 50;
/// Members of a shared subscription.
const MEMBERS: u64 = 4;

/// Bytes of a payload.
const PAYLOAD_BYTES: usize = 256;

const V: ProtocolVersion = ProtocolVersion::V4;

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn main() {
    let rounds: u32 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(400);
    let only = std::env::args().nth(2);
    let shape = std::env::args().nth(3).unwrap_or_else(|| "pairs".to_owned());
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        if only.as_ref().is_some_and(|only| *only != qos.bits().to_string()) {
            continue;
        }
        let mut bed = Bed::new(qos, &shape);
        bed.round();
        let started = Instant::now();
        for _ in 0..rounds {
            bed.round();
        }
        let messages = u64::from(rounds) * PAIRS * u64::from(BATCH);
        let took = started.elapsed().as_nanos() / u128::from(messages);
        assert_eq!(bed.delivered, messages + PAIRS * u64::from(BATCH), "each arrives once");
        println!("{shape} at QoS {}: {took} ns a message", qos.bits());
    }
}

/// A shard, and both ends of every connection.
struct Bed {
    shard: Shard,
    now: Now,
    /// What each publisher sends at once.
    batches: Vec<(ConnId, Bytes)>,
    /// Messages that reached their subscriber.
    delivered: u64,
}

impl Bed {
    fn new(qos: QoS, shape: &str) -> Self {
        let node = NodeKey(1);
        let shared = Arc::new(NodeShared::new(node, 1, TopicRules::default()));
        let now = Now { mono: Millis(1), wall: UnixMillis(1_700_000_000_000) };
        let shard = Shard::new(config(node), shared, 1);
        let mut bed = Self { shard, now, batches: Vec::new(), delivered: 0 };
        for pair in 0..PAIRS {
            let (publisher, subscriber) = (ConnId(pair * 2), ConnId(pair * 2 + 1));
            let topic = format!("bench/{pair}/x");
            bed.connect(publisher, &format!("p{pair}"));
            let filter = match (shape, pair) {
                ("fan-in", 0) => "bench/+/x".to_owned(),
                ("shared", 0..MEMBERS) => "$share/g/bench/+/x".to_owned(),
                ("pairs", _) => topic.clone(),
                (_, _) => String::new(),
            };
            if !filter.is_empty() {
                bed.connect(subscriber, &format!("s{pair}"));
                bed.send(subscriber, &subscribe(&filter, qos));
                bed.settle();
            }
            bed.batches.push((publisher, batch(&topic, qos)));
        }
        bed
    }

    /// Every publisher sends a batch, and every client answers all it gets.
    fn round(&mut self) {
        for index in 0..self.batches.len() {
            let (publisher, batch) = self.batches[index].clone();
            self.send(publisher, &batch);
        }
        self.settle();
    }

    fn connect(&mut self, conn: ConnId, client_id: &str) {
        let info = ConnectionInfo {
            peer: ([127, 0, 0, 1], 50_000).into(),
            listener: "tcp://127.0.0.1:1883".into(),
            certificate_subject: None,
            promise: Promise::Buffered,
            allow_anonymous: true,
            keep_alive_secs_max: 0,
        };
        self.shard.handle_open(conn, info, self.now);
        let connect = Packet::Connect(Connect {
            version: V,
            is_bridge: false,
            clean_start: true,
            keep_alive_secs: 60,
            client_id,
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        });
        self.send(conn, &encode(&connect));
        self.settle();
    }

    fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        assert_eq!(self.shard.handle_bytes(conn, bytes, self.now), bytes.len());
    }

    /// Turns until nobody has anything to say.
    fn settle(&mut self) {
        let mut answers = BytesMut::new();
        loop {
            self.shard.end_turn(self.now);
            let mut quiet = true;
            while let Some(output) = self.shard.poll_output() {
                quiet = false;
                if let Output::Commit { ticket, .. } = output {
                    self.shard.handle_commit(ticket, Ok(()), self.now);
                } else if let Output::Mail { mail, .. } = output {
                    self.shard.handle_mail(mail, self.now);
                }
            }
            while let Some(conn) = self.shard.poll_dirty() {
                quiet = false;
                let out = self.shard.output_mut(conn).expect("it is dirty");
                self.delivered += answer(out, &mut answers);
                out.clear();
                self.shard.output_written(conn);
                if !answers.is_empty() {
                    self.send(conn, &answers.split());
                }
            }
            if quiet {
                return;
            }
        }
    }
}

/// Puts a client's answers to what it got into `answers`; yields how many messages it got.
fn answer(got: &[u8], answers: &mut BytesMut) -> u64 {
    let (mut rest, mut messages) = (got, 0);
    while let Some((packet, size)) =
        decode(rest, V, &DecodeLimits::default()).expect("the shard writes what can be read")
    {
        rest = &rest[size..];
        let reply = if let Packet::Publish(publish) = packet {
            messages += 1;
            let is_last = publish.qos == QoS::AtLeastOnce;
            let kind = if is_last { AckKind::Puback } else { AckKind::Pubrec };
            publish.packet_id.map(|id| (kind, id))
        } else if let Packet::Ack(ack) = packet {
            match ack.kind {
                AckKind::Pubrec => Some((AckKind::Pubrel, ack.packet_id)),
                AckKind::Pubrel => Some((AckKind::Pubcomp, ack.packet_id)),
                AckKind::Puback | AckKind::Pubcomp => None,
            }
        } else {
            None
        };
        if let Some((kind, id)) = reply {
            Ack::new(kind, id, ReasonCode::Success).encode(V, answers).expect("it fits");
        }
    }
    messages
}

fn batch(topic: &str, qos: QoS) -> Bytes {
    let mut out = BytesMut::new();
    for id in 1..=BATCH {
        let parts = PublishParts {
            dup: false,
            qos,
            retain: false,
            packet_id: PacketId::new(id).filter(|_| qos != QoS::AtMostOnce),
            topic,
            subscription_ids: &[],
            topic_alias: None,
            message_expiry_interval: None,
            properties: &OwnedPublishProperties::default(),
            payload: &[0x2a; PAYLOAD_BYTES],
        };
        encode_publish(&mut out, V, &parts).expect("it fits");
    }
    out.freeze()
}

fn subscribe(topic: &str, qos: QoS) -> BytesMut {
    let filter = SubscriptionRequest { filter: topic, options: SubscriptionOptions::at(qos) };
    encode(&Packet::Subscribe(Subscribe {
        packet_id: PacketId::new(1).expect("it is not 0"),
        subscription_id: None,
        user_properties: UserProperties::NONE,
        filters: SubscribeFilters::from_slice(&[filter]),
    }))
}

fn encode(packet: &Packet<'_>) -> BytesMut {
    let mut out = BytesMut::new();
    packet.encode(V, &mut out).expect("it fits");
    out
}

fn config(node: NodeKey) -> ShardConfig {
    ShardConfig {
        index: ShardIndex(0),
        count: 1,
        node,
        mesh: false,
        packet_bytes_max: 1024 * 1024,
        receive_maximum: 1_024,
        inflight_max: 1_024,
        topic_alias_maximum: 8,
        keep_alive_secs_max: 0,
        connect_timeout: Duration::from_secs(10),
        session_expiry_secs_max: None,
        v3_session_expiry_secs: None,
        park_after: Duration::from_secs(5),
        queue_messages_max: 10_000,
        queue_bytes_max: 64 * 1024 * 1024,
        output_bytes_high: 1024 * 1024,
        promise: Promise::Buffered,
        qos_max: QoS::ExactlyOnce,
        handover_hold: Duration::from_secs(2),
        handover_unreachable_wait: Duration::from_secs(2),
        handover_linger: Duration::from_secs(30),
        handovers_max: 4,
        terms: Terms::default(),
    }
}
