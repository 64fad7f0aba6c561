//! Writing: one write per dirty connection and turn, and the slow ends of connections.

use std::io;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;
use verge_broker_core::shard::api::ConnId;
use verge_model::Now;

use super::connection::CLOSE_LINGER;
use super::turn::Driver;
use crate::listener;
use crate::listener::quic::transport::Moved;

impl Driver {
    /// Writes what connections are owed.
    pub(super) fn flush(&mut self, now: Now) {
        while let Some(id) = self.core.poll_dirty() {
            self.write(id, now);
        }
        while let Some((id, stream)) = self.core.poll_dirty_stream() {
            self.write_stream(id, stream, now);
        }
        let high = self.connections.owed.high(self.outputs.one, self.outputs.total);
        self.core.set_output_bytes_high(high);
    }

    /// Writes what the transport takes; the connection's task goes on when it takes more.
    pub(super) fn write(&mut self, id: ConnId, now: Now) {
        let low = self.core.output_bytes_high() / 2;
        let (Some(connection), Some(out)) =
            (self.connections.get_mut(id), self.core.output_mut(id))
        else {
            return;
        };
        let before = out.len();
        let waker = connection.transport.waker();
        let mut cx = Context::from_waker(&waker);
        let written = loop {
            if out.is_empty() {
                break connection.transport.poll_flush(&mut cx);
            }
            match connection.transport.poll_write(&mut cx, out) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                // Not advanced to the end: that would give up the memory before it.
                Poll::Ready(Ok(count)) if count == out.len() => out.clear(),
                Poll::Ready(Ok(count)) => out.advance(count),
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        let after = out.len();
        let blocked = written.is_pending();
        let was_blocked = std::mem::replace(&mut connection.write_blocked, blocked);
        if blocked || was_blocked {
            self.connections.owed.set(id, if blocked { after } else { 0 });
        }
        if after == 0 {
            self.core.output_written(id);
        }
        if let Poll::Ready(Err(error)) = written {
            self.broken(id, &error, now);
        } else if (before >= low || was_blocked) && after < low {
            self.core.handle_writable(id, now);
            self.again = true;
            self.wake_reader(id);
        }
    }

    /// The end of a connection: its last bytes, the end of this side, and then whatever the peer
    /// still says, since a socket closed with unread bytes would take the last packet back.
    pub(super) fn poll_closing(&mut self, id: ConnId, cx: &mut Context<'_>) -> Poll<()> {
        let Some(connection) = self.connections.get_mut(id) else { return Poll::Ready(()) };
        let Some(closing) = &mut connection.closing else { return Poll::Pending };
        let transport = &mut connection.transport;
        let scratch = &mut self.scratch;
        let ended = (|| -> Poll<io::Result<()>> {
            while !closing.last.is_empty() {
                match std::task::ready!(transport.poll_write(cx, &closing.last))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    count => closing.last.advance(count),
                }
            }
            if !closing.shut_down {
                std::task::ready!(transport.poll_shutdown(cx))?;
                closing.shut_down = true;
            }
            loop {
                let mut unread = ReadBuf::new(scratch);
                std::task::ready!(transport.poll_read(cx, &mut unread))?;
                if unread.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
        })();
        if ended.is_ready() {
            self.connections.remove(id);
            self.wake_turn();
        }
        ended.map(drop)
    }

    /// The client is reached at another address. What it was allowed by its old one it keeps.
    pub(super) fn moved(&mut self, id: ConnId, moved: Moved, now: Now) {
        match moved {
            Moved::To(peer) => {
                tracing::debug!(conn = id.0, %peer, "client moved");
                self.core.handle_moved(id, peer);
            }
            Moved::TooOften => {
                self.core.count_closed("quic_migrations");
                self.broken(id, &io::Error::other("it moved too often"), now);
            }
        }
    }

    /// The transport broke or ended.
    pub(super) fn broken(&mut self, id: ConnId, error: &io::Error, now: Now) {
        tracing::debug!(conn = id.0, %error, "transport ended");
        match listener::violation(error) {
            None => self.connections.remove(id),
            // The client is told why; WebSocket has it in place.
            Some(violation) => {
                self.core.count_closed(violation.label());
                self.connections.begin_close(id, Bytes::new(), now.mono + CLOSE_LINGER);
            }
        }
        self.core.handle_closed(id, now);
        self.again = true;
    }
}
