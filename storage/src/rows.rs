//! Reading rows as what they are.

use std::marker::PhantomData;
use std::vec;

use bytes::Bytes;
use verge_model::{Class, ClientKey, MessageId, NodeKey, UnixMillis};

use crate::error::StoreError;
use crate::key::{
    DelayedKey, InflightKey, KeyRange, LinkInKey, MemberKey, MessageKey, OpenKey, QueueKey,
    ReceivedKey, RegistryKey, RetainedKey, RouteHeadKey, RouteKey, Row, SeenKey, SessionKey,
    SubscriptionKey, TimerKey,
};
use crate::record::{
    MemberRecord, QueueRecord, Record, RegistryRecord, RetainedRecord, RouteHeadRecord,
    SessionRecord, StoredMessage, SubscriptionRecord,
};
use crate::store::Store;

/// How many rows [`Rows`] asks for at a time.
const PAGE_ROWS: usize = 256;

/// Typed readers of every [`Store`].
///
/// Methods that may find many rows return [`Rows`], which reads them page by page as it is
/// iterated; begin anywhere with [`StoreRows::rows`] and the ranges of the keys.
pub trait StoreRows: Store {
    /// The record of one row.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names this row.
    fn row<K: Row>(&self, key: &K) -> Result<Option<K::Record>, StoreError> {
        let bytes = key.encode();
        let Some(value) = self.get(K::FAMILY, &bytes)? else { return Ok(None) };
        K::Record::decode(&value)
            .map(Some)
            .map_err(|error| StoreError::corrupt_record(K::FAMILY, &bytes, &error))
    }

