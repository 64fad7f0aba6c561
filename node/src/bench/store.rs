//! What a broker keeps: retained messages, kept and replayed; messages for those who are away, kept
//! and drained.

use std::io;

use verge_mqtt_proto::{AckKind, Packet, PacketId, Publish, PublishProperties, QoS};

use super::flow::answer;
use super::message::{Arrival, HEADER_BYTES, Header, Stream, filling};
use super::net::{App, Client, Net, Target};
use super::poll::{MS, SEC, now};
use super::procfs::{Usage, resident_bytes};
use super::run::run_number;

/// Publications under way.
const WINDOW: usize = 200;
/// Silence after which what is awaited is lost, in nanoseconds.
const GIVE_UP: u64 = 10 * SEC;
/// The publisher's tag.
const PUBLISHER: u32 = 1 << 30;

/// What keeping showed.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(super) struct Kept {
    /// Messages a second taken in.
    pub(super) store_rate: f64,
    /// The broker's CPU, in microseconds a message.
    pub(super) store_cpu_us: f64,
    /// Resident bytes of the broker for each message.
    pub(super) bytes_each: f64,
    /// Messages a second given out.
    pub(super) drain_rate: f64,
    /// The broker's CPU, in microseconds a message.
    pub(super) drain_cpu_us: f64,
    /// Messages that never came.
    pub(super) lost: u64,
    /// Messages that came again, late, or otherwise.
    pub(super) wrong: u64,
}

struct Keep {
    run: u32,
    count: usize,
    retained: bool,
    topics: usize,
    filling: Vec<u8>,
    publisher: usize,
    begun: usize,
    acked: usize,
    streams: Vec<Stream>,
    arrived: usize,
    wrong: u64,
    last: u64,
}

/// Publishes `count` retained messages at QoS 1, each to its own topic, and lets one client
/// subscribe to all.
pub(super) fn retained(
    target: &Target,
    count: usize,
    payload_bytes: usize,
    pids: &[u32],
) -> io::Result<Kept> {
    let mut keep = Keep::new(count, true, count, payload_bytes);
    let mut net = Net::to(target.clone())?;
    let clients = vec![publisher(keep.run)];
    connect(&mut net, &mut keep, clients)?;
    let (mut kept, _) = keep.store(&mut net, pids);
    let (start, cpu) = (now(), Usage::of(pids));
    keep.last = start;
    let filter = format!("bench/{:08x}/#", keep.run);
    let wants = Some((filter, 0));
    let id = format!("r{:08x}", keep.run);
    net.open(Client { id, clean: true, wants, tag: 0 }, now());
    keep.drain(&mut net, start, cpu, pids, &mut kept);
    keep.clear_retained(&mut net);
    net.leave_all();
    Ok(kept)
}

/// Publishes `count` messages at QoS 1 for `sessions` sessions that are away, and lets them return.
pub(super) fn offline(
    target: &Target,
    sessions: usize,
    count: usize,
    payload_bytes: usize,
    pids: &[u32],
) -> io::Result<Kept> {
    let mut keep = Keep::new(count, false, sessions, payload_bytes);
    let mut net = Net::to(target.clone())?;
    let run = keep.run;
    let session = |number: usize, first: bool| Client {
        id: format!("o{number}-{run:08x}"),
        clean: false,
        wants: first.then(|| (format!("bench/{run:08x}/{number}"), 1)),
        tag: number as u32,
    };
    connect(&mut net, &mut keep, (0..sessions).map(|number| session(number, true)).collect())?;
    net.leave_all();
    connect(&mut net, &mut keep, vec![publisher(run)])?;
    let (mut kept, _) = keep.store(&mut net, pids);
    let (start, cpu) = (now(), Usage::of(pids));
    keep.last = start;
    for number in 0..sessions {
        net.open(session(number, false), now());
    }
    keep.drain(&mut net, start, cpu, pids, &mut kept);
    net.leave_all();
    // Sessions that stay would burden the next workload.
    let clean = |number| Client { clean: true, ..session(number, false) };
    connect(&mut net, &mut keep, (0..sessions).map(clean).collect())?;
    net.leave_all();
    Ok(kept)
}

fn connect(net: &mut Net, keep: &mut Keep, clients: Vec<Client>) -> io::Result<()> {
    net.connect_all(keep, WINDOW, clients);
    match net.failed {
        0 => Ok(()),
        _ => Err(io::Error::other(net.error.clone().unwrap_or_default())),
    }
}

fn publisher(run: u32) -> Client {
    Client { id: format!("k{run:08x}"), clean: true, wants: None, tag: PUBLISHER }
}

