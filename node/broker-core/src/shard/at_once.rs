//! A message for a session that waits for nothing: it is given its packet id and sent without a
//! place in the queue. And the other end: one that was acknowledged, with nothing behind it.

use verge_model::Now;
use verge_mqtt_proto::session::Entry;

use super::Shard;
use super::api::SessionNo;
use super::deliver::{first_publish, unsendable};

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
        let packet_id = match session.outbound.assign(entry) {
            Ok(packet_id) => packet_id,
            Err(entry) => return Some(entry),
        };
        spare.lend(&mut conn.out);
        if first_publish(session, conn, packet_id, turn, (tally, shared), now).is_some() {
            self.mark_dirty(id);
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
