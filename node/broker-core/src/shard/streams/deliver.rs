//! What is owed on several streams of one connection.

use bytes::BytesMut;
use verge_model::{Class, Now};
use verge_mqtt_proto::PacketId;
use verge_mqtt_proto::session::{Entry, Step, StreamTag};

use super::Streams;
use super::api::{StreamNo, Via};
use super::shares::Shares;
use crate::ledger::{DropReason, Settled};
use crate::shard::Shard;
use crate::shard::api::{Delivery, SessionNo};
use crate::shard::connection::Conn;
use crate::shard::deliver::{first_publish, send_inflight, settle_row, unsendable, write_pubrel};
use crate::shard::session::Session;
use crate::spread::Numbers;

/// Where what is owed to a subscription goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) enum Target {
    /// To this stream of the present connection.
    Stream(StreamNo),
    /// Nowhere: the client ended the stream it subscribed on.
    Gone,
}

/// The stream of a tag, on the connection with these streams.
pub(in crate::shard) fn target(
    session: &Session,
    streams: Option<&Streams>,
    tag: StreamTag,
) -> Target {
    let earlier = |tag| session.streams.as_ref().is_none_or(|streams| streams.is_earlier(tag));
    if tag.is_control() || earlier(tag) {
        return Target::Stream(StreamNo::CONTROL);
    }
    let stream = streams.and_then(|streams| streams.tags.get(&tag));
    stream.map_or(Target::Gone, |stream| Target::Stream(*stream))
}

/// Whether an acknowledgement came on the stream its PUBLISH went out on. On another one its packet
/// identifier means nothing.
pub(in crate::shard) fn acknowledges(
    session: &Session,
    conns: &Numbers<Conn>,
    via: Via,
    id: PacketId,
) -> bool {
    if session.streams.is_none() && via.stream.is_control() {
        return true;
    }
    let (Some(conn), Some(inflight)) = (conns.get(&via.conn), session.outbound.inflight(id)) else {
        return false;
    };
    conn.stream_of(session, inflight.entry.tag) == Some(via.stream)
}

impl Conn {
    /// Where a tag's packets go; `None` if its stream is over.
    pub(in crate::shard) fn stream_of(
        &self,
        session: &Session,
        tag: StreamTag,
    ) -> Option<StreamNo> {
        match target(session, self.streams.as_deref(), tag) {
            Target::Stream(stream) => Some(stream),
            Target::Gone => None,
        }
    }

    /// The output of a stream, for a message of this class.
    pub(in crate::shard) fn output_for(
        &mut self,
        stream: StreamNo,
        class: Class,
    ) -> Option<&mut BytesMut> {
        if stream.is_control() {
            return Some(&mut self.out);
        }
        let state = self.streams.as_mut()?.table.get_mut(&stream)?;
        state.class = match state.class {
            Some(other) if !state.out.is_empty() => Some(other.min(class)),
            Some(_) | None => Some(class),
        };
        Some(&mut state.out)
    }

    /// Bytes that wait to be written to a stream.
    pub(in crate::shard) fn output_len(&self, stream: StreamNo) -> usize {
        if stream.is_control() {
            return self.out.len();
        }
        self.stream(stream).map_or(0, |state| state.out.len())
    }
}

impl Shard {
    /// Marks the control stream, or another one, as one whose output has grown.
    pub(in crate::shard) fn mark_grown(&mut self, via: Via) {
        if via.stream.is_control() {
            self.mark_dirty(via.conn);
        } else {
            self.mark_stream_dirty(via);
        }
    }

    /// Whether a delivery is for a stream that is over. It is settled then.
    pub(in crate::shard) fn is_for_ended_stream(&self, delivery: &Delivery) -> bool {
        let Some(session) = self.sessions.get(&delivery.session) else { return false };
        let conn = session.conn.and_then(|id| self.conns.get(&id));
        let streams = conn.and_then(|conn| conn.streams.as_deref());
        target(session, streams, delivery.tag) == Target::Gone
    }

    /// Sends what is due and allowed to a client with several streams: what waits for one of them
    /// lets what is for others pass.
    pub(in crate::shard) fn pump_streams(&mut self, no: SessionNo, now: Now) {
        let Self { sessions, conns, turn, shared, config, tally, .. } = self;
        let Some(session) = sessions.get_mut(&no) else { return };
        let Some(id) = session.conn else { return };
        let Some(conn) = conns.get_mut(&id) else { return };
        let high = config.output_bytes_high;
        let mut grown = Vec::new();
        // Counted once there is something for a data stream.
        let mut shares = None;
        loop {
            if session.outbound.owes_again() {
                // What an earlier connection was told of is told again on the control stream.
                if conn.out.len() >= high {
                    break;
                }
                match session.outbound.next_step() {
                    Some(Step::Publish(packet_id) | Step::PublishAgain(packet_id)) => {
                        grown.extend(send_inflight(session, conn, packet_id, now));
                    }
                    Some(Step::ReleaseAgain(packet_id)) => {
                        write_pubrel(conn, packet_id);
                        grown.push(StreamNo::CONTROL);
                    }
                    None => break,
                }
                continue;
            }
            let takes = |entry: &Entry| {
                let stream = conn.stream_of(session, entry.tag);
                stream.is_none_or(|stream| {
                    conn.output_len(stream) < high
                        && (stream.is_control()
                            || shares
                                .get_or_insert_with(|| Shares::of(session, conn))
                                .allow(stream))
                })
            };
            let Some(place) = session.outbound.find_ready(takes) else { break };
            let Some(entry) = session.outbound.at(place) else { break };
            let settled = match target(session, conn.streams.as_deref(), entry.tag) {
                Target::Gone => Some(Settled::Dropped(DropReason::StreamEnded)),
                Target::Stream(_) => unsendable(conn, entry, now),
            };
            if let Some(settled) = settled {
                if let Some(entry) = session.outbound.drop_at(place) {
                    let batch = &mut turn.batch;
                    tally.settled(settled, &session.client, &entry.message, shared);
                    settle_row(session, &entry, now, batch);
                }
                continue;
            }
            let stream = conn.stream_of(session, entry.tag);
            let Some(packet_id) = session.outbound.assign_at(place) else { break };
            if let Some(shares) = &mut shares {
                shares.take(stream.unwrap_or(StreamNo::CONTROL));
            }
            grown.extend(first_publish(session, conn, packet_id, turn, (tally, shared), now));
        }
        for stream in grown {
            self.mark_grown(Via { conn: id, stream });
        }
    }
}
