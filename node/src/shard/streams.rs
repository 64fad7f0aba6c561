//! The streams of QUIC connections, polled by the task of their connection.
//!
//! Streams are read before the control stream: a client that publishes on one of them and then says
//! DISCONNECT meant this order, even if QUIC promises none.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use verge_broker_core::shard::api::ConnId;
use verge_broker_core::shard::streams::api::{StreamCode, StreamEnd, StreamNo};
use verge_model::{Millis, Now};
use verge_mqtt_proto::ReasonCode;

use super::turn::Driver;
use crate::listener::quic::QuicTransport;
use crate::listener::quic::streams::{Read, Stream, Streams, Written};
use crate::listener::transport::Transport;

/// Streams taken from one client at once. One that opens and ends them as fast as it can must let
/// others have their turn.
const ACCEPTS_MAX: usize = 32;

/// How often one stream may be read before the others have their turn.
const READS_MAX: usize = 2;

/// How long a client that is heard of may take nothing of a stream while its control stream is
/// written: the rest of the connection shares the window that the stream holds.
const STALL: Duration = Duration::from_secs(10);

/// How long a client is listened for before its stream is given up. One that is out of reach says
/// nothing, and keeps its streams.
const LISTEN: Duration = Duration::from_secs(1);

/// Bytes of packets whose end has not arrived, on all data streams of one client. One large packet
/// at a time is usual; many at once would multiply what a client can hold here.
const PARTIAL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Streams that are not read, oldest first, and when each is given up.
#[derive(Debug, Default)]
pub(super) struct Stalls(VecDeque<(Millis, ConnId, StreamNo)>);

impl Stalls {
    /// When [`Driver::end_stalls`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.0.front().map(|(due, ..)| *due)
    }
}

impl Driver {
    fn quic(&mut self, id: ConnId) -> Option<&mut QuicTransport> {
        let Transport::Quic(transport) = &mut self.connections.get_mut(id)?.transport else {
            return None;
        };
        Some(transport)
    }

    fn streams(&mut self, id: ConnId) -> Option<&mut Streams> {
        self.quic(id).map(QuicTransport::streams)
    }

    fn stream(&mut self, id: ConnId, no: StreamNo) -> Option<&mut Stream> {
        self.streams(id)?.get_mut(no)
    }

    /// Takes new streams, and reads and writes all there are.
    pub(super) fn poll_streams(&mut self, id: ConnId, cx: &mut Context<'_>) {
        if self.quic(id).is_none() {
            return;
        }
        let now = self.clock.now();
        let mut busy = true;
        for _ in 0..ACCEPTS_MAX {
            let Some(transport) = self.quic(id) else { return };
            let Poll::Ready(Ok((no, kind))) = transport.poll_accept(cx) else {
                busy = false;
                break;
            };
            self.core.handle_stream_open(id, no, kind, now);
            self.wake_turn();
        }
        let mut from = StreamNo::CONTROL;
        while let Some(no) = self.streams(id).and_then(|streams| streams.next(from)) {
            from = StreamNo(no.0 + 1);
            if self.stream(id, no).is_some_and(|stream| stream.blocked_since.is_some()) {
                self.write_stream(id, no, now);
                self.wake_turn();
            }
            busy |= self.read_stream(id, no, cx, now);
        }
        if busy {
            cx.waker().wake_by_ref();
        }
    }

    /// Reads a stream while there is something and it is wanted. True if there may be more.
    fn read_stream(&mut self, id: ConnId, no: StreamNo, cx: &mut Context<'_>, now: Now) -> bool {
        for _ in 0..READS_MAX {
            let owed = self.core.stream_output_mut(id, no).map_or(0, |out| out.len());
            if owed >= self.core.output_bytes_high() || !self.core.wants_stream_bytes(id, no) {
                return false;
            }
            let mut scratch = std::mem::take(&mut self.scratch);
            let read = match self.stream(id, no) {
                Some(stream) => stream.poll_read(cx, &mut scratch),
                None => Poll::Pending,
            };
            if let Poll::Ready(read) = &read {
                self.wake_turn();
                self.take_stream(id, no, read, &scratch, now);
            }
            self.scratch = scratch;
            match read {
                Poll::Ready(Read::Bytes(_)) => {}
                Poll::Ready(Read::End | Read::Reset | Read::Lost) | Poll::Pending => return false,
            }
        }
        true
    }

    /// Gives the core what was read of a stream, and keeps what it leaves.
    fn take_stream(&mut self, id: ConnId, no: StreamNo, read: &Read, scratch: &[u8], now: Now) {
        match read {
            Read::Bytes(count) => self.feed_stream(id, no, &scratch[..*count], now),
            Read::End => self.core.handle_stream_end(id, no, StreamEnd::Finished, now),
            Read::Reset => self.end_stream(id, no, now),
            Read::Lost => {}
        }
    }

