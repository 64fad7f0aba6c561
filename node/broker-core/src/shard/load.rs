//! Sessions from the store back into memory, one by one, when they are touched.
//!
//! A session is touched by its client, or by its number: a connection, a message for it, another
//! node's question, or something that is due. Reading is a look-up of its number, a look-up of its
//! header, and a bounded scan for each kind of its rows; it happens on the shard's thread, which waits
//! for the disk if the rows are not in the store's memory. A row that is damaged is counted, reported and left
//! out; if the disk cannot be read the session is not known to be there or not, and who asked is told so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use verge_mesh_proto::crdt::sessions::RegistryEntry;
use verge_mesh_proto::handover::{Import, ImportConfig};
use verge_model::{ClientKey, MessageId, Now};
use verge_mqtt_proto::message::queue_bytes;
use verge_mqtt_proto::session::{Entry, InflightState, OrderKey, StreamTag, Subscription, Waiting};
use verge_mqtt_proto::{PacketId, TopicFilter};
use verge_storage::key::{LANE_OWN, QueueKey};
use verge_storage::record::{Held, InflightRecord, QueueRecord, SessionRecord, SessionState};
use verge_storage::{Store, StoreError, StoreRows};

use super::Shard;
use super::api::{SessionNo, ShardIndex};
use super::away::{Unreadable, stored_entry};
use super::claimant::SEEN_BEYOND_LINGER;
use super::due::Due;
use super::giver::REMINDER_FIRST;
use super::moving::Fragment;
use super::replica::Replica;
use super::rows::Stored;
use super::session::{Ownership, Sealed, Session};
use crate::ledger::Opened;
use crate::parked::Counted;
use crate::record::{subscription_from_record, will_from_record};

