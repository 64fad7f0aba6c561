//! The durable path under load: many publish to sessions that are away, then these return.
//!
//! Storing is measured twice: in a closed loop, as fast as the broker acknowledges, and in an open
//! loop at half of that, where an acknowledgement counts from when its message was due.

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU16;

use bytes::BytesMut;
use verge_mqtt_proto::{
    AckKind, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS,
};

use super::flow::answer;
use super::histogram::Histogram;
use super::live::{Live, Lived, Phase};
use super::message::{Arrival, HEADER_BYTES, Header, Stream, fill_with_noise};
use super::net::{App, Client, Idle, Net, Target};
use super::poll::{MS, SEC, now};
use super::procfs::{Usage, resident_bytes, written_bytes};
use super::run::run_number;

/// Publishers, of which each has its own sessions.
const PUBLISHERS: usize = 100;
/// Sessions that are away.
const SESSIONS: usize = 200;
/// Publications of one publisher under way: with all publishers, enough for large groups of a
/// commit that waits for the disk.
const WINDOW: usize = 32;
/// Bytes of a payload.
pub(super) const PAYLOAD_BYTES: usize = 256;
/// Silence after which what is awaited is lost, in nanoseconds.
const GIVE_UP: u64 = 20 * SEC;
/// What the broker gets before its memory and its files are read, in nanoseconds.
const SETTLE: u64 = 2 * SEC;
/// Due times are multiples of this: fewer wake-ups, and less than a loopback's latency.
const TICK: u64 = 100_000;
/// How long live traffic is measured before a drain begins, in nanoseconds.
const BEFORE: u64 = 3 * SEC;
/// By how much the threads of clients that drain give way.
const NICE: i32 = 10;
/// The tags of publishers begin here; those of sessions at 0.
const PUBLISHER: u32 = 1 << 30;

/// What storing and draining showed.
#[derive(Debug, Clone, Default)]
pub(super) struct Durable {
    /// Messages a second acknowledged.
    pub(super) store_rate: f64,
    /// The broker's CPU, in microseconds a message.
    pub(super) store_cpu_us: f64,
    /// From PUBLISH to PUBACK as fast as the broker can, median and 99 %, in milliseconds.
    pub(super) fast_ms: [Option<f64>; 2],
    /// The same at half of that rate, from when the PUBLISH was due.
    pub(super) half_ms: [Option<f64>; 2],
    /// Bytes written to disk for each message.
    pub(super) written_each: f64,
    /// Bytes of the broker's files for each message.
    pub(super) disk_each: f64,
    /// Resident bytes of the broker for each message.
    pub(super) bytes_each: f64,
    /// Messages a second given out.
    pub(super) drain_rate: f64,
    /// The broker's CPU, in microseconds a message.
    pub(super) drain_cpu_us: f64,
    /// Live traffic beside the drain, where there was any.
    pub(super) lived: Option<Lived>,
    /// Messages that never came.
    pub(super) lost: u64,
    /// Messages or acknowledgements that came again, late, or otherwise.
    pub(super) wrong: u64,
}

/// A broker as this workload looks at it.
pub(super) struct Watched<'a> {
    pub(super) target: &'a Target,
    pub(super) pids: &'a [u32],
    /// Bytes of its files now.
    pub(super) disk_bytes: &'a (dyn Fn() -> u64 + Sync),
}

/// Stores `count` messages and drains them, beside live traffic.
pub(super) fn run_beside_live(watched: &Watched<'_>, count: usize) -> io::Result<Durable> {
    let live = Live::begin(watched.target)?;
    let run = || {
        // The clients that drain give way to the live ones, so that what is late is so by the broker.
        rustix::process::nice(NICE)?;
        run(watched, count, 0.0, Some(&live))
    };
    let run = std::thread::scope(|scope| scope.spawn(run).join());
    let mut found = run.map_err(|_| io::Error::other("the generator's thread panicked"))??;
    let lived = live.end()?;
    found.wrong += lived.faults;
    found.lived = Some(lived);
    Ok(found)
}