impl Keep {
    fn new(count: usize, retained: bool, topics: usize, payload_bytes: usize) -> Self {
        Self {
            run: run_number(),
            count,
            retained,
            topics,
            filling: filling(payload_bytes),
            publisher: 0,
            begun: 0,
            acked: 0,
            streams: (0..topics).map(|_| Stream::default()).collect(),
            arrived: 0,
            wrong: 0,
            last: now(),
        }
    }

    fn store(&mut self, net: &mut Net, pids: &[u32]) -> (Kept, f64) {
        let (start, cpu, memory) = (now(), Usage::of(pids), resident_bytes(pids));
        self.last = start;
        (0..WINDOW).for_each(|_| self.publish(net));
        while self.acked < self.count && now() < self.last + GIVE_UP {
            net.turn(self, now() + SEC / 10);
        }
        let stored = self.acked.max(1) as f64;
        let secs = (self.last - start) as f64 / SEC as f64;
        let used = Usage::of(pids).since(cpu).cpu_secs;
        let grown = resident_bytes(pids).saturating_sub(memory);
        let kept = Kept {
            store_rate: stored / secs,
            store_cpu_us: used / stored * 1e6,
            bytes_each: grown as f64 / stored,
            ..Kept::default()
        };
        (kept, secs)
    }

    fn drain(&mut self, net: &mut Net, start: u64, cpu: Usage, pids: &[u32], kept: &mut Kept) {
        while self.arrived < self.count && now() < self.last + GIVE_UP {
            net.turn(self, now() + SEC / 10);
        }
        let secs = (self.last - start) as f64 / SEC as f64;
        let arrived = self.arrived.max(1) as f64;
        kept.drain_rate = arrived / secs;
        kept.drain_cpu_us = Usage::of(pids).since(cpu).cpu_secs / arrived * 1e6;
        // The last acknowledgements are on their way.
        let end = now() + 200 * MS;
        while now() < end {
            net.turn(self, end);
        }
        kept.lost = self.count.saturating_sub(self.arrived) as u64;
        kept.wrong = self.wrong;
    }

    /// Removes what is retained: an empty message to each topic. [MQTT-3.3.1-6]
    fn clear_retained(&mut self, net: &mut Net) {
        self.filling.clear();
        (self.begun, self.acked, self.last) = (0, 0, now());
        self.topics = 0;
        (0..WINDOW).for_each(|_| self.publish(net));
        while self.acked < self.count && now() < self.last + GIVE_UP {
            net.turn(self, now() + SEC / 10);
        }
    }

    fn publish(&mut self, net: &mut Net) {
        if self.begun >= self.count {
            return;
        }
        let number = self.begun;
        self.begun += 1;
        // No topics are left when what is retained is removed.
        let clear = self.topics == 0;
        let topic = if clear { number } else { number % self.topics };
        let seq = number.checked_div(self.topics).unwrap_or(0) as u64;
        let header = Header { run: self.run, publisher: topic as u32, seq, due: 0 };
        let payload = [&header.to_bytes()[..], &self.filling].concat();
        let publish = Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: self.retained,
            topic: &format!("bench/{:08x}/{topic}", self.run),
            packet_id: PacketId::new((number % 60_000) as u16 + 1),
            properties: PublishProperties::default(),
            payload: if clear { &[] } else { &payload },
        });
        net.send(self.publisher, &publish);
    }
}

impl App for Keep {
    fn ready(&mut self, net: &mut Net, id: usize) {
        if net.conns[id].tag == PUBLISHER {
            self.publisher = id;
        }
    }

    fn packet(&mut self, net: &mut Net, id: usize, packet: &Packet<'_>, at: u64) {
        match packet {
            Packet::Publish(publish) => {
                if let (QoS::AtLeastOnce, Some(packet_id)) = (publish.qos, publish.packet_id) {
                    answer(net, id, AckKind::Puback, packet_id);
                }
                if publish.payload.len() < HEADER_BYTES {
                    return;
                }
                self.last = at;
                let header = Header::split(publish.payload)
                    .filter(|(header, filling)| header.run == self.run && *filling == self.filling);
                let stream = header.and_then(|(header, _)| {
                    let stream = self.streams.get_mut(header.publisher as usize)?;
                    Some(stream.note(header.seq))
                });
                match stream {
                    Some(Arrival::Next) => self.arrived += 1,
                    Some(Arrival::Late | Arrival::Again) | None => self.wrong += 1,
                }
            }
            Packet::Ack(ack) if ack.kind == AckKind::Puback => {
                self.acked += 1;
                self.last = at;
                self.publish(net);
            }
            Packet::Ack(_)
            | Packet::Connect(_)
            | Packet::Connack(_)
            | Packet::Subscribe(_)
            | Packet::Suback(_)
            | Packet::Unsubscribe(_)
            | Packet::Unsuback(_)
            | Packet::Pingreq
            | Packet::Pingresp
            | Packet::Disconnect(_)
            | Packet::Auth(_) => {}
        }
    }
}
