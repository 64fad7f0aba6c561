//! A session of this node, with or without a connection.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashSet;
use verge_mesh_proto::RouteHead;
use verge_mesh_proto::handover::Cursor;
use verge_model::{Claim, ClientKey, MessageId, Millis, Now, UnixMillis};
use verge_mqtt_proto::TopicFilter;
use verge_mqtt_proto::message::Message;
use verge_mqtt_proto::session::{Hold, Inbound, OrderKey, OutboundLimits, StreamTag, Will};
use verge_mqtt_proto::topic::share::SHARE_PREFIX;
use verge_storage::key::LANE_IMPORTED;
use verge_storage::record::{FragmentRecord, SessionRecord, SessionState};

use super::api::{ConnId, SessionNo, ShardConfig};
use super::connect::PendingConnect;
use super::due::{Due, Moment};
use super::moving::{Fragment, Moving};
use super::owed::Owed;
use super::park::Leave;
use super::replica::Replica;
use super::rows::Stored;
use super::streams::session::SessionStreams;
use super::subscriptions::Subscriptions;
use crate::record::will_to_record;

/// How many settled messages a session remembers, and for how long: a copy of one may still be
/// under way to the next owner by another link.
const SETTLED_MAX: usize = 256;
const SETTLED_AGE: Duration = Duration::from_secs(10);

/// Who owns the session's log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// This node.
    Open,
    /// The owner of a greater claim; the log is kept until that owner has it. Boxed: few are.
    Sealed(Box<Sealed>),
}

/// A log on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// The claim it was sealed for.
    pub(crate) to: Claim,
    /// When, for the session's expiry.
    pub(crate) at: UnixMillis,
    /// From which of the new owner's routes on its filters are among them, once it said so.
    pub(crate) routed: Option<RouteHead>,
    /// Whether the hub was asked to say when what was planned without them has arrived.
    pub(crate) flushing: bool,
    /// When this node's routes may go, at the earliest.
    pub(crate) linger_until: Millis,
    /// Set once they went: nothing can arrive after it.
    pub(crate) closes_at: Option<Millis>,
    /// Whether nothing can arrive any more.
    pub(crate) closed: bool,
    /// Whether the new owner was told of what came since its last pull.
    pub(crate) nudged: bool,
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) no: SessionNo,
    pub(crate) client: ClientKey,
    pub(crate) claim: Claim,
    /// Session Expiry Interval in seconds; `None` never expires, 0 ends with its connection.
    pub(crate) expiry_secs: Option<u32>,
    pub(crate) protocol_version: u8,
    pub(crate) conn: Option<ConnId>,
    /// A connection that waits for an earlier owner's answer.
    pub(crate) pending: Option<Box<PendingConnect>>,
    pub(crate) will: Option<Box<Will>>,
    /// When the Will is published, unless the client is back before.
    pub(crate) will_due: Due,
    pub(crate) disconnected_at: Moment,
    /// When the session ends, if nobody connects.
    pub(crate) expires_due: Due,
    /// Those of the control stream, and those that were made on other streams of an earlier
    /// connection.
    pub(crate) subscriptions: Subscriptions,
    /// What it keeps of streams beside the control stream.
    pub(in crate::shard) streams: Option<Box<SessionStreams>>,
    /// What the homes of the session are told; absent where no other node exists.
    pub(crate) entry: Option<Box<Replica>>,
    pub(crate) outbound: Owed,
    pub(crate) inbound: Inbound,
    pub(crate) ownership: Ownership,
    /// What it keeps while logs of it are on their way.
    pub(crate) moving: Moving,
    /// Messages settled in the last moments; kept where another node might take the session.
    #[allow(clippy::box_collection, reason = "a session that nothing was settled of has a word")]
    settled: Option<Box<VecDeque<(UnixMillis, MessageId)>>>,
    /// The timer that stands for this session.
    pub(crate) armed: Due,
    /// What is stored of it.
    pub(in crate::shard) stored: Stored,
    /// The due of its timer's row.
    pub(in crate::shard) timer: Moment,
    /// Its way out of memory.
    pub(in crate::shard) leave: Leave,
}

