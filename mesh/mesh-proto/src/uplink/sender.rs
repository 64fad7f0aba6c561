//! The node's side towards one cloud peer.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use verge_model::{Millis, NodeId, NodeKey, Now};

use super::{
    ACK_TIMEOUT, BATCH_BYTES_MAX, BATCH_ROWS_MAX, Batch, Frame, OFFER_RETRY, StreamKey,
    WINDOW_BATCHES_MAX, WINDOW_BYTES_MAX,
};

/// Which log is sent, and under which name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConfig {
    /// The log; its origin is `origin_id`'s key.
    pub stream: StreamKey,
    /// This node.
    pub origin_id: NodeId,
    /// The uplink's name, which is the table's.
    pub name: String,
}

/// What a sender is doing.
///
/// ```text
///                 link up: Offer              Resume
/// Disconnected ──────────────▶ AwaitingResume ──────▶ Streaming ─┐ Resume: start again there
///      ▲                        │  ▲    retry: Offer      │  ▲   │ Ack: window moves
///      └────────────────────────┴──│──────────────────────┤  └───┘
///               link down          └──────────────────────┘ no Ack for ACK_TIMEOUT: Offer
/// ```
///
/// | state | link up | link down | Resume | Ack | rows | timeout |
/// |---|---|---|---|---|---|---|
/// | Disconnected | Offer → AwaitingResume | – | – | note | drop | – |
/// | AwaitingResume | Offer | → Disconnected | read → Streaming | note | drop | Offer |
/// | Streaming | Offer → AwaitingResume | → Disconnected | rewind, read | move window, read | Batch, read | Offer → AwaitingResume |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SenderState {
    /// There is no link.
    Disconnected,
    /// The log was offered.
    AwaitingResume,
    /// Rows flow.
    Streaming,
}

/// Rows as the driver encoded them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedRows {
    /// End of the range they cover; its start is what was asked for.
    pub last: u64,
    /// How `bytes` are written.
    pub encoding: u8,
    /// Length before compression.
    pub raw_len: u32,
    /// The rows.
    pub bytes: Bytes,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderOutput {
    /// Send an uplink frame to the peer. If that fails, say so with `handle_link_down`.
    Send {
        /// The cloud peer.
        peer: NodeKey,
        /// The frame.
        frame: Bytes,
    },
    /// Read rows, encode and compress them, and answer with `handle_rows`, naming the same `from`.
    Read {
        /// The cloud peer.
        peer: NodeKey,
        /// The first row wanted.
        from: u64,
        /// Most rows.
        rows_max: usize,
        /// Bytes at which to stop.
        bytes_max: usize,
    },
    /// Remove rows up to `upto`: every cloud peer has them in its table.
    Trim {
        /// The last row not needed any more.
        upto: u64,
    },
    /// The peer's table has rows of this log that this disk does not: the data directory was
    /// restored from a copy. Nothing is sent until the log has a new id; rows would be taken for
    /// those the table has.
    LogBehind {
        /// Who said so.
        peer: NodeKey,
        /// The last row it has.
        last: u64,
    },
}

/// Sends one log to one cloud peer.
#[derive(Debug)]
pub struct Sender {
    config: StreamConfig,
    peer: NodeKey,
    state: SenderState,
    /// The first row the log still has, and the sequence its next row will get.
    first: u64,
    next: u64,
    /// The next row to be sent; never above `next`.
    cursor: u64,
    /// Every row up to here is in the peer's table.
    acked: u64,
    /// Ends and sizes of batches sent and not acknowledged, in order.
    in_flight: VecDeque<(u64, usize)>,
    reading: Option<u64>,
    deadline: Option<Millis>,
    outputs: VecDeque<SenderOutput>,
}

impl Sender {
    /// A sender for a log that has the rows `first..next`.
    #[must_use]
    pub fn new(config: StreamConfig, peer: NodeKey, first: u64, next: u64) -> Self {
        Self {
            config,
            peer,
            state: SenderState::Disconnected,
            first,
            next,
            cursor: first,
            acked: 0,
            in_flight: VecDeque::new(),
            reading: None,
            deadline: None,
            outputs: VecDeque::new(),
        }
    }

    /// There is a link to the peer. Said again, it stands for a new link.
    pub fn handle_link_up(&mut self, now: Now) {
        self.offer(now);
    }

    /// The link is gone, and with it what was under way.
    pub fn handle_link_down(&mut self) {
        self.state = SenderState::Disconnected;
        self.reading = None;
        self.deadline = None;
    }

    /// The log has the rows `first..next` now: rows were appended or trimmed.
    pub fn handle_bounds(&mut self, first: u64, next: u64) {
        self.first = self.first.max(first);
        self.next = self.next.max(next);
        self.fill();
    }

