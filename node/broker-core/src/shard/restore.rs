//! From the store back to sessions.
//!
//! [`load`] reads what an earlier life of the node left, before any shard runs: sessions with
//! their subscriptions and queues, retained messages, and what nobody refers to any more, which it
//! deletes. A damaged row is reported and left out; it does not stop the node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smallvec::SmallVec;
use verge_mesh_proto::crdt::sessions::RegistryEntry;
use verge_mesh_proto::handover::{Import, ImportConfig};
use verge_model::{MessageId, Now};
use verge_mqtt_proto::message::Message;
use verge_mqtt_proto::session::{Entry, InflightState, OrderKey, StreamTag, Subscription};
use verge_mqtt_proto::{PacketId, QoS, TopicFilter};
use verge_storage::key::QueueKey;
use verge_storage::record::{QueueRecord, QueueState, SessionRecord, SessionState};
use verge_storage::{Batch, Store, StoreError, StoreRows};

use super::Shard;
use super::api::{SessionNo, ShardIndex};
use super::claimant::SEEN_BEYOND_LINGER;
pub use super::delayed::RestoredDelayed;
use super::due::Due;
use super::giver::REMINDER_FIRST;
use super::moving::Fragment;
use super::redeliver::share_of;
use super::replica::Replica;
use super::session::{Ownership, Sealed, Session};
use crate::ledger::Opened;
use crate::record::{
    message_from_afar, message_from_record, subscription_from_record, will_from_record,
};
use crate::retained::RetainedValue;
use crate::shared::NodeShared;

/// A session as the store has it.
#[derive(Debug)]
pub struct RestoredSession {
    no: u64,
    record: SessionRecord,
    subscriptions: Vec<(TopicFilter, Subscription)>,
    /// Filters of those that were made on a stream other than the control stream.
    on_streams: BTreeSet<TopicFilter>,
    queue: Vec<(QueueKey, QueueRecord, Arc<Message>)>,
    received: Vec<u16>,
    received_on_streams: Vec<u16>,
    seen: Vec<MessageId>,
}

impl RestoredSession {
    /// The shard, of `count`, that serves the session.
    #[must_use]
    pub fn shard(&self, count: u16) -> ShardIndex {
        ShardIndex::of(&self.record.client, count)
    }
}

/// What [`load`] found.
#[derive(Debug, Default)]
pub struct Restored {
    /// The sessions.
    pub sessions: Vec<RestoredSession>,
    /// The messages that are published later.
    pub delayed: Vec<RestoredDelayed>,
    /// Rows that nothing refers to: commit this before the shards run.
    pub cleanup: Batch,
    /// Rows that could not be read.
    pub damaged: u64,
}

/// Reads the sessions and retained messages of a store; the latter go into `shared`.
///
/// # Errors
/// The disk's. A row that can be read but not understood is counted, reported and left where it is.
pub fn load<S: Store + ?Sized>(store: &S, shared: &NodeShared) -> Result<Restored, StoreError> {
    let mut restored = Restored::default();
    let mut messages = load_messages(store, &mut restored)?;
    let mut sessions = BTreeMap::new();
    for row in store.sessions() {
        let Some((key, record)) = readable(row, &mut restored.damaged)? else { continue };
        sessions.insert(key.0, load_session(store, key.0, record, &mut restored.damaged)?);
    }
    for row in store.queues() {
        let Some((key, record)) = readable(row, &mut restored.damaged)? else { continue };
        let session = sessions.get_mut(&key.session_no);
        match (session, messages.get(&record.message)) {
            (Some(session), Some(message)) => {
                message.stored.add(1);
                session.queue.push((key, record, Arc::clone(message)));
            }
            // A session that ended while another thread stored a delivery for it.
            (None, _) => restored.cleanup.delete_queue(key),
            (Some(_), None) => {
                restored.damaged += 1;
                tracing::error!(message = %record.message, "a queued message is missing");
                restored.cleanup.delete_queue(key);
            }
        }
    }
    messages.retain(|id, message| {
        let owed = message.stored.count() > 0;
        if !owed {
            restored.cleanup.delete_message(*id);
        }
        owed
    });
    load_retained(store, shared, &mut restored)?;
    for row in store.delayed() {
        let Some((key, record)) = readable(row, &mut restored.damaged)? else { continue };
        restored.delayed.push(RestoredDelayed { key, record });
    }
    restored.sessions = sessions.into_values().collect();
    Ok(restored)
}

