//! The new owner's side of a handover: claim, ask, import.
//!
//! What to ask when is decided by [`Import`], one for each older log; here its decisions meet the
//! session, its rows and the client that waits.

use std::time::Duration;

use smallvec::SmallVec;
use verge_mesh_proto::RouteHead;
use verge_mesh_proto::handover::{
    Action, Body, EntryState, HandoverFrame, Import, ImportConfig, Refusal, SealedHeader,
    TransferEntry,
};
use verge_model::{Claim, ClientKey, NodeKey, Now};
use verge_mqtt_proto::session::{Entry, InflightState, OrderKey, Stored, StreamTag};
use verge_mqtt_proto::{PacketId, QoS, ReasonCode};
use verge_storage::key::LANE_OWN;

use super::Shard;
use super::api::{HubMail, Output, SessionNo};
use super::moving::Fragment;
use super::redeliver::share_of;
use super::replica::merge_entry;
use super::session::Ownership;
use super::turn::Effect;
use crate::debts;
use crate::ledger::{DropReason, Opened, Settled};
use crate::record::{BadRecord, message_from_afar};
use crate::router::parts::FilterParts;

/// How long after the last import a message that comes by a second way is still recognised,
/// beyond the linger of the old owner's routes.
pub(super) const SEEN_BEYOND_LINGER: Duration = Duration::from_secs(10);

/// Older logs of a session that may stay open for messages of nodes that are away. The registry
/// has room for twice as many, and each costs a frame whenever the session moves.
pub(super) const FRAGMENTS_PATIENT: usize = verge_mesh_proto::ENTRY_FRAGMENTS_MAX / 2;

impl Shard {
    /// A handover frame from another node, or from this one.
    pub(super) fn handle_handover(&mut self, from: NodeKey, bytes: &[u8], now: Now) {
        let frame = match HandoverFrame::decode(bytes) {
            Ok(frame) => frame,
            Err(error) => {
                self.shared.counters.bad_frame(1);
                return tracing::warn!(peer = %from, %error, "a handover frame was not understood");
            }
        };
        tracing::trace!(peer = %from, ?frame, "handover");
        let HandoverFrame { client, fragment, claim, body } = frame;
        match body {
            Body::Takeover => self.handle_takeover(from, &client, fragment, claim, now),
            Body::Pull { after } => {
                let body = Body::Pull { after };
                let frame = HandoverFrame { client, fragment, claim, body };
                self.handle_pull(from, frame, after, now);
            }
            Body::Routed { head, patient } => {
                self.handle_routed(&client, fragment, claim, (head, patient), now);
            }
            Body::Drained => self.handle_drained(&client, fragment, claim, now),
            Body::Sealed(header) => {
                // The giver names the log it has, whatever was asked for.
                self.import(&client, header.fragment, claim, now, |import| {
                    import.handle_sealed(header)
                });
            }
            Body::Refused(Refusal::Unknown)
                if self.sealed.contains_key(&(client.clone(), fragment)) =>
            {
                self.unwanted(&client, fragment, claim, now);
            }
            Body::Refused(refusal) => {
                self.import(&client, fragment, claim, now, |import| {
                    import.handle_refused(refusal, now.mono)
                });
            }
            Body::Entries { after, entries, more, closed } => {
                self.import(&client, fragment, claim, now, |import| {
                    import.handle_entries(after, entries, more, closed, now.mono)
                });
            }
            Body::Nudge => self.handle_nudge(from, &client, fragment, claim, now),
        }
    }

    /// Lets an answer reach the import it is for, if that still goes on under the same claim.
    fn import(
        &mut self,
        client: &ClientKey,
        fragment: Claim,
        claim: Claim,
        now: Now,
        event: impl FnOnce(&mut Import) -> Vec<Action>,
    ) {
        let Some(no) = self.open_of(client) else { return };
        let Some(session) = self.sessions.get_mut(&no).filter(|s| s.claim == claim) else { return };
        let Some(state) = session.moving.fragment_mut(fragment) else { return };
        let actions = event(&mut state.import);
        self.act(no, fragment, actions, now);
        self.arm(no);
    }

