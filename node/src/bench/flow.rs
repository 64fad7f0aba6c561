//! Publishers and subscribers that exchange messages, and the proof of what became of each.
//!
//! **Closed loop**: each publisher keeps a window of messages under way; one is under way until it is
//! acknowledged *and* has reached all who are to get it, so that nobody wins by queueing or dropping.
//! **Open loop**: messages are due at even times whatever the broker does, and latency counts from
//! when a message was due, so that a broker that stalls is not asked less.

use std::num::NonZeroU16;

use bytes::BytesMut;
use verge_mqtt_proto::{
    Ack, AckKind, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode,
};

use super::histogram::Histogram;
use super::message::{Arrival, HEADER_BYTES, Header, Stream, filling};
use super::net::{App, Client, Net};
use super::poll::{SEC, now};

/// Who gets what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Shape {
    /// Publisher i to subscriber i.
    Pairs,
    /// A topic for each publisher; every subscriber gets all of them.
    FanIn,
    /// One topic; every subscriber gets all.
    FanOut,
    /// As fan-in, with the subscribers in one shared group.
    Shared,
}

/// An exchange.
#[derive(Debug, Clone)]
pub(super) struct Exchange {
    pub(super) shape: Shape,
    pub(super) publishers: usize,
    pub(super) subscribers: usize,
    pub(super) qos: QoS,
    pub(super) payload_bytes: usize,
    /// Messages a second of all publishers together: open loop; none for closed loop.
    pub(super) rate: Option<f64>,
    /// Most messages under way for each publisher.
    pub(super) window: u64,
}

/// What became of the messages.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub(super) struct Counts {
    /// Published.
    pub(super) sent: u64,
    /// Acknowledged to their publisher.
    pub(super) acked: u64,
    /// Arrived, each once.
    pub(super) delivered: u64,
    /// Never arrived.
    pub(super) lost: u64,
    /// Arrived again.
    pub(super) doubled: u64,
    /// Arrived after a later one.
    pub(super) reordered: u64,
    /// Arrived with other bytes, or where they do not belong.
    pub(super) corrupt: u64,
    /// Acknowledged with an error, or without need.
    pub(super) bad_acks: u64,
    /// Connections that broke.
    pub(super) broken: u64,
    /// Seconds in which nothing came though something was due.
    pub(super) stalls: u64,
}

impl Counts {
    /// Nothing went wrong.
    pub(super) fn is_clean(&self) -> bool {
        let Self { lost, doubled, reordered, corrupt, bad_acks, broken, stalls, .. } = *self;
        [lost, doubled, reordered, corrupt, bad_acks, broken, stalls] == [0; 7]
    }
}

struct Publisher {
    conn: Option<usize>,
    /// A whole packet but for packet id and payload header.
    packet: BytesMut,
    packet_id_at: usize,
    payload_at: usize,
    /// By packet id: what is awaited.
    flights: Vec<Flight>,
    next_id: u16,
    window: u64,
    sent: u64,
    acked: u64,
    /// Open loop: messages that have become due.
    due: u64,
    /// Arrivals, over all receivers.
    arrived: u64,
    /// Arrivals no longer waited for.
    forgiven: u64,
    listed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flight {
    Free,
    Published,
    Released,
}

/// Tags of publishers begin here; those of subscribers at 0.
const PUBLISHER: u32 = 1 << 30;
/// Due times are multiples of this: fewer wake-ups, and less than a loopback's latency.
const TICK: u64 = 100_000;

/// An exchange under way.
pub(super) struct Flow {
    exchange: Exchange,
    run: u32,
    filling: Vec<u8>,
    publishers: Vec<Publisher>,
    streams: Vec<Stream>,
    /// How many receive each message.
    fan: u64,
    listed: Vec<usize>,
    sending: bool,
    start: u64,
    /// The window in which latency is counted.
    measured: (u64, u64),
    next_due: u64,
    last_arrival: u64,
    pub(super) counts: Counts,
    pub(super) latency: Histogram,
    /// How late messages were written.
    pub(super) lag: Histogram,
}

impl Flow {
    /// An exchange that has not begun.
    pub(super) fn new(exchange: Exchange, run: u32, version: ProtocolVersion) -> Self {
        let (publishers, subscribers) = (exchange.publishers, exchange.subscribers);
        let (streams, fan) = match exchange.shape {
            Shape::Pairs | Shape::Shared => (publishers, 1),
            Shape::FanIn | Shape::FanOut => (publishers * subscribers, subscribers as u64),
        };
        let publisher = |number| Publisher::new(&exchange, run, number, version);
        Self {
            filling: filling(exchange.payload_bytes),
            publishers: (0..publishers).map(publisher).collect(),
            streams: (0..streams).map(|_| Stream::default()).collect(),
            fan,
            run,
            listed: Vec::new(),
            sending: false,
            start: 0,
            measured: (0, 0),
            next_due: 0,
            last_arrival: now(),
            counts: Counts::default(),
            latency: Histogram::default(),
            lag: Histogram::default(),
            exchange,
        }
    }

