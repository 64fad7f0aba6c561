//! Messages owed to a client (MQTT 5.0, 4.3, the sender's side, and 4.9 flow control).
//!
//! ```text
//!  enqueue/import        assign                PUBACK
//! ───────────────▶ queued ─────▶ published ───────────────────────▶ settled
//!                                   │  QoS 2: PUBREC        PUBCOMP    ▲
//!                                   └───────────▶ released ────────────┘
//! ```
//!
//! | state | event | next | the owner then |
//! |---|---|---|---|
//! | queued | quota free | published | stores the packet id (QoS 2: before it sends), sends PUBLISH |
//! | published | PUBACK, QoS 1 | settled | deletes the row |
//! | published | PUBREC, QoS 2 | released | stores it, then sends PUBREL |
//! | published | PUBREC ≥ 0x80 | settled | deletes the row |
//! | released | PUBREC | released | sends PUBREL again |
//! | released | PUBCOMP | settled | deletes the row |
//! | published, released | new connection | same | sends PUBLISH with DUP, or PUBREL, again [MQTT-4.4.0-1] |

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;
use verge_model::{Epoch, MessageId, UnixMillis};

use super::inflight::InflightList;
use super::packet_id::PacketIds;
use super::stream_tag::StreamTag;
use crate::message::Message;
use crate::topic::filter::TopicFilter;
use crate::{PacketId, QoS};

/// Where an entry stands in the order of its session: lane 0 came with an older fragment of the
/// session, lane 1 was accepted here; `seq` grows within a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct OrderKey {
    /// 0: imported from an earlier owner; 1: enqueued by this node.
    pub lane: u8,
    /// Position within the lane.
    pub seq: u64,
}

/// A message owed to this session.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its place in the order.
    pub order: OrderKey,
    /// The message.
    pub message: Arc<Message>,
    /// The QoS of this delivery: the smaller of the message's and the subscription's.
    pub qos: QoS,
    /// The RETAIN flag of this delivery.
    pub retain: bool,
    /// Identifiers of the subscriptions that matched.
    pub subscription_ids: SmallVec<[u32; 2]>,
    /// The stream its subscription was made on.
    pub tag: StreamTag,
    /// Whether a stored row stands for this entry.
    pub stored: bool,
    /// The shared subscription that chose this session; another member may get the message instead.
    pub share: Option<Arc<TopicFilter>>,
}

/// How far an entry with a packet id has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InflightState {
    /// PUBLISH was, or is about to be, sent; its PUBACK or PUBREC is awaited.
    Published,
    /// PUBREC came; PUBREL was, or is about to be, sent; its PUBCOMP is awaited.
    Released,
}

/// An entry with a packet id.
#[derive(Debug, Clone)]
pub struct Inflight {
    /// What is owed.
    pub entry: Entry,
    /// How far it has come.
    pub state: InflightState,
    /// Whether the present connection was told of it.
    pub(super) sent: bool,
    /// Whether any connection may have been told of it: the next PUBLISH is a DUP.
    pub(super) dup: bool,
}

impl Inflight {
    /// Notes that its PUBLISH is being written: the next is a DUP. Returns whether this one is.
    #[inline]
    pub fn note_publishing(&mut self) -> bool {
        std::mem::replace(&mut self.dup, true)
    }
}

/// What waits for older logs of the session to be imported. What is in flight never does: the client
/// has seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hold {
    /// Nothing.
    #[default]
    None,
    /// What was enqueued here: an import that comes before it is under way.
    Own,
    /// What was imported too: it comes from several logs, and is in order when all are there.
    All,
}

/// Bounds of one session's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboundLimits {
    /// Most entries queued or in flight.
    pub messages_max: usize,
    /// Most bytes of messages queued or in flight, by [`Message::queue_bytes`].
    pub bytes_max: usize,
}

/// Why an entry was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A bound of [`OutboundLimits`] is reached.
    Full,
}

/// What [`Outbound::next_step`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// An entry was given this packet id: store that, then send its PUBLISH.
    Publish(PacketId),
    /// A new connection has to be told again: PUBLISH with DUP.
    PublishAgain(PacketId),
    /// A new connection has to be told again: PUBREL.
    ReleaseAgain(PacketId),
}

