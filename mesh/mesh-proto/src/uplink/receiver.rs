//! The cloud's side: all logs of all nodes, on their way into one sink.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use verge_model::{Millis, NodeId, NodeKey, Now};

use super::{
    BATCH_BYTES_MAX, BATCH_ROWS_MAX, Batch, Frame, HELD_BYTES_MAX, STREAMS_MAX, StreamKey,
    is_stream_name,
};

/// Most bytes of one batch before compression: a page, and one row of the largest frame.
pub const BATCH_RAW_BYTES_MAX: u32 = 32 * 1024 * 1024;

/// Most bytes of one commit before compression; one batch may exceed it.
pub const COMMIT_RAW_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Full batches of one stream that make a commit due at once: half of its sender's window, so that
/// the other half is on its way meanwhile.
pub const COMMIT_FULL_BATCHES: usize = 2;

/// First wait after a failed commit; doubled with each failure.
pub const COMMIT_RETRY_MIN: Duration = Duration::from_millis(500);

/// Longest wait after a failed commit.
pub const COMMIT_RETRY_MAX: Duration = Duration::from_secs(30);

/// When to commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiverConfig {
    /// How long a row waits for others at most.
    pub commit_interval: Duration,
    /// Rows at which a commit is due and full.
    pub commit_rows_max: u64,
    /// Most compressed bytes held.
    pub held_bytes_max: usize,
}

impl Default for ReceiverConfig {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_secs(2),
            commit_rows_max: 65_536,
            held_bytes_max: HELD_BYTES_MAX,
        }
    }
}

/// A batch, and where in it the rows that are wanted begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBatch {
    /// Rows up to here are held or committed already.
    pub after: u64,
    /// The batch.
    pub batch: Batch,
}

/// Consecutive rows of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The log.
    pub stream: StreamKey,
    /// Its node.
    pub origin_id: NodeId,
    /// The table.
    pub name: String,
    /// The watermark before.
    pub after: u64,
    /// The watermark after.
    pub last: u64,
    /// The rows, in order.
    pub batches: Vec<HeldBatch>,
}

/// What the sink is to store in one step per table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Names the commit.
    pub id: u64,
    /// Its parts, a log each.
    pub parts: Vec<Part>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceiverOutput {
    /// Send an uplink frame; if there is no link any more, drop it.
    Send {
        /// The node.
        peer: NodeKey,
        /// The frame.
        frame: Bytes,
    },
    /// Ask the sink for the watermark and answer with `handle_loaded` or `handle_load_failed`.
    Load {
        /// The log.
        stream: StreamKey,
        /// Its node.
        origin_id: NodeId,
        /// The table.
        name: String,
    },
    /// Commit, and answer with `handle_committed` or `handle_commit_failed`. There is one commit
    /// at a time; after a failure the same comes again.
    Commit(Commit),
    /// A node said something it may not; its frame was ignored.
    Refused {
        /// The node.
        from: NodeKey,
        /// For the log.
        reason: String,
    },
}

/// Where a log stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStatus {
    /// The log.
    pub stream: StreamKey,
    /// Its node.
    pub origin_id: NodeId,
    /// The table.
    pub name: String,
    /// The last row in the table; `None` until the sink was asked.
    pub watermark: Option<u64>,
    /// The last row held or in the table.
    pub accepted: u64,
    /// The last row the node is known to have.
    pub known: u64,
}

impl StreamStatus {
    /// Rows the node is known to have that are not in the table.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.known.saturating_sub(self.watermark.unwrap_or(0))
    }
}

/// Accepts the batches of every node, in order, and groups them into commits.
#[derive(Debug)]
pub struct Receiver {
    config: ReceiverConfig,
    streams: BTreeMap<StreamKey, Stream>,
    held_bytes: usize,
    held_rows: u64,
    /// When the oldest held row was accepted.
    held_since: Option<Millis>,
    committing: Option<Committing>,
    next_id: u64,
    /// The last stream of the last commit; the next one begins after it.
    turn: Option<StreamKey>,
    flushing: bool,
    outputs: VecDeque<ReceiverOutput>,
}

#[derive(Debug)]
struct Stream {
    origin_id: NodeId,
    name: String,
    watermark: Option<u64>,
    /// The end of the last held batch, or the watermark; also while its rows are being committed.
    accepted: u64,
    known: u64,
    held: VecDeque<HeldBatch>,
    /// The `accepted` for which a resume was sent unasked, so that one gap causes one resume.
    resumed_at: Option<u64>,
    /// A batch was refused for want of room.
    starved: bool,
}