    /// Subscriber `number`.
    pub(super) fn subscriber(&self, number: usize) -> Client {
        let run = self.run;
        let filter = match self.exchange.shape {
            Shape::Pairs => format!("bench/{run:08x}/{number}"),
            Shape::FanIn => format!("bench/{run:08x}/+"),
            Shape::FanOut => format!("bench/{run:08x}/all"),
            Shape::Shared => format!("$share/group/bench/{run:08x}/+"),
        };
        Client {
            id: format!("s{number}-{run:08x}"),
            clean: true,
            wants: Some((filter, self.exchange.qos.bits())),
            tag: number as u32,
        }
    }

    /// Publisher `number`.
    pub(super) fn publisher(&self, number: usize) -> Client {
        let id = format!("p{number}-{:08x}", self.run);
        Client { id, clean: true, wants: None, tag: PUBLISHER + number as u32 }
    }

    /// Begins; what is due between these times, in nanoseconds from now, is measured.
    pub(super) fn begin(&mut self, from: u64, to: u64) {
        self.start = now();
        self.measured = (self.start + from, self.start + to);
        self.last_arrival = self.start;
        self.sending = true;
        (0..self.publishers.len()).for_each(|publisher| self.list(publisher));
    }

    /// Publishes no more.
    pub(super) fn end(&mut self) {
        self.sending = false;
    }

    /// Everything sent is acknowledged and has arrived everywhere.
    pub(super) fn is_complete(&self) -> bool {
        let Counts { sent, acked, delivered, .. } = self.counts;
        delivered == sent * self.fan && (self.exchange.qos == QoS::AtMostOnce || acked == sent)
    }

    /// The time of the last arrival.
    pub(super) fn last_arrival(&self) -> u64 {
        self.last_arrival
    }

    /// Writes what may be written now; when it wants to be called again.
    pub(super) fn step(&mut self, net: &mut Net) -> u64 {
        let at = now();
        if self.exchange.rate.is_none() && self.sending && at - self.last_arrival > SEC {
            self.forgive(at);
        }
        while self.sending && self.exchange.rate.is_some() && self.due_at(self.next_due) <= at {
            let publisher = (self.next_due % self.publishers.len() as u64) as usize;
            self.publishers[publisher].due += 1;
            self.next_due += 1;
            self.list(publisher);
        }
        for publisher in std::mem::take(&mut self.listed) {
            self.publishers[publisher].listed = false;
            self.publish(net, publisher);
        }
        if self.exchange.rate.is_some() && self.sending {
            self.due_at(self.next_due)
        } else {
            at + SEC / 10
        }
    }

    /// Counts what never came.
    pub(super) fn close_books(&mut self) {
        let publishers = self.publishers.len();
        let streams = self.streams.iter().enumerate();
        self.counts.lost =
            streams.map(|(at, stream)| stream.lost(self.publishers[at % publishers].sent)).sum();
    }

    fn due_at(&self, message: u64) -> u64 {
        let rate = self.exchange.rate.unwrap_or(1.0);
        let exact = (message as f64 * SEC as f64 / rate) as u64;
        self.start.saturating_add(exact.div_ceil(TICK).saturating_mul(TICK))
    }

    fn list(&mut self, publisher: usize) {
        if !std::mem::replace(&mut self.publishers[publisher].listed, true) {
            self.listed.push(publisher);
        }
    }

