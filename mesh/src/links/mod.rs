//! The links of a node: commands from the node, events to it, and the table in between.

mod greeting;
mod lane_io;
mod link;
mod table;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Endpoint, EndpointConfig, SendDatagramError, TokioRuntime};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use verge_model::{NodeId, NodeKey};

use self::link::Link;
use self::table::Table;
use crate::close::CloseCode;
use crate::config::{FRAME_BYTES_MAX, LinksConfig};
use crate::event::{BindError, DatagramError, LinkEvent, SendError};
use crate::lanes::place_of;
use crate::stats::{Counters, LinkStats};
use crate::{Lane, LinkKind, socket, tls};

/// How long closing may take after everything was flushed.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// The links of a node. Clones are handles to the same links; commands never wait, except
/// [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Links {
    shared: Arc<Shared>,
}

/// The events of a node's links.
///
/// Taking [`LinkEvent::Up`] is what opens a link for sending: when a connection is replaced, nothing
/// that was meant for the old one can slip onto the new one.
pub struct LinkEvents {
    receiver: mpsc::Receiver<Signal>,
}

/// A link, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// The node at the other end.
    pub peer: NodeId,
    /// Which of the two links.
    pub kind: LinkKind,
    /// The peer's address now.
    pub addr: SocketAddr,
    /// Whether this side dialled.
    pub dialled: bool,
    /// The round trip as estimated now.
    pub rtt: Duration,
    /// Bytes queued on both lanes.
    pub queued_bytes: usize,
    /// Packets lost since the link came up.
    pub lost_packets: u64,
    /// End of the peer's certificate, seconds since 1970.
    pub certificate_not_after: i64,
}

/// What tasks tell [`LinkEvents`].
enum Signal {
    Event(LinkEvent),
    Up(LinkEvent, Arc<Link>),
}

/// What all tasks of the link layer share.
struct Shared {
    config: LinksConfig,
    endpoint: Endpoint,
    fast: quinn::ClientConfig,
    bulk: quinn::ClientConfig,
    /// Tells this process from others of the same node id.
    instance: u64,
    events: mpsc::Sender<Signal>,
    counters: Counters,
    runtime: Handle,
    /// True from the start of the shutdown.
    stop: watch::Sender<bool>,
    /// Changes with every link that is admitted.
    admissions: watch::Sender<()>,
    /// Links whose task runs.
    running: watch::Sender<usize>,
    // Held for look-ups and insertions, never across an await.
    table: Mutex<Table>,
}

