//! What one turn causes: outputs in order, one batch, and frames that wait for a commit.
//!
//! The parts of the core write here, so that none of them needs to know the others. It also knows
//! which links are up, since a frame for a link that is not is no frame at all.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use verge_model::NodeKey;
use verge_storage::Batch;

use crate::output::{Lane, LinkKind, Output, Ticket};
use crate::wire::Frame;

/// Most commits whose frames wait; beyond it the oldest frames are given up, and the peers ask again.
const COMMITS_AWAITED_MAX: usize = 65_536;

/// The state of one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LinkState {
    /// There is none.
    #[default]
    Down,
    /// It is there, and the peer has not greeted.
    Greeting,
    /// The peer has greeted: frames may be sent.
    Established,
}

/// A frame that waits for a commit.
type Held = (NodeKey, Lane, Bytes);

#[derive(Debug, Default)]
pub(crate) struct Effects {
    out: VecDeque<Output>,
    links: BTreeMap<NodeKey, [LinkState; 2]>,
    /// Writes of this turn.
    pub(crate) batch: Batch,
    /// Frames that speak of this turn's writes, or of earlier ones.
    held: Vec<Held>,
    awaited: VecDeque<(Ticket, Vec<Held>)>,
    next_ticket: u64,
}

impl Effects {
    pub(crate) fn push(&mut self, output: Output) {
        self.out.push_back(output);
    }

    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    pub(crate) fn set_link(&mut self, peer: NodeKey, kind: LinkKind, state: LinkState) {
        let links = self.links.entry(peer).or_default();
        links[kind as usize] = state;
        if *links == [LinkState::Down; 2] {
            self.links.remove(&peer);
        }
    }

    pub(crate) fn link(&self, peer: NodeKey, kind: LinkKind) -> LinkState {
        self.links.get(&peer).map_or(LinkState::Down, |links| links[kind as usize])
    }

    pub(crate) fn established(&self, peer: NodeKey, kind: LinkKind) -> bool {
        self.link(peer, kind) == LinkState::Established
    }

    /// Peers with an established link of `kind`, in order.
    pub(crate) fn peers(&self, kind: LinkKind) -> impl Iterator<Item = NodeKey> {
        self.links
            .iter()
            .filter(move |(_, links)| links[kind as usize] == LinkState::Established)
            .map(|(peer, _)| *peer)
    }

    /// Sends a frame; `false`: there is no link.
    pub(crate) fn send(&mut self, peer: NodeKey, lane: Lane, frame: &Frame) -> bool {
        let up = self.established(peer, lane.link());
        if up {
            self.push(Output::Send { peer, lane, frame: frame.encode() });
        }
        up
    }

    /// Sends a frame once all writes so far are committed.
    pub(crate) fn send_committed(&mut self, peer: NodeKey, lane: Lane, frame: &Frame) {
        self.held.push((peer, lane, frame.encode()));
    }

    /// The batch `ticket` names, and all before it, is committed.
    pub(crate) fn committed(&mut self, ticket: Ticket) {
        while self.awaited.front().is_some_and(|(oldest, _)| *oldest <= ticket) {
            let Some((_, frames)) = self.awaited.pop_front() else { break };
            self.release(frames);
        }
    }

    /// Ends the turn: asks for its writes to be committed.
    pub(crate) fn flush(&mut self) {
        let held = std::mem::take(&mut self.held);
        if self.batch.is_empty() {
            match self.awaited.back_mut() {
                // They may speak of what that commit makes durable.
                Some((_, frames)) => frames.extend(held),
                None => self.release(held),
            }
            return;
        }
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.awaited.push_back((ticket, held));
        if self.awaited.len() > COMMITS_AWAITED_MAX {
            self.awaited.pop_front();
        }
        let batch = std::mem::take(&mut self.batch);
        self.push(Output::Persist { batch, ticket });
    }

    fn release(&mut self, frames: Vec<Held>) {
        for (peer, lane, frame) in frames {
            if self.established(peer, lane.link()) {
                self.push(Output::Send { peer, lane, frame });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeKey = NodeKey(1);

    #[expect(clippy::wildcard_enum_match_arm, reason = "a transcript shows whatever comes")]
    fn drain(effects: &mut Effects) -> Vec<String> {
        std::iter::from_fn(|| effects.poll())
            .map(|output| match output {
                Output::Persist { ticket, .. } => format!("persist {}", ticket.0),
                Output::Send { frame, .. } => format!("send {frame:?}"),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_frame_that_speaks_of_a_write_waits_for_its_commit_and_all_before() {
        let mut effects = Effects::default();
        effects.set_link(PEER, LinkKind::Fast, LinkState::Established);
        let frame = |text: &'static [u8]| Frame::Handover(Bytes::from_static(text));
        effects.batch.delete_member(PEER);
        effects.send_committed(PEER, Lane::Control, &frame(b"1"));
        effects.flush();
        effects.send_committed(PEER, Lane::Control, &frame(b"2"));
        effects.flush();
        assert_eq!(drain(&mut effects), ["persist 1"]);
        effects.committed(Ticket(1));
        assert_eq!(drain(&mut effects), [r#"send b"\x131""#, r#"send b"\x132""#]);
        effects.send_committed(PEER, Lane::Control, &frame(b"3"));
        effects.flush();
        assert_eq!(drain(&mut effects), [r#"send b"\x133""#]);
    }

    #[test]
    fn nothing_is_sent_without_a_link() {
        let mut effects = Effects::default();
        assert!(!effects.send(PEER, Lane::Bulk, &Frame::Leaving));
        effects.set_link(PEER, LinkKind::Fast, LinkState::Established);
        assert!(!effects.send(PEER, Lane::Bulk, &Frame::Leaving));
        assert!(effects.send(PEER, Lane::Safety, &Frame::Leaving));
        assert_eq!(effects.peers(LinkKind::Fast).collect::<Vec<_>>(), [PEER]);
    }
}
