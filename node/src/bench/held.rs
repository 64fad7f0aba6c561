//! Connections that stay, over WebSocket and QUIC: what an idle one keeps in the broker, and that
//! each still carries a message to and fro.
//!
//! QUIC's clients share a few sockets, so that descriptors bound nothing.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use quinn::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use verge_mqtt_proto::{
    Connect, ConnectProperties, DecodeLimits, Packet, PacketId, ProtocolVersion, Publish,
    PublishProperties, QoS, ReasonCode, Subscribe, SubscribeFilters, SubscriptionOptions,
    SubscriptionRequest, UserProperties, decode,
};

use super::conns::{CONNECTING_MAX, Connected, SETTLE};
use super::histogram::Histogram;
use super::poll::{SEC, now};
use super::procfs::{Usage, resident_bytes};
use super::run::run_number;
use crate::client::address::{Address, Scheme};
use crate::client::net::{ConnectOptions, NetError, Transport, open};
use crate::client::quic::{QuicStream, client_config};

/// How long a connection, or a message to and fro, may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Sockets that QUIC's clients share.
const ENDPOINTS: usize = 16;
/// Clients that connect before anything is counted: they pay for what the broker makes once.
const FIRST: usize = 200;
const VERSION: ProtocolVersion = ProtocolVersion::V4;

/// How clients of a broker connect.
#[derive(Clone)]
struct Road {
    address: Arc<Address>,
    options: Arc<ConnectOptions>,
    endpoints: Arc<[Endpoint]>,
    quic: Option<quinn::ClientConfig>,
    run: u32,
}

/// A client that has its CONNACK.
struct Held {
    number: usize,
    transport: Box<dyn Transport>,
    received: BytesMut,
}

/// Connects `count` clients, leaves them idle, reads the broker's memory, and lets each publish to
/// itself.
pub(super) fn idle(
    scheme: Scheme,
    addr: SocketAddr,
    tls: &Arc<rustls::ClientConfig>,
    count: usize,
    pids: &[u32],
) -> io::Result<Connected> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let road = Road::to(scheme, addr, tls)?;
        let (mut late, mut failed) = (Histogram::default(), 0);
        let mut clients = road.connect(0..FIRST, &mut Histogram::default(), &mut failed).await;
        sleep(Duration::from_nanos(SETTLE)).await;
        let (memory, cpu, start) = (resident_bytes(pids), Usage::of(pids), now());
        clients.extend(road.connect(FIRST..FIRST + count, &mut late, &mut failed).await);
        let secs = (now() - start) as f64 / SEC as f64;
        let used = Usage::of(pids).since(cpu);
        sleep(Duration::from_nanos(SETTLE)).await;
        let grown = resident_bytes(pids).saturating_sub(memory);
        let made = (clients.len() as f64 - FIRST as f64).max(1.0);
        let all = clients.len();
        let clients = exchange(clients).await;
        Ok(Connected {
            rate: made / secs,
            cpu_per_thousand: used.cpu_secs / made * 1e3,
            p99_ms: late.quantile_ms(0.99),
            bytes_each: grown as f64 / made,
            exchanged: clients.len() as u64,
            failed: failed + (all - clients.len()) as u64,
            ..Connected::default()
        })
    })
}

impl Road {
    fn to(scheme: Scheme, addr: SocketAddr, tls: &Arc<rustls::ClientConfig>) -> io::Result<Self> {
        let path = match scheme {
            Scheme::Ws | Scheme::Wss => PATH.to_owned(),
            Scheme::Tcp | Scheme::Tls | Scheme::Quic => String::new(),
        };
        let (host, port) = (addr.ip().to_string(), addr.port());
        let mut tls = rustls::ClientConfig::clone(tls);
        // Each is a client of its own, which has no ticket of another.
        tls.resumption = rustls::client::Resumption::disabled();
        let tls = Arc::new(tls);
        let (mut endpoints, mut quic) = (Vec::new(), None);
        if scheme == Scheme::Quic {
            for _ in 0..ENDPOINTS {
                endpoints.push(Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?);
            }
            quic = Some(client_config(&tls).map_err(io::Error::other)?);
        }
        Ok(Self {
            address: Arc::new(Address { scheme, host, port, path }),
            options: Arc::new(ConnectOptions { timeout: ANSWER_WITHIN, tls: Some(tls) }),
            endpoints: endpoints.into(),
            quic,
            run: run_number(),
        })
    }

