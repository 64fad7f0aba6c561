//! What is due for sessions that are not in memory.
//!
//! A shard reads the first rows of [`Family::Timer`](verge_storage::Family::Timer) when one is due,
//! and about once a second, since the wall clock it goes by may leap. It takes sessions that are due into
//! memory, where they expire or publish their Wills as any other. After a start it does the same, little by
//! little, with those whose clients were connected when the node went down; in a mesh it tells the
//! homes of all others what is stored of them, since a home may know a later owner; and it counts them.
//!
//! A leap forward of the wall clock is no time without a connection: what was written in this life before
//! it is read as if it were written later. A leap back lets sessions end later by as much.

use std::time::Duration;

use verge_model::{Incarnation, Millis, Now, UnixMillis};
use verge_storage::key::{OpenKey, SessionKey, TimerKey};
use verge_storage::record::SessionState;
use verge_storage::{Family, Key as _, KeyBuf, KeyRange, StoreError, StoreRows};

use super::api::{SessionNo, ShardIndex};
use super::load::readable;
use super::{Shard, Timer};
use crate::parked::Counted;

/// Rows read at once: a page of a store's reader.
const ROWS_AT_ONCE: usize = 256;

/// Names read at once, to be counted.
const NAMES_AT_ONCE: usize = 1_024;

/// How soon the next page is read, if there is more to do: clients come first.
const NEXT_PAGE: Duration = Duration::from_millis(10);

/// How often a shard looks at the clock and the first row, if nothing is due before.
const EVERY: Duration = Duration::from_secs(1);

/// More than clocks are adjusted by while they are steered.
const LEAP_MIN: Duration = Duration::from_secs(10);

/// Most leaps that are told apart; what leaps more often is no clock.
const LEAPS_MAX: usize = 64;

/// How far a shard has come.
#[derive(Debug, Default)]
pub(super) struct Attend {
    armed: Option<Millis>,
    /// The first row that was not looked at.
    next: Option<TimerKey>,
    /// Of those who were connected when the node went down.
    connected: Option<TimerKey>,
    /// The first session whose homes were not told.
    untold: Option<u64>,
    /// The first client that is not counted.
    uncounted: Option<KeyRange>,
    /// The clocks when they were last compared.
    seen: Option<Now>,
    /// When the wall clock leapt in this life, and how far.
    leaps: Vec<(UnixMillis, Duration)>,
}

impl Shard {
    /// Begins with what an earlier life left.
    pub(super) fn begin_attending(&mut self, now: Now) {
        self.note_clock(now);
        self.attend.connected = Some(TimerKey { due: TimerKey::CONNECTED, session_no: 0 });
        self.attend.untold = self.config.mesh.then_some(0);
        self.attend.uncounted = Some(KeyRange::all());
        self.parking.counted(0, Some(KeyBuf::new()));
        self.arm_attending(now.mono);
    }

    /// Something about a session that is not in memory is due then.
    pub(super) fn attend_by(&mut self, due: UnixMillis, now: Now) {
        self.arm_attending(now.mono + due.since(now.wall).min(EVERY));
    }

    /// Looks after the sessions that are not in memory.
    pub(super) fn attend_timeout(&mut self, now: Now) {
        self.attend.armed = None;
        self.note_clock(now);
        match self.attend_all(now) {
            Ok(Some(wait)) => self.arm_attending(now.mono + wait),
            Ok(None) => {}
            Err(error) => {
                self.shared.parked.add(Counted::Unread, 1);
                tracing::error!(%error, "sessions could not be looked after");
                self.arm_attending(now.mono + EVERY);
            }
        }
    }

    /// Reads a page of each kind; returns how soon there is more to do.
    fn attend_all(&mut self, now: Now) -> Result<Option<Duration>, StoreError> {
        let mut more = self.attend_connected(now)?;
        more |= self.tell_homes(now)?;
        more |= self.count()?;
        let next = self.attend_due(now)?;
        Ok(if more { Some(NEXT_PAGE) } else { next })
    }

    /// Those who were connected are parked from now on.
    fn attend_connected(&mut self, now: Now) -> Result<bool, StoreError> {
        let Some(from) = self.attend.connected else { return Ok(false) };
        self.attend.connected = self.attend_page(from, TimerKey::FIRST, now)?;
        Ok(self.attend.connected.is_some())
    }

    /// Takes those into memory that are due; returns when the next are.
    fn attend_due(&mut self, now: Now) -> Result<Option<Duration>, StoreError> {
        let first = TimerKey { due: TimerKey::FIRST, session_no: 0 };
        let from = self.attend.next.unwrap_or(first);
        let to = TimerKey { due: UnixMillis(now.wall.0.saturating_add(1)), session_no: 0 };
        // The clock went back, or the first rows are looked at again.
        let from = if from > to { first } else { from };
        let rest = self.attend_page(from, to.due, now)?;
        self.attend.next = Some(rest.unwrap_or(to));
        if rest.is_some() {
            return Ok(Some(NEXT_PAGE));
        }
        let range = TimerKey::between(to, UnixMillis(u64::MAX));
        let next = self.shared.store().scan(Family::Timer, &range, 1)?.rows;
        let next = next.first().and_then(|(key, _)| TimerKey::decode(key).ok());
        Ok(next.map(|next| next.due.since(now.wall).clamp(Duration::from_millis(1), EVERY)))
    }