/// What a PUBREC did.
#[derive(Debug)]
pub enum Received {
    /// Store the state, then send PUBREL.
    Release,
    /// The client refused the message: it is settled.
    Refused(Entry),
    /// No such message: answer PUBREL with 0x92.
    Unknown,
}

/// The outbound half of a session.
#[derive(Debug)]
pub struct Outbound {
    limits: OutboundLimits,
    ids: PacketIds,
    /// Imported entries, before `queue` in the order.
    older: VecDeque<Entry>,
    queue: VecDeque<Entry>,
    inflight: InflightList,
    /// How many sent, unacknowledged messages the client takes (its Receive Maximum).
    receive_maximum: u16,
    /// How many it has taken now.
    outstanding: u16,
    /// What is given no packet id for now.
    held: Hold,
    bytes: usize,
}

impl Outbound {
    /// An empty queue of the owner with this epoch.
    #[must_use]
    pub const fn new(epoch: Epoch, limits: OutboundLimits) -> Self {
        Self {
            limits,
            ids: PacketIds::new(epoch),
            older: VecDeque::new(),
            queue: VecDeque::new(),
            inflight: InflightList::new(),
            receive_maximum: 0,
            outstanding: 0,
            held: Hold::None,
            bytes: 0,
        }
    }

    /// Takes an entry at the end of its lane.
    ///
    /// # Errors
    /// A full queue takes nothing and gives the entry back.
    pub fn enqueue(&mut self, entry: Entry) -> Result<(), (Refusal, Entry)> {
        let bytes = entry.message.queue_bytes();
        if self.len() >= self.limits.messages_max || self.bytes + bytes > self.limits.bytes_max {
            return Err((Refusal::Full, entry));
        }
        self.push(entry);
        Ok(())
    }

    /// Whether nothing waits to be sent, so that what comes next could be.
    #[must_use]
    #[inline]
    pub fn is_clear(&self) -> bool {
        self.queue.is_empty()
            && self.older.is_empty()
            && self.held == Hold::None
            && self.outstanding < self.receive_maximum
            && !self.inflight.has_unsent()
            && !self.is_filling()
    }

    /// Gives an entry its packet id at once: [nothing waits](Self::is_clear). The caller sends it.
    ///
    /// # Errors
    /// There is no room, or no identifier is free; the entry is given back.
    pub fn assign(&mut self, entry: Entry) -> Result<(PacketId, &mut Inflight), Entry> {
        let bytes = entry.message.queue_bytes();
        let last = self.inflight.last_order();
        if self.bytes + bytes > self.limits.bytes_max || last.is_some_and(|last| last > entry.order)
        {
            return Err(entry);
        }
        let Some(id) = self.ids.allocate(|id| self.inflight.contains(id)) else {
            return Err(entry);
        };
        self.bytes += bytes;
        self.outstanding += 1;
        let state = InflightState::Published;
        Ok((id, self.inflight.push(id, Inflight { entry, state, sent: true, dup: false })))
    }

    /// Whether half of what may be owed is.
    #[must_use]
    #[inline]
    pub fn is_filling(&self) -> bool {
        let OutboundLimits { messages_max, bytes_max } = self.limits;
        self.len() * 2 >= messages_max || self.bytes * 2 >= bytes_max
    }

    /// Whether no more than a quarter of what may be owed is.
    #[must_use]
    #[inline]
    pub fn has_room(&self) -> bool {
        let OutboundLimits { messages_max, bytes_max } = self.limits;
        self.len() * 4 <= messages_max && self.bytes * 4 <= bytes_max
    }

    /// Takes an entry that is stored already, or was acknowledged by an earlier owner: the bounds
    /// that held there hold here.
    pub fn push(&mut self, entry: Entry) {
        self.bytes += entry.message.queue_bytes();
        let lane = if entry.order.lane == 0 { &mut self.older } else { &mut self.queue };
        // Imports and loads come in order; a late row finds its place.
        if lane.back().is_none_or(|last| last.order < entry.order) {
            lane.push_back(entry);
        } else {
            let at = lane.partition_point(|other| other.order < entry.order);
            lane.insert(at, entry);
        }
    }