impl Session {
    /// A session without history.
    pub(crate) fn new(
        no: SessionNo,
        client: ClientKey,
        claim: Claim,
        expiry_secs: Option<u32>,
        protocol_version: u8,
        config: &ShardConfig,
    ) -> Self {
        let limits = OutboundLimits {
            messages_max: config.queue_messages_max,
            bytes_max: config.queue_bytes_max,
        };
        Self {
            no,
            client,
            claim,
            expiry_secs,
            protocol_version,
            conn: None,
            pending: None,
            will: None,
            will_due: Due::NEVER,
            disconnected_at: Moment::NONE,
            expires_due: Due::NEVER,
            subscriptions: Subscriptions::default(),
            streams: None,
            entry: None,
            outbound: Owed::new(claim.epoch, limits),
            inbound: Inbound::default(),
            ownership: Ownership::Open,
            moving: Moving::default(),
            settled: None,
            armed: Due::NEVER,
            stored: Stored::default(),
            timer: Moment::NONE,
            leave: Leave::default(),
        }
    }

    /// Whether a SUBSCRIBE to `filter` on this stream replaces a subscription [MQTT-3.8.4-3].
    pub(crate) fn has_subscription(&self, tag: StreamTag, filter: &TopicFilter) -> bool {
        let live = self.streams.as_ref().and_then(|streams| streams.live.get(&tag));
        self.subscriptions.contains_key(filter)
            || live.is_some_and(|live| live.contains_key(filter))
    }

    /// Whether the session outlives its connection, and so has rows.
    pub(crate) fn is_durable(&self) -> bool {
        self.expiry_secs != Some(0)
    }

