//! A node of shards without sockets, disk or hub, and clients that say the least a client must: what
//! is measured with it is the broker's own work.
//!
//! Batches are durable as soon as they are handed out, and forgotten. What clients receive is counted
//! and thrown away; deliveries above QoS 0 are acknowledged when [`Rig::acknowledge`] says so.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

pub(crate) mod cases;
pub(crate) mod fleet;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use verge_broker_core::rule::TopicRules;
use verge_broker_core::shard::Shard;
use verge_broker_core::shard::api::{
    ConnId, ConnectionInfo, Mail, Output, ShardConfig, ShardIndex, Terms,
};
use verge_broker_core::shared::NodeShared;
use verge_model::{ClientKey, Millis, NodeId, Now, UnixMillis};
use verge_mqtt_proto::{
    Ack, AckKind, Connect, ConnectProperties, DecodeLimits, Packet, PacketId, ProtocolVersion,
    Publish, PublishProperties, QoS, ReasonCode, Subscribe, SubscribeFilters, SubscriptionOptions,
    SubscriptionRequest, Unsubscribe, UnsubscribeFilters, UserProperties, decode,
};
use verge_storage::Promise;

/// The version of all clients: what most vehicles speak.
const VERSION: ProtocolVersion = ProtocolVersion::V4;

/// A client, by its connection and the shard that serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    conn: ConnId,
    shard: usize,
}

/// A node.
pub(crate) struct Rig {
    shards: Vec<Shard>,
    shared: Arc<NodeShared>,
    mail: VecDeque<(ShardIndex, Mail)>,
    now: Now,
    next_conn: u64,
    /// PUBLISH packets above QoS 0 that clients have not answered.
    unanswered: Vec<(Client, AckKind, PacketId)>,
    /// Whether deliveries above QoS 0 are to be answered, and so must be read.
    reads: bool,
    /// Whether outputs that were written give their memory back, as those of a driver do.
    gives_back: bool,
    /// Bytes written to clients.
    pub(crate) bytes_out: u64,
    /// Turns in which a connection had something to write, by connection: writes to sockets.
    pub(crate) writes: u64,
    info: ConnectionInfo,
}

impl Rig {
    /// A node of its own with this many shards.
    pub(crate) fn new(shards: u16) -> Self {
        let id: NodeId = "bench".parse().expect("a valid name");
        let shared = Arc::new(NodeShared::new(id.key(), 1, TopicRules::default()));
        let shard =
            |index| Shard::new(config(&id, ShardIndex(index), shards), Arc::clone(&shared), 5);
        Self {
            shards: (0..shards).map(shard).collect(),
            shared,
            mail: VecDeque::new(),
            now: Now { mono: Millis(1_000), wall: UnixMillis(1_700_000_000_000) },
            next_conn: 1,
            unanswered: Vec::new(),
            reads: false,
            gives_back: false,
            bytes_out: 0,
            writes: 0,
            info: ConnectionInfo {
                peer: ([127, 0, 0, 1], 50_000).into(),
                listener: "tcp://127.0.0.1:1883".into(),
                certificate_subject: None,
                promise: Promise::Buffered,
                allow_anonymous: true,
                keep_alive_secs_max: 0,
            },
        }
    }

    /// What the shards share.
    pub(crate) fn shared(&self) -> &NodeShared {
        &self.shared
    }

    /// A client connects; clean, or to a session that lasts.
    pub(crate) fn connect(&mut self, client_id: &str, clean: bool) -> Client {
        let count = u16::try_from(self.shards.len()).expect("few shards");
        let shard = usize::from(ShardIndex::of(&ClientKey::anonymous(client_id), count).0);
        let client = Client { conn: ConnId(self.next_conn), shard };
        self.next_conn += 1;
        self.shards[shard].handle_open(client.conn, self.info.clone(), self.now);
        let packet = Packet::Connect(Connect {
            version: VERSION,
            is_bridge: false,
            clean_start: clean,
            keep_alive_secs: 0,
            client_id,
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        });
        self.send(client, &encode(&packet));
        client
    }

    /// The client's transport ends.
    pub(crate) fn close(&mut self, client: Client) {
        self.shards[client.shard].handle_closed(client.conn, self.now);
        self.settle();
    }

    /// Bytes of a client, and all that they cause.
    pub(crate) fn send(&mut self, client: Client, bytes: &[u8]) {
        let used = self.shards[client.shard].handle_bytes(client.conn, bytes, self.now);
        assert_eq!(used, bytes.len(), "nothing waits");
        self.settle();
    }

    /// Subscribes, one filter a packet.
    pub(crate) fn subscribe(&mut self, client: Client, filter: &str, qos: QoS) {
        let request = [SubscriptionRequest { filter, options: SubscriptionOptions::at(qos) }];
        self.send(
            client,
            &encode(&Packet::Subscribe(Subscribe {
                packet_id: packet_id(1),
                subscription_id: None,
                user_properties: UserProperties::NONE,
                filters: SubscribeFilters::from_slice(&request),
            })),
        );
    }

