//! Which links there are, and which addresses are being dialled.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use verge_model::{NodeId, NodeKey};

use super::link::Link;
use crate::LinkKind;
use crate::config::{DIALS_MAX, PEERS_MAX};
use crate::election;
use crate::lanes::kind_index;

/// The table of links: at most one of each kind for each peer.
#[derive(Default)]
pub(super) struct Table {
    links: BTreeMap<NodeKey, [Option<Arc<Link>>; 2]>,
    dialling: BTreeSet<SocketAddr>,
    dials: u64,
}

/// What became of a new connection.
pub(super) enum Admission {
    /// It is the link now; the one before, if any, was told so and ends.
    Admitted {
        /// Whose `Down` comes before the `Up` of the new one.
        before: Option<Arc<Link>>,
    },
    /// The present one stays.
    Duplicate,
    /// Another node of the same key has a link.
    KeyTaken(NodeId),
    /// There are too many peers.
    TooMany,
}

impl Table {
    /// Puts a new connection in its place, unless the present one stays.
    pub(super) fn admit(&mut self, own: &NodeId, link: &Arc<Link>) -> Admission {
        let kind = kind_index(link.kind);
        let pair = self.links.get(&link.key);
        if let Some(other) = pair.into_iter().flatten().flatten().find(|l| l.node != link.node) {
            return Admission::KeyTaken(other.node.clone());
        }
        if pair.is_none() && self.links.len() >= PEERS_MAX {
            return Admission::TooMany;
        }
        let slot = &mut self.links.entry(link.key).or_default()[kind];
        if let Some(present) = slot
            && present.is_live()
            && !election::newcomer_stays(own, &link.node, present.claim, link.claim)
        {
            return Admission::Duplicate;
        }
        let before = slot.replace(Arc::clone(link));
        if let Some(before) = &before {
            before.replace();
        }
        Admission::Admitted { before }
    }

    /// Forgets a link that ended, unless another took its place.
    pub(super) fn remove(&mut self, link: &Arc<Link>) {
        let Some(pair) = self.links.get_mut(&link.key) else { return };
        let slot = &mut pair[kind_index(link.kind)];
        if slot.as_ref().is_some_and(|present| Arc::ptr_eq(present, link)) {
            *slot = None;
        }
        if pair.iter().all(Option::is_none) {
            self.links.remove(&link.key);
        }
    }

    /// Notes that an address is being dialled; false if it is already, or linked, or too many are.
    pub(super) fn begin_dial(&mut self, addr: SocketAddr) -> bool {
        let linked = self.live().iter().any(|l| l.kind == LinkKind::Fast && l.addr() == addr);
        !linked && self.dialling.len() < DIALS_MAX && self.dialling.insert(addr)
    }

    /// The dial of an address ended.
    pub(super) fn end_dial(&mut self, addr: SocketAddr) {
        self.dialling.remove(&addr);
    }

    /// A number for a dial, larger than all before.
    pub(super) fn next_dial_no(&mut self) -> u64 {
        self.dials += 1;
        self.dials
    }

    pub(super) fn get(&self, peer: NodeKey, kind: LinkKind) -> Option<Arc<Link>> {
        self.links.get(&peer)?[kind_index(kind)].clone()
    }

    pub(super) fn get_live(&self, peer: NodeKey, kind: LinkKind) -> Option<Arc<Link>> {
        self.get(peer, kind).filter(|link| link.is_live())
    }

    pub(super) fn links_of(&self, peer: NodeKey) -> Vec<Arc<Link>> {
        self.links.get(&peer).into_iter().flatten().flatten().cloned().collect()
    }

    /// All links that are neither replaced nor lost.
    pub(super) fn live(&self) -> Vec<Arc<Link>> {
        let all = self.links.values().flatten().flatten();
        all.filter(|link| link.is_live()).cloned().collect()
    }
}
