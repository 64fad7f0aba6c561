//! Where clients connect: listeners, and the way of a connection from its accept to the shard that
//! serves its client.
//!
//! ```text
//! listener ─accept─▶ PROXY ─▶ TLS, QUIC ─▶ WebSocket ─▶ CONNECT ─▶ hash(client) ─▶ shard's arrivals
//! ```
//!
//! What the first packet says is only looked at here to find the shard. Whatever it is, the shard
//! gets all bytes and answers, also what is malformed.

mod accept;
mod first_packet;
mod gate;
mod proxy;
pub mod quic;
pub mod tls;
pub mod transport;
pub mod ws;

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use verge_broker_core::shard::api::ConnectionInfo;
use verge_mqtt_proto::ReasonCode;
use verge_storage::Promise;

use self::gate::{Bench, Gate, GateTerms, NoBench};
use self::quic::keys::QuicKeys;
use self::tls::live::{Live, Material};
use self::transport::Transport;
use crate::config::Config;
use crate::config::sections::{Anonymous, ListenerSection, NodeSection};
use crate::config::text::{ListenerUrl, Network, Scheme, Text};

pub use self::accept::{Doorman, serve, violation};
pub use self::first_packet::client_id;

/// Connections the system completes before they are accepted.
const BACKLOG: i32 = 1_024;

/// A listener that has its port, and what its connections are told.
pub struct Listener {
    door: Door,
    /// As configured, with the port it really has.
    url: Arc<str>,
    /// As configured.
    asked: ListenerUrl,
    tls: Option<Arc<rustls::ServerConfig>>,
    packet_bytes_max: usize,
    terms: ArcSwap<Terms>,
    seats: Seats,
    /// For connections that have not said CONNECT.
    gate: Gate,
    /// Whether it was told that there are no more seats.
    full: AtomicBool,
}

/// What a listener's next connection is told, and held to.
#[derive(Debug, Clone, PartialEq)]
struct Terms {
    promise: Promise,
    anonymous: Anonymous,
    connections_max: usize,
    gate: GateTerms,
    /// The proxies that are believed, if clients are behind proxies.
    proxies: Option<Box<[Text<Network>]>>,
}

impl Terms {
    fn of(section: &ListenerSection, config: &Config) -> Self {
        Self {
            promise: section.promise.unwrap_or(config.storage.promise).0,
            anonymous: config.auth.allow_anonymous,
            connections_max: section.connections_max,
            gate: GateTerms {
                connecting_max: section.connecting_max,
                per_address_max: section.connecting_per_address_max,
                rate_max: section.connect_rate_max,
            },
            proxies: section.proxy_protocol.then(|| section.proxy_trusted.clone().into()),
        }
    }
}

/// What a listener's clients come to.
enum Door {
    /// TCP, with or without TLS.
    Tcp(std::net::TcpListener),
    /// QUIC.
    Quic(Box<quic::endpoint::Door>),
}

/// Why a listener cannot be opened: one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program has the port.
    #[error("port in use: {url}: stop the program that has it, or choose another with --listen")]
    InUse {
        /// The listener.
        url: String,
    },
    /// The address cannot be listened on.
    #[error("listener {url}: {source}: check its host and port")]
    Address {
        /// The listener.
        url: String,
        /// What the system said.
        source: io::Error,
    },
    /// Its certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The node's QUIC secrets cannot.
    #[error(transparent)]
    QuicKeys(#[from] quic::keys::KeyError),
}

impl Listener {
    /// Opens every listener of a configuration, and reads their certificates.
    ///
    /// # Errors
    /// The first that cannot be opened.
    pub fn bind_all(config: &Config) -> Result<(Vec<Self>, Option<Arc<Live>>), ListenError> {
        let has_tls = config.listeners.iter().any(|section| section.url.0.scheme.has_tls());
        let live = if has_tls { Some(Live::new(Material::load(&config.tls)?)) } else { None };
        let sections = config.listeners.iter();
        let opened = sections.map(|section| Self::open(section, config, live.as_ref(), None));
        Ok((opened.collect::<Result<_, _>>()?, live))
    }