    /// A log of a session that is, or was, ours waits to be pulled.
    fn handle_nudge(
        &mut self,
        from: NodeKey,
        client: &ClientKey,
        fragment: Claim,
        claim: Claim,
        now: Now,
    ) {
        if self.found(client, now).is_some() {
            self.learn_fragment(client, fragment, claim, now);
            return self
                .import(client, fragment, claim, now, |import| import.handle_nudge(now.mono));
        }
        if let Some(next) = self.sealed_of(client).max(self.pointers.get(client)) {
            // The session went on: so does the word, unless it would come back.
            if next.node != from && next > claim {
                let (client, body) = (client.clone(), Body::Nudge);
                let frame = HandoverFrame { client, fragment, claim: next, body }.encode();
                self.send_handover(next.node, frame);
            }
            return;
        }
        // It ended here, and nobody wants what is left of it.
        let body = Body::Refused(Refusal::Unknown);
        let frame = HandoverFrame { client: client.clone(), fragment, claim, body }.encode();
        self.send_handover(from, frame);
    }

    /// Another owner says that it holds a log of a session that is ours, which we did not know of.
    fn learn_fragment(&mut self, client: &ClientKey, fragment: Claim, claim: Claim, now: Now) {
        let Some(no) = self.open_of(client) else { return };
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let ours = session.claim >= claim && fragment < session.claim;
        if !ours || session.moving.fragments.contains_key(&fragment) || session.entry.is_none() {
            return;
        }
        session.moving.change().fragments.insert(fragment, new_fragment(false, now));
        self.recall(no, now);
        let Some(session) = self.sessions.get_mut(&no) else { return };
        session.remember_from(now);
        self.store_claim(no);
    }

