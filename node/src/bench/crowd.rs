//! Very many sessions that are away: one message for all of them, and a restart on top of them.
//!
//! Sessions are made and left in waves, since a process cannot have as many sockets.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use verge_mqtt_proto::{
    AckKind, Connect, ConnectProperties, DecodeLimits, Packet, PacketId, ProtocolVersion, Publish,
    PublishProperties, QoS, ReasonCode, decode,
};

use super::flow::answer;
use super::message::{HEADER_BYTES, Header, filling};
use super::net::{App, Client, Idle, Net, Target};
use super::peers::{Broker, Peer, pause};
use super::poll::{MS, SEC, now};
use super::procfs::{Usage, resident_bytes, written_bytes};
use super::run::run_number;

/// Connections at once, with room below the 20,000 files that a process may have open.
const WAVE: usize = 5_000;
/// Of which so many are being made at once.
const CONNECTING: usize = 200;
/// Sessions that are looked at after a restart.
const SAMPLE: usize = 1_000;
/// The message for all, in bytes.
const PAYLOAD_BYTES: usize = 1_024;
/// Silence after which what is awaited is lost, in nanoseconds.
const GIVE_UP: u64 = 60 * SEC;
/// What a broker gets before its memory and its files are read, in nanoseconds.
const SETTLE: u64 = 3 * SEC;
/// How long the first CONNECT after a restart may take.
const FIRST_WITHIN: Duration = Duration::from_secs(300);
/// The publisher's tag.
const PUBLISHER: u32 = 1 << 30;

/// What one message for many showed.
#[derive(Debug, Clone, Default)]
pub(super) struct Fanned {
    /// Until PUBACK, in seconds.
    pub(super) secs: f64,
    /// The broker's CPU until it was quiet, in seconds.
    pub(super) cpu_secs: f64,
    /// Megabytes written to disk.
    pub(super) written_mb: f64,
    /// Megabytes by which the broker's files grew.
    pub(super) disk_mb: f64,
    /// Megabytes by which its resident memory grew.
    pub(super) resident_mb: f64,
    /// Sessions a second that returned and had it.
    pub(super) drain_rate: f64,
    /// Sessions that did not get it, or not once, or something else.
    pub(super) faults: u64,
}

/// What a restart showed.
#[derive(Debug, Clone, Default)]
pub(super) struct Restarted {
    /// Resident bytes of the broker for each session that is away.
    pub(super) bytes_each: f64,
    /// The same after the restart, above a broker that has nothing.
    pub(super) bytes_each_after: f64,
    /// Sessions a second made.
    pub(super) make_rate: f64,
    /// Until it had ended when asked, in seconds.
    pub(super) stop_secs: f64,
    /// From its start until it was ready, and until a known session's CONNECT was answered.
    pub(super) ready_secs: [f64; 2],
    /// The same after SIGKILL, where what was acknowledged outlives that.
    pub(super) killed_secs: [Option<f64>; 2],
    /// Sessions that were gone, or did not get what was published to them.
    pub(super) faults: u64,
}

/// Publishes one message to `sessions` sessions that are away, and lets them return.
pub(super) fn fan(broker: &Broker, target: &Target, sessions: usize) -> io::Result<Fanned> {
    let pids = broker.pids();
    let mut crowd = Crowd::new(sessions, true);
    let mut net = Net::to(target.clone())?;
    crowd.make(&mut net, 0..sessions)?;
    let clients = vec![publisher(crowd.run)];
    connect(&mut net, &mut crowd, clients)?;
    settle(&mut net);
    let (files, written, memory) =
        (broker.disk_bytes(), written_bytes(&pids), resident_bytes(&pids));
    let (start, cpu) = (now(), Usage::of(&pids));
    crowd.publish(&mut net, 0);
    crowd.await_acks(&mut net, 1);
    let secs = (crowd.last - start) as f64 / SEC as f64;
    settle(&mut net);
    let mb = |now: u64, before: u64| now.saturating_sub(before) as f64 / 1e6;
    let mut found = Fanned {
        secs,
        cpu_secs: Usage::of(&pids).since(cpu).cpu_secs,
        written_mb: mb(written_bytes(&pids), written),
        disk_mb: mb(broker.disk_bytes(), files),
        resident_mb: mb(resident_bytes(&pids), memory),
        ..Fanned::default()
    };
    net.leave_all();
    let start = now();
    crowd.visit(&mut net, (0..sessions).collect())?;
    found.drain_rate = sessions as f64 / ((now() - start) as f64 / SEC as f64);
    found.faults = crowd.faults(0..sessions);
    Ok(found)
}

