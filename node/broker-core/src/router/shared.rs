//! A group of shared subscriptions (MQTT 5.0, 4.8.2): each message for one member.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use smallvec::SmallVec;
use verge_model::NodeKey;

use super::Subscriber;
use super::remote::RemoteNodes;
use super::subscribers::Subscribers;

/// A ShareName with a filter, and everyone in the mesh who is in it.
#[derive(Debug)]
pub struct Group {
    /// The whole filter, `$share/<group>/<filter>`, that names the group.
    pub name: Arc<str>,
    /// Whether it is only for what is published at this node; it has no remote members then.
    pub local: bool,
    /// Members at this node.
    pub members: Subscribers,
    /// Nodes that have members, sorted.
    remotes: SmallVec<[NodeKey; 2]>,
    /// Whose turn it is. A count of turns, taken under the router's read lock.
    turn: AtomicU32,
}

impl Group {
    /// A group without members.
    #[must_use]
    pub fn new(name: &str, local: bool) -> Self {
        Self {
            name: name.into(),
            local,
            members: Subscribers::default(),
            remotes: SmallVec::new(),
            turn: AtomicU32::new(0),
        }
    }

    /// The member of this node whose turn it is; each is given as many turns as the others.
    pub fn next_member(&self) -> Option<&Subscriber> {
        let members = self.members.as_slice();
        members.get(self.next_of(members.len())?)
    }

    /// The node whose turn it is, of those in reach; of all, if none is in reach.
    pub fn next_remote(&self, nodes: &RemoteNodes) -> Option<NodeKey> {
        let reachable = |node: &&NodeKey| nodes.is_reachable(**node);
        let near = self.remotes.iter().filter(reachable).count();
        if near == 0 {
            return self.remotes.get(self.next_of(self.remotes.len())?).copied();
        }
        self.remotes.iter().filter(reachable).nth(self.next_of(near)?).copied()
    }

    /// Takes note that a node has members.
    pub fn add_remote(&mut self, node: NodeKey) {
        if let Err(place) = self.remotes.binary_search(&node) {
            self.remotes.insert(place, node);
        }
    }

    /// Takes note that a node has members no more.
    pub fn remove_remote(&mut self, node: NodeKey) {
        if let Ok(place) = self.remotes.binary_search(&node) {
            self.remotes.remove(place);
        }
    }

    /// Whether nobody in the mesh is in the group.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.remotes.is_empty()
    }

    fn next_of(&self, count: usize) -> Option<usize> {
        let count = u32::try_from(count).ok().filter(|count| *count > 0)?;
        Some((self.turn.fetch_add(1, Ordering::Relaxed) % count) as usize)
    }
}
