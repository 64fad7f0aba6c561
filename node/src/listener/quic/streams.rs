//! The streams of a connection beside its control stream.
//!
//! No stream has a task or a read buffer of its own: the connection's one task polls all of them,
//! and they are read into the shard's scratch buffer. The broker opens none.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::io::ReadBuf;
use verge_broker_core::shard::streams::api::{StreamKind, StreamNo};
use verge_model::Millis;

use super::endpoint::{self, STREAM_WINDOW};

/// Bidirectional streams a client may have open once it uses them.
const BIDI_STREAMS_RAISED: u32 = 32;

/// Unidirectional streams a client may have open once it uses them. Some clients open one for each
/// PUBLISH, so that this many messages are under way in a round trip.
const UNI_STREAMS_RAISED: u32 = 64;

/// The streams of one connection. Empty, it costs the memory of what waits for a new one.
pub struct Streams {
    accept: Accept,
    table: BTreeMap<StreamNo, Stream>,
    /// Bytes of packets whose end has not arrived, on all streams.
    pub partial_bytes: usize,
    bidi: u32,
    uni: u32,
}

/// One stream.
pub struct Stream {
    /// There until the client's half has ended, and for a publish stream the only half.
    recv: Option<RecvStream>,
    /// There unless it is a publish stream.
    send: Option<SendStream>,
    /// The start of a packet.
    pub partial: Vec<u8>,
    /// Since when the client takes nothing of what there is.
    pub blocked_since: Option<Millis>,
    /// Whether somebody looks after [`Stream::blocked_since`].
    pub watched: bool,
    /// Datagrams the client had sent when it was looked after last.
    pub heard: Option<u64>,
    /// The last bytes, before FIN.
    pub last: Option<Bytes>,
    priority: i32,
}

type Accept = Pin<Box<dyn Future<Output = Result<Opened, ConnectionError>> + Send>>;

/// A stream the client opened.
type Opened = (Option<SendStream>, RecvStream);

/// What came of reading.
#[derive(Debug)]
pub enum Read {
    /// This many bytes.
    Bytes(usize),
    /// The client's half ended.
    End,
    /// The client reset it, and our half was reset in return.
    Reset,
    /// The connection is lost, which its control stream tells.
    Lost,
}

/// What came of writing.
#[derive(Debug)]
pub enum Written {
    /// This many bytes were taken.
    Bytes(usize),
    /// The client wants no more of it; both halves were reset.
    Stopped,
    /// The connection is lost, which its control stream tells.
    Lost,
}

/// The client's next stream. Both kinds are waited for by one future, which must live as long as
/// it is to be woken.
async fn accept(connection: Connection) -> Result<Opened, ConnectionError> {
    let (mut bidi, mut uni) = (pin!(connection.accept_bi()), pin!(connection.accept_uni()));
    poll_fn(|cx| {
        if let Poll::Ready(opened) = bidi.as_mut().poll(cx) {
            return Poll::Ready(opened.map(|(send, recv)| (Some(send), recv)));
        }
        uni.as_mut().poll(cx).map_ok(|recv| (None, recv))
    })
    .await
}

impl Streams {
    /// None yet.
    pub(super) fn new(connection: &Connection) -> Self {
        Self {
            accept: Box::pin(accept(connection.clone())),
            table: BTreeMap::new(),
            partial_bytes: 0,
            bidi: endpoint::BIDI_STREAMS,
            uni: endpoint::UNI_STREAMS,
        }
    }

