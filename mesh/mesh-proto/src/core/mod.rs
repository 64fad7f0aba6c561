//! The core a node drives.
//!
//! ```text
//! handle_link_up ──▶ Output::Hello ──(peer)──▶ handle_hello ──▶ established: frames flow
//! handle_frame, handle_datagram, handle_committed, handle_timeout, commands
//!     ──▶ outputs, in order, and at most one Output::Persist a turn
//! handle_link_down ──▶ the parts forget the link, not the peer
//! ```
//!
//! | link | `handle_link_up` | `handle_hello` | `handle_frame` | `handle_link_down` |
//! |---|---|---|---|---|
//! | down | greeting | ignored | ignored, counted | - |
//! | greeting | as down, then up | established, or refused: down | ignored, counted | down |
//! | established | as down, then up | breaks the protocol: closed | taken | down |
//!
//! Before the first `handle_link_up`, `add_route` says what restored sessions subscribe to:
//! otherwise peers would drop those routes for a moment.

mod commands;
mod frames;
mod links;

use std::collections::BTreeMap;

use verge_model::{Millis, NodeKey, Now, Role};

pub use self::commands::PeerSnapshot;
pub use crate::crdt::sessions::PutError;

use crate::config::{MeshConfig, NodeInfo};
use crate::crdt::routes::{OwnRoutes, Replicas};
use crate::crdt::sessions::Registry;
use crate::effects::Effects;
use crate::forward::{Flushes, Receivers, Senders};
use crate::limits::REPAIR_PERIOD;
use crate::membership::Membership;
use crate::output::{Output, Ticket};
use crate::persist::Restored;

/// One node's part of the mesh. See the [crate] for what it does and [`Output`] for what it asks.
pub struct MeshCore {
    own: NodeInfo,
    lookup_timeout: std::time::Duration,
    fx: Effects,
    membership: Membership,
    /// What peers with a link said of themselves on it.
    greeted: BTreeMap<NodeKey, NodeInfo>,
    own_routes: OwnRoutes,
    replicas: Replicas,
    registry: Registry,
    senders: Senders,
    receivers: Receivers,
    flushes: Flushes,
    repair_due: Millis,
    counters: Counters,
}

/// What happened since the start, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Frames taken.
    pub frames: u64,
    /// Frames of a kind this version does not know.
    pub frames_unknown: u64,
    /// Frames and datagrams on links that are not established.
    pub frames_stray: u64,
    /// Peers closed for breaking the protocol.
    pub violations: u64,
    /// Greetings refused.
    pub refusals: u64,
    /// Membership packets for which there was no link.
    pub packets_dropped: u64,
    /// Membership packets that made no sense.
    pub packets_refused: u64,
    /// Registry entries that made no sense.
    pub entries_refused: u64,
    /// Registry entries here.
    pub entries: u64,
    /// Registry entries some home may lack.
    pub entries_dirty: u64,
    /// Forward records too large for a frame, given up.
    pub forwards_oversized: u64,
    /// New owners of sessions, without whose routes something was planned that may still arrive.
    pub flushes_awaited: u64,
    /// Answers of peers that what they had planned has arrived.
    pub flushes_answered: u64,
}

impl MeshCore {
    /// A core with what was on disk. `seed` decides all its chances.
    #[must_use]
    pub fn new(config: MeshConfig, restored: Restored, now: Now, seed: u64) -> Self {
        let own = config.info();
        let key = own.key();
        let mut this = Self {
            membership: Membership::new(&config, restored.members, now.mono, seed),
            own_routes: OwnRoutes::new(config.incarnation),
            replicas: Replicas::default(),
            registry: Registry::new(key),
            senders: Senders::new(config.log_id),
            receivers: Receivers::default(),
            flushes: Flushes::default(),
            lookup_timeout: config.lookup_timeout,
            fx: Effects::default(),
            greeted: BTreeMap::new(),
            repair_due: now.mono + REPAIR_PERIOD,
            counters: Counters::default(),
            own,
        };
        for known in restored.routes {
            this.replicas.restore(known.origin, known.head, known.routes, &mut this.fx);
        }
        for link in restored.links {
            this.receivers.restore(link.origin, link.log_id, link.class, link.last);
        }
        for bounds in restored.forward {
            this.senders.restore(bounds);
        }
        this.registry.restore(restored.registry);
        this.refresh_homes();
        this.settle();
        this
    }

    /// The batch of `ticket`, and all before it, is committed.
    pub fn handle_committed(&mut self, ticket: Ticket) {
        self.fx.committed(ticket);
        self.settle();
    }

    /// A deadline of [`MeshCore::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.membership.handle_timeout(now.mono, &mut self.fx);
        self.registry.handle_timeout(now.mono, &mut self.fx);
        self.flushes.handle_timeout(now.mono, &mut self.fx);
        if self.repair_due <= now.mono {
            self.repair_due = now.mono + REPAIR_PERIOD;
            self.registry.tick(&mut self.fx);
        }
        self.settle();
    }

    /// When `handle_timeout` is wanted next. It changes with every input.
    #[must_use]
    pub fn poll_timeout(&self) -> Millis {
        let own = self.repair_due.min(self.membership.poll_timeout());
        let others = [self.registry.poll_timeout(), self.flushes.poll_timeout()];
        others.into_iter().flatten().fold(own, Millis::min)
    }

    /// What to do next; `None`: nothing until the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.fx.poll()
    }

    /// Counts since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            packets_dropped: self.membership.packets_dropped(),
            packets_refused: self.membership.packets_refused(),
            entries_refused: self.registry.refused(),
            entries: self.registry.len() as u64,
            entries_dirty: self.registry.dirty_len() as u64,
            forwards_oversized: self.senders.oversized(),
            flushes_awaited: self.flushes.awaited() as u64,
            flushes_answered: self.flushes.answered(),
            ..self.counters
        }
    }

    /// Ends a turn: what parts have to say goes out, then the turn's writes are asked for.
    fn settle(&mut self) {
        self.own_routes.push(&mut self.fx);
        self.senders.push(&mut self.fx);
        self.receivers.push(&mut self.fx);
        self.flush_logs();
        self.fx.flush();
    }

    /// Answers peers that asked for a flush, and reports what they answered.
    fn flush_logs(&mut self) {
        let Self { flushes, own_routes, replicas, senders, own, fx, .. } = self;
        let here = (own.key(), own_routes.head());
        flushes.answer(senders, || replicas.heads().chain([here]).collect(), fx);
        if flushes.take_touched() {
            let members = self.membership.candidates().into_iter().map(|known| known.node);
            let members: Vec<NodeKey> = members.filter(|node| *node != here.0).collect();
            let head = |origin| match origin == here.0 {
                true => here.1,
                false => replicas.head(origin).unwrap_or_default(),
            };
            flushes.report(&members, head, fx);
        }
    }

    /// Homes follow the table of members. If they changed, every linked peer was told what it may
    /// lack, and `true` is returned.
    fn refresh_homes(&mut self) -> bool {
        match self.own.role {
            Role::Rsu | Role::Regional => {
                let candidates = self.membership.candidates();
                self.registry.set_candidates(candidates, &mut self.fx)
            }
            // It holds no sessions and asks nobody for any.
            Role::Cloud => false,
        }
    }

    /// Routes and registry are shared within a region, among nodes that serve clients.
    fn shares_sessions_with(&self, info: &NodeInfo) -> bool {
        self.own.serves_clients() && info.serves_clients() && info.region == self.own.region
    }
}
