//! The old owner's side of a handover: seal, give, forget.
//!
//! The state is the session's [`Ownership`]: open, sealed, closed, gone. Every question is answered
//! the same way however often it is asked.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::FxHashMap;
use verge_mesh_proto::RouteHead;
use verge_mesh_proto::handover::{
    Body, Cursor, EntryState, HandoverFrame, Refusal, SealedHeader, TransferEntry,
};
use verge_model::{Claim, ClientKey, NodeKey, Now};
use verge_mqtt_proto::ReasonCode;
use verge_mqtt_proto::session::{Hold, InflightState};

use super::Shard;
use super::api::SessionNo;
use super::due::Due;
use super::session::{Ownership, Sealed, Session, cursor_of, order_of};
use super::turn::Effect;
use crate::debts;
use crate::ledger::Settled;
use crate::record::{message_to_record, will_to_record};

/// A chunk of entries ends with the one that reaches this size: a few frames of a link in flight,
/// and a stall of no more than some milliseconds on a slow one.
const CHUNK_BYTES: usize = 64 * 1024;

/// Most entries of a chunk.
const CHUNK_ENTRIES: usize = 256;

/// How long after the last word from the new owner it is reminded of a log, and how often at least
/// from then on. An owner that is there asks more often.
pub(super) const REMINDER_FIRST: Duration = Duration::from_secs(8);
const REMINDER_LAST: Duration = Duration::from_secs(60);

/// Most clients remembered as handed over, to point later claimants to the node that has them.
const POINTERS_MAX: usize = 65_536;

/// Where sessions went whose logs have gone too; the oldest are forgotten first.
#[derive(Debug, Default)]
pub(super) struct Pointers {
    to: FxHashMap<ClientKey, Claim>,
    order: VecDeque<ClientKey>,
}

impl Pointers {
    fn insert(&mut self, client: ClientKey, claim: Claim) {
        if self.to.insert(client.clone(), claim).is_none() {
            self.order.push_back(client);
        }
        if self.order.len() > POINTERS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.to.remove(&oldest);
        }
    }

    pub(super) fn get(&self, client: &ClientKey) -> Option<Claim> {
        self.to.get(client).copied()
    }
}

impl Shard {
    /// Another node claims a session this node has, had, or is thought to have.
    pub(super) fn handle_takeover(
        &mut self,
        from: NodeKey,
        client: &ClientKey,
        fragment: Claim,
        claim: Claim,
        now: Now,
    ) {
        let any = fragment == Claim::default();
        let open = self.found(client, now).filter(|no| {
            self.sessions.get(no).is_some_and(|session| any || session.claim == fragment)
        });
        if let Some(no) = open {
            let ours = self.sessions.get(&no).map(|session| session.claim).unwrap_or_default();
            if claim <= ours {
                let refusal = Refusal::Superseded { by: ours };
                return self.refuse_handover(from, client, fragment, claim, refusal);
            }
            return self.seal(no, from, claim, now);
        }
        let sealed = if any {
            self.newest_sealed(client)
        } else {
            self.sealed.get(&(client.clone(), fragment)).copied()
        };
        let Some(no) = sealed else {
            let refusal = match self.pointer_beyond(client, fragment, claim) {
                Some(by) => Refusal::Superseded { by },
                None => Refusal::Unknown,
            };
            return self.refuse_handover(from, client, fragment, claim, refusal);
        };
        self.give_again(no, from, claim, now);
    }

    /// A claim later than the log asked for that whoever claims it cannot have known of: the one
    /// under which this node has the session now, or one it gave it away for.
    fn pointer_beyond(&self, client: &ClientKey, fragment: Claim, claim: Claim) -> Option<Claim> {
        let open = self.open_of(client).and_then(|no| self.sessions.get(&no)).map(|s| s.claim);
        let open = open.filter(|open| *open > fragment && *open != claim);
        let given = self.pointers.get(client).max(self.sealed_of(client));
        let given = given.filter(|to| to.epoch >= claim.epoch && to.node != claim.node);
        open.max(given)
    }

    fn newest_sealed(&self, client: &ClientKey) -> Option<SessionNo> {
        let from = (client.clone(), Claim::default());
        let logs = self.sealed.range(from..).take_while(|((other, _), _)| other == client);
        logs.map(|(_, no)| *no).last()
    }