#[derive(Debug)]
struct Committing {
    commit: Commit,
    failures: u32,
    retry_at: Option<Millis>,
}

impl Receiver {
    /// A receiver that knows no stream.
    #[must_use]
    pub fn new(config: ReceiverConfig) -> Self {
        Self {
            config,
            streams: BTreeMap::new(),
            held_bytes: 0,
            held_rows: 0,
            held_since: None,
            committing: None,
            next_id: 1,
            turn: None,
            flushing: false,
            outputs: VecDeque::new(),
        }
    }

    /// An uplink frame from a node.
    pub fn handle_frame(&mut self, from: NodeKey, bytes: &[u8], now: Now) {
        let frame = match Frame::decode(bytes) {
            Ok(frame) => frame,
            Err(error) => return self.refuse(from, error.to_string()),
        };
        match frame {
            Frame::Offer { stream, origin_id, name, next, .. } => {
                if self.admit(from, stream, &origin_id, &name) {
                    self.on_offer(stream, next);
                }
            }
            Frame::Batch(batch) => {
                if self.admit(from, batch.stream, &batch.origin_id, &batch.name) {
                    self.on_batch(from, batch, now);
                }
            }
            Frame::Resume { .. } | Frame::Ack { .. } => {
                self.refuse(from, "only the cloud tier says Resume and Ack".into());
            }
        }
    }

