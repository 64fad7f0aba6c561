//! Retained messages for new subscriptions, within bounds: a SUBSCRIBE of some bytes must not keep
//! a shard from its other clients.

use std::collections::VecDeque;

use verge_model::Now;

use super::api::{ConnId, Delivery, Output};
use super::{Shard, Timer};

/// Most retained messages sent for one SUBSCRIBE, whatever its filters. A client that wants more
/// subscribes more narrowly, one packet after the other; it is as much as a queue holds by default.
pub(super) const RETAINED_PER_SUBSCRIBE_MAX: usize = 10_000;

/// Retained messages a client may be owed before it is not read from for a moment.
const REPLAYED_AT_ONCE_MAX: usize = 1_000;

/// For each this many, a millisecond: a shard queues ten times as many, so that most of its time is
/// left to others.
const REPLAYED_PER_MILLI: usize = 100;

/// Most QoS 0 messages that wait for a client to read those before them: what one SUBSCRIBE may ask
/// for.
const WAITING_MAX: usize = RETAINED_PER_SUBSCRIBE_MAX;

/// What a connection's SUBSCRIBEs asked for.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Retained messages at QoS 0 that found the client's output full, oldest first. They are there
    /// already, so that a client that reads at its own pace gets them all.
    #[allow(
        clippy::box_collection,
        reason = "a connection that waits for nothing has a word of it"
    )]
    waiting: Option<Box<VecDeque<Delivery>>>,
    /// Retained messages since the last pause; at most [`RETAINED_PER_SUBSCRIBE_MAX`] more than
    /// [`REPLAYED_AT_ONCE_MAX`].
    count: u32,
    /// Whether what the client says next waits.
    pub(super) paused: bool,
}

impl Replay {
    /// Whether a retained message at QoS 0 must wait for others before it.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Lets a message wait for the client to read; false if there is no room.
    pub(super) fn wait(&mut self, delivery: &Delivery) -> bool {
        let waiting = self.waiting.get_or_insert_default();
        let has_room = waiting.len() < WAITING_MAX;
        if has_room {
            waiting.push_back(delivery.clone());
        }
        has_room
    }
}

impl Shard {
    /// The client has read: sends what waited for that, as far as its output takes it. A message
    /// that was replaced meanwhile is sent as it is now, so that an old one never comes last; one
    /// that was removed is not.
    pub(super) fn replay_waiting(&mut self, id: ConnId, now: Now) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(mut waiting) = conn.replay.waiting.take() else { return };
        while let Some(delivery) = waiting.front() {
            let full = self.conns.get(&id).is_some_and(|conn| {
                let session = self.sessions.get(&delivery.session);
                let stream = session.and_then(|session| conn.stream_of(session, delivery.tag));
                stream
                    .is_some_and(|stream| conn.output_len(stream) >= self.config.output_bytes_high)
            });
            if full {
                break;
            }
            let Some(delivery) = waiting.pop_front() else { break };
            let kept = self.shared.retained.get(delivery.message.topic.as_str());
            if let Some(message) = kept.and_then(|value| value.message) {
                self.send_now(&Delivery { message, ..delivery }, now);
            }
        }
        if let Some(conn) = self.conns.get_mut(&id)
            && !waiting.is_empty()
        {
            conn.replay.waiting = Some(waiting);
        }
    }

    /// Notes that a client was owed retained messages; after many it is not read from for a while.
    pub(super) fn replayed(&mut self, id: ConnId, count: usize, now: Now) {
        let Some(conn) = self.conns.get_mut(&id).filter(|_| count > 0) else { return };
        let replayed = conn.replay.count as usize + count;
        if replayed < REPLAYED_AT_ONCE_MAX || conn.replay.paused {
            conn.replay.count = u32::try_from(replayed).unwrap_or(u32::MAX);
            return;
        }
        (conn.replay.count, conn.replay.paused) = (0, true);
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
