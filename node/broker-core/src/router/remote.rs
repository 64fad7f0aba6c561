//! What other nodes want.

use std::collections::{BTreeMap, BTreeSet};

use verge_model::NodeKey;

/// Most filters one node may want: 100 B each, so that a node gone wild costs this one about
/// 100 MB and not its life.
pub const REMOTE_FILTERS_PER_NODE_MAX: usize = 1 << 20;

/// What became of routes a node announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemoteOutcome {
    /// Routes that are known now.
    pub taken: usize,
    /// Routes that were not taken: not a filter, for that node only, or beyond
    /// [`REMOTE_FILTERS_PER_NODE_MAX`].
    pub refused: usize,
}

impl RemoteOutcome {
    pub(super) fn count(&mut self, taken: bool) {
        if taken {
            self.taken += 1;
        } else {
            self.refused += 1;
        }
    }
}

/// The routes of other nodes by node: what is to be taken out of the filters when one is gone.
#[derive(Debug, Default)]
pub struct RemoteNodes {
    filters: BTreeMap<NodeKey, BTreeSet<Box<str>>>,
    /// Nodes known to be out of reach; every other node is taken to be in reach. Bounded by the
    /// nodes of the mesh.
    unreachable: BTreeSet<NodeKey>,
}

impl RemoteNodes {
    /// Takes note that `node` wants `filter`; false if it may not want more.
    pub fn add(&mut self, node: NodeKey, filter: &str) -> bool {
        let filters = self.filters.entry(node).or_default();
        if filters.contains(filter) {
            return true;
        }
        let fits = filters.len() < REMOTE_FILTERS_PER_NODE_MAX;
        if fits {
            filters.insert(filter.into());
        }
        fits
    }

    /// Takes note that `node` does not want `filter` any more; false if it did not.
    pub fn remove(&mut self, node: NodeKey, filter: &str) -> bool {
        let Some(filters) = self.filters.get_mut(&node) else { return false };
        let existed = filters.remove(filter);
        if filters.is_empty() {
            self.filters.remove(&node);
        }
        existed
    }

    /// Forgets a node, and gives what it wanted.
    pub fn take(&mut self, node: NodeKey) -> BTreeSet<Box<str>> {
        self.unreachable.remove(&node);
        self.filters.remove(&node).unwrap_or_default()
    }

    /// Says whether a node can be reached.
    pub fn set_reachable(&mut self, node: NodeKey, reachable: bool) {
        if reachable {
            self.unreachable.remove(&node);
        } else {
            self.unreachable.insert(node);
        }
    }

    /// Whether a node can be reached, as far as is known.
    #[must_use]
    pub fn is_reachable(&self, node: NodeKey) -> bool {
        !self.unreachable.contains(&node)
    }

    /// All of it, sorted.
    #[must_use]
    pub fn list(&self) -> Vec<(NodeKey, Vec<String>)> {
        let texts = |filters: &BTreeSet<Box<str>>| filters.iter().map(|f| f.to_string()).collect();
        self.filters.iter().map(|(node, filters)| (*node, texts(filters))).collect()
    }
}
