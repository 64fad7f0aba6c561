//! The rows of debts: what stands in the store for a message owed to a session.
//!
//! | owed to | rows |
//! |---|---|
//! | one session of this node | a queue row that holds the message |
//! | several | the message once, with their number, and a queue row each that names it |
//! | a client that was sent it | beside its queue row, a small one with the packet id |

use std::sync::Arc;

use verge_model::Now;
use verge_mqtt_proto::message::Message;
use verge_mqtt_proto::session::{Entry, Stored};
use verge_mqtt_proto::{PacketId, TopicFilter};
use verge_storage::Batch;
use verge_storage::key::QueueKey;
use verge_storage::record::{InflightRecord, MessageView, QueueHead};

use crate::record::properties_to_bytes;
use crate::shard::api::{Delivery, SessionNo};

/// Puts the row of a delivery that is planned.
pub(crate) fn put_delivery(delivery: &Delivery, lane: u8, now: Now, batch: &mut Batch) {
    let head = QueueHead {
        qos: delivery.qos.bits(),
        retain: delivery.retain,
        class: delivery.message.class,
        subscription_ids: &delivery.subscription_ids,
        enqueued_at: now.wall,
        share: share(delivery.share.as_ref()),
    };
    let key = QueueKey { session_no: delivery.session.0, lane, seq: delivery.seq };
    put(key, &head, &delivery.message, delivery.stored, batch);
}

/// Puts the row of an entry that was imported.
pub(crate) fn put_entry(no: SessionNo, entry: &Entry, now: Now, batch: &mut Batch) {
    let head = QueueHead {
        qos: entry.qos.bits(),
        retain: entry.retain,
        class: entry.message.class,
        subscription_ids: &entry.subscription_ids,
        enqueued_at: now.wall,
        share: share(entry.share.as_ref()),
    };
    put(key_of(no, entry), &head, &entry.message, entry.stored, batch);
}

fn share(filter: Option<&Arc<TopicFilter>>) -> Option<&str> {
    filter.map(|filter| filter.as_str())
}

fn put(key: QueueKey, head: &QueueHead<'_>, message: &Message, stored: Stored, batch: &mut Batch) {
    let value = match stored {
        Stored::Nowhere => return,
        Stored::Whole => view(message, |view| head.with_message(view)),
        Stored::ByName => {
            let bytes = u32::try_from(message.queue_bytes()).unwrap_or(u32::MAX);
            head.with_row(message.row(), bytes)
        }
    };
    batch.put_queue_bytes(key, value);
}

/// Puts the row of a message that so many queue rows name.
pub(crate) fn put_message(message: &Message, references: u32, batch: &mut Batch) {
    view(message, |view| batch.put_message(message.row(), references, view));
}

/// Puts the row of an entry's packet id.
pub(crate) fn put_inflight(
    no: SessionNo,
    entry: &Entry,
    packet_id: PacketId,
    released: bool,
    batch: &mut Batch,
) {
    let record = InflightRecord { packet_id: packet_id.get(), released };
    batch.put_inflight(key_of(no, entry), record);
}

/// Deletes an entry's rows, and the message's with the last that names it.
pub(crate) fn delete(no: SessionNo, entry: &Entry, batch: &mut Batch) {
    let key = key_of(no, entry);
    match entry.stored {
        Stored::Nowhere => return,
        Stored::Whole => batch.delete_queue(key),
        Stored::ByName => {
            batch.delete_queue(key);
            batch.release_message(entry.message.row());
        }
    }
    if entry.marked {
        batch.delete_inflight(key);
    }
}

fn key_of(no: SessionNo, entry: &Entry) -> QueueKey {
    QueueKey { session_no: no.0, lane: entry.order.lane, seq: entry.order.seq }
}

fn view<R>(message: &Message, write: impl FnOnce(&MessageView<'_>) -> R) -> R {
    let properties = properties_to_bytes(&message.properties);
    write(&MessageView {
        id: message.id,
        publisher: &message.publisher,
        stamp: message.stamp,
        expires_at: message.expires_at,
        topic: message.topic.as_str(),
        qos: message.qos.bits(),
        retain: message.retain,
        class: message.class,
        properties: &properties,
        payload: &message.payload,
    })
}
