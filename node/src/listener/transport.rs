//! The bytes of one client: plain, TLS or QUIC, with or without WebSocket, and movable between
//! threads.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use verge_model::Millis;

use super::quic::QuicTransport;
use super::quic::transport::Moved;

use super::tls::stream::TlsStream;
use super::ws::Ws;

/// A client's transport.
pub enum Transport {
    /// Plain TCP.
    Tcp(Socket),
    /// TLS. Boxed: a session is a kilobyte, and most connections may be plain.
    Tls(Box<TlsStream<Socket>>),
    /// The control stream of a QUIC connection.
    Quic(Box<QuicTransport>),
    /// WebSocket on plain TCP. Boxed: its state is larger than a socket.
    Ws(Box<Ws<Socket>>),
    /// WebSocket on TLS.
    Wss(Box<Ws<TlsStream<Socket>>>),
}

/// A socket: of the runtime that accepted it, and then of the shard that serves its client.
///
/// The runtime keeps a few hundred bytes for each of its sockets, and a task's; a shard's own epoll
/// (`shard::ready`) keeps two bits, which are here. A socket of a shard wakes nobody: what it is
/// ready for is told by [`Socket::set_ready`].
pub struct Socket(Home);

enum Home {
    /// The runtime's; boxed, since that is what most sockets are only for a moment.
    Runtime(Box<TcpStream>),
    /// A shard's, or on its way there.
    Shard { stream: std::net::TcpStream, may_read: bool, ended: bool },
    /// Only inside [`Socket::park`], or after it failed.
    Lost,
}

/// What a socket is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// Something can be read, or the end of it.
    pub read: bool,
    /// The peer has said its last, so that it is read to the end.
    pub ended: bool,
}

impl Socket {
    /// A socket registered with the present runtime.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self(Home::Runtime(Box::new(stream)))
    }

    /// Looks at what can be read without taking it.
    pub(super) async fn peek(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Home::Runtime(stream) => stream.peek(buf).await,
            Home::Shard { stream, .. } => stream.peek(buf),
            Home::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn park(&mut self) -> io::Result<()> {
        if let Home::Runtime(stream) = std::mem::replace(&mut self.0, Home::Lost) {
            let stream = stream.into_std()?;
            self.0 = Home::Shard { stream, may_read: true, ended: false };
        }
        Ok(())
    }

    /// It became ready.
    pub fn set_ready(&mut self, ready: Ready) {
        if let Home::Shard { may_read, ended, .. } = &mut self.0 {
            *may_read |= ready.read;
            *ended |= ready.ended;
        }
    }

    /// What a shard watches.
    #[must_use]
    pub fn of_shard(&self) -> Option<&std::net::TcpStream> {
        match &self.0 {
            Home::Shard { stream, .. } => Some(stream),
            Home::Runtime(_) | Home::Lost => None,
        }
    }
}

/// Nobody is woken when the socket would block; see [`Socket`].
fn ready_or_later<T>(mut attempt: impl FnMut() -> io::Result<T>) -> Poll<io::Result<T>> {
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return Poll::Ready(done),
        }
    }
}

fn lost<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Home::Runtime(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
            Home::Shard { may_read: false, .. } => Poll::Pending,
            Home::Shard { stream, may_read, ended } => {
                let space = buf.initialize_unfilled();
                let Poll::Ready(read) = ready_or_later(|| stream.read(space)) else {
                    *may_read = false;
                    return Poll::Pending;
                };
                let count = read?;
                // Less than there was room for is all there was; more will be told, but an end that
                // was told already will not be again.
                *may_read = *ended || count == space.len();
                buf.advance(count);
                Poll::Ready(Ok(()))
            }
            Home::Lost => lost(),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Home::Runtime(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
            Home::Shard { stream, .. } => ready_or_later(|| stream.write(bytes)),
            Home::Lost => lost(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Home::Runtime(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, slices),
            Home::Shard { stream, .. } => ready_or_later(|| stream.write_vectored(slices)),
            Home::Lost => lost(),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It has no buffer of its own.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Home::Runtime(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            Home::Shard { stream, .. } => Poll::Ready(match stream.shutdown(Shutdown::Write) {
                // The peer was faster.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                done => done,
            }),
            Home::Lost => lost(),
        }
    }
}

impl Transport {
    /// Takes the socket from its runtime, so that a shard may have it.
    ///
    /// # Errors
    /// The socket is lost.
    pub fn park(&mut self) -> io::Result<()> {
        self.socket().map_or(Ok(()), Socket::park)
    }

    /// Reads what is there.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
            Self::Quic(streams) => streams.poll_read(cx, buf),
            Self::Ws(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
            Self::Wss(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
        }
    }

    /// Writes what fits.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
            Self::Quic(streams) => streams.poll_write(cx, bytes),
            Self::Ws(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
            Self::Wss(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
        }
    }

    /// Hands what TLS and WebSocket still hold to the socket.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Quic(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
            Self::Ws(stream) => Pin::new(&mut **stream).poll_flush(cx),
            Self::Wss(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    /// Ends this side's half.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            Self::Quic(streams) => streams.poll_shutdown(cx),
            Self::Ws(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            Self::Wss(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }

    /// Its socket became ready.
    pub fn set_ready(&mut self, ready: Ready) {
        if let Some(socket) = self.socket() {
            socket.set_ready(ready);
        }
    }

    /// Who is woken when more can be written: the task of a QUIC connection. A socket is watched.
    #[must_use]
    pub fn waker(&self) -> Waker {
        match self {
            Self::Quic(transport) => transport.waker(),
            Self::Tcp(_) | Self::Tls(_) | Self::Ws(_) | Self::Wss(_) => Waker::noop().clone(),
        }
    }

    /// Whether the client is reached at another address than before; only QUIC's clients move.
    pub fn moved(&mut self, now: Millis) -> Option<Moved> {
        match self {
            Self::Tcp(_) | Self::Tls(_) | Self::Ws(_) | Self::Wss(_) => None,
            Self::Quic(streams) => streams.moved(now),
        }
    }

    /// The socket of its own; QUIC's clients share one that belongs to no shard.
    pub fn socket(&mut self) -> Option<&mut Socket> {
        match self {
            Self::Tcp(socket) => Some(socket),
            Self::Tls(stream) => Some(stream.get_mut()),
            Self::Ws(stream) => Some(stream.get_mut()),
            Self::Wss(stream) => Some(stream.get_mut().get_mut()),
            Self::Quic(_) => None,
        }
    }
}

/// Small packets must not wait for an acknowledgement of the one before.
pub(super) fn accepted(stream: TcpStream) -> Socket {
    // Fails only on a connection that is gone already, which the first read will tell.
    let _ = stream.set_nodelay(true);
    Socket::new(stream)
}

/// An IPv4 client of an IPv6 socket is shown by its IPv4 address.
pub(super) fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}