    /// Takes an entry in flight, as loaded from storage or imported with its packet id.
    pub fn push_inflight(&mut self, id: PacketId, entry: Entry, state: InflightState) {
        self.bytes += entry.message.queue_bytes();
        debug_assert!(!self.inflight.contains(id), "bands keep packet ids of fragments apart");
        self.inflight.insert(id, Inflight { entry, state, sent: false, dup: true });
    }

    /// A connection serves the session from now on: everything in flight is to be sent again, and
    /// at most `receive_maximum` messages may be outstanding.
    pub fn connected(&mut self, receive_maximum: u16) {
        self.receive_maximum = receive_maximum;
        self.outstanding = 0;
        self.inflight.forget_sent();
    }

    /// No connection serves the session from now on: nothing is sent.
    pub fn disconnected(&mut self) {
        self.receive_maximum = 0;
        self.outstanding = 0;
    }

    /// Holds back, or lets go, what is not in flight.
    pub fn hold(&mut self, held: Hold) {
        self.held = held;
    }

    /// Whether there may be a [next step](Self::next_step), or something at the front that can only
    /// be dropped.
    #[must_use]
    #[inline]
    pub fn may_send(&self) -> bool {
        self.inflight.has_unsent() || self.front().is_some()
    }

    /// The next thing to send, while the client's Receive Maximum allows; the caller sends it.
    pub fn next_step(&mut self) -> Option<Step> {
        if let Some((id, inflight)) = self.inflight.next_unsent() {
            let limit = match inflight.state {
                InflightState::Published => self.receive_maximum,
                // A PUBREL is not held back by flow control [MQTT-4.9.0-3].
                InflightState::Released if self.receive_maximum > 0 => u16::MAX,
                InflightState::Released => 0,
            };
            if self.outstanding >= limit {
                return None;
            }
            self.outstanding += 1;
            inflight.sent = true;
            return Some(match inflight.state {
                InflightState::Published => Step::PublishAgain(id),
                InflightState::Released => Step::ReleaseAgain(id),
            });
        }
        if self.outstanding >= self.receive_maximum {
            return None;
        }
        self.front()?;
        let id = self.ids.allocate(|id| self.inflight.contains(id))?;
        let lane = if self.older.is_empty() { &mut self.queue } else { &mut self.older };
        let entry = lane.pop_front().expect("the lane has a front");
        let state = InflightState::Published;
        self.inflight.insert(id, Inflight { entry, state, sent: true, dup: false });
        self.outstanding += 1;
        Some(Step::Publish(id))
    }

    /// The entry at the front of what is not yet in flight, and may be sent next.
    #[must_use]
    #[inline]
    pub fn front(&self) -> Option<&Entry> {
        match (self.older.front(), self.held) {
            (_, Hold::All) | (None, Hold::Own) => None,
            (Some(entry), Hold::Own | Hold::None) => Some(entry),
            (None, Hold::None) => self.queue.front(),
        }
    }

    /// Removes the entry at the front without sending it: it expired, or no client may have it.
    pub fn drop_front(&mut self) -> Option<Entry> {
        self.front()?;
        let entry = self.older.pop_front().or_else(|| self.queue.pop_front())?;
        self.bytes -= entry.message.queue_bytes();
        Some(entry)
    }

    /// What is in flight under this id.
    #[must_use]
    #[inline]
    pub fn inflight(&self, id: PacketId) -> Option<&Inflight> {
        self.inflight.get(id)
    }

    /// Notes that the PUBLISH under this id is being written: from now on it is a DUP.
    /// Returns whether this one is a DUP, or `None` if it is no longer due.
    pub fn publishing(&mut self, id: PacketId) -> Option<bool> {
        let inflight = self.inflight.get_mut(id)?;
        if inflight.state != InflightState::Published || !inflight.sent {
            return None;
        }
        Some(inflight.note_publishing())
    }

    /// PUBACK: the settled entry, or `None` if no QoS 1 message with this id was published.
    pub fn handle_puback(&mut self, id: PacketId) -> Option<Entry> {
        self.settle_if(id, |inflight| {
            inflight.entry.qos == QoS::AtLeastOnce
                && inflight.state == InflightState::Published
                && inflight.sent
        })
    }