    /// Connects these clients, some at a time. Those that failed are counted and told once.
    async fn connect(
        &self,
        mut numbers: std::ops::Range<usize>,
        late: &mut Histogram,
        failed: &mut u64,
    ) -> Vec<Held> {
        let (mut under_way, mut held) = (JoinSet::new(), Vec::with_capacity(numbers.len()));
        loop {
            while under_way.len() < CONNECTING_MAX
                && let Some(number) = numbers.next()
            {
                let (road, start) = (self.clone(), now());
                under_way.spawn(async move {
                    let connected = timeout(ANSWER_WITHIN, road.one(number)).await;
                    let late = || NetError::Timeout(ANSWER_WITHIN);
                    (connected.unwrap_or_else(|_| Err(late())), now() - start)
                });
            }
            match under_way.join_next().await {
                None => return held,
                Some(Ok((Ok(client), took))) => {
                    late.record(took);
                    held.push(client);
                }
                Some(Ok((Err(error), _))) => {
                    if *failed == 0 {
                        eprintln!("  a connection failed: {error}");
                    }
                    *failed += 1;
                }
                Some(Err(_)) => *failed += 1,
            }
        }
    }

    async fn one(&self, number: usize) -> Result<Held, NetError> {
        let transport: Box<dyn Transport> = match &self.quic {
            None => open(&self.address, &self.options).await?.0,
            Some(config) => {
                let endpoint = self.endpoints[number % ENDPOINTS].clone();
                let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, self.address.port));
                let host = &self.address.host;
                Box::new(QuicStream::open_on(endpoint, addr, host, config.clone()).await?)
            }
        };
        let mut client = Held { number, transport, received: BytesMut::new() };
        client
            .send(&Packet::Connect(Connect {
                version: VERSION,
                is_bridge: false,
                clean_start: true,
                keep_alive_secs: 0,
                client_id: &format!("h{number}-{:08x}", self.run),
                will: None,
                username: None,
                password: None,
                properties: ConnectProperties::default(),
            }))
            .await?;
        let accepted = |packet: &Packet<'_>| {
            if let Packet::Connack(connack) = packet { Some(connack.reason) } else { None }
        };
        let reason = client.next(accepted).await?;
        if reason != ReasonCode::Success {
            return Err(NetError::Refused(reason));
        }
        client.received = BytesMut::new();
        Ok(client)
    }
}

impl Held {
    async fn send(&mut self, packet: &Packet<'_>) -> Result<(), NetError> {
        let mut bytes = BytesMut::new();
        packet.encode(VERSION, &mut bytes).expect("the benchmark writes valid packets");
        self.transport.write_all(&bytes).await?;
        Ok(self.transport.flush().await?)
    }

    /// What `wanted` takes of the first packet that it takes something of.
    async fn next<T>(&mut self, wanted: impl Fn(&Packet<'_>) -> Option<T>) -> Result<T, NetError> {
        loop {
            while let Some((packet, size)) =
                decode(&self.received, VERSION, &DecodeLimits::default())?
            {
                let taken = wanted(&packet);
                self.received.advance(size);
                if let Some(taken) = taken {
                    return Ok(taken);
                }
            }
            if self.transport.read_buf(&mut self.received).await? == 0 {
                return Err(NetError::Closed);
            }
        }
    }

    /// Subscribes to a topic of its own, publishes to it, and waits for what it said.
    async fn exchange(&mut self) -> Result<bool, NetError> {
        let topic = format!("held/{}", self.number);
        let payload = self.number.to_be_bytes();
        let options = SubscriptionOptions::at(QoS::AtMostOnce);
        let requests = [SubscriptionRequest { filter: &topic, options }];
        self.send(&Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(1).expect("1 is not 0"),
            subscription_id: None,
            user_properties: UserProperties::NONE,
            filters: SubscribeFilters::from_slice(&requests),
        }))
        .await?;
        self.next(|packet| matches!(packet, Packet::Suback(_)).then_some(())).await?;
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: &topic,
            packet_id: None,
            properties: PublishProperties::default(),
            payload: &payload,
        }))
        .await?;
        self.next(|packet| {
            let Packet::Publish(publish) = packet else { return None };
            Some(publish.payload == payload)
        })
        .await
    }
}

/// Lets each client publish to itself. Those whose message came back.
async fn exchange(clients: Vec<Held>) -> Vec<Held> {
    let (mut under_way, mut done) = (JoinSet::new(), Vec::with_capacity(clients.len()));
    let mut clients = clients.into_iter();
    loop {
        while under_way.len() < CONNECTING_MAX
            && let Some(mut client) = clients.next()
        {
            under_way.spawn(async move {
                let came = timeout(ANSWER_WITHIN, client.exchange()).await;
                matches!(came, Ok(Ok(true))).then_some(client)
            });
        }
        match under_way.join_next().await {
            None => return done,
            Some(outcome) => done.extend(outcome.ok().flatten()),
        }
    }
}

/// The path of the broker's WebSocket listeners.
pub(super) const PATH: &str = "/mqtt";
