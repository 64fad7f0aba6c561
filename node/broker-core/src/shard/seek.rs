//! Who owns a session: asking its homes before a client is served, and hearing their answers.

use std::time::Duration;

use verge_mesh_proto::crdt::sessions::RegistryEntry;
use verge_model::{Claim, ClientKey, Now};
use verge_mqtt_proto::ReasonCode;

use super::api::{HubMail, Output, SessionNo};
use super::connect::PendingConnect;
use super::replica::Replica;
use super::{Lookup, Shard, Timer};

/// How long the hub may take to answer a look-up, beyond its own limit: only a hub that is gone
/// takes longer.
const LOOKUP_LIMIT: Duration = Duration::from_secs(1);

/// How soon homes that were out of reach are asked again; a new link asks at once.
const LOOKUP_AGAIN: Duration = Duration::from_millis(250);

/// Most questions of a shard for older sessions of clients that started clean and are served
/// meanwhile: each is some hundred bytes, and over in [`LOOKUP_LIMIT`], so that more clients come
/// in a second than a core serves.
const CLEAN_LOOKUPS_MAX: usize = 16_384;

impl Shard {
    /// Asks the homes of a session who owns it, before its client is served.
    pub(super) fn seek(&mut self, mut pending: PendingConnect, now: Now) {
        if self.seeking.len() >= self.config.handovers_max {
            return self.refuse_connect(pending.conn, ReasonCode::ConnectionRateExceeded, now);
        }
        pending.deadline = now.mono + self.config.handover_unreachable_wait;
        let ticket = self.number();
        self.ask_homes(ticket, Lookup::Resume(Box::new(pending)), now);
    }

    /// Whether no more clients may start clean before some of the homes have answered.
    pub(super) fn has_clean_lookups_max(&self) -> bool {
        self.lookups.len() - self.seeking.len() >= CLEAN_LOOKUPS_MAX
    }

    fn put_lookup(&mut self, ticket: u64, lookup: Lookup) {
        if let Some(client) = lookup.waiting() {
            self.seeking.insert(client.clone(), ticket);
        }
        self.lookups.insert(ticket, lookup);
    }

    pub(super) fn take_lookup(&mut self, ticket: u64) -> Option<Lookup> {
        let lookup = self.lookups.remove(&ticket)?;
        if let Some(client) = lookup.waiting() {
            self.seeking.remove(client);
        }
        Some(lookup)
    }

    /// Panics if a client that waits is not found by its look-up, or by more than one.
    pub(super) fn check_lookups(&self) {
        let waiting = self.lookups.iter().filter_map(|(ticket, it)| Some((it.waiting()?, *ticket)));
        let mut count = 0;
        for (client, ticket) in waiting {
            count += 1;
            assert_eq!(self.seeking.get(client), Some(&ticket));
        }
        assert_eq!(self.seeking.len(), count);
    }

    pub(super) fn ask_homes(&mut self, ticket: u64, lookup: Lookup, now: Now) {
        let client = match &lookup {
            Lookup::Resume(pending) | Lookup::Again(pending) => pending.client.clone(),
            Lookup::Clean(client) => client.clone(),
        };
        self.put_lookup(ticket, lookup);
        self.timers.insert((now.mono + LOOKUP_LIMIT, Timer::Lookup(ticket)));
        let mail = HubMail::Lookup { shard: self.config.index, ticket, client };
        self.turn.outputs.push_back(Output::Hub(mail));
    }

