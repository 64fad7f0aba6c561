//! Messages owed to sessions of this shard, outward (MQTT 5.0, 4.3, 4.4, 4.9).

use verge_model::{Class, Now};
use verge_mqtt_proto::message::Message;
use verge_mqtt_proto::session::{Entry, Inflight, OrderKey, Received, Step, Stored};
use verge_mqtt_proto::topic::alias::{AliasUse, SET_BYTES_MAX};
use verge_mqtt_proto::{Ack, AckKind, Encode, PacketId, Publish, PublishParts, QoS, ReasonCode};
use verge_storage::key::LANE_OWN;
use verge_storage::{Batch, StoreError};

use super::Shard;
use super::api::{Delivery, HubMail, Output, SessionNo, StreamNo};
use super::connection::Conn;
use super::session::Session;
use super::streams::acknowledges;
use super::streams::api::Via;
use super::tally::Tally;
use super::turn::{Effect, Turn};
use crate::debts;
use crate::drops::Dropped;
use crate::ledger::{DropReason, Qos0Drop, Settled};
use crate::planner::Deliveries;
use crate::shared::NodeShared;

impl Shard {
    /// Puts a plan's deliveries where they belong: into this shard's sessions, or into the mail.
    pub(super) fn hand_out(&mut self, deliveries: Deliveries, now: Now) {
        for (shard, delivery) in deliveries {
            if shard == self.config.index {
                self.take_delivery(delivery, now);
            } else {
                self.turn.mail(shard, delivery);
            }
        }
    }

    /// Takes on one debt.
    pub(super) fn take_delivery(&mut self, delivery: Delivery, now: Now) {
        let no = delivery.session;
        if delivery.stored.is_stored()
            && !self.sessions.contains_key(&no)
            && self.owes_away(&delivery, now)
        {
            return;
        }
        let Some(session) = self.sessions.get_mut(&no) else {
            if delivery.qos != QoS::AtMostOnce {
                self.tally.accepted(delivery.message.class);
                let settled = Settled::Dropped(DropReason::SessionEnded);
                let left = self.redeliver(no, vec![(entry_of(delivery), None)], false, now);
                for (entry, _) in left {
                    self.shared.ledger.settle(settled, entry.message.class, 1);
                    debts::delete(no, &entry, &mut self.turn.batch);
                }
            }
            return;
        };
        if delivery.qos == QoS::AtMostOnce {
            self.send_now(&delivery, now);
            return;
        }
        tracing::trace!(
            client_id = %session.client,
            session = no.0,
            id = %delivery.message.id,
            topic = delivery.message.topic.as_str(),
            again = session.moving.has_seen(delivery.message.id),
            sealed = session.is_sealed(),
            "delivery"
        );
        if session.moving.has_seen(delivery.message.id) && !session.is_for_another_stream(&delivery)
        {
            self.shared.counters.duplicate_suppressed(1);
            debts::delete(no, &entry_of(delivery), &mut self.turn.batch);
            return;
        }
        if session.moving.note_seen(delivery.message.id) && delivery.stored.is_stored() {
            self.turn.batch.put_seen(no.0, delivery.message.id, now.wall);
        }
        if let Some(streams) = &mut session.streams {
            streams.note_delivery(&delivery);
        }
        self.tally.accepted(delivery.message.class);
        if !delivery.tag.is_control() && self.is_for_ended_stream(&delivery) {
            let settled = Settled::Dropped(DropReason::StreamEnded);
            for (entry, _) in self.redeliver(no, vec![(entry_of(delivery), None)], false, now) {
                self.settle(no, &entry, settled, now);
            }
            return;
        }
        let mut entry = entry_of(delivery);
        // It was planned before its member's connection was lost.
        if entry.share.is_some() && self.is_away(no) {
            let mut stays = self.redeliver(no, vec![(entry, None)], true, now);
            let Some((kept, _)) = stays.pop() else { return };
            entry = kept;
        }
        let Some(entry) = self.send_at_once(no, entry, now) else { return };
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if let Err((_, entry)) = session.outbound.enqueue(entry) {
            let settled = Settled::Dropped(DropReason::QueueFull);
            self.shared.settle(settled, &session.client, &entry.message);
            debts::delete(no, &entry, &mut self.turn.batch);
            return;
        }
        let filling = session.outbound.is_filling();
        if session.is_sealed() {
            self.nudge(no);
        } else {
            self.pump(no, now);
        }
        if filling {
            self.note_filling(no, now);
        }
    }

