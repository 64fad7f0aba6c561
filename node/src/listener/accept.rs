//! Accepting: one task per listener, one short-lived task per connection until its shard is known.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use verge_broker_core::shard::api::ShardIndex;
use verge_broker_core::shared::NodeShared;
use verge_mqtt_proto::DecodeLimits;

use super::first_packet::{Verdict, judge};
use super::tls::subject;
use super::transport::{self, Transport};
use super::{Arrival, Door, Listener, Seat, quic};

/// How long a listener rests when the system gives no more sockets.
const REST: Duration = Duration::from_millis(100);

/// What is read at once before a shard is known; most CONNECTs are smaller.
const FIRST_READ_BYTES: usize = 1_024;

/// Shows arrivals to their shard.
#[derive(Debug, Clone)]
pub struct Doorman {
    /// By shard.
    pub shards: Arc<[mpsc::Sender<Arrival>]>,
    /// The shard of who has no claim to another: the one the listener's task runs on.
    pub here: ShardIndex,
    /// How long a connection may take for TLS and CONNECT.
    pub connect_timeout: Duration,
    /// What is accepted of a CONNECT.
    pub limits: DecodeLimits,
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
pub async fn serve(listener: Listener, doorman: Doorman, mut stop: watch::Receiver<bool>) {
    let listener = Arc::new(listener);
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
                let (listener, doorman) = (Arc::clone(&listener), doorman.clone());
                tokio::task::spawn_local(async move {
                    let peer = transport::canonical(peer);
                    if let Err(error) = welcome(&listener, &doorman, stream, peer, seat).await {
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
    #[error("no CONNECT in time")]
    ConnectTimeout,
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("it ended before its CONNECT: {0}")]
    Ended(#[from] io::Error),
}

impl NoConnection {
    /// Its name in metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls(_) => "tls_handshake",
            Self::Ended(_) => "connect_ended",
        }
    }
}

/// From an accepted socket to its shard.
async fn welcome(
    listener: &Listener,
    doorman: &Doorman,
    stream: TcpStream,
    peer: std::net::SocketAddr,
    seat: Seat,
) -> Result<(), NoConnection> {
    let in_time = timeout(doorman.connect_timeout, async {
        let mut socket = transport::accepted(stream);
        match &listener.tls {
            None => {
                let (shard, bytes) = first_packet(doorman, &mut socket, None).await?;
                Ok::<_, NoConnection>((Transport::Tcp(socket), None, shard, bytes))
            }
            Some(acceptor) => {
                let mut stream =
                    Box::new(acceptor.accept(socket).await.map_err(NoConnection::Tls)?);
                let subject = subject(stream.get_ref().1);
                let (shard, bytes) = first_packet(doorman, &mut stream, subject.as_ref()).await?;
                Ok((Transport::Tls(stream), subject, shard, bytes))
            }
        }
    });
    let (mut transport, subject, shard, bytes) =
        in_time.await.map_err(|_| NoConnection::ConnectTimeout)??;
    transport.park()?;
    let info = listener.info(peer, subject);
    doorman.send(shard, Arrival { transport, info, bytes, seat }).await;
    Ok(())
}

/// Reads until the shard is known.
pub(super) async fn first_packet(
    doorman: &Doorman,
    stream: &mut (impl AsyncRead + Unpin),
    principal: Option<&Arc<str>>,
) -> io::Result<(ShardIndex, Vec<u8>)> {
    let shards = u16::try_from(doorman.shards.len()).expect("shards are counted in 16 bits");
    let mut bytes = BytesMut::with_capacity(FIRST_READ_BYTES);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let shard = match judge(&bytes, principal, &doorman.limits, shards) {
            Verdict::Shard(shard) => shard,
            Verdict::Anyone => doorman.here,
            // Within the limits: what is larger is for anyone as soon as its length is read.
            Verdict::Incomplete => continue,
        };
        return Ok((shard, bytes.to_vec()));
    }
}
