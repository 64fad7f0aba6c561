//! What only the store has of a session's queue, and how it comes back.
//!
//! A session keeps in memory what its client is about to be sent. The rest are places; their rows
//! are read a page at a time, on the shard's thread, when they are next
//! ([`Outbound`](verge_mqtt_proto::session::Outbound)). A row is there when its delivery is taken
//! on, unless its promise is `memory`: then it may still be on its way to the store, and is looked
//! for again.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use verge_model::{Millis, Now};
use verge_mqtt_proto::QoS;
use verge_mqtt_proto::message::Message;
use verge_mqtt_proto::session::{Entry, OrderKey, Stored, StreamTag, Wanted};
use verge_storage::key::QueueKey;
use verge_storage::record::{Held, QueueRecord, Record as _};
use verge_storage::{Family, Key as _, Store, StoreError, StoreRows as _};

use super::api::SessionNo;
use super::redeliver::share_of;
use super::{Shard, Timer};
use crate::drops::Dropped;
use crate::ledger::{DropReason, Settled};
use crate::record::{BadRecord, message_from_afar, message_from_record};

/// Most entries read at a time: what a client takes before it is asked for more, and some tens of
/// microseconds from a cache.
const PAGE_ENTRIES: usize = 256;

/// A page ends with the entry that reaches this size.
const PAGE_BYTES: usize = 256 * 1024;

/// Rows read in a row where those that are wanted lie among others.
const ROWS_AT_ONCE: usize = 64;

/// When a row that is not there yet is looked for again.
const AGAIN: Duration = Duration::from_millis(50);

/// How long a row may be on its way to the store; after that it is lost.
const ON_ITS_WAY_MAX: Duration = Duration::from_secs(10);

/// A row that was not found, and since when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Late {
    order: OrderKey,
    since: Millis,
}

/// What became of a row.
enum Found {
    Entry(Entry),
    /// It cannot be read, now or later.
    Lost(String),
}

/// Rows that were read, and whether the one after them is not there.
struct Page {
    rows: Vec<(OrderKey, Found)>,
    missing: Option<OrderKey>,
}

const HIDDEN: &str = "it is in a part of the disk that cannot be read";

impl Shard {
    /// Reads what a session's client is to be sent next, if only the store has it. Whether there is
    /// something to send now.
    pub(super) fn refill(&mut self, no: SessionNo, now: Now) -> bool {
        let session = self.sessions.get(&no);
        let Some(wanted) = session.and_then(|session| session.outbound.wants(PAGE_ENTRIES)) else {
            return false;
        };
        self.fetch(no, &wanted, now)
    }

    /// Reads all that only the store has of a session, and keeps it in memory from now on: it goes to
    /// another node or member, or is compared with what comes from one.
    pub(super) fn recall(&mut self, no: SessionNo, now: Now) {
        loop {
            let Some(session) = self.sessions.get_mut(&no) else { return };
            let Some(wanted) = session.outbound.any_away(PAGE_ENTRIES) else {
                return session.outbound.keep_near();
            };
            if !self.fetch(no, &wanted, now) {
                return;
            }
        }
    }

    /// Lets a session that nobody is connected to forget what the store has.
    pub(super) fn put_away(&mut self, no: SessionNo) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let stays = session.conn.is_some()
            || session.is_sealed()
            || session.moving.seen.until.is_some()
            || !session.moving.fragments.is_empty();
        if !stays {
            session.outbound.put_away();
        }
    }

    /// Looks for a row again.
    pub(super) fn late_timeout(&mut self, no: SessionNo, now: Now) {
        match self.sessions.get(&no) {
            Some(session) if session.conn.is_some() => self.pump(no, now),
            Some(_) => {}
            None => {
                self.late.remove(&no);
            }
        }
    }

    /// Reads rows into a session's queue; whether some came, or will not come.
    fn fetch(&mut self, no: SessionNo, wanted: &Wanted, now: Now) -> bool {
        let page = match read(self.shared.store(), no, wanted) {
            Ok(page) => page,
            Err(error) => {
                tracing::error!(session = no.0, %error, "a queue cannot be read; it is tried again");
                self.timers.insert((now.mono + AGAIN, Timer::Late(no)));
                return false;
            }
        };
        let mut settled = !page.rows.is_empty();
        for (order, found) in page.rows {
            let Some(session) = self.sessions.get_mut(&no) else { return false };
            match found {
                Found::Entry(entry) => session.outbound.take_back(entry),
                Found::Lost(why) => self.lose(no, wanted, order, &why),
            }
        }
        if let Some(order) = page.missing
            && !settled
        {
            settled = self.is_lost(no, order, now);
            if settled {
                self.lose(no, wanted, order, "its row is missing");
            }
        }
        if settled {
            self.late.remove(&no);
        }
        settled
    }

    /// Whether a row that is missing is lost; otherwise it is looked for again.
    fn is_lost(&mut self, no: SessionNo, order: OrderKey, now: Now) -> bool {
        let late = self.late.entry(no).or_insert(Late { order, since: now.mono });
        if late.order != order {
            *late = Late { order, since: now.mono };
        }
        let lost = now.mono >= late.since + ON_ITS_WAY_MAX;
        if !lost {
            self.timers.insert((now.mono + AGAIN, Timer::Late(no)));
        }
        lost
    }

    /// Ends a debt whose row cannot be read.
    fn lose(&mut self, no: SessionNo, wanted: &Wanted, order: OrderKey, why: &str) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        tracing::error!(
            client_id = %session.client,
            session = no.0,
            lane = order.lane,
            seq = order.seq,
            why,
            "a queued message is lost: its row is damaged"
        );
        session.outbound.lose(wanted.class, order);
        let dropped = DropReason::Damaged;
        self.shared.ledger.settle(Settled::Dropped(dropped), wanted.class, 1);
        let client_id = &session.client.client_id;
        // What it was about is lost with it.
        self.shared.drops.note(
            Dropped::Debt(dropped),
            wanted.class,
            client_id,
            "",
            QoS::AtLeastOnce,
        );
        let key = QueueKey { session_no: no.0, lane: order.lane, seq: order.seq };
        self.turn.batch.delete_queue(key);
    }
}