    fn publish(&mut self, net: &mut Net, number: usize) {
        let count = self.publishers.len() as u64;
        let Some(conn) = self.publishers[number].conn.filter(|_| self.sending) else { return };
        let at = now();
        loop {
            let publisher = &self.publishers[number];
            if !publisher.may_publish(&self.exchange, self.fan) || net.is_backlogged(conn) {
                return;
            }
            let seq = publisher.sent;
            let due = match self.exchange.rate {
                Some(_) => self.due_at(seq * count + number as u64),
                None => at,
            };
            if due >= self.measured.0 {
                self.lag.record(at.saturating_sub(due));
            }
            let header = Header { run: self.run, publisher: number as u32, seq, due };
            self.publishers[number].write(net.out(conn), header);
            self.counts.sent += 1;
        }
    }

    /// What was lost would hold the window for ever; after a second of silence it no longer counts.
    fn forgive(&mut self, at: u64) {
        self.counts.stalls += 1;
        self.last_arrival = at;
        for number in 0..self.publishers.len() {
            let publisher = &mut self.publishers[number];
            publisher.forgiven = publisher.sent * self.fan - publisher.arrived;
            self.list(number);
        }
    }

    fn arrived(&mut self, subscriber: usize, publish: &Publish<'_>, at: u64) {
        let found = Header::split(publish.payload).and_then(|(header, filling)| {
            let publisher = header.publisher as usize;
            let known = header.run == self.run
                && publisher < self.publishers.len()
                && header.seq < self.publishers[publisher].sent
                && filling == self.filling;
            let stream = match self.exchange.shape {
                Shape::Pairs if publisher != subscriber => return None,
                Shape::Pairs | Shape::Shared => publisher,
                Shape::FanIn | Shape::FanOut => subscriber * self.publishers.len() + publisher,
            };
            known.then_some((header, stream))
        });
        let Some((header, stream)) = found else {
            self.counts.corrupt += 1;
            return;
        };
        match self.streams[stream].note(header.seq) {
            Arrival::Again => {
                self.counts.doubled += 1;
                return;
            }
            // Members of a group are served side by side: there is no order between them.
            Arrival::Late if self.exchange.shape != Shape::Shared => self.counts.reordered += 1,
            Arrival::Late | Arrival::Next => {}
        }
        self.counts.delivered += 1;
        self.last_arrival = at;
        if (self.measured.0..self.measured.1).contains(&header.due) {
            self.latency.record(at.saturating_sub(header.due));
        }
        let publisher = header.publisher as usize;
        self.publishers[publisher].arrived += 1;
        if self.exchange.rate.is_none() {
            self.list(publisher);
        }
    }

    fn acknowledged(&mut self, net: &mut Net, id: usize, number: usize, ack: &Ack<'_>, at: u64) {
        let refused = ack.reason.byte() >= 0x80;
        let publisher = &mut self.publishers[number];
        let Some(flight) = publisher.flights.get_mut(usize::from(ack.packet_id.get())) else {
            self.counts.bad_acks += 1;
            return;
        };
        let next = match (ack.kind, self.exchange.qos, *flight) {
            (AckKind::Puback, QoS::AtLeastOnce, Flight::Published) => Flight::Free,
            (AckKind::Pubrec, QoS::ExactlyOnce, Flight::Published) if refused => Flight::Free,
            (AckKind::Pubrec, QoS::ExactlyOnce, Flight::Published) => Flight::Released,
            (AckKind::Pubcomp, QoS::ExactlyOnce, Flight::Released) => Flight::Free,
            (AckKind::Puback | AckKind::Pubrec | AckKind::Pubrel | AckKind::Pubcomp, _, _) => {
                self.counts.bad_acks += 1;
                return;
            }
        };
        *flight = next;
        self.counts.bad_acks += u64::from(refused);
        self.last_arrival = at;
        if next == Flight::Released {
            answer(net, id, AckKind::Pubrel, ack.packet_id);
        } else {
            publisher.acked += 1;
            self.counts.acked += 1;
            self.list(number);
        }
    }
}

impl App for Flow {
    fn ready(&mut self, net: &mut Net, id: usize) {
        let conn = &net.conns[id];
        if let Some(number) = conn.tag.checked_sub(PUBLISHER) {
            let publisher = &mut self.publishers[number as usize];
            publisher.conn = Some(id);
            publisher.window = publisher.window.min(u64::from(conn.receive_maximum));
        }
    }

