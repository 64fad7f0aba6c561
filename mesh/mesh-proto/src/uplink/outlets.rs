//! The node's side towards all cloud peers: one sender each, and one decision on trimming.

use std::collections::{BTreeMap, VecDeque};

use verge_model::{Millis, NodeKey, Now};

use super::{EncodedRows, Frame, Sender, SenderOutput, StreamConfig};

/// Sends one log to every cloud peer, and says what all of them have in their tables.
///
/// A cloud peer that was ever seen holds the trim until it acknowledges or is forgotten: it may
/// only be cut off. Rows dropped by the outbox's own bounds are dropped all the same.
#[derive(Debug)]
pub struct Outlets {
    config: StreamConfig,
    first: u64,
    next: u64,
    senders: BTreeMap<NodeKey, Sender>,
    outputs: VecDeque<SenderOutput>,
}

impl Outlets {
    /// Outlets of a log that has the rows `first..next`, without a peer.
    #[must_use]
    pub fn new(config: StreamConfig, first: u64, next: u64) -> Self {
        Self { config, first, next, senders: BTreeMap::new(), outputs: VecDeque::new() }
    }

    /// This peer is of the cloud tier. To be said of every one the node ever knew, at start.
    pub fn add_peer(&mut self, peer: NodeKey) {
        let Self { config, first, next, .. } = self;
        self.senders
            .entry(peer)
            .or_insert_with(|| Sender::new(config.clone(), peer, *first, *next));
    }

    /// This peer is gone for good; it holds nothing any more.
    pub fn forget_peer(&mut self, peer: NodeKey) {
        if self.senders.remove(&peer).is_some() {
            self.trim();
        }
    }

    /// There is a new link to a cloud peer.
    pub fn handle_link_up(&mut self, peer: NodeKey, now: Now) {
        self.add_peer(peer);
        self.with(peer, |sender| sender.handle_link_up(now));
    }

    /// The link to a cloud peer is gone.
    pub fn handle_link_down(&mut self, peer: NodeKey) {
        self.with(peer, Sender::handle_link_down);
    }

    /// The log has the rows `first..next` now.
    pub fn handle_bounds(&mut self, first: u64, next: u64) {
        self.first = self.first.max(first);
        self.next = self.next.max(next);
        let peers: Vec<NodeKey> = self.senders.keys().copied().collect();
        for peer in peers {
            self.with(peer, |sender| sender.handle_bounds(first, next));
        }
    }

    /// A frame of a cloud peer. One about another log, or of a kind a node does not take, is
    /// ignored; so is one from a peer that was not added.
    pub fn handle_frame(&mut self, from: NodeKey, frame: &Frame, now: Now) {
        if frame.stream() != self.config.stream {
            return;
        }
        match *frame {
            Frame::Resume { last, .. } => {
                self.with(from, |sender| sender.handle_resume(last, now));
            }
            Frame::Ack { last, .. } => {
                self.with(from, |sender| sender.handle_ack(last, now));
                self.trim();
            }
            Frame::Offer { .. } | Frame::Batch(_) => {}
        }
    }

    /// The rows asked for by [`SenderOutput::Read`].
    pub fn handle_rows(&mut self, peer: NodeKey, from: u64, rows: Option<EncodedRows>, now: Now) {
        self.with(peer, |sender| sender.handle_rows(from, rows, now));
    }

    /// A deadline of [`Outlets::poll_timeout`] passed.
    pub fn handle_timeout(&mut self, now: Now) {
        let peers: Vec<NodeKey> = self.senders.keys().copied().collect();
        for peer in peers {
            self.with(peer, |sender| sender.handle_timeout(now));
        }
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<SenderOutput> {
        self.outputs.pop_front()
    }

    /// When to call [`Outlets::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        self.senders.values().filter_map(Sender::poll_timeout).min()
    }

    /// The senders, by peer.
    pub fn senders(&self) -> impl Iterator<Item = (NodeKey, &Sender)> {
        self.senders.iter().map(|(peer, sender)| (*peer, sender))
    }

