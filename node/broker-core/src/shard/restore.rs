//! What a node reads before it serves.
//!
//! | read | why not later |
//! |---|---|
//! | subscriptions | messages are planned for them ([`routes`]) |
//! | sessions on their way between nodes | another node waits, and nobody here will touch them |
//! | retained messages | a SUBSCRIBE wants those that match |
//! | messages that are published later | they have their time |
//!
//! Other sessions are read when they are touched. So a start takes as long as there are
//! subscriptions and retained messages, whatever is owed to sessions. A damaged row is reported and
//! left out; it does not stop the node.

use std::collections::BTreeMap;
use std::sync::Arc;

use verge_model::{MessageId, Now};
use verge_mqtt_proto::TopicFilter;
use verge_mqtt_proto::message::Message;
use verge_mqtt_proto::session::StreamTag;
use verge_storage::key::{SubscriptionKey, TimerKey};
use verge_storage::record::SubscriptionRecord;
use verge_storage::{Batch, KeyRange, Store, StoreError, StoreRows};

use super::Shard;
use super::api::{SessionNo, ShardIndex};
pub use super::delayed::RestoredDelayed;
pub use super::load::RestoredSession;
use super::load::{self, damaged, readable};
use crate::record::{message_from_afar, message_from_record, planned_as, subscription_from_record};
use crate::retained::RetainedValue;
use crate::router::Subscriber;
use crate::router::parts::EXCLUSIVE_PREFIX;
use crate::shared::NodeShared;

/// Subscriptions put into the router at once: some milliseconds' work under its lock.
const ROUTES_AT_ONCE: usize = 4_096;

/// What [`load`] found.
#[derive(Debug, Default)]
pub struct Restored {
    /// Sessions that are on their way between nodes, or are owed messages.
    pub sessions: Vec<RestoredSession>,
    /// The messages that are published later.
    pub delayed: Vec<RestoredDelayed>,
    /// Rows that nothing refers to: commit this before the shards run.
    pub cleanup: Batch,
    /// Rows that could not be read.
    pub damaged: u64,
}

/// Reads what must be in memory before a node of `shards` shards serves; retained messages and
/// subscriptions go into `shared`.
///
/// # Errors
/// The disk's. A row that can be read but not understood is counted, reported and left where it is.
pub fn load<S: Store + ?Sized>(
    store: &S,
    shared: &NodeShared,
    shards: u16,
) -> Result<Restored, StoreError> {
    let mut restored = load_but_routes(store, shared)?;
    restored.damaged += routes(store, shared, shards, KeyRange::all())?;
    Ok(restored)
}

/// The same, without subscriptions: see [`routes`].
///
/// # Errors
/// As [`load`].
pub fn load_but_routes<S: Store + ?Sized>(
    store: &S,
    shared: &NodeShared,
) -> Result<Restored, StoreError> {
    let mut restored = Restored::default();
    let mut messages = load_messages(store, &mut restored)?;
    let mut sessions = BTreeMap::new();
    let moving = TimerKey { due: TimerKey::MOVING, session_no: 0 };
    for row in store.timers(moving, TimerKey::CONNECTED) {
        let Some((key, _)) = readable(row, &mut restored.damaged)? else { continue };
        read_session(store, key.session_no, &mut sessions, &mut restored.damaged)?;
    }
    for row in store.queues() {
        let Some((key, record)) = readable(row, &mut restored.damaged)? else { continue };
        if !sessions.contains_key(&key.session_no) {
            read_session(store, key.session_no, &mut sessions, &mut restored.damaged)?;
        }
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

fn read_session<S: Store + ?Sized>(
    store: &S,
    no: u64,
    sessions: &mut BTreeMap<u64, RestoredSession>,
    bad: &mut u64,
) -> Result<(), StoreError> {
    if let Some(record) = readable(store.session(no), bad)?.flatten() {
        sessions.insert(no, load::read(store, no, record, bad)?);
    }
    Ok(())
}

/// Puts the subscriptions of a range of their family into the router of a node of `shards` shards,
/// and returns how many rows were damaged. Ranges may be read by several threads.
///
/// # Errors
/// As [`load`].
pub fn routes<S: Store + ?Sized>(
    store: &S,
    shared: &NodeShared,
    shards: u16,
    range: KeyRange,
) -> Result<u64, StoreError> {
    let mut bad = 0;
    let mut found = Vec::with_capacity(ROUTES_AT_ONCE);
    for row in store.rows::<SubscriptionKey>(range) {
        let Some((key, record)) = readable(row, &mut bad)? else { continue };
        let session = SessionNo(key.session_no);
        let Some((filter, subscriber)) = route_of(store, shards, key, record, &mut bad)? else {
            continue;
        };
        if let Some(sole) = filter.as_str().strip_prefix(EXCLUSIVE_PREFIX) {
            // Whoever had it has it, even if it is taken.
            let _taken = shared.extensions.exclusive.claim(sole, session);
        }
        found.push((filter, subscriber));
        if found.len() == ROUTES_AT_ONCE {
            shared.router.fill(found.drain(..));
        }
    }
    shared.router.fill(found);
    Ok(bad)
}

fn route_of<S: Store + ?Sized>(
    store: &S,
    shards: u16,
    key: SubscriptionKey,
    record: SubscriptionRecord,
    bad: &mut u64,
) -> Result<Option<(TopicFilter, Subscriber)>, StoreError> {
    let parsed = (TopicFilter::try_from(key.filter), subscription_from_record(&record));
    let (Ok(filter), Ok((options, _))) = parsed else {
        damaged(&"a subscription that is none", bad);
        return Ok(None);
    };
    let (client_hash, client) = match record.subscriber {
        Some(subscriber) => (subscriber.client_hash, subscriber.author),
        // Rows of the first version do not say whose they are.
        None => {
            let header = readable(store.session(key.session_no), bad)?.flatten();
            let Some(header) = header else { return Ok(None) };
            let client = planned_as(&header.client, &filter, &options);
            (header.client.stable_hash(), client)
        }
    };
    let subscriber = Subscriber {
        shard: ShardIndex::of_hash(client_hash, shards),
        session: SessionNo(key.session_no),
        tag: StreamTag::CONTROL,
        client: client.map(Box::new),
        options,
        durable: true,
        online: false,
    };
    Ok(Some((filter, subscriber)))
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

impl Shard {
    /// Takes back a session that [`load`] found, before the shard runs.
    pub fn restore(&mut self, restored: RestoredSession, now: Now) {
        let no = self.take_back(restored, now);
        if self.sessions.get(&no).is_some_and(|session| !session.is_sealed()) {
            self.put_registry(no);
        }
    }

    /// Begins to look after the sessions that are not in memory: the last step before the shard
    /// runs.
    pub fn start(&mut self, now: Now) {
        self.begin_attending(now);
    }
}
