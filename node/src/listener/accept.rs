//! Accepting: one task per listener, one short-lived task per connection until its shard is known.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use verge_broker_core::shard::api::ShardIndex;
use verge_broker_core::shared::NodeShared;
use verge_mqtt_proto::DecodeLimits;

use super::first_packet::{Verdict, judge};
use super::gate::{self, Bench};
use super::proxy::{self, ProxyError, Source};
use super::transport::{self, Transport};
use super::ws::{self, Violation, Ws};
use super::{Arrival, Door, Listener, Seat, quic, tls};
use crate::clock::Clock;
use crate::config::sections::Anonymous;

/// How long a listener rests when the system gives no more sockets.
const REST: Duration = Duration::from_millis(100);

/// What is read at once before a shard is known; most CONNECTs are smaller.
const FIRST_READ_BYTES: usize = 1_024;

/// What is read of a refused client before it is left.
const FAREWELL_BYTES_MAX: u64 = 64 * 1024;

/// How long a refused client may take to read why and to end its side: a round trip of any network
/// that vehicles use, and short beside the time to connect.
const FAREWELL: Duration = Duration::from_millis(500);

/// Shows arrivals to their shard.
#[derive(Debug, Clone)]
pub struct Doorman {
    /// By shard.
    pub shards: Arc<[mpsc::Sender<Arrival>]>,
    /// The shard of who has no claim to another: the one the listener's task runs on.
    pub here: ShardIndex,
    /// How long a connection may take for PROXY, TLS, WebSocket and CONNECT together.
    pub connect_timeout: Duration,
    /// What is accepted of a CONNECT.
    pub limits: DecodeLimits,
    /// Whether a User Name says who a client is.
    pub has_users: bool,
    /// What the listeners' rates go by.
    pub clock: Clock,
    /// Where connections that come to nothing are counted.
    pub shared: Arc<NodeShared>,
}

impl Doorman {
    /// Shows an arrival to its shard.
    pub(super) async fn send(&self, shard: ShardIndex, arrival: Arrival) {
        // The receiver is gone only when the node goes down.
        let _ = self.shards[usize::from(shard.0)].send(arrival).await;
    }
}

/// Accepts until `stop` is true. Runs on a [`LocalSet`](tokio::task::LocalSet).
pub async fn serve(listener: Arc<Listener>, doorman: Doorman, mut stop: watch::Receiver<bool>) {
    let socket = match &listener.door {
        Door::Tcp(socket) => socket,
        Door::Quic(door) => {
            return quic::accept::serve(Arc::clone(&listener), door, doorman, stop).await;
        }
    };
    let socket = match socket.try_clone().and_then(TcpListener::from_std) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(listener = %listener.url, %error, "listener cannot be served");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(seat) = listener.take_seat(&doorman) else { continue };
                let peer = transport::canonical(peer);
                let bench = listener
                    .take_bench()
                    .and_then(|mut bench| listener.count_address(&mut bench, peer).map(|()| bench));
                let bench = match bench {
                    Ok(bench) => bench,
                    Err(error) => {
                        doorman.shared.counters.connection_closed(error.label());
                        continue;
                    }
                };
                let (listener, doorman) = (Arc::clone(&listener), doorman.clone());
                tokio::task::spawn_local(async move {
                    if let Err(error) =
                        welcome(&listener, &doorman, stream, peer, (seat, bench)).await
                    {
                        doorman.shared.counters.connection_closed(error.label());
                        tracing::debug!(listener = %listener.url, %peer, %error, "no connection");
                    }
                });
            }
            Err(error) => {
                if rests(&error) {
                    tracing::warn!(listener = %listener.url, %error, "accepting rests");
                    sleep(REST).await;
                }
            }
        }
    }
}

/// Whether the error concerns this machine, not the one connection.
fn rests(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Why an accepted socket came to nothing.
#[derive(Debug, thiserror::Error)]
enum NoConnection {
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("no CONNECT in time")]
    ConnectTimeout,
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("WebSocket: {0}")]
    Request(io::Error),
    #[error("more CONNECTs than the listener takes in a second")]
    Rate,
    #[error("it ended before its CONNECT: {0}")]
    Ended(#[from] io::Error),
}

impl NoConnection {
    /// Its name in metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::Proxy(error) => error.label(),
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls(_) => "tls_handshake",
            Self::Request(_) => "websocket_handshake",
            Self::Rate => "connection_rate",
            Self::Ended(error) => violation(error).map_or("connect_ended", Violation::label),
        }
    }
}

/// What a WebSocket client did that none may do.
pub fn violation(error: &io::Error) -> Option<Violation> {
    error.get_ref()?.downcast_ref().copied()
}

/// From an accepted socket to its shard.
async fn welcome(
    listener: &Listener,
    doorman: &Doorman,
    stream: TcpStream,
    peer: SocketAddr,
    seats: (Seat, Bench),
) -> Result<(), NoConnection> {
    let (seat, bench) = seats;
    let in_time = timeout(doorman.connect_timeout, introduced(listener, doorman, stream, peer));
    let (source, mut shown) = in_time.await.map_err(|_| NoConnection::ConnectTimeout)??;
    drop(bench);
    shown.transport.park()?;
    if let Some(server_name) = &source.server_name {
        tracing::debug!(listener = %listener.url, peer = %source.peer, %server_name, "by proxy");
    }
    let mut info = listener.info(source.peer, shown.subject);
    // The address says that the client is of this machine only if it is the client's, and if no
    // page of another machine uses the client.
    let is_own = source.is_known && !shown.foreign_page;
    info.allow_anonymous &= is_own || listener.terms.load().anonymous != Anonymous::Loopback;
    let arrival = Arrival { transport: shown.transport, info, bytes: shown.bytes, seat };
    doorman.send(shown.shard, arrival).await;
    Ok(())
}

