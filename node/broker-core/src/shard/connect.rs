//! CONNECT (MQTT 5.0, 3.1 and 3.2): new, resumed, taken over, or sought at other nodes.
//!
//! | clean start | session here | then |
//! |---|---|---|
//! | 1 | any | it is discarded; a new one; an older one elsewhere hears of it later |
//! | 0 | open | resumed |
//! | 0 | open, first since a start | its homes are asked whether it was served elsewhere meanwhile |
//! | 0 | handed over | claimed back from the node that has it |
//! | 0 | none, no mesh | a new one |
//! | 0 | none, mesh | its homes are asked; an owner hands it over, else a new one |
//!
//! Only those that ask wait, and never longer than the configuration says.

use std::sync::Arc;

use bytes::Bytes;
use verge_mesh_proto::crdt::sessions::{FragmentState, RegistryEntry};
use verge_model::{Claim, ClientKey, Millis, Now};
use verge_mqtt_proto::session::{StreamTag, Will};
use verge_mqtt_proto::topic::alias::OutboundAliases;
use verge_mqtt_proto::{
    Connack, ConnackProperties, Connect, Granted, OwnedPublishProperties, QoS, ReasonCode,
    TopicName,
};

use super::admit::Meter;
use super::api::{ConnId, HubMail, Output, SessionNo};
use super::authenticate::Authentication;
use super::claimant::new_fragment;
use super::connection::{Conn, Phase};
use super::due::{Due, Moment};
use super::replica::Replica;
use super::session::Session;
use super::turn::Effect;
use super::{Lookup, Shard};
use crate::authn::scram::METHOD;
use crate::parked::Counted;

/// "If the Session Expiry Interval is 0xFFFFFFFF, the Session does not expire." (3.1.2.11.2)
const NEVER_EXPIRES: u32 = u32::MAX;

/// A CONNECT that waits.
#[derive(Debug)]
pub(super) struct PendingConnect {
    pub(super) conn: ConnId,
    pub(super) client: ClientKey,
    pub(super) clean_start: bool,
    pub(super) expiry_secs: Option<u32>,
    pub(super) version: u8,
    pub(super) will: Option<Box<Will>>,
    /// When waiting ends.
    pub(super) deadline: Millis,
}

impl Shard {
    pub(super) fn handle_connect(&mut self, id: ConnId, connect: &Connect<'_>, now: Now) {
        if self.shutting_down {
            return self.send_away(id, now);
        }
        if let Some(reason) = self.config.terms.refuses_will(connect) {
            return self.refuse_connect(id, reason, now);
        }
        let qos_max = self.config.qos_max;
        if connect.version.is_v5() && connect.will.as_ref().is_some_and(|will| will.qos > qos_max) {
            // "If a Server receives a CONNECT packet containing a Will QoS that exceeds its
            // capabilities, it MUST reject the connection." [MQTT-3.2.2-12]
            return self.refuse_connect(id, ReasonCode::QosNotSupported, now);
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.phase = Phase::Waiting;
        conn.clean_start = connect.clean_start;
        conn.client_id_assigned = connect.client_id.is_empty();
        conn.keep_alive_secs = conn.machine.server_keep_alive().unwrap_or(connect.keep_alive_secs);
        if self.shared.extensions.keep_user() {
            conn.user = connect.username.map(|name| Box::new(name.into()));
        }
        let (principal, proof) = match self.proof_of(id, connect) {
            Ok(claimed) => claimed,
            Err(reason) => return self.refuse_connect(id, reason, now),
        };
        let client_id: Arc<str> = match connect.client_id {
            "" => self.assign_client_id(&principal),
            given => given.into(),
        };
        let client = ClientKey { principal, client_id };
        let version = connect.version;
        let mut will = connect.will.as_ref().map(|will| {
            Box::new(Will {
                topic: TopicName::parse(will.topic).expect("the codec checked the Will Topic"),
                payload: Bytes::copy_from_slice(will.payload),
                qos: will.qos,
                retain: will.retain,
                delay_secs: will.properties.will_delay_interval.unwrap_or(0),
                message_expiry_secs: will.properties.message_expiry_interval,
                properties: OwnedPublishProperties::from(&will.properties),
            })
        });
        if let Some(will) = &mut will {
            will.qos = will.qos.min(self.config.qos_max);
            will.retain &= self.config.terms.retain_available;
        }
        let mut pending = PendingConnect {
            conn: id,
            expiry_secs: self.granted_expiry(connect),
            version: version.level(),
            clean_start: connect.clean_start,
            will,
            deadline: now.mono,
            client: client.clone(),
        };
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.client = Some(client);
        }
        self.promise_by_rule(id);
        if self.shared.extensions.rewrites.of_publish()
            && let (Some(will), Some(facts)) = (&mut pending.will, self.facts(id))
        {
            will.topic = self.rewritten_topic(will.topic.clone(), &facts);
        }
        self.prove(pending, proof, now);
    }