    /// Stops serving a session and makes its log ready to be read.
    fn seal(&mut self, no: SessionNo, from: NodeKey, claim: Claim, now: Now) {
        let Some(session) = self.sessions.get(&no) else { return };
        if !session.is_durable() && session.moving.fragments.is_empty() {
            // It would have ended with its connection, and that has ended: nothing to give.
            let (client, fragment) = (session.client.clone(), session.claim);
            let conn = session.conn;
            if let Some(conn) = conn {
                self.disconnect(conn, ReasonCode::SessionTakenOver, now);
            }
            self.end_session(no, Settled::Discarded, now);
            return self.refuse_handover(from, &client, fragment, claim, Refusal::Unknown);
        }
        let waiting = session.pending.as_ref().map(|pending| pending.conn);
        for conn in session.conn.into_iter().chain(waiting).collect::<Vec<_>>() {
            self.end_for_takeover(no, conn, now);
        }
        let linger = self.config.handover_linger;
        self.recall(no, now);
        let Some(session) = self.sessions.get_mut(&no) else { return };
        session.outbound.disconnected();
        self.detach_streams(no);
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if let Some(moves) = session.moving.kept() {
            (moves.hold_until, moves.claiming, moves.superseded) = (None, None, None);
            moves.reminder = None;
        }
        session.outbound.hold(Hold::None);
        session.will_due = Due::NEVER;
        session.disconnected_at = now.wall.into();
        // Should the new owner never come for it, the log ends as the session would have.
        let expires =
            session.expiry_secs.map(|secs| now.mono + Duration::from_secs(u64::from(secs)));
        session.expires_due = expires.into();
        session.ownership = Ownership::Sealed(Box::new(Sealed {
            to: claim,
            at: now.wall,
            routed: None,
            flushing: false,
            linger_until: now.mono + linger,
            closes_at: None,
            closed: false,
            nudged: true,
        }));
        let (client, own) = (session.client.clone(), session.claim);
        self.note_drained(no, now);
        self.open.remove(&client, no);
        self.importing.remove(&no);
        self.sealed.insert((client, own), no);
        self.shared.counters.handover_given(1);
        self.give_again(no, from, claim, now);
    }

    /// Ends the connection of a session that another node serves now. Its Will moves along.
    fn end_for_takeover(&mut self, no: SessionNo, conn: super::ConnId, now: Now) {
        let will = self.sessions.get_mut(&no).and_then(|session| session.will.take());
        if let Some(session) = self.sessions.get_mut(&no) {
            // Neither parked nor ended by what follows.
            session.conn = None;
            session.pending = None;
        }
        self.disconnect(conn, ReasonCode::SessionTakenOver, now);
        if let Some(session) = self.sessions.get_mut(&no) {
            session.will = will;
        }
    }

    /// Says that a log is sealed, once it is stored; to the greatest claim.
    fn give_again(&mut self, no: SessionNo, from: NodeKey, claim: Claim, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let (client, fragment) = (session.client.clone(), session.claim);
        let Some(sealed) = session.sealed_mut() else { return };
        if claim < sealed.to {
            let refusal = Refusal::Superseded { by: sealed.to };
            return self.refuse_handover(from, &client, fragment, claim, refusal);
        }
        if claim > sealed.to {
            sealed.to = claim;
            sealed.routed = None;
            sealed.flushing = false;
        }
        session.moving.change().reminder = Some((now.mono + REMINDER_FIRST, REMINDER_FIRST));
        let header = Body::Sealed(Box::new(header_of(session, now)));
        self.turn.put_session(session);
        self.turn.promise(self.config.promise);
        let frame = HandoverFrame { client, fragment, claim, body: header }.encode();
        self.turn.when_durable(Effect::Handover { to: from, frame });
        self.arm(no);
    }