    /// Sends a QoS 0 message, or drops it if its client is away or slow.
    pub(super) fn send_now(&mut self, delivery: &Delivery, now: Now) {
        let Some(session) = self.sessions.get(&delivery.session) else {
            // It is not in memory, so its client is not here; or it ended.
            return self.tally.dropped_qos0(Qos0Drop::Away, delivery.message.class);
        };
        let (message, shared) = (&delivery.message, &self.shared);
        let mut dropped = |reason| {
            self.tally.dropped_qos0(reason, message.class);
            shared.note_dropped(Dropped::Qos0(reason), &session.client, message);
        };
        let conn = session.conn.and_then(|id| Some((id, self.conns.get_mut(&id)?)));
        // A client that has no CONNACK yet is not there yet.
        let Some((id, conn)) = conn.filter(|(_, conn)| conn.session().is_some()) else {
            return dropped(Qos0Drop::Away);
        };
        // Nobody wants it who ended the stream it is for.
        let Some(stream) = conn.stream_of(session, delivery.tag) else { return };
        let full = conn.output_len(stream) >= self.config.output_bytes_high;
        if delivery.retain && (full || conn.replay.is_waiting()) && conn.replay.wait(delivery) {
            return;
        }
        if full {
            return dropped(Qos0Drop::OutputFull);
        }
        if stream.is_control() {
            self.spare.lend(&mut conn.out);
        }
        let parts = PublishParts {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: delivery.retain,
            packet_id: None,
            topic: delivery.message.topic.as_str(),
            subscription_ids: &delivery.subscription_ids,
            topic_alias: None,
            message_expiry_interval: delivery.message.expiry_interval_left(now.wall),
            properties: &delivery.message.properties,
            payload: &delivery.message.payload,
        };
        if write_publish(conn, stream, delivery.message.class, parts.to_publish()) {
            self.tally.sent(QoS::AtMostOnce);
            self.shared.note_sent(&delivery.message, QoS::AtMostOnce);
            self.mark_grown(Via { conn: id, stream });
        } else {
            self.spare.take_back(&mut conn.out);
            dropped(Qos0Drop::TooLarge);
        }
    }

    /// Sends what is due and allowed to a session's client.
    pub(super) fn pump(&mut self, no: SessionNo, now: Now) {
        self.pump_near(no, now);
        while self.refill(no, now) {
            self.pump_near(no, now);
        }
    }

    /// Sends what of it is in memory.
    fn pump_near(&mut self, no: SessionNo, now: Now) {
        let Self { sessions, conns, turn, shared, config, tally, spare, .. } = self;
        let Some(session) = sessions.get_mut(&no) else { return };
        let Some(id) = session.conn.filter(|_| session.outbound.may_send()) else { return };
        let Some(conn) = conns.get_mut(&id) else { return };
        if conn.streams.is_some() {
            return self.pump_streams(no, now);
        }
        spare.lend(&mut conn.out);
        let mut written = false;
        while conn.out.len() < config.output_bytes_high {
            // What expired, or is larger than the client takes, is settled without being sent
            // [MQTT-3.3.2-5, MQTT-3.1.2-25].
            if let Some((entry, settled)) = drop_unsendable(session, conn, now) {
                tally.settled(settled, &session.client, &entry.message, shared);
                settle_row(session, &entry, now, &mut turn.batch);
                continue;
            }
            let Some(step) = session.outbound.next_step() else { break };
            match step {
                Step::Publish(packet_id) => {
                    let sent = first_publish(session, conn, packet_id, turn, (tally, shared), now);
                    written |= sent.is_some();
                }
                Step::PublishAgain(packet_id) => {
                    written |= send_inflight(session, conn, packet_id, now).is_some();
                }
                Step::ReleaseAgain(packet_id) => written |= write_pubrel(conn, packet_id),
            }
        }
        if written {
            self.mark_dirty(id);
        } else {
            spare.take_back(&mut conn.out);
        }
    }

    pub(super) fn handle_puback(
        &mut self,
        via: Via,
        no: SessionNo,
        packet_id: PacketId,
        success: bool,
        now: Now,
    ) {
        let Self { sessions, conns, turn, shared, tally, .. } = self;
        let Some(session) = sessions.get_mut(&no) else { return };
        if !acknowledges(session, conns, via, packet_id) {
            return;
        }
        if let Some(entry) = session.outbound.handle_puback(packet_id) {
            // Refused or not, the debt ends: nobody else gets the message [MQTT-4.8.2-6].
            let settled = match success {
                true => Settled::Delivered,
                false => Settled::Dropped(DropReason::Refused),
            };
            tally.settled(settled, &session.client, &entry.message, shared);
            settle_row(session, &entry, now, &mut turn.batch);
        }
        let more = session.outbound.may_send();
        self.owes_less(no, more, now);
    }