    /// Takes those sessions of a page into memory that are this shard's; returns where the next page
    /// begins.
    fn attend_page(
        &mut self,
        from: TimerKey,
        to: UnixMillis,
        now: Now,
    ) -> Result<Option<TimerKey>, StoreError> {
        let (mut bad, mut page) = (0, Vec::new());
        let shared = std::sync::Arc::clone(&self.shared);
        for row in shared.store().timers(from, to).take(ROWS_AT_ONCE) {
            page.extend(readable(row, &mut bad)?);
        }
        shared.parked.add(Counted::Damaged, bad);
        for (key, record) in &page {
            let no = SessionNo(key.session_no);
            let shard = ShardIndex::of_hash(record.client_hash, self.config.count);
            if shard == self.config.index && !self.wake(no, now)? {
                self.turn.batch.delete_timer(key.session_no, key.due);
            }
        }
        let last = page.last().filter(|_| page.len() + bad as usize >= ROWS_AT_ONCE);
        Ok(last.map(|(key, _)| TimerKey { session_no: key.session_no + 1, ..*key }))
    }

    /// Tells the homes of sessions of earlier lives what is stored of them.
    fn tell_homes(&mut self, now: Now) -> Result<bool, StoreError> {
        let Some(from) = self.attend.untold else { return Ok(false) };
        let bytes = |no: u64| SessionKey(no).encode().to_vec().into();
        let range = KeyRange { start: bytes(from), end: Some(bytes(self.shared.life_floor())) };
        let (mut bad, mut page) = (0, Vec::new());
        let shared = std::sync::Arc::clone(&self.shared);
        let mut read = 0;
        for row in shared.store().rows::<SessionKey>(range).take(ROWS_AT_ONCE) {
            read += 1;
            page.extend(readable(row, &mut bad)?);
        }
        shared.parked.add(Counted::Damaged, bad);
        let last = page.last().map(|(key, _)| key.0);
        for (key, header) in page {
            let here = ShardIndex::of(&header.client, self.config.count) == self.config.index;
            let open = header.state == SessionState::Open && header.open_fragments.is_empty();
            let told = header.confirmed_in == shared.incarnation;
            if here && open && !told && self.wake(SessionNo(key.0), now)? {
                self.tell_of(SessionNo(key.0));
            }
        }
        self.attend.untold = last.filter(|_| read == ROWS_AT_ONCE).map(|last| last + 1);
        Ok(self.attend.untold.is_some())
    }

    /// Counts sessions by their clients.
    fn count(&mut self) -> Result<bool, StoreError> {
        let Some(range) = self.attend.uncounted.take() else { return Ok(false) };
        let page = match self.shared.store().scan(Family::Client, &range, NAMES_AT_ONCE) {
            Ok(page) => page,
            Err(error) => {
                self.attend.uncounted = Some(range);
                return Err(error);
            }
        };
        let mut more = 0;
        for (key, value) in &page.rows {
            let (Ok(OpenKey(client)), Some(no)) = (OpenKey::decode(key), number(value)) else {
                continue;
            };
            let here = ShardIndex::of(&client, self.config.count) == self.config.index;
            let away = !self.sessions.contains_key(&no) && !self.parking.is_gone(no);
            more += u64::from(here && away);
        }
        let from = page.rest.as_ref().map(|rest| KeyBuf::from_slice(&rest.start));
        self.parking.counted(more, from);
        self.attend.uncounted = page.rest;
        Ok(self.attend.uncounted.is_some())
    }

    /// Compares the clocks.
    pub(super) fn note_clock(&mut self, now: Now) {
        let Some(seen) = self.attend.seen.replace(now) else { return };
        let passed = now.mono.since(seen.mono);
        let leap = now.wall.since(seen.wall).saturating_sub(passed);
        if leap >= LEAP_MIN && self.attend.leaps.len() < LEAPS_MAX {
            self.attend.leaps.push((seen.wall, leap));
            self.turn.life.leaps += 1;
            self.shared.parked.add(Counted::ClockLeapt, 1);
            tracing::warn!(seconds = leap.as_secs(), "the wall clock leapt forward");
        }
    }

    /// When a connection was lost, by the wall clock as it is now.
    pub(super) fn since(&self, since: UnixMillis, written_in: (Incarnation, u32)) -> UnixMillis {
        let (life, leaps) = written_in;
        // What an earlier life wrote came before every leap of this one.
        let known = if life == self.shared.incarnation { leaps as usize } else { 0 };
        let later = self.attend.leaps.iter().skip(known);
        later.fold(since, |since, (_, leap)| since + *leap)
    }

    fn arm_attending(&mut self, due: Millis) {
        if self.attend.armed.is_some_and(|armed| armed <= due) {
            return;
        }
        if let Some(armed) = self.attend.armed.replace(due) {
            self.timers.remove(&(armed, Timer::Attend));
        }
        self.timers.insert((due, Timer::Attend));
    }
}

fn number(value: &[u8]) -> Option<SessionNo> {
    use verge_storage::Record as _;
    let record = verge_storage::record::OpenRecord::decode(value).ok()?;
    Some(SessionNo(record.session_no))
}