/// Stores `count` messages, and as many as `half_secs` seconds at half of the rate make; drains
/// them.
pub(super) fn run(
    watched: &Watched<'_>,
    count: usize,
    half_secs: f64,
    live: Option<&Live>,
) -> io::Result<Durable> {
    let Watched { target, pids, disk_bytes } = *watched;
    let mut load = Load::new(target.version);
    let mut net = Net::to(target.clone())?;
    let sessions =
        |load: &Load, first: bool| (0..SESSIONS).map(|at| load.session(at, first)).collect();
    let away = sessions(&load, true);
    connect(&mut net, &mut load, away)?;
    net.leave_all();
    let publishers = (0..PUBLISHERS).map(|at| load.publisher(at)).collect();
    connect(&mut net, &mut load, publishers)?;

    settle(&mut net);
    let (written, files) = (written_bytes(pids), disk_bytes());
    let mut found = load.store(&mut net, pids, count);
    settle(&mut net);
    let stored = load.acked.max(1) as f64;
    found.written_each = written_bytes(pids).saturating_sub(written) as f64 / stored;
    found.disk_each = disk_bytes().saturating_sub(files) as f64 / stored;
    if half_secs > 0.0 {
        let half = (found.store_rate / 2.0).max(1.0);
        found.half_ms = load.offer(&mut net, half, half_secs);
    }

    if let Some(live) = live {
        live.goes_on(Phase::Before);
        wait(&mut net, BEFORE);
        live.goes_on(Phase::During);
    }
    let (start, cpu) = (now(), Usage::of(pids));
    load.last = start;
    for session in sessions(&load, false) {
        net.open(session, now());
    }
    load.drain(&mut net, start, cpu, pids, &mut found);
    net.leave_all();
    Ok(found)
}

/// What a steady trickle showed, as a roadside unit sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct Trickled {
    /// Bytes written to disk for each message, until it was stored and until it was given out.
    pub(super) written_each: [f64; 2],
    /// The broker's CPU, in microseconds a message, until it was stored.
    pub(super) cpu_us: f64,
    /// From when a PUBLISH was due to PUBACK, median and 99 %, in milliseconds.
    pub(super) puback_ms: [Option<f64>; 2],
    /// Messages that were lost, or came again, late, or otherwise.
    pub(super) faults: u64,
}

/// Stores `rate` messages a second for some seconds, and drains them: small groups, which cost the
/// disk the most for each message.
pub(super) fn trickle(watched: &Watched<'_>, rate: f64, secs: f64) -> io::Result<Trickled> {
    let Watched { target, pids, .. } = *watched;
    let mut load = Load::new(target.version);
    let mut net = Net::to(target.clone())?;
    let away = (0..SESSIONS).map(|at| load.session(at, true)).collect();
    connect(&mut net, &mut load, away)?;
    net.leave_all();
    let publishers = (0..PUBLISHERS).map(|at| load.publisher(at)).collect();
    connect(&mut net, &mut load, publishers)?;
    settle(&mut net);
    let (written, cpu) = (written_bytes(pids), Usage::of(pids));
    let puback_ms = load.offer(&mut net, rate, secs);
    let cpu_secs = Usage::of(pids).since(cpu).cpu_secs;
    settle(&mut net);
    let each =
        |load: &Load| written_bytes(pids).saturating_sub(written) as f64 / load.acked.max(1) as f64;
    let stored = each(&load);
    let mut found = Durable::default();
    let (start, cpu) = (now(), Usage::of(pids));
    load.last = start;
    for number in 0..SESSIONS {
        net.open(load.session(number, false), start);
    }
    load.drain(&mut net, start, cpu, pids, &mut found);
    settle(&mut net);
    let found = Trickled {
        written_each: [stored, each(&load)],
        cpu_us: cpu_secs / load.acked.max(1) as f64 * 1e6,
        puback_ms,
        faults: found.lost + found.wrong,
    };
    net.leave_all();
    Ok(found)
}

fn connect(net: &mut Net, load: &mut Load, clients: Vec<Client>) -> io::Result<()> {
    net.connect_all(load, PUBLISHERS, clients);
    match net.failed {
        0 => Ok(()),
        _ => Err(io::Error::other(net.error.clone().unwrap_or_default())),
    }
}

