//! When nothing that was planned without an owner's routes can still arrive.
//!
//! A session moved from this node to another, its *owner*. A peer plans each message by the routes
//! it has; what it planned before it had the owner's is owed to this node alone, and waits in its
//! log for as long as no link leads here. So this node asks, and each peer answers with what stays
//! true:
//!
//! ```text
//! node that asks                          every node that shares sessions, up or down
//!   │ FlushAsk ─────────────────────────────▶ │ notes how far it has everyone's routes
//!   │                                         │ Output::Barrier: all planned so far is committed
//!   │                                         │ notes where its logs for the asker end
//!   │ ◀──────────────── custody up to there   │
//!   │ ◀──────────────── FlushDone(heads)      │
//! ```
//!
//! An owner is *flushed up to a head* when every node has answered with at least that head. One
//! answer serves all sessions and owners; a peer is asked again only while an owner is waited for
//! that its last answer did not cover.

use std::collections::BTreeMap;
use std::sync::Arc;

use verge_model::{Class, Millis, NodeKey};

use super::Senders;
use crate::effects::Effects;
use crate::limits::{FLUSH_PATIENCE, FLUSH_PERIOD, MEMBERS_MAX};
use crate::output::{Lane, Output};
use crate::wire::{FlushDone, Frame, RouteHead};

/// How far a node has everyone's routes.
pub(crate) type Heads = Vec<(NodeKey, RouteHead)>;

#[derive(Debug, Default)]
pub(crate) struct Flushes {
    /// Owners that are waited for: at most one for each member.
    owners: BTreeMap<NodeKey, Awaited>,
    peers: BTreeMap<NodeKey, Peer>,
    /// Who waits for an answer of this node: at most one for each link.
    answers: BTreeMap<NodeKey, Answer>,
    /// Whether a barrier is on its way.
    barrier: bool,
    touched: bool,
    answered: u64,
}

#[derive(Debug, Default)]
struct Awaited {
    /// The greatest head that was asked for.
    head: RouteHead,
    /// The head up to which it was last reported flushed.
    told: RouteHead,
}

/// What a peer answered.
#[derive(Debug, Default)]
struct Peer {
    linked: bool,
    /// When it may be asked next.
    due: Millis,
    /// What it planned without these routes has arrived. Forgotten when it comes with a new link:
    /// it may have lost its disk.
    heads: BTreeMap<NodeKey, RouteHead>,
}

/// How far an answer is.
#[derive(Debug)]
enum Answer {
    /// It waits for the next barrier.
    Asked,
    /// What was planned without these routes is being committed.
    Barrier(Arc<Heads>),
    /// Custody is awaited up to these ends.
    Custody { heads: Arc<Heads>, ends: [u64; Class::ALL.len()] },
}

impl Flushes {
    /// Waits until `owner` is flushed up to `head`.
    pub(crate) fn want(&mut self, owner: NodeKey, head: RouteHead) {
        let awaited = self.owners.entry(owner).or_default();
        awaited.head = awaited.head.max(head);
        // Said again, for whoever asks now.
        awaited.told = RouteHead::default();
        self.touched = true;
    }

    /// A link to a node that shares sessions is up.
    pub(crate) fn peer_up(&mut self, peer: NodeKey) {
        self.answers.remove(&peer);
        self.peers.insert(peer, Peer { linked: true, ..Peer::default() });
    }

    pub(crate) fn peer_down(&mut self, peer: NodeKey) {
        self.answers.remove(&peer);
        if let Some(known) = self.peers.get_mut(&peer) {
            known.linked = false;
        }
    }

    /// The member will not come back: it is not waited for.
    pub(crate) fn forget(&mut self, node: NodeKey) {
        self.peers.remove(&node);
        self.owners.remove(&node);
        self.touched = true;
    }

    /// The peer asks.
    pub(crate) fn handle_ask(&mut self, peer: NodeKey) {
        self.answers.entry(peer).or_insert(Answer::Asked);
    }

    /// The peer answers.
    ///
    /// # Errors
    /// The peer broke the protocol.
    pub(crate) fn handle_done(
        &mut self,
        peer: NodeKey,
        done: FlushDone,
        now: Millis,
    ) -> Result<(), String> {
        if done.heads.len() > MEMBERS_MAX + 1 {
            return Err(format!("it has routes of more than {MEMBERS_MAX} members"));
        }
        self.answered += 1;
        self.touched = true;
        if let Some(known) = self.peers.get_mut(&peer).filter(|known| known.linked) {
            known.heads = done.heads.into_iter().collect();
            known.due = now + FLUSH_PERIOD;
        }
        Ok(())
    }