    /// PUBREC, with whether its reason code is below 0x80.
    pub fn handle_pubrec(&mut self, id: PacketId, success: bool) -> Received {
        let Some(inflight) = self.inflight.get_mut(id) else { return Received::Unknown };
        if inflight.entry.qos != QoS::ExactlyOnce || !inflight.sent {
            return Received::Unknown;
        }
        match (inflight.state, success) {
            (InflightState::Released, _) => Received::Release,
            (InflightState::Published, true) => {
                inflight.state = InflightState::Released;
                // "decremented … until PUBCOMP" (4.9): the quota is kept until then.
                Received::Release
            }
            (InflightState::Published, false) => match self.settle(id) {
                Some(entry) => Received::Refused(entry),
                None => Received::Unknown,
            },
        }
    }

    /// PUBCOMP: the settled entry, or `None` if no message with this id was released.
    pub fn handle_pubcomp(&mut self, id: PacketId) -> Option<Entry> {
        self.settle_if(id, |inflight| inflight.state == InflightState::Released)
    }

    /// Removes everything, in order: in flight with packet id and state, then queued.
    pub fn drain(&mut self) -> Vec<(Entry, Option<(PacketId, InflightState)>)> {
        let mut all = Vec::with_capacity(self.len());
        for (id, inflight) in self.inflight.drain() {
            all.push((inflight.entry, Some((id, inflight.state))));
        }
        let queued = self.older.drain(..).chain(self.queue.drain(..));
        all.extend(queued.map(|entry| (entry, None)));
        self.outstanding = 0;
        self.bytes = 0;
        all
    }

    /// Entries after `after` in the order, with packet id and state if in flight: what an earlier
    /// owner hands over.
    pub fn after(
        &self,
        after: OrderKey,
    ) -> impl Iterator<Item = (&Entry, Option<(PacketId, InflightState)>)> {
        let inflight = self
            .inflight
            .iter()
            .map(|(id, inflight)| (&inflight.entry, Some((id, inflight.state))));
        let mut all: Vec<_> = inflight.collect();
        all.extend(self.older.iter().chain(&self.queue).map(|entry| (entry, None)));
        all.sort_by_key(|(entry, _)| entry.order);
        all.into_iter().filter(move |(entry, _)| entry.order > after)
    }

    /// Removes entries up to and including `upto`: the next owner has them.
    pub fn remove_upto(&mut self, upto: OrderKey) -> Vec<Entry> {
        let mut removed = Vec::new();
        for id in self.inflight.ids_upto(upto) {
            removed.extend(self.settle(id));
        }
        for lane in [&mut self.older, &mut self.queue] {
            let count = lane.partition_point(|entry| entry.order <= upto);
            for entry in lane.drain(..count) {
                self.bytes -= entry.message.queue_bytes();
                removed.push(entry);
            }
        }
        removed
    }

    /// Takes an entry of this message out of the queue, if it was not given a packet id yet.
    pub fn take_queued(&mut self, id: MessageId) -> Option<Entry> {
        for lane in [&mut self.older, &mut self.queue] {
            let found = lane.iter().position(|entry| entry.message.id == id);
            if let Some(entry) = found.and_then(|at| lane.remove(at)) {
                self.bytes -= entry.message.queue_bytes();
                return Some(entry);
            }
        }
        None
    }

    /// Takes out entries of shared subscriptions, in order, of those that `wanted` accepts: what is
    /// queued, and with `sent` what was published at QoS 1 and not acknowledged, with its packet
    /// id. A QoS 2 message stays with whom it was sent to [MQTT-4.8.2-4, MQTT-4.8.2-5].
    pub fn take_shared(
        &mut self,
        sent: bool,
        mut wanted: impl FnMut(&TopicFilter, StreamTag) -> bool,
    ) -> Vec<(Entry, Option<(PacketId, InflightState)>)> {
        let mut is_wanted =
            |entry: &Entry| entry.share.as_deref().is_some_and(|group| wanted(group, entry.tag));
        let mut taken = Vec::new();
        if sent {
            let mut is_due = |inflight: &Inflight| {
                inflight.entry.qos == QoS::AtLeastOnce && is_wanted(&inflight.entry)
            };
            let due = self.inflight.iter().filter(|(_, inflight)| is_due(inflight));
            let ids: Vec<_> = due.map(|(id, _)| id).collect();
            for id in ids {
                let entry = self.settle(id);
                taken.extend(entry.map(|entry| (entry, Some((id, InflightState::Published)))));
            }
        }
        for lane in [&mut self.older, &mut self.queue] {
            if lane.iter().any(&mut is_wanted) {
                let (out, kept) = lane.drain(..).partition(&mut is_wanted);
                *lane = kept;
                let out: VecDeque<Entry> = out;
                taken.extend(out.into_iter().map(|entry| (entry, None)));
            }
        }
        let queued = taken.iter().filter(|(_, inflight)| inflight.is_none());
        self.bytes -= queued.map(|(entry, _)| entry.message.queue_bytes()).sum::<usize>();
        taken
    }