    /// The next stream the client opened.
    pub(super) fn poll_accept(
        &mut self,
        connection: &Connection,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(StreamNo, StreamKind), ConnectionError>> {
        let (send, recv) = std::task::ready!(self.accept.as_mut().poll(cx))?;
        self.accept = Box::pin(accept(connection.clone()));
        let no = StreamNo(VarInt::from(recv.id()).into_inner());
        let kind = if send.is_some() { StreamKind::Data } else { StreamKind::Publish };
        self.table.insert(no, Stream::new(send, recv));
        Poll::Ready(Ok((no, kind)))
    }

    /// Lets a client that uses streams of a kind have more of them, and the bytes for them. Never
    /// taken back: a client that resumes remembers what it was granted.
    pub(super) fn raise(&mut self, connection: &Connection, kind: StreamKind) {
        let (limit, raised) = match kind {
            StreamKind::Data => (&mut self.bidi, BIDI_STREAMS_RAISED),
            StreamKind::Publish => (&mut self.uni, UNI_STREAMS_RAISED),
        };
        if *limit == raised {
            return;
        }
        *limit = raised;
        // Windows together hold what all streams may send, so that none can stop the others.
        let window = STREAM_WINDOW * (self.bidi + self.uni + 1);
        connection.set_receive_window(window.into());
        match kind {
            StreamKind::Data => connection.set_max_concurrent_bi_streams(raised.into()),
            StreamKind::Publish => connection.set_max_concurrent_uni_streams(raised.into()),
        }
    }

    /// The first stream whose number is at least `from`.
    #[must_use]
    pub fn next(&self, from: StreamNo) -> Option<StreamNo> {
        self.table.range(from..).next().map(|(no, _)| *no)
    }

    /// A stream.
    pub fn get_mut(&mut self, no: StreamNo) -> Option<&mut Stream> {
        self.table.get_mut(&no)
    }

    /// Forgets a stream; what was written and finished still goes out.
    pub fn remove(&mut self, no: StreamNo) {
        if let Some(stream) = self.table.remove(&no) {
            self.partial_bytes -= stream.partial.len();
        }
    }

    /// Resets both halves of a stream.
    pub fn reset(&mut self, no: StreamNo, code: u8) {
        if let Some(stream) = self.table.get_mut(&no) {
            stream.reset(code.into());
        }
        self.remove(no);
    }
}

impl Stream {
    fn new(send: Option<SendStream>, recv: RecvStream) -> Self {
        Self {
            recv: Some(recv),
            send,
            partial: Vec::new(),
            blocked_since: None,
            watched: false,
            heard: None,
            last: None,
            priority: 0,
        }
    }

    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> StreamKind {
        if self.send.is_some() { StreamKind::Data } else { StreamKind::Publish }
    }

    /// Reads what is there.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<Read> {
        let Some(recv) = &mut self.recv else { return Poll::Pending };
        let mut buf = ReadBuf::new(bytes);
        Poll::Ready(match std::task::ready!(recv.poll_read_buf(cx, &mut buf)) {
            Ok(()) if buf.filled().is_empty() => {
                self.recv = None;
                Read::End
            }
            Ok(()) => Read::Bytes(buf.filled().len()),
            Err(ReadError::Reset(code)) => {
                self.reset(code);
                Read::Reset
            }
            Err(
                ReadError::ConnectionLost(_)
                | ReadError::ClosedStream
                | ReadError::IllegalOrderedRead
                | ReadError::ZeroRttRejected,
            ) => Read::Lost,
        })
    }

    /// Writes what fits.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Written> {
        let Some(send) = &mut self.send else { return Poll::Ready(Written::Lost) };
        Poll::Ready(match std::task::ready!(Pin::new(send).poll_write(cx, bytes)) {
            Ok(count) => Written::Bytes(count),
            Err(WriteError::Stopped(code)) => {
                self.reset(code);
                Written::Stopped
            }
            Err(
                WriteError::ConnectionLost(_)
                | WriteError::ClosedStream
                | WriteError::ZeroRttRejected,
            ) => Written::Lost,
        })
    }

    /// How urgent what is written next is; the greater the sooner.
    pub fn set_priority(&mut self, priority: i32) {
        if let Some(send) = self.send.as_ref().filter(|_| self.priority != priority) {
            // Fails only on a stream that is closed, which the write will tell.
            let _ = send.set_priority(priority);
            self.priority = priority;
        }
    }

    /// Says that nothing more is written.
    pub fn finish(&mut self) {
        if let Some(send) = &mut self.send {
            // Fails only if it is finished or reset already.
            let _ = send.finish();
        }
    }

    /// A half that is dropped would say FIN, or stop with code 0: both are told the reason. Fails
    /// only on halves that have ended.
    fn reset(&mut self, code: VarInt) {
        if let Some(send) = &mut self.send {
            let _ = send.reset(code);
        }
        if let Some(recv) = &mut self.recv {
            let _ = recv.stop(code);
        }
    }
}
