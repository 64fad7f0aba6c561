//! The bytes of one client: plain, TLS or QUIC, with or without WebSocket, and movable between
//! threads.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use verge_model::Millis;

use super::quic::QuicTransport;
use super::quic::transport::Moved;

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

/// A socket that belongs to one runtime, or is on its way to another.
///
/// A connection is accepted by one thread and served by the one its client's session lives on.
/// Between the two it is parked: registered with no reactor.
pub struct Socket(Registration);

enum Registration {
    With(TcpStream),
    Parked(std::net::TcpStream),
    /// Only inside [`Socket::park`] and [`Socket::resume`], or after one of them failed.
    Lost,
}

impl Socket {
    /// A socket registered with the present runtime.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self(Registration::With(stream))
    }

    /// Looks at what can be read without taking it.
    pub(super) async fn peek(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream()?.peek(buf).await
    }

    fn park(&mut self) -> io::Result<()> {
        if let Registration::With(stream) = std::mem::replace(&mut self.0, Registration::Lost) {
            self.0 = Registration::Parked(stream.into_std()?);
        }
        Ok(())
    }

    fn resume(&mut self) -> io::Result<()> {
        if let Registration::Parked(stream) = std::mem::replace(&mut self.0, Registration::Lost) {
            self.0 = Registration::With(TcpStream::from_std(stream)?);
        }
        Ok(())
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match &mut self.0 {
            Registration::With(stream) => Ok(Pin::new(stream)),
            Registration::Parked(_) | Registration::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}

impl Transport {
    /// Takes the socket from its runtime, so that another thread may have it.
    ///
    /// # Errors
    /// The socket is lost.
    pub fn park(&mut self) -> io::Result<()> {
        self.socket().map_or(Ok(()), Socket::park)
    }

    /// Registers the socket with the present runtime.
    ///
    /// # Errors
    /// The socket is lost.
    pub fn resume(&mut self) -> io::Result<()> {
        self.socket().map_or(Ok(()), Socket::resume)
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

    /// Whether the client is reached at another address than before; only QUIC's clients move.
    pub fn moved(&mut self, now: Millis) -> Option<Moved> {
        match self {
            Self::Tcp(_) | Self::Tls(_) | Self::Ws(_) | Self::Wss(_) => None,
            Self::Quic(streams) => streams.moved(now),
        }
    }

    /// The socket of its own; QUIC's clients share one that belongs to no shard.
    fn socket(&mut self) -> Option<&mut Socket> {
        match self {
            Self::Tcp(socket) => Some(socket),
            Self::Tls(stream) => Some(stream.get_mut().0),
            Self::Ws(stream) => Some(stream.get_mut()),
            Self::Wss(stream) => Some(stream.get_mut().get_mut().0),
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
