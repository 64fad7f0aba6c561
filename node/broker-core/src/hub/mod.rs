//! The hub: a node's voice in the mesh, without I/O.
//!
//! It drives a [`MeshCore`] and stands between it and the shards: what a peer forwards becomes
//! deliveries of this node, what shards ask becomes frames for peers. Its driver turns as a
//! shard's does: inputs, [`Hub::end_turn`], then [`Hub::poll_output`] until it is empty.
//!
//! A forwarded message is planned like a published one. Its rows and the place in the link's log
//! it came from stand in one batch, so that a link is exactly-once whatever crashes; custody is
//! granted when that batch is durable.

pub mod api;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use verge_mesh_proto::handover::HandoverFrame;
use verge_mesh_proto::{Lane, LinkKind, LookupAnswer, MeshCore, Output as CoreOutput};
use verge_mesh_proto::{NodeInfo, Ticket as CoreTicket};
use verge_model::{Class, ClientKey, Millis, NodeId, NodeKey, Now};
use verge_storage::key::LinkInKey;
use verge_storage::{Batch, LogKey, Promise, StoreError};

pub use self::api::HubOutput;
use crate::ledger::Qos0Drop;
use crate::planner::{Deliveries, Planner};
use crate::record::{ForwardRecord, message_from_afar};
use crate::router::Origin;
use crate::shard::api::{Delivery, HubMail, Mail, ShardIndex, Ticket};
use crate::shared::NodeShared;

/// Bounds of a hub.
#[derive(Debug, Clone, Copy)]
pub struct HubConfig {
    /// How many shards the node has.
    pub shards: u16,
    /// Promise for what other nodes hand over.
    pub promise: Promise,
}

/// The hub of a node.
pub struct Hub {
    config: HubConfig,
    core: MeshCore,
    shared: Arc<NodeShared>,
    planner: Planner,
    batch: Batch,
    durable: WhenDurable,
    waiting: VecDeque<(Ticket, WhenDurable)>,
    next_ticket: u64,
    next_number: u64,
    /// Who asked the core, by the number the core was given.
    asked: BTreeMap<u64, (ShardIndex, u64)>,
    /// Shards that have not passed the core's barrier.
    barrier: u16,
    deliveries: Vec<Vec<Delivery>>,
    outputs: VecDeque<HubOutput>,
}

/// What happens when a batch is durable.
#[derive(Debug, Default)]
struct WhenDurable {
    deliveries: Deliveries,
    custody: Vec<(NodeKey, u64, Class, u64)>,
    persisted: Option<CoreTicket>,
}

impl WhenDurable {
    fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.custody.is_empty() && self.persisted.is_none()
    }
}

impl Hub {
    /// A hub around a core that has been told of every route of the restored sessions. From now on
    /// the router knows what the core remembers of other nodes: no client is to be served before.
    #[must_use]
    pub fn new(config: HubConfig, core: MeshCore, shared: Arc<NodeShared>) -> Self {
        let mut this = Self {
            planner: Planner::new(Arc::clone(&shared)),
            deliveries: (0..config.shards).map(|_| Vec::new()).collect(),
            config,
            core,
            shared,
            batch: Batch::new(),
            durable: WhenDurable::default(),
            waiting: VecDeque::new(),
            next_ticket: 1,
            next_number: 1,
            asked: BTreeMap::new(),
            barrier: 0,
            outputs: VecDeque::new(),
        };
        this.refresh_peers();
        // Nothing a core says before its first input depends on the time.
        this.drain(Now::default());
        this
    }

    /// A link came up.
    pub fn handle_link_up(&mut self, peer: &NodeId, kind: LinkKind, addr: SocketAddr, now: Now) {
        self.core.handle_link_up(peer, kind, addr, now);
        self.drain(now);
    }

    /// The peer's greeting on a link.
    pub fn handle_hello(&mut self, peer: &NodeId, kind: LinkKind, frame: Bytes, now: Now) {
        self.core.handle_hello(peer, kind, frame, now);
        self.drain(now);
        if kind == LinkKind::Fast && self.core.is_linked(peer.key(), kind) {
            self.mail_all(|| Mail::PeerUp(peer.key()));
        }
    }

    /// A dialled address turned out to be a node that is linked already.
    pub fn handle_dial_answered(&mut self, peer: &NodeId, addr: SocketAddr, now: Now) {
        self.core.handle_dial_answered(peer, addr);
        self.drain(now);
    }

