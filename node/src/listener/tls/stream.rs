//! TLS on a stream, of which an idle connection keeps the session and no buffer.
//!
//! rustls's usual connection keeps 4 KB to read records into. Its unbuffered one works on the
//! caller's bytes: here records are read into, and sealed in, one buffer of the thread, and a
//! connection owns only what could not be finished, a record whose end has not arrived or bytes the
//! peer does not take.
//!
//! ```text
//!  stream ─▶ Records (of the thread) ─▶ session ─▶ reader's buffer       rest of a record ─▶ incoming
//!  stream ◀─ Records (of the thread) ◀─ session ◀─ writer's bytes        not taken ─▶ outgoing
//! ```

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Plaintext sealed at once: four records of the largest size (RFC 8446, section 5.1).
const WRITE_BYTES_MAX: usize = 4 * 16 * 1024;

/// Bytes that rustls has not finished with, beyond which a connection is given up: the largest
/// handshake message it takes (64 KB), and the largest record.
const INCOMING_BYTES_MAX: usize = 64 * 1024 + 18 * 1024;

/// Bytes of a thread for records on their way: [`INCOMING_BYTES_MAX`] with room to read more. What
/// is sealed at once is less, with what records add (29 bytes each at most).
const RECORD_BYTES: usize = 96 * 1024;

/// How often one call reads the stream when what comes is no payload.
const READS_MAX: usize = 8;

thread_local! {
    /// Records of whichever connection is being read or written on this thread.
    static RECORDS: RefCell<Box<[u8]>> = RefCell::new(vec![0; RECORD_BYTES].into_boxed_slice());
    /// What is written in several pieces, put together.
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

type Traffic<'a> = WriteTraffic<'a, ServerConnectionData>;

/// A TLS server's end of a stream.
pub struct TlsStream<S> {
    stream: S,
    session: UnbufferedServerConnection,
    /// What was read and is not finished with: the start of a record, or of a handshake message.
    incoming: Vec<u8>,
    /// Payload the reader had no room for.
    payload: Vec<u8>,
    /// Records the stream has not taken.
    outgoing: Vec<u8>,
    /// The peer said close_notify: there is no more payload.
    peer_closed: bool,
    /// Whether close_notify was said to it.
    closed: bool,
}

/// Waits for a client's handshake.
///
/// # Errors
/// The stream ended, or the client is not let in; then it was told why if its stream took that.
pub(in crate::listener) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    config: &Arc<ServerConfig>,
    stream: S,
) -> io::Result<TlsStream<S>> {
    let session = UnbufferedServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let mut tls = TlsStream {
        stream,
        session,
        incoming: Vec::new(),
        payload: Vec::new(),
        outgoing: Vec::new(),
        peer_closed: false,
        closed: false,
    };
    poll_fn(|cx| tls.poll_handshake(cx)).await?;
    Ok(tls)
}

impl<S> TlsStream<S> {
    /// What it runs on.
    pub(in crate::listener) fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Bytes of memory it holds beside its session.
    #[cfg(test)]
    pub(in crate::listener) fn buffered(&self) -> usize {
        self.incoming.capacity() + self.payload.capacity() + self.outgoing.capacity()
    }

    /// What was agreed with the client.
    pub(in crate::listener) fn session(&self) -> &UnbufferedServerConnection {
        &self.session
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // What the stream does not take yet holds up nothing: a client may have to write before
            // it reads on, and need not read tickets at once.
            if let Poll::Ready(Err(error)) = self.poll_outgoing(cx) {
                return Poll::Ready(Err(error));
            }
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_records(cx, &mut ReadBuf::new(&mut [])))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Writes records that wait.
    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outgoing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if written == self.outgoing.len() {
                self.outgoing = Vec::new();
            } else {
                self.outgoing.drain(..written);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads the stream once and gives rustls what came. The bytes that were read; payload goes to
    /// the reader.
    fn poll_records(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        RECORDS.with_borrow_mut(|records| {
            let before = self.incoming.len();
            if before > INCOMING_BYTES_MAX {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            let mut space = ReadBuf::new(&mut records[before..]);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
            let count = space.filled().len();
            let bytes = &mut records[..before + count];
            bytes[..before].copy_from_slice(&self.incoming);
            let (done, outcome) = self.advance(bytes, reader, |_| Ok(()));
            self.keep(&bytes[done..]);
            if outcome.is_err() {
                // It is told why, if its stream takes that at once.
                self.last_words();
                let _ = self.poll_outgoing(cx);
            }
            Poll::Ready(outcome.map(|()| count))
        })
    }

    /// Seals bytes and writes them. What the stream does not take of the records waits.
    fn poll_seal(&mut self, cx: &mut Context<'_>, plain: &[u8]) -> Poll<io::Result<()>> {
        RECORDS.with_borrow_mut(|records| {
            let mut sealed = None;
            self.advance_incoming(&mut ReadBuf::new(&mut []), |traffic| {
                sealed = Some(traffic.encrypt(plain, records).map_err(io::Error::other)?);
                Ok(())
            })?;
            let Some(sealed) = sealed else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            let records = &records[..sealed];
            let mut written = 0;
            while self.outgoing.is_empty() && written < sealed {
                match Pin::new(&mut self.stream).poll_write(cx, &records[written..])? {
                    Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(count) => written += count,
                    Poll::Pending => break,
                }
            }
            self.outgoing.extend_from_slice(&records[written..]);
            Poll::Ready(Ok(()))
        })
    }
}

impl<S> TlsStream<S> {
    /// Keeps what rustls is not done with; nothing is kept of nothing.
    fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.incoming = Vec::new();
        } else {
            self.incoming.clear();
            self.incoming.extend_from_slice(rest);
        }
    }