    /// The peer wants what comes after `last`.
    pub fn handle_resume(&mut self, last: u64, now: Now) {
        match self.state {
            SenderState::Disconnected => return,
            SenderState::AwaitingResume | SenderState::Streaming => {}
        }
        if last >= self.next {
            return self.log_behind(last);
        }
        self.state = SenderState::Streaming;
        self.cursor = last + 1;
        self.reading = None;
        // What the peer still holds of an earlier link counts against the window until its commit.
        self.in_flight.retain(|(end, _)| *end <= last);
        self.await_ack(now);
        self.fill();
    }

    /// Every row up to `last` is in the peer's table.
    pub fn handle_ack(&mut self, last: u64, now: Now) {
        if last >= self.next {
            return self.log_behind(last);
        }
        if last <= self.acked {
            return;
        }
        self.acked = last;
        self.cursor = self.cursor.max(last + 1);
        while self.in_flight.front().is_some_and(|(end, _)| *end <= last) {
            self.in_flight.pop_front();
        }
        match self.state {
            SenderState::Streaming => {
                self.await_ack(now);
                self.fill();
            }
            SenderState::Disconnected | SenderState::AwaitingResume => {}
        }
    }

    /// The rows asked for by [`SenderOutput::Read`]; `None`: there are none (they were dropped, or
    /// the disk failed), ask again when the bounds change or the timer fires.
    pub fn handle_rows(&mut self, from: u64, rows: Option<EncodedRows>, now: Now) {
        // An answer to a question from before a resume is not the batch that is due.
        if self.reading != Some(from) || self.cursor != from {
            return;
        }
        self.reading = None;
        let Some(rows) = rows.filter(|rows| rows.last >= from) else {
            self.deadline.get_or_insert(now.mono + OFFER_RETRY);
            return;
        };
        if self.in_flight.is_empty() {
            self.deadline = Some(now.mono + ACK_TIMEOUT);
        }
        self.in_flight.push_back((rows.last, rows.bytes.len()));
        self.cursor = rows.last + 1;
        self.next = self.next.max(self.cursor);
        let StreamConfig { stream, origin_id, name } = self.config.clone();
        self.send(&Frame::Batch(Batch {
            stream,
            origin_id,
            name,
            first: from,
            last: rows.last,
            encoding: rows.encoding,
            raw_len: rows.raw_len,
            bytes: rows.bytes,
        }));
        self.fill();
    }

    /// A deadline of [`Sender::poll_timeout`] passed.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.deadline.is_none_or(|deadline| now.mono < deadline) {
            return;
        }
        match self.state {
            SenderState::Disconnected => self.deadline = None,
            SenderState::AwaitingResume | SenderState::Streaming => self.offer(now),
        }
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<SenderOutput> {
        self.outputs.pop_front()
    }

    /// When to call [`Sender::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        self.deadline
    }

    /// What the sender is doing.
    #[must_use]
    pub fn state(&self) -> SenderState {
        self.state
    }

    /// Every row up to here is in the peer's table.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Panics if an invariant does not hold.
    pub fn check_invariants(&self) {
        assert!(self.first <= self.next, "a log ends after it begins");
        assert!(self.acked < self.next, "only rows that exist are acknowledged");
        assert!(self.cursor <= self.next, "only rows that exist are sent");
        assert!(self.in_flight.len() <= WINDOW_BATCHES_MAX, "the window holds");
        assert!(
            self.in_flight.iter().zip(self.in_flight.iter().skip(1)).all(|(a, b)| a.0 < b.0),
            "batches in flight are in order"
        );
        assert!(
            self.in_flight.iter().all(|(end, _)| *end > self.acked && *end < self.cursor),
            "what is in flight was sent and is not acknowledged"
        );
    }

    fn offer(&mut self, now: Now) {
        self.state = SenderState::AwaitingResume;
        self.reading = None;
        self.deadline = Some(now.mono + OFFER_RETRY);
        let StreamConfig { stream, origin_id, name } = self.config.clone();
        let (first, next) = (self.first, self.next);
        self.send(&Frame::Offer { stream, origin_id, name, first, next });
    }

    /// Asks for rows if there are some and the window has room; one question at a time.
    fn fill(&mut self) {
        let in_flight_bytes: usize = self.in_flight.iter().map(|(_, bytes)| bytes).sum();
        let room = self.in_flight.len() < WINDOW_BATCHES_MAX && in_flight_bytes < WINDOW_BYTES_MAX;
        let streaming = match self.state {
            SenderState::Streaming => true,
            SenderState::Disconnected | SenderState::AwaitingResume => false,
        };
        if !streaming || !room || self.reading.is_some() || self.cursor >= self.next {
            return;
        }
        self.reading = Some(self.cursor);
        self.outputs.push_back(SenderOutput::Read {
            peer: self.peer,
            from: self.cursor,
            rows_max: BATCH_ROWS_MAX,
            bytes_max: BATCH_BYTES_MAX,
        });
    }

    /// The acknowledgement timer runs while something is in flight.
    fn await_ack(&mut self, now: Now) {
        let timeout: Option<Duration> = (!self.in_flight.is_empty()).then_some(ACK_TIMEOUT);
        self.deadline = timeout.map(|timeout| now.mono + timeout);
    }

    fn log_behind(&mut self, last: u64) {
        self.handle_link_down();
        self.outputs.push_back(SenderOutput::LogBehind { peer: self.peer, last });
    }

    fn send(&mut self, frame: &Frame) {
        self.outputs.push_back(SenderOutput::Send { peer: self.peer, frame: frame.encode() });
    }
}

