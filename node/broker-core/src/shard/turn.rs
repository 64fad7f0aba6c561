//! The batch under way, and what waits for batches to become durable.

use std::collections::VecDeque;

use bytes::Bytes;
use verge_mesh_proto::crdt::sessions::RegistryEntry;
use verge_model::{Claim, ClientKey, Incarnation, NodeKey};
use verge_mqtt_proto::{AckKind, PacketId, ReasonCode};
use verge_storage::{Batch, Promise};

use super::api::{
    ConnId, Delivery, Mail, Output, SessionNo, ShardConfig, ShardIndex, StreamNo, Ticket,
};
use super::connection::Conn;
use super::delayed::DelayedMessage;
use super::rows::Life;
use super::session::Session;
use super::streams::api::Via;
use crate::planner::Deliveries;

/// A turn is full with deliveries for other shards that are this part of a session's queue: half of
/// a queue is for what was under way when the other half was full.
const MAILED_PART: usize = 16;

/// Most deliveries for other shards before a turn is full. More at once would not be cheaper.
const MAILED_MAX: usize = 512;

/// What happens when a batch is durable.
#[derive(Debug)]
pub(super) enum Effect {
    /// Hand out the deliveries of a plan.
    Deliver(Deliveries),
    /// Hand out what groups took from one member for another.
    Redeliver(Deliveries),
    /// Let a message wait that is published later.
    Waits(Box<DelayedMessage>),
    /// A message that waited is published, and its row is gone.
    Published(Box<DelayedMessage>),
    /// Acknowledge a PUBLISH or PUBREL of the client.
    Acknowledge { via: Via, kind: AckKind, packet_id: PacketId, reason: ReasonCode },
    /// Send the PUBLISH whose packet id was stored.
    Publish { session: SessionNo, packet_id: PacketId },
    /// Send the PUBREL whose state was stored.
    Release { via: Via, packet_id: PacketId },
    /// Send an encoded packet.
    Packet { via: Via, packet: Bytes },
    /// Close a stream the client has finished: what was owed on it is written.
    FinishStream(Via),
    /// Accept the CONNECT: its session is stored.
    Connected { conn: ConnId, session: SessionNo, session_present: bool },
    /// Send a frame to another node.
    Handover { to: NodeKey, frame: Bytes },
    /// Tell the homes of a session what is stored of it here.
    Registered { client: ClientKey, entry: Box<RegistryEntry> },
    /// Begin, or go on, pulling the session's older logs: its claim is stored.
    Claimed { session: SessionNo },
    /// All that was planned before is stored, or was refused.
    Barrier,
    /// The header of an older log is stored.
    HeaderStored { session: SessionNo, fragment: Claim },
    /// Entries of an older log are stored.
    EntriesStored { session: SessionNo, fragment: Claim },
    /// Let these sessions leave memory: all that was written of them before can be read.
    Leave(Vec<SessionNo>),
    /// Forget that a session was here: its rows are gone.
    Gone(SessionNo),
}

/// A shard's turn.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) batch: Batch,
    /// In which rows are written.
    pub(super) life: Life,
    promise: Promise,
    effects: Vec<Effect>,
    /// Batches handed out and not yet committed, with their effects, oldest first.
    waiting: VecDeque<(Ticket, Vec<Effect>)>,
    next_ticket: u64,
    /// Deliveries of this turn for each shard, not yet mailed.
    deliveries: Vec<Vec<Delivery>>,
    /// How many they are; one large message counts as several.
    mailed: usize,
    /// How many make the turn full.
    mailed_max: usize,
    /// Bytes of a payload that count as one more message.
    message_bytes: usize,
    /// Connections with bytes that are for the next turn, since this one is full.
    next: Vec<ConnId>,
    pub(super) outputs: VecDeque<Output>,
    /// In the order in which they became so: an answer goes out before what it caused.
    pub(super) dirty: VecDeque<ConnId>,
    pub(super) dirty_streams: VecDeque<(ConnId, StreamNo)>,
    /// Handover frames of this node to itself.
    pub(super) loopback: VecDeque<Bytes>,
}

