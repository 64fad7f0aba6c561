//! This node's routes, and how far each peer has them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use verge_model::{Incarnation, NodeKey};

use crate::effects::Effects;
use crate::limits::{
    ROUTE_FRAME_BYTES, ROUTE_OPS_IN_FLIGHT, ROUTE_OPS_KEPT, ROUTES_PER_ORIGIN_MAX,
    SNAPSHOT_CHUNKS_IN_FLIGHT,
};
use crate::output::Lane;
use crate::wire::{Frame, RouteChange, RouteChunk, RouteHead, RouteOps};

/// What an operation takes on the wire beside its filter, at most.
const CHANGE_OVERHEAD: usize = 16;

#[derive(Debug)]
pub(crate) struct OwnRoutes {
    incarnation: Incarnation,
    /// Filters wanted, and the sequences of the operations that added them.
    filters: BTreeMap<Arc<str>, u64>,
    /// The latest operation.
    head: u64,
    /// The operations `head - log.len() + 1 ..= head`.
    log: VecDeque<Operation>,
    peers: BTreeMap<NodeKey, Progress>,
    /// Something changed since the last push.
    touched: bool,
}

#[derive(Debug, Clone)]
enum Operation {
    Add(Arc<str>),
    Remove { filter: Arc<str>, added: u64 },
}

/// How far a peer is.
#[derive(Debug)]
struct Progress {
    /// The last operation sent.
    sent: u64,
    /// The last operation durable there.
    acked: u64,
    /// The head of the last snapshot: what it covers is not in flight as operations.
    base: u64,
    snapshot: Option<Snapshot>,
}

/// A snapshot on its way. Operations wait until its last chunk is sent.
#[derive(Debug)]
struct Snapshot {
    head: u64,
    /// The last filter sent.
    after: Option<Arc<str>>,
    /// Chunks sent, and of them arrived.
    chunks: u64,
    arrived: u64,
}