#[cfg(test)]
mod tests {
    use verge_model::UnixMillis;

    use super::*;

    const CLOUD: NodeKey = NodeKey(7);

    #[test]
    fn rows_go_out_after_the_watermark_and_the_window_holds() {
        let mut s = sender(1, 100);
        s.handle_link_up(at(0));
        assert_eq!(said(&mut s), ["offer 1..100"]);
        assert_eq!(s.state(), SenderState::AwaitingResume);
        s.handle_resume(10, at(1));
        assert_eq!(said(&mut s), ["read 11"]);
        for (from, last) in [(11, 20), (21, 30), (31, 40)] {
            s.handle_rows(from, rows(last, 9), at(2));
            assert_eq!(
                said(&mut s),
                [format!("batch {from}..={last}"), format!("read {}", last + 1)]
            );
        }
        s.handle_rows(41, rows(50, 9), at(3));
        assert_eq!(said(&mut s), ["batch 41..=50"], "four batches are out: no more is read");
        s.handle_ack(30, at(4));
        assert_eq!(said(&mut s), ["read 51"]);
        assert_eq!(s.acked(), 30);
    }

    #[test]
    fn a_window_of_bytes_stops_reading_before_four_batches() {
        let mut s = streaming(1, 100);
        s.handle_rows(1, rows(5, WINDOW_BYTES_MAX), at(0));
        assert_eq!(said(&mut s), ["batch 1..=5"]);
        s.handle_ack(5, at(1));
        assert_eq!(said(&mut s), ["read 6"]);
    }

    #[test]
    fn an_idle_sender_wakes_when_rows_are_appended() {
        let mut s = streaming(1, 1);
        assert_eq!(said(&mut s), Vec::<String>::new());
        assert_eq!(s.poll_timeout(), None);
        s.handle_bounds(1, 3);
        assert_eq!(said(&mut s), ["read 1"]);
        s.handle_bounds(1, 4);
        assert_eq!(said(&mut s), Vec::<String>::new(), "one question at a time");
        s.handle_rows(1, rows(3, 9), at(1));
        assert_eq!(said(&mut s), ["batch 1..=3"]);
    }

    #[test]
    fn a_new_link_resends_what_was_not_accepted() {
        let mut s = streaming(1, 100);
        s.handle_rows(1, rows(10, 9), at(0));
        s.handle_rows(11, rows(20, 9), at(0));
        said(&mut s);
        s.handle_link_down();
        assert_eq!(s.poll_timeout(), None);
        s.handle_rows(21, rows(30, 9), at(1));
        assert_eq!(said(&mut s), Vec::<String>::new(), "an answer from before the cut is dropped");
        s.handle_link_up(at(2));
        s.handle_resume(10, at(3));
        assert_eq!(said(&mut s), ["offer 1..100", "read 11"]);
        s.handle_rows(11, rows(15, 9), at(4));
        assert_eq!(said(&mut s), ["batch 11..=15", "read 16"], "the range may be another");
    }

    #[test]
    fn what_the_cloud_still_holds_counts_against_the_window() {
        let mut s = streaming(1, 100);
        for (from, last) in [(1, 10), (11, 20), (21, 30), (31, 40)] {
            s.handle_rows(from, rows(last, 9), at(0));
        }
        s.handle_link_up(at(1));
        said(&mut s);
        s.handle_resume(40, at(2));
        assert_eq!(said(&mut s), Vec::<String>::new());
        s.handle_ack(10, at(3));
        assert_eq!(said(&mut s), ["read 41"]);
    }

