//! A message for a session that waits for nothing: it is given its packet id and sent without a
//! place in the queue. And the other end: one that was acknowledged, with nothing behind it.

use verge_model::Now;
use verge_mqtt_proto::session::Entry;

use super::Shard;
use super::api::{SessionNo, StreamNo};
use super::deliver::{first_publish, parts_of, unsendable, write_publish};

impl Shard {
    /// Sends an entry, if nothing is before it and its client takes it now; else gives it back.
    pub(super) fn send_at_once(&mut self, no: SessionNo, entry: Entry, now: Now) -> Option<Entry> {
        let Self { sessions, conns, turn, shared, config, tally, spare, .. } = self;
        let Some(session) = sessions.get_mut(&no) else { return Some(entry) };
        let Some(id) = session.conn.filter(|_| session.outbound.is_clear()) else {
            return Some(entry);
        };
        let ready = |conn: &super::Conn| {
            conn.streams.is_none()
                && conn.out.len() < config.output_bytes_high
                && unsendable(conn, &entry, now).is_none()
        };
        let Some(conn) = conns.get_mut(&id).filter(|conn| ready(conn)) else { return Some(entry) };
        let (packet_id, inflight) = match session.outbound.assign(entry) {
            Ok(assigned) => assigned,
            Err(entry) => return Some(entry),
        };
        spare.lend(&mut conn.out);
        let sent = if inflight.entry.stored.is_stored() {
            first_publish(session, conn, packet_id, turn, (tally, shared), now).is_some()
        } else {
            // Without further streams every tag's packets go to the control stream.
            let dup = inflight.note_publishing();
            let entry = &inflight.entry;
            let publish = parts_of(&entry.message, entry, Some(packet_id), dup, now).to_publish();
            tally.sent(entry.qos);
            shared.note_sent(&entry.message, entry.qos);
            write_publish(conn, StreamNo::CONTROL, entry.message.class, publish)
        };
        if sent {
            turn.mark_dirty(conn);
        } else {
            spare.take_back(&mut conn.out);
        }
        None
    }

    /// A client has acknowledged something: if `more` waits for that, it is sent.
    pub(super) fn owes_less(&mut self, no: SessionNo, more: bool, now: Now) {
        if more {
            self.pump(no, now);
        }
        if !self.holds.is_clear() {
            self.note_drained(no, now);
        }
    }
}