    /// Its shared subscriptions.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &TopicFilter> {
        self.subscriptions.keys().filter(|filter| filter.as_str().starts_with(SHARE_PREFIX))
    }

    /// Whether only its log is still here.
    pub(crate) fn is_sealed(&self) -> bool {
        matches!(self.ownership, Ownership::Sealed(_))
    }

    /// The sealed state, if it is sealed.
    pub(crate) fn sealed_mut(&mut self) -> Option<&mut Sealed> {
        match &mut self.ownership {
            Ownership::Open => None,
            Ownership::Sealed(sealed) => Some(sealed),
        }
    }

    /// The header row, but for what it says of the node's lives.
    pub(in crate::shard) fn record(&self) -> SessionRecord {
        let state = match &self.ownership {
            Ownership::Open => SessionState::Open,
            Ownership::Sealed(sealed) => {
                SessionState::Sealed { to: sealed.to, sealed_at: sealed.at }
            }
        };
        let fragment = |(claim, fragment): (&Claim, &Fragment)| FragmentRecord {
            claim: *claim,
            headed: fragment.headed,
        };
        SessionRecord {
            client: self.client.clone(),
            claim: self.claim,
            session_expiry_secs: self.expiry_secs,
            protocol_version: self.protocol_version,
            will: self.will.as_deref().map(will_to_record),
            disconnected_at: self.disconnected_at.at(),
            state,
            open_fragments: self.moving.fragments.iter().map(fragment).collect(),
            subscription_clock: self.encoded_entry(),
            confirmed_in: 0,
            written_in: (0, 0),
        }
    }

    /// The session's registry entry, for the header row and the next owner; no bytes if there is
    /// none, or it has outgrown what its homes take.
    pub(crate) fn encoded_entry(&self) -> Bytes {
        match self.entry.as_ref().map(|entry| entry.encode()) {
            Some(Ok(bytes)) => bytes,
            Some(Err(error)) => {
                tracing::warn!(%error, "the replicated part of a session is left out");
                Bytes::new()
            }
            None => Bytes::new(),
        }
    }

    /// From now on messages are remembered: a log that may hold copies of them is merged.
    pub(crate) fn remember_from(&mut self, now: Now) {
        if self.moving.seen.until.is_none() {
            let settled = self.settled.iter().flat_map(|all| all.iter()).map(|(_, id)| *id);
            let owed = self.outbound.after(OrderKey::default());
            let owed = owed.map(|(entry, _)| entry.message.id);
            self.moving.change().seen.remember(settled.chain(owed), now.mono);
        }
    }

    /// Remembers that a message was settled a moment ago.
    pub(crate) fn note_settled(&mut self, id: MessageId, wall: UnixMillis) {
        self.forget_settled(wall);
        let settled = self.settled.get_or_insert_default();
        if settled.len() == SETTLED_MAX {
            settled.pop_front();
        }
        settled.push_back((wall, id));
    }

    /// Messages the next owner must not take again: settled within the last moments, or while a
    /// copy might still come from an older log.
    pub(crate) fn over(&mut self, wall: UnixMillis) -> Vec<MessageId> {
        self.forget_settled(wall);
        let owed: FxHashSet<MessageId> =
            self.outbound.after(OrderKey::default()).map(|(entry, _)| entry.message.id).collect();
        let settled = self.settled.iter().flat_map(|all| all.iter()).map(|(_, id)| *id);
        let known = settled.chain(self.moving.all_seen());
        let mut over: Vec<MessageId> = known.filter(|id| !owed.contains(id)).collect();
        over.sort_unstable();
        over.dedup();
        over
    }

    /// Forgets what was to be remembered for a while only.
    pub(in crate::shard) fn tidy(&mut self, now: Now) {
        self.forget_settled(now.wall);
        self.moving.tidy();
    }

    /// Whether its rows say all that is known of it, once they are written.
    pub(in crate::shard) fn is_on_disk(&self) -> bool {
        let told = self.entry.as_ref().is_none_or(|replica| replica.is_said());
        self.settled.is_none() && self.streams.is_none() && self.outbound.is_stored() && told
    }

    fn forget_settled(&mut self, wall: UnixMillis) {
        let Some(settled) = &mut self.settled else { return };
        while settled.front().is_some_and(|(at, _)| wall.since(*at) > SETTLED_AGE) {
            settled.pop_front();
        }
        if settled.is_empty() {
            self.settled = None;
        }
    }

    /// The earliest moment at which something about this session is due.
    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        let imports = self.moving.fragments.values().filter(|_| !self.is_sealed());
        let imports = imports.filter_map(|fragment| fragment.import.poll_timeout());
        let sealed = match &self.ownership {
            Ownership::Open => None,
            Ownership::Sealed(sealed) => match **sealed {
                Sealed { closed: true, .. } => None,
                Sealed { closes_at: Some(at), .. } => Some(at),
                Sealed { routed: Some(_), flushing: false, linger_until, .. } => Some(linger_until),
                Sealed { .. } => None,
            },
        };
        let pending = self.pending.as_ref().map(|pending| pending.deadline);
        let seen = self.moving.seen.until.filter(|_| self.moving.fragments.is_empty());
        let reminder = self.moving.reminder.map(|(at, _)| at);
        let put = self.entry.as_ref().and_then(|replica| replica.due());
        let fixed = [
            self.will_due.at(),
            self.expires_due.at(),
            self.moving.hold_until,
            sealed,
            pending,
            seen,
            reminder,
            put,
        ];
        imports.chain(fixed.into_iter().flatten()).min()
    }

    /// Holds back what older logs come before, for as long as that is worth waiting for; true if
    /// nothing is held.
    pub(crate) fn hold(&mut self) -> bool {
        let behind = self.moving.fragments.values().any(|fragment| !fragment.import.is_caught_up());
        let held = match (self.moving.hold_until.filter(|_| behind), self.moving.fragments.len()) {
            (None, _) => Hold::None,
            (Some(_), 1) => Hold::Own,
            (Some(_), _) => Hold::All,
        };
        self.outbound.hold(held);
        held == Hold::None
    }

    /// The place of an imported message in the order. Several logs may be imported at once, and
    /// hold parts of what one publisher sent; they are brought together by when it was accepted.
    pub(crate) fn import_order(&self, message: &Message) -> OrderKey {
        let mut order = OrderKey { lane: LANE_IMPORTED, seq: message.stamp.0 };
        while self.outbound.is_taken(order) {
            order.seq += 1;
        }
        order
    }
}

/// A place in the queue, as it is named in the handover.
pub(crate) fn cursor_of(order: OrderKey) -> Cursor {
    Cursor { lane: order.lane, seq: order.seq }
}

/// The place a cursor names.
pub(crate) fn order_of(cursor: Cursor) -> OrderKey {
    OrderKey { lane: cursor.lane, seq: cursor.seq }
}
