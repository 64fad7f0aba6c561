//! What peers must still take.
//!
//! ```text
//!        acked        sent          cursor                 last
//! log ────┼────────────┼──────────────┼──────────────────────┤
//!         │ in flight  │  backlog     │ on disk only         │
//!         ≤ FORWARD_IN_FLIGHT_BYTES   │
//!                      ≤ FORWARD_BACKLOG_BYTES
//! ```
//!
//! Invariant: `acked <= sent < cursor <= last + 1`, and the backlog holds rows in order, all of
//! `sent < row < cursor` that still exist.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use verge_model::{Class, NodeKey};
use verge_storage::{LogBounds, LogKey};

use super::ForwardBounds;
use crate::effects::Effects;
use crate::limits::{FORWARD_BACKLOG_BYTES, FORWARD_IN_FLIGHT_BYTES, FORWARD_PAGE_BYTES};
use crate::output::{Lane, Output};
use crate::wire::{Forward, Frame, Received};

#[derive(Debug)]
pub(crate) struct Senders {
    log_id: u64,
    windows: BTreeMap<(NodeKey, Class), Window>,
    /// Windows that may have something to send or read.
    touched: BTreeSet<(NodeKey, Class)>,
    /// Records that no frame can carry; they are given up.
    oversized: u64,
}

#[derive(Debug, Default)]
struct Window {
    /// The last sequence given by the store.
    last: u64,
    /// The last sequence durable at the peer.
    acked: u64,
    /// `None`: no link.
    flow: Option<Flow>,
}

/// A window while its link is up.
#[derive(Debug)]
struct Flow {
    /// The next sequence to enter the backlog.
    cursor: u64,
    backlog: VecDeque<(u64, Bytes)>,
    backlog_bytes: usize,
    /// Sequences and sizes of what is sent and not acknowledged.
    in_flight: VecDeque<(u64, usize)>,
    in_flight_bytes: usize,
    reading: Option<Reading>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    from: u64,
    /// The log's last sequence when the read was asked for: the read sees all of it.
    last: u64,
}

impl Senders {
    pub(crate) fn new(log_id: u64) -> Self {
        Self { log_id, windows: BTreeMap::new(), touched: BTreeSet::new(), oversized: 0 }
    }

    pub(crate) fn restore(&mut self, bounds: ForwardBounds) {
        let LogBounds { first, next } = bounds.rows;
        let window = Window { last: next - 1, acked: first - 1, flow: None };
        self.windows.insert((bounds.peer, bounds.class), window);
    }

    /// The link that carries `class` is up, and the peer greeted with what it has. `false`: it has
    /// more than was ever sent, so this log is not the one it took from.
    pub(crate) fn peer_up(
        &mut self,
        peer: NodeKey,
        class: Class,
        received: &[Received],
        fx: &mut Effects,
    ) -> bool {
        let window = self.windows.entry((peer, class)).or_default();
        let mine = |known: &&Received| known.class == class && known.log_id == self.log_id;
        let taken = received.iter().find(mine).map_or(0, |known| known.last);
        if taken > window.last {
            window.flow = None;
            return false;
        }
        window.flow = Some(Flow::from(taken.max(window.acked) + 1));
        window.acknowledge(peer, class, taken, fx);
        self.touched.insert((peer, class));
        true
    }

    pub(crate) fn peer_down(&mut self, peer: NodeKey, class: Class) {
        if let Some(window) = self.windows.get_mut(&(peer, class)) {
            window.flow = None;
        }
    }

    /// A row is committed.
    pub(crate) fn appended(&mut self, peer: NodeKey, class: Class, seq: u64, record: Bytes) {
        let window = self.windows.entry((peer, class)).or_default();
        window.last = window.last.max(seq);
        if let Some(flow) = &mut window.flow {
            let fits = flow.backlog_bytes + record.len() <= FORWARD_BACKLOG_BYTES;
            if flow.cursor == seq && flow.reading.is_none() && fits {
                flow.enter(seq, record);
            }
            self.touched.insert((peer, class));
        }
    }