    /// The session's expiry: what the client asks for, within what is configured.
    fn granted_expiry(&self, connect: &Connect<'_>) -> Option<u32> {
        if !connect.version.is_v5() {
            return if connect.clean_start { Some(0) } else { self.config.v3_session_expiry_secs };
        }
        let asked = connect.properties.session_expiry_interval.unwrap_or(0);
        match self.config.session_expiry_secs_max {
            Some(max) => Some(asked.min(max)),
            None => (asked != NEVER_EXPIRES).then_some(asked),
        }
    }

    /// A ClientId for a client that brought none, which this shard serves [MQTT-3.1.3-6].
    fn assign_client_id(&mut self, principal: &Arc<str>) -> Arc<str> {
        loop {
            // SplitMix64: the ids need to be distinct and not guessable by counting.
            self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.seed;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let client_id: Arc<str> = format!("verge-{:016x}", mixed ^ (mixed >> 31)).into();
            let key =
                ClientKey { principal: Arc::clone(principal), client_id: Arc::clone(&client_id) };
            let here = super::api::ShardIndex::of(&key, self.config.count) == self.config.index;
            if here && self.open_of(&key).is_none() {
                return client_id;
            }
        }
    }

    /// Finds, makes or seeks the session of a CONNECT.
    pub(super) fn place(&mut self, pending: PendingConnect, now: Now) {
        let client = pending.client.clone();
        self.give_up_earlier(&client, now);
        let open = match self.find(&client, now) {
            Ok(open) => open,
            Err(error) => {
                // No fresh session in place of one that may be there.
                self.shared.parked.add(Counted::Unread, 1);
                tracing::error!(%error, "whether a client has a session could not be read");
                return self.refuse_connect(pending.conn, ReasonCode::ServerUnavailable, now);
            }
        };
        if let Some(no) = open {
            self.take_over_here(no, now);
            let session = self.sessions.get(&no);
            if !pending.clean_start && session.is_some_and(|session| session.moving.unconfirmed) {
                return self.seek(pending, now);
            }
            if !pending.clean_start && session.is_some() {
                return self.resume(no, pending, now);
            }
            let claim = self.sessions.get(&no).map(|session| session.claim);
            self.end_session(no, crate::ledger::Settled::Discarded, now);
            let claim = claim.unwrap_or_default().superseded_by(self.config.node);
            return self.begin(claim, pending, now);
        }
        let given_away = self.sealed_of(&client).or_else(|| self.pointer_of(&client));
        let first = Claim { epoch: 1, node: self.config.node };
        if !self.config.mesh {
            return self.begin(first, pending, now);
        }
        if pending.clean_start {
            if self.has_clean_lookups_max() {
                return self.refuse_connect(pending.conn, ReasonCode::ConnectionRateExceeded, now);
            }
            let claim = given_away.map_or(first, |to| to.superseded_by(self.config.node));
            self.begin(claim, pending, now);
            let ticket = self.number();
            self.ask_homes(ticket, Lookup::Clean(client), now);
            return;
        }
        self.seek(pending, now);
    }

