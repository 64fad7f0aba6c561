//! The null broker: it reads, acknowledges and forwards, on one thread, with this project's codec
//! and the generator's own I/O, and does nothing else. No broker with one thread and the same codec
//! can be cheaper, so it is the measure of what the others add.
//!
//! Topics match exactly or by a filter's last level `+` or `#`; `$share` takes turns. It keeps no
//! session, no retained message and no state of QoS 2.

use std::collections::HashMap;
use std::net::TcpListener;

use bytes::BytesMut;
use verge_mqtt_proto::packet::suback::ReasonCodes;
use verge_mqtt_proto::{
    Ack, AckKind, Connack, ConnackProperties, Packet, PacketId, ProtocolVersion, Publish,
    PublishProperties, QoS, ReasonCode, Suback, Unsuback,
};

use super::net::{App, Net};
use super::poll::{SEC, now};

/// Those who want one filter.
#[derive(Default)]
struct Route {
    members: Vec<(usize, QoS)>,
    shared: bool,
    next: usize,
}

/// What is kept of a connection.
#[derive(Default)]
struct Peer {
    next_id: u16,
    /// The last topic, and its routes in this generation.
    topic: String,
    routes: Vec<usize>,
    generation: u64,
}

/// A packet as it was encoded last, for the same message.
#[derive(Default)]
struct Encoded {
    bytes: BytesMut,
    form: Option<(QoS, ProtocolVersion)>,
    packet_id_at: usize,
}

/// The null broker.
#[derive(Default)]
struct Null {
    /// By filter, a last wildcard level cut off.
    index: HashMap<(String, bool), usize>,
    routes: Vec<Route>,
    peers: Vec<Peer>,
    generation: u64,
    encoded: Encoded,
}

/// Serves until the process ends.
pub(super) fn serve(listener: TcpListener) -> std::io::Result<()> {
    let mut net = Net::listening(listener)?;
    let mut null = Null { generation: 1, ..Null::default() };
    loop {
        net.turn(&mut null, now() + SEC);
    }
}

impl Null {
    fn peer(&mut self, id: usize) -> &mut Peer {
        if self.peers.len() <= id {
            self.peers.resize_with(id + 1, Peer::default);
        }
        &mut self.peers[id]
    }

    fn route(&mut self, filter: &str) -> usize {
        let group = filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
        let (filter, shared) = group.map_or((filter, false), |(_, filter)| (filter, true));
        let key = filter.strip_suffix(['+', '#']).unwrap_or(filter);
        let new = self.routes.len();
        let route = *self.index.entry((key.to_owned(), shared)).or_insert(new);
        if route == new {
            self.routes.push(Route { shared, ..Route::default() });
        }
        route
    }

    fn subscribe(&mut self, id: usize, filter: &str, qos: QoS) {
        let route = self.route(filter);
        self.routes[route].members.push((id, qos));
        self.generation += 1;
    }

    fn unsubscribe(&mut self, id: usize, filter: &str) {
        let route = self.route(filter);
        self.routes[route].members.retain(|member| member.0 != id);
        self.generation += 1;
    }

    /// The routes of a topic, as its publisher's last.
    fn resolve(&mut self, id: usize, topic: &str) {
        let generation = self.generation;
        let peer = self.peer(id);
        if peer.generation == generation && peer.topic == topic {
            return;
        }
        let above = topic.rfind('/').map_or("", |at| &topic[..=at]);
        let keys = [(topic, false), (topic, true), (above, false), (above, true)];
        let found =
            |(key, shared): (&str, bool)| self.index.get(&(key.to_owned(), shared)).copied();
        let routes = keys.into_iter().filter_map(found).collect();
        let peer = &mut self.peers[id];
        *peer = Peer { next_id: peer.next_id, topic: topic.to_owned(), routes, generation };
    }

