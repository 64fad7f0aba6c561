//! MQTT in WebSocket (RFC 6455; MQTT 5.0 and 3.1.1, section 6): a transport on a TCP or TLS stream.
//!
//! The protocol's formats are the library's (`tungstenite`): frame headers, close codes, the HTTP
//! exchange. Its connection type keeps a buffer of at least a frame for every client and puts
//! messages together; here payload stays where it was read, so an idle client costs a few dozen
//! bytes and a large publication is copied once less.
//!
//! | file | holds |
//! |---|---|
//! | `frames` | what a client sends, frame by frame |
//! | [`head`] | the HTTP request before, and its answers |

mod frames;
pub(super) mod head;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

pub use self::frames::Violation;
use self::frames::{Frames, Owed};

/// How much larger than the largest packet a frame may be: clients that gather what they write put
/// as much into one frame as a socket takes at once.
const FRAME_SPARE_BYTES: usize = 64 * 1024;

/// How often one call reads the stream when what comes is no payload.
const READS_MAX: usize = 8;

/// Longest header a server writes: two bytes and eight of length, without a mask.
const HEADER_BYTES_MAX: usize = 10;

/// The bytes of a WebSocket connection.
#[derive(Debug)]
pub struct Ws<S> {
    stream: S,
    frames: Frames,
    /// An answer to a ping or to a Close that is still to be written.
    owed: Option<Owed>,
    /// A control frame that is being written.
    control: Vec<u8>,
    /// What is left of the present data frame's header, at its end.
    header: [u8; HEADER_BYTES_MAX],
    header_left: u8,
    /// Payload of the present data frame that is still to be written.
    payload_left: usize,
    closing: Closing,
}

/// How far the closing handshake is (RFC 6455, 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// The connection is open.
    Open,
    /// Our Close has been put into `control`.
    Sent,
    /// The client broke the protocol: our Close is there, and what still comes is not looked at.
    Broken,
}

impl<S> Ws<S> {
    /// A connection whose HTTP exchange is over, for packets of at most `packet_bytes_max`.
    pub(super) fn new(stream: S, packet_bytes_max: usize) -> Self {
        Self {
            stream,
            frames: Frames::new((packet_bytes_max + FRAME_SPARE_BYTES) as u64),
            owed: None,
            control: Vec::new(),
            header: [0; HEADER_BYTES_MAX],
            header_left: 0,
            payload_left: 0,
            closing: Closing::Open,
        }
    }

    /// What it runs on.
    pub(super) fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Takes what was read of the stream; gives how much payload is at its front.
    pub(super) fn handle_bytes(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.frames.handle_bytes(bytes, &mut self.owed).map_err(|violation| {
            self.close(violation.code());
            self.closing = Closing::Broken;
            io::Error::new(io::ErrorKind::InvalidData, violation)
        })
    }

    /// Puts a Close in place, unless there was one. Within a data frame there is no place for one.
    fn close(&mut self, code: CloseCode) {
        if self.closing == Closing::Open && self.is_between_frames() {
            self.begin_control(Control::Close, &u16::from(code).to_be_bytes());
            self.closing = Closing::Sent;
        }
    }

    fn is_between_frames(&self) -> bool {
        self.header_left == 0 && self.payload_left == 0
    }

    fn begin_control(&mut self, kind: Control, payload: &[u8]) {
        let header = FrameHeader { opcode: OpCode::Control(kind), ..FrameHeader::default() };
        header.format(payload.len() as u64, &mut self.control).expect("memory can be written");
        self.control.extend_from_slice(payload);
    }

    fn begin_data(&mut self, payload_bytes: usize) {
        let header = FrameHeader { opcode: OpCode::Data(Data::Binary), ..FrameHeader::default() };
        let mut space = [0; HEADER_BYTES_MAX];
        let mut out = &mut space[..];
        header.format(payload_bytes as u64, &mut out).expect("the longest header has room");
        let size = HEADER_BYTES_MAX - out.len();
        self.header[HEADER_BYTES_MAX - size..].copy_from_slice(&space[..size]);
        self.header_left = size as u8;
        self.payload_left = payload_bytes;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Ws<S> {
    /// Writes what is owed, as far as it is in place between two data frames.
    fn poll_owed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.control.is_empty() {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.control))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.control.drain(..written);
                if self.control.is_empty() {
                    // An idle connection owns no buffer.
                    self.control = Vec::new();
                    ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                }
            }
            if self.owed.is_none() || !self.is_between_frames() {
                return Poll::Ready(Ok(()));
            }
            match self.owed.take() {
                Some(Owed::Pong(payload)) if self.closing == Closing::Open => {
                    self.begin_control(Control::Pong, &payload);
                }
                // A Close is answered with its own code (RFC 6455, 5.5.1).
                Some(Owed::Close(code)) => {
                    self.close(code.map_or(CloseCode::Normal, CloseCode::from));
                }
                Some(Owed::Pong(_)) | None => {}
            }
        }
    }

    /// Reads the stream until there is payload.
    fn poll_payload(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        for _ in 0..READS_MAX {
            let start = buf.filled().len();
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            let read = buf.filled().len() - start;
            if read == 0 || self.closing == Closing::Broken {
                return Poll::Ready(Ok(()));
            }
            let taken = self.handle_bytes(&mut buf.filled_mut()[start..]);
            buf.set_filled(start + *taken.as_ref().unwrap_or(&0));
            if self.owed.is_some() || !self.control.is_empty() {
                // A stream that takes nothing now is tried again with the next read or write.
                if let Poll::Ready(Err(error)) = self.poll_owed(cx) {
                    return Poll::Ready(Err(error));
                }
            }
            if taken? > 0 || self.frames.is_ended() {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Ws<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if (this.owed.is_some() || !this.control.is_empty())
            && let Poll::Ready(Err(error)) = this.poll_owed(cx)
        {
            return Poll::Ready(Err(error));
        }
        if this.frames.is_ended() {
            return Poll::Ready(Ok(()));
        }
        this.poll_payload(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Ws<S> {
    /// All of `bytes` is one binary frame [MQTT-6.0.0-1]. What is not taken must be given again,
    /// at the front of the next call.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_between_frames() {
            ready!(this.poll_owed(cx))?;
            if this.closing != Closing::Open {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if bytes.is_empty() {
                return Poll::Ready(Ok(0));
            }
            this.begin_data(bytes.len());
        }
        loop {
            let header_left = usize::from(this.header_left);
            let header = &this.header[HEADER_BYTES_MAX - header_left..];
            let payload = &bytes[..bytes.len().min(this.payload_left)];
            let slices = [io::IoSlice::new(header), io::IoSlice::new(payload)];
            let slices = if header.is_empty() { &slices[1..] } else { &slices };
            let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.header_left -= written.min(header_left) as u8;
            let taken = written.saturating_sub(header_left);
            if taken > 0 {
                this.payload_left -= taken;
                return Poll::Ready(Ok(taken));
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_owed(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    /// Says Close, and ends this side's half of the stream.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.close(CloseCode::Normal);
        ready!(this.poll_owed(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