    /// Claims a session that other nodes know, or makes a new one.
    pub(super) fn resume_from(
        &mut self,
        mut pending: PendingConnect,
        entry: Option<Box<RegistryEntry>>,
        now: Now,
    ) {
        let given_away =
            self.sealed_of(&pending.client).or_else(|| self.pointer_of(&pending.client));
        let mut entry = match (entry, given_away) {
            (Some(entry), _) => entry,
            (None, Some(to)) => Box::new(RegistryEntry::new(to, false)),
            (None, None) => {
                let first = Claim { epoch: 1, node: self.config.node };
                return self.begin(first, pending, now);
            }
        };
        let owner = entry.owner.marker.max(given_away.unwrap_or_default());
        let claim = owner.superseded_by(self.config.node);
        let was_clean_elsewhere = entry.owner.val.clean && entry.subscriptions().is_empty();
        let open = |(fragment, state): (&Claim, &FragmentState)| {
            (*state == FragmentState::Open).then_some(*fragment)
        };
        let mut fragments: Vec<Claim> = entry.fragments.iter().filter_map(open).collect();
        if !fragments.contains(&owner) && !was_clean_elsewhere {
            fragments.push(owner);
        }
        entry.claim(claim, false);
        let no = self.shared.next_session_no();
        let mut session = Session::new(
            no,
            pending.client.clone(),
            claim,
            pending.expiry_secs,
            pending.version,
            &self.config,
        );
        session.leave.failures = self.parking.failures();
        for fragment in fragments {
            session
                .moving
                .change()
                .fragments
                .insert(fragment, new_fragment(fragment == owner, now));
        }
        session.moving.change().claiming = Some(owner);
        session.outbound.keep_near();
        session.remember_from(now);
        session.entry = Some(Replica::new(*entry));
        session.moving.change().hold_until = Some(now.mono + self.config.handover_unreachable_wait);
        session.hold();
        pending.deadline = now.mono + self.config.handover_unreachable_wait;
        session.pending = Some(Box::new(pending));
        self.turn.put_session(&mut session);
        self.open.insert(&session.client, no);
        self.sessions.insert(Box::new(session));
        self.shared.counters.handover_started(1);
        self.turn.promise(self.storage_promise());
        self.turn.when_durable(Effect::Claimed { session: no });
        self.arm(no);
    }

    /// Serves the waiting CONNECT of a session, whose state is now known as well as it will be.
    pub(super) fn admit_pending(&mut self, no: SessionNo, session_present: bool, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let Some(pending) = session.pending.take() else { return };
        if !session_present {
            // The client forgets what it had; so do we, but for what comes with open fragments.
            let filters: Vec<_> = session.subscriptions.keys().cloned().collect();
            session.subscriptions.clear();
            if let Some(streams) = &mut session.streams {
                streams.detached.clear();
            }
            if let Some(replica) = &mut session.entry {
                filters.iter().for_each(|filter| replica.note(filter.clone()));
            }
            for filter in filters {
                self.turn.batch.delete_subscription(no.0, filter.as_str());
                self.unroute(no, StreamTag::CONTROL, &filter);
            }
        }
        self.attach(no, *pending, session_present, now);
    }

    /// Makes a new session for a CONNECT.
    fn begin(&mut self, claim: Claim, pending: PendingConnect, now: Now) {
        let no = self.shared.next_session_no();
        let mut session = Session::new(
            no,
            pending.client.clone(),
            claim,
            pending.expiry_secs,
            pending.version,
            &self.config,
        );
        session.leave.failures = self.parking.failures();
        if self.config.mesh && session.is_durable() {
            session.entry = Some(Replica::new(RegistryEntry::new(claim, pending.clean_start)));
        }
        self.open.insert(&session.client, no);
        self.sessions.insert(Box::new(session));
        self.attach(no, pending, false, now);
    }