    /// Rows not yet in every cloud peer's table; all of them while there is no peer.
    #[must_use]
    pub fn lag(&self) -> u64 {
        let acked = self.senders.values().map(Sender::acked).min().unwrap_or(0);
        self.next - self.first.max(acked + 1).min(self.next)
    }

    fn with(&mut self, peer: NodeKey, act: impl FnOnce(&mut Sender)) {
        let Some(sender) = self.senders.get_mut(&peer) else { return };
        act(sender);
        self.outputs.extend(std::iter::from_fn(|| sender.poll_output()));
    }

    fn trim(&mut self) {
        let Some(upto) = self.senders.values().map(Sender::acked).min() else { return };
        if upto >= self.first {
            self.first = upto + 1;
            self.outputs.push_back(SenderOutput::Trim { upto });
        }
    }
}

#[cfg(test)]
mod tests {
    use verge_model::{NodeId, UnixMillis};

    use super::*;
    use crate::uplink::StreamKey;

    const EAST: NodeKey = NodeKey(1);
    const WEST: NodeKey = NodeKey(2);
    const NOW: Now = Now { mono: Millis(0), wall: UnixMillis(0) };

    #[test]
    fn the_slowest_cloud_peer_decides_what_is_trimmed() {
        let mut o = outlets();
        o.handle_link_up(EAST, NOW);
        o.handle_link_up(WEST, NOW);
        ack(&mut o, EAST, 8);
        assert_eq!(trims(&mut o), []);
        ack(&mut o, WEST, 5);
        assert_eq!(trims(&mut o), [5]);
        ack(&mut o, WEST, 5);
        assert_eq!(trims(&mut o), [], "nothing is trimmed twice");
        ack(&mut o, WEST, 9);
        assert_eq!(trims(&mut o), [8]);
    }

    #[test]
    fn an_absent_peer_holds_the_trim_until_it_is_forgotten() {
        let mut o = outlets();
        o.add_peer(WEST);
        o.handle_link_up(EAST, NOW);
        ack(&mut o, EAST, 8);
        assert_eq!((trims(&mut o), o.lag()), (vec![], 9));
        o.forget_peer(WEST);
        assert_eq!((trims(&mut o), o.lag()), (vec![8], 1));
        o.forget_peer(EAST);
        assert_eq!((trims(&mut o), o.lag()), (vec![], 1), "without a peer everything is kept");
    }

    #[test]
    fn security_frames_about_other_logs_or_from_strangers_change_nothing() {
        let mut o = outlets();
        o.handle_link_up(EAST, NOW);
        let old = StreamKey { log_id: 4, ..stream() };
        o.handle_frame(EAST, &Frame::Ack { stream: old, last: 8 }, NOW);
        o.handle_frame(NodeKey(9), &Frame::Ack { stream: stream(), last: 8 }, NOW);
        assert_eq!((trims(&mut o), o.lag()), (vec![], 9));
    }

    fn outlets() -> Outlets {
        let origin_id: NodeId = "r-1".parse().unwrap();
        Outlets::new(StreamConfig { stream: stream(), origin_id, name: "messages".into() }, 1, 10)
    }

    fn stream() -> StreamKey {
        StreamKey { origin: "r-1".parse::<NodeId>().unwrap().key(), log_id: 5, stream: 0 }
    }

    fn ack(o: &mut Outlets, from: NodeKey, last: u64) {
        o.handle_frame(from, &Frame::Ack { stream: stream(), last }, NOW);
    }

    fn trims(o: &mut Outlets) -> Vec<u64> {
        std::iter::from_fn(|| o.poll_output())
            .filter_map(|output| match output {
                SenderOutput::Trim { upto } => Some(upto),
                SenderOutput::Send { .. }
                | SenderOutput::Read { .. }
                | SenderOutput::LogBehind { .. } => None,
            })
            .collect()
    }
}