    /// Whether some entry has this place in the order.
    #[must_use]
    pub fn is_taken(&self, order: OrderKey) -> bool {
        let lane = if order.lane == 0 { &self.older } else { &self.queue };
        self.inflight.has_order(order)
            || lane.binary_search_by_key(&order, |entry| entry.order).is_ok()
    }

    /// Packet ids are given from the band of this epoch from now on.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.ids = PacketIds::new(epoch);
    }

    /// The place of the last entry.
    #[must_use]
    pub fn last_order(&self) -> Option<OrderKey> {
        let inflight = self.inflight.last_order();
        let queued = [self.older.back(), self.queue.back()].into_iter().flatten();
        queued.map(|entry| entry.order).chain(inflight).max()
    }

    /// Whether an entry of this message is queued or in flight.
    #[must_use]
    pub fn contains(&self, id: MessageId) -> bool {
        self.inflight.iter().any(|(_, inflight)| inflight.entry.message.id == id)
            || self.older.iter().chain(&self.queue).any(|entry| entry.message.id == id)
    }

    /// Drops queued entries that have expired at `wall`.
    pub fn remove_expired(&mut self, wall: UnixMillis) -> Vec<Entry> {
        let mut expired = Vec::new();
        for lane in [&mut self.older, &mut self.queue] {
            if lane.iter().any(|entry| entry.message.is_expired(wall)) {
                let (gone, kept) = lane.drain(..).partition(|entry| entry.message.is_expired(wall));
                *lane = kept;
                let gone: VecDeque<Entry> = gone;
                expired.extend(gone);
            }
        }
        self.bytes -= expired.iter().map(|entry| entry.message.queue_bytes()).sum::<usize>();
        expired
    }

    /// Entries queued or in flight.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.older.len() + self.queue.len() + self.inflight.len()
    }

    /// Entries in flight.
    #[must_use]
    pub fn inflight_len(&self) -> usize {
        self.inflight.len()
    }

    /// Whether nothing is owed.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes owed, by [`Message::queue_bytes`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Panics if a documented relation between the fields does not hold.
    pub fn check_invariants(&self) {
        self.inflight.check_invariants();
        let queued = self.older.iter().chain(&self.queue);
        let inflight = self.inflight.iter().map(|(_, inflight)| &inflight.entry);
        let bytes = queued.chain(inflight);
        assert_eq!(self.bytes, bytes.map(|entry| entry.message.queue_bytes()).sum::<usize>());
        assert!(self.older.iter().is_sorted_by_key(|entry| entry.order));
        assert!(self.queue.iter().is_sorted_by_key(|entry| entry.order));
    }

    fn settle(&mut self, id: PacketId) -> Option<Entry> {
        let inflight = self.inflight.remove(id)?;
        Some(self.settled(inflight))
    }

    #[inline]
    fn settle_if(&mut self, id: PacketId, due: impl FnOnce(&Inflight) -> bool) -> Option<Entry> {
        let inflight = self.inflight.remove_if(id, due)?;
        Some(self.settled(inflight))
    }

    #[inline]
    fn settled(&mut self, inflight: Inflight) -> Entry {
        if inflight.sent {
            self.outstanding = self.outstanding.saturating_sub(1);
        }
        self.bytes -= inflight.entry.message.queue_bytes();
        inflight.entry
    }
}

mod held;
mod streams;

pub use held::Held;

#[cfg(test)]
pub(super) mod tests;
