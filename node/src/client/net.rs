//! One connection, by TCP, TLS, QUIC or WebSocket, that serves a session.
//!
//! The connection borrows the session; when it is dropped the transport is closed, with or without
//! a DISCONNECT before, and the session goes on to the next one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use verge_model::Millis;
use verge_mqtt_proto::{DecodeError, DecodeLimits, QoS, ReasonCode, decode};

use super::address::{Address, Scheme};
use super::event::{Event, Fault, Refused};
use super::outgoing::{Publication, Ticket};
use super::quic::QuicStream;
use super::session::ClientSession;
use super::web::Web;
use crate::clock::Clock;

/// Bytes read from the socket at once.
const READ_BYTES: usize = 16 << 10;

/// Largest packet the client takes from a server.
const PACKET_BYTES_MAX: usize = 64 << 20;

/// How long a server may take to end its side of a stream.
const STREAM_END: Duration = Duration::from_secs(10);

/// Events set aside while [`Connection::wait`] looks for one outcome.
const ASIDE_MAX: usize = 100_000;

/// The connection failed, or never came to be. The session is unharmed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The transport failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Transport, handshake or CONNACK took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The server has refused the connection.
    #[error("refused: {}", .0.name())]
    Refused(ReasonCode),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The server sent what is no MQTT.
    #[error("not MQTT: {0}")]
    Malformed(#[from] DecodeError),
    /// The server broke the protocol, or fell silent.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The session cannot do what was asked.
    #[error(transparent)]
    Session(#[from] Refused),
    /// `tls://`, `quic://` or `wss://` without a TLS configuration, or a name that no certificate can
    /// hold.
    #[error("TLS: {0}")]
    Tls(String),
    /// More came than [`Connection::wait`] can set aside.
    #[error("more than {ASIDE_MAX} messages came while waiting for an answer")]
    Backlog,
}

/// The bytes of a connection.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// What [`Connection::connect`] needs beside the session.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// From the first packet to CONNACK.
    pub timeout: Duration,
    /// For `tls://`, `quic://` and `wss://` addresses.
    pub tls: Option<Arc<ClientConfig>>,
}

/// An open connection of a session.
pub struct Connection<'s> {
    session: &'s mut ClientSession,
    reader: ReadHalf<Box<dyn Transport>>,
    writer: WriteHalf<Box<dyn Transport>>,
    clock: Clock,
    received: BytesMut,
    /// What the session gave to write, and the transport has not taken yet.
    sending: Bytes,
    /// Whether the transport may still hold bytes it took.
    flush_due: bool,
    /// Whether the server resumed a session it had.
    session_present: bool,
    discarded: Vec<Ticket>,
    connack_after: Duration,
    /// Where further streams can be opened.
    streams: Option<quinn::Connection>,
}

impl<'s> Connection<'s> {
    /// Connects to a server and waits for its CONNACK.
    ///
    /// # Errors
    /// The server cannot be reached in time, or refuses.
    pub async fn connect(
        address: &Address,
        options: &ConnectOptions,
        session: &'s mut ClientSession,
    ) -> Result<Self, NetError> {
        let deadline = Instant::now() + options.timeout;
        let late = |_| NetError::Timeout(options.timeout);
        let opened = timeout_at(deadline, open(address, options)).await.map_err(late)??;
        let (transport, streams) = opened;
        let mut connection = Self::over(transport, session);
        connection.streams = streams;
        let now = connection.clock.now().mono;
        connection.session.handle_connected(now);
        let asked = Instant::now();
        let answer =
            |event: &Event| matches!(event, Event::Connected { .. } | Event::Refused { .. });
        match timeout_at(deadline, connection.take(answer)).await.map_err(late)?? {
            Event::Connected { session_present, discarded } => {
                connection.session_present = session_present;
                connection.discarded = discarded;
                connection.connack_after = asked.elapsed();
                Ok(connection)
            }
            Event::Refused { reason, .. } => Err(NetError::Refused(reason)),
            Event::Message(_)
            | Event::Published(..)
            | Event::Subscribed(..)
            | Event::Unsubscribed(..)
            | Event::Disconnected { .. } => Err(NetError::Closed),
        }
    }