    /// Resumes an open session of this node.
    fn resume(&mut self, no: SessionNo, pending: PendingConnect, now: Now) {
        let deadline = now.mono + self.config.handover_unreachable_wait;
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if session.moving.claiming.is_some() {
            // It is being claimed for an earlier connection of the client, which is gone now.
            session.pending = Some(Box::new(PendingConnect { deadline, ..pending }));
            return self.arm(no);
        }
        if let Some(winner) = session.moving.superseded {
            // It went elsewhere, and now its client is here: it is claimed back.
            session.moving.change().claiming = Some(winner);
            session.pending = Some(Box::new(PendingConnect { deadline, ..pending }));
            return self.claim_again(no, winner, now);
        }
        self.attach(no, pending, true, now);
    }

    /// Gives a session its connection; CONNACK goes out when the session is stored.
    fn attach(&mut self, no: SessionNo, pending: PendingConnect, session_present: bool, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if !self.conns.contains_key(&pending.conn) {
            // The client did not wait. What was claimed for it stays, as after a lost connection.
            session.will = None;
            return self.park(no, now);
        }
        let was_durable = session.is_durable();
        session.expiry_secs = pending.expiry_secs;
        session.protocol_version = pending.version;
        session.will = pending.will;
        session.will_due = Due::NEVER;
        session.disconnected_at = Moment::NONE;
        session.expires_due = Due::NEVER;
        session.conn = Some(pending.conn);
        let durable = session.is_durable();
        if durable && self.config.mesh && session.entry.is_none() {
            let mut entry = RegistryEntry::new(session.claim, false);
            session.note_subscriptions(&mut entry);
            session.entry = Some(Replica::new(entry));
        }
        if durable || was_durable {
            self.turn.put_session(session);
        }
        if durable != was_durable {
            let filters: Vec<_> = session.subscriptions.keys().cloned().collect();
            self.shared.router.set_durable(no, &filters, durable);
        }
        let effect = Effect::Connected { conn: pending.conn, session: no, session_present };
        if durable || self.turn.is_waiting() {
            self.turn.promise(self.storage_promise());
            self.turn.when_durable(effect);
        } else {
            self.effect_durable(effect, now);
        }
        if durable {
            self.put_registry(no);
        }
        self.arm(no);
    }

    /// The session is stored: say CONNACK, then what is owed.
    pub(super) fn connected(&mut self, id: ConnId, no: SessionNo, session_present: bool, now: Now) {
        let Self { conns, sessions, config, .. } = self;
        let Some(conn) = conns.get_mut(&id) else { return };
        let Some(session) = sessions.get_mut(&no).filter(|s| s.conn == Some(id)) else { return };
        let server_keep_alive = conn.machine.server_keep_alive();
        // Only to a client that brought none [MQTT-3.2.2-16]; others take it for an error.
        let assigned = conn.client.as_ref().filter(|_| conn.client_id_assigned);
        let assigned = assigned.map(|client| Arc::clone(&client.client_id));
        // Only to a client that asked. [MQTT-3.1.2-28]
        let response_information = config.terms.response_information.as_deref();
        let response_information =
            response_information.filter(|_| conn.machine.client_wants_response_information());
        let answer = conn.auth.as_deref_mut().and_then(Authentication::take_answer);
        let properties = ConnackProperties {
            authentication_method: answer.as_ref().map(|_| METHOD),
            authentication_data: answer.as_deref().map(str::as_bytes),
            session_expiry_interval: Some(session.expiry_secs.unwrap_or(NEVER_EXPIRES)),
            receive_maximum: Some(config.receive_maximum),
            maximum_qos: (config.qos_max != QoS::ExactlyOnce).then_some(config.qos_max),
            maximum_packet_size: u32::try_from(config.packet_bytes_max).ok(),
            assigned_client_identifier: assigned.as_deref(),
            topic_alias_maximum: Some(config.topic_alias_maximum),
            server_keep_alive,
            response_information,
            ..config.terms.in_connack()
        };
        if !conn.write_connack(Connack::accepted(session_present, properties)) {
            return self.refuse_unsayable(id, no, now);
        }
        conn.machine.accept(Granted { server_keep_alive }, now.mono);
        let aliases =
            conn.machine.client_topic_alias_maximum().min(config.terms.topic_alias_maximum_out);
        conn.aliases = (aliases > 0).then(|| Box::new(OutboundAliases::new(aliases)));
        conn.meter = Meter::of(&config.terms, config.packet_bytes_max, now.mono);
        conn.phase = Phase::Serving(no);
        conn.connected_at = now.wall;
        let receive_maximum = conn.machine.client_receive_maximum().min(config.inflight_max);
        session.outbound.connected(receive_maximum);
        self.shared.router.set_online(no, session.groups(), true);
        self.shared.counters.connect_accepted(1);
        self.mark_dirty(id);
        self.arm_connection(id, now);
        self.turn.outputs.push_back(Output::Feed(id));
        self.feed_streams(id);
        self.event_connected(id, no, now);
        self.auto_subscribe(id, no, now);
        self.pump(no, now);
    }