/// Makes `sessions` sessions, leaves them, and starts the broker again.
pub(super) fn restart(
    mut broker: Broker,
    target: &Target,
    sessions: usize,
) -> Result<Restarted, String> {
    let failed = |error: io::Error| error.to_string();
    let empty = resident_bytes(&broker.pids());
    let mut crowd = Crowd::new(sessions, false);
    let mut net = Net::to(target.clone()).map_err(failed)?;
    // The first pay for what the broker makes once: what connections had is used again.
    let first = WAVE.min(sessions / 2);
    crowd.make(&mut net, 0..first).map_err(failed)?;
    settle(&mut net);
    let (memory, start) = (resident_bytes(&broker.pids()), now());
    crowd.make(&mut net, first..sessions).map_err(failed)?;
    let mut found = Restarted::default();
    let made = (sessions - first) as f64;
    found.make_rate = made / ((now() - start) as f64 / SEC as f64);
    settle(&mut net);
    found.bytes_each = resident_bytes(&broker.pids()).saturating_sub(memory) as f64 / made;

    let start = now();
    broker.stop(true)?;
    found.stop_secs = (now() - start) as f64 / SEC as f64;
    let known = |number: usize| session_id(crowd.run, number);
    found.ready_secs = back(&mut broker, &known(sessions / 2))?;
    settle(&mut net);
    let resident = resident_bytes(&broker.pids()).saturating_sub(empty);
    found.bytes_each_after = resident as f64 / sessions as f64;
    found.faults = crowd.look(target, sessions).map_err(failed)?;
    if broker.peer == Peer::Verge {
        broker.stop(false)?;
        let known = session_id(crowd.run, sessions / 3);
        found.killed_secs = back(&mut broker, &known)?.map(Some);
        found.faults += crowd.look(target, sessions).map_err(failed)?;
    }
    Ok(found)
}

/// Starts it, and connects as a session that it has; seconds until ready, and until CONNACK.
fn back(broker: &mut Broker, known: &str) -> Result<[f64; 2], String> {
    let start = now();
    let ready = broker.resume()?;
    let secs = |nanos: u64| nanos as f64 / SEC as f64;
    let end = start + FIRST_WITHIN.as_nanos() as u64;
    loop {
        match first_connect(broker.addr, known) {
            Ok(true) => return Ok([secs(ready), secs(now() - start)]),
            Ok(false) => return Err(format!("{} has forgotten a session", broker.peer.name())),
            Err(error) if now() > end => return Err(error.to_string()),
            Err(_) => pause(MS),
        }
    }
}

/// Whether the session was there.
fn first_connect(addr: SocketAddr, id: &str) -> io::Result<bool> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(FIRST_WITHIN))?;
    let mut bytes = BytesMut::new();
    let connect = Packet::Connect(Connect {
        version: ProtocolVersion::V4,
        is_bridge: false,
        clean_start: false,
        keep_alive_secs: 60,
        client_id: id,
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    });
    connect.encode(ProtocolVersion::V4, &mut bytes).map_err(io::Error::other)?;
    stream.write_all(&bytes)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    let decoded = decode(&answer, ProtocolVersion::V4, &DecodeLimits::default());
    match decoded.map_err(io::Error::other)? {
        Some((Packet::Connack(connack), _)) if connack.reason == ReasonCode::Success => {
            Ok(connack.session_present)
        }
        _ => Err(io::Error::other("no CONNACK")),
    }
}

fn connect(net: &mut Net, crowd: &mut Crowd, clients: Vec<Client>) -> io::Result<()> {
    net.connect_all(crowd, CONNECTING, clients);
    match net.failed {
        0 => Ok(()),
        _ => Err(io::Error::other(net.error.clone().unwrap_or_default())),
    }
}

fn settle(net: &mut Net) {
    let end = now() + SETTLE;
    while now() < end {
        net.turn(&mut Idle, now() + 50 * MS);
    }
}

fn session_id(run: u32, number: usize) -> String {
    format!("w{number}-{run:08x}")
}

fn publisher(run: u32) -> Client {
    Client { id: format!("k{run:08x}"), clean: true, wants: None, tag: PUBLISHER }
}

struct Crowd {
    run: u32,
    /// All want one topic, or each has its own.
    one_topic: bool,
    filling: Vec<u8>,
    publisher: usize,
    /// By session: how often its message came.
    came: Vec<u8>,
    arrived: usize,
    acked: usize,
    wrong: u64,
    last: u64,
}

impl Crowd {
    fn new(sessions: usize, one_topic: bool) -> Self {
        Self {
            run: run_number(),
            one_topic,
            filling: filling(PAYLOAD_BYTES),
            publisher: 0,
            came: vec![0; sessions],
            arrived: 0,
            acked: 0,
            wrong: 0,
            last: now(),
        }
    }