    /// The rows of a range, in key order.
    fn rows<K: Row>(&self, range: KeyRange) -> Rows<'_, Self, K> {
        let page = Vec::new().into_iter();
        Rows { store: self, page, rest: Some(range), damaged: None, key: PhantomData }
    }

    /// The header of a session.
    ///
    /// # Errors
    /// As [`StoreRows::row`].
    fn session(&self, session_no: u64) -> Result<Option<SessionRecord>, StoreError> {
        self.row(&SessionKey(session_no))
    }

    /// The number of the session this node owns for a client.
    ///
    /// # Errors
    /// As [`StoreRows::row`].
    fn open_session(&self, client: &ClientKey) -> Result<Option<u64>, StoreError> {
        let record = self.row(&OpenKey(client.clone()))?;
        Ok(record.map(|record| record.session_no))
    }

    /// Sessions that are to be looked at from a moment and session on, before another moment.
    fn timers(&self, from: TimerKey, to: UnixMillis) -> Rows<'_, Self, TimerKey> {
        self.rows(TimerKey::between(from, to))
    }

    /// Every session.
    fn sessions(&self) -> Rows<'_, Self, SessionKey> {
        self.rows(KeyRange::all())
    }

    /// One subscription of a session.
    ///
    /// # Errors
    /// As [`StoreRows::row`].
    fn subscription(
        &self,
        session_no: u64,
        filter: &str,
    ) -> Result<Option<SubscriptionRecord>, StoreError> {
        self.row(&SubscriptionKey { session_no, filter: filter.into() })
    }

    /// The subscriptions of a session.
    fn subscriptions_of(&self, session_no: u64) -> Rows<'_, Self, SubscriptionKey> {
        self.rows(SubscriptionKey::of(session_no))
    }

    /// Every subscription, by session.
    fn subscriptions(&self) -> Rows<'_, Self, SubscriptionKey> {
        self.rows(KeyRange::all())
    }

    /// One queue row.
    ///
    /// # Errors
    /// As [`StoreRows::row`].
    fn queued(&self, key: QueueKey) -> Result<Option<QueueRecord>, StoreError> {
        self.row(&key)
    }

    /// The queue of a session, in the order of delivery.
    fn queue_of(&self, session_no: u64) -> Rows<'_, Self, QueueKey> {
        self.rows(QueueKey::of(session_no))
    }

    /// Every queue, by session.
    fn queues(&self) -> Rows<'_, Self, QueueKey> {
        self.rows(KeyRange::all())
    }

    /// The packet ids of what is in flight of a session.
    fn inflight_of(&self, session_no: u64) -> Rows<'_, Self, InflightKey> {
        self.rows(InflightKey::of(session_no))
    }

    /// The packet ids of what is in flight, by session.
    fn inflight_all(&self) -> Rows<'_, Self, InflightKey> {
        self.rows(KeyRange::all())
    }

    /// The received packet ids of a session.
    fn received_of(&self, session_no: u64) -> Rows<'_, Self, ReceivedKey> {
        self.rows(ReceivedKey::of(session_no))
    }

    /// Whether a session had a message.
    ///
    /// # Errors
    /// As [`StoreRows::row`].
    fn is_seen(&self, session_no: u64, message: MessageId) -> Result<bool, StoreError> {
        self.row(&SeenKey { session_no, message }).map(|record| record.is_some())
    }

    /// The messages a session is marked to have had.
    fn seen_of(&self, session_no: u64) -> Rows<'_, Self, SeenKey> {
        self.rows(SeenKey::of(session_no))
    }

    /// A message.
    ///
    /// # Errors
    /// As [`StoreRows::row`].
    fn message(&self, id: MessageId) -> Result<Option<StoredMessage>, StoreError> {
        self.row(&MessageKey(id))
    }

    /// Every message.
    fn messages(&self) -> Rows<'_, Self, MessageKey> {
        self.rows(KeyRange::all())
    }

    /// The retained message of a topic, or its tombstone.
    ///
    /// # Errors
    /// As [`StoreRows::row`].
    fn retained(&self, topic: &str) -> Result<Option<RetainedRecord>, StoreError> {
        self.row(&RetainedKey(topic.into()))
    }

    /// Every retained message and tombstone, by topic.
    fn retained_all(&self) -> Rows<'_, Self, RetainedKey> {
        self.rows(KeyRange::all())
    }

    /// The last sequence taken from an origin's log; 0 if none was.
    ///
    /// # Errors
    /// As [`StoreRows::row`].
    fn link_in(&self, origin: NodeKey, log_id: u64, class: Class) -> Result<u64, StoreError> {
        let record = self.row(&LinkInKey { origin, log_id, class })?;
        Ok(record.map_or(0, |record| record.last))
    }

    /// What was taken from an origin, by log.
    fn link_in_of(&self, origin: NodeKey) -> Rows<'_, Self, LinkInKey> {
        self.rows(LinkInKey::of(origin))
    }

    /// What was taken from every origin.
    fn links_in(&self) -> Rows<'_, Self, LinkInKey> {
        self.rows(KeyRange::all())
    }

    /// The routes of an origin.
    fn routes_of(&self, origin: NodeKey) -> Rows<'_, Self, RouteKey> {
        self.rows(RouteKey::of(origin))
    }

    /// Every route of every origin.
    fn routes(&self) -> Rows<'_, Self, RouteKey> {
        self.rows(KeyRange::all())
    }

    /// How far an origin's routes are known.
    ///
    /// # Errors
    /// As [`StoreRows::row`].
    fn route_head(&self, origin: NodeKey) -> Result<Option<RouteHeadRecord>, StoreError> {
        self.row(&RouteHeadKey(origin))
    }

    /// How far the routes of every origin are known.
    fn route_heads(&self) -> Rows<'_, Self, RouteHeadKey> {
        self.rows(KeyRange::all())
    }

    /// A registry entry.
    ///
    /// # Errors
    /// As [`StoreRows::row`].
    fn registry(&self, client: &ClientKey) -> Result<Option<RegistryRecord>, StoreError> {
        self.row(&RegistryKey(client.clone()))
    }

    /// Every registry entry.
    fn registry_all(&self) -> Rows<'_, Self, RegistryKey> {
        self.rows(KeyRange::all())
    }

    /// Every message that is published later, in the order in which they are due.
    fn delayed(&self) -> Rows<'_, Self, DelayedKey> {
        self.rows(KeyRange::all())
    }

    /// A member.
    ///
    /// # Errors
    /// As [`StoreRows::row`].
    fn member(&self, node: NodeKey) -> Result<Option<MemberRecord>, StoreError> {
        self.row(&MemberKey(node))
    }

    /// Every member.
    fn members(&self) -> Rows<'_, Self, MemberKey> {
        self.rows(KeyRange::all())
    }
}

impl<S: Store + ?Sized> StoreRows for S {}

/// Rows, read page by page.
///
/// A row that is corrupt comes as [`StoreError::Corrupt`], and those after it follow; any other
/// error is the last item.
#[derive(Debug)]
pub struct Rows<'a, S: ?Sized, K> {
    store: &'a S,
    page: vec::IntoIter<(Bytes, Bytes)>,
    rest: Option<KeyRange>,
    damaged: Option<StoreError>,
    key: PhantomData<fn() -> K>,
}

impl<S: Store + ?Sized, K: Row> Iterator for Rows<'_, S, K> {
    type Item = Result<(K, K::Record), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.page.next() {
                return Some(decode(&key, &value));
            }
            if let Some(error) = self.damaged.take() {
                return Some(Err(error));
            }
            let range = self.rest.take()?;
            match self.store.scan(K::FAMILY, &range, PAGE_ROWS) {
                Ok(page) => {
                    self.page = page.rows.into_iter();
                    self.rest = page.rest;
                    self.damaged = page.damaged;
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

fn decode<K: Row>(key: &[u8], value: &[u8]) -> Result<(K, K::Record), StoreError> {
    let decoded =
        K::decode(key).map_err(|error| StoreError::corrupt_key(K::FAMILY, key, &error))?;
    let record = K::Record::decode(value)
        .map_err(|error| StoreError::corrupt_record(K::FAMILY, key, &error))?;
    Ok((decoded, record))
}