    /// A link went down.
    pub fn handle_link_down(&mut self, peer: NodeKey, kind: LinkKind, now: Now) {
        self.core.handle_link_down(peer, kind, now);
        self.drain(now);
        if kind == LinkKind::Fast {
            self.mail_all(|| Mail::PeerDown(peer));
        }
    }

    /// A frame from a peer.
    pub fn handle_frame(&mut self, peer: NodeKey, lane: Lane, frame: Bytes, now: Now) {
        self.core.handle_frame(peer, lane, frame, now);
        self.drain(now);
    }

    /// A datagram from a peer.
    pub fn handle_datagram(&mut self, peer: NodeKey, datagram: &[u8], now: Now) {
        self.core.handle_datagram(peer, datagram, now);
        self.drain(now);
    }

    /// Mail from a shard.
    pub fn handle_mail(&mut self, mail: HubMail, now: Now) {
        match mail {
            // The edges of two shards may come in either order; what holds now is in the router.
            HubMail::AddRoute(filter) | HubMail::RemoveRoute(filter) => {
                if self.shared.router.advertises(&filter) {
                    self.core.add_route(filter.shared_text());
                } else {
                    self.core.remove_route(filter.as_str());
                }
            }
            HubMail::PutRegistry { client, entry } => {
                if let Err(error) = self.core.put_registry(&client, *entry) {
                    tracing::warn!(%error, "the homes of a session were not told of it");
                }
            }
            HubMail::Lookup { shard, ticket, client } => {
                let number = self.ask(shard, ticket);
                self.core.lookup(number, client, now);
            }
            HubMail::RouteHead { shard, token } => {
                let mail = Mail::RouteHead { token, head: self.core.route_head() };
                self.outputs.push_back(HubOutput::Mail { to: shard, mail });
            }
            HubMail::Flush { owner, head } => self.core.flush(owner, head),
            HubMail::Barrier => {
                self.barrier = self.barrier.saturating_sub(1);
                if self.barrier == 0 {
                    self.core.barrier_passed();
                }
            }
            HubMail::Handover { to, frame } => {
                // A frame that finds no link is asked for again by who waits for the answer.
                self.core.send_handover(to, frame);
            }
            HubMail::Transient { to, class, record } => {
                self.send_transient(to, class, record);
            }
        }
        self.drain(now);
    }

    /// A batch is durable at its promise, or was not stored.
    pub fn handle_commit(&mut self, ticket: Ticket, result: Result<(), StoreError>, now: Now) {
        let Some((first, _)) = self.waiting.front() else { return };
        debug_assert_eq!(*first, ticket, "commits are reported in order");
        let Some((_, durable)) = self.waiting.pop_front() else { return };
        match result {
            Ok(()) => {
                for (shard, delivery) in durable.deliveries {
                    self.deliveries[usize::from(shard.0)].push(delivery);
                }
                for (origin, log_id, class, seq) in durable.custody {
                    self.core.custody(origin, log_id, class, seq);
                }
                if let Some(persisted) = durable.persisted {
                    self.core.handle_committed(persisted);
                }
            }
            Err(error) => {
                // Nothing of it was acknowledged: the peers send it again over new links.
                let origins: std::collections::BTreeSet<NodeKey> =
                    durable.custody.iter().map(|(origin, ..)| *origin).collect();
                for peer in origins {
                    let reason = format!("what it forwarded was not stored: {error}");
                    self.outputs.push_back(HubOutput::Close { peer, reason });
                }
            }
        }
        self.drain(now);
    }

    /// Rows were added to logs: of this hub's batches or of a shard's.
    pub fn handle_appended(&mut self, appended: Vec<(LogKey, u64, Bytes)>, now: Now) {
        for (log, seq, value) in appended {
            match log {
                LogKey::Forward { peer, class } => {
                    self.core.forward_appended(peer, class, seq, value);
                }
                LogKey::Outbox { stream } => {
                    self.outputs.push_back(HubOutput::OutboxAppended { stream, seq });
                }
            }
        }
        self.drain(now);
    }

    /// The answer to [`HubOutput::ReadForward`].
    pub fn handle_forward_rows(
        &mut self,
        peer: NodeKey,
        class: Class,
        from_seq: u64,
        rows: Vec<(u64, Bytes)>,
        at_end: bool,
        now: Now,
    ) {
        self.core.forward_rows(peer, class, from_seq, rows, at_end);
        self.drain(now);
    }