    fn topic(&self, session: usize) -> String {
        let run = self.run;
        if self.one_topic {
            format!("bench/{run:08x}/all")
        } else {
            format!("bench/{run:08x}/{session}")
        }
    }

    fn session(&self, number: usize, first: bool) -> Client {
        Client {
            id: session_id(self.run, number),
            clean: false,
            wants: first.then(|| (self.topic(number), 1)),
            tag: number as u32,
        }
    }

    /// Makes these sessions, and leaves them.
    fn make(&mut self, net: &mut Net, sessions: std::ops::Range<usize>) -> io::Result<()> {
        for start in sessions.clone().step_by(WAVE) {
            let wave = start..(start + WAVE).min(sessions.end);
            let clients = wave.map(|number| self.session(number, true)).collect();
            connect(net, self, clients)?;
            net.leave_all();
        }
        Ok(())
    }

    /// Returns as each of these, and waits until all have what is theirs.
    fn visit(&mut self, net: &mut Net, sessions: Vec<usize>) -> io::Result<()> {
        for wave in sessions.chunks(WAVE) {
            let wanted = self.arrived + wave.len();
            let clients = wave.iter().map(|number| self.session(*number, false)).collect();
            connect(net, self, clients)?;
            self.last = now();
            while self.arrived < wanted && now() < self.last + GIVE_UP {
                net.turn(self, now() + SEC / 10);
            }
            // Their acknowledgements are on their way, and what comes twice comes now.
            let end = now() + 20 * MS;
            while now() < end {
                net.turn(self, end);
            }
            net.leave_all();
        }
        Ok(())
    }

    /// Publishes to some of the sessions and returns as them. Those that were gone or got nothing.
    fn look(&mut self, target: &Target, sessions: usize) -> io::Result<u64> {
        let mut net = Net::to(target.clone())?;
        let step = (sessions / SAMPLE).max(1);
        let sample: Vec<usize> = (0..sessions).step_by(step).collect();
        let clients = vec![publisher(self.run)];
        connect(&mut net, self, clients)?;
        (self.arrived, self.acked, self.wrong) = (0, 0, 0);
        self.came.fill(0);
        for (at, number) in sample.iter().enumerate() {
            self.publish(&mut net, *number);
            self.await_acks(&mut net, at + 1);
        }
        net.leave_all();
        let before = net.resumed;
        self.visit(&mut net, sample.clone())?;
        let gone = (sample.len() as u64).saturating_sub(net.resumed - before);
        Ok(gone + self.faults(sample))
    }

    fn publish(&mut self, net: &mut Net, session: usize) {
        let header = Header { run: self.run, publisher: session as u32, seq: 0, due: 0 };
        let payload = [&header.to_bytes()[..], &self.filling].concat();
        self.last = now();
        let publish = Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: &self.topic(session),
            packet_id: PacketId::new((session % 60_000) as u16 + 1),
            properties: PublishProperties::default(),
            payload: &payload,
        });
        net.send(self.publisher, &publish);
    }

    fn await_acks(&mut self, net: &mut Net, count: usize) {
        while self.acked < count && now() < self.last + GIVE_UP {
            net.turn(self, now() + SEC / 10);
        }
    }

    fn faults(&self, of: impl IntoIterator<Item = usize>) -> u64 {
        self.wrong + of.into_iter().filter(|number| self.came[*number] != 1).count() as u64
    }
}

impl App for Crowd {
    fn ready(&mut self, net: &mut Net, id: usize) {
        if net.conns[id].tag == PUBLISHER {
            self.publisher = id;
        }
    }

    fn packet(&mut self, net: &mut Net, id: usize, packet: &Packet<'_>, at: u64) {
        let tag = net.conns[id].tag;
        self.last = at;
        match packet {
            Packet::Publish(publish) => {
                if let (QoS::AtLeastOnce, Some(packet_id)) = (publish.qos, publish.packet_id) {
                    answer(net, id, AckKind::Puback, packet_id);
                }
                let expected = if self.one_topic { 0 } else { tag };
                let header = Header::split(publish.payload).filter(|(header, filling)| {
                    let Header { run, publisher, .. } = *header;
                    run == self.run && publisher == expected && *filling == self.filling
                });
                match (header, self.came.get_mut(tag as usize)) {
                    (Some(_), Some(came)) => {
                        *came = came.saturating_add(1);
                        self.arrived += 1;
                    }
                    (None, _) | (_, None) => self.wrong += 1,
                }
            }
            Packet::Ack(ack) if ack.kind == AckKind::Puback => self.acked += 1,
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
            | Packet::Auth(_) => self.wrong += 1,
        }
    }
}

/// What a payload of this benchmark holds at least.
const _: () = assert!(PAYLOAD_BYTES > HEADER_BYTES);
