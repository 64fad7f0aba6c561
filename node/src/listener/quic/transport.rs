//! A QUIC connection as its shard sees it: the control stream, the others, and how the whole ends.
//!
//! What bites in quinn: a `SendStream` that is dropped sends FIN and not RESET, and a connection
//! that is closed forgets what its streams still had to send. So the end is: FIN, wait for its
//! acknowledgement, at most [`FIN_WAIT`], then CONNECTION_CLOSE with code 0. A connection that is
//! dropped before is closed with code 1: its control stream is gone.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use tokio::io::{AsyncWrite, ReadBuf};
use tokio::time::timeout;
use verge_broker_core::shard::streams::api::{StreamKind, StreamNo};
use verge_model::Millis;

use super::close::CloseCode;
use super::streams::Streams;
use crate::listener::transport::canonical;

/// How long the client may take to acknowledge the last bytes.
const FIN_WAIT: Duration = Duration::from_secs(1);

/// Priority of the control stream: what keeps the session alive goes before what it carries.
const CONTROL_PRIORITY: i32 = 16;

/// Changes of the client's address within [`MOVES_WINDOW`]. A vehicle changes cells every few
/// seconds at worst; more is an attack on whatever follows addresses.
const MOVES_MAX: u8 = 10;

/// See [`MOVES_MAX`].
const MOVES_WINDOW: Duration = Duration::from_secs(60);

/// A client's connection.
pub struct QuicTransport {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    streams: Streams,
    end: End,
    /// Where the client was last.
    peer: SocketAddr,
    moves: u8,
    moves_since: Millis,
    /// The connection's task.
    waker: Waker,
}

/// How far the end is.
enum End {
    Open,
    /// FIN was sent; its acknowledgement, or the end of patience, is awaited.
    Finishing(Pin<Box<dyn Future<Output = ()> + Send>>),
    Done,
}

/// What became of the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It is reached at another address now.
    To(SocketAddr),
    /// It changed too often.
    TooOften,
}

impl QuicTransport {
    /// A connection whose control stream was opened.
    #[must_use]
    pub fn new(
        connection: Connection,
        send: SendStream,
        recv: RecvStream,
        peer: SocketAddr,
    ) -> Self {
        // Fails only on a stream that is closed already, which the first write will tell.
        let _ = send.set_priority(CONTROL_PRIORITY);
        let streams = Streams::new(&connection);
        let (end, moves_since) = (End::Open, Millis::default());
        let waker = Waker::noop().clone();
        Self { connection, send, recv, streams, end, peer, moves: 0, moves_since, waker }
    }

    /// The connection's task is this one.
    pub fn set_waker(&mut self, waker: &Waker) {
        self.waker.clone_from(waker);
    }

    /// A waker of the connection's task.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Wakes the connection's task.
    pub fn wake(&self) {
        self.waker.wake_by_ref();
    }

    /// The client's half of the control stream.
    pub(super) fn receiver(&mut self) -> &mut RecvStream {
        &mut self.recv
    }

    /// The streams beside the control stream.
    pub fn streams(&mut self) -> &mut Streams {
        &mut self.streams
    }

    /// The next stream the client opened.
    pub fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(StreamNo, StreamKind), ConnectionError>> {
        self.streams.poll_accept(&self.connection, cx)
    }

    /// The client is served and uses this stream: it may have more of the kind.
    pub fn raise_limits(&mut self, no: StreamNo) {
        if let Some(kind) = self.streams.get_mut(no).map(|stream| stream.kind()) {
            self.streams.raise(&self.connection, kind);
        }
    }

    /// Reads what is there of the control stream.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if matches!(self.end, End::Done) {
            return Poll::Ready(Ok(()));
        }
        self.recv.poll_read_buf(cx, buf).map_err(io::Error::from)
    }

    /// Writes what fits into the control stream.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, bytes)
    }

    /// Ends the connection in order.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.end {
                End::Open => {
                    // Fails only if the stream is finished or reset already.
                    let _ = self.send.finish();
                    let acknowledged = self.send.stopped();
                    self.end = End::Finishing(Box::pin(async {
                        let _ = timeout(FIN_WAIT, acknowledged).await;
                    }));
                }
                End::Finishing(acknowledged) => {
                    std::task::ready!(acknowledged.as_mut().poll(cx));
                    self.connection.close(CloseCode::NoError.varint(), b"");
                    self.end = End::Done;
                }
                End::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Datagrams that came from the client.
    #[must_use]
    pub fn heard(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    /// Whether the client moved since this was asked last.
    pub fn moved(&mut self, now: Millis) -> Option<Moved> {
        let peer = canonical(self.connection.remote_address());
        if peer == self.peer {
            return None;
        }
        if self.moves == 0 || self.moves_since + MOVES_WINDOW <= now {
            (self.moves, self.moves_since) = (0, now);
        }
        self.moves += 1;
        self.peer = peer;
        Some(if self.moves > MOVES_MAX { Moved::TooOften } else { Moved::To(peer) })
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        let code = match self.end {
            End::Open => CloseCode::ControlStreamDown,
            End::Finishing(_) | End::Done => CloseCode::NoError,
        };
        // A connection that is closed already stays as it is.
        self.connection.close(code.varint(), b"");
        // Its task finds that there is nothing left, and ends.
        self.waker.wake_by_ref();
    }
}