    /// Sends a frame of the uplink protocol; false if no link leads there.
    pub fn send_uplink(&mut self, to: NodeKey, frame: Bytes, now: Now) -> bool {
        let sent = self.core.send_uplink(to, frame);
        self.drain(now);
        sent
    }

    /// Says good-bye to the mesh.
    pub fn leave(&mut self, now: Now) {
        self.core.leave(now);
        self.drain(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.core.handle_timeout(now);
        self.drain(now);
    }

    /// When [`Hub::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Millis {
        self.core.poll_timeout()
    }

    /// Ends the turn: its rows are handed out as one batch, then its mail.
    pub fn end_turn(&mut self) {
        if !self.batch.is_empty() || !self.durable.is_empty() {
            let ticket = Ticket(self.next_ticket);
            self.next_ticket += 1;
            self.waiting.push_back((ticket, std::mem::take(&mut self.durable)));
            let batch = std::mem::take(&mut self.batch);
            let promise = self.config.promise;
            self.outputs.push_back(HubOutput::Commit { ticket, batch, promise });
        }
        for (index, deliveries) in self.deliveries.iter_mut().enumerate() {
            if !deliveries.is_empty() {
                let index = u16::try_from(index).expect("shards are counted in 16 bits");
                let mail = Mail::Deliver(std::mem::take(deliveries));
                self.outputs.push_back(HubOutput::Mail { to: ShardIndex(index), mail });
            }
        }
    }

    /// The next thing for the driver to do, in order.
    pub fn poll_output(&mut self) -> Option<HubOutput> {
        self.outputs.pop_front()
    }

    /// The core, to look at.
    #[must_use]
    pub fn core(&self) -> &MeshCore {
        &self.core
    }

    /// Sends a message that nobody keeps: now or never.
    fn send_transient(&mut self, to: NodeKey, class: Class, record: Bytes) {
        if !self.core.send_transient(to, class, record) {
            self.shared.counters.dropped_qos0_for(Qos0Drop::Unlinked, class, 1);
        }
    }