    /// Everything planned when the barrier was asked for is committed.
    pub(crate) fn barrier_passed(&mut self, senders: &Senders) {
        self.barrier = false;
        for (peer, answer) in &mut self.answers {
            if let Answer::Barrier(heads) = answer {
                let (heads, ends) = (Arc::clone(heads), senders.ends(*peer));
                *answer = Answer::Custody { heads, ends };
            }
        }
    }

    /// Asks the peers whose time it is.
    pub(crate) fn handle_timeout(&mut self, now: Millis, fx: &mut Effects) {
        let Self { owners, peers, .. } = self;
        for (peer, known) in peers {
            if known.linked && known.due <= now && known.lacks(owners) {
                known.due = now + FLUSH_PATIENCE;
                fx.send(*peer, Lane::Control, &Frame::FlushAsk);
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        let asked = self.peers.values().filter(|known| known.linked && known.lacks(&self.owners));
        asked.map(|known| known.due).min()
    }

    /// Answers what can be answered. `heads` says how far this node has everyone's routes.
    pub(crate) fn answer(
        &mut self,
        senders: &Senders,
        heads: impl FnOnce() -> Heads,
        fx: &mut Effects,
    ) {
        self.answers.retain(|peer, answer| {
            let Answer::Custody { heads, ends } = answer else { return true };
            if !senders.reached(*peer, ends) {
                return true;
            }
            let done = Frame::FlushDone(FlushDone { heads: heads.to_vec() });
            fx.send_committed(*peer, Lane::Control, &done);
            false
        });
        let asked = |answer: &Answer| matches!(answer, Answer::Asked);
        if !self.barrier && self.answers.values().any(asked) {
            self.barrier = true;
            let heads = Arc::new(heads());
            for answer in self.answers.values_mut().filter(|answer| asked(answer)) {
                *answer = Answer::Barrier(Arc::clone(&heads));
            }
            fx.push(Output::Barrier);
        }
    }

    /// This node has more of somebody's routes.
    pub(crate) fn touch(&mut self) {
        self.touched = true;
    }

    /// Whether [`Flushes::report`] may have something to say.
    pub(crate) fn take_touched(&mut self) -> bool {
        std::mem::take(&mut self.touched) && !self.owners.is_empty()
    }

    /// Reports owners that are flushed further than was said before. `members` are the nodes whose
    /// answers count, `own` says how far this node has an origin's routes.
    pub(crate) fn report(
        &mut self,
        members: &[NodeKey],
        own: impl Fn(NodeKey) -> RouteHead,
        fx: &mut Effects,
    ) {
        let peers = &self.peers;
        self.owners.retain(|owner, awaited| {
            let of = |peer| {
                let known: Option<&Peer> = peers.get(peer);
                known.and_then(|known| known.heads.get(owner)).copied().unwrap_or_default()
            };
            let flushed = members.iter().map(of).fold(own(*owner), RouteHead::min);
            if flushed > awaited.told {
                awaited.told = flushed;
                fx.push(Output::Flushed { owner: *owner, head: flushed });
            }
            flushed < awaited.head
        });
    }

    /// Owners that are waited for.
    pub(crate) fn awaited(&self) -> usize {
        self.owners.len()
    }

    /// Answers that came.
    pub(crate) fn answered(&self) -> u64 {
        self.answered
    }
}

impl Peer {
    /// Whether another answer of it is wanted.
    fn lacks(&self, owners: &BTreeMap<NodeKey, Awaited>) -> bool {
        owners.iter().any(|(owner, awaited)| {
            self.heads.get(owner).copied().unwrap_or_default() < awaited.head
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::effects::LinkState;
    use crate::output::LinkKind;

    const PEER: NodeKey = NodeKey(3);
    const AWAY: NodeKey = NodeKey(4);
    const OWNER: NodeKey = NodeKey(5);

    fn head(seq: u64) -> RouteHead {
        RouteHead { incarnation: 1, seq }
    }

    fn done(seq: u64) -> FlushDone {
        FlushDone { heads: vec![(OWNER, head(seq))] }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a transcript shows whatever comes")]
    fn transcript(fx: &mut Effects) -> Vec<String> {
        fx.flush();
        std::iter::from_fn(|| fx.poll())
            .map(|output| match output {
                Output::Send { peer, frame, .. } => match Frame::decode(frame).unwrap().unwrap() {
                    Frame::FlushAsk => format!("ask {}", peer.0),
                    Frame::FlushDone(done) => format!("done {:?}", done.heads[0].1.seq),
                    other => format!("{other:?}"),
                },
                Output::Flushed { head, .. } => format!("flushed {}", head.seq),
                Output::Barrier => "barrier".into(),
                other => format!("{other:?}"),
            })
            .collect()
    }

    fn report(flushes: &mut Flushes, members: &[NodeKey], fx: &mut Effects) -> Vec<String> {
        flushes.report(members, |_| head(9), fx);
        transcript(fx)
    }

    #[test]
    fn an_owner_is_flushed_when_every_member_has_answered_with_its_head() {
        let mut fx = Effects::default();
        fx.set_link(PEER, LinkKind::Fast, LinkState::Established);
        fx.set_link(AWAY, LinkKind::Fast, LinkState::Established);
        let mut flushes = Flushes::default();
        let both = [PEER, AWAY];
        flushes.peer_up(PEER);
        flushes.want(OWNER, head(7));
        flushes.handle_timeout(Millis(1), &mut fx);
        flushes.handle_timeout(Millis(2), &mut fx);
        assert_eq!(transcript(&mut fx), ["ask 3"], "who is away is not asked");
        flushes.handle_done(PEER, done(6), Millis(3)).unwrap();
        assert_eq!(report(&mut flushes, &both, &mut fx), [""; 0]);
        flushes.handle_timeout(Millis(4), &mut fx);
        assert_eq!(transcript(&mut fx), [""; 0], "it was asked a moment ago");
        let again = flushes.poll_timeout().unwrap();
        flushes.handle_timeout(again, &mut fx);
        assert_eq!(transcript(&mut fx), ["ask 3"]);
        flushes.handle_done(PEER, done(8), again).unwrap();
        assert_eq!(report(&mut flushes, &both, &mut fx), [""; 0], "one member has not answered");
        flushes.peer_down(PEER);
        flushes.peer_up(AWAY);
        flushes.handle_timeout(again, &mut fx);
        assert_eq!(transcript(&mut fx), ["ask 4"]);
        flushes.handle_done(AWAY, done(7), again).unwrap();
        assert_eq!(report(&mut flushes, &both, &mut fx), ["flushed 7"]);
        assert_eq!((flushes.awaited(), flushes.poll_timeout()), (0, None));
        // Another session of the same owner needs no other answer.
        flushes.want(OWNER, head(7));
        assert_eq!(report(&mut flushes, &both, &mut fx), ["flushed 7"]);
        // Who comes with a new link may have lost what it answered for.
        flushes.peer_up(PEER);
        flushes.want(OWNER, head(7));
        assert_eq!(report(&mut flushes, &both, &mut fx), [""; 0]);
        flushes.forget(PEER);
        assert_eq!(report(&mut flushes, &[AWAY], &mut fx), ["flushed 7"]);
    }

    #[test]
    fn an_answer_waits_for_what_is_being_planned_and_for_custody_of_it() {
        let mut fx = Effects::default();
        fx.set_link(PEER, LinkKind::Fast, LinkState::Established);
        let (mut flushes, mut senders) = (Flushes::default(), Senders::new(7));
        let answer = |flushes: &mut Flushes, senders: &Senders, seq, fx: &mut Effects| {
            flushes.answer(senders, || vec![(OWNER, head(seq))], fx);
            transcript(fx)
        };
        flushes.peer_up(PEER);
        flushes.handle_ask(PEER);
        assert_eq!(answer(&mut flushes, &senders, 5, &mut fx), ["barrier"]);
        // What another asks meanwhile waits for a barrier that begins after it.
        flushes.handle_ask(AWAY);
        assert_eq!(answer(&mut flushes, &senders, 6, &mut fx), [""; 0]);
        senders.appended(PEER, Class::Safety, 1, Bytes::from_static(b"planned"));
        flushes.barrier_passed(&senders);
        assert_eq!(answer(&mut flushes, &senders, 6, &mut fx), ["barrier"]);
        senders.appended(PEER, Class::Safety, 2, Bytes::from_static(b"later"));
        senders.handle_ack(PEER, Class::Safety, 7, 1, &mut fx).unwrap();
        let said = answer(&mut flushes, &senders, 6, &mut fx);
        assert!(said.iter().any(|line| line.starts_with("Persist")), "{said:?}");
        fx.committed(crate::output::Ticket(1));
        assert_eq!(transcript(&mut fx), ["done 5"], "the routes it had when it was asked");
    }
}
