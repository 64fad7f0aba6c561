//! Many connections on one thread: what is ready is read into one buffer and decoded where it lies,
//! what a turn causes is written once a connection.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, Protocol, Socket, Type};
use verge_mqtt_proto::{
    Connect, ConnectProperties, DecodeLimits, Disconnect, Packet, PacketId, ProtocolVersion, QoS,
    ReasonCode, Subscribe, SubscribeFilters, SubscriptionOptions, SubscriptionRequest,
    UserProperties, decode,
};

use super::conn::{Conn, State};
use super::histogram::Histogram;
use super::poll::{MS, Poller, Ready, SEC, now};

/// Bytes waiting to be written with which a publisher holds back.
const BACKLOG_BYTES: usize = 1 << 20;
/// Longer than any workload: some brokers refuse clients without a Keep Alive.
const KEEP_ALIVE_SECS: u16 = 3_600;
/// The buffer for reading.
const READ_BYTES: usize = 256 << 10;
/// The token of the listener.
const LISTENER: u64 = u64::MAX - 1;
/// How long a connection may take.
const CONNECT_SECS: u64 = 20;
/// Connections that fail before the others are not tried.
const FAILURES_MAX: u64 = 100;
/// Connections from one source address: half of the ports an address has.
const PER_SOURCE_MAX: usize = 14_000;

/// How connections are made.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) addr: SocketAddr,
    pub(super) version: ProtocolVersion,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// A client to connect.
pub(super) struct Client {
    pub(super) id: String,
    pub(super) clean: bool,
    /// Subscribed to after CONNACK: filter and QoS.
    pub(super) wants: Option<(String, u8)>,
    pub(super) tag: u32,
}

/// A workload: what to do with what comes.
pub(super) trait App {
    /// Connected, and subscribed if it wants to.
    fn ready(&mut self, _net: &mut Net, _id: usize) {}
    /// A packet came.
    fn packet(&mut self, net: &mut Net, id: usize, packet: &Packet<'_>, at: u64);
    /// There is room to write again.
    fn writable(&mut self, _net: &mut Net, _id: usize) {}
    /// The other side ended it.
    fn closed(&mut self, _net: &mut Net, _id: usize) {}
}

/// Nothing is to be done.
pub(super) struct Idle;

impl App for Idle {
    fn packet(&mut self, _: &mut Net, _: usize, _: &Packet<'_>, _: u64) {}
}

/// All connections of a thread.
pub(super) struct Net {
    pub(super) target: Option<Target>,
    pub(super) conns: Vec<Conn>,
    pub(super) pending: usize,
    pub(super) ready: usize,
    pub(super) failed: u64,
    /// Connections whose session was there.
    pub(super) resumed: u64,
    /// Why the first connection failed.
    pub(super) error: Option<String>,
    /// From when a connection was due to its CONNACK.
    pub(super) connack: Histogram,
    poller: Poller,
    events: Vec<Ready>,
    free: Vec<usize>,
    dirty: Vec<usize>,
    buffer: Vec<u8>,
    listener: Option<TcpListener>,
    opened: usize,
}

impl Net {
    /// Clients of a broker.
    pub(super) fn to(target: Target) -> io::Result<Self> {
        Ok(Self { target: Some(target), ..Self::new()? })
    }

    /// A server.
    pub(super) fn listening(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let net = Self::new()?;
        net.poller.add(&listener, LISTENER)?;
        Ok(Self { listener: Some(listener), ..net })
    }

    fn new() -> io::Result<Self> {
        Ok(Self {
            target: None,
            conns: Vec::new(),
            pending: 0,
            ready: 0,
            failed: 0,
            resumed: 0,
            error: None,
            connack: Histogram::default(),
            poller: Poller::new()?,
            events: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            buffer: vec![0; READ_BYTES],
            listener: None,
            opened: 0,
        })
    }

