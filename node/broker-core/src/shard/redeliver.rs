//! What a member of a shared subscription leaves to the others (MQTT 5.0, 4.8.2).
//!
//! | the member | what goes to another | if there is no other |
//! |---|---|---|
//! | unsubscribes | what was not sent | it stays with the member |
//! | ends its session | what was not sent, and QoS 1 not acknowledged | it is gone with the session |
//! | loses its connection, if so configured | the same, if another is connected | it waits for the member |
//!
//! A QoS 2 message that was sent goes to nobody else [MQTT-4.8.2-4, MQTT-4.8.2-5], nor does one that
//! a member refused [MQTT-4.8.2-6]. The rows of the old debt go and those of the new one come in one
//! batch.

use std::sync::Arc;

use verge_model::Now;
use verge_mqtt_proto::session::{Entry, InflightState, StreamTag};
use verge_mqtt_proto::{PacketId, QoS, TopicFilter};

use super::Shard;
use super::api::{HubMail, Output, SessionNo};
use super::turn::Effect;
use crate::debts;
use crate::ledger::Settled;
use crate::planner::{Deliveries, Moved, MovedMessage};
use crate::router::Redeliver;

/// Entries, with packet id and state of those in flight.
type Entries = Vec<(Entry, Option<(PacketId, InflightState)>)>;

impl Shard {
    /// Gives messages of groups to other members, and returns those that stay: of no group, in
    /// flight at QoS 2, or without another member. With `awake`, only members that are connected,
    /// or of a node in reach, are others.
    pub(super) fn redeliver(
        &mut self,
        no: SessionNo,
        entries: Entries,
        awake: bool,
        now: Now,
    ) -> Entries {
        if entries.iter().all(|(entry, _)| entry.share.is_none()) {
            return entries;
        }
        let mut stay = Vec::new();
        let mut deliveries = Deliveries::new();
        for (entry, inflight) in entries {
            let begun = inflight.is_some() && entry.qos == QoS::ExactlyOnce;
            let expired = entry.message.is_expired(now.wall);
            let Some(group) = entry.share.as_deref().filter(|_| !begun && !expired) else {
                stay.push((entry, inflight));
                continue;
            };
            let message = MovedMessage { message: &entry.message, group, hops: 0 };
            let batch = &mut self.turn.batch;
            match self.planner.give_other(message, awake, now, batch) {
                None => {
                    stay.push((entry, inflight));
                    continue;
                }
                Some(Moved::Here(shard, delivery)) => deliveries.push((shard, delivery)),
                Some(Moved::Forwarded) => {}
                Some(Moved::Transient(to, class, record)) => {
                    let mail = HubMail::Transient { to, class, record };
                    self.turn.outputs.push_back(Output::Hub(mail));
                }
            }
            debts::delete(no, &entry, &mut self.turn.batch);
            self.shared.ledger.settle(Settled::Redelivered, entry.message.class, 1);
        }
        if !deliveries.is_empty() {
            self.turn.promise(self.storage_promise());
            self.turn.when_durable(Effect::Redeliver(deliveries));
        }
        stay
    }

    /// A stream of a session has unsubscribed from a group.
    pub(super) fn member_left(
        &mut self,
        no: SessionNo,
        tag: StreamTag,
        filter: &TopicFilter,
        now: Now,
    ) {
        if filter.share().is_none() {
            return;
        }
        self.recall_shares(no, now);
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let streams = session.streams.as_deref();
        let earlier = |of| streams.is_some_and(|streams| streams.is_earlier(of));
        let here = |of| of == tag || (tag.is_control() && earlier(of));
        let taken = session.outbound.take_shared(false, |group, of| group == filter && here(of));
        self.redeliver_or_keep(no, taken, false, now);
    }

    /// Whether messages of groups are for other members, if one is connected, since this one's
    /// connection is lost.
    pub(super) fn is_away(&self, no: SessionNo) -> bool {
        let waits = self.shared.router.shared_settings().redeliver == Redeliver::SessionEnd;
        !waits
            && self.sessions.get(&no).is_some_and(|session| {
                session.conn.is_none()
                    && !session.is_sealed()
                    && session.moving.seen.until.is_none()
                    && session.moving.fragments.is_empty()
            })
    }

    /// A session that goes on has lost its connection.
    pub(super) fn member_away(&mut self, no: SessionNo, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let router = &self.shared.router;
        router.set_online(no, session.groups(), false);
        let waits = router.shared_settings().redeliver == Redeliver::SessionEnd;
        // Copies of what is merged may still come, and would be taken for new ones.
        if waits || session.moving.seen.until.is_some() || !session.moving.fragments.is_empty() {
            return;
        }
        self.recall_shares(no, now);
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let taken = session.outbound.take_shared(true, |_, _| true);
        self.redeliver_or_keep(no, taken, true, now);
    }

    /// Messages of groups are looked for in memory.
    fn recall_shares(&mut self, no: SessionNo, now: Now) {
        if self.sessions.get(&no).is_some_and(|session| session.outbound.has_shares_away()) {
            self.recall(no, now);
        }
    }

    fn redeliver_or_keep(&mut self, no: SessionNo, entries: Entries, awake: bool, now: Now) {
        let stay = self.redeliver(no, entries, awake, now);
        let Some(session) = self.sessions.get_mut(&no) else { return };
        for (entry, inflight) in stay {
            match inflight {
                Some((id, state)) => session.outbound.push_inflight(id, entry, state),
                None => session.outbound.push(entry),
            }
        }
    }
}

/// The group a stored or imported entry is of.
pub(super) fn share_of(text: Option<Arc<str>>) -> Option<Arc<TopicFilter>> {
    text.and_then(|text| TopicFilter::try_from(text).ok()).map(Arc::new)
}