impl OwnRoutes {
    pub(crate) fn new(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            filters: BTreeMap::new(),
            head: 0,
            log: VecDeque::new(),
            peers: BTreeMap::new(),
            touched: false,
        }
    }

    /// Wants a filter; `false`: it is wanted already, or there are too many.
    pub(crate) fn add(&mut self, filter: impl Into<Arc<str>>) -> bool {
        let filter = filter.into();
        if self.filters.contains_key(&filter) || self.filters.len() >= ROUTES_PER_ORIGIN_MAX {
            return false;
        }
        self.record(Operation::Add(filter.clone()));
        self.filters.insert(filter, self.head);
        true
    }

    /// Does not want a filter any more; `false`: it was not wanted.
    pub(crate) fn remove(&mut self, filter: &str) -> bool {
        let Some((filter, added)) = self.filters.remove_entry(filter) else { return false };
        self.record(Operation::Remove { filter, added });
        true
    }

    /// A peer greeted and said what it knows.
    pub(crate) fn peer_up(&mut self, peer: NodeKey, known: Option<RouteHead>) {
        let progress = self.resume(known);
        self.touched = true;
        self.peers.insert(peer, progress);
    }

    pub(crate) fn peer_down(&mut self, peer: NodeKey) {
        self.peers.remove(&peer);
    }

    /// What the peer has does not go together with what was sent.
    pub(crate) fn handle_resync(&mut self, peer: NodeKey, known: Option<RouteHead>) {
        if self.peers.contains_key(&peer) {
            self.peer_up(peer, known);
        }
    }

    pub(crate) fn handle_ack(&mut self, peer: NodeKey, head: RouteHead) {
        let Some(progress) = self.peers.get_mut(&peer) else { return };
        if head.incarnation != self.incarnation || head.seq > progress.sent {
            return;
        }
        progress.acked = progress.acked.max(head.seq);
        self.touched = true;
    }

    pub(crate) fn handle_chunk_ack(&mut self, peer: NodeKey, head: RouteHead, index: u64) {
        let Some(progress) = self.peers.get_mut(&peer) else { return };
        let Some(snapshot) = &mut progress.snapshot else { return };
        if head.incarnation == self.incarnation && head.seq == snapshot.head {
            self.touched = true;
            snapshot.arrived = snapshot.arrived.max(index.saturating_add(1).min(snapshot.chunks));
        }
    }

    /// Sends what peers may have now.
    pub(crate) fn push(&mut self, fx: &mut Effects) {
        if !std::mem::take(&mut self.touched) {
            return;
        }
        let oldest = self.oldest();
        for (peer, progress) in &mut self.peers {
            loop {
                let frame = if let Some(snapshot) = &mut progress.snapshot {
                    if snapshot.head + 1 < oldest {
                        // The operations that must follow are gone: begin again.
                        *snapshot = Snapshot::at(self.head);
                    }
                    if snapshot.chunks - snapshot.arrived >= SNAPSHOT_CHUNKS_IN_FLIGHT {
                        break;
                    }
                    let chunk = next_chunk(snapshot, &self.filters, self.incarnation);
                    if chunk.last {
                        progress.sent = snapshot.head;
                        progress.base = snapshot.head;
                        progress.snapshot = None;
                    }
                    Frame::RouteChunk(chunk)
                } else if progress.sent + 1 < oldest {
                    progress.snapshot = Some(Snapshot::at(self.head));
                    continue;
                } else if progress.sent < self.head
                    && progress.sent - progress.acked.max(progress.base) < ROUTE_OPS_IN_FLIGHT
                {
                    let ops = next_ops(progress.sent + 1, oldest, &self.log, self.incarnation);
                    progress.sent += ops.changes.len() as u64;
                    Frame::RouteOps(ops)
                } else {
                    break;
                };
                if !fx.send(*peer, Lane::Control, &frame) {
                    break;
                }
            }
        }
    }

    pub(crate) fn filters(&self) -> impl Iterator<Item = &str> {
        self.filters.keys().map(AsRef::as_ref)
    }

    pub(crate) fn head(&self) -> RouteHead {
        RouteHead { incarnation: self.incarnation, seq: self.head }
    }

    /// How many operations a peer has not acknowledged; `None` if it gets none.
    pub(crate) fn lag(&self, peer: NodeKey) -> Option<u64> {
        self.peers.get(&peer).map(|progress| self.head - progress.acked)
    }

    fn record(&mut self, operation: Operation) {
        self.head += 1;
        self.touched = true;
        self.log.push_back(operation);
        if self.log.len() > ROUTE_OPS_KEPT {
            self.log.pop_front();
        }
    }

    /// The first operation the log holds.
    fn oldest(&self) -> u64 {
        self.head + 1 - self.log.len() as u64
    }

    fn resume(&self, known: Option<RouteHead>) -> Progress {
        let start = |sent, snapshot| Progress { sent, acked: sent, base: 0, snapshot };
        match known {
            Some(known)
                if known.incarnation == self.incarnation
                    && known.seq <= self.head
                    && known.seq + 1 >= self.oldest() =>
            {
                start(known.seq, None)
            }
            Some(_) | None => start(0, Some(Snapshot::at(self.head))),
        }
    }
}

impl Snapshot {
    fn at(head: u64) -> Self {
        Self { head, after: None, chunks: 0, arrived: 0 }
    }
}

fn next_chunk(
    snapshot: &mut Snapshot,
    filters: &BTreeMap<Arc<str>, u64>,
    incarnation: Incarnation,
) -> RouteChunk {
    let start = match &snapshot.after {
        Some(after) => Bound::Excluded(after.clone()),
        None => Bound::Unbounded,
    };
    let mut rest = filters.range::<Arc<str>, _>((start, Bound::Unbounded)).peekable();
    let mut routes = Vec::new();
    let mut bytes = 0;
    while bytes < ROUTE_FRAME_BYTES {
        let Some((filter, added)) = rest.next() else { break };
        bytes += filter.len() + CHANGE_OVERHEAD;
        routes.push((filter.to_string(), *added));
        snapshot.after = Some(filter.clone());
    }
    let index = snapshot.chunks;
    snapshot.chunks += 1;
    let head = RouteHead { incarnation, seq: snapshot.head };
    RouteChunk { head, index, last: rest.peek().is_none(), routes }
}