    /// Begins a connection that was due at `started`.
    pub(super) fn open(&mut self, client: Client, started: u64) {
        let Some(target) = self.target.clone() else { return };
        let opened = self.dial(target.addr).and_then(|socket| {
            let id = self.add(socket, State::Connecting, client.tag, started)?;
            if let Some(config) = &target.tls {
                let name = ServerName::IpAddress(target.addr.ip().into());
                let tls = ClientConnection::new(Arc::clone(config), name);
                self.conns[id].tls = Some(Box::new(tls.map_err(io::Error::other)?));
            }
            Ok(id)
        });
        let id = match opened {
            Ok(id) => id,
            Err(error) => {
                self.failed += 1;
                self.error.get_or_insert(format!("connect: {error}"));
                return;
            }
        };
        self.pending += 1;
        self.conns[id].wants = client.wants.map(Box::new);
        let v5 = target.version.is_v5();
        let connect = Packet::Connect(Connect {
            version: target.version,
            is_bridge: false,
            clean_start: client.clean,
            keep_alive_secs: KEEP_ALIVE_SECS,
            client_id: &client.id,
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties {
                session_expiry_interval: (v5 && !client.clean).then_some(3_600),
                ..ConnectProperties::default()
            },
        });
        self.send(id, &connect);
    }

    fn dial(&mut self, addr: SocketAddr) -> io::Result<Socket> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        let source = self.opened / PER_SOURCE_MAX;
        self.opened += 1;
        if source > 0 && addr.ip().is_loopback() && addr.is_ipv4() {
            let last = u8::try_from(2 + source % 250).unwrap_or(2);
            let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::new(ip, 0).into())?;
        }
        match socket.connect(&addr.into()) {
            Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => Err(error),
            Ok(()) | Err(_) => Ok(socket),
        }
    }

    fn add(&mut self, socket: Socket, state: State, tag: u32, started: u64) -> io::Result<usize> {
        let id = self.free.pop().unwrap_or(self.conns.len());
        let generation = self.conns.get(id).map_or(0, |conn| conn.generation.wrapping_add(1));
        let stream: std::net::TcpStream = socket.into();
        self.poller.add(&stream, token(id, generation))?;
        let conn = Conn {
            stream: Some(stream),
            tls: None,
            state,
            version: self.target.as_ref().map_or(ProtocolVersion::V4, |target| target.version),
            tag,
            receive_maximum: u16::MAX,
            wants: None,
            started,
            out: BytesMut::new(),
            partial: Vec::new(),
            blocked: false,
            dirty: false,
            generation,
        };
        match self.conns.get_mut(id) {
            Some(slot) => *slot = conn,
            None => self.conns.push(conn),
        }
        Ok(id)
    }

    /// Writes a packet at the end of this turn.
    pub(super) fn send(&mut self, id: usize, packet: &Packet<'_>) {
        let version = self.conns[id].version;
        packet.encode(version, self.out(id)).expect("the benchmark writes valid packets");
    }

    /// What is written at the end of this turn.
    pub(super) fn out(&mut self, id: usize) -> &mut BytesMut {
        let conn = &mut self.conns[id];
        if !conn.dirty && !conn.blocked {
            conn.dirty = true;
            self.dirty.push(id);
        }
        &mut conn.out
    }

    /// Whether so much waits to be written that no more should.
    pub(super) fn is_backlogged(&self, id: usize) -> bool {
        self.conns[id].out.len() > BACKLOG_BYTES
    }