    /// Rows that were asked for. `at_end`: the log had no more when they were read.
    pub(crate) fn rows(
        &mut self,
        peer: NodeKey,
        class: Class,
        from: u64,
        rows: Vec<(u64, Bytes)>,
        at_end: bool,
    ) {
        let Some(window) = self.windows.get_mut(&(peer, class)) else { return };
        let Some(flow) = &mut window.flow else { return };
        let Some(reading) = flow.reading.filter(|reading| reading.from == from) else { return };
        flow.reading = None;
        for (seq, record) in rows {
            if seq >= flow.cursor {
                flow.enter(seq, record);
            }
        }
        if at_end {
            // What is missing up to there does not exist any more.
            flow.cursor = flow.cursor.max(reading.last + 1);
        }
        self.touched.insert((peer, class));
    }

    pub(crate) fn handle_ack(
        &mut self,
        peer: NodeKey,
        class: Class,
        log_id: u64,
        last: u64,
        fx: &mut Effects,
    ) -> Result<(), String> {
        let Some(window) = self.windows.get_mut(&(peer, class)) else { return Ok(()) };
        if log_id != self.log_id {
            return Ok(());
        }
        if last > window.last {
            return Err("it acknowledges messages that were never sent".into());
        }
        window.acknowledge(peer, class, last, fx);
        self.touched.insert((peer, class));
        Ok(())
    }

    /// Sends what the windows allow, and asks for rows that are not in memory.
    pub(crate) fn push(&mut self, fx: &mut Effects) {
        for (peer, class) in std::mem::take(&mut self.touched) {
            let Some(window) = self.windows.get_mut(&(peer, class)) else { continue };
            let Some(flow) = &mut window.flow else { continue };
            while flow.may_send() {
                let Some((seq, record)) = flow.backlog.pop_front() else { break };
                let len = record.len();
                flow.backlog_bytes -= len;
                if !Frame::carries(len) {
                    self.oversized += 1;
                    tracing::error!(peer = %peer, class = %class, seq, len, "a message is too large to forward");
                    continue;
                }
                fx.send(peer, Lane::of(class), &Frame::Forward(Forward { class, seq, record }));
                flow.in_flight.push_back((seq, len));
                flow.in_flight_bytes += len;
            }
            if flow.backlog.is_empty() && flow.reading.is_none() && flow.cursor <= window.last {
                flow.reading = Some(Reading { from: flow.cursor, last: window.last });
                let (from_seq, bytes_max) = (flow.cursor, FORWARD_PAGE_BYTES);
                fx.push(Output::ReadForward { peer, class, from_seq, bytes_max });
            }
        }
    }

    /// How many rows a peer has not taken custody of.
    pub(crate) fn pending(&self, peer: NodeKey) -> u64 {
        let classes = Class::ALL.into_iter();
        classes
            .filter_map(|class| self.windows.get(&(peer, class)))
            .map(|window| window.last - window.acked)
            .sum()
    }

    /// The last sequence of each log for a peer.
    pub(crate) fn ends(&self, peer: NodeKey) -> [u64; Class::ALL.len()] {
        Class::ALL.map(|class| self.windows.get(&(peer, class)).map_or(0, |window| window.last))
    }

    /// Whether the peer has custody of its logs up to these ends.
    pub(crate) fn reached(&self, peer: NodeKey, ends: &[u64; Class::ALL.len()]) -> bool {
        let acked = |class| self.windows.get(&(peer, class)).map_or(0, |window| window.acked);
        Class::ALL.into_iter().zip(ends).all(|(class, end)| acked(class) >= *end)
    }

    pub(crate) fn oversized(&self) -> u64 {
        self.oversized
    }