fn settle(net: &mut Net) {
    wait(net, SETTLE);
}

fn wait(net: &mut Net, nanos: u64) {
    let end = now() + nanos;
    while now() < end {
        net.turn(&mut Idle, end.min(now() + 50 * MS));
    }
}

/// A PUBLISH to a session, whole but for packet id and header.
struct Template {
    bytes: BytesMut,
    packet_id_at: usize,
    payload_at: usize,
}

#[derive(Default)]
struct Publisher {
    conn: usize,
    /// What is under way, in order: packet id, and when it was written or due.
    flights: VecDeque<(u16, u64)>,
    next_id: u16,
    sent: u64,
    /// How many it may have sent by now.
    allowed: u64,
}

struct Load {
    run: u32,
    /// What the payload of an arrival is compared with.
    expected: Vec<u8>,
    templates: Vec<Template>,
    publishers: Vec<Publisher>,
    /// By session; each has one publisher, and so one order.
    streams: Vec<Stream>,
    /// Open loop: messages a second, and when it began.
    rate: Option<(f64, u64)>,
    /// Messages before the open loop.
    before: u64,
    latency: Histogram,
    acked: u64,
    arrived: u64,
    wrong: u64,
    last: u64,
}

impl Load {
    fn new(version: ProtocolVersion) -> Self {
        let run = run_number();
        let template = |session| Template::new(run, session, version);
        Self {
            templates: (0..SESSIONS).map(template).collect(),
            publishers: (0..PUBLISHERS).map(|_| Publisher::default()).collect(),
            streams: (0..SESSIONS).map(|_| Stream::default()).collect(),
            run,
            expected: vec![0; PAYLOAD_BYTES - HEADER_BYTES],
            rate: None,
            before: 0,
            latency: Histogram::default(),
            acked: 0,
            arrived: 0,
            wrong: 0,
            last: now(),
        }
    }

    fn session(&self, number: usize, first: bool) -> Client {
        let run = self.run;
        let wants = first.then(|| (format!("bench/{run:08x}/{number:06}"), 1));
        Client { id: format!("d{number}-{run:08x}"), clean: false, wants, tag: number as u32 }
    }

    fn publisher(&self, number: usize) -> Client {
        let id = format!("e{number}-{:08x}", self.run);
        Client { id, clean: true, wants: None, tag: PUBLISHER + number as u32 }
    }

    fn sent(&self) -> u64 {
        self.publishers.iter().map(|publisher| publisher.sent).sum()
    }

    /// As fast as the broker acknowledges.
    fn store(&mut self, net: &mut Net, pids: &[u32], count: usize) -> Durable {
        let (start, cpu, memory) = (now(), Usage::of(pids), resident_bytes(pids));
        self.last = start;
        for number in 0..PUBLISHERS {
            self.publishers[number].allowed = count.div_ceil(PUBLISHERS) as u64;
            self.publish(net, number);
        }
        self.await_acks(net);
        let stored = self.acked.max(1) as f64;
        let secs = (self.last - start).max(1) as f64 / SEC as f64;
        let used = Usage::of(pids).since(cpu).cpu_secs;
        let grown = resident_bytes(pids).saturating_sub(memory);
        let latency = std::mem::take(&mut self.latency);
        Durable {
            store_rate: stored / secs,
            store_cpu_us: used / stored * 1e6,
            fast_ms: [0.5, 0.99].map(|fraction| latency.quantile_ms(fraction)),
            bytes_each: grown as f64 / stored,
            ..Durable::default()
        }
    }

    /// At this rate for some seconds; median and 99 % from due to PUBACK.
    fn offer(&mut self, net: &mut Net, rate: f64, secs: f64) -> [Option<f64>; 2] {
        let (start, count) = (now(), (rate * secs) as u64);
        self.before = self.publishers[0].sent;
        self.rate = Some((rate, start));
        self.last = start;
        let mut due = 0;
        while due < count && now() < self.last + GIVE_UP {
            let at = now();
            while due < count && self.due_at(due) <= at {
                self.publishers[(due % PUBLISHERS as u64) as usize].allowed += 1;
                due += 1;
            }
            (0..PUBLISHERS).for_each(|number| self.publish(net, number));
            net.turn(self, self.due_at(due).min(at + 100 * MS));
        }
        self.await_acks(net);
        self.rate = None;
        let latency = std::mem::take(&mut self.latency);
        [0.5, 0.99].map(|fraction| latency.quantile_ms(fraction))
    }