    /// Opens one listener, with the socket of `old` if that is given and can be had.
    ///
    /// # Errors
    /// Its port or certificate cannot be used.
    pub fn open(
        section: &ListenerSection,
        config: &Config,
        live: Option<&Arc<Live>>,
        old: Option<&Self>,
    ) -> Result<Self, ListenError> {
        let asked = &section.url.0;
        let certificates = || live.ok_or(tls::TlsError::NotSet { key: "tls.cert" });
        let tls = match asked.scheme {
            Scheme::Tcp | Scheme::Ws | Scheme::Quic => None,
            Scheme::Tls | Scheme::Wss => Some(Arc::new(certificates()?.tcp_config()?)),
        };
        let (door, addr) = match asked.scheme {
            Scheme::Tcp | Scheme::Tls | Scheme::Ws | Scheme::Wss => {
                let (socket, addr) = match old.map(|old| &old.door) {
                    Some(Door::Tcp(socket)) => again(asked, socket)?,
                    Some(Door::Quic(_)) | None => {
                        bind(asked, listen, std::net::TcpListener::local_addr)?
                    }
                };
                (Door::Tcp(socket), addr)
            }
            Scheme::Quic => {
                let (socket, addr) = bind(asked, quic::endpoint::bind, UdpSocket::local_addr)?;
                let door = quic::endpoint::Door::new(socket, certificates()?)?;
                (Door::Quic(Box::new(door)), addr)
            }
        };
        Ok(Self {
            door,
            url: bound_url(asked, addr).to_string().into(),
            asked: asked.clone(),
            tls,
            packet_bytes_max: config.session.packet_bytes_max,
            terms: ArcSwap::from_pointee(Terms::of(section, config)),
            seats: Seats::default(),
            gate: Gate::default(),
            full: AtomicBool::new(false),
        })
    }

    /// What was configured.
    #[must_use]
    pub fn asked(&self) -> &ListenerUrl {
        &self.asked
    }

    /// Other terms for connections to come. Whether they are others.
    pub fn set_terms(&self, section: &ListenerSection, config: &Config) -> bool {
        let terms = Terms::of(section, config);
        let is_new = terms != **self.terms.load();
        self.terms.store(Arc::new(terms));
        is_new
    }

    /// The path of WebSocket clients.
    fn ws_path(&self) -> Option<&str> {
        self.asked.scheme.has_path().then_some(&*self.asked.path)
    }

    /// Where clients reach it: `tcp://127.0.0.1:1883`.
    #[must_use]
    pub fn url(&self) -> &Arc<str> {
        &self.url
    }

    /// Gives a `quic://` listener the secrets in the node's data directory; of no effect on others.
    ///
    /// # Errors
    /// The secrets cannot be read or made.
    pub fn open_keys(&mut self, node: &NodeSection) -> Result<(), quic::keys::KeyError> {
        if let Door::Quic(door) = &mut self.door {
            let keys = QuicKeys::open(&node.data_dir, node.id.as_str())?;
            door.set_keys(keys, node.id.key().0);
        }
        Ok(())
    }