    pub(super) fn handle_pubrec(
        &mut self,
        via: Via,
        no: SessionNo,
        packet_id: PacketId,
        success: bool,
        now: Now,
    ) {
        let Self { sessions, conns, .. } = self;
        let Some(session) = sessions.get_mut(&no) else { return };
        if !acknowledges(session, conns, via, packet_id) {
            let reason = ReasonCode::PacketIdentifierNotFound;
            return self.acknowledge(via, AckKind::Pubrel, packet_id, reason);
        }
        match session.outbound.handle_pubrec(packet_id, success) {
            Received::Release => {
                let found = session.outbound.inflight(packet_id);
                if let Some(inflight) = found.filter(|found| found.entry.stored.is_stored()) {
                    let batch = &mut self.turn.batch;
                    debts::put_inflight(no, &inflight.entry, packet_id, true, batch);
                    session.outbound.mark(packet_id);
                    let promise = self.conns.get(&via.conn).map(|conn| conn.listener.promise);
                    self.turn.promise(promise.unwrap_or_default());
                    self.turn.when_durable(Effect::Release { via, packet_id });
                } else {
                    self.acknowledge(via, AckKind::Pubrel, packet_id, ReasonCode::Success);
                }
            }
            Received::Refused(entry) => {
                let settled = Settled::Dropped(DropReason::Refused);
                self.settle(no, &entry, settled, now);
                self.pump(no, now);
                self.note_drained(no, now);
            }
            Received::Unknown => {
                let reason = ReasonCode::PacketIdentifierNotFound;
                self.acknowledge(via, AckKind::Pubrel, packet_id, reason);
            }
        }
    }

    pub(super) fn handle_pubcomp(
        &mut self,
        via: Via,
        no: SessionNo,
        packet_id: PacketId,
        now: Now,
    ) {
        let Self { sessions, conns, turn, shared, tally, .. } = self;
        let Some(session) = sessions.get_mut(&no) else { return };
        if !acknowledges(session, conns, via, packet_id) {
            return;
        }
        if let Some(entry) = session.outbound.handle_pubcomp(packet_id) {
            tally.settled(Settled::Delivered, &session.client, &entry.message, shared);
            settle_row(session, &entry, now, &mut turn.batch);
        }
        let more = session.outbound.may_send();
        self.owes_less(no, more, now);
    }

    /// Ends a debt, and with it its row.
    pub(super) fn settle(&mut self, no: SessionNo, entry: &Entry, settled: Settled, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        self.tally.settled(settled, &session.client, &entry.message, &self.shared);
        settle_row(session, entry, now, &mut self.turn.batch);
    }