    fn await_acks(&mut self, net: &mut Net) {
        while self.publishers.iter().any(|publisher| !publisher.is_done())
            && now() < self.last + GIVE_UP
        {
            net.turn(self, now() + SEC / 10);
        }
    }

    fn drain(&mut self, net: &mut Net, start: u64, cpu: Usage, pids: &[u32], found: &mut Durable) {
        while self.arrived < self.sent() && now() < self.last + GIVE_UP {
            net.turn(self, now() + SEC / 10);
        }
        let arrived = self.arrived.max(1) as f64;
        found.drain_rate = arrived / ((self.last - start).max(1) as f64 / SEC as f64);
        found.drain_cpu_us = Usage::of(pids).since(cpu).cpu_secs / arrived * 1e6;
        // The last acknowledgements are on their way.
        let end = now() + 200 * MS;
        while now() < end {
            net.turn(self, end);
        }
        let publisher = |session: usize| &self.publishers[session % PUBLISHERS];
        let streams = self.streams.iter().enumerate();
        found.lost = streams.map(|(at, stream)| stream.lost(publisher(at).sent_to(at))).sum();
        found.wrong = self.wrong;
    }

    /// When the message of this number in the open loop is due.
    fn due_at(&self, message: u64) -> u64 {
        let (rate, start) = self.rate.unwrap_or((1.0, 0));
        let exact = (message as f64 * SEC as f64 / rate) as u64;
        start.saturating_add(exact.div_ceil(TICK).saturating_mul(TICK))
    }

    fn publish(&mut self, net: &mut Net, number: usize) {
        let at = now();
        loop {
            let publisher = &self.publishers[number];
            if publisher.sent >= publisher.allowed
                || publisher.flights.len() >= WINDOW
                || net.is_backlogged(publisher.conn)
            {
                return;
            }
            let due = match self.rate {
                None => at,
                Some(_) => {
                    let own = publisher.sent - self.before;
                    self.due_at(own * PUBLISHERS as u64 + number as u64)
                }
            };
            let (session, seq) = publisher.next(number);
            let header = Header { run: self.run, publisher: session as u32, seq, due };
            let publisher = &mut self.publishers[number];
            publisher.sent += 1;
            publisher.next_id = publisher.next_id % 60_000 + 1;
            publisher.flights.push_back((publisher.next_id, due));
            self.templates[session].write(net.out(publisher.conn), publisher.next_id, header);
        }
    }

    fn arrived(&mut self, session: usize, publish: &Publish<'_>) {
        let expected = &mut self.expected;
        let header = Header::split(publish.payload).filter(|(header, filling)| {
            fill_with_noise(*header, expected);
            header.run == self.run && header.publisher as usize == session && filling == expected
        });
        let stream = self.streams.get_mut(session);
        match header.zip(stream).map(|((header, _), stream)| stream.note(header.seq)) {
            Some(Arrival::Next) => self.arrived += 1,
            Some(Arrival::Late | Arrival::Again) | None => self.wrong += 1,
        }
    }
}

/// Sessions of one publisher.
const SHARE: usize = SESSIONS / PUBLISHERS;

impl Publisher {
    /// The session and the number in its stream of what comes next: its sessions in turn.
    fn next(&self, number: usize) -> (usize, u64) {
        let turn = (self.sent % SHARE as u64) as usize;
        (number + PUBLISHERS * turn, self.sent / SHARE as u64)
    }

    /// What one of its sessions was sent.
    fn sent_to(&self, session: usize) -> u64 {
        let turn = (session / PUBLISHERS) as u64;
        (self.sent + SHARE as u64 - 1 - turn) / SHARE as u64
    }

    fn is_done(&self) -> bool {
        self.sent >= self.allowed && self.flights.is_empty()
    }
}

