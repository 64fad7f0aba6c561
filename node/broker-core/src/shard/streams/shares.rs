//! How much of a client's Receive Maximum one of its data streams may hold.
//!
//! The Receive Maximum is of the whole connection. A client that reads a data stream and does not
//! acknowledge what came there would hold it all, and stop its other streams. So a data stream may
//! hold half of what the others leave it: however many of them stall, the next finds some room, down
//! to the last message. The control stream may hold everything.

use smallvec::SmallVec;

use super::api::StreamNo;
use crate::shard::connection::Conn;
use crate::shard::session::Session;

/// Messages in flight by stream.
#[derive(Debug)]
pub(super) struct Shares {
    window: usize,
    total: usize,
    /// Of data streams; a client has few with something in flight.
    held: SmallVec<[(StreamNo, usize); 8]>,
}

impl Shares {
    /// As they are now.
    pub(super) fn of(session: &Session, conn: &Conn) -> Self {
        let window = usize::from(session.outbound.window());
        let mut shares = Self { window, total: 0, held: SmallVec::new() };
        for tag in session.outbound.tags_in_flight() {
            shares.take(conn.stream_of(session, tag).unwrap_or(StreamNo::CONTROL));
        }
        shares
    }

    /// Whether one more message may be in flight on a stream.
    pub(super) fn allow(&self, stream: StreamNo) -> bool {
        if stream.is_control() {
            return true;
        }
        let own = self.held.iter().find(|(of, _)| *of == stream).map_or(0, |(_, count)| *count);
        let left = self.window.saturating_sub(self.total - own);
        own < (left / 2).max(1)
    }

    /// Notes one more.
    pub(super) fn take(&mut self, stream: StreamNo) {
        self.total += 1;
        if stream.is_control() {
            return;
        }
        match self.held.iter_mut().find(|(of, _)| *of == stream) {
            Some((_, count)) => *count += 1,
            None => self.held.push((stream, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_streams_that_stall_leave_room_for_the_next() {
        let fill = |window: usize| {
            let mut shares = Shares { window, total: 0, held: SmallVec::new() };
            let mut held = Vec::new();
            for stream in 1..=8 {
                let mut count = 0;
                while shares.total < window && shares.allow(StreamNo(stream * 4)) {
                    shares.take(StreamNo(stream * 4));
                    count += 1;
                }
                held.push(count);
            }
            held
        };
        assert_eq!(fill(64), [32, 16, 8, 4, 2, 1, 1, 0]);
        assert_eq!(fill(3), [1, 1, 1, 0, 0, 0, 0, 0]);
        assert_eq!(fill(1), [1, 0, 0, 0, 0, 0, 0, 0]);
    }
}