    fn ask(&mut self, shard: ShardIndex, ticket: u64) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.asked.insert(number, (shard, ticket));
        number
    }

    fn mail_all(&mut self, mail: impl Fn() -> Mail) {
        for index in 0..self.config.shards {
            self.outputs.push_back(HubOutput::Mail { to: ShardIndex(index), mail: mail() });
        }
    }

    fn shard_of(&self, client: &ClientKey) -> ShardIndex {
        ShardIndex::of(client, self.config.shards)
    }

    /// Takes what the core has to say.
    fn drain(&mut self, now: Now) {
        while let Some(output) = self.core.poll_output() {
            match output {
                CoreOutput::Hello { peer, kind, frame } => {
                    self.outputs.push_back(HubOutput::Hello { peer, kind, frame });
                }
                CoreOutput::Send { peer, lane, frame } => {
                    self.outputs.push_back(HubOutput::Send { peer, lane, frame });
                }
                CoreOutput::Datagram { peer, bytes } => {
                    self.outputs.push_back(HubOutput::Datagram { peer, bytes });
                }
                CoreOutput::Dial { addr, node, kind } => {
                    self.outputs.push_back(HubOutput::Dial { addr, node, kind });
                }
                CoreOutput::Close { peer, reason } => {
                    self.outputs.push_back(HubOutput::Close { peer, reason });
                }
                CoreOutput::Refused { peer, kind, reason } => {
                    self.outputs.push_back(HubOutput::Refused { peer, kind, reason });
                }
                CoreOutput::JoinUnanswered { addr, attempts } => {
                    self.outputs.push_back(HubOutput::JoinUnanswered { addr, attempts });
                }
                CoreOutput::DiskBehind { peer, incarnation } => {
                    self.outputs.push_back(HubOutput::DiskBehind { peer, incarnation });
                }
                CoreOutput::Persist { batch, ticket } => {
                    self.batch.extend(batch);
                    self.durable.persisted = Some(ticket);
                }
                CoreOutput::MemberUp(info) => self.member_up(info),
                CoreOutput::MemberDown(node) => {
                    self.outputs.push_back(HubOutput::MemberDown(node));
                }
                CoreOutput::RemoteRoutes { origin, added, removed } => {
                    self.shared.router.set_remote(origin, &added, &removed);
                }
                CoreOutput::Barrier => {
                    // What this hub plans itself came from a peer and goes to none.
                    self.barrier = self.config.shards;
                    self.mail_all(|| Mail::Barrier);
                }
                CoreOutput::Flushed { owner, head } => {
                    tracing::debug!(peer = %owner, ?head, "what was planned without its routes is here");
                    self.mail_all(|| Mail::Flushed { owner, head });
                }
                CoreOutput::Forwarded { origin, log_id, class, seq, record } => {
                    self.accept(origin, log_id, class, seq, &record, now);
                }
                CoreOutput::Transient { from, record } => self.accept_transient(from, &record, now),
                CoreOutput::ReadForward { peer, class, from_seq, bytes_max } => {
                    let read = HubOutput::ReadForward { peer, class, from_seq, bytes_max };
                    self.outputs.push_back(read);
                }
                CoreOutput::Handover { from, bytes } => self.route_handover(from, bytes),
                CoreOutput::Uplink { from, bytes } => {
                    self.outputs.push_back(HubOutput::Uplink { from, bytes });
                }
                CoreOutput::Lookup(LookupAnswer { ticket, entry, complete, .. }) => {
                    if let Some((shard, ticket)) = self.asked.remove(&ticket) {
                        let entry = entry.map(Box::new);
                        let mail = Mail::LookupAnswer { ticket, entry, complete };
                        self.outputs.push_back(HubOutput::Mail { to: shard, mail });
                    }
                }
                CoreOutput::Superseded { client, winner, clean } => {
                    let to = self.shard_of(&client);
                    let mail = Mail::Superseded { client, winner, clean };
                    self.outputs.push_back(HubOutput::Mail { to, mail });
                }
            }
        }
    }

    fn member_up(&mut self, info: NodeInfo) {
        self.refresh_peers();
        self.outputs.push_back(HubOutput::MemberUp(info));
    }

    /// Retained messages go to every member that serves clients, up or down.
    fn refresh_peers(&self) {
        let own = self.core.own().key();
        let peers = self.core.members().into_iter().filter_map(|member| {
            let info = self.core.info(member.node_id.key())?;
            (info.serves_clients() && info.key() != own).then(|| info.key())
        });
        self.shared.set_peers(peers.collect());
    }

    fn route_handover(&mut self, from: NodeKey, frame: Bytes) {
        match HandoverFrame::decode(&frame) {
            Ok(HandoverFrame { client, .. }) => {
                let to = self.shard_of(&client);
                let mail = Mail::Handover { from, frame };
                self.outputs.push_back(HubOutput::Mail { to, mail });
            }
            Err(error) => tracing::warn!(peer = %from, %error, "a handover frame was left out"),
        }
    }

    /// Takes custody of a forwarded message.
    fn accept(
        &mut self,
        origin: NodeKey,
        log_id: u64,
        class: Class,
        seq: u64,
        record: &[u8],
        now: Now,
    ) {
        self.shared.counters.forward_received(1);
        let row = self.shared.next_message_id();
        let decoded = ForwardRecord::decode(record)
            .and_then(|record| Ok((record.targets, message_from_afar(record.message, row)?)));
        match decoded {
            Ok((targets, message)) => {
                let from = Origin::Forwarded(&targets);
                let plan = self.planner.plan(&message, from, now, &mut self.batch);
                self.durable.deliveries.extend(plan.deliveries);
                for (to, class, record) in plan.transients {
                    self.send_transient(to, class, record);
                }
            }
            // It will be no better for being sent again.
            Err(error) => {
                tracing::error!(peer = %origin, seq, %error, "a forwarded message was left out");
            }
        }
        self.batch.put_link_in(LinkInKey { origin, log_id, class }, seq);
        self.durable.custody.push((origin, log_id, class, seq));
    }

    /// Delivers a message that nobody keeps.
    fn accept_transient(&mut self, from: NodeKey, record: &[u8], now: Now) {
        self.shared.counters.forward_received(1);
        let row = self.shared.next_message_id();
        let decoded = ForwardRecord::decode(record)
            .and_then(|record| Ok((record.targets, message_from_afar(record.message, row)?)));
        match decoded {
            Ok((targets, message)) => {
                let origin = Origin::Forwarded(&targets);
                let plan = self.planner.plan(&message, origin, now, &mut self.batch);
                for (to, class, record) in plan.transients {
                    self.send_transient(to, class, record);
                }
                for (shard, delivery) in plan.deliveries {
                    self.deliveries[usize::from(shard.0)].push(delivery);
                }
            }
            Err(error) => tracing::error!(peer = %from, %error, "a message was left out"),
        }
    }
}