    pub(crate) fn forget(&mut self, peer: NodeKey, fx: &mut Effects) {
        for class in Class::ALL {
            // The store goes on counting: if the peer comes back, its log does not begin anew.
            if let Some(window) = self.windows.get_mut(&(peer, class)) {
                window.acked = window.last;
                fx.batch.trim(LogKey::Forward { peer, class }, window.last);
            }
        }
    }
}

impl Window {
    fn acknowledge(&mut self, peer: NodeKey, class: Class, last: u64, fx: &mut Effects) {
        if last <= self.acked {
            return;
        }
        self.acked = last;
        fx.batch.trim(LogKey::Forward { peer, class }, last);
        let Some(flow) = &mut self.flow else { return };
        while flow.in_flight.front().is_some_and(|(seq, _)| *seq <= last) {
            if let Some((_, len)) = flow.in_flight.pop_front() {
                flow.in_flight_bytes -= len;
            }
        }
    }
}

impl Flow {
    fn from(cursor: u64) -> Self {
        Self {
            cursor,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            reading: None,
        }
    }

    fn enter(&mut self, seq: u64, record: Bytes) {
        self.backlog_bytes += record.len();
        self.backlog.push_back((seq, record));
        self.cursor = seq + 1;
    }

    /// One record may go whatever its size, so that none waits for ever.
    fn may_send(&self) -> bool {
        let Some((_, next)) = self.backlog.front() else { return false };
        self.in_flight.is_empty() || self.in_flight_bytes + next.len() <= FORWARD_IN_FLIGHT_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::LinkState;
    use crate::output::LinkKind;

    const PEER: NodeKey = NodeKey(3);
    const CLASS: Class = Class::Control;

    fn linked() -> (Senders, Effects) {
        let mut fx = Effects::default();
        fx.set_link(PEER, LinkKind::Fast, LinkState::Established);
        (Senders::new(7), fx)
    }

    fn record(len: usize) -> Bytes {
        Bytes::from(vec![0; len])
    }

    fn holding(last: u64) -> ForwardBounds {
        let rows = LogBounds { first: 1, next: last + 1 };
        ForwardBounds { peer: PEER, class: CLASS, rows }
    }

    fn took(last: u64) -> [Received; 1] {
        [Received { class: CLASS, log_id: 7, last }]
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a transcript shows whatever comes")]
    fn transcript(senders: &mut Senders, fx: &mut Effects) -> Vec<String> {
        senders.push(fx);
        let writes = fx.batch.ops().len();
        fx.batch = verge_storage::Batch::new();
        std::iter::from_fn(|| fx.poll())
            .map(|output| match output {
                Output::Send { frame, .. } => match Frame::decode(frame).unwrap().unwrap() {
                    Frame::Forward(forward) => format!("send {}", forward.seq),
                    other => format!("{other:?}"),
                },
                Output::ReadForward { from_seq, .. } => format!("read {from_seq}"),
                other => format!("{other:?}"),
            })
            .chain((0..writes).map(|_| "trim".to_owned()))
            .collect()
    }

    #[test]
    fn what_is_appended_on_a_link_goes_out_at_once_and_is_trimmed_when_acknowledged() {
        let (mut senders, mut fx) = linked();
        assert!(senders.peer_up(PEER, CLASS, &[], &mut fx));
        senders.appended(PEER, CLASS, 1, record(10));
        senders.appended(PEER, CLASS, 2, record(10));
        assert_eq!(transcript(&mut senders, &mut fx), ["send 1", "send 2"]);
        senders.handle_ack(PEER, CLASS, 7, 2, &mut fx).unwrap();
        assert_eq!(transcript(&mut senders, &mut fx), ["trim"]);
        assert_eq!(senders.pending(PEER), 0);
        assert!(senders.handle_ack(PEER, CLASS, 7, 3, &mut fx).is_err());
    }

    #[test]
    fn what_was_appended_without_a_link_is_read_from_the_log() {
        let (mut senders, mut fx) = linked();
        senders.restore(holding(5));
        senders.appended(PEER, CLASS, 6, record(1));
        assert_eq!(transcript(&mut senders, &mut fx), [""; 0]);
        assert!(senders.peer_up(PEER, CLASS, &took(3), &mut fx));
        assert_eq!(transcript(&mut senders, &mut fx), ["read 4", "trim"]);
        senders.appended(PEER, CLASS, 7, record(1));
        senders.rows(PEER, CLASS, 4, vec![(4, record(1)), (5, record(1))], false);
        assert_eq!(transcript(&mut senders, &mut fx), ["send 4", "send 5", "read 6"]);
        senders.rows(PEER, CLASS, 6, vec![(6, record(1)), (7, record(1))], true);
        senders.appended(PEER, CLASS, 8, record(1));
        assert_eq!(transcript(&mut senders, &mut fx), ["send 6", "send 7", "send 8"]);
    }

    #[test]
    fn rows_that_expired_on_disk_are_passed_over() {
        let (mut senders, mut fx) = linked();
        senders.restore(holding(5));
        senders.peer_up(PEER, CLASS, &[], &mut fx);
        assert_eq!(transcript(&mut senders, &mut fx), ["read 1"]);
        senders.rows(PEER, CLASS, 1, vec![(3, record(1))], true);
        senders.appended(PEER, CLASS, 6, record(1));
        assert_eq!(transcript(&mut senders, &mut fx), ["send 3", "send 6"]);
    }

    #[test]
    fn the_window_bounds_what_is_in_flight_and_the_backlog_what_is_in_memory() {
        let (mut senders, mut fx) = linked();
        senders.peer_up(PEER, CLASS, &[], &mut fx);
        let half = FORWARD_IN_FLIGHT_BYTES / 2;
        for seq in 1..=6 {
            senders.appended(PEER, CLASS, seq, record(half));
            if seq == 1 {
                assert_eq!(transcript(&mut senders, &mut fx), ["send 1"]);
            }
        }
        // 2 fills the window, 3 waits in memory, 4 to 6 on disk only.
        assert_eq!(transcript(&mut senders, &mut fx), ["send 2"]);
        senders.handle_ack(PEER, CLASS, 7, 1, &mut fx).unwrap();
        assert_eq!(transcript(&mut senders, &mut fx), ["send 3", "read 4", "trim"]);
        senders.rows(PEER, CLASS, 4, vec![(4, record(half))], false);
        assert_eq!(transcript(&mut senders, &mut fx), [""; 0]);
    }

    #[test]
    fn a_link_that_returns_goes_on_after_what_the_peer_has_and_ignores_old_reads() {
        let (mut senders, mut fx) = linked();
        senders.restore(holding(9));
        senders.peer_up(PEER, CLASS, &took(4), &mut fx);
        assert_eq!(transcript(&mut senders, &mut fx), ["read 5", "trim"]);
        senders.rows(PEER, CLASS, 5, vec![(5, record(1)), (6, record(1))], false);
        assert_eq!(transcript(&mut senders, &mut fx), ["send 5", "send 6", "read 7"]);
        senders.peer_down(PEER, CLASS);
        senders.peer_up(PEER, CLASS, &took(4), &mut fx);
        assert_eq!(transcript(&mut senders, &mut fx), ["read 5"]);
        senders.rows(PEER, CLASS, 7, vec![(7, record(1))], true);
        assert_eq!(transcript(&mut senders, &mut fx), [""; 0]);
    }

    #[test]
    fn a_peer_that_has_more_than_was_sent_stops_the_log() {
        let (mut senders, mut fx) = linked();
        senders.restore(holding(2));
        assert!(!senders.peer_up(PEER, CLASS, &took(3), &mut fx));
        senders.appended(PEER, CLASS, 3, record(1));
        assert_eq!(transcript(&mut senders, &mut fx), [""; 0]);
        let other_log = [Received { class: CLASS, log_id: 6, last: 3 }];
        assert!(senders.peer_up(PEER, CLASS, &other_log, &mut fx));
    }
}
