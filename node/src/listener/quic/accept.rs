//! From a client's first datagram to its CONNECT.
//!
//! The loop only takes connections and spawns: a client that falls silent anywhere on the way holds
//! up nobody, and is dropped after `session.connect_timeout`, once for the handshake and once for
//! the CONNECT.
//!
//! A client that resumes may send its CONNECT with its first flight (0-RTT), and is served before
//! the handshake is complete. Nobody else is: until then a client's certificate is not verified.
//! A certificate remembered from an earlier connection is verified again, since it may have expired
//! or been revoked meanwhile.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use quinn::{Connection, ConnectionError, Incoming, RecvStream, SendStream};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;
use tokio::time::timeout;

use super::close::{CloseCode, handshake_label};
use super::endpoint::Door;
use super::transport::QuicTransport;
use crate::listener::accept::{Doorman, first_packet};
use crate::listener::gate::{self, Bench, NoBench};
use crate::listener::tls::common_name;
use crate::listener::transport::{self, Transport};
use crate::listener::{Arrival, Listener, Seat};

/// Open handshakes beyond which a client must first show that it receives at its address.
const HANDSHAKES_UNPROVEN_MAX: usize = 512;

/// Whether clients show certificates, and who judges them.
#[derive(Debug, Clone)]
pub(super) struct ClientCheck {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientCheck {
    /// As configured at the moment of each check.
    #[must_use]
    pub(super) fn new(verifier: Arc<dyn ClientCertVerifier>) -> Self {
        Self { verifier }
    }

