//! Sessions leave memory some seconds after their connections.
//!
//! ```text
//!  connected ──connection lost──▶ parked in memory ──park_after──▶ all it wrote is stored? ──▶ on disk
//!      ▲                                │    ▲                              │ touched meanwhile      │
//!      └──────────── CONNECT ───────────┘    └──────────────────────────────┴──────── touched ──────┘
//! ```
//!
//! What is left in memory of a session on disk is its place in the router. Only a session leaves of which
//! the disk says all: nothing is on its way between nodes, nothing is remembered for a moment, and no
//! batch of the shard failed while it was in memory.

use std::collections::VecDeque;

use rustc_hash::FxHashSet;
use verge_model::{ClientKey, Millis, Now};
use verge_storage::key::OpenKey;
use verge_storage::{Key as _, KeyBuf, Promise};

use super::api::SessionNo;
use super::slot::Slots;
use super::turn::Effect;
use super::{Shard, Timer};
use crate::parked::Counted;

/// Sessions that leave in one turn, at most: each is some microseconds' work.
const LEAVING_AT_ONCE: usize = 256;

/// Where a session is on its way out of memory.
#[derive(Debug, Default)]
pub(in crate::shard) struct Leave {
    /// Whether it is among those that may leave later.
    listed: bool,
    /// Whether nobody changed it since the shard began to wait for what was written of it.
    waits: bool,
    /// How many batches of the shard had failed when it came into memory.
    pub(in crate::shard) failures: u16,
}

impl Leave {
    /// It is about to be changed.
    pub(in crate::shard) fn stop(&mut self) {
        self.waits = false;
    }
}

/// What a shard keeps of the sessions that are not in its memory, and those that may leave.
#[derive(Debug, Default)]
pub(super) struct Parking {
    /// Sessions without connection, by when they may leave. Each is there once.
    list: VecDeque<(Millis, SessionNo)>,
    /// When the first of them is looked at.
    armed: Option<Millis>,
    /// Sessions that ended whose rows can be read still. Bounded by the batches under way; those whose
    /// deletion failed stay, for as long as the disk takes nothing.
    gone: FxHashSet<SessionNo>,
    /// Batches that failed.
    failures: u16,
    /// Sessions of this shard that are stored and not in memory, as far as they are counted.
    parked: u64,
    /// Clients from here on are not counted yet.
    uncounted: Option<KeyBuf>,
    /// What they are owed.
    pub(super) slots: Slots,
}

impl Parking {
    /// Whether a session has ended.
    pub(super) fn is_gone(&self, no: SessionNo) -> bool {
        self.gone.contains(&no)
    }

    /// How many batches of the shard failed.
    pub(super) fn failures(&self) -> u16 {
        self.failures
    }

    /// How many sessions are stored and not in memory.
    pub(super) fn parked(&self) -> u64 {
        self.parked
    }

    /// A session came into memory.
    pub(super) fn woken(&mut self, client: &ClientKey) {
        if self.is_counted(client) {
            self.parked = self.parked.saturating_sub(1);
        }
    }

    /// More sessions are known, of clients up to here; `None`: all are.
    pub(super) fn counted(&mut self, more: u64, uncounted: Option<KeyBuf>) {
        self.parked += more;
        self.uncounted = uncounted;
    }

    fn left(&mut self, client: &ClientKey) {
        if self.is_counted(client) {
            self.parked += 1;
        }
    }

    fn is_counted(&self, client: &ClientKey) -> bool {
        let Some(uncounted) = &self.uncounted else { return true };
        OpenKey(client.clone()).encode() < *uncounted
    }
}

impl Shard {
    /// A session has no connection: it is looked at later whether it may leave memory.
    pub(super) fn may_leave_later(&mut self, no: SessionNo, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if session.is_sealed() || std::mem::replace(&mut session.leave.listed, true) {
            return;
        }
        self.parking.list.push_back((now.mono + self.config.park_after, no));
        self.arm_leaving();
    }