/// All that comes before the client's session is known.
async fn introduced(
    listener: &Listener,
    doorman: &Doorman,
    stream: TcpStream,
    peer: SocketAddr,
) -> Result<(Source, Shown), NoConnection> {
    let mut socket = transport::accepted(stream);
    let terms = listener.terms.load_full();
    let mut source = match &terms.proxies {
        None => Source::direct(peer),
        Some(trusted) => proxy::accept(&mut socket, peer, trusted).await?,
    };
    let shown = match &listener.tls {
        None => {
            let subject = source.subject.take();
            match listener.ws_path() {
                None => Guest::of(socket, Transport::Tcp, subject).shown(listener, doorman).await,
                Some(path) => {
                    let guest = web_guest(listener, path, socket, Transport::Ws, subject).await?;
                    guest.shown(listener, doorman).await
                }
            }
        }
        Some(config) => {
            let stream = tls::stream::accept(config, socket).await.map_err(NoConnection::Tls)?;
            // What was proven here counts before what a proxy says.
            let subject = tls::subject(stream.session()).or_else(|| source.subject.take());
            match listener.ws_path() {
                None => {
                    Guest::of(Box::new(stream), Transport::Tls, subject)
                        .shown(listener, doorman)
                        .await
                }
                Some(path) => {
                    let guest = web_guest(listener, path, stream, Transport::Wss, subject).await?;
                    guest.shown(listener, doorman).await
                }
            }
        }
    };
    Ok((source, shown?))
}

/// A connection that has not said who it is.
struct Guest<S> {
    stream: S,
    into_transport: fn(S) -> Transport,
    /// The name in its certificate.
    subject: Option<Arc<str>>,
    /// What was read already.
    bytes: BytesMut,
    /// A web page of another machine opened it.
    foreign_page: bool,
}

/// A connection whose shard is known.
struct Shown {
    transport: Transport,
    subject: Option<Arc<str>>,
    shard: ShardIndex,
    bytes: Vec<u8>,
    foreign_page: bool,
}

/// The HTTP exchange of a WebSocket client.
async fn web_guest<S: AsyncRead + AsyncWrite + Unpin>(
    listener: &Listener,
    path: &str,
    mut stream: S,
    into_transport: fn(Box<Ws<S>>) -> Transport,
    subject: Option<Arc<str>>,
) -> Result<Guest<Box<Ws<S>>>, NoConnection> {
    let granted = ws::head::accept(&mut stream, path).await.map_err(NoConnection::Request)?;
    let mut ws = Box::new(Ws::new(stream, listener.packet_bytes_max));
    let mut bytes = granted.rest;
    let payload = match ws.handle_bytes(&mut bytes) {
        Ok(payload) => payload,
        Err(error) => return Err(told(&mut ws, error).await.into()),
    };
    bytes.truncate(payload);
    let bytes = BytesMut::from(&bytes[..]);
    Ok(Guest { stream: ws, into_transport, subject, bytes, foreign_page: granted.foreign_page })
}

/// Gives a WebSocket client the time to read why it is refused.
async fn told(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), error: io::Error) -> io::Error {
    if violation(&error).is_some() {
        farewell(stream).await;
    }
    error
}

/// Ends this side, and reads what the peer still says for a moment: a socket closed with unread
/// bytes would take the last words back.
pub(super) async fn farewell(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let ending = async {
        stream.shutdown().await?;
        let mut rest = stream.take(FAREWELL_BYTES_MAX);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // However it ends, the connection is over.
    let _ = timeout(FAREWELL, ending).await;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guest<S> {
    fn of(stream: S, into_transport: fn(S) -> Transport, subject: Option<Arc<str>>) -> Self {
        Self { stream, into_transport, subject, bytes: BytesMut::new(), foreign_page: false }
    }

    /// Reads until the shard is known.
    async fn shown(
        mut self,
        listener: &Listener,
        doorman: &Doorman,
    ) -> Result<Shown, NoConnection> {
        let read = first_packet(doorman, &mut self.stream, self.subject.as_ref(), self.bytes);
        let (shard, bytes) = match read.await {
            Ok(read) => read,
            Err(error) => return Err(told(&mut self.stream, error).await.into()),
        };
        if !listener.admits(doorman) {
            let answer = gate::turned_away(&bytes, &doorman.limits);
            self.stream.write_all(&answer).await?;
            farewell(&mut self.stream).await;
            return Err(NoConnection::Rate);
        }
        let Self { stream, into_transport, subject, foreign_page, .. } = self;
        Ok(Shown { transport: into_transport(stream), subject, shard, bytes, foreign_page })
    }
}

/// Reads on from `bytes` until the shard is known.
pub(super) async fn first_packet(
    doorman: &Doorman,
    stream: &mut (impl AsyncRead + Unpin),
    principal: Option<&Arc<str>>,
    mut bytes: BytesMut,
) -> io::Result<(ShardIndex, Vec<u8>)> {
    let shards = u16::try_from(doorman.shards.len()).expect("shards are counted in 16 bits");
    loop {
        let shard = match judge(&bytes, principal, doorman.has_users, &doorman.limits, shards) {
            Verdict::Shard(shard) => shard,
            Verdict::Anyone => doorman.here,
            // Within the limits: what is larger is for anyone as soon as its length is read.
            Verdict::Incomplete => {
                bytes.reserve(FIRST_READ_BYTES);
                if stream.read_buf(&mut bytes).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            }
        };
        return Ok((shard, bytes.to_vec()));
    }
}