impl Links {
    /// Listens, and accepts links from now on. The socket is closed by [`shutdown`](Self::shutdown)
    /// or with the runtime.
    ///
    /// # Errors
    /// There is no tokio runtime, the address cannot be listened on, or it is not loopback in
    /// development.
    pub fn bind(config: LinksConfig) -> Result<(Self, LinkEvents), BindError> {
        let runtime = Handle::try_current().map_err(|_| BindError::NoRuntime)?;
        let addr = config.listen;
        if config.dev && !addr.ip().is_loopback() {
            return Err(BindError::NotLoopback { addr });
        }
        let listen = |source| BindError::Listen { addr, source };
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            Some(server_config(&config)?),
            socket::bind(addr).map_err(listen)?,
            Arc::new(TokioRuntime),
        )
        .map_err(listen)?;
        let (events, receiver) = mpsc::channel(config.queues.events.max(1));
        let shared = Arc::new(Shared {
            fast: client_config(&config, LinkKind::Fast)?,
            bulk: client_config(&config, LinkKind::Bulk)?,
            config,
            endpoint,
            instance: rand::random(),
            events,
            counters: Counters::default(),
            runtime,
            stop: watch::Sender::new(false),
            admissions: watch::Sender::new(()),
            running: watch::Sender::new(0),
            table: Mutex::default(),
        });
        shared.runtime.spawn(greeting::accept_all(Arc::clone(&shared)));
        Ok((Self { shared }, LinkEvents { receiver }))
    }

    /// Dials a fast link, and its bulk link once it is up; a lost bulk link is dialled again for as
    /// long as the fast one stands. `expect` names the node that must answer.
    ///
    /// True if a dial began; its outcome is [`LinkEvent::Up`], [`LinkEvent::DialAnswered`] or
    /// [`LinkEvent::DialFailed`]. False if that address is being dialled or linked, or
    /// [`DIALS_MAX`](crate::DIALS_MAX) dials are under way.
    pub fn dial(&self, addr: SocketAddr, expect: Option<NodeId>) -> bool {
        let addr = socket::canonical(addr);
        if *self.shared.stop.borrow() || !self.shared.table.lock().begin_dial(addr) {
            return false;
        }
        let shared = Arc::clone(&self.shared);
        self.shared.runtime.spawn(greeting::dial(shared, addr, expect));
        true
    }

    /// Says hello on a link that came up: one frame that the peer reads before any lane. Until then
    /// the peer reads nothing of this link.
    ///
    /// # Errors
    /// See [`SendError`]; a second hello is [`SendError::Full`].
    pub fn hello(&self, peer: NodeKey, kind: LinkKind, bytes: Bytes) -> Result<(), SendError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(SendError::TooLarge(bytes.len()));
        }
        self.shared.open_link(peer, kind).ok_or(SendError::NoLink)?.hello(bytes)
    }

    /// Queues a frame on a lane.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(&self, peer: NodeKey, lane: Lane, bytes: Bytes) -> Result<(), SendError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(SendError::TooLarge(bytes.len()));
        }
        let (kind, place) = place_of(lane);
        let link = self.shared.open_link(peer, kind).ok_or(SendError::NoLink)?;
        let sent = link.queue(place).push(bytes);
        if sent == Err(SendError::Full) {
            self.shared.counters.frames_full.add(1);
        }
        sent
    }

    /// Bytes queued on a lane and not yet handed to QUIC, with a small cost per frame; 0 without a
    /// link.
    #[must_use]
    pub fn queued_bytes(&self, peer: NodeKey, lane: Lane) -> usize {
        let (kind, place) = place_of(lane);
        self.shared.open_link(peer, kind).map_or(0, |link| link.queue(place).bytes())
    }

    /// Sends a datagram on the fast link. It may be lost, and the oldest waiting one is dropped when
    /// too many wait.
    ///
    /// # Errors
    /// See [`DatagramError`].
    pub fn datagram(&self, peer: NodeKey, bytes: Bytes) -> Result<(), DatagramError> {
        let sent = self.try_datagram(peer, bytes);
        let counters = &self.shared.counters;
        let counter =
            if sent.is_ok() { &counters.datagrams_sent } else { &counters.datagrams_unsent };
        counter.add(1);
        sent
    }

    fn try_datagram(&self, peer: NodeKey, bytes: Bytes) -> Result<(), DatagramError> {
        let link = self.shared.open_link(peer, LinkKind::Fast).ok_or(DatagramError::NoLink)?;
        match link.conn().send_datagram(bytes) {
            Ok(()) => Ok(()),
            Err(SendDatagramError::TooLarge) => {
                Err(DatagramError::TooLarge(link.conn().max_datagram_size().unwrap_or(0)))
            }
            Err(SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled) => {
                Err(DatagramError::TooLarge(0))
            }
            Err(SendDatagramError::ConnectionLost(_)) => Err(DatagramError::NoLink),
        }
    }

    /// Closes both links of a peer at once; what is queued is lost. The reason is told to the peer.
    pub fn close(&self, peer: NodeKey, reason: &str) {
        let links = self.shared.table.lock().links_of(peer);
        for link in links {
            link.close(CloseCode::Asked, reason);
        }
    }

    /// Closes one link of a peer at once; what is queued is lost. The reason is told to the peer.
    pub fn close_link(&self, peer: NodeKey, kind: LinkKind, reason: &str) {
        let link = self.shared.table.lock().get(peer, kind);
        if let Some(link) = link {
            link.close(CloseCode::Asked, reason);
        }
    }

    /// The address that is listened on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.endpoint.local_addr().unwrap_or(self.shared.config.listen)
    }

    /// The round trip to a peer as estimated now, over its fast link.
    #[must_use]
    pub fn rtt(&self, peer: NodeKey) -> Option<Duration> {
        Some(self.shared.open_link(peer, LinkKind::Fast)?.conn().rtt())
    }

    /// Counts since the start.
    #[must_use]
    pub fn stats(&self) -> LinkStats {
        self.shared.counters.snapshot()
    }

    /// All links that are up, ordered by peer.
    #[must_use]
    pub fn links(&self) -> Vec<LinkInfo> {
        let links = self.shared.table.lock().live();
        links.iter().map(|link| link.info()).collect()
    }

    /// Takes no more frames, hands over what is queued within
    /// [`Timing::shutdown`](crate::Timing::shutdown), then closes all connections and the socket.
    pub async fn shutdown(&self) {
        let shared = &self.shared;
        shared.stop.send_replace(true);
        let mut running = shared.running.subscribe();
        let limit = shared.config.timing.shutdown + CLOSE_WAIT;
        let _ = tokio::time::timeout(limit, running.wait_for(|links| *links == 0)).await;
        shared.endpoint.close(CloseCode::Shutdown.varint(), b"the node shuts down");
        let _ = tokio::time::timeout(CLOSE_WAIT, shared.endpoint.wait_idle()).await;
    }
}