    /// The new owner has everything up to `after`, and wants what follows.
    pub(super) fn handle_pull(
        &mut self,
        from: NodeKey,
        frame: HandoverFrame,
        after: Cursor,
        now: Now,
    ) {
        let HandoverFrame { client, fragment, claim, .. } = frame;
        let Some(no) = self.sealed_for(&client, fragment, claim) else {
            let refusal = match self.sealed.get(&(client.clone(), fragment)) {
                Some(_) => Refusal::Busy,
                None => Refusal::Unknown,
            };
            return self.refuse_handover(from, &client, fragment, claim, refusal);
        };
        self.recall(no, now);
        let Some(session) = self.sessions.get_mut(&no) else { return };
        for entry in session.outbound.remove_upto(order_of(after)) {
            self.shared.ledger.settle(Settled::HandedOver, entry.message.class, 1);
            debts::delete(no, &entry, &mut self.turn.batch);
            if session.moving.forget_seen(entry.message.id) {
                self.turn.batch.delete_seen(no.0, entry.message.id);
            }
        }
        let (entries, more) = chunk_after(session, after);
        let all = session.outbound.is_recalled();
        let Some(sealed) = session.sealed_mut() else { return };
        sealed.nudged = false;
        let closed = sealed.closed && all;
        // Who finds nothing asks later and later.
        let wait = match session.moving.reminder {
            Some((_, wait)) if entries.is_empty() && !closed => (wait * 2).min(REMINDER_LAST),
            Some(_) | None => REMINDER_FIRST,
        };
        session.moving.change().reminder = Some((now.mono + wait, wait));
        let body = Body::Entries { after, entries, more, closed };
        let frame = HandoverFrame { client, fragment, claim, body }.encode();
        self.send_handover(from, frame);
    }

    /// The session's filters are among the new owner's routes.
    pub(super) fn handle_routed(
        &mut self,
        client: &ClientKey,
        fragment: Claim,
        claim: Claim,
        (head, patient): (RouteHead, bool),
        now: Now,
    ) {
        let Some(no) = self.sealed_for(client, fragment, claim) else { return };
        let Some(sealed) = self.sessions.get_mut(&no).and_then(|session| session.sealed_mut())
        else {
            return;
        };
        if sealed.routed < Some(head) {
            sealed.routed = Some(head);
            sealed.flushing = false;
        }
        if !patient && sealed.linger_until <= now.mono && sealed.closes_at.is_none() {
            self.shared.counters.handover_hurried(1);
            tracing::warn!(%client, log = %fragment, "closed before all nodes that are away were heard");
            return self.begin_closing(no, now);
        }
        self.arm(no);
    }

    /// What any node planned without the owner's routes up to `head` has arrived: logs that waited
    /// for it need no routes any more.
    pub(super) fn flushed(&mut self, owner: NodeKey, head: RouteHead, now: Now) {
        let waits = |session: &Session| match &session.ownership {
            Ownership::Sealed(sealed) => {
                let routed = sealed.routed.is_some_and(|routed| routed <= head);
                sealed.to.node == owner && sealed.flushing && routed
            }
            Ownership::Open => false,
        };
        let logs = self.sealed.values().filter_map(|no| self.sessions.get(no));
        let due: Vec<SessionNo> =
            logs.filter(|session| waits(session)).map(|session| session.no).collect();
        for no in due {
            self.begin_closing(no, now);
        }
    }

    /// The new owner has the whole log, and it is closed.
    pub(super) fn handle_drained(
        &mut self,
        client: &ClientKey,
        fragment: Claim,
        claim: Claim,
        now: Now,
    ) {
        let Some(no) = self.sealed_for(client, fragment, claim) else { return };
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let Some(sealed) = session.sealed_mut() else { return };
        if !sealed.closed {
            return;
        }
        let to = sealed.to;
        self.pointers.insert(client.clone(), to);
        self.end_session(no, Settled::Discarded, now);
    }