    /// Does what waited for a batch that is now durable.
    pub(super) fn effect_durable(&mut self, effect: Effect, now: Now) {
        match effect {
            Effect::Deliver(deliveries) | Effect::Redeliver(deliveries) => {
                self.hand_out(deliveries, now);
            }
            Effect::Waits(delayed) => self.wait_until_due(*delayed),
            Effect::Published(delayed) => self.delayed_published(&delayed),
            Effect::Acknowledge { via, kind, packet_id, reason } => {
                self.acknowledge(via, kind, packet_id, reason);
            }
            Effect::Publish { session: no, packet_id } => {
                let Some(session) = self.sessions.get_mut(&no) else { return };
                let Some(id) = session.conn else { return };
                // A connection that came meanwhile is told of it after its CONNACK.
                let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.session().is_some())
                else {
                    return;
                };
                if let Some(stream) = send_inflight(session, conn, packet_id, now) {
                    self.tally.sent(QoS::ExactlyOnce);
                    if let Some(inflight) = session.outbound.inflight(packet_id) {
                        self.shared.note_sent(&inflight.entry.message, QoS::ExactlyOnce);
                    }
                    self.mark_grown(Via { conn: id, stream });
                }
            }
            Effect::Release { via, packet_id } => {
                self.acknowledge(via, AckKind::Pubrel, packet_id, ReasonCode::Success);
            }
            Effect::Packet { via, packet } => self.write_raw(via, &packet),
            Effect::FinishStream(via) => self.finish_stream(via),
            Effect::Connected { conn, session, session_present } => {
                self.connected(conn, session, session_present, now);
            }
            Effect::Handover { to, frame } => self.send_handover(to, frame),
            Effect::Registered { client, entry } => {
                let mail = HubMail::PutRegistry { client, entry };
                self.turn.outputs.push_back(Output::Hub(mail));
            }
            Effect::Claimed { session } => self.claimed(session, now),
            Effect::Barrier => self.turn.outputs.push_back(Output::Hub(HubMail::Barrier)),
            Effect::HeaderStored { session, fragment } => {
                self.header_stored(session, fragment, now);
            }
            Effect::EntriesStored { session, fragment } => {
                self.entries_stored(session, fragment, now);
            }
            Effect::Leave(sessions) => self.leave(sessions, now),
            Effect::Gone(session) => self.is_over(session),
        }
    }

    /// Takes back what waited for a batch that was not stored: nothing of it may be said.
    pub(super) fn effect_failed(&mut self, effect: Effect, error: &StoreError, now: Now) {
        match effect {
            Effect::Deliver(deliveries) => self.deliver_unstored(deliveries, now),
            // Their publishers were told long ago that they are kept.
            Effect::Redeliver(mut deliveries) => {
                for (_, delivery) in &mut deliveries {
                    delivery.stored = Stored::Nowhere;
                }
                self.hand_out(deliveries, now);
            }
            Effect::Waits(delayed) => {
                self.shared.extensions.delayed.give_back(delayed.bytes());
            }
            Effect::Published(delayed) => self.delayed_again(*delayed, now),
            Effect::Acknowledge { via, kind, packet_id, .. } => {
                self.refuse(via, kind, packet_id, now);
            }
            Effect::Connected { conn, .. } => {
                self.refuse_connect(conn, ReasonCode::ServerUnavailable, now);
            }
            Effect::Packet { via, .. } => {
                // A SUBACK or UNSUBACK that cannot be given: the client asks again.
                self.disconnect(via.conn, ReasonCode::ImplementationSpecificError, now);
            }
            // Its row may be left, as after a crash; the stream is over all the same.
            Effect::FinishStream(via) => self.finish_stream(via),
            Effect::Publish { .. } | Effect::Release { .. } => {
                // The client is told again when it connects again.
            }
            Effect::Leave(sessions) => self.stay(sessions, now),
            // Its rows are there still, and mean nothing in this life.
            Effect::Gone(_) => {}
            // What was not stored was not promised.
            Effect::Barrier => self.turn.outputs.push_back(Output::Hub(HubMail::Barrier)),
            Effect::Handover { .. }
            | Effect::Registered { .. }
            | Effect::Claimed { .. }
            | Effect::HeaderStored { .. }
            | Effect::EntriesStored { .. } => {
                tracing::warn!(%error, "a step of a handover was not stored; it is asked for again");
            }
        }
    }
}

/// The entry that stands for a delivery in its session's queue.
fn entry_of(delivery: Delivery) -> Entry {
    Entry {
        order: OrderKey { lane: LANE_OWN, seq: delivery.seq },
        message: delivery.message,
        qos: delivery.qos,
        retain: delivery.retain,
        subscription_ids: delivery.subscription_ids,
        tag: delivery.tag,
        stored: delivery.stored,
        marked: false,
        share: delivery.share,
    }
}

/// Ends the row of a debt.
pub(super) fn settle_row(session: &mut Session, entry: &Entry, now: Now, batch: &mut Batch) {
    debts::delete(session.no, entry, batch);
    if session.entry.is_some() {
        session.note_settled(entry.message.id, now.wall);
    }
}

/// Removes the entry at the front of the queue if it must not be sent.
fn drop_unsendable(session: &mut Session, conn: &Conn, now: Now) -> Option<(Entry, Settled)> {
    let settled = unsendable(conn, session.outbound.front()?, now)?;
    session.outbound.drop_front().map(|entry| (entry, settled))
}

/// Why an entry must not be sent, if it must not.
pub(super) fn unsendable(conn: &Conn, entry: &Entry, now: Now) -> Option<Settled> {
    if entry.message.is_expired(now.wall) {
        Some(Settled::Expired)
    } else if !fits(conn, &entry.message, entry, now) {
        Some(Settled::Dropped(DropReason::TooLarge))
    } else {
        None
    }
}