    /// Stores what is claimed; then it is asked for.
    fn store_claim(&mut self, no: SessionNo) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        self.turn.put_session(session);
        self.turn.promise(self.config.promise);
        self.turn.when_durable(Effect::Claimed { session: no });
        self.arm(no);
    }

    fn act(&mut self, no: SessionNo, fragment: Claim, actions: Vec<Action>, now: Now) {
        for action in actions {
            match action {
                Action::Send(body) => {
                    let Some(session) = self.sessions.get(&no) else { return };
                    let (client, claim) = (session.client.clone(), session.claim);
                    let frame = HandoverFrame { client, fragment, claim, body }.encode();
                    self.send_handover(fragment.node, frame);
                }
                Action::Header(header) => self.take_header(no, fragment, &header, now),
                Action::Entries(entries) => self.take_entries(no, fragment, entries, now),
                Action::CaughtUp => self.caught_up(no, now),
                Action::Superseded(by) => self.claim_again(no, by, now),
                Action::Finished { held } => self.fragment_finished(no, fragment, held, now),
            }
        }
    }

    /// The session's claim is stored: now it may be told.
    pub(super) fn claimed(&mut self, no: SessionNo, now: Now) {
        self.put_registry(no);
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let due: Vec<Claim> = session.moving.fragments.keys().copied().collect();
        for fragment in due {
            self.importing.insert(no);
            self.ask(no, fragment, now);
        }
        self.arm(no);
    }

    fn ask(&mut self, no: SessionNo, fragment: Claim, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let Some(state) = session.moving.fragment_mut(fragment) else { return };
        let actions = state.import.handle_timeout(now.mono);
        self.act(no, fragment, actions, now);
    }

    /// Takes in what the session was at the giver.
    fn take_header(&mut self, no: SessionNo, fragment: Claim, header: &SealedHeader, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let decides = session.moving.claiming == Some(fragment);
        let Some(state) = session.moving.fragment_mut(fragment) else { return };
        let first = !std::mem::replace(&mut state.headed, true);
        if !header.subscriptions.is_empty() {
            merge_entry(session, header);
        }
        // Ids received by the giver count as long as the client was not told anything else. A
        // client that was served before the header came has sent those PUBLISH again.
        if first && decides {
            let mut ids = header.received.iter().copied();
            for id in ids.by_ref().map_while(PacketId::new) {
                session.inbound.handle_publish(id);
                self.turn.batch.put_received(no.0, id.get());
            }
            let on_streams: Vec<PacketId> = ids.filter_map(PacketId::new).collect();
            for id in &on_streams {
                self.turn.batch.put_received_on_stream(no.0, id.get());
            }
            session.restore_received(on_streams);
        }
        for id in &header.settled {
            if session.moving.note_seen(*id) {
                self.turn.batch.put_seen(no.0, *id, now.wall);
            }
            // A copy may have come by another way already, and not have been sent.
            if let Some(copy) = session.outbound.take_queued(*id) {
                self.shared.counters.duplicate_suppressed(1);
                self.shared.ledger.settle(Settled::HadAlready, copy.message.class, 1);
                debts::delete(no, &copy, &mut self.turn.batch);
            }
        }
        for older in &header.open_fragments {
            let known = *older == session.claim || session.moving.fragments.contains_key(older);
            if !known {
                session.moving.change().fragments.insert(*older, new_fragment(false, now));
            }
        }
        self.turn.put_session(session);
        self.adopt_subscriptions(no);
        self.turn.promise(self.config.promise);
        self.turn.when_durable(Effect::HeaderStored { session: no, fragment });
    }

    /// The header is stored: the client may be told, and the log pulled.
    pub(super) fn header_stored(&mut self, no: SessionNo, fragment: Claim, now: Now) {
        let hold = now.mono + self.config.handover_hold;
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if session.moving.hold_until.is_some() {
            session.moving.change().hold_until = Some(hold);
        }
        session.hold();
        if session.moving.claiming == Some(fragment) {
            session.moving.change().claiming = None;
            self.admit_pending(no, true, now);
        }
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let Some(state) = session.moving.fragment_mut(fragment) else { return };
        let actions = state.import.header_durable(now.mono);
        self.act(no, fragment, actions, now);
        self.ask_route_head(no);
        self.claimed(no, now);
    }

    /// Asks how far the routes of this node are, with those of the session among them.
    fn ask_route_head(&mut self, no: SessionNo) {
        let token = self.number();
        let Some(session) = self.sessions.get_mut(&no) else { return };
        // A filter that another shard has a subscriber of may still be on its way to the hub.
        for filter in session.filters() {
            if let Some(route) = FilterParts::of(filter.as_str()).route() {
                self.turn.outputs.push_back(Output::Hub(HubMail::AddRoute(route)));
            }
        }
        if let Some(earlier) = session.moving.change().routes_token.replace(token) {
            self.settling.remove(&earlier);
        }
        self.settling.insert(token, no);
        let mail = HubMail::RouteHead { shard: self.config.index, token };
        self.turn.outputs.push_back(Output::Hub(mail));
    }

    /// This node's routes are so far, with those of a session that asked among them.
    pub(super) fn routed(&mut self, token: u64, head: RouteHead, now: Now) {
        let Some(no) = self.settling.remove(&token) else { return };
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let moves = session.moving.change();
        moves.routes_token = None;
        let mut all = Vec::new();
        let hasty = moves.fragments.len().saturating_sub(FRAGMENTS_PATIENT);
        for (place, (fragment, state)) in moves.fragments.iter_mut().enumerate() {
            all.push((*fragment, state.import.routed(head, place >= hasty)));
        }
        for (fragment, actions) in all {
            self.act(no, fragment, actions, now);
        }
    }

    /// Takes in entries of an older log, in order.
    fn take_entries(
        &mut self,
        no: SessionNo,
        fragment: Claim,
        entries: Vec<TransferEntry>,
        now: Now,
    ) {
        for transfer in entries {
            // The giver takes it off its books, whatever becomes of it here.
            let class = transfer.message.class;
            self.shared.ledger.open(Opened::Imported, class, 1);
            let settled = match self.take_entry(no, fragment, transfer, now) {
                Ok(true) => continue,
                Ok(false) => Settled::HadAlready,
                Err(error) => {
                    self.shared.counters.bad_frame(1);
                    tracing::error!(%error, "an entry of an older log cannot be read: left out");
                    Settled::Dropped(DropReason::Unreadable)
                }
            };
            self.shared.ledger.settle(settled, class, 1);
        }
        self.turn.promise(self.config.promise);
        self.turn.when_durable(Effect::EntriesStored { session: no, fragment });
    }

    /// Takes an entry of an older log; `false`: it came by another way too.
    fn take_entry(
        &mut self,
        no: SessionNo,
        fragment: Claim,
        transfer: TransferEntry,
        now: Now,
    ) -> Result<bool, BadRecord> {
        let Some(session) = self.sessions.get_mut(&no) else { return Ok(false) };
        let mut inflight = match transfer.state {
            EntryState::Queued => None,
            EntryState::Sent { packet_id } => {
                PacketId::new(packet_id).map(|id| (id, InflightState::Published))
            }
            EntryState::Released { packet_id } => {
                PacketId::new(packet_id).map(|id| (id, InflightState::Released))
            }
        };
        if session.moving.has_seen(transfer.id) || session.outbound.contains(transfer.id) {
            self.shared.counters.duplicate_suppressed(1);
            let free = |(id, _): &(PacketId, _)| session.outbound.inflight(*id).is_none();
            let Some((id, _)) = inflight.filter(free) else { return Ok(false) };
            if let Some(copy) = session.outbound.take_queued(transfer.id) {
                // What the client may have seen under the giver's packet id goes on under that
                // id; the copy that was not sent yet gives way to it.
                self.shared.ledger.settle(Settled::HadAlready, copy.message.class, 1);
                debts::delete(no, &copy, &mut self.turn.batch);
            } else if transfer.qos == QoS::ExactlyOnce.bits() {
                // The client has the message, and may wait for the release of that id: an id that
                // is never released would hide the next message that is sent under it.
                inflight = Some((id, InflightState::Released));
            } else {
                return Ok(false);
            }
        }
        // After four claims bands repeat; an id that is taken cannot be taken over.
        let inflight = inflight.filter(|(id, _)| session.outbound.inflight(*id).is_none());
        let message = message_from_afar(transfer.message, self.shared.next_message_id())?;
        let from = session.moving.fragments.get(&fragment);
        let order = if from.is_some_and(|from| from.import.is_late(transfer.cursor)) {
            OrderKey { lane: LANE_OWN, seq: self.shared.next_queue_seq() }
        } else {
            session.import_order(&message)
        };
        let entry = Entry {
            order,
            qos: QoS::from_bits(transfer.qos).unwrap_or(message.qos),
            retain: transfer.retain,
            subscription_ids: SmallVec::from_vec(transfer.subscription_ids),
            // Its stream was one of the giver's connection.
            tag: StreamTag::CONTROL,
            stored: if session.is_durable() { Stored::Whole } else { Stored::Nowhere },
            marked: inflight.is_some() && session.is_durable(),
            share: share_of(transfer.share),
            message,
        };
        if session.moving.note_seen(entry.message.id) && entry.stored.is_stored() {
            self.turn.batch.put_seen(no.0, entry.message.id, now.wall);
        }
        let batch = &mut self.turn.batch;
        debts::put_entry(no, &entry, now, batch);
        if let Some((id, state)) = inflight.filter(|_| entry.marked) {
            debts::put_inflight(no, &entry, id, state == InflightState::Released, batch);
        }
        match inflight {
            Some((id, state)) => session.outbound.push_inflight(id, entry, state),
            None => session.outbound.push(entry),
        }
        Ok(true)
    }

    /// Entries are stored: the giver may forget them, the client may have them.
    pub(super) fn entries_stored(&mut self, no: SessionNo, fragment: Claim, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let Some(state) = session.moving.fragment_mut(fragment) else { return };
        let actions = state.import.entries_durable(now.mono);
        self.act(no, fragment, actions, now);
        self.pump(no, now);
        self.arm(no);
    }

    /// A log is complete up to where it was sealed.
    fn caught_up(&mut self, no: SessionNo, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if session.hold() {
            self.let_go(no, now);
        } else {
            self.pump(no, now);
        }
    }

    /// New messages wait no longer.
    fn let_go(&mut self, no: SessionNo, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if let Some(moves) = session.moving.kept() {
            moves.hold_until = None;
        }
        session.hold();
        self.pump(no, now);
    }

    /// A greater claim than ours is known. With a client here that is proof of life: we claim
    /// beyond it; without, the session is no longer ours to fight for.
    pub(super) fn claim_again(&mut self, no: SessionNo, by: Claim, now: Now) {
        let wait = now.mono + self.config.handover_unreachable_wait;
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if by.node == self.config.node || (session.conn.is_none() && session.pending.is_none()) {
            return;
        }
        self.recall(no, now);
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let claim = by.max(session.claim).superseded_by(self.config.node);
        let older = std::mem::replace(&mut session.claim, claim);
        session.outbound.set_epoch(claim.epoch);
        let moves = session.moving.change();
        (moves.superseded, moves.reminder) = (None, None);
        let claiming = moves.claiming.is_some();
        moves.fragments.entry(by).or_insert_with(|| new_fragment(claiming, now));
        // Who was asked under the old claim is asked under the new one.
        for (fragment, state) in &mut moves.fragments {
            state.import = Import::new(ImportConfig::default(), now.mono);
            if claiming {
                state.headed = *fragment != by;
            }
        }
        session.remember_from(now);
        if claiming {
            session.moving.change().claiming = Some(by);
        }
        if let Some(pending) = &mut session.pending {
            pending.deadline = wait;
        }
        if let Some(entry) = &mut session.entry {
            entry.mark_drained(older);
            entry.claim(claim, false);
        }
        self.store_claim(no);
    }

    /// An older log is over.
    fn fragment_finished(&mut self, no: SessionNo, fragment: Claim, held: bool, now: Now) {
        let linger = self.config.handover_linger + SEEN_BEYOND_LINGER;
        let Some(session) = self.sessions.get_mut(&no) else { return };
        session.moving.change().fragments.remove(&fragment);
        if let Some(entry) = &mut session.entry {
            entry.mark_drained(fragment);
        }
        if session.moving.fragments.is_empty() {
            session.moving.change().seen.until = Some(now.mono + linger);
            self.importing.remove(&no);
        }
        if session.moving.claiming == Some(fragment) {
            // The node that was thought to have the session has none.
            session.moving.change().claiming = None;
            if session.pending.is_none() {
                return self.end_session(no, Settled::Discarded, now);
            }
            self.admit_pending(no, held, now);
        }
        if held {
            self.shared.counters.handover_completed(1);
        }
        self.put_registry(no);
        let ended = self.sessions.get(&no).is_some_and(|session| {
            session.moving.fragments.is_empty() && !session.is_durable() && session.conn.is_none()
        });
        if ended {
            self.park(no, now);
        }
    }

    /// What is due in a session that imports.
    pub(super) fn claim_timeout(&mut self, no: SessionNo, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if session.moving.hold_until.is_some_and(|at| at <= now.mono) {
            self.let_go(no, now);
        }
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if session.pending.as_ref().is_some_and(|pending| pending.deadline <= now.mono) {
            // Nobody who has the session answers: it is served from what its homes know, and the
            // log is imported when its node is back.
            self.shared.counters.handover_unreachable(1);
            if let Some(fragment) = session.moving.change().claiming.take()
                && let Some(state) = session.moving.fragment_mut(fragment)
            {
                state.headed = true;
            }
            self.adopt_subscriptions(no);
            self.admit_pending(no, true, now);
            self.let_go(no, now);
            self.ask_route_head(no);
        }
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let due = |state: &Fragment| state.import.poll_timeout().is_some_and(|at| at <= now.mono);
        let fragments = session.moving.fragments.iter().filter(|(_, state)| due(state));
        let due: Vec<Claim> = fragments.map(|(claim, _)| *claim).collect();
        for fragment in due {
            self.ask(no, fragment, now);
        }
    }

    /// A link leads to a node that may hold logs of our sessions.
    pub(super) fn peer_up(&mut self, peer: NodeKey, now: Now) {
        self.peers.insert(peer);
        let importing: Vec<SessionNo> = self.importing.iter().copied().collect();
        for no in importing {
            let Some(session) = self.sessions.get_mut(&no) else { continue };
            let mut all = Vec::new();
            let Some(moves) = session.moving.kept() else { continue };
            for (fragment, state) in &mut moves.fragments {
                if fragment.node == peer && matches!(session.ownership, Ownership::Open) {
                    all.push((*fragment, state.import.handle_peer_up(now.mono)));
                }
            }
            for (fragment, actions) in all {
                self.act(no, fragment, actions, now);
            }
            self.arm(no);
        }
        self.remind_peer(peer, now);
        self.ask_all_again(now);
    }

    /// The homes know a greater claim on a session than the one this node wrote under.
    pub(super) fn superseded(&mut self, client: &ClientKey, winner: Claim, clean: bool, now: Now) {
        if clean {
            return self.discard(client, winner, now);
        }
        let Some(no) = self.found(client, now) else { return };
        let Some(session) = self.sessions.get(&no) else { return };
        let ours = session.claim;
        if winner <= ours || winner.node == self.config.node {
            return;
        }
        let alive = session.conn.is_some() || session.pending.is_some();
        if alive && winner.epoch == ours.epoch {
            return self.claim_again(no, winner, now);
        }
        // The winner may not know that there is a log here.
        let Some(session) = self.sessions.get_mut(&no) else { return };
        session.moving.change().superseded = session.moving.superseded.max(Some(winner));
        self.remind(no, now);
    }

    /// The client started clean elsewhere: nothing of its older sessions is wanted.
    fn discard(&mut self, client: &ClientKey, winner: Claim, now: Now) {
        let open = self
            .found(client, now)
            .filter(|no| self.sessions.get(no).is_some_and(|session| session.claim < winner));
        if let Some(no) = open {
            let conn = self.sessions.get(&no).and_then(|session| session.conn);
            if let Some(conn) = conn {
                self.disconnect(conn, ReasonCode::SessionTakenOver, now);
            }
            self.end_session(no, Settled::Discarded, now);
        }
        let from = (client.clone(), Claim::default());
        let to = (client.clone(), winner);
        let sealed: Vec<SessionNo> = self.sealed.range(from..to).map(|(_, no)| *no).collect();
        for no in sealed {
            self.end_session(no, Settled::Discarded, now);
        }
    }
}

/// An older log to be pulled; `decides`: its header says what the session is.
pub(super) fn new_fragment(decides: bool, now: Now) -> Fragment {
    Fragment { import: Import::new(ImportConfig::default(), now.mono), headed: !decides }
}
