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

use std::sync::Arc;

use bytes::Bytes;
use verge_model::Now;
use verge_mqtt_proto::TopicFilter;
use verge_mqtt_proto::session::StreamTag;
use verge_storage::key::{SubscriptionKey, TimerKey};
use verge_storage::record::SubscriptionRecord;
use verge_storage::{Family, KeyRange, Store, StoreError, StoreRows};

use super::Shard;
use super::api::{SessionNo, ShardIndex};
pub use super::delayed::RestoredDelayed;
pub use super::load::RestoredSession;
use super::load::{self, damaged, readable};
use crate::record::{message_from_record, planned_as, subscription_from_record};
use crate::retained::RetainedValue;
use crate::router::Subscriber;
use crate::router::parts::EXCLUSIVE_PREFIX;
use crate::shared::{LIFE_BITS, NodeShared};

/// Subscriptions put into the router at once: some milliseconds' work under its lock.
const ROUTES_AT_ONCE: usize = 4_096;

/// Lives looked at to cut a family into parts; what later ones left is in the last part.
const LIVES_MAX: usize = 256;

/// What [`load`] found.
#[derive(Debug, Default)]
pub struct Restored {
    /// Sessions that are on their way between nodes.
    pub sessions: Vec<RestoredSession>,
    /// The messages that are published later.
    pub delayed: Vec<RestoredDelayed>,
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
    let moving = TimerKey { due: TimerKey::MOVING, session_no: 0 };
    for row in store.timers(moving, TimerKey::CONNECTED) {
        let Some((key, _)) = readable(row, &mut restored.damaged)? else { continue };
        if let Some(record) =
            readable(store.session(key.session_no), &mut restored.damaged)?.flatten()
        {
            let life = shared.first_queue_seq();
            let bad = &mut restored.damaged;
            restored.sessions.push(load::read(store, key.session_no, record, (life, &[]), bad)?);
        }
    }
    load_retained(store, shared, &mut restored)?;
    for row in store.delayed() {
        let Some((key, record)) = readable(row, &mut restored.damaged)? else { continue };
        restored.delayed.push(RestoredDelayed { key, record });
    }
    Ok(restored)
}

/// Cuts the family of subscriptions into about `count` ranges of like size, for [`routes`]: within a
/// life of the node its sessions have numbers that follow each other.
///
/// # Errors
/// As [`load`].
pub fn parts<S: Store + ?Sized>(store: &S, count: usize) -> Result<Vec<KeyRange>, StoreError> {
    // The first number of each life, and about how many there are.
    let (mut lives, mut from) = (Vec::new(), 0);
    while let Some(first) = first_session(store, from)?.filter(|_| lives.len() < LIVES_MAX) {
        let life = first >> LIFE_BITS << LIFE_BITS;
        let mut reach = 1;
        while first_session(store, life + reach)?
            .is_some_and(|no| no >> LIFE_BITS << LIFE_BITS == life)
        {
            reach *= 2;
        }
        lives.push((life, reach));
        from = life + (1 << LIFE_BITS);
    }
    let (count, all) = (count as u64, lives.iter().map(|(_, reach)| reach).sum::<u64>());
    let cut = |part: u64| {
        let mut place = all / count * part;
        let (life, _) = lives.iter().find(|(_, reach)| {
            let here = place < *reach;
            place -= if here { 0 } else { *reach };
            here
        })?;
        Some(SubscriptionKey::of(life + place).start)
    };
    let cuts: Vec<Bytes> = (1..count).filter_map(cut).collect();
    let starts = std::iter::once(Bytes::new()).chain(cuts.iter().cloned());
    let ends = cuts.iter().cloned().map(Some).chain([None]);
    Ok(starts.zip(ends).map(|(start, end)| KeyRange { start, end }).collect())
}

/// The first session from a number on that has a subscription.
fn first_session<S: Store + ?Sized>(store: &S, from: u64) -> Result<Option<u64>, StoreError> {
    let range = KeyRange { start: SubscriptionKey::of(from).start, end: None };
    let page = store.scan(Family::Subscription, &range, 1)?;
    let first = page.rows.first().and_then(|(key, _)| key.first_chunk());
    Ok(first.map(|number| u64::from_be_bytes(*number)))
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

#[cfg(test)]
mod tests {
    use verge_storage::{Batch, MemoryStore};

    use super::*;

    #[test]
    fn parts_are_of_like_size_and_leave_nothing_out() {
        let store = MemoryStore::new(&"n".parse().unwrap(), 7);
        assert_eq!(parts(&store, 4), Ok(vec![KeyRange::all(); 1]), "there is nothing to part");
        let mut batch = Batch::new();
        let record = SubscriptionRecord {
            qos: 0,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
            subscription_id: None,
            subscriber: None,
        };
        let lives = [(1, 1_000), (2, 3), (7, 600)];
        for (life, sessions) in lives {
            for number in 1..=sessions {
                batch.put_subscription((life << LIFE_BITS) + number, "a", &record);
            }
        }
        store.commit(&[batch], true).unwrap();
        for count in [1, 2, 3, 8] {
            let parts = parts(&store, count).unwrap();
            let rows = |part| store.rows::<SubscriptionKey>(part).count();
            let sizes: Vec<usize> = parts.into_iter().map(rows).collect();
            assert_eq!((sizes.len(), sizes.iter().sum::<usize>()), (count, 1_603), "{sizes:?}");
            assert!(sizes.iter().all(|size| *size <= 2 * 1_603 / count), "{sizes:?}");
        }
    }
}