/// A session as the store has it.
#[derive(Debug)]
pub struct RestoredSession {
    no: u64,
    record: SessionRecord,
    subscriptions: Vec<(TopicFilter, Subscription)>,
    /// Filters of those that were made on a stream other than the control stream.
    on_streams: BTreeSet<TopicFilter>,
    queue: Vec<Waiting>,
    sent: Vec<(PacketId, InflightState, Entry)>,
    /// Rows of debts that cannot be paid.
    unreadable: Vec<QueueKey>,
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

/// Reads what belongs to a session beside its header. Queue rows of this life, which begins with
/// `life`, are left out but for those that are `noted`: who planned them says so to the session. `bad`
/// counts rows that are damaged.
pub(super) fn read<S: Store + ?Sized>(
    store: &S,
    no: u64,
    record: SessionRecord,
    (life, noted): (u64, &[Waiting]),
    bad: &mut u64,
) -> Result<RestoredSession, StoreError> {
    let mut session = RestoredSession {
        no,
        record,
        subscriptions: Vec::new(),
        on_streams: BTreeSet::new(),
        queue: Vec::new(),
        sent: Vec::new(),
        unreadable: Vec::new(),
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
    session.read_queue(store, (life, noted), bad)?;
    Ok(session)
}

impl RestoredSession {
    /// Reads the places in its queue, and what is in flight.
    fn read_queue<S: Store + ?Sized>(
        &mut self,
        store: &S,
        (life, noted): (u64, &[Waiting]),
        bad: &mut u64,
    ) -> Result<(), StoreError> {
        let mut inflight = BTreeMap::new();
        for row in store.inflight_of(self.no) {
            let Some((key, record)) = readable(row, bad)? else { continue };
            inflight.insert(key.0, record);
        }
        for row in store.queue_of(self.no) {
            let Some((key, record)) = readable(row, bad)? else { continue };
            if key.lane == LANE_OWN && key.seq >= life {
                break;
            }
            let order = OrderKey { lane: key.lane, seq: key.seq };
            let Some((id, state)) = inflight.remove(&key).and_then(state_of) else {
                let bytes = match &record.held {
                    Held::Here(message) => queue_bytes(&message.topic, &message.payload),
                    Held::Row { bytes, .. } => *bytes as usize,
                };
                let share = record.share.is_some();
                self.queue.push(Waiting { class: record.class, order, bytes, share });
                continue;
            };
            self.read_sent(store, key, (id, state), record, bad)?;
        }
        for waiting in noted {
            let OrderKey { lane, seq } = waiting.order;
            let key = QueueKey { session_no: self.no, lane, seq };
            let Some(sent) = inflight.remove(&key).and_then(state_of) else {
                self.queue.push(*waiting);
                continue;
            };
            match readable(store.queued(key), bad)?.flatten() {
                Some(record) => self.read_sent(store, key, sent, record, bad)?,
                None => self.unreadable.push(key),
            }
        }
        Ok(())
    }

    /// Reads a message that is in flight.
    fn read_sent<S: Store + ?Sized>(
        &mut self,
        store: &S,
        key: QueueKey,
        (id, state): (PacketId, InflightState),
        record: QueueRecord,
        bad: &mut u64,
    ) -> Result<(), StoreError> {
        let order = OrderKey { lane: key.lane, seq: key.seq };
        match stored_entry(store, order, record) {
            Ok(entry) => self.sent.push((id, state, Entry { marked: true, ..entry })),
            Err(Unreadable::Store(error)) => return Err(error),
            Err(unreadable) => {
                damaged(&unreadable, bad);
                self.unreadable.push(key);
            }
        }
        Ok(())
    }
}

fn state_of(record: InflightRecord) -> Option<(PacketId, InflightState)> {
    let state = match record.released {
        true => InflightState::Released,
        false => InflightState::Published,
    };
    Some((PacketId::new(record.packet_id)?, state))
}

/// The row, or nothing if this one is damaged.
pub(super) fn readable<T>(
    row: Result<T, StoreError>,
    bad: &mut u64,
) -> Result<Option<T>, StoreError> {
    match row {
        Ok(row) => Ok(Some(row)),
        Err(error @ StoreError::Corrupt { .. }) => {
            damaged(&error, bad);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Counts a row that is left out.
pub(super) fn damaged(error: &dyn std::fmt::Display, bad: &mut u64) {
    *bad += 1;
    tracing::error!(%error, "a stored row was left out");
}

impl Shard {
    /// The session this node owns for a client, if any, in memory.
    ///
    /// # Errors
    /// Whether there is one could not be read.
    pub(super) fn find(
        &mut self,
        client: &ClientKey,
        now: Now,
    ) -> Result<Option<SessionNo>, StoreError> {
        if let Some(no) = self.open_of(client) {
            return Ok(Some(no));
        }
        let mut bad = 0;
        let found = readable(self.shared.store().open_session(client), &mut bad)?.flatten();
        self.shared.parked.add(Counted::Damaged, bad);
        let Some(no) = found.map(SessionNo) else { return Ok(None) };
        // A log on its way out may be named still, in a batch that is under way.
        if self.sessions.contains_key(&no) || !self.wake(no, now)? {
            return Ok(None);
        }
        Ok(self.open_of(client))
    }

    /// The same, for those who ask again: what cannot be read is not there for them now.
    pub(super) fn found(&mut self, client: &ClientKey, now: Now) -> Option<SessionNo> {
        self.find(client, now).unwrap_or_else(|error| {
            self.shared.parked.add(Counted::Unread, 1);
            tracing::error!(%error, "a session could not be read");
            None
        })
    }

    /// Whether a session of this shard is in memory, which it is from now on if it is stored and
    /// this node's.
    ///
    /// # Errors
    /// It could not be read.
    pub(super) fn wake(&mut self, no: SessionNo, now: Now) -> Result<bool, StoreError> {
        if self.sessions.contains_key(&no) {
            return Ok(true);
        }
        if self.parking.is_gone(no) {
            return Ok(false);
        }
        self.note_clock(now);
        let shared = Arc::clone(&self.shared);
        let store = shared.store();
        let mut bad = 0;
        let header = readable(store.session(no.0), &mut bad)?.flatten();
        let Some(record) = header.filter(|header| {
            let shard = ShardIndex::of(&header.client, self.config.count);
            header.state == SessionState::Open && shard == self.config.index
        }) else {
            shared.parked.add(Counted::Damaged, bad);
            self.forget_slot(no);
            return Ok(false);
        };
        let client = record.client.clone();
        let noted = self.parking.slots.noted(no).unwrap_or_default();
        let restored = read(store, no.0, record, (shared.first_queue_seq(), &noted), &mut bad)?;
        shared.parked.add(Counted::Damaged, bad);
        // Its end, or that it was given away, was not stored, and the client's next session was.
        let named = readable(store.open_session(&client), &mut bad)?.flatten();
        if self.open_of(&client).is_some() || named.is_some_and(|named| named != no.0) {
            self.discard_rows(&restored);
            self.forget_slot(no);
            return Ok(false);
        }
        self.take_back(restored, now);
        self.parking.woken(&client);
        shared.parked.add(Counted::Woken, 1);
        Ok(true)
    }

    /// Ends a session that another one of its client has come after.
    fn discard_rows(&mut self, restored: &RestoredSession) {
        let no = SessionNo(restored.no);
        tracing::warn!(session = no.0, "a session that ended is forgotten");
        for (filter, _) in &restored.subscriptions {
            self.unroute(no, StreamTag::CONTROL, filter);
        }
        self.turn.batch.delete_session_rows(no.0);
        if let Some(due) = restored.record.attention() {
            self.turn.batch.delete_timer(no.0, due);
        }
        self.note_gone(no);
    }

    /// Whether what is known of a session is known now, for a message it is owed. If not, the message
    /// stays in its row, for the next life of the node.
    pub(super) fn wakes_for(&mut self, no: SessionNo, now: Now) -> bool {
        let woken = self.wake(no, now);
        if let Err(error) = &woken {
            self.shared.parked.add(Counted::Unread, 1);
            tracing::error!(%error, "a session could not be read for a message it is owed");
        }
        woken.is_ok()
    }

    /// Takes a session into memory.
    pub(super) fn take_back(&mut self, restored: RestoredSession, now: Now) -> SessionNo {
        let RestoredSession { no, record, subscriptions, on_streams, queue, sent, .. } = restored;
        let RestoredSession { received, received_on_streams, seen, unreadable, .. } = restored;
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
        let sealed = record.state != SessionState::Open;
        session.stored = Stored { named: !sealed, header: true };
        session.timer = record.attention().into();
        session.leave.failures = self.parking.failures();
        session.subscriptions = subscriptions.into_iter().collect();
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
        // What is noted of it was taken on before.
        let owed = self.parking.slots.take(no);
        for Waiting { class, order, bytes, share } in queue {
            if owed.is_none() {
                self.shared.ledger.open(Opened::Recovered, class, 1);
            }
            session.outbound.push_away(class, order, bytes, share);
        }
        for (id, state, entry) in sent {
            if owed.is_none() {
                self.shared.ledger.open(Opened::Recovered, entry.message.class, 1);
            }
            match session.outbound.inflight(id).is_none() {
                true => session.outbound.push_inflight(id, entry, state),
                false => session.outbound.push(entry),
            }
        }
        if let Some(owed) = owed {
            self.settle_lost(&owed, &session.outbound.held());
        }
        for key in unreadable {
            self.turn.batch.delete_queue(key);
            self.turn.batch.delete_inflight(key);
        }
        let moves = sealed || !session.moving.fragments.is_empty();
        let moves = moves || session.moving.seen.until.is_some();
        if self.config.mesh && record.confirmed_in != self.shared.incarnation {
            session.moving.change().unconfirmed = true;
        }
        self.take_times(&mut session, &record, now);
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
        if moves {
            self.recall(no, now);
            self.note_recalled(no, now);
        }
        self.may_leave_later(no, now);
        self.arm(no);
        no
    }

    /// A delivery is stored before its session takes note of it.
    fn note_recalled(&mut self, no: SessionNo, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let owed = session.outbound.after(OrderKey::default());
        let owed: Vec<MessageId> = owed.map(|(entry, _)| entry.message.id).collect();
        for id in owed {
            if session.moving.note_seen(id) {
                self.turn.batch.put_seen(no.0, id, now.wall);
            }
        }
    }

    /// When a session that is read has its dues.
    fn take_times(&mut self, session: &mut Session, record: &SessionRecord, now: Now) {
        // What the client had when the node went down is over: its connection was lost then.
        let since = record.disconnected_at.map(|since| self.since(since, record.written_in));
        session.disconnected_at = since.unwrap_or(now.wall).into();
        let away = since.map_or(Duration::ZERO, |since| now.wall.since(since));
        let left = |secs: u32| now.mono + Duration::from_secs(u64::from(secs)).saturating_sub(away);
        session.expires_due = session.expiry_secs.map(left).into();
        if let Some(will) = &session.will {
            let delay = will.delay_secs.min(session.expiry_secs.unwrap_or(u32::MAX));
            session.will_due = left(delay).into();
        }
        if since != record.disconnected_at || since.is_none() && session.moving.fragments.is_empty()
        {
            self.turn.put_session(session);
        }
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