    /// Lets rustls go on with what came before.
    fn advance_incoming(
        &mut self,
        reader: &mut ReadBuf<'_>,
        say: impl FnOnce(&mut Traffic<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut incoming = std::mem::take(&mut self.incoming);
        let (done, outcome) = self.advance(&mut incoming, reader, say);
        if done < incoming.len() {
            incoming.drain(..done);
            self.incoming = incoming;
        }
        outcome
    }

    /// Lets rustls go on until it wants more bytes; then `say` may speak, once the handshake is
    /// over. How many of the bytes are done with. The others are to be given again: rustls
    /// remembers what is where in them.
    fn advance(
        &mut self,
        bytes: &mut [u8],
        reader: &mut ReadBuf<'_>,
        say: impl FnOnce(&mut Traffic<'_>) -> io::Result<()>,
    ) -> (usize, io::Result<()>) {
        let mut done = 0;
        loop {
            let UnbufferedStatus { discard, state } =
                self.session.process_tls_records(&mut bytes[done..]);
            done += discard;
            let outcome = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                    match traffic.next_record() {
                        None => break Ok(()),
                        Some(Err(error)) => break Err(invalid(error)),
                        Some(Ok(record)) => {
                            done += record.discard;
                            let is_next = self.payload.is_empty();
                            let room = if is_next { reader.remaining() } else { 0 };
                            let (now, later) =
                                record.payload.split_at(room.min(record.payload.len()));
                            reader.put_slice(now);
                            self.payload.extend_from_slice(later);
                        }
                    }
                },
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut self.outgoing, &mut data)
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    Ok(())
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.peer_closed = true;
                    Ok(())
                }
                Ok(ConnectionState::WriteTraffic(mut traffic)) => return (done, say(&mut traffic)),
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => {
                    return (done, Ok(()));
                }
                // Early data, which is not offered.
                Ok(_) => Err(io::ErrorKind::InvalidData.into()),
                Err(error) => Err(invalid(error)),
            };
            if outcome.is_err() {
                return (done, outcome);
            }
        }
    }

    /// After an error, the alert that says so.
    fn last_words(&mut self) {
        let mut incoming = std::mem::take(&mut self.incoming);
        let UnbufferedStatus { state, .. } = self.session.process_tls_records(&mut incoming);
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = state {
            // There is no more to be done for it.
            let _ = encode(&mut self.outgoing, &mut data);
        }
    }

    /// Puts close_notify in place, unless it was.
    fn close(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        let mut alert = Vec::new();
        let said = self.advance_incoming(&mut ReadBuf::new(&mut []), |traffic| {
            let size = match traffic.queue_close_notify(&mut []) {
                Ok(_) => return Ok(()),
                Err(EncryptError::InsufficientSize(size)) => size.required_size,
                Err(error) => return Err(io::Error::other(error)),
            };
            alert.resize(size, 0);
            traffic.queue_close_notify(&mut alert).map(drop).map_err(io::Error::other)
        });
        self.outgoing.append(&mut alert);
        said
    }
}

fn encode(out: &mut Vec<u8>, data: &mut EncodeTlsData<'_, ServerConnectionData>) -> io::Result<()> {
    let start = out.len();
    let size = match data.encode(&mut []) {
        Ok(_) => return Ok(()),
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        Err(error) => return Err(io::Error::other(error)),
    };
    out.resize(start + size, 0);
    data.encode(&mut out[start..]).map(drop).map_err(io::Error::other)
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.payload.is_empty() {
            let count = buf.remaining().min(this.payload.len());
            buf.put_slice(&this.payload[..count]);
            this.payload.drain(..count);
            if this.payload.is_empty() {
                this.payload = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        for _ in 0..READS_MAX {
            // What rustls has to say goes out when the stream takes it, and holds up no reader.
            if let Poll::Ready(Err(error)) = this.poll_outgoing(cx) {
                return Poll::Ready(Err(error));
            }
            if this.peer_closed {
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            let read = ready!(this.poll_records(cx, buf))?;
            if buf.filled().len() > before || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if read == 0 && !this.peer_closed {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    /// Takes bytes only when the records before are out.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_outgoing(cx))?;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let plain = &bytes[..bytes.len().min(WRITE_BYTES_MAX)];
        ready!(this.poll_seal(cx, plain))?;
        Poll::Ready(Ok(plain.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [slice] = slices {
            return self.poll_write(cx, slice);
        }
        GATHERED.with_borrow_mut(|gathered| {
            gathered.clear();
            for slice in slices {
                let room = WRITE_BYTES_MAX - gathered.len();
                gathered.extend_from_slice(&slice[..slice.len().min(room)]);
            }
            self.poll_write(cx, gathered)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_outgoing(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    /// Says close_notify, and ends this side's half of the stream.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.close()?;
        ready!(this.poll_outgoing(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