    fn feed_stream(&mut self, id: ConnId, no: StreamNo, read: &[u8], now: Now) {
        let Some(transport) = self.quic(id) else { return };
        transport.raise_limits(no);
        let Some(stream) = transport.streams().get_mut(no) else { return };
        let mut partial = std::mem::take(&mut stream.partial);
        let before = partial.len();
        let used = if partial.is_empty() {
            let used = self.core.handle_stream_bytes(id, no, read, now);
            partial.extend_from_slice(&read[used..]);
            used
        } else {
            partial.extend_from_slice(read);
            self.core.handle_stream_bytes(id, no, &partial, now)
        };
        if before > 0 {
            partial.drain(..used);
        }
        if partial.is_empty() {
            partial = Vec::new();
        }
        let Some(streams) = self.streams(id) else { return };
        let Some(stream) = streams.get_mut(no) else { return };
        let after = partial.len();
        stream.partial = partial;
        streams.partial_bytes = streams.partial_bytes - before + after;
        if streams.partial_bytes > PARTIAL_BYTES_MAX {
            let code = ReasonCode::QuotaExceeded.into();
            self.core.close_stream(id, no, code, "partial_bytes_max", now);
        }
    }

    /// The client reset a stream.
    fn end_stream(&mut self, id: ConnId, no: StreamNo, now: Now) {
        self.core.handle_stream_end(id, no, StreamEnd::Reset, now);
        if let Some(streams) = self.streams(id) {
            streams.remove(no);
        }
    }

    /// Writes what a stream is owed, and its end.
    pub(super) fn write_stream(&mut self, id: ConnId, no: StreamNo, now: Now) {
        let low = self.core.output_bytes_high() / 2;
        let priority = self.core.stream_priority(id, no);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Transport::Quic(transport) = &mut connection.transport else { return };
        let waker = transport.waker();
        let Some(stream) = transport.streams().get_mut(no) else { return };
        let mut cx = Context::from_waker(&waker);
        let mut last = stream.last.take();
        let (outcome, left, crossed) = if let Some(last) = &mut last {
            let outcome = write_all(stream, &mut cx, last);
            (outcome, last.len(), false)
        } else {
            let Some(out) = self.core.stream_output_mut(id, no) else { return };
            stream.set_priority(priority);
            let before = out.len();
            let outcome = write_all(stream, &mut cx, out);
            if out.is_empty() {
                *out = BytesMut::new();
            }
            (outcome, out.len(), before >= low && out.len() < low)
        };
        match outcome {
            Outcome::Stopped => return self.end_stream(id, no, now),
            Outcome::Lost => return,
            Outcome::Taken { any } => {
                stream.blocked_since = match (left > 0, any, stream.blocked_since) {
                    (false, ..) => None,
                    (true, false, Some(since)) => Some(since),
                    (true, ..) => Some(now.mono),
                };
            }
        }
        if left > 0 && !std::mem::replace(&mut stream.watched, true) {
            self.stalls.0.push_back((now.mono + STALL, id, no));
        }
        match last {
            Some(_) if left == 0 => {
                stream.finish();
                transport.streams().remove(no);
            }
            Some(rest) => stream.last = Some(rest),
            None => {}
        }
        if crossed {
            self.core.handle_stream_writable(id, no, now);
            self.again = true;
            self.wake_reader(id);
        }
    }

    /// The core ends a stream: in order after these bytes, or with a code.
    pub(super) fn close_stream(
        &mut self,
        id: ConnId,
        no: StreamNo,
        last: Bytes,
        code: Option<StreamCode>,
        now: Now,
    ) {
        let Some(streams) = self.streams(id) else { return };
        match code {
            Some(code) => streams.reset(no, code.0),
            None => {
                if let Some(stream) = streams.get_mut(no) {
                    stream.last = Some(last);
                    self.write_stream(id, no, now);
                }
            }
        }
    }

    /// Resets streams whose client took nothing for [`STALL`] while its control stream went on, and
    /// was heard within [`LISTEN`] after that.
    pub(super) fn end_stalls(&mut self, now: Now) {
        while let Some((due, id, no)) = self.stalls.0.front().copied() {
            if due > now.mono {
                return;
            }
            self.stalls.0.pop_front();
            let control_works = self.connections.get_mut(id).is_some_and(|c| !c.write_blocked);
            let Some(transport) = self.quic(id) else { continue };
            let heard = transport.heard();
            let Some(stream) = transport.streams().get_mut(no) else { continue };
            let Some(since) = stream.blocked_since else {
                (stream.watched, stream.heard) = (false, None);
                continue;
            };
            if since + STALL > now.mono || !control_works {
                stream.heard = None;
                self.stalls.0.push_back(((since + STALL).max(now.mono + LISTEN), id, no));
            } else if stream.heard.is_none_or(|before| before == heard) {
                stream.heard = Some(heard);
                self.stalls.0.push_back((now.mono + LISTEN, id, no));
            } else if stream.last.is_some() {
                // The core has forgotten it.
                if let Some(streams) = self.streams(id) {
                    streams.reset(no, StreamCode::STALLED.0);
                }
                self.core.count_stream_reset("stalled");
            } else {
                self.core.close_stream(id, no, StreamCode::STALLED, "stalled", now);
                self.again = true;
            }
        }
    }
}

/// What came of writing all there is.
enum Outcome {
    Taken { any: bool },
    Stopped,
    Lost,
}

fn write_all(stream: &mut Stream, cx: &mut Context<'_>, bytes: &mut impl Buf) -> Outcome {
    let mut any = false;
    while bytes.has_remaining() {
        match stream.poll_write(cx, bytes.chunk()) {
            Poll::Ready(Written::Bytes(count)) => {
                bytes.advance(count);
                any = true;
            }
            Poll::Ready(Written::Stopped) => return Outcome::Stopped,
            Poll::Ready(Written::Lost) => return Outcome::Lost,
            Poll::Pending => break,
        }
    }
    Outcome::Taken { any }
}