    /// The sink's watermark of a log; 0 if it has none.
    pub fn handle_loaded(&mut self, key: StreamKey, last: u64) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        if stream.watermark.is_none() {
            stream.watermark = Some(last);
            stream.accepted = last;
            stream.known = stream.known.max(last);
        }
        self.answer(key);
    }

    /// The sink could not be asked. The node offers its log again.
    pub fn handle_load_failed(&mut self, key: StreamKey) {
        if self.streams.get(&key).is_some_and(|stream| stream.watermark.is_none()) {
            self.streams.remove(&key);
        }
    }

    /// The sink stored the commit; `marks` are the watermarks it now has. A log without a mark was
    /// not stored: its rows cannot be read, and its node begins again at the watermark.
    pub fn handle_committed(&mut self, id: u64, marks: &[(StreamKey, u64)], now: Now) {
        let Some(committing) = self.committing.take_if(|c| c.commit.id == id) else { return };
        for part in committing.commit.parts {
            let key = part.stream;
            let mark = marks.iter().find(|(stream, _)| *stream == key).map(|(_, last)| *last);
            match mark {
                Some(mark) => self.on_mark(key, mark),
                None => self.start_over(key),
            }
        }
        self.feed_starved();
        self.commit_if_due(now);
    }

    /// The sink stored nothing of the commit, or cannot tell. It will be asked again.
    pub fn handle_commit_failed(&mut self, id: u64, now: Now) {
        let Some(committing) = self.committing.as_mut().filter(|c| c.commit.id == id) else {
            return;
        };
        let wait = COMMIT_RETRY_MIN * 2u32.saturating_pow(committing.failures.min(16));
        committing.failures += 1;
        committing.retry_at = Some(now.mono + wait.min(COMMIT_RETRY_MAX));
    }

    /// A deadline of [`Receiver::poll_timeout`] passed.
    pub fn handle_timeout(&mut self, now: Now) {
        if let Some(committing) = &mut self.committing
            && committing.retry_at.take_if(|at| *at <= now.mono).is_some()
        {
            self.outputs.push_back(ReceiverOutput::Commit(committing.commit.clone()));
        }
        self.commit_if_due(now);
    }

    /// Commits whatever is held without waiting, now and from now on: the process is ending.
    pub fn flush(&mut self, now: Now) {
        self.flushing = true;
        self.commit_if_due(now);
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<ReceiverOutput> {
        self.outputs.pop_front()
    }

    /// When to call [`Receiver::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        match &self.committing {
            Some(committing) => committing.retry_at,
            None => self.held_since.map(|since| since + self.config.commit_interval),
        }
    }

    /// Whether nothing is held and nothing is being committed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.held_rows == 0 && self.committing.is_none()
    }

    /// Compressed bytes held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Every log known, in order.
    pub fn streams(&self) -> impl Iterator<Item = StreamStatus> {
        self.streams.iter().map(|(key, stream)| StreamStatus {
            stream: *key,
            origin_id: stream.origin_id.clone(),
            name: stream.name.clone(),
            watermark: stream.watermark,
            accepted: stream.accepted,
            known: stream.known,
        })
    }

    /// Panics if an invariant does not hold.
    pub fn check_invariants(&self) {
        let held = || self.streams.values().flat_map(|stream| &stream.held);
        assert_eq!(self.held_bytes, held().map(|h| h.batch.bytes.len()).sum::<usize>());
        assert_eq!(self.held_rows, held().map(HeldBatch::rows).sum::<u64>());
        assert_eq!(self.held_since.is_some(), self.held_rows > 0);
        assert!(self.streams.len() <= STREAMS_MAX);
        for stream in self.streams.values() {
            let ends: Vec<u64> = stream.held.iter().map(|held| held.batch.last).collect();
            let afters: Vec<u64> = stream.held.iter().map(|held| held.after).collect();
            assert!(afters.iter().skip(1).eq(ends.iter().take(ends.len().saturating_sub(1))));
            assert!(ends.last().is_none_or(|last| *last == stream.accepted));
            assert!(stream.watermark.is_none_or(|mark| mark <= stream.accepted));
            assert!(stream.accepted <= stream.known);
        }
    }

    /// Whether the peer may speak of the log; makes it known.
    fn admit(&mut self, from: NodeKey, key: StreamKey, origin_id: &NodeId, name: &str) -> bool {
        if key.origin != from || origin_id.key() != from {
            self.refuse(from, format!("it speaks for the log of {origin_id}"));
            return false;
        }
        if !is_stream_name(name) {
            self.refuse(from, "its stream's name cannot be a table's".into());
            return false;
        }
        if let Some(stream) = self.streams.get(&key) {
            if stream.name == name {
                return true;
            }
            self.refuse(from, format!("stream {key} is named {}, not {name}", stream.name));
            return false;
        }
        self.forget_former(key);
        if self.streams.len() >= STREAMS_MAX {
            self.refuse(from, format!("{STREAMS_MAX} streams are known already"));
            return false;
        }
        let stream = Stream {
            origin_id: origin_id.clone(),
            name: name.to_owned(),
            watermark: None,
            accepted: 0,
            known: 0,
            held: VecDeque::new(),
            resumed_at: None,
            starved: false,
        };
        self.streams.insert(key, stream);
        self.outputs.push_back(ReceiverOutput::Load {
            stream: key,
            origin_id: origin_id.clone(),
            name: name.to_owned(),
        });
        true
    }

    /// Former lives of the log are over; what is held of them is still committed.
    fn forget_former(&mut self, key: StreamKey) {
        let committing = self.committing.as_ref();
        self.streams.retain(|other, stream| {
            let former = other.origin == key.origin && other.stream == key.stream;
            let busy = !stream.held.is_empty()
                || committing.is_some_and(|c| c.commit.parts.iter().any(|p| p.stream == *other));
            !former || busy
        });
    }

    fn on_offer(&mut self, key: StreamKey, next: u64) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        stream.known = stream.known.max(next.saturating_sub(1));
        if stream.watermark.is_some() {
            self.answer(key);
        }
    }

    fn on_batch(&mut self, from: NodeKey, batch: Batch, now: Now) {
        if batch.first == 0 || batch.last < batch.first || batch.raw_len > BATCH_RAW_BYTES_MAX {
            return self
                .refuse(from, format!("its batch {}..={} is none", batch.first, batch.last));
        }
        let key = batch.stream;
        let size = batch.bytes.len();
        let room = self.held_bytes.saturating_add(size) <= self.config.held_bytes_max
            || self.held_bytes == 0;
        let Some(stream) = self.streams.get_mut(&key) else { return };
        stream.known = stream.known.max(batch.last);
        if stream.watermark.is_none() || batch.last <= stream.accepted {
            return;
        }
        if batch.first > stream.accepted + 1 {
            if !stream.starved && stream.resumed_at != Some(stream.accepted) {
                self.resume(key);
            }
            return;
        }
        if !room {
            stream.starved = true;
            return;
        }
        let held = HeldBatch { after: stream.accepted, batch };
        stream.accepted = held.batch.last;
        stream.resumed_at = None;
        self.held_rows += held.rows();
        self.held_bytes += size;
        stream.held.push_back(held);
        self.held_since.get_or_insert(now.mono);
        self.commit_if_due(now);
    }

    fn commit_if_due(&mut self, now: Now) {
        if self.committing.is_some() || self.held_rows == 0 {
            return;
        }
        let waited = self
            .held_since
            .is_some_and(|since| now.mono.since(since) >= self.config.commit_interval);
        let backlog = |stream: &Stream| {
            stream.held.iter().filter(|held| held.is_full()).count() >= COMMIT_FULL_BATCHES
        };
        let due = self.flushing
            || waited
            || self.held_rows >= self.config.commit_rows_max
            || self.streams.values().any(backlog);
        if !due {
            return;
        }
        let commit = Commit { id: self.next_id, parts: self.take_parts() };
        self.next_id += 1;
        self.held_since = (self.held_rows > 0).then_some(now.mono);
        self.committing = Some(Committing { commit: commit.clone(), failures: 0, retry_at: None });
        self.outputs.push_back(ReceiverOutput::Commit(commit));
    }

    /// Takes held batches, a stream after the other, beginning after the last one served.
    fn take_parts(&mut self) -> Vec<Part> {
        let mut keys: Vec<StreamKey> = self.streams.keys().copied().collect();
        let start = keys.partition_point(|key| self.turn.is_some_and(|turn| *key <= turn));
        keys.rotate_left(start);
        let (mut rows, mut raw_bytes) = (0, 0);
        let mut parts = Vec::new();
        for key in keys {
            let Some(stream) = self.streams.get_mut(&key) else { continue };
            let after = stream.held.front().map_or(0, |held| held.after);
            let mut batches = Vec::new();
            while rows < self.config.commit_rows_max
                && raw_bytes < COMMIT_RAW_BYTES_MAX
                && let Some(held) = stream.held.pop_front()
            {
                rows += held.rows();
                raw_bytes += usize::try_from(held.batch.raw_len).unwrap_or(usize::MAX);
                self.held_rows -= held.rows();
                self.held_bytes -= held.batch.bytes.len();
                batches.push(held);
            }
            let Some(end) = batches.last() else { continue };
            self.turn = Some(key);
            parts.push(Part {
                stream: key,
                origin_id: stream.origin_id.clone(),
                name: stream.name.clone(),
                after,
                last: end.batch.last,
                batches,
            });
        }
        parts
    }

    fn on_mark(&mut self, key: StreamKey, mark: u64) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        let mark = mark.max(stream.watermark.unwrap_or(0));
        stream.watermark = Some(mark);
        stream.known = stream.known.max(mark);
        if mark > stream.accepted {
            // Another process committed to the same table, and further.
            stream.accepted = mark;
            self.drop_held(key);
        }
        let frame = Frame::Ack { stream: key, last: mark }.encode();
        self.outputs.push_back(ReceiverOutput::Send { peer: key.origin, frame });
    }

    fn start_over(&mut self, key: StreamKey) {
        self.drop_held(key);
        if let Some(stream) = self.streams.get_mut(&key) {
            stream.accepted = stream.watermark.unwrap_or(0);
            // Not asked for again at once: the same rows would come.
            stream.resumed_at = Some(stream.accepted);
        }
    }

    fn drop_held(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        for held in stream.held.drain(..) {
            self.held_rows -= held.rows();
            self.held_bytes -= held.batch.bytes.len();
        }
        if self.held_rows == 0 {
            self.held_since = None;
        }
    }

    /// Asks for what was refused for want of room.
    fn feed_starved(&mut self) {
        let starved = self.streams.iter_mut().filter(|(_, stream)| stream.starved);
        let keys: Vec<StreamKey> = starved
            .map(|(key, stream)| {
                stream.starved = false;
                *key
            })
            .collect();
        for key in keys {
            self.resume(key);
        }
    }

    fn answer(&mut self, key: StreamKey) {
        let Some(watermark) = self.streams.get(&key).and_then(|stream| stream.watermark) else {
            return;
        };
        if watermark > 0 {
            let frame = Frame::Ack { stream: key, last: watermark }.encode();
            self.outputs.push_back(ReceiverOutput::Send { peer: key.origin, frame });
        }
        self.resume(key);
    }

    fn resume(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        stream.resumed_at = Some(stream.accepted);
        let frame = Frame::Resume { stream: key, last: stream.accepted }.encode();
        self.outputs.push_back(ReceiverOutput::Send { peer: key.origin, frame });
    }

    fn refuse(&mut self, from: NodeKey, reason: String) {
        self.outputs.push_back(ReceiverOutput::Refused { from, reason });
    }
}

impl HeldBatch {
    /// Most rows it can hold that are wanted.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.batch.last - self.after
    }

    fn is_full(&self) -> bool {
        let rows = self.batch.last - self.batch.first + 1;
        let bytes = usize::try_from(self.batch.raw_len).unwrap_or(usize::MAX);
        rows >= BATCH_ROWS_MAX as u64 || bytes >= BATCH_BYTES_MAX
    }
}

#[cfg(test)]
#[path = "receiver_tests.rs"]
mod tests;