    fn forward(&mut self, net: &mut Net, id: usize, publish: &Publish<'_>) {
        self.resolve(id, publish.topic);
        self.encoded.form = None;
        let routes = std::mem::take(&mut self.peers[id].routes);
        for route in &routes {
            let route = &mut self.routes[*route];
            let members = if route.shared && !route.members.is_empty() {
                route.next = (route.next + 1) % route.members.len();
                &route.members[route.next..=route.next]
            } else {
                &route.members[..]
            };
            for &(member, granted) in members {
                let qos = granted.min(publish.qos);
                self.encoded.make(publish, qos, net.conns[member].version);
                if qos != QoS::AtMostOnce {
                    if self.peers.len() <= member {
                        self.peers.resize_with(member + 1, Peer::default);
                    }
                    let next_id = &mut self.peers[member].next_id;
                    *next_id = next_id.checked_add(1).unwrap_or(1);
                    let at = self.encoded.packet_id_at;
                    self.encoded.bytes[at..at + 2].copy_from_slice(&next_id.to_be_bytes());
                }
                net.out(member).extend_from_slice(&self.encoded.bytes);
            }
        }
        self.peers[id].routes = routes;
    }
}

impl Encoded {
    fn make(&mut self, publish: &Publish<'_>, qos: QoS, version: ProtocolVersion) {
        if self.form == Some((qos, version)) {
            return;
        }
        self.bytes.clear();
        let packet = Packet::Publish(Publish {
            dup: false,
            qos,
            retain: false,
            topic: publish.topic,
            packet_id: (qos != QoS::AtMostOnce).then_some(PacketId(std::num::NonZeroU16::MIN)),
            properties: PublishProperties::default(),
            payload: publish.payload,
        });
        packet.encode(version, &mut self.bytes).expect("it was received, so it can be sent");
        let section = usize::from(version.is_v5());
        self.packet_id_at = (self.bytes.len() - publish.payload.len()).saturating_sub(section + 2);
        self.form = Some((qos, version));
    }
}

impl App for Null {
    fn packet(&mut self, net: &mut Net, id: usize, packet: &Packet<'_>, _: u64) {
        let mut answer = |kind, packet_id| {
            net.send(id, &Packet::Ack(Ack::new(kind, packet_id, ReasonCode::Success)));
        };
        match packet {
            Packet::Connect(connect) => {
                net.conns[id].version = connect.version;
                let connack = Connack::accepted(false, ConnackProperties::default());
                net.send(id, &Packet::Connack(connack));
            }
            Packet::Publish(publish) => {
                match (publish.qos, publish.packet_id) {
                    (QoS::AtLeastOnce, Some(packet_id)) => answer(AckKind::Puback, packet_id),
                    (QoS::ExactlyOnce, Some(packet_id)) => answer(AckKind::Pubrec, packet_id),
                    (QoS::AtMostOnce | QoS::AtLeastOnce | QoS::ExactlyOnce, _) => {}
                }
                self.forward(net, id, publish);
            }
            Packet::Ack(ack) => match ack.kind {
                AckKind::Pubrec => answer(AckKind::Pubrel, ack.packet_id),
                AckKind::Pubrel => answer(AckKind::Pubcomp, ack.packet_id),
                AckKind::Puback | AckKind::Pubcomp => {}
            },
            Packet::Subscribe(subscribe) => {
                let mut reasons = Vec::new();
                for request in subscribe.filters.iter() {
                    self.subscribe(id, request.filter, request.options.qos);
                    reasons.push(ReasonCode::granted(request.options.qos));
                }
                let suback = Suback {
                    packet_id: subscribe.packet_id,
                    reasons: ReasonCodes::from_slice(&reasons),
                    properties: Default::default(),
                };
                net.send(id, &Packet::Suback(suback));
            }
            Packet::Unsubscribe(unsubscribe) => {
                let mut reasons = Vec::new();
                for filter in unsubscribe.filters.iter() {
                    self.unsubscribe(id, filter);
                    reasons.push(ReasonCode::Success);
                }
                let unsuback = Unsuback {
                    packet_id: unsubscribe.packet_id,
                    reasons: ReasonCodes::from_slice(&reasons),
                    properties: Default::default(),
                };
                net.send(id, &Packet::Unsuback(unsuback));
            }
            Packet::Pingreq => net.send(id, &Packet::Pingresp),
            Packet::Disconnect(_) => {
                self.closed(net, id);
                net.close(id);
            }
            Packet::Connack(_)
            | Packet::Suback(_)
            | Packet::Unsuback(_)
            | Packet::Pingresp
            | Packet::Auth(_) => {}
        }
    }

    fn closed(&mut self, _: &mut Net, id: usize) {
        for route in &mut self.routes {
            route.members.retain(|member| member.0 != id);
        }
        self.generation += 1;
        *self.peer(id) = Peer::default();
    }
}
