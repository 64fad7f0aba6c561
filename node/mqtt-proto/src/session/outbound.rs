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

use std::sync::Arc;

use smallvec::SmallVec;
use verge_model::Epoch;

use self::lane::Lane;
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
    /// What stands for this entry in the store.
    pub stored: Stored,
    /// Whether a row of the store names its packet id.
    pub marked: bool,
    /// The shared subscription that chose this session; another member may get the message instead.
    pub share: Option<Arc<TopicFilter>>,
}

impl Entry {
    /// Whether the store has all of it, so that it needs no memory while it waits. What is for one
    /// of several streams does: the store does not know it.
    fn may_be_away(&self) -> bool {
        self.stored != Stored::Nowhere && self.tag.is_control()
    }
}

/// What stands for an entry in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Nothing: it ends with its connection, or is not stored yet.
    Nowhere,
    /// A row that holds the message.
    Whole,
    /// A row that names the message's row, which others name too.
    ByName,
}

impl Stored {
    /// Whether something does.
    #[must_use]
    #[inline]
    pub fn is_stored(self) -> bool {
        self != Self::Nowhere
    }
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
    /// What waits, by class and lane: the more urgent first, and of one class what was imported.
    lanes: Vec<Lane>,
    inflight: InflightList,
    /// Entries in all lanes.
    queued: usize,
    /// How many sent, unacknowledged messages the client takes (its Receive Maximum).
    receive_maximum: u16,
    /// How many it has taken now.
    outstanding: u16,
    /// What is given no packet id for now.
    held: Hold,
    /// Whether all entries are, and stay, in memory.
    recalled: bool,
    bytes: usize,
}

impl Outbound {
    /// An empty queue of the owner with this epoch.
    #[must_use]
    pub const fn new(epoch: Epoch, limits: OutboundLimits) -> Self {
        Self {
            limits,
            ids: PacketIds::new(epoch),
            lanes: Vec::new(),
            inflight: InflightList::new(),
            queued: 0,
            receive_maximum: 0,
            outstanding: 0,
            held: Hold::None,
            recalled: false,
            bytes: 0,
        }
    }

    /// Takes an entry at the end of its lane; into memory, or as a place if it would wait there
    /// for long.
    ///
    /// # Errors
    /// A full queue takes nothing and gives the entry back.
    pub fn enqueue(&mut self, entry: Entry) -> Result<(), (Refusal, Entry)> {
        let bytes = entry.message.queue_bytes();
        if self.len() >= self.limits.messages_max || self.bytes + bytes > self.limits.bytes_max {
            return Err((Refusal::Full, entry));
        }
        let keeps = self.recalled || !entry.may_be_away();
        let nobody = self.receive_maximum == 0;
        let lane = self.lane_of(&entry);
        if keeps || !(nobody || lane.away_len() > 0 || lane.is_near_full()) {
            lane.push(entry);
        } else {
            lane.push_away(entry.order.seq, bytes, entry.share.is_some());
        }
        self.queued += 1;
        self.bytes += bytes;
        Ok(())
    }

    /// Whether nothing waits to be sent, so that what comes next could be.
    #[must_use]
    #[inline]
    pub fn is_clear(&self) -> bool {
        self.queued == 0
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
        self.queued += 1;
        self.bytes += entry.message.queue_bytes();
        // Imports and loads come in order; a late row finds its place.
        self.lane_of(&entry).push(entry);
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
    /// be dropped, or must be [read](Self::wants) first.
    #[must_use]
    #[inline]
    pub fn may_send(&self) -> bool {
        self.inflight.has_unsent() || self.next_lane().is_some()
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
        let entry = self.pop_front()?;
        let state = InflightState::Published;
        self.inflight.insert(id, Inflight { entry, state, sent: true, dup: false });
        self.outstanding += 1;
        Some(Step::Publish(id))
    }

    /// The entry at the front of what is not yet in flight, and may be sent next; `None` also if it
    /// must be [read](Self::wants) first.
    #[must_use]
    #[inline]
    pub fn front(&self) -> Option<&Entry> {
        let lane = &self.lanes[self.next_lane()?];
        if lane.is_first_away() { None } else { lane.near.front() }
    }

    /// Removes the entry at the front without sending it: it expired, or no client may have it.
    pub fn drop_front(&mut self) -> Option<Entry> {
        self.front()?;
        let entry = self.pop_front()?;
        self.bytes -= entry.message.queue_bytes();
        Some(entry)
    }

    /// What is in flight under this id.
    #[must_use]
    #[inline]
    pub fn inflight(&self, id: PacketId) -> Option<&Inflight> {
        self.inflight.get(id)
    }

    /// Notes that a row of the store names this packet id.
    pub fn mark(&mut self, id: PacketId) {
        if let Some(inflight) = self.inflight.get_mut(id) {
            inflight.entry.marked = true;
        }
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

    /// Removes everything; what is in memory comes in order: in flight with packet id and state, then
    /// queued.
    pub fn drain(&mut self) -> Vec<(Entry, Option<(PacketId, InflightState)>)> {
        let mut all = Vec::with_capacity(self.len());
        for (id, inflight) in self.inflight.drain() {
            all.push((inflight.entry, Some((id, inflight.state))));
        }
        for lane in &mut self.lanes {
            all.extend(lane.clear().into_iter().map(|entry| (entry, None)));
        }
        (self.outstanding, self.bytes, self.queued) = (0, 0, 0);
        all
    }

    /// Whether some entry has this place in the order.
    #[must_use]
    pub fn is_taken(&self, order: OrderKey) -> bool {
        self.inflight.has_order(order) || self.lanes.iter().any(|lane| lane.has(order))
    }

    /// Packet ids are given from the band of this epoch from now on.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.ids = PacketIds::new(epoch);
    }

    /// The place of the last entry.
    #[must_use]
    pub fn last_order(&self) -> Option<OrderKey> {
        let queued = self.lanes.iter().filter_map(Lane::last_order);
        queued.chain(self.inflight.last_order()).max()
    }

    /// Entries queued or in flight.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.queued + self.inflight.len()
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
        self.lanes.iter().for_each(Lane::check_invariants);
        let inflight = self.inflight.iter().map(|(_, inflight)| &inflight.entry);
        let inflight = inflight.map(|entry| entry.message.queue_bytes()).sum::<usize>();
        assert_eq!(self.bytes, inflight + self.lanes.iter().map(Lane::bytes).sum::<usize>());
        assert_eq!(self.queued, self.lanes.iter().map(Lane::len).sum::<usize>());
        assert!(self.lanes.iter().is_sorted_by_key(|lane| (lane.class, lane.lane)));
        assert!(!self.recalled || self.lanes.iter().all(|lane| lane.away_len() == 0));
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

mod away;
mod held;
mod lane;
mod moved;
mod parked;
mod streams;

pub use self::away::Wanted;
pub use self::held::Held;
pub use self::parked::Waiting;
pub use self::streams::Place;

#[cfg(test)]
pub(super) mod tests;
