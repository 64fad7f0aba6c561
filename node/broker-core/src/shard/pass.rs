//! QoS 0 between clients of one shard: from the publisher's packet straight into its subscribers'
//! output. Nobody keeps such a message, so it has no name, no stamp and no copy of its own.

use bytes::BytesMut;
use verge_mqtt_proto::{Encode, InboundPublish, Publish, QoS};

use super::Shard;
use super::connection::Conn;
use super::deliver::write_publish;
use super::session::Session;
use super::streams::api::Via;
use super::tally::Tally;
use crate::drops::Dropped;
use crate::ledger::Qos0Drop;
use crate::shared::NodeShared;
use crate::topics::Topic;

/// A PUBLISH as subscribers without identifiers and aliases get it, encoded once for those of 5.0
/// and once for earlier ones. The memory is used again.
#[derive(Debug, Default)]
pub(super) struct Frames([BytesMut; 2]);

impl Frames {
    fn clear(&mut self) {
        self.0.iter_mut().for_each(BytesMut::clear);
    }

    /// Writes the packet, if the client takes packets of its size.
    fn write(&mut self, conn: &mut Conn, publish: &Publish<'_>) -> bool {
        let version = conn.version();
        let frame = &mut self.0[usize::from(version.is_v5())];
        if frame.is_empty() && publish.encode(version, frame).is_err() {
            return false;
        }
        let fits = frame.len() <= conn.machine.client_packet_bytes_max();
        if fits {
            conn.out.extend_from_slice(frame);
        }
        fits
    }
}

impl Shard {
    /// Sends a QoS 0 message to the sessions of this shard that want it; true if nobody else does.
    pub(super) fn pass_on(&mut self, topic: &Topic, inbound: &InboundPublish<'_>) -> bool {
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: topic.name.as_str(),
            packet_id: None,
            properties: inbound.properties.as_deref().cloned().unwrap_or_default(),
            payload: inbound.payload,
        };
        let locals = &topic.matches.locals;
        let index = self.config.index;
        let mut here = 0;
        self.frames.clear();
        for found in locals.iter().filter(|found| found.shard == index) {
            here += 1;
            // A client that is away, has no CONNACK yet, or ended the stream it asked on, is not
            // there.
            let Some(session) = self.sessions.get(&found.session) else { continue };
            let conn = session.conn.and_then(|id| Some((id, self.conns.get_mut(&id)?)));
            let Some((id, conn)) = conn.filter(|(_, conn)| conn.session().is_some()) else {
                drop_one(&mut self.tally, &self.shared, Qos0Drop::Away, session, topic);
                continue;
            };
            let Some(stream) = conn.stream_of(session, found.tag) else { continue };
            if stream.is_control() {
                self.spare.lend(&mut conn.out);
            }
            let full = conn.output_len(stream) >= self.config.output_bytes_high;
            let written = if full {
                false
            } else if locals.len() > 1
                && found.subscription_ids.is_empty()
                && conn.aliases.is_none()
                && stream.is_control()
            {
                self.frames.write(conn, &publish)
            } else {
                let mut own = publish.clone();
                own.properties.subscription_ids.extend_from_slice(&found.subscription_ids);
                write_publish(conn, stream, topic.rules.class, own)
            };
            if written {
                self.tally.sent(QoS::AtMostOnce);
                self.mark_grown(Via { conn: id, stream });
            } else {
                self.spare.take_back(&mut conn.out);
                let reason = if full { Qos0Drop::OutputFull } else { Qos0Drop::TooLarge };
                drop_one(&mut self.tally, &self.shared, reason, session, topic);
            }
        }
        here == locals.len() && topic.matches.remotes.is_empty() && topic.rules.uplinks.is_empty()
    }
}

fn drop_one(
    tally: &mut Tally,
    shared: &NodeShared,
    reason: Qos0Drop,
    session: &Session,
    topic: &Topic,
) {
    let (class, name) = (topic.rules.class, topic.name.as_str());
    tally.dropped_qos0(reason, class);
    let client = &session.client;
    shared.note_example(Dropped::Qos0(reason), class, client, name, QoS::AtMostOnce);
}
