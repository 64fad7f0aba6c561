//! Retained messages for new subscriptions, within bounds: a SUBSCRIBE of some bytes must not keep
//! a shard from its other clients.

use verge_model::Now;

use super::api::{ConnId, Output};
use super::{Shard, Timer};

/// Most retained messages sent for one SUBSCRIBE, whatever its filters. A client that wants more
/// subscribes more narrowly, one packet after the other; it is as much as a queue holds by default.
pub(super) const RETAINED_PER_SUBSCRIBE_MAX: usize = 10_000;

/// Retained messages a client may be owed before it is not read from for a moment.
const REPLAYED_AT_ONCE_MAX: usize = 1_000;

/// For each this many, a millisecond: a shard queues ten times as many, so that most of its time is
/// left to others.
const REPLAYED_PER_MILLI: usize = 100;

/// What a connection's SUBSCRIBEs asked for.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Retained messages since the last pause; at most [`RETAINED_PER_SUBSCRIBE_MAX`] more than
    /// [`REPLAYED_AT_ONCE_MAX`].
    count: u32,
    /// Whether what the client says next waits.
    pub(super) paused: bool,
}

impl Shard {
    /// Notes that a client was owed retained messages; after many it is not read from for a while.
    pub(super) fn replayed(&mut self, id: ConnId, count: usize, now: Now) {
        let Some(conn) = self.conns.get_mut(&id).filter(|_| count > 0) else { return };
        let replayed = conn.replay.count as usize + count;
        if replayed < REPLAYED_AT_ONCE_MAX || conn.replay.paused {
            conn.replay.count = u32::try_from(replayed).unwrap_or(u32::MAX);
            return;
        }
        conn.replay = Replay { count: 0, paused: true };
        let pause = (replayed / REPLAYED_PER_MILLI) as u64;
        let due = verge_model::Millis(now.mono.0 + pause);
        self.timers.insert((due, Timer::Replay(id)));
    }

    /// The pause is over: what the client said meanwhile is read.
    pub(super) fn replay_timeout(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.replay.paused = false;
        self.turn.outputs.push_back(Output::Feed(id));
        self.feed_streams(id);
    }
}