impl Turn {
    /// The first turn of a shard.
    pub(super) fn new(config: &ShardConfig, incarnation: Incarnation) -> Self {
        Self {
            batch: Batch::new(),
            life: Life { incarnation, leaps: 0 },
            promise: Promise::Memory,
            effects: Vec::new(),
            waiting: VecDeque::new(),
            next_ticket: 1,
            deliveries: (0..config.count).map(|_| Vec::new()).collect(),
            mailed: 0,
            mailed_max: (config.queue_messages_max / MAILED_PART).clamp(1, MAILED_MAX),
            message_bytes: (config.queue_bytes_max / config.queue_messages_max.max(1)).max(1),
            next: Vec::new(),
            outputs: VecDeque::new(),
            dirty: VecDeque::new(),
            dirty_streams: VecDeque::new(),
            loopback: VecDeque::new(),
        }
    }

    /// Puts the rows that lead to a session.
    pub(super) fn put_session(&mut self, session: &mut Session) {
        session.put(self.life, &mut self.batch);
    }

    /// Asks that this turn's rows be kept at least so well.
    pub(super) fn promise(&mut self, promise: Promise) {
        self.promise = self.promise.max(promise);
    }

    /// Lets `effect` happen when the rows of this turn, and all before, are durable.
    pub(super) fn when_durable(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Whether rows or effects wait, of this turn or an earlier one.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.batch.is_empty() || !self.effects.is_empty()
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_waiting() && self.outputs.is_empty()
    }

    /// Queues a delivery for the mail of this turn.
    pub(super) fn mail(&mut self, shard: ShardIndex, delivery: Delivery) {
        let bytes = delivery.message.payload.len();
        self.mailed += if bytes < self.message_bytes { 1 } else { 1 + bytes / self.message_bytes };
        self.deliveries[usize::from(shard.0)].push(delivery);
    }

    /// Whether what is read now would be too much for other shards: they say whose queues are
    /// filling, and that must be known before more is accepted for those.
    pub(super) fn is_full(&self) -> bool {
        self.mailed >= self.mailed_max
    }

    /// Notes that a connection's output has grown.
    #[inline]
    pub(super) fn mark_dirty(&mut self, conn: &mut Conn) {
        if !std::mem::replace(&mut conn.dirty, true) {
            self.dirty.push_back(conn.id);
        }
    }

    /// Offers a connection's bytes again in the next turn.
    pub(super) fn feed_next(&mut self, conn: ConnId) {
        self.next.push(conn);
    }

    /// Closes the batch, then the mail.
    pub(super) fn close(&mut self) {
        if !self.batch.is_empty() || !self.effects.is_empty() {
            let ticket = Ticket(self.next_ticket);
            self.next_ticket += 1;
            self.waiting.push_back((ticket, std::mem::take(&mut self.effects)));
            let batch = std::mem::take(&mut self.batch);
            let promise = std::mem::replace(&mut self.promise, Promise::Memory);
            // Mail and frames of this turn stand behind the batch they came after.
            self.outputs.push_back(Output::Commit { ticket, batch, promise });
        }
        self.mailed = 0;
        for (index, deliveries) in self.deliveries.iter_mut().enumerate() {
            if !deliveries.is_empty() {
                let index = u16::try_from(index).expect("shards are counted in 16 bits");
                self.outputs.push_back(Output::Mail {
                    to: ShardIndex(index),
                    mail: Mail::Deliver(std::mem::take(deliveries)),
                });
            }
        }
        self.outputs.extend(self.next.drain(..).map(Output::Feed));
    }

    /// The effects of a batch, and of all before it, that came back.
    pub(super) fn committed(&mut self, ticket: Ticket) -> Vec<Effect> {
        match self.waiting.front() {
            Some((first, _)) if *first <= ticket => {
                self.waiting.pop_front().map(|(_, effects)| effects).unwrap_or_default()
            }
            Some(_) | None => Vec::new(),
        }
    }
}