fn load_messages<S: Store + ?Sized>(
    store: &S,
    restored: &mut Restored,
) -> Result<BTreeMap<MessageId, Arc<Message>>, StoreError> {
    let mut messages = BTreeMap::new();
    for row in store.messages() {
        let Some((key, record)) = readable(row, &mut restored.damaged)? else { continue };
        match message_from_afar(record, key.0) {
            Ok(message) => {
                messages.insert(key.0, message);
            }
            Err(error) => damaged(&error, &mut restored.damaged),
        }
    }
    Ok(messages)
}

fn load_session<S: Store + ?Sized>(
    store: &S,
    no: u64,
    record: SessionRecord,
    bad: &mut u64,
) -> Result<RestoredSession, StoreError> {
    let mut session = RestoredSession {
        no,
        record,
        subscriptions: Vec::new(),
        on_streams: BTreeSet::new(),
        queue: Vec::new(),
        received: Vec::new(),
        received_on_streams: Vec::new(),
        seen: Vec::new(),
    };
    for row in store.subscriptions_of(no) {
        let Some((key, record)) = readable(row, bad)? else { continue };
        let parsed = (TopicFilter::parse(&key.filter), subscription_from_record(&record));
        let (Ok(filter), Ok((subscription, on_stream))) = parsed else {
            damaged(&"a subscription that is none", bad);
            continue;
        };
        if on_stream {
            session.on_streams.insert(filter.clone());
        }
        session.subscriptions.push((filter, subscription));
    }
    for row in store.received_of(no) {
        let Some((key, _)) = readable(row, bad)? else { continue };
        match key.on_stream {
            false => session.received.push(key.packet_id),
            true => session.received_on_streams.push(key.packet_id),
        }
    }
    for row in store.seen_of(no) {
        let Some((key, _)) = readable(row, bad)? else { continue };
        session.seen.push(key.message);
    }
    Ok(session)
}

fn load_retained<S: Store + ?Sized>(
    store: &S,
    shared: &NodeShared,
    restored: &mut Restored,
) -> Result<(), StoreError> {
    for row in store.retained_all() {
        let Some((key, record)) = readable(row, &mut restored.damaged)? else { continue };
        let message = match record.message.map(message_from_record).transpose() {
            Ok(message) => message.map(Arc::new),
            Err(error) => {
                damaged(&error, &mut restored.damaged);
                continue;
            }
        };
        let Ok(topic) = verge_mqtt_proto::TopicName::parse(&key.0) else {
            damaged(&"a retained topic that is none", &mut restored.damaged);
            continue;
        };
        shared.note_stamp(record.stamp);
        let value = RetainedValue { stamp: record.stamp, node: record.node, message };
        shared.retained.apply(&topic, value);
    }
    Ok(())
}