    fn packet(&mut self, net: &mut Net, id: usize, packet: &Packet<'_>, at: u64) {
        let tag = net.conns[id].tag;
        match (packet, tag.checked_sub(PUBLISHER)) {
            (Packet::Publish(publish), None) => {
                self.arrived(tag as usize, publish, at);
                let kind = match publish.qos {
                    QoS::AtMostOnce => return,
                    QoS::AtLeastOnce => AckKind::Puback,
                    QoS::ExactlyOnce => AckKind::Pubrec,
                };
                if let Some(packet_id) = publish.packet_id {
                    answer(net, id, kind, packet_id);
                }
            }
            (Packet::Ack(ack), None) if ack.kind == AckKind::Pubrel => {
                answer(net, id, AckKind::Pubcomp, ack.packet_id);
            }
            (Packet::Ack(ack), Some(number)) => {
                self.acknowledged(net, id, number as usize, ack, at);
            }
            (_, _) => self.counts.bad_acks += 1,
        }
    }

    fn writable(&mut self, net: &mut Net, id: usize) {
        if let Some(number) = net.conns[id].tag.checked_sub(PUBLISHER) {
            self.list(number as usize);
        }
    }

    fn closed(&mut self, net: &mut Net, id: usize) {
        self.counts.broken += 1;
        if let Some(number) = net.conns[id].tag.checked_sub(PUBLISHER) {
            self.publishers[number as usize].conn = None;
        }
    }
}

impl Publisher {
    fn new(exchange: &Exchange, run: u32, number: usize, version: ProtocolVersion) -> Self {
        let topic = match exchange.shape {
            Shape::FanOut => format!("bench/{run:08x}/all"),
            Shape::Pairs | Shape::FanIn | Shape::Shared => format!("bench/{run:08x}/{number}"),
        };
        let filling = filling(exchange.payload_bytes);
        let mut packet = BytesMut::new();
        let payload = [&[0; HEADER_BYTES], &filling[..]].concat();
        Packet::Publish(Publish {
            dup: false,
            qos: exchange.qos,
            retain: false,
            topic: &topic,
            packet_id: (exchange.qos != QoS::AtMostOnce).then_some(PacketId(NonZeroU16::MIN)),
            properties: PublishProperties::default(),
            payload: &payload,
        })
        .encode(version, &mut packet)
        .expect("a valid packet");
        let section = usize::from(version.is_v5());
        let window = exchange.window.clamp(1, 30_000);
        Self {
            conn: None,
            // Only looked at above QoS 0.
            packet_id_at: packet.len() - payload.len() - section - 2,
            payload_at: packet.len() - payload.len(),
            packet,
            flights: vec![Flight::Free; 2 * window as usize + 1],
            next_id: 0,
            window,
            sent: 0,
            acked: 0,
            due: 0,
            arrived: 0,
            forgiven: 0,
            listed: false,
        }
    }

    fn may_publish(&self, exchange: &Exchange, fan: u64) -> bool {
        let acked = exchange.qos == QoS::AtMostOnce || self.sent - self.acked < self.window;
        let wanted = match exchange.rate {
            Some(_) => self.sent < self.due,
            None => {
                (self.sent * fan).saturating_sub(self.arrived + self.forgiven) < self.window * fan
            }
        };
        acked && wanted
    }

    fn write(&mut self, out: &mut BytesMut, header: Header) {
        let start = out.len();
        out.extend_from_slice(&self.packet);
        if self.uses_ids() {
            let id = self.take_id();
            let at = start + self.packet_id_at;
            out[at..at + 2].copy_from_slice(&id.to_be_bytes());
        }
        let at = start + self.payload_at;
        out[at..at + HEADER_BYTES].copy_from_slice(&header.to_bytes());
        self.sent += 1;
    }

    /// QoS above 0, by the packet's own flags.
    fn uses_ids(&self) -> bool {
        self.packet[0] & 0b0110 != 0
    }

    /// A free packet id; fewer are in flight than there are.
    fn take_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id % (self.flights.len() - 1) as u16 + 1;
            let flight = &mut self.flights[usize::from(self.next_id)];
            if *flight == Flight::Free {
                *flight = Flight::Published;
                return self.next_id;
            }
        }
    }
}

/// Writes an acknowledgement.
pub(super) fn answer(net: &mut Net, id: usize, kind: AckKind, packet_id: PacketId) {
    net.send(id, &Packet::Ack(Ack::new(kind, packet_id, ReasonCode::Success)));
}
