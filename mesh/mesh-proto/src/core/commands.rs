//! What a node asks of the mesh, and what it may look at.

use std::sync::Arc;

use bytes::Bytes;
use verge_model::{Class, ClientKey, NodeId, NodeKey, Now};

use super::MeshCore;
use crate::config::NodeInfo;
use crate::crdt::sessions::{PutError, RegistryEntry};
use crate::limits::FRAME_BYTES_MAX;
use crate::membership::MemberSnapshot;
use crate::output::{Lane, LinkKind};
use crate::wire::{Frame, RouteHead};

/// A peer as the admin API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSnapshot {
    /// Its name.
    pub node_id: NodeId,
    /// Whether the fast link is established.
    pub fast: bool,
    /// Whether the bulk link is established.
    pub bulk: bool,
    /// Own route operations it has not acknowledged; `None`: it gets none.
    pub route_lag: Option<u64>,
    /// Filters it wants.
    pub routes: usize,
    /// Messages waiting for it, in flight included.
    pub forward_pending: u64,
}

/// Routes.
impl MeshCore {
    /// This node wants messages matching `filter`. Asked when the first subscriber appears.
    /// `false`: it is wanted already, or there are too many
    /// ([`ROUTES_PER_ORIGIN_MAX`](crate::ROUTES_PER_ORIGIN_MAX)).
    pub fn add_route(&mut self, filter: impl Into<Arc<str>>) -> bool {
        let added = self.own.serves_clients() && self.own_routes.add(filter);
        self.settle();
        added
    }

    /// The last subscriber is gone. `false`: it was not wanted.
    pub fn remove_route(&mut self, filter: &str) -> bool {
        let removed = self.own_routes.remove(filter);
        self.settle();
        removed
    }

    /// The filters this node wants.
    pub fn own_routes(&self) -> impl Iterator<Item = &str> {
        self.own_routes.filters()
    }

    /// What other nodes want, by node and filter.
    pub fn remote_routes(&self) -> impl Iterator<Item = (NodeKey, &str)> {
        self.replicas.iter()
    }

    /// How far this node's route operations are.
    #[must_use]
    pub fn route_head(&self) -> RouteHead {
        self.own_routes.head()
    }
}

/// Registry.
impl MeshCore {
    /// Merges an entry here and at the session's homes. The entry must descend from what this node
    /// last put or found for the session. A greater claim, known now or met later, is reported
    /// by [`Output::Superseded`](crate::Output::Superseded).
    ///
    /// # Errors
    /// Nothing changed.
    pub fn put_registry(
        &mut self,
        client: &ClientKey,
        entry: RegistryEntry,
    ) -> Result<(), PutError> {
        let put = self.registry.put(client, entry, &mut self.fx);
        self.settle();
        put
    }

    /// Asks the session's homes who owns it; answers with
    /// [`Output::Lookup`](crate::Output::Lookup), at once if there is nobody to ask.
    pub fn lookup(&mut self, ticket: u64, client: ClientKey, now: Now) {
        let deadline = now.mono + self.lookup_timeout;
        self.registry.lookup(ticket, client, deadline, &mut self.fx);
        self.settle();
    }

    /// What this node holds of a session's entry: as a home, or until the homes have it.
    #[must_use]
    pub fn registry_entry(&self, client: &ClientKey) -> Option<RegistryEntry> {
        self.registry.entry(client)
    }

    /// The session's homes, first first.
    #[must_use]
    pub fn homes_of(&self, client: &ClientKey) -> &[NodeKey] {
        self.registry.homes_of(client)
    }
}

/// Messages and opaque frames.
impl MeshCore {
    /// A row of the forward log to `peer` is committed, in the order of the log.
    pub fn forward_appended(&mut self, peer: NodeKey, class: Class, seq: u64, record: Bytes) {
        self.senders.appended(peer, class, seq, record);
        self.settle();
    }

    /// Answers [`Output::ReadForward`](crate::Output::ReadForward) with the rows from `from_seq`,
    /// in order; `at_end`: there are no more for now.
    pub fn forward_rows(
        &mut self,
        peer: NodeKey,
        class: Class,
        from_seq: u64,
        rows: Vec<(u64, Bytes)>,
        at_end: bool,
    ) {
        self.senders.rows(peer, class, from_seq, rows, at_end);
        self.settle();
    }

