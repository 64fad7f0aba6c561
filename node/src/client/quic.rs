//! Streams of the client's QUIC connection.
//!
//! What MQTT sends over TCP goes unchanged over stream 0. Which topics must stay in order with which,
//! and so on one stream, only the application knows.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, Endpoint, IdleTimeout, RecvStream, SendStream, TransportConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::address::Address;
use super::net::NetError;
use crate::listener::quic::ALPN;
use crate::listener::quic::close::CloseCode;

/// What this side would wait for a silent server. MQTT's keep alive notices it earlier.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1_800);

/// How long the server may take to acknowledge the last bytes.
const FIN_WAIT: Duration = Duration::from_secs(1);

/// Stream 0 of a connection of its own, or a further stream of it.
pub struct QuicStream {
    connection: quinn::Connection,
    send: SendStream,
    recv: RecvStream,
    /// The server's acknowledgement of our end.
    ending: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Stream 0's: it ends with the last of its connections; kept so that it does not end before.
    endpoint: Option<Endpoint>,
}

impl QuicStream {
    /// Connects to the first address of the server that answers, and opens stream 0.
    ///
    /// # Errors
    /// The server cannot be reached, or its certificate is not trusted.
    pub async fn open(
        address: &Address,
        tls: &Arc<rustls::ClientConfig>,
    ) -> Result<Self, NetError> {
        let config = client_config(tls)?;
        let mut last = NetError::Io(io::ErrorKind::AddrNotAvailable.into());
        for addr in lookup_host((address.host.as_str(), address.port)).await? {
            match Self::open_at(addr, &address.host, config.clone()).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn open_at(
        addr: SocketAddr,
        host: &str,
        config: quinn::ClientConfig,
    ) -> Result<Self, NetError> {
        let here = match addr {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        Self::open_on(Endpoint::client(here)?, addr, host, config).await
    }

    /// Opens stream 0 of one more connection of an endpoint, whose socket it shares.
    ///
    /// # Errors
    /// As for [`QuicStream::open`].
    pub(crate) async fn open_on(
        endpoint: Endpoint,
        addr: SocketAddr,
        host: &str,
        config: quinn::ClientConfig,
    ) -> Result<Self, NetError> {
        let connecting = endpoint
            .connect_with(config, addr, host)
            .map_err(|error| NetError::Tls(format!("'{host}': {error}")))?;
        let connection = connecting.await.map_err(refused)?;
        let (send, recv) = connection.open_bi().await.map_err(refused)?;
        Ok(Self { connection, send, recv, ending: None, endpoint: Some(endpoint) })
    }

    /// Opens a further stream of a connection.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn further(connection: quinn::Connection) -> Result<Self, NetError> {
        let (send, recv) = connection.open_bi().await.map_err(refused)?;
        Ok(Self { connection, send, recv, ending: None, endpoint: None })
    }

    /// The connection, to open further streams of it.
    #[must_use]
    pub fn connection(&self) -> quinn::Connection {
        self.connection.clone()
    }

    /// A stream's error says that the connection is lost; the connection's says why.
    fn explained(&self, error: io::Error) -> io::Error {
        match self.connection.close_reason() {
            Some(reason) => io::Error::new(error.kind(), reason),
            None => error,
        }
    }
}

/// What a client of MQTT asks of QUIC.
pub(crate) fn client_config(
    tls: &Arc<rustls::ClientConfig>,
) -> Result<quinn::ClientConfig, NetError> {
    let mut tls = rustls::ClientConfig::clone(tls);
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto =
        QuicClientConfig::try_from(tls).map_err(|error| NetError::Tls(error.to_string()))?;
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("half an hour fits into 62 bits");
    transport
        .max_concurrent_bidi_streams(0_u8.into())
        .max_concurrent_uni_streams(0_u8.into())
        .max_idle_timeout(Some(idle))
        .datagram_receive_buffer_size(None);
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// A handshake that failed, in the words of the other transports.
fn refused(error: ConnectionError) -> NetError {
    match error {
        ConnectionError::TransportError(error) => NetError::Tls(error.to_string()),
        ConnectionError::ConnectionClosed(close) => NetError::Tls(close.to_string()),
        ConnectionError::VersionMismatch
        | ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => NetError::Io(error.into()),
    }
}

impl AsyncRead for QuicStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = AsyncRead::poll_read(Pin::new(&mut self.recv), cx, buf);
        read.map_err(|error| self.explained(error))
    }
}

impl AsyncWrite for QuicStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = AsyncWrite::poll_write(Pin::new(&mut self.send), cx, bytes);
        written.map_err(|error| self.explained(error))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends the stream and waits until the server has all of it: a connection that is closed
    /// forgets what it still had to send.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ending.is_none() {
            // Fails only if the stream is finished already.
            let _ = self.send.finish();
            let acknowledged = self.send.stopped();
            self.ending = Some(Box::pin(async {
                let _ = timeout(FIN_WAIT, acknowledged).await;
            }));
        }
        let Some(ending) = &mut self.ending else { return Poll::Ready(Ok(())) };
        ending.as_mut().poll(cx).map(Ok)
    }
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        if self.endpoint.is_some() {
            self.connection.close(CloseCode::NoError.varint(), b"");
        }
    }
}