    /// The homes of a session said who owns it, as far as they know.
    pub(super) fn lookup_answered(
        &mut self,
        ticket: u64,
        entry: Option<Box<RegistryEntry>>,
        complete: bool,
        now: Now,
    ) {
        let Some(lookup) = self.take_lookup(ticket) else { return };
        match lookup {
            Lookup::Clean(client) => self.claim_clean(&client, entry, now),
            Lookup::Resume(pending) | Lookup::Again(pending) => {
                if !self.conns.contains_key(&pending.conn) {
                    return;
                }
                let open = self.found(&pending.client, now);
                let unconfirmed = open
                    .and_then(|no| self.sessions.get(&no))
                    .is_some_and(|session| session.moving.unconfirmed);
                let known = entry.is_some() && !unconfirmed;
                if (open.is_none() || unconfirmed)
                    && !known
                    && !complete
                    && now.mono < pending.deadline
                {
                    // Who knows the session may be in reach in a moment, after a start say.
                    let again = self.number();
                    self.put_lookup(again, Lookup::Again(pending));
                    self.timers.insert((now.mono + LOOKUP_AGAIN, Timer::Lookup(again)));
                    return;
                }
                if let Some(no) = open {
                    // It is confirmed, or another connection of the client was quicker.
                    self.confirm(no, entry);
                    return self.place(*pending, now);
                }
                self.resume_from(*pending, entry, now);
            }
        }
    }

    /// The homes of a session of this node said what they know of it.
    fn confirm(&mut self, no: SessionNo, entry: Option<Box<RegistryEntry>>) {
        let node = self.config.node;
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if let Some(moves) = session.moving.kept() {
            moves.unconfirmed = false;
        }
        session.moving.tidy();
        let Some(theirs) = entry else { return };
        let owner = theirs.owner.marker;
        if owner > session.claim && owner.node != node {
            session.moving.change().superseded = session.moving.superseded.max(Some(owner));
        }
        let Some(ours) = &mut session.entry else { return };
        if let Err(error) = ours.merge(*theirs) {
            tracing::warn!(%error, "what the homes know of a session was not merged");
        }
    }

    /// The hub is gone, or it is time to ask it again.
    pub(super) fn lookup_timeout(&mut self, ticket: u64, now: Now) {
        match self.lookups.get(&ticket) {
            Some(Lookup::Again(_)) => self.ask_again(ticket, now),
            Some(Lookup::Resume(_) | Lookup::Clean(_)) | None => {
                self.lookup_answered(ticket, None, true, now);
            }
        }
    }

    /// Asks the homes of sessions that could not be asked, now that a link came up.
    pub(super) fn ask_all_again(&mut self, now: Now) {
        let again = |(ticket, lookup): (&u64, &Lookup)| match lookup {
            Lookup::Again(_) => Some(*ticket),
            Lookup::Resume(_) | Lookup::Clean(_) => None,
        };
        let all: Vec<u64> = self.lookups.iter().filter_map(again).collect();
        for ticket in all {
            self.ask_again(ticket, now);
        }
    }

    fn ask_again(&mut self, ticket: u64, now: Now) {
        if let Some(Lookup::Again(pending)) = self.take_lookup(ticket) {
            let ticket = self.number();
            self.ask_homes(ticket, Lookup::Resume(pending), now);
        }
    }

    /// A client started clean here: whoever owned its session must hear of a greater claim.
    fn claim_clean(&mut self, client: &ClientKey, entry: Option<Box<RegistryEntry>>, now: Now) {
        let Some(no) = self.found(client, now) else { return };
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let Some(mut entry) = entry else {
            return self.put_registry(no);
        };
        if entry.owner.marker >= session.claim {
            session.claim = entry.owner.marker.superseded_by(self.config.node);
        }
        entry.claim(session.claim, true);
        // What older logs hold is not wanted, wherever they are.
        let older: Vec<Claim> = entry.open_fragments().filter(|f| *f != session.claim).collect();
        for fragment in older {
            entry.mark_drained(fragment);
        }
        session.note_subscriptions(&mut entry);
        session.entry = Some(Replica::new(*entry));
        if session.is_durable() {
            self.turn.put_session(session);
        }
        self.put_registry(no);
    }
}

impl Lookup {
    /// The client that is not served before the answer.
    fn waiting(&self) -> Option<&ClientKey> {
        match self {
            Self::Resume(pending) | Self::Again(pending) => Some(&pending.client),
            // Served already; its answer is for an older session elsewhere.
            Self::Clean(_) => None,
        }
    }
}