    /// Everything up to `seq` of the origin's log is durable here, with what it caused.
    pub fn custody(&mut self, origin: NodeKey, log_id: u64, class: Class, seq: u64) {
        self.receivers.custody(origin, log_id, class, seq);
        self.settle();
    }

    /// Answers with [`Output::Flushed`](crate::Output::Flushed) when whatever other nodes planned
    /// before they had the owner's routes up to `head` has reached this node. Nodes that are away
    /// are waited for until they are back, or forgotten.
    pub fn flush(&mut self, owner: NodeKey, head: RouteHead) {
        self.flushes.want(owner, head);
        self.settle();
    }

    /// The answer to [`Output::Barrier`](crate::Output::Barrier).
    pub fn barrier_passed(&mut self) {
        self.flushes.barrier_passed(&self.senders);
        self.settle();
    }

    /// Sends a message that no log holds, on the lane of its class; false if no link leads there.
    pub fn send_transient(&mut self, to: NodeKey, class: Class, record: Bytes) -> bool {
        let lane = Lane::of(class);
        record.len() < FRAME_BYTES_MAX && self.fx.send(to, lane, &Frame::Transient(record))
    }

    /// Sends a frame of the handover protocol; `false`: there is no link, or it is too large.
    pub fn send_handover(&mut self, to: NodeKey, bytes: Bytes) -> bool {
        bytes.len() < FRAME_BYTES_MAX && self.fx.send(to, Lane::Control, &Frame::Handover(bytes))
    }

    /// Sends a frame of the uplink protocol; `false`: there is no link, or it is too large.
    pub fn send_uplink(&mut self, to: NodeKey, bytes: Bytes) -> bool {
        bytes.len() < FRAME_BYTES_MAX && self.fx.send(to, Lane::Bulk, &Frame::Uplink(bytes))
    }
}

/// Members.
impl MeshCore {
    /// Leaves the mesh: peers are told, and nothing is dialled any more. Links stay until the
    /// driver closes them.
    pub fn leave(&mut self, now: Now) {
        for peer in self.fx.peers(LinkKind::Fast).collect::<Vec<_>>() {
            self.fx.send(peer, Lane::Control, &Frame::Leaving);
        }
        self.membership.leave(now.mono, &mut self.fx);
        self.settle();
    }

    /// Forgets a node that will not come back: its routes, what waits for it, and its place among
    /// homes. To be said at every node. `false`: it is up, linked, or not known.
    pub fn forget_node(&mut self, node: NodeKey) -> bool {
        let linked = LinkKind::ALL.into_iter().any(|kind| self.fx.established(node, kind));
        if linked || !self.membership.forget(node, &mut self.fx) {
            return false;
        }
        self.replicas.forget(node, &mut self.fx);
        self.receivers.forget(node, &mut self.fx);
        self.senders.forget(node, &mut self.fx);
        self.flushes.forget(node);
        self.refresh_homes();
        self.settle();
        true
    }

    /// This node.
    #[must_use]
    pub fn own(&self) -> &NodeInfo {
        &self.own
    }

    /// Every known member but this node, in the order of keys.
    #[must_use]
    pub fn members(&self) -> Vec<MemberSnapshot> {
        self.membership.snapshot()
    }

    /// What a node said of itself, if it ever greeted this one.
    #[must_use]
    pub fn info(&self, node: NodeKey) -> Option<&NodeInfo> {
        self.membership.info(node)
    }

    /// Whether the mesh believes the node is alive.
    #[must_use]
    pub fn is_up(&self, node: NodeKey) -> bool {
        self.membership.is_up(node)
    }

    /// Whether frames can be sent to the node on a link of this kind.
    #[must_use]
    pub fn is_linked(&self, node: NodeKey, kind: LinkKind) -> bool {
        self.fx.established(node, kind)
    }

    /// Every peer with an established link, in the order of keys.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerSnapshot> {
        let of = |(key, info): (&NodeKey, &NodeInfo)| PeerSnapshot {
            node_id: info.node_id.clone(),
            fast: self.fx.established(*key, LinkKind::Fast),
            bulk: self.fx.established(*key, LinkKind::Bulk),
            route_lag: self.own_routes.lag(*key),
            routes: self.replicas.count(*key),
            forward_pending: self.senders.pending(*key),
        };
        self.greeted.iter().map(of).collect()
    }
}