/// Reads the rows that are wanted, up to the bounds of a page.
fn read(store: &dyn Store, no: SessionNo, wanted: &Wanted) -> Result<Page, StoreError> {
    let mut page = Page { rows: Vec::with_capacity(wanted.seqs.len()), missing: None };
    let mut bytes = 0;
    let mut left = wanted.seqs.as_slice();
    let key = |seq| QueueKey { session_no: no.0, lane: wanted.lane, seq };
    while let Some(first) = left.first()
        && bytes < PAGE_BYTES
    {
        let range = QueueKey::lane_of(no.0, wanted.lane);
        let range = range.from(&key(*first).encode());
        let found = store.scan(Family::Queue, &range, left.len().min(ROWS_AT_ONCE))?;
        let before = left.len();
        // Where rows cannot be read, those up to the next that can are lost.
        let last = found.rows.last().map(|(key, _)| key.clone());
        let goes_on = found.rest.as_ref().map(|rest| &rest.start[..]);
        let hides = |seq: u64| {
            let key = key(seq).encode();
            found.damaged.is_some()
                && last.as_ref().is_none_or(|last| key[..] > **last)
                && goes_on.is_none_or(|on| key[..] < *on)
        };
        for (bytes_of_key, value) in found.rows {
            let Some(next) = left.first() else { break };
            let Ok(found) = QueueKey::decode(&bytes_of_key) else { continue };
            if found.seq < *next {
                continue;
            }
            if found.seq > *next {
                break;
            }
            left = &left[1..];
            bytes += value.len();
            let order = OrderKey { lane: found.lane, seq: found.seq };
            page.rows.push((order, entry(store, order, &value)?));
            if bytes >= PAGE_BYTES {
                break;
            }
        }
        while let Some(seq) = left.first()
            && hides(*seq)
        {
            let order = OrderKey { lane: wanted.lane, seq: *seq };
            page.rows.push((order, Found::Lost(HIDDEN.into())));
            left = &left[1..];
        }
        if left.len() == before {
            page.missing = left.first().map(|seq| OrderKey { lane: wanted.lane, seq: *seq });
            break;
        }
    }
    Ok(page)
}

/// The entry of a row.
fn entry(store: &dyn Store, order: OrderKey, value: &[u8]) -> Result<Found, StoreError> {
    let record = match QueueRecord::decode(value) {
        Ok(record) => record,
        Err(error) => return Ok(Found::Lost(error.to_string())),
    };
    match stored_entry(store, order, record) {
        Ok(entry) => Ok(Found::Entry(entry)),
        Err(Unreadable::Store(error)) => Err(error),
        Err(error) => Ok(Found::Lost(error.to_string())),
    }
}

/// Why a row is no entry.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// A row is damaged.
    #[error(transparent)]
    Row(StoreError),
    /// The message is none.
    #[error(transparent)]
    Message(BadRecord),
    /// The row of the message is not there.
    #[error("the row of its message is missing")]
    Missing,
    /// The store cannot be read.
    #[error(transparent)]
    Store(StoreError),
}

/// The entry of a record, not in flight.
pub(super) fn stored_entry<S: Store + ?Sized>(
    store: &S,
    order: OrderKey,
    record: QueueRecord,
) -> Result<Entry, Unreadable> {
    let (message, stored): (Arc<Message>, Stored) = match record.held {
        Held::Here(message) => {
            let message = message_from_record(message).map_err(Unreadable::Message)?;
            (Arc::new(message), Stored::Whole)
        }
        Held::Row { row, .. } => {
            let found = store.message(row).map_err(|error| {
                let damaged = matches!(error, StoreError::Corrupt { .. });
                if damaged { Unreadable::Row(error) } else { Unreadable::Store(error) }
            })?;
            let found = found.ok_or(Unreadable::Missing)?;
            let message = message_from_afar(found.message, row).map_err(Unreadable::Message)?;
            (message, Stored::ByName)
        }
    };
    Ok(Entry {
        order,
        qos: QoS::from_bits(record.qos).unwrap_or(message.qos),
        retain: record.retain,
        subscription_ids: SmallVec::from_vec(record.subscription_ids),
        // Its stream is over, or it was the control stream.
        tag: StreamTag::CONTROL,
        stored,
        marked: false,
        share: share_of(record.share),
        message,
    })
}