    /// Tells the new owner, once between two of its pulls, that there is something to pull.
    pub(super) fn nudge(&mut self, no: SessionNo) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let (client, fragment) = (session.client.clone(), session.claim);
        let Some(sealed) = session.sealed_mut() else { return };
        if std::mem::replace(&mut sealed.nudged, true) {
            return;
        }
        let claim = sealed.to;
        let frame = HandoverFrame { client, fragment, claim, body: Body::Nudge }.encode();
        self.send_handover(claim.node, frame);
    }

    /// Reminds whoever is to come for a session's log of it, and does so again, later and later:
    /// what was said before may be lost, and a log must not stay because nobody knows of it.
    pub(super) fn remind(&mut self, no: SessionNo, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let to = match &session.ownership {
            Ownership::Sealed(sealed) => Some(sealed.to),
            Ownership::Open => session.moving.superseded,
        };
        let Some(claim) = to else {
            if let Some(moves) = session.moving.kept() {
                moves.reminder = None;
            }
            return;
        };
        let wait = session.moving.reminder.map_or(REMINDER_FIRST, |(_, wait)| wait);
        session.moving.change().reminder = Some((now.mono + wait, (wait * 2).min(REMINDER_LAST)));
        let (client, fragment) = (session.client.clone(), session.claim);
        let frame = HandoverFrame { client, fragment, claim, body: Body::Nudge }.encode();
        self.send_handover(claim.node, frame);
        self.arm(no);
    }

    /// A link leads to a node that may have forgotten, or never heard, of logs that wait for it.
    pub(super) fn remind_peer(&mut self, peer: NodeKey, now: Now) {
        let waits = |session: &Session| match &session.ownership {
            Ownership::Sealed(sealed) => sealed.to.node == peer,
            Ownership::Open => session.moving.superseded.is_some_and(|by| by.node == peer),
        };
        let mut due: Vec<SessionNo> =
            self.sessions.values().filter(|session| waits(session)).map(|s| s.no).collect();
        due.sort_unstable();
        for no in due {
            self.remind(no, now);
        }
    }

    /// Who was to come for a log says that its session has ended.
    pub(super) fn unwanted(&mut self, client: &ClientKey, fragment: Claim, claim: Claim, now: Now) {
        if let Some(no) = self.sealed_for(client, fragment, claim) {
            self.end_session(no, Settled::Discarded, now);
        }
    }

    fn sealed_for(&self, client: &ClientKey, fragment: Claim, claim: Claim) -> Option<SessionNo> {
        let no = *self.sealed.get(&(client.clone(), fragment))?;
        match &self.sessions.get(&no)?.ownership {
            Ownership::Sealed(sealed) if sealed.to == claim => Some(no),
            Ownership::Sealed(_) | Ownership::Open => None,
        }
    }

    fn refuse_handover(
        &mut self,
        to: NodeKey,
        client: &ClientKey,
        fragment: Claim,
        claim: Claim,
        refusal: Refusal,
    ) {
        let body = Body::Refused(refusal);
        let frame = HandoverFrame { client: client.clone(), fragment, claim, body }.encode();
        self.send_handover(to, frame);
    }
}

fn header_of(session: &mut Session, now: Now) -> SealedHeader {
    session.say_all();
    let end = session.outbound.last_order().map(cursor_of).unwrap_or_default();
    SealedHeader {
        fragment: session.claim,
        end,
        entries: session.outbound.len() as u64,
        received: received_of(session),
        settled: session.over(now.wall),
        will: session.will.as_deref().map(will_to_record),
        session_expiry_secs: session.expiry_secs,
        subscriptions: session.encoded_entry(),
        open_fragments: session.moving.fragments.keys().copied().collect(),
    }
}

/// Packet ids received on the control stream; then, if there are any, 0 and those received on other
/// streams.
fn received_of(session: &Session) -> Vec<u16> {
    let mut received: Vec<u16> = session.inbound.iter().map(|id| id.get()).collect();
    let on_streams = session.received_on_streams();
    if !on_streams.is_empty() {
        received.push(0);
        received.extend(on_streams.iter().map(|id| id.get()));
    }
    received
}

/// The next entries after a cursor, and whether there are more.
fn chunk_after(session: &Session, after: Cursor) -> (Vec<TransferEntry>, bool) {
    let mut chunk = Vec::new();
    let mut bytes = 0;
    // What cannot be read now must not be passed over.
    let end = session.outbound.first_away();
    let entries = session.outbound.after(order_of(after));
    let mut entries = entries.take_while(|(entry, _)| end.is_none_or(|end| entry.order < end));
    for (entry, inflight) in entries.by_ref() {
        let state = match inflight {
            None => EntryState::Queued,
            Some((id, InflightState::Published)) => EntryState::Sent { packet_id: id.get() },
            Some((id, InflightState::Released)) => EntryState::Released { packet_id: id.get() },
        };
        bytes += entry.message.queue_bytes();
        chunk.push(TransferEntry {
            cursor: cursor_of(entry.order),
            id: entry.message.id,
            message: message_to_record(&entry.message),
            qos: entry.qos.bits(),
            retain: entry.retain,
            subscription_ids: entry.subscription_ids.to_vec(),
            enqueued_at: entry.message.stamp.wall(),
            state,
            share: entry.share.as_ref().map(|share| share.shared_text()),
        });
        if bytes >= CHUNK_BYTES || chunk.len() == CHUNK_ENTRIES {
            break;
        }
    }
    (chunk, entries.next().is_some() || end.is_some())
}