    /// A place for one more connection; if there is none, that is told and counted.
    fn take_seat(&self, doorman: &Doorman) -> Option<Seat> {
        let connections_max = self.terms.load().connections_max;
        let seat = self.seats.take(connections_max);
        if seat.is_some() {
            self.full.store(false, Ordering::Relaxed);
        } else {
            if !self.full.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    listener = %self.url,
                    connections_max,
                    "listener is full, connections are refused"
                );
            }
            doorman.shared.counters.connection_closed("listener_full");
        }
        seat
    }

    /// A place for a connection until its CONNECT is read.
    fn take_bench(&self) -> Result<Bench, NoBench> {
        self.gate.take_bench(&self.terms.load().gate)
    }

    /// Counts it among those of its address, which is proven.
    fn count_address(&self, bench: &mut Bench, peer: SocketAddr) -> Result<(), NoBench> {
        let terms = self.terms.load();
        match &terms.proxies {
            None => self.gate.count_address(bench, peer.ip(), &terms.gate),
            // A proxy's address is not its clients'.
            Some(_) => Ok(()),
        }
    }

    /// Whether a CONNECT that was read is within the listener's rate; if not, that is counted.
    fn admits(&self, doorman: &Doorman) -> bool {
        let admits = self.gate.admits(&self.terms.load().gate, doorman.clock.now().mono);
        if !admits {
            doorman.shared.counters.connect_refused(ReasonCode::ConnectionRateExceeded.name());
        }
        admits
    }

    fn info(&self, peer: SocketAddr, certificate_subject: Option<Arc<str>>) -> ConnectionInfo {
        let terms = self.terms.load();
        ConnectionInfo {
            peer,
            listener: Arc::clone(&self.url),
            certificate_subject,
            promise: terms.promise,
            allow_anonymous: terms.anonymous.allows(peer),
            keep_alive_secs_max: match self.door {
                Door::Tcp(_) => 0,
                Door::Quic(_) => quic::endpoint::KEEP_ALIVE_SECS_MAX,
            },
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Opens the first address of the host that can be listened on.
fn bind<S>(
    url: &ListenerUrl,
    open: fn(SocketAddr) -> io::Result<S>,
    addr_of: fn(&S) -> io::Result<SocketAddr>,
) -> Result<(S, SocketAddr), ListenError> {
    let failed = |source: io::Error| {
        let url = url.to_string();
        if source.kind() == io::ErrorKind::AddrInUse {
            ListenError::InUse { url }
        } else {
            ListenError::Address { url, source }
        }
    };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for addr in url.authority.to_socket_addrs().map_err(failed)? {
        match open(addr) {
            Ok(socket) => {
                let addr = addr_of(&socket).map_err(failed)?;
                return Ok((socket, addr));
            }
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn listen(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of the process before it; on Linux this does not let
    // two programs share a port that is listened on.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        // `[::]` takes IPv4 clients, too, whatever the machine's default is.
        socket.set_only_v6(false)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The listener's address as peers may use it: port 0 became a real one.
fn bound_url(url: &ListenerUrl, addr: SocketAddr) -> ListenerUrl {
    let host = url.authority.rsplit_once(':').map_or(url.authority.as_str(), |(host, _)| host);
    ListenerUrl { authority: format!("{host}:{}", addr.port()), ..url.clone() }
}

/// The other end of a socket that is listened on already.
fn again(
    url: &ListenerUrl,
    socket: &std::net::TcpListener,
) -> Result<(std::net::TcpListener, SocketAddr), ListenError> {
    let both = socket.try_clone().and_then(|socket| socket.local_addr().map(|addr| (socket, addr)));
    both.map_err(|source| ListenError::Address { url: url.to_string(), source })
}

/// Counted places.
#[derive(Debug, Clone, Default)]
struct Seats(Arc<AtomicUsize>);

impl Seats {
    fn take(&self, max: usize) -> Option<Seat> {
        let seat = Seat(Arc::clone(&self.0));
        if self.0.fetch_add(1, Ordering::Relaxed) < max { Some(seat) } else { None }
    }
}

/// A connection's place among those of its listener; free again when dropped.
#[derive(Debug)]
pub struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection on its way to its shard.
pub struct Arrival {
    /// Its parked transport.
    pub transport: Transport,
    /// What is known of it.
    pub info: ConnectionInfo,
    /// What was read: the CONNECT, unless that is not what the client sent.
    pub bytes: Vec<u8>,
    /// Its place.
    pub seat: Seat,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named() {
        let open = |url: &ListenerUrl| bind(url, listen, std::net::TcpListener::local_addr);
        let (_held, addr) = open(&"tcp://127.0.0.1:0".parse().unwrap()).unwrap();
        let url: ListenerUrl = format!("tcp://{addr}").parse().unwrap();
        let said = open(&url).unwrap_err().to_string();
        assert!(
            said.starts_with(&format!("port in use: {url}: ")) && !said.contains('\n'),
            "{said}"
        );
    }

    #[test]
    fn an_address_of_another_machine_is_named() {
        let url = "tcp://192.0.2.1:1883".parse().unwrap();
        let said = bind(&url, listen, std::net::TcpListener::local_addr).unwrap_err().to_string();
        assert!(said.starts_with("listener tcp://192.0.2.1:1883: "), "{said}");
    }

    #[test]
    fn seats_are_bounded_and_given_back() {
        let seats = Seats::default();
        let first = seats.take(1);
        assert!(first.is_some() && seats.take(1).is_none());
        drop(first);
        assert!(seats.take(1).is_some());
    }
}