/// The row, or nothing if this one is damaged.
fn readable<T>(row: Result<T, StoreError>, bad: &mut u64) -> Result<Option<T>, StoreError> {
    match row {
        Ok(row) => Ok(Some(row)),
        Err(error @ StoreError::Corrupt { .. }) => {
            damaged(&error, bad);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn damaged(error: &dyn std::fmt::Display, bad: &mut u64) {
    *bad += 1;
    tracing::error!(%error, "a stored row was left out");
}

impl Shard {
    /// Takes back a session, before the shard runs.
    pub fn restore(&mut self, restored: RestoredSession, now: Now) {
        let RestoredSession { no, record, subscriptions, on_streams, queue, .. } = restored;
        let RestoredSession { received, received_on_streams, seen, .. } = restored;
        let no = SessionNo(no);
        let mut session = Session::new(
            no,
            record.client.clone(),
            record.claim,
            record.session_expiry_secs,
            record.protocol_version,
            &self.config,
        );
        session.will = record.will.as_ref().and_then(|will| match will_from_record(will) {
            Ok(will) => Some(Box::new(will)),
            Err(error) => {
                tracing::error!(%error, "a stored Will was left out");
                None
            }
        });
        session.subscriptions = subscriptions.iter().cloned().collect();
        session.set_detached(on_streams);
        session.entry = self.restored_entry(&record, &session);
        // Until the header of a log said what the session is, the entry knows more than the rows.
        if record.open_fragments.iter().all(|fragment| fragment.headed) {
            session.doubt_entry();
        }
        session.inbound = received.into_iter().filter_map(PacketId::new).collect();
        session.restore_received(received_on_streams.into_iter().filter_map(PacketId::new));
        for fragment in &record.open_fragments {
            let import = Import::new(ImportConfig::default(), now.mono);
            let state = Fragment { import, headed: fragment.headed };
            session.moving.change().fragments.insert(fragment.claim, state);
        }
        let sealed = record.state != SessionState::Open;
        if !session.moving.fragments.is_empty() && !sealed {
            session.moving.change().claiming =
                record.open_fragments.iter().find(|f| !f.headed).map(|fragment| fragment.claim);
            session.moving.change().hold_until = Some(now.mono + self.config.handover_hold);
            session.hold();
            self.importing.insert(no);
        }
        if !session.moving.fragments.is_empty() || !seen.is_empty() {
            session
                .moving
                .change()
                .seen
                .remember(seen, now.mono + self.config.handover_linger + SEEN_BEYOND_LINGER);
        }
        for (key, row, message) in queue {
            // A delivery is stored before its session takes note of it.
            if session.moving.note_seen(message.id) {
                self.turn.batch.put_seen(no.0, message.id, now.wall);
            }
            self.shared.ledger.open(Opened::Recovered, message.class, 1);
            restore_entry(&mut session, key, row, message);
        }
        if self.config.mesh {
            session.moving.change().unconfirmed = true;
        }
        // What the client had when the node went down is over: its connection was lost then.
        let since = record.disconnected_at.unwrap_or(now.wall);
        session.disconnected_at = Some(since);
        let expires = session.expiry_secs.map(|secs| {
            let whole = std::time::Duration::from_secs(u64::from(secs));
            now.mono + whole.saturating_sub(now.wall.since(since))
        });
        session.expires_due = expires.into();
        if let Some(will) = &session.will {
            let delay = std::time::Duration::from_secs(u64::from(will.delay_secs));
            session.will_due = (now.mono + delay).into();
        }
        match record.state {
            SessionState::Open => {
                self.open.insert(&record.client, no);
            }
            SessionState::Sealed { to, sealed_at } => {
                session.will_due = Due::NEVER;
                session.ownership = Ownership::Sealed(Box::new(Sealed {
                    to,
                    at: sealed_at,
                    routed: None,
                    flushing: false,
                    linger_until: now.mono + self.config.handover_linger,
                    closes_at: None,
                    closed: false,
                    nudged: false,
                }));
                session.moving.change().reminder = Some((now.mono, REMINDER_FIRST));
                self.sealed.insert((record.client, record.claim), no);
            }
        }
        self.sessions.insert(Box::new(session));
        for (filter, subscription) in subscriptions {
            self.route(no, StreamTag::CONTROL, &filter, subscription);
        }
        if !sealed {
            self.put_registry(no);
        }
        self.arm(no);
    }

    fn restored_entry(&self, record: &SessionRecord, session: &Session) -> Option<Box<Replica>> {
        if !self.config.mesh {
            return None;
        }
        if !record.subscription_clock.is_empty() {
            match RegistryEntry::decode(&record.subscription_clock) {
                Ok(entry) => return Some(Replica::new(entry)),
                Err(error) => tracing::error!(%error, "a session's replicated entry was left out"),
            }
        }
        let mut entry = RegistryEntry::new(record.claim, false);
        session.note_subscriptions(&mut entry);
        Some(Replica::new(entry))
    }
}

fn restore_entry(session: &mut Session, key: QueueKey, row: QueueRecord, message: Arc<Message>) {
    let entry = Entry {
        order: OrderKey { lane: key.lane, seq: key.seq },
        qos: QoS::from_bits(row.qos).unwrap_or(message.qos),
        retain: row.retain,
        subscription_ids: SmallVec::from_vec(row.subscription_ids),
        // Its stream is over, with the connection of the earlier life.
        tag: StreamTag::CONTROL,
        stored: true,
        share: share_of(row.share),
        message,
    };
    let (id, state) = match row.state {
        QueueState::Queued => (None, InflightState::Published),
        QueueState::Sent { packet_id } => (PacketId::new(packet_id), InflightState::Published),
        QueueState::Released { packet_id } => (PacketId::new(packet_id), InflightState::Released),
    };
    match id.filter(|id| session.outbound.inflight(*id).is_none()) {
        Some(id) => session.outbound.push_inflight(id, entry, state),
        None => session.outbound.push(entry),
    }
}
