//! The end of connections and sessions, Wills, and what is due when.

use std::time::Duration;

use verge_model::{ClientKey, Now};
use verge_mqtt_proto::session::StreamTag;
use verge_mqtt_proto::{Disconnect, ReasonCode};
use verge_storage::Promise;

use super::Shard;
use super::api::{ConnId, HubMail, Output, SessionNo};
use super::connection::Phase;
use super::due::Due;
use super::session::{Ownership, Sealed};
use crate::debts;
use crate::ledger::Settled;

/// "If the Session Expiry Interval is 0xFFFFFFFF, the Session does not expire." (3.14.2.2.2)
const NEVER_EXPIRES: u32 = u32::MAX;

/// How long after a session's routes went a delivery planned before may still be under way between
/// the threads of this node.
const CLOSING: Duration = Duration::from_secs(1);

impl Shard {
    /// The transport of a connection is gone, or goes: the client did not say DISCONNECT.
    pub(super) fn connection_lost(&mut self, id: ConnId, now: Now) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (phase, client) = (conn.phase, conn.client.clone());
        self.drop_connection(id);
        match phase {
            Phase::Fresh | Phase::Authenticating => {}
            Phase::Serving(no) => self.detach(no, id, true, now),
            Phase::Waiting => {
                let no = client.and_then(|client| self.open_of(&client));
                if let Some(no) = no {
                    self.detach(no, id, true, now);
                }
            }
        }
    }

    /// DISCONNECT (3.14).
    pub(super) fn handle_disconnect(&mut self, id: ConnId, packet: &Disconnect<'_>, now: Now) {
        let Some(no) = self.session_of(id) else { return self.connection_lost(id, now) };
        if let Some(session) = self.sessions.get_mut(&no) {
            if packet.reason != ReasonCode::DisconnectWithWill {
                // "the Will Message MUST be removed" [MQTT-3.14.4-3]
                session.will = None;
            }
            if let Some(asked) = packet.session_expiry_interval {
                let granted = match self.config.session_expiry_secs_max {
                    Some(max) => Some(asked.min(max)),
                    None => (asked != NEVER_EXPIRES).then_some(asked),
                };
                session.expiry_secs = granted;
            }
        }
        self.event_disconnected(id, "normal", now);
        self.drop_connection(id);
        self.detach(no, id, true, now);
    }

    /// A session loses its connection: it ends, or is parked.
    fn detach(&mut self, no: SessionNo, id: ConnId, will_counts: bool, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if session.pending.as_ref().is_some_and(|pending| pending.conn == id) {
            session.pending = None;
            return self.park(no, now);
        }
        if session.conn != Some(id) {
            return;
        }
        session.conn = None;
        session.outbound.disconnected();
        self.note_drained(no, now);
        self.detach_streams(no);
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if !will_counts {
            session.will = None;
        }
        if session.expiry_secs == Some(0) {
            // "the Session ends when the Network Connection is closed" (3.1.2.11.2), and with it
            // its Will is due.
            if let Some(will) = session.will.take() {
                let publisher = session.client.author();
                self.publish_will(publisher, &will, now);
            }
            return self.end_session(
                no,
                Settled::Dropped(crate::ledger::DropReason::SessionEnded),
                now,
            );
        }
        self.member_away(no, now);
        self.park(no, now);
    }

    /// A session waits without a connection.
    pub(super) fn park(&mut self, no: SessionNo, now: Now) {
        self.put_away(no);
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if session.expiry_secs == Some(0) && session.moving.fragments.is_empty() {
            let settled = Settled::Dropped(crate::ledger::DropReason::SessionEnded);
            return self.end_session(no, settled, now);
        }
        session.disconnected_at = now.wall.into();
        let expires =
            session.expiry_secs.map(|secs| now.mono + Duration::from_secs(u64::from(secs)));
        session.expires_due = expires.into();
        if let Some(will) = &session.will {
            let delay = u64::from(will.delay_secs.min(session.expiry_secs.unwrap_or(u32::MAX)));
            session.will_due = (now.mono + Duration::from_secs(delay)).into();
        }
        let due_now = session.will_due.at().is_some_and(|due| due <= now.mono);
        if !due_now {
            self.turn.put_session(session);
        } else {
            self.publish_due_will(no, now);
        }
        self.may_leave_later(no, now);
        self.arm(no);
    }

    fn publish_due_will(&mut self, no: SessionNo, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        session.will_due = Due::NEVER;
        let Some(will) = session.will.take() else { return };
        let publisher = session.client.author();
        // The record without the Will and the published message are durable together.
        self.turn.put_session(session);
        self.publish_will(publisher, &will, now);
    }

    /// Ends a session: nothing of it remains, and every debt is settled.
    pub(super) fn end_session(&mut self, no: SessionNo, settled: Settled, now: Now) {
        self.recall(no, now);
        let Some(mut session) = self.sessions.remove(&no) else { return };
        self.note_drained(no, now);
        for filter in session.subscriptions.keys() {
            self.unroute(no, StreamTag::CONTROL, filter);
        }
        self.unroute_streams(no, &session);
        if let Some(will) = session.will.take().filter(|_| !session.is_sealed()) {
            // "when the Session ends" (3.1.3.2.2): a delayed Will is not lost with its session.
            if session.will_due.at().is_some() {
                let publisher = session.client.author();
                self.publish_will(publisher, &will, now);
            }
        }
        for (class, count) in session.outbound.away() {
            self.shared.ledger.settle(settled, class, count as u64);
        }
        let mut left = session.outbound.drain();
        // A sealed log may have been read by the next owner.
        if !session.is_sealed() {
            left = self.redeliver(no, left, false, now);
        }
        for (entry, _) in left {
            self.shared.settle(settled, &session.client, &entry.message);
            debts::delete(no, &entry, &mut self.turn.batch);
        }
        session.delete(&mut self.turn.batch);
        if session.stored.header {
            self.note_gone(no);
        }
        self.importing.remove(&no);
        match session.ownership {
            Ownership::Open => {
                self.open.remove(&session.client, no);
                // Its homes may forget it, unless somebody claimed it beyond us.
                if let Some(replica) = session.entry.take() {
                    let mut entry = replica.entry();
                    entry.end();
                    self.register(session.client.clone(), entry);
                }
            }
            Ownership::Sealed(_) => {
                self.sealed.remove(&(session.client.clone(), session.claim));
            }
        }
        if let Some(token) = session.moving.routes_token {
            self.settling.remove(&token);
        }
        if let Some(armed) = session.armed.at() {
            self.timers.remove(&(armed, super::Timer::Session(no)));
        }
    }

    /// Something about a session is due.
    pub(super) fn session_timeout(&mut self, no: SessionNo, now: Now) {
        if let Some(session) = self.sessions.get_mut(&no) {
            session.armed = Due::NEVER;
        }
        let due = |at: Option<verge_model::Millis>| at.is_some_and(|at| at <= now.mono);
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if due(session.expires_due.at()) && session.conn.is_none() && session.pending.is_none() {
            return self.end_session(no, Settled::Expired, now);
        }
        if due(session.will_due.at()) {
            self.publish_due_will(no, now);
        }
        if self.sessions.get(&no).is_some_and(|session| !session.is_sealed()) {
            self.claim_timeout(no, now);
        }
        self.seal_timeout(no, now);
        let put = self.sessions.get(&no).and_then(|session| session.entry.as_ref()?.due());
        if due(put) {
            self.put_registry(no);
        }
        if self.sessions.get(&no).is_some_and(|s| due(s.moving.reminder.map(|(at, _)| at))) {
            self.remind(no, now);
        }
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if due(session.moving.seen.until) && session.moving.fragments.is_empty() {
            session.moving.change().seen.clear();
            self.turn.batch.delete_seen_of(no.0);
        }
        session.moving.tidy();
        self.arm(no);
    }

    /// Asks whether the routes of a log on its way out may go, and lets the log go after them.
    fn seal_timeout(&mut self, no: SessionNo, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let Some(sealed) = session.sealed_mut() else { return };
        let Sealed { to, closes_at, routed, flushing, linger_until, closed, .. } = *sealed;
        match (closes_at, routed) {
            (None, Some(head)) if linger_until <= now.mono && !flushing => {
                sealed.flushing = true;
                let mail = HubMail::Flush { owner: to.node, head };
                self.turn.outputs.push_back(Output::Hub(mail));
            }
            (Some(at), _) if at <= now.mono && !closed => {
                sealed.closed = true;
                sealed.nudged = false;
                self.nudge(no);
            }
            (Some(_) | None, _) => {}
        }
    }

    /// Takes the routes of a log on its way out away; what is under way between the threads of this
    /// node may still arrive.
    pub(super) fn begin_closing(&mut self, no: SessionNo, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let filters: Vec<_> = session.subscriptions.keys().cloned().collect();
        let Some(sealed) = session.sealed_mut().filter(|sealed| sealed.closes_at.is_none()) else {
            return;
        };
        sealed.closes_at = Some(now.mono + CLOSING);
        for filter in filters {
            self.unroute(no, StreamTag::CONTROL, &filter);
        }
        self.arm(no);
    }

    pub(super) fn kick(&mut self, client: &ClientKey, now: Now) {
        let Some(no) = self.open_of(client) else { return };
        let conn = self.sessions.get(&no).and_then(|session| session.conn);
        if let Some(conn) = conn {
            self.disconnect(conn, ReasonCode::AdministrativeAction, now);
        }
    }

    /// The node goes down: connections end, sessions stay.
    pub(super) fn shut_down(&mut self, now: Now) {
        self.shutting_down = true;
        let mut conns: Vec<ConnId> = self.conns.values().map(|conn| conn.id).collect();
        conns.sort_unstable();
        for conn in conns {
            // The Will of a client whose node goes down is published when the session is served
            // again, or ends: the client has done nothing wrong.
            self.send_away(conn, now);
        }
    }

    /// The promise for state that belongs to no listener.
    pub(super) fn storage_promise(&self) -> Promise {
        self.config.promise
    }
}