impl Template {
    fn new(run: u32, session: usize, version: ProtocolVersion) -> Self {
        let mut bytes = BytesMut::new();
        let payload = [0; PAYLOAD_BYTES];
        Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: &format!("bench/{run:08x}/{session:06}"),
            packet_id: Some(PacketId(NonZeroU16::MIN)),
            properties: PublishProperties::default(),
            payload: &payload,
        })
        .encode(version, &mut bytes)
        .expect("a valid packet");
        let payload_at = bytes.len() - payload.len();
        let section = usize::from(version.is_v5());
        Self { bytes, packet_id_at: payload_at - section - 2, payload_at }
    }

    fn write(&self, out: &mut BytesMut, packet_id: u16, header: Header) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let (id, payload) = (start + self.packet_id_at, start + self.payload_at);
        out[id..id + 2].copy_from_slice(&packet_id.to_be_bytes());
        let (head, rest) = out[payload..].split_at_mut(HEADER_BYTES);
        head.copy_from_slice(&header.to_bytes());
        fill_with_noise(header, rest);
    }
}

impl App for Load {
    fn ready(&mut self, net: &mut Net, id: usize) {
        if let Some(number) = net.conns[id].tag.checked_sub(PUBLISHER) {
            self.publishers[number as usize].conn = id;
        }
    }

    fn packet(&mut self, net: &mut Net, id: usize, packet: &Packet<'_>, at: u64) {
        let tag = net.conns[id].tag;
        match (packet, tag.checked_sub(PUBLISHER)) {
            (Packet::Publish(publish), None) => {
                if let (QoS::AtLeastOnce, Some(packet_id)) = (publish.qos, publish.packet_id) {
                    answer(net, id, AckKind::Puback, packet_id);
                }
                self.last = at;
                self.arrived(tag as usize, publish);
            }
            (Packet::Ack(ack), Some(number)) if ack.kind == AckKind::Puback => {
                let publisher = &mut self.publishers[number as usize];
                // In the order of the PUBLISH packets. [MQTT-4.6.0-2]
                match publisher.flights.pop_front() {
                    Some((packet_id, due)) if packet_id == ack.packet_id.get() => {
                        self.acked += 1;
                        self.latency.record(at.saturating_sub(due));
                    }
                    Some(_) | None => self.wrong += 1,
                }
                self.last = at;
                self.publish(net, number as usize);
            }
            (_, _) => self.wrong += 1,
        }
    }

    fn writable(&mut self, net: &mut Net, id: usize) {
        if let Some(number) = net.conns[id].tag.checked_sub(PUBLISHER) {
            self.publish(net, number as usize);
        }
    }

    fn closed(&mut self, _: &mut Net, _: usize) {
        self.wrong += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_has_its_session_and_its_number() {
        let mut publisher = Publisher::default();
        let mut next = Vec::new();
        for _ in 0..5 {
            next.push(publisher.next(7));
            publisher.sent += 1;
        }
        let other = 7 + PUBLISHERS;
        assert_eq!(next, [(7, 0), (other, 0), (7, 1), (other, 1), (7, 2)]);
        assert_eq!((publisher.sent_to(7), publisher.sent_to(other)), (3, 2));
    }

    #[test]
    fn a_template_is_a_valid_packet_with_its_own_id_and_header() {
        for version in [ProtocolVersion::V4, ProtocolVersion::V5] {
            let mut out = BytesMut::from(&b"before"[..]);
            let header = Header { run: 3, publisher: 4, seq: 5, due: 6 };
            Template::new(3, 4, version).write(&mut out, 500, header);
            let mut noise = [0; PAYLOAD_BYTES - HEADER_BYTES];
            fill_with_noise(header, &mut noise);
            let limits = verge_mqtt_proto::DecodeLimits::default();
            let (packet, size) =
                verge_mqtt_proto::decode(&out[6..], version, &limits).unwrap().unwrap();
            let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            assert_eq!(size, out.len() - 6);
            assert_eq!(publish.packet_id, PacketId::new(500));
            assert_eq!(publish.topic, "bench/00000003/000004");
            assert_eq!(Header::split(publish.payload), Some((header, &noise[..])));
        }
    }
}