    /// Takes leave; the broker closes.
    pub(super) fn leave(&mut self, id: usize) {
        if self.conns[id].state == State::Ready {
            self.send(id, &Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
            self.conns[id].state = State::Leaving;
            self.ready -= 1;
        }
    }

    /// Takes leave with all, and waits a moment until they are gone.
    pub(super) fn leave_all(&mut self) {
        (0..self.conns.len()).for_each(|id| self.leave(id));
        let end = now() + 3 * SEC;
        while now() < end && self.conns.iter().any(|conn| conn.state == State::Leaving) {
            self.turn(&mut Idle, now() + 20 * MS);
        }
        (0..self.conns.len()).for_each(|id| self.close(id));
    }

    /// Forgets a connection.
    pub(super) fn close(&mut self, id: usize) {
        let conn = &mut self.conns[id];
        match conn.state {
            State::Closed => return,
            State::Connecting | State::Subscribing => self.pending -= 1,
            State::Ready => self.ready -= 1,
            State::Leaving => {}
        }
        conn.state = State::Closed;
        conn.stream = None;
        conn.tls = None;
        conn.out = BytesMut::new();
        conn.partial = Vec::new();
        self.free.push(id);
    }

    fn fail<A: App>(&mut self, app: &mut A, id: usize, why: &str) {
        let state = self.conns[id].state;
        self.close(id);
        match state {
            State::Closed | State::Leaving => return,
            State::Connecting | State::Subscribing => {
                self.failed += 1;
                self.error.get_or_insert(format!("{state:?}: {why}"));
            }
            State::Ready => {
                self.error.get_or_insert(why.to_owned());
            }
        }
        app.closed(self, id);
    }

    /// Writes what is to be written, waits until something is ready or `until`, and handles it.
    pub(super) fn turn<A: App>(&mut self, app: &mut A, until: u64) {
        self.flush(app);
        let mut events = std::mem::take(&mut self.events);
        self.poller.wait(until, &mut events).expect("epoll works on its own descriptors");
        for event in &events {
            if event.token == LISTENER {
                self.accept();
                continue;
            }
            let (id, generation) = (event.token as u32 as usize, (event.token >> 32) as u32);
            if event.write && self.is_current(id, generation) {
                self.write(app, id);
            }
            if event.read && self.is_current(id, generation) {
                self.read(app, id);
            }
        }
        self.events = events;
    }

    fn is_current(&self, id: usize, generation: u32) -> bool {
        let conn = &self.conns[id];
        conn.generation == generation && conn.state != State::Closed
    }

    fn accept(&mut self) {
        while let Some(Ok((stream, _))) = self.listener.as_ref().map(TcpListener::accept) {
            let prepared = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true));
            if prepared.is_ok() && self.add(stream.into(), State::Ready, 0, 0).is_ok() {
                self.ready += 1;
            }
        }
    }

    fn flush<A: App>(&mut self, app: &mut A) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            self.conns[id].dirty = false;
            if self.conns[id].state != State::Closed {
                self.write(app, id);
            }
        }
        // What was written to meanwhile is written in the next turn, which is at once.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    fn write<A: App>(&mut self, app: &mut A, id: usize) {
        let backlogged = self.is_backlogged(id);
        let conn = &mut self.conns[id];
        match conn.write_out() {
            Err(error) => self.fail(app, id, &format!("write: {error}")),
            Ok(done) => {
                let held = conn.blocked || backlogged;
                if conn.blocked == done {
                    conn.blocked = !done;
                    let token = token(id, conn.generation);
                    if let Some(stream) = &conn.stream {
                        let _ = self.poller.watch_writes(stream, token, !done);
                    }
                }
                if done && held {
                    app.writable(self, id);
                }
            }
        }
    }

    fn read<A: App>(&mut self, app: &mut A, id: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let generation = self.conns[id].generation;
        if let Err(why) = self.read_into(app, id, &mut buffer)
            && self.is_current(id, generation)
        {
            self.fail(app, id, &why);
        }
        self.buffer = buffer;
    }

    fn read_into<A: App>(
        &mut self,
        app: &mut A,
        id: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<(), String> {
        let conn = &mut self.conns[id];
        let have = conn.partial.len();
        if buffer.len() < have + READ_BYTES / 2 {
            buffer.resize(have + READ_BYTES, 0);
        }
        buffer[..have].copy_from_slice(&conn.partial);
        let got = conn.read_in(&mut buffer[have..]);
        if conn
            .tls
            .as_ref()
            .is_some_and(|tls| tls.wants_write() || (!tls.is_handshaking() && !conn.out.is_empty()))
        {
            self.out(id);
        }
        let count = match got.map_err(|error| format!("read: {error}"))? {
            None => return Ok(()),
            Some(0) => return Err("the broker closed".into()),
            Some(count) => count,
        };
        let (bytes, at) = (&buffer[..have + count], now());
        let conn = &mut self.conns[id];
        conn.partial.clear();
        let generation = conn.generation;
        let mut used = 0;
        while self.is_current(id, generation) {
            let version = self.conns[id].version;
            let decoded = decode(&bytes[used..], version, &DecodeLimits::default());
            let Some((packet, size)) = decoded.map_err(|error| error.to_string())? else {
                self.conns[id].partial.extend_from_slice(&bytes[used..]);
                return Ok(());
            };
            used += size;
            self.dispatch(app, id, &packet, at)?;
        }
        Ok(())
    }

    fn dispatch<A: App>(
        &mut self,
        app: &mut A,
        id: usize,
        packet: &Packet<'_>,
        at: u64,
    ) -> Result<(), String> {
        let conn = &mut self.conns[id];
        if let (State::Connecting, Packet::Connack(connack)) = (conn.state, packet) {
            if connack.reason != ReasonCode::Success {
                return Err(format!("CONNACK: {}", connack.reason.name()));
            }
            conn.receive_maximum = connack.properties.receive_maximum.unwrap_or(u16::MAX);
            self.resumed += u64::from(connack.session_present);
            self.connack.record(at.saturating_sub(conn.started));
            if let Some(wants) = conn.wants.take() {
                conn.state = State::Subscribing;
                let qos = QoS::from_bits(wants.1).unwrap_or_default();
                self.subscribe(id, 1, &[&wants.0], qos);
            } else {
                self.is_ready(app, id);
            }
        } else if let (State::Subscribing, Packet::Suback(suback)) = (conn.state, packet) {
            if suback.reasons.iter().any(|reason| reason.byte() >= 0x80) {
                return Err("SUBACK refuses".into());
            }
            self.is_ready(app, id);
        } else if let (Packet::Disconnect(said), None) = (packet, &self.listener) {
            return Err(format!("DISCONNECT: {}", said.reason.name()));
        } else if conn.state != State::Leaving {
            app.packet(self, id, packet, at);
        }
        Ok(())
    }

    fn is_ready<A: App>(&mut self, app: &mut A, id: usize) {
        self.conns[id].state = State::Ready;
        self.pending -= 1;
        self.ready += 1;
        app.ready(self, id);
    }

    /// Sends a SUBSCRIBE.
    pub(super) fn subscribe(&mut self, id: usize, packet: u16, filters: &[&str], qos: QoS) {
        let options = SubscriptionOptions::at(qos);
        let requests: Vec<_> =
            filters.iter().map(|filter| SubscriptionRequest { filter, options }).collect();
        let Some(packet_id) = PacketId::new(packet) else { return };
        let packet = Packet::Subscribe(Subscribe {
            packet_id,
            subscription_id: None,
            user_properties: UserProperties::NONE,
            filters: SubscribeFilters::from_slice(&requests),
        });
        self.send(id, &packet);
    }

    /// Connects these clients, `most` at a time, and waits until each is ready or has failed.
    /// The seconds it took.
    pub(super) fn connect_all<A: App>(
        &mut self,
        app: &mut A,
        most: usize,
        clients: Vec<Client>,
    ) -> f64 {
        let (start, count, failed) = (now(), clients.len(), self.failed);
        let mut clients = clients.into_iter();
        let (mut last, mut settled) = (start, 0);
        loop {
            while self.pending < most
                && let Some(client) = clients.next()
            {
                self.open(client, now());
            }
            let at = now();
            // What an earlier call gave up on may still be pending.
            let answered = (count - clients.len()).saturating_sub(self.pending);
            if answered != settled {
                (settled, last) = (answered, at);
            }
            if settled == count || self.failed > failed + FAILURES_MAX {
                return (last - start) as f64 / SEC as f64;
            }
            if at - last > CONNECT_SECS * SEC {
                self.error.get_or_insert(format!("no answer within {CONNECT_SECS} s"));
                self.failed += self.pending as u64;
                return (at - start) as f64 / SEC as f64;
            }
            self.turn(app, at + 100 * MS);
        }
    }
}

/// A non-blocking connect is under way: EINPROGRESS of Linux.
const IN_PROGRESS: i32 = 115;

fn token(id: usize, generation: u32) -> u64 {
    u64::from(generation) << 32 | id as u64
}