    /// The subject of the client's certificate, if it may come in.
    fn judge(&self, connection: &Connection) -> Result<Option<Arc<str>>, NoConnection> {
        let chain = connection.peer_identity().and_then(|any| {
            let chain: Box<Vec<CertificateDer<'static>>> = any.downcast().ok()?;
            Some(*chain)
        });
        match chain.as_deref().and_then(<[_]>::split_first) {
            Some((cert, between)) => {
                self.verifier
                    .verify_client_cert(cert, between, UnixTime::now())
                    .map_err(NoConnection::Certificate)?;
                Ok(common_name(cert))
            }
            None if self.verifier.client_auth_mandatory() => Err(NoConnection::NoCertificate),
            None => Ok(None),
        }
    }
}

/// Why a client that knocked is not served.
#[derive(Debug, thiserror::Error)]
enum NoConnection {
    #[error("no handshake in time")]
    HandshakeTimeout,
    #[error("no CONNECT in time")]
    ConnectTimeout,
    #[error("handshake: {0}")]
    Handshake(#[from] ConnectionError),
    #[error("certificate: {0}")]
    Certificate(rustls::Error),
    #[error("no certificate")]
    NoCertificate,
    #[error("its shard has no room for it")]
    Overloaded,
    #[error(transparent)]
    NoBench(#[from] NoBench),
    #[error("more CONNECTs than the listener takes in a second")]
    Rate,
    #[error("it ended before its CONNECT: {0}")]
    Ended(#[from] std::io::Error),
}

impl NoConnection {
    /// Its name in metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::HandshakeTimeout | Self::ConnectTimeout => "connect_timeout",
            Self::Handshake(error) => handshake_label(error),
            Self::Certificate(_) | Self::NoCertificate => "tls_handshake",
            Self::Overloaded => "overloaded",
            Self::NoBench(error) => error.label(),
            Self::Rate => "connection_rate",
            Self::Ended(_) => "connect_ended",
        }
    }
}

/// Handshakes under way.
#[derive(Debug, Clone, Default)]
struct Handshakes(Arc<AtomicUsize>);

impl Handshakes {
    fn open(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn begin(&self) -> Handshake {
        self.0.fetch_add(1, Ordering::Relaxed);
        Handshake(Arc::clone(&self.0))
    }
}

/// One of them, until dropped.
struct Handshake(Arc<AtomicUsize>);

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts until `stop` is true, and ends with the last connection. Runs on a
/// [`LocalSet`](tokio::task::LocalSet).
pub(in crate::listener) async fn serve(
    listener: Arc<Listener>,
    door: &Door,
    doorman: Doorman,
    mut stop: watch::Receiver<bool>,
) {
    let endpoint = match door.open() {
        Ok(endpoint) => endpoint,
        Err(error) => {
            tracing::error!(listener = %listener.url(), %error, "listener cannot be served");
            return;
        }
    };
    let handshakes = Handshakes::default();
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Some(incoming) = incoming else { break };
        admit(&listener, door, &doorman, &handshakes, incoming);
    }
    endpoint.set_server_config(None);
    // Its clients stay, and share its socket: the endpoint serves them to the last.
    endpoint.wait_idle().await;
}

/// Takes one client in, or turns it away.
fn admit(
    listener: &Arc<Listener>,
    door: &Door,
    doorman: &Doorman,
    handshakes: &Handshakes,
    incoming: Incoming,
) {
    let open = handshakes.open();
    if open >= HANDSHAKES_UNPROVEN_MAX && !incoming.remote_address_validated() {
        // It may: an address that was not validated has not been asked before.
        let _ = incoming.retry();
        return;
    }
    let bench = match listener.take_bench() {
        Ok(bench) => bench,
        Err(error) => {
            doorman.shared.counters.connection_closed(error.label());
            return incoming.refuse();
        }
    };
    let Some(seat) = listener.take_seat(doorman) else { return incoming.refuse() };
    let (listener, doorman) = (Arc::clone(listener), doorman.clone());
    let (check, handshake) = (door.check.clone(), handshakes.begin());
    tokio::task::spawn_local(async move {
        let peer = transport::canonical(incoming.remote_address());
        let places = Places { seat, bench, handshake };
        let outcome = welcome(&listener, &doorman, &check, incoming, peer, places).await;
        if let Err(error) = outcome {
            doorman.shared.counters.connection_closed(error.label());
            tracing::debug!(listener = %listener.url(), %peer, %error, "no connection");
        }
    });
}

/// Where a client that is taken in counts.
struct Places {
    seat: Seat,
    bench: Bench,
    handshake: Handshake,
}

/// From a first datagram to a shard.
async fn welcome(
    listener: &Listener,
    doorman: &Doorman,
    check: &ClientCheck,
    incoming: Incoming,
    peer: SocketAddr,
    places: Places,
) -> Result<(), NoConnection> {
    let Places { seat, mut bench, handshake } = places;
    let limit = doorman.connect_timeout;
    let (connection, early) = timeout(limit, shake_hands(incoming))
        .await
        .map_err(|_| NoConnection::HandshakeTimeout)??;
    drop(handshake);
    // Only now is its address known to be its own.
    if let Err(error) = listener.count_address(&mut bench, peer) {
        connection.close(CloseCode::Overloaded.varint(), error.to_string().as_bytes());
        return Err(error.into());
    }
    let said = timeout(limit, async {
        let (send, recv) = match early {
            Some(streams) => streams,
            // In order of their ids, so the first is stream 0, the control stream.
            None => connection.accept_bi().await?,
        };
        let subject = check.judge(&connection)?;
        let mut transport = Box::new(QuicTransport::new(connection.clone(), send, recv, peer));
        let (shard, bytes) =
            first_packet(doorman, transport.receiver(), subject.as_ref(), BytesMut::new()).await?;
        Ok::<_, NoConnection>((transport, subject, shard, bytes))
    });
    let outcome = said.await.unwrap_or(Err(NoConnection::ConnectTimeout));
    let (transport, subject, shard, bytes) = match outcome {
        Ok(said) => said,
        Err(error) => {
            connection.close(CloseCode::ControlStreamDown.varint(), error.to_string().as_bytes());
            return Err(error);
        }
    };
    drop(bench);
    if !listener.admits(doorman) {
        return Err(turn_away(transport, &bytes, doorman).await);
    }
    // It fails only when the node goes down.
    let Ok(room) = timeout(limit, doorman.shards[usize::from(shard.0)].reserve()).await else {
        connection.close(CloseCode::Overloaded.varint(), b"");
        return Err(NoConnection::Overloaded);
    };
    if let Ok(room) = room {
        let info = listener.info(peer, subject);
        room.send(Arrival { transport: Transport::Quic(transport), info, bytes, seat });
    }
    Ok(())
}

/// Answers a CONNECT beyond the rate, and ends the connection in order.
async fn turn_away(
    mut transport: Box<QuicTransport>,
    first: &[u8],
    doorman: &Doorman,
) -> NoConnection {
    let answer = gate::turned_away(first, &doorman.limits);
    // A first write fits into any window; however it ends, the connection is over.
    let _ = poll_fn(|cx| transport.poll_write(cx, &answer)).await;
    let _ = poll_fn(|cx| transport.poll_shutdown(cx)).await;
    NoConnection::Rate
}

/// A connection whose client is proven, and its control stream if that came first.
type Shaken = (Connection, Option<(SendStream, RecvStream)>);

/// Waits until the handshake is complete, or early data opens stream 0: then the client resumes a
/// connection that was complete.
async fn shake_hands(incoming: Incoming) -> Result<Shaken, NoConnection> {
    // A server can always go on before the handshake is complete; whether it may is decided below.
    let Ok((connection, complete)) = incoming.accept()?.into_0rtt() else {
        return Err(NoConnection::HandshakeTimeout);
    };
    let mut complete = std::pin::pin!(complete);
    tokio::select! {
        biased;
        _ = &mut complete => {
            connection.close_reason().map_or(Ok((connection, None)), |error| Err(error.into()))
        }
        streams = connection.accept_bi() => {
            let (send, recv) = streams?;
            if !recv.is_0rtt() {
                complete.await;
            }
            match connection.close_reason() {
                None => Ok((connection, Some((send, recv)))),
                Some(error) => Err(error.into()),
            }
        }
    }
}