    /// Refuses a CONNECT.
    pub(super) fn refuse_connect(&mut self, id: ConnId, reason: ReasonCode, now: Now) {
        self.shared.counters.connect_refused(reason.name());
        self.disconnect(id, reason, now);
    }

    /// Ends an earlier CONNECT of the same client that still waits for the homes.
    fn give_up_earlier(&mut self, client: &ClientKey, now: Now) {
        let ticket = self.seeking.get(client).copied();
        if let Some(Lookup::Resume(pending) | Lookup::Again(pending)) =
            ticket.and_then(|ticket| self.take_lookup(ticket))
        {
            self.disconnect(pending.conn, ReasonCode::SessionTakenOver, now);
        }
    }

    /// Ends the connection that serves, or waits for, a session of this node [MQTT-3.1.4-3].
    fn take_over_here(&mut self, no: SessionNo, now: Now) {
        let Some(session) = self.sessions.get(&no) else { return };
        let waiting = session.pending.as_ref().map(|pending| pending.conn);
        for conn in session.conn.into_iter().chain(waiting) {
            self.disconnect(conn, ReasonCode::SessionTakenOver, now);
        }
    }

    /// The next number for a question to the hub.
    pub(super) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// Tells a session's homes what this node knows of it.
    pub(super) fn put_registry(&mut self, no: SessionNo) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        session.say_all();
        let Some(entry) = session.entry.as_ref().map(|replica| replica.entry()) else { return };
        if session.is_durable() {
            self.turn.put_session(session);
        }
        let client = session.client.clone();
        self.register(client, entry);
    }

    /// Tells a session's homes, once it is stored here: a dot of the entry that others know and
    /// this disk does not would be given twice.
    pub(super) fn register(&mut self, client: ClientKey, entry: Box<RegistryEntry>) {
        if self.turn.is_waiting() {
            self.turn.promise(self.storage_promise());
            self.turn.when_durable(Effect::Registered { client, entry });
        } else {
            let mail = HubMail::PutRegistry { client, entry };
            self.turn.outputs.push_back(Output::Hub(mail));
        }
    }

    /// The claim for which the newest log of a client was sealed here.
    pub(super) fn sealed_of(&self, client: &ClientKey) -> Option<Claim> {
        let from = (client.clone(), Claim::default());
        let logs = self.sealed.range(from..).take_while(|((other, _), _)| other == client);
        logs.filter_map(|(_, no)| match &self.sessions.get(no)?.ownership {
            super::session::Ownership::Sealed(sealed) => Some(sealed.to),
            super::session::Ownership::Open => None,
        })
        .max()
    }

    fn pointer_of(&self, client: &ClientKey) -> Option<Claim> {
        self.pointers.get(client)
    }
}

impl Conn {
    /// Whether the connection has no CONNACK yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.session().is_none()
    }
}