fn fits(conn: &Conn, message: &Message, entry: &Entry, now: Now) -> bool {
    let limit = conn.machine.client_packet_bytes_max();
    // Far below the limit there is nothing to measure.
    if message.queue_bytes() + SLACK < limit && message.properties.is_empty() {
        return true;
    }
    let any_id = PacketId::new(1);
    let parts = parts_of(message, entry, any_id, false, now);
    parts.encoded_len(conn.version()) <= limit
}

/// More than a PUBLISH adds to topic and payload when it has no properties of its own.
const SLACK: usize = 64;

pub(super) fn parts_of<'a>(
    message: &'a Message,
    entry: &'a Entry,
    packet_id: Option<PacketId>,
    dup: bool,
    now: Now,
) -> PublishParts<'a> {
    PublishParts {
        dup,
        qos: entry.qos,
        retain: entry.retain,
        packet_id,
        topic: message.topic.as_str(),
        subscription_ids: &entry.subscription_ids,
        topic_alias: None,
        message_expiry_interval: message.expiry_interval_left(now.wall),
        properties: &message.properties,
        payload: &message.payload,
    }
}

/// Sends an entry that was just given its packet id; at QoS 2 when that is stored. Returns the
/// stream it was written to.
pub(super) fn first_publish(
    session: &mut Session,
    conn: &mut Conn,
    packet_id: PacketId,
    turn: &mut Turn,
    (tally, shared): (&mut Tally, &NodeShared),
    now: Now,
) -> Option<StreamNo> {
    let inflight = session.outbound.inflight(packet_id)?;
    let qos = inflight.entry.qos;
    if inflight.entry.stored.is_stored() {
        debts::put_inflight(session.no, &inflight.entry, packet_id, false, &mut turn.batch);
        session.outbound.mark(packet_id);
        if qos == QoS::ExactlyOnce {
            // Should the node end here, the next life must know the id the client has seen; a
            // PUBLISH waits for it.
            turn.promise(conn.listener.promise);
            turn.when_durable(Effect::Publish { session: session.no, packet_id });
            return None;
        }
    }
    let sent = send_inflight(session, conn, packet_id, now);
    tally.sent(qos);
    if let Some(inflight) = session.outbound.inflight(packet_id) {
        shared.note_sent(&inflight.entry.message, qos);
    }
    sent
}

/// Writes the PUBLISH of an entry in flight, if it is still due; returns the stream it was written
/// to.
pub(super) fn send_inflight(
    session: &mut Session,
    conn: &mut Conn,
    packet_id: PacketId,
    now: Now,
) -> Option<StreamNo> {
    let dup = session.outbound.publishing(packet_id)?;
    let Inflight { entry, .. } = session.outbound.inflight(packet_id)?;
    let stream = conn.stream_of(session, entry.tag)?;
    let parts = parts_of(&entry.message, entry, Some(packet_id), dup, now);
    write_publish(conn, stream, entry.message.class, parts.to_publish()).then_some(stream)
}

/// Writes a PUBREL once more, on the control stream.
pub(super) fn write_pubrel(conn: &mut Conn, packet_id: PacketId) -> bool {
    conn.write(&Ack::new(AckKind::Pubrel, packet_id, ReasonCode::Success))
}

/// Writes a PUBLISH to a stream, if the client takes packets of its size.
pub(super) fn write_publish(
    conn: &mut Conn,
    stream: StreamNo,
    class: Class,
    mut publish: Publish<'_>,
) -> bool {
    let version = conn.version();
    let limit = conn.machine.client_packet_bytes_max();
    // On other streams than the control stream none are used: aliases are a stream's own.
    let Some(aliases) = conn.aliases.as_mut().filter(|_| stream.is_control()) else {
        let Some(out) = conn.output_for(stream, class) else { return false };
        return publish.encode_within(version, limit, out).is_ok();
    };
    let size = publish.encoded_len(version);
    if size > limit {
        return false;
    }
    // Chosen as the packet is written: in the order of the output, each alias is set before it
    // stands alone. [MQTT-3.3.2-7]
    match aliases.choose(publish.topic, size + SET_BYTES_MAX <= limit) {
        AliasUse::Topic => {}
        AliasUse::Set(alias) => publish.properties.topic_alias = Some(alias),
        AliasUse::Known(alias) => {
            publish.topic = "";
            publish.properties.topic_alias = Some(alias);
        }
    }
    let written = publish.encode(version, &mut conn.out).is_ok();
    if !written {
        aliases.forget_all();
    }
    written
}