    #[test]
    fn an_unanswered_offer_is_repeated_and_a_silent_cloud_is_asked() {
        let mut s = sender(1, 9);
        s.handle_link_up(at(0));
        said(&mut s);
        s.handle_timeout(at(4_999));
        assert_eq!(said(&mut s), Vec::<String>::new());
        s.handle_timeout(at(5_000));
        assert_eq!(said(&mut s), ["offer 1..9"]);
        s.handle_resume(0, at(5_100));
        s.handle_rows(1, rows(8, 9), at(5_200));
        said(&mut s);
        assert_eq!(s.poll_timeout(), Some(Millis(35_200)));
        s.handle_timeout(at(35_200));
        assert_eq!(said(&mut s), ["offer 1..9"]);
        s.handle_ack(8, at(35_300));
        s.handle_resume(8, at(35_300));
        assert_eq!((s.state(), s.poll_timeout()), (SenderState::Streaming, None));
    }

    #[test]
    fn rows_that_cannot_be_read_are_asked_for_again_later() {
        let mut s = streaming(1, 9);
        s.handle_rows(1, None, at(0));
        assert_eq!(said(&mut s), Vec::<String>::new());
        s.handle_timeout(at(5_000));
        s.handle_resume(0, at(5_001));
        assert_eq!(said(&mut s), ["offer 1..9", "read 1"]);
    }

    #[test]
    fn a_log_restored_from_a_copy_sends_nothing() {
        let mut s = sender(1, 9);
        s.handle_link_up(at(0));
        said(&mut s);
        s.handle_ack(20, at(1));
        s.handle_resume(20, at(1));
        assert_eq!(said(&mut s), ["behind 20"]);
        assert_eq!((s.state(), s.acked()), (SenderState::Disconnected, 0));
    }

    #[test]
    fn every_state_takes_every_input() {
        type Input = fn(&mut Sender);
        let inputs: [(&str, Input); 7] = [
            ("up", |s| s.handle_link_up(at(1))),
            ("down", |s| s.handle_link_down()),
            ("resume", |s| s.handle_resume(2, at(1))),
            ("ack", |s| s.handle_ack(3, at(1))),
            ("rows", |s| s.handle_rows(1, rows(4, 9), at(1))),
            ("bounds", |s| s.handle_bounds(1, 12)),
            ("timeout", |s| s.handle_timeout(at(99_999))),
        ];
        let table = [
            (sender as fn(u64, u64) -> Sender, ["offer 1..9", "", "", "", "", "", ""]),
            (awaiting, ["offer 1..9", "", "read 3", "", "", "", "offer 1..9"]),
            (streaming, ["offer 1..9", "", "read 3", "", "batch 1..=4 read 5", "", ""]),
        ];
        for (state, expected) in table {
            for ((name, input), expected) in inputs.iter().zip(expected) {
                let mut s = state(1, 9);
                let before = s.state();
                input(&mut s);
                assert_eq!(said(&mut s).join(" "), expected, "{before:?} {name}");
            }
        }
    }

    fn at(ms: u64) -> Now {
        Now { mono: Millis(ms), wall: UnixMillis(ms) }
    }

    fn rows(last: u64, bytes: usize) -> Option<EncodedRows> {
        Some(EncodedRows { last, encoding: 1, raw_len: 1, bytes: Bytes::from(vec![0; bytes]) })
    }

    fn sender(first: u64, next: u64) -> Sender {
        let origin_id: NodeId = "r-1".parse().unwrap();
        let stream = StreamKey { origin: origin_id.key(), log_id: 5, stream: 0 };
        let config = StreamConfig { stream, origin_id, name: "messages".into() };
        Sender::new(config, CLOUD, first, next)
    }

    fn awaiting(first: u64, next: u64) -> Sender {
        let mut s = sender(first, next);
        s.handle_link_up(at(0));
        said(&mut s);
        s
    }

    /// Streaming from the first row, which was asked for.
    fn streaming(first: u64, next: u64) -> Sender {
        let mut s = awaiting(first, next);
        s.handle_resume(first - 1, at(0));
        said(&mut s);
        s
    }

    /// Everything said since the last call, a line each.
    fn said(s: &mut Sender) -> Vec<String> {
        s.check_invariants();
        std::iter::from_fn(|| s.poll_output())
            .map(|output| match output {
                SenderOutput::Send { frame, .. } => match Frame::decode(&frame).unwrap() {
                    Frame::Offer { first, next, .. } => format!("offer {first}..{next}"),
                    Frame::Batch(batch) => format!("batch {}..={}", batch.first, batch.last),
                    other @ (Frame::Resume { .. } | Frame::Ack { .. }) => {
                        panic!("{other:?} is the cloud's to say")
                    }
                },
                SenderOutput::Read { from, .. } => format!("read {from}"),
                SenderOutput::Trim { upto } => format!("trim {upto}"),
                SenderOutput::LogBehind { last, .. } => format!("behind {last}"),
            })
            .collect()
    }
}