    fn over(transport: Box<dyn Transport>, session: &'s mut ClientSession) -> Self {
        let (reader, writer) = tokio::io::split(transport);
        Self {
            session,
            reader,
            writer,
            clock: Clock::start(),
            received: BytesMut::new(),
            sending: Bytes::new(),
            flush_due: false,
            session_present: false,
            discarded: Vec::new(),
            connack_after: Duration::ZERO,
            streams: None,
        }
    }

    /// Opens a further stream for a session of its own, with a part of what the server takes
    /// unacknowledged: its Receive Maximum is that of all streams together.
    ///
    /// # Errors
    /// The transport has no streams, or is lost.
    pub async fn open_stream<'t>(
        &self,
        session: &'t mut ClientSession,
        share: usize,
    ) -> Result<Connection<'t>, NetError> {
        let unsupported = || NetError::Io(io::ErrorKind::Unsupported.into());
        let stream = QuicStream::further(self.streams.clone().ok_or_else(unsupported)?).await?;
        let (receive_maximum, packet_bytes_max) = self.session.granted();
        let part = usize::from(receive_maximum) / share.max(1);
        let part = u16::try_from(part).unwrap_or(receive_maximum).max(1);
        session.handle_joined(part, packet_bytes_max);
        Ok(Connection::over(Box::new(stream), session))
    }

    /// Ends a further stream: the server has handled all of it when it ends its side.
    ///
    /// # Errors
    /// The transport failed before.
    pub async fn end_stream(mut self) -> Result<(), NetError> {
        self.writer.write_all(&self.sending).await?;
        let now = self.clock.now().mono;
        while let Some(bytes) = self.session.poll_transmit(now) {
            self.writer.write_all(&bytes).await?;
        }
        self.writer.shutdown().await?;
        let deadline = Instant::now() + STREAM_END;
        let late = |_| NetError::Timeout(STREAM_END);
        loop {
            self.received.clear();
            let read = self.reader.read_buf(&mut self.received);
            if timeout_at(deadline, read).await.map_err(late)?? == 0 {
                return Ok(());
            }
        }
    }

    /// The next event. Reads, writes and keeps the connection alive meanwhile, so something must be
    /// waiting for events all the time; dropping the future loses nothing.
    ///
    /// # Errors
    /// The connection is of no further use.
    pub async fn next(&mut self) -> Result<Event, NetError> {
        self.take(|_| true).await
    }

    /// Waits until the outcome of `ticket` is known; other events keep their order for
    /// [`next`](Self::next).
    ///
    /// # Errors
    /// The connection ended before.
    pub async fn wait(&mut self, ticket: Ticket) -> Result<Vec<ReasonCode>, NetError> {
        let answer = |event: &Event| match event {
            Event::Published(done, _)
            | Event::Subscribed(done, _)
            | Event::Unsubscribed(done, _) => *done == ticket,
            Event::Disconnected { .. } => true,
            Event::Connected { .. } | Event::Refused { .. } | Event::Message(_) => false,
        };
        match self.take(answer).await? {
            Event::Published(_, reason) => Ok(vec![reason]),
            Event::Subscribed(_, reasons) | Event::Unsubscribed(_, reasons) => Ok(reasons),
            Event::Disconnected { .. }
            | Event::Connected { .. }
            | Event::Refused { .. }
            | Event::Message(_) => Err(NetError::Closed),
        }
    }

    /// Publishes a message; its outcome comes as [`Event::Published`].
    ///
    /// # Errors
    /// The session holds as many publications as it may.
    pub fn publish(&mut self, publication: Publication) -> Result<Ticket, NetError> {
        Ok(self.session.publish(publication)?)
    }

    /// Subscribes and waits for the answer.
    ///
    /// # Errors
    /// The connection ended before.
    pub async fn subscribe(
        &mut self,
        filters: &[(&str, QoS)],
    ) -> Result<Vec<ReasonCode>, NetError> {
        let ticket = self.session.subscribe(filters)?;
        self.wait(ticket).await
    }

    /// Says goodbye and closes.
    ///
    /// # Errors
    /// The transport failed before the goodbye was written.
    pub async fn disconnect(mut self) -> Result<(), NetError> {
        self.writer.write_all(&self.sending).await?;
        self.session.disconnect();
        let now = self.clock.now().mono;
        while let Some(bytes) = self.session.poll_transmit(now) {
            self.writer.write_all(&bytes).await?;
        }
        self.writer.shutdown().await?;
        Ok(())
    }

    /// Whether the server resumed a session it had.
    #[must_use]
    pub fn session_present(&self) -> bool {
        self.session_present
    }

    /// Publications that were in flight in a session the server does not know.
    #[must_use]
    pub fn discarded(&self) -> &[Ticket] {
        &self.discarded
    }

    /// The time from CONNECT to CONNACK.
    #[must_use]
    pub fn connack_after(&self) -> Duration {
        self.connack_after
    }

    /// Publications the server has not taken over yet.
    #[must_use]
    pub fn publications(&self) -> usize {
        self.session.publications()
    }

    /// The first event that is wanted. Others stay with the session, in order, also when the
    /// connection fails.
    async fn take(&mut self, wanted: impl Fn(&Event) -> bool) -> Result<Event, NetError> {
        loop {
            if let Some(event) = self.session.take_event(&wanted) {
                return Ok(event);
            }
            if self.session.events() > ASIDE_MAX {
                return Err(NetError::Backlog);
            }
            let now = self.clock.now().mono;
            self.session.handle_timeout(now)?;
            if self.sending.is_empty()
                && let Some(bytes) = self.session.poll_transmit(now)
            {
                self.sending = bytes;
                // What is published at QoS 0 is done when it is taken for writing.
                continue;
            }
            self.turn().await?;
        }
    }

    /// One wait for the transport or the clock.
    async fn turn(&mut self) -> Result<(), NetError> {
        let due = self.session.poll_timeout().map(|at| self.instant_of(at));
        let timer = async {
            match due {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        self.received.reserve(READ_BYTES);
        let (writer, sending) = (&mut self.writer, &self.sending);
        // How many bytes were taken, or none once everything is flushed.
        let outward = async {
            if sending.is_empty() {
                writer.flush().await.map(|()| None)
            } else {
                writer.write(sending).await.map(Some)
            }
        };
        tokio::select! {
            read = self.reader.read_buf(&mut self.received) => {
                if read? == 0 {
                    return Err(NetError::Closed);
                }
                self.take_packets()?;
            }
            taken = outward, if self.flush_due || !sending.is_empty() => {
                let taken = taken?;
                self.flush_due = taken.is_some();
                self.sending.advance(taken.unwrap_or(0));
            }
            () = timer => {}
        }
        Ok(())
    }

    fn take_packets(&mut self) -> Result<(), NetError> {
        let version = self.session.options().version;
        let limits = DecodeLimits { packet_bytes_max: PACKET_BYTES_MAX, ..DecodeLimits::default() };
        while let Some((packet, size)) = decode(&self.received, version, &limits)? {
            self.session.handle_packet(packet)?;
            self.received.advance(size);
        }
        Ok(())
    }

    fn instant_of(&self, at: Millis) -> Instant {
        Instant::from_std(self.clock.instant_of(at))
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.session.handle_closed();
    }
}

/// A transport, and what opens further streams of it.
pub(crate) type Opened = (Box<dyn Transport>, Option<quinn::Connection>);

/// Opens a transport to a server.
pub(crate) async fn open(address: &Address, options: &ConnectOptions) -> Result<Opened, NetError> {
    let trusted = || {
        let missing = || NetError::Tls("the client was given no certificates to trust".to_owned());
        options.tls.as_ref().ok_or_else(missing)
    };
    let stream = async || {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true).map(|()| stream)
    };
    let transport: Box<dyn Transport> = match address.scheme {
        Scheme::Tcp => Box::new(stream().await?),
        Scheme::Quic => {
            let stream = QuicStream::open(address, trusted()?).await?;
            let streams = stream.connection();
            return Ok((Box::new(stream), Some(streams)));
        }
        Scheme::Tls => Box::new(secured(address, trusted()?, stream().await?).await?),
        Scheme::Ws => Box::new(Web::connect(stream().await?, address).await?),
        Scheme::Wss => {
            let stream = secured(address, trusted()?, stream().await?).await?;
            Box::new(Web::connect(stream, address).await?)
        }
    };
    Ok((transport, None))
}

async fn secured(
    address: &Address,
    config: &Arc<ClientConfig>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, NetError> {
    let name = ServerName::try_from(address.host.clone())
        .map_err(|error| NetError::Tls(format!("'{}': {error}", address.host)))?;
    Ok(TlsConnector::from(Arc::clone(config)).connect(name, stream).await?)
}

#[cfg(test)]
mod tests;