fn next_ops(
    first: u64,
    oldest: u64,
    log: &VecDeque<Operation>,
    incarnation: Incarnation,
) -> RouteOps {
    let at = usize::try_from(first - oldest).expect("the log is in memory");
    let mut changes = Vec::new();
    let mut bytes = 0;
    for operation in log.iter().skip(at) {
        if bytes >= ROUTE_FRAME_BYTES {
            break;
        }
        let (filter, change) = match operation {
            Operation::Add(filter) => (filter, RouteChange::Add(filter.to_string())),
            Operation::Remove { filter, added } => {
                (filter, RouteChange::Remove { filter: filter.to_string(), added: *added })
            }
        };
        bytes += filter.len() + CHANGE_OVERHEAD;
        changes.push(change);
    }
    RouteOps { incarnation, first, changes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::LinkState;
    use crate::output::{LinkKind, Output};

    const PEER: NodeKey = NodeKey(3);

    fn linked() -> (OwnRoutes, Effects) {
        let mut fx = Effects::default();
        fx.set_link(PEER, LinkKind::Fast, LinkState::Established);
        (OwnRoutes::new(2), fx)
    }

    fn head(seq: u64) -> RouteHead {
        RouteHead { incarnation: 2, seq }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a transcript shows whatever comes")]
    fn transcript(routes: &mut OwnRoutes, fx: &mut Effects) -> Vec<String> {
        routes.push(fx);
        std::iter::from_fn(|| fx.poll())
            .map(|output| match output {
                Output::Send { frame, .. } => match Frame::decode(frame).unwrap().unwrap() {
                    Frame::RouteOps(ops) => {
                        format!("ops {} to {}", ops.first, ops.first + ops.changes.len() as u64 - 1)
                    }
                    Frame::RouteChunk(chunk) => format!(
                        "chunk {} of {}: {} routes{}",
                        chunk.index,
                        chunk.head.seq,
                        chunk.routes.len(),
                        if chunk.last { ", last" } else { "" }
                    ),
                    other => format!("{other:?}"),
                },
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_peer_gets_what_it_misses_and_no_more() {
        let (mut routes, mut fx) = linked();
        for filter in ["a", "b", "c"] {
            assert!(routes.add(filter));
        }
        assert!(!routes.add("a"));
        assert!(routes.remove("b") && !routes.remove("b"));
        let table = [
            (None, "chunk 0 of 4: 2 routes, last"),
            (Some(RouteHead { incarnation: 1, seq: 4 }), "chunk 0 of 4: 2 routes, last"),
            (Some(head(9)), "chunk 0 of 4: 2 routes, last"),
            (Some(head(0)), "ops 1 to 4"),
            (Some(head(3)), "ops 4 to 4"),
        ];
        for (known, answer) in table {
            routes.peer_up(PEER, known);
            assert_eq!(transcript(&mut routes, &mut fx), [answer], "{known:?}");
        }
        routes.peer_up(PEER, Some(head(4)));
        assert_eq!(transcript(&mut routes, &mut fx), [""; 0]);
        routes.add("d");
        assert_eq!(transcript(&mut routes, &mut fx), ["ops 5 to 5"]);
    }

    #[test]
    fn an_acknowledgement_of_another_life_is_none() {
        let (mut routes, mut fx) = linked();
        routes.peer_up(PEER, Some(head(0)));
        routes.add("a");
        routes.add("b");
        assert_eq!(transcript(&mut routes, &mut fx), ["ops 1 to 2"]);
        routes.handle_ack(PEER, head(1));
        routes.handle_ack(PEER, RouteHead { incarnation: 1, seq: 9 });
        assert_eq!(routes.lag(PEER), Some(1));
        routes.peer_down(PEER);
        assert_eq!(routes.lag(PEER), None);
    }

    #[test]
    fn a_peer_that_missed_more_than_the_log_holds_gets_a_snapshot_in_chunks() {
        let (mut routes, mut fx) = linked();
        let long = "x".repeat(1_000);
        for number in 0..400 {
            routes.add(format!("{number:03}/{long}"));
        }
        for number in 0..ROUTE_OPS_KEPT {
            let filter = format!("{}", number % 2);
            if !routes.add(filter.as_str()) {
                routes.remove(&filter);
            }
        }
        routes.peer_up(PEER, Some(head(10)));
        let sent = transcript(&mut routes, &mut fx);
        assert_eq!(sent.len() as u64, SNAPSHOT_CHUNKS_IN_FLIGHT, "{sent:?}");
        let at = routes.head;
        routes.add("meanwhile");
        assert_eq!(transcript(&mut routes, &mut fx), [""; 0], "it waits for the snapshot");
        routes.handle_chunk_ack(PEER, head(at), 7);
        let sent = transcript(&mut routes, &mut fx);
        assert!(sent[sent.len() - 2].ends_with("last"), "{sent:?}");
        assert_eq!(sent[sent.len() - 1], format!("ops {} to {}", at + 1, at + 1));
    }
}