impl LinkEvents {
    /// The next event. Cancelling it loses none.
    pub async fn recv(&mut self) -> Option<LinkEvent> {
        self.receiver.recv().await.map(taken)
    }

    /// The next event, if one is there.
    pub fn try_recv(&mut self) -> Option<LinkEvent> {
        self.receiver.try_recv().ok().map(taken)
    }
}

fn taken(signal: Signal) -> LinkEvent {
    match signal {
        Signal::Event(event) => event,
        Signal::Up(event, link) => {
            link.open();
            event
        }
    }
}

impl Shared {
    /// The link to send on: one whose `Up` was taken and that was not replaced or lost since.
    fn open_link(&self, peer: NodeKey, kind: LinkKind) -> Option<Arc<Link>> {
        self.table.lock().get(peer, kind).filter(|link| link.is_open())
    }

    fn client_config(&self, kind: LinkKind) -> quinn::ClientConfig {
        match kind {
            LinkKind::Fast => self.fast.clone(),
            LinkKind::Bulk => self.bulk.clone(),
        }
    }

    fn own_id(&self) -> &NodeId {
        &self.config.identity.node_id
    }

    /// Tells the node, waiting while its channel is full.
    async fn tell(&self, event: LinkEvent) {
        // The receiver is gone only when the node is.
        let _ = self.events.send(Signal::Event(event)).await;
    }
}

fn server_config(config: &LinksConfig) -> Result<quinn::ServerConfig, rustls::Error> {
    let tls = tls::server_config(&config.identity)?;
    let crypto = QuicServerConfig::try_from(tls).map_err(|_| no_initial_suite())?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server
        .transport_config(Arc::new(config.accept_transport()))
        .max_incoming(crate::config::HANDSHAKES_MAX)
        .incoming_buffer_size(64 << 10)
        .incoming_buffer_size_total(16 << 20)
        .migration(true);
    Ok(server)
}

fn client_config(
    config: &LinksConfig,
    kind: LinkKind,
) -> Result<quinn::ClientConfig, rustls::Error> {
    let tls = tls::client_config(&config.identity, kind)?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|_| no_initial_suite())?;
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.transport_config(Arc::new(config.dial_transport(kind)));
    Ok(client)
}

fn no_initial_suite() -> rustls::Error {
    rustls::Error::General("the cryptography has no suite for QUIC's first packets".to_owned())
}

#[cfg(test)]
mod tests;