    /// Looks at those that were without a connection for long enough.
    pub(super) fn leave_timeout(&mut self, now: Now) {
        self.parking.armed = None;
        let mut leaving = Vec::new();
        for _ in 0..LEAVING_AT_ONCE {
            let Some((due, no)) = self.parking.list.front().copied() else { break };
            if due > now.mono {
                break;
            }
            self.parking.list.pop_front();
            let Some(session) = self.sessions.get_mut(&no) else { continue };
            session.leave.listed = false;
            if session.conn.is_some() || session.is_sealed() {
                continue;
            }
            session.tidy(now);
            if !self.may_leave(no, now) {
                self.may_leave_later(no, now);
            } else if let Some(session) = self.sessions.get_mut(&no) {
                session.leave.waits = true;
                leaving.push(no);
            }
        }
        if !leaving.is_empty() {
            // It is not known to be readable before it is said to be.
            self.turn.promise(Promise::Buffered);
            self.turn.when_durable(Effect::Leave(leaving));
        }
        self.arm_leaving();
    }

    /// Whether the store says all there is of a session, once what is written is stored.
    fn may_leave(&self, no: SessionNo, now: Now) -> bool {
        let Some(session) = self.sessions.get(&no) else { return false };
        let settled = session.conn.is_none() && session.pending.is_none() && session.is_durable();
        let stored = session.stored.named && session.leave.failures == self.parking.failures;
        let dues = [session.will_due, session.expires_due];
        let soon = now.mono + self.config.park_after;
        settled
            && stored
            && session.moving.is_at_rest()
            && session.is_on_disk()
            && dues.iter().all(|due| due.at().is_none_or(|at| at > soon))
            && !self.is_slow(no)
    }

    /// What was written of these can be read: they leave memory, unless they were touched.
    pub(super) fn leave(&mut self, sessions: Vec<SessionNo>, now: Now) {
        for no in sessions {
            match self.sessions.get(&no) {
                Some(session) if session.leave.waits => self.forget(no, now),
                Some(session) if session.conn.is_none() => self.may_leave_later(no, now),
                Some(_) | None => {}
            }
        }
    }

    /// They stay: what was written of them may not be there.
    pub(super) fn stay(&mut self, sessions: Vec<SessionNo>, now: Now) {
        for no in sessions {
            self.may_leave_later(no, now);
        }
    }

    fn forget(&mut self, no: SessionNo, now: Now) {
        let Some(session) = self.sessions.remove(&no) else { return };
        self.open.remove(&session.client, no);
        if let Some(armed) = session.armed.at() {
            self.timers.remove(&(armed, Timer::Session(no)));
        }
        if !session.outbound.is_empty() {
            let life = self.shared.first_queue_seq();
            self.parking.slots.insert(no, &session.outbound.waiting(), life);
        }
        self.parking.left(&session.client);
        self.shared.parked.add(Counted::Parked, 1);
        if let Some(due) = session.timer.at() {
            self.attend_by(due, now);
        }
    }

    /// A session ended; until its rows are deleted they can be read, and mean nothing.
    pub(super) fn note_gone(&mut self, no: SessionNo) {
        self.parking.gone.insert(no);
        self.turn.promise(Promise::Buffered);
        self.turn.when_durable(Effect::Gone(no));
    }

    /// The rows of a session that ended are deleted.
    pub(super) fn is_over(&mut self, no: SessionNo) {
        self.parking.gone.remove(&no);
    }

    /// A batch was not stored: what it said of sessions may be known in memory only.
    pub(super) fn note_unstored(&mut self) {
        self.parking.failures = self.parking.failures.wrapping_add(1);
    }

    fn arm_leaving(&mut self) {
        let Some((due, _)) = self.parking.list.front().copied() else { return };
        if self.parking.armed.is_some_and(|armed| armed <= due) {
            return;
        }
        if let Some(armed) = self.parking.armed.replace(due) {
            self.timers.remove(&(armed, Timer::Leave));
        }
        self.timers.insert((due, Timer::Leave));
    }
}
