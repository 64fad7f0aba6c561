//! Publishers are slowed by not reading their sockets while a subscriber's queue has little room
//! ([`Pressure`](crate::pressure::Pressure)).
//!
//! The shard of the subscriber says when its queue is half full and when it has room again; the
//! shard of a publisher sees that with the next PUBLISH, and reads neither this nor more of its client
//! until it is told. A client whose own queue is half full is not held, since its acknowledgements come by
//! the same connection: so no circle of clients waits for itself. Nor does a message of class
//! `safety` hold anybody.

use std::collections::BTreeMap;
use std::time::Duration;

use verge_model::{Class, Millis, Now};
use verge_mqtt_proto::QoS;

use super::api::{ConnId, Mail, Output, SessionNo, ShardIndex};
use super::{Shard, Timer};
use crate::pressure::Slow;
use crate::topics::Topic;

/// How long a session that was given up is not waited for again, at least: who keeps others waiting
/// does so for a small part of the time.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// Who does not keep up, and who waits, of this shard.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// Sessions that do not keep up; until when they are awaited, or given up at least.
    slow: BTreeMap<SessionNo, (Slow, Millis)>,
    /// Connections that wait, by the session they wait for. Each waits once.
    held: BTreeMap<SessionNo, Vec<ConnId>>,
}

impl Holds {
    /// Whether everybody keeps up.
    pub(super) fn is_clear(&self) -> bool {
        self.slow.is_empty()
    }
}

impl Shard {
    /// The session for which a PUBLISH has to wait, if there is one.
    pub(super) fn awaited_by(
        &self,
        publisher: SessionNo,
        topic: &Topic,
        qos: QoS,
    ) -> Option<SessionNo> {
        let pressure = self.shared.router.pressure();
        let owed = qos != QoS::AtMostOnce && topic.rules.class != Class::Safety;
        if !owed || !pressure.is_any() {
            return None;
        }
        let owed = topic.matches.locals.iter().filter(|found| found.qos != QoS::AtMostOnce);
        pressure.awaited(publisher, owed.map(|found| found.session))
    }

    /// Reads no more of a client until this session has room.
    pub(super) fn hold(&mut self, id: ConnId, no: SessionNo) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !std::mem::replace(&mut conn.held, true) {
            self.holds.held.entry(no).or_default().push(id);
            self.shared.router.pressure().count_held();
        }
    }

    /// Half of a session's queue is full.
    pub(super) fn note_filling(&mut self, no: SessionNo, now: Now) {
        let longest = self.config.terms.publisher_hold_max;
        if longest.is_zero() || self.holds.slow.contains_key(&no) {
            return;
        }
        let Some(session) = self.sessions.get(&no).filter(|session| !session.is_sealed()) else {
            return;
        };
        // What is owed to a client that is away waits for it, up to the bound.
        let Some(conn) = session.conn else { return };
        let due = now.mono + longest;
        self.holds.slow.insert(no, (Slow::Awaited, due));
        self.timers.insert((due, Timer::Slow(no)));
        self.shared.router.pressure().set(no, Slow::Awaited);
        self.free(conn);
    }

    /// A session is owed less than before, or its connection is lost.
    pub(super) fn note_drained(&mut self, no: SessionNo, now: Now) {
        let Some((how, due)) = self.holds.slow.get(&no).copied() else { return };
        let session = self.sessions.get(&no).filter(|session| !session.is_sealed());
        let is_slow = session.is_some_and(|session| match how {
            Slow::Awaited => session.conn.is_some() && !session.outbound.has_room(),
            Slow::GivenUp => due > now.mono || !session.outbound.has_room(),
        });
        if !is_slow {
            self.holds.slow.remove(&no);
            self.timers.remove(&(due, Timer::Slow(no)));
            self.shared.router.pressure().clear(no);
            self.relieve(no);
        }
    }

    /// A session was awaited, or given up, long enough.
    pub(super) fn slow_timeout(&mut self, no: SessionNo, now: Now) {
        self.note_drained(no, now);
        let Some(slow) = self.holds.slow.get_mut(&no) else { return };
        let due = now.mono + GIVEN_UP;
        let before = std::mem::replace(slow, (Slow::GivenUp, due));
        self.timers.insert((due, Timer::Slow(no)));
        if before.0 == Slow::Awaited {
            self.shared.router.pressure().set(no, Slow::GivenUp);
            self.relieve(no);
        }
    }

    /// Nobody waits for a session any more.
    fn relieve(&mut self, no: SessionNo) {
        self.relieved(no);
        for index in (0..self.config.count).map(ShardIndex) {
            if index != self.config.index {
                let mail = Mail::Relieved(no);
                self.turn.outputs.push_back(Output::Mail { to: index, mail });
            }
        }
    }

    /// Whether a session does not keep up, or did not a moment ago.
    pub(super) fn is_slow(&self, no: SessionNo) -> bool {
        self.holds.slow.contains_key(&no)
    }

    /// A session of some shard is waited for no longer: those who did are read again.
    pub(super) fn relieved(&mut self, no: SessionNo) {
        for conn in self.holds.held.remove(&no).unwrap_or_default() {
            if let Some(state) = self.conns.get_mut(&conn) {
                state.held = false;
                self.turn.outputs.push_back(Output::Feed(conn));
                self.feed_streams(conn);
            }
        }
    }

    /// A connection that is held is read again, or gone.
    pub(super) fn free(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id) {
            if !std::mem::take(&mut conn.held) {
                return;
            }
            self.turn.outputs.push_back(Output::Feed(id));
            self.feed_streams(id);
        }
        self.holds.held.retain(|_, conns| {
            conns.retain(|conn| *conn != id);
            !conns.is_empty()
        });
    }

    /// Panics if a documented relation between the parts does not hold.
    pub(super) fn check_holds(&self) {
        for (no, (how, _)) in &self.holds.slow {
            assert_eq!(self.shared.router.pressure().get(*no), Some(*how));
            let session = &self.sessions[no];
            assert!(*how == Slow::GivenUp || session.conn.is_some());
            let held = session.conn.and_then(|conn| self.conns.get(&conn));
            assert!(held.is_none_or(|conn| !conn.held), "who does not keep up is read");
        }
        let held = self.holds.held.values().flatten();
        assert!(held.clone().all(|conn| self.conns.get(conn).is_some_and(|conn| conn.held)));
        assert_eq!(held.count(), self.conns.values().filter(|conn| conn.held).count());
    }
}