    /// Ends a subscription.
    pub(crate) fn unsubscribe(&mut self, client: Client, filter: &str) {
        self.send(
            client,
            &encode(&Packet::Unsubscribe(Unsubscribe {
                packet_id: packet_id(1),
                user_properties: UserProperties::NONE,
                filters: UnsubscribeFilters::from_slice(&[filter]),
            })),
        );
    }

    /// From now on deliveries above QoS 0 are read, to be answered by [`Self::acknowledge`].
    pub(crate) fn read_deliveries(&mut self) {
        self.reads = true;
    }

    /// From now on a connection without output has no memory for it.
    pub(crate) fn give_back(&mut self) {
        self.gives_back = true;
    }

    /// Clients answer what they were sent, until nobody owes an answer.
    pub(crate) fn acknowledge(&mut self) {
        while !self.unanswered.is_empty() {
            for (client, kind, id) in std::mem::take(&mut self.unanswered) {
                self.send(client, &ack(kind, id));
            }
        }
    }

    /// Turns until nothing is left to do.
    fn settle(&mut self) {
        loop {
            let mut again = false;
            for index in 0..self.shards.len() {
                again |= self.turn(index);
            }
            while let Some((to, mail)) = self.mail.pop_front() {
                self.shards[usize::from(to.0)].handle_mail(mail, self.now);
                again = true;
            }
            if !again {
                return;
            }
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "outputs are for a driver; only what goes on inside the node matters here"
    )]
    fn turn(&mut self, index: usize) -> bool {
        let (shard, now) = (&mut self.shards[index], self.now);
        let mut again = false;
        shard.end_turn(now);
        while let Some(output) = shard.poll_output() {
            again = true;
            match output {
                Output::Commit { ticket, .. } => shard.handle_commit(ticket, Ok(()), now),
                Output::Mail { to, mail } => self.mail.push_back((to, mail)),
                // There is no hub and no socket; clients have no bytes that wait.
                _ => {}
            }
        }
        while let Some(conn) = shard.poll_dirty() {
            let Some(out) = shard.output_mut(conn) else { continue };
            self.bytes_out += out.len() as u64;
            self.writes += 1;
            if self.reads {
                let client = Client { conn, shard: index };
                read(client, out, &mut self.unanswered);
            }
            out.clear();
            if self.gives_back {
                shard.output_written(conn);
            }
        }
        again
    }
}

/// Notes which packets must be answered, and with what.
fn read(client: Client, out: &mut BytesMut, unanswered: &mut Vec<(Client, AckKind, PacketId)>) {
    let limits = DecodeLimits::default();
    while let Some((packet, size)) = decode(out, VERSION, &limits).expect("the broker is right") {
        match packet {
            Packet::Publish(Publish { qos: QoS::AtLeastOnce, packet_id: Some(id), .. }) => {
                unanswered.push((client, AckKind::Puback, id));
            }
            Packet::Publish(Publish { qos: QoS::ExactlyOnce, packet_id: Some(id), .. }) => {
                unanswered.push((client, AckKind::Pubrec, id));
            }
            Packet::Ack(ack) if ack.kind == AckKind::Pubrel => {
                unanswered.push((client, AckKind::Pubcomp, ack.packet_id));
            }
            Packet::Ack(ack) if ack.kind == AckKind::Pubrec => {
                unanswered.push((client, AckKind::Pubrel, ack.packet_id));
            }
            Packet::Connect(_)
            | Packet::Connack(_)
            | Packet::Publish(_)
            | Packet::Ack(_)
            | Packet::Subscribe(_)
            | Packet::Suback(_)
            | Packet::Unsubscribe(_)
            | Packet::Unsuback(_)
            | Packet::Pingreq
            | Packet::Pingresp
            | Packet::Disconnect(_)
            | Packet::Auth(_) => {}
        }
        out.advance(size);
    }
}

/// A PUBLISH as a client writes it.
pub(crate) fn publish(topic: &str, qos: QoS, id: u16, payload: &[u8]) -> Vec<u8> {
    encode(&Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: (qos != QoS::AtMostOnce).then(|| packet_id(id)),
        properties: PublishProperties::default(),
        payload,
    }))
}

/// An acknowledgement as a client writes it.
pub(crate) fn ack(kind: AckKind, id: PacketId) -> Vec<u8> {
    encode(&Packet::Ack(Ack::new(kind, id, ReasonCode::Success)))
}

fn packet_id(number: u16) -> PacketId {
    PacketId::new(number).expect("not 0")
}

fn encode(packet: &Packet<'_>) -> Vec<u8> {
    let mut out = BytesMut::new();
    packet.encode(VERSION, &mut out).expect("a valid packet");
    out.to_vec()
}

fn config(id: &NodeId, index: ShardIndex, count: u16) -> ShardConfig {
    ShardConfig {
        index,
        count,
        node: id.key(),
        mesh: false,
        packet_bytes_max: 1024 * 1024,
        receive_maximum: 1024,
        inflight_max: 1024,
        topic_alias_maximum: 16,
        keep_alive_secs_max: 0,
        connect_timeout: Duration::from_secs(10),
        session_expiry_secs_max: None,
        v3_session_expiry_secs: None,
        park_after: Duration::from_secs(5),
        queue_messages_max: 100_000,
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
