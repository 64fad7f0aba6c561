//! Links between nodes and connections of clients: in order, late, and sometimes gone.

use std::collections::{BTreeMap, BTreeSet};

use verge_mesh_proto::{Lane, LinkKind};

/// The links of a pair, and what keeps them from each other.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// Links that stand, by pair, with the number that tells one from its successors.
    links: BTreeMap<(usize, usize, LinkKind), u64>,
    next: u64,
    /// Kinds of links that cannot stand, by pair.
    cut: BTreeSet<(usize, usize, LinkKind)>,
    /// What travels in order arrives in order: the last arrival of each lane of each direction.
    busy_until: BTreeMap<(usize, usize, u8), u64>,
    /// Share of datagrams that are lost.
    pub(crate) datagram_loss: f64,
}

/// Number of the lane on which a greeting travels, before all others.
const LANES: [Lane; 4] = Lane::ALL;

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Network {
    /// A network that loses this share of datagrams.
    pub(crate) fn losing(datagram_loss: f64) -> Self {
        Self { datagram_loss, ..Self::default() }
    }

    /// The link between two nodes, if it stands.
    pub(crate) fn link(&self, a: usize, b: usize, kind: LinkKind) -> Option<u64> {
        let (a, b) = pair(a, b);
        self.links.get(&(a, b, kind)).copied()
    }

    /// Whether a link may come to be.
    pub(crate) fn is_cut(&self, a: usize, b: usize, kind: LinkKind) -> bool {
        let (a, b) = pair(a, b);
        self.cut.contains(&(a, b, kind))
    }

    /// A link comes to be.
    pub(crate) fn join(&mut self, a: usize, b: usize, kind: LinkKind) -> u64 {
        let (a, b) = pair(a, b);
        self.next += 1;
        self.links.insert((a, b, kind), self.next);
        self.next
    }

    /// A link ends; false if there was none.
    pub(crate) fn part(&mut self, a: usize, b: usize, kind: LinkKind) -> bool {
        let (a, b) = pair(a, b);
        self.links.remove(&(a, b, kind)).is_some()
    }

    /// No link of this kind until [`Network::heal`].
    pub(crate) fn cut(&mut self, a: usize, b: usize, kind: LinkKind) {
        let (a, b) = pair(a, b);
        self.cut.insert((a, b, kind));
    }

    /// Links may come to be again.
    pub(crate) fn heal(&mut self, a: usize, b: usize) {
        let (a, b) = pair(a, b);
        for kind in LinkKind::ALL {
            self.cut.remove(&(a, b, kind));
        }
    }

    /// The links of a node.
    pub(crate) fn links_of(&self, node: usize) -> Vec<(usize, LinkKind)> {
        let of = |(a, b, kind): &(usize, usize, LinkKind)| {
            if *a == node { Some((*b, *kind)) } else { (*b == node).then_some((*a, *kind)) }
        };
        self.links.keys().filter_map(of).collect()
    }

    /// When what is sent now on a lane arrives.
    pub(crate) fn arrival(&mut self, from: usize, to: usize, lane: Lane, at: u64) -> u64 {
        let busy = self.busy_until.entry((from, to, lane as u8)).or_default();
        *busy = (*busy).max(at);
        *busy
    }

    /// A greeting arrives before anything on the link's lanes.
    pub(crate) fn greeting(&mut self, from: usize, to: usize, kind: LinkKind, at: u64) {
        for lane in LANES.into_iter().filter(|lane| lane.link() == kind) {
            self.arrival(from, to, lane, at);
        }
    }
}
