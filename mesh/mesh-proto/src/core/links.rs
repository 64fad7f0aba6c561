//! Links come, are greeted on, and go.

use std::net::SocketAddr;

use bytes::Bytes;
use verge_model::{Class, NodeId, NodeKey, Now};

use super::MeshCore;
use crate::effects::LinkState;
use crate::output::{Lane, LinkKind, Output};
use crate::wire::{Frame, Hello};
use crate::{NodeInfo, WIRE_VERSION};

impl MeshCore {
    /// A link is there. `peer` is who the certificate says it is, `addr` where it was dialled or
    /// came from. If there was one of the same kind, this one takes its place.
    pub fn handle_link_up(&mut self, peer: &NodeId, kind: LinkKind, addr: SocketAddr, now: Now) {
        let key = peer.key();
        self.membership.attached(peer, addr);
        if self.membership.is_quarantined(key, now.mono) {
            let reason = "it broke the protocol a short while ago".to_owned();
            self.fx.push(Output::Close { peer: key, reason });
            return;
        }
        if let Err(reason) = self.membership.check_name(peer) {
            self.refuse(peer.clone(), kind, reason);
            return;
        }
        self.end_link(key, kind, now);
        self.fx.set_link(key, kind, LinkState::Greeting);
        let hello = Hello {
            version: WIRE_VERSION,
            info: self.own.clone(),
            routes: self.replicas.head(key),
            received: self.receivers.greeting(key),
            known_incarnation: self.membership.known_incarnation(key),
        };
        let frame = Frame::Hello(hello).encode();
        self.fx.push(Output::Hello { peer: key, kind, frame });
        self.settle();
    }

    /// The dial of a join address reached a node that is linked already, and the new connection was
    /// given up for the old one.
    pub fn handle_dial_answered(&mut self, peer: &NodeId, addr: SocketAddr) {
        self.membership.attached(peer, addr);
    }

    /// The peer's greeting: the first frame on each link, to be handed over before any lane's.
    pub fn handle_hello(&mut self, peer: &NodeId, kind: LinkKind, frame: Bytes, now: Now) {
        let key = peer.key();
        match self.fx.link(key, kind) {
            LinkState::Down => {
                self.counters.frames_stray += 1;
                return;
            }
            LinkState::Established => {
                self.violate(key, "it greeted twice on one link", now);
                return;
            }
            LinkState::Greeting => {}
        }
        let hello = match Frame::decode(frame) {
            Ok(Some(Frame::Hello(hello))) => hello,
            Ok(_) => {
                self.violate(key, "its first frame is no greeting", now);
                return;
            }
            Err(error) => {
                self.violate(key, &error.to_string(), now);
                return;
            }
        };
        let accepted = hello
            .validate(&self.own)
            .and_then(|()| self.membership.check(peer, &hello.info))
            .and_then(|()| self.check_life(key, kind, &hello.info, now));
        if let Err(reason) = accepted {
            self.fx.set_link(key, kind, LinkState::Down);
            self.refuse(peer.clone(), kind, reason);
            self.membership.link_down(key, now.mono);
            self.settle();
            return;
        }
        self.establish(key, kind, hello, now);
        self.settle();
    }

    /// The link is gone.
    pub fn handle_link_down(&mut self, peer: NodeKey, kind: LinkKind, now: Now) {
        self.end_link(peer, kind, now);
        self.settle();
    }

    /// Two links of a pair must lead to one life of the peer.
    fn check_life(
        &mut self,
        peer: NodeKey,
        kind: LinkKind,
        info: &NodeInfo,
        now: Now,
    ) -> Result<(), String> {
        let other = match kind {
            LinkKind::Fast => LinkKind::Bulk,
            LinkKind::Bulk => LinkKind::Fast,
        };
        let Some(known) = self.greeted.get(&peer) else { return Ok(()) };
        if !self.fx.established(peer, other) || known.incarnation == info.incarnation {
            return Ok(());
        }
        if known.incarnation > info.incarnation && known.log_id == info.log_id {
            return Err("it greets as an earlier life of a linked node".into());
        }
        let (old, reason) = (known.node_id.clone(), "the node began another life".to_owned());
        self.end_link(peer, other, now);
        self.refuse(old, other, reason);
        Ok(())
    }

    fn establish(&mut self, peer: NodeKey, kind: LinkKind, hello: Hello, now: Now) {
        let Hello { info, routes, received, known_incarnation, .. } = hello;
        self.fx.set_link(peer, kind, LinkState::Established);
        let shares = self.shares_sessions_with(&info);
        self.membership.greeted(&info, now.mono, &mut self.fx);
        let mut behind = self.membership.hear_of_self(known_incarnation, now.mono);
        self.receivers.peer_up(peer, info.log_id, &mut self.fx);
        self.greeted.insert(peer, info);
        for class in Class::ALL.into_iter().filter(|class| Lane::of(*class).link() == kind) {
            behind |= !self.senders.peer_up(peer, class, &received, &mut self.fx);
        }
        // What was acknowledged on a link that broke is said again here, for logs whose own link
        // stood all the while.
        for taken in received.iter().filter(|taken| Lane::of(taken.class).link() != kind) {
            let (class, log_id, last) = (taken.class, taken.log_id, taken.last);
            if self.fx.established(peer, Lane::of(class).link()) {
                behind |= self.senders.handle_ack(peer, class, log_id, last, &mut self.fx).is_err();
            }
        }
        if behind {
            self.fx.push(Output::DiskBehind { peer, incarnation: known_incarnation });
        }
        let told = self.refresh_homes();
        if kind == LinkKind::Fast && shares {
            self.replicas.peer_up(peer);
            self.own_routes.peer_up(peer, routes);
            self.flushes.peer_up(peer);
            if !told {
                self.registry.peer_up(peer, &mut self.fx);
            }
        }
    }

    fn end_link(&mut self, peer: NodeKey, kind: LinkKind, now: Now) {
        let before = self.fx.link(peer, kind);
        self.fx.set_link(peer, kind, LinkState::Down);
        if before == LinkState::Established {
            for class in Class::ALL.into_iter().filter(|class| Lane::of(*class).link() == kind) {
                self.senders.peer_down(peer, class);
            }
            if kind == LinkKind::Fast {
                self.own_routes.peer_down(peer);
                self.flushes.peer_down(peer);
                self.registry.peer_down(peer, &mut self.fx);
            }
        }
        if before != LinkState::Down {
            self.membership.link_down(peer, now.mono);
        }
        let linked = |kind| self.fx.link(peer, kind) != LinkState::Down;
        if !LinkKind::ALL.into_iter().any(linked) {
            self.greeted.remove(&peer);
        }
    }

    /// The peer broke the protocol: its links are closed, and it is left alone for a while.
    pub(super) fn violate(&mut self, peer: NodeKey, reason: &str, now: Now) {
        self.counters.violations += 1;
        self.membership.quarantine(peer, now.mono);
        for kind in LinkKind::ALL {
            self.end_link(peer, kind, now);
        }
        self.fx.push(Output::Close { peer, reason: reason.to_owned() });
        self.settle();
    }

    fn refuse(&mut self, peer: NodeId, kind: LinkKind, reason: String) {
        self.counters.refusals += 1;
        self.fx.push(Output::Refused { peer, kind, reason });
    }
}
