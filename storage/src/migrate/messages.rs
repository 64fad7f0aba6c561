//! To format 2: messages count what names them, and packet ids have rows of their own.
//!
//! | format 1 | format 2 |
//! |---|---|
//! | a message is gone when no queue row names it, which takes a look at all of them | its row has the number of them |
//! | a queue row has the packet id of its delivery | the packet id is a row of `inflight` |

use std::collections::BTreeMap;

use bytes::Bytes;
use verge_model::MessageId;

use super::{Part, Rewrite};
use crate::batch::Batch;
use crate::error::StoreError;
use crate::family::Family;
use crate::key::{Key, KeyRange, MessageKey, QueueKey};
use crate::record::{Held, InflightRecord, QueueRecord, QueueState, Record, StoredMessage};
use crate::rows::StoreRows;

/// What a message counts for in a bounded queue beside its topic and payload.
const OVERHEAD: usize = 64;

/// Each message's row has the number of those that name it.
pub(super) const COUNTED: Part = Part { what: "references of messages are counted", run: count };

/// Each packet id has a row.
pub(super) const PACKET_IDS: Part = Part { what: "packet ids leave the queues", run: queues };

/// Gives every message the number of queue rows that name it, of whatever version, so that it makes
/// no difference how many are rewritten.
fn count(rewrite: &mut Rewrite<'_>) -> Result<(), StoreError> {
    let mut references = BTreeMap::<MessageId, u32>::new();
    rewrite.each_row(Family::Queue, &KeyRange::all(), |key, value, _| {
        let record: QueueRecord = decode(Family::Queue, key, value)?;
        if let Held::Row { row, .. } = record.held {
            *references.entry(row).or_default() += 1;
        }
        Ok(())
    })?;
    rewrite.each_row(Family::Message, &KeyRange::all(), |key, value, batch| {
        let stored: StoredMessage = decode(Family::Message, key, value)?;
        let row = MessageKey::decode(key)
            .map_err(|error| StoreError::corrupt_key(Family::Message, key, &error))?
            .0;
        match references.get(&row) {
            _ if stored.references > 0 => {}
            Some(count) => batch.put_message(row, *count, &stored.message.view()),
            None => batch.delete_message(row),
        }
        Ok(())
    })
}

/// Rewrites queue rows of early versions.
fn queues(rewrite: &mut Rewrite<'_>) -> Result<(), StoreError> {
    let store = rewrite.store();
    rewrite.each_row(Family::Queue, &KeyRange::all(), |bytes, value, batch| {
        if value.first() == Some(&QueueRecord::VERSION) {
            return Ok(());
        }
        let key = QueueKey::decode(bytes)
            .map_err(|error| StoreError::corrupt_key(Family::Queue, bytes, &error))?;
        let (version, body) = value.split_first().unwrap_or((&0, &[]));
        let (mut record, state) = QueueRecord::decode_early(*version, body)
            .map_err(|error| StoreError::corrupt_record(Family::Queue, bytes, &error))?;
        if let Held::Row { row, bytes } = &mut record.held
            && let Some(StoredMessage { message, .. }) = store.message(*row)?
        {
            let size = message.topic.len() + message.payload.len() + OVERHEAD;
            *bytes = u32::try_from(size).unwrap_or(u32::MAX);
            record.class = message.class;
        }
        batch.put_queue(key, &record);
        put_state(key, state, batch);
        Ok(())
    })
}

fn put_state(key: QueueKey, state: QueueState, batch: &mut Batch) {
    let record = match state {
        QueueState::Queued => return,
        QueueState::Sent { packet_id } => InflightRecord { packet_id, released: false },
        QueueState::Released { packet_id } => InflightRecord { packet_id, released: true },
    };
    batch.put_inflight(key, record);
}

fn decode<R: Record>(family: Family, key: &[u8], value: &Bytes) -> Result<R, StoreError> {
    R::decode(value).map_err(|error| StoreError::corrupt_record(family, key, &error))
}

#[cfg(test)]
mod tests {
    use verge_model::{Class, Hlc, NodeKey, UnixMillis};

    use super::super::rewrite::limited::Limited;
    use super::super::{Step, run};
    use super::*;
    use crate::batch::Op;
    use crate::memory::{Crash, MemoryStore};
    use crate::record::MessageRecord;
    use crate::store::Store;

    const STEP: Step = Step { to: 2, parts: &[COUNTED, PACKET_IDS] };

    fn id(seq: u64) -> MessageId {
        MessageId { node: NodeKey(1), incarnation: 2, seq }
    }

    fn message(seq: u64) -> MessageRecord {
        MessageRecord {
            id: id(seq),
            publisher: "v".into(),
            stamp: Hlc(4),
            expires_at: None,
            topic: "a/b".into(),
            qos: 2,
            retain: false,
            class: Class::Control,
            properties: Bytes::new(),
            payload: Bytes::from_static(b"hi"),
        }
    }

    /// A queue row as format 1 wrote it: of version 1, with the state behind it.
    fn early(seq: u64, state: &[u8]) -> Bytes {
        let mut out = vec![1];
        out = postcard::to_extend(&id(seq), out).unwrap();
        out.extend_from_slice(&[2, 0, 0]);
        out = postcard::to_extend(&UnixMillis(7), out).unwrap();
        out.extend_from_slice(state);
        out.into()
    }

    fn format_1() -> MemoryStore {
        let store = MemoryStore::new(&"rsu-1".parse().unwrap(), 7);
        let mut batch = Batch::new();
        for seq in [1, 2, 3] {
            let key = MessageKey(id(seq)).encode();
            batch.push(Op::Put { family: Family::Message, key, value: message(seq).encode() });
        }
        let rows: [(u64, u64, u64, &[u8]); 4] =
            [(4, 1, 1, &[1, 9]), (4, 2, 2, &[0]), (5, 3, 1, &[2, 8]), (6, 4, 9, &[0])];
        for (session_no, seq, of, state) in rows {
            batch.put_queue_bytes(QueueKey { session_no, lane: 1, seq }, early(of, state));
        }
        store.commit(&[batch], true).unwrap();
        store
    }

    fn is_migrated(store: &MemoryStore) {
        let stored = |seq| store.message(id(seq)).unwrap().map(|found| found.references);
        assert_eq!([1, 2, 3].map(stored), [Some(2), Some(1), None]);
        let rows: Vec<_> = store.queues().map(|row| row.unwrap()).collect();
        let held: Vec<_> = rows.iter().map(|(_, record)| record.held.clone()).collect();
        let row = |seq, bytes| Held::Row { row: id(seq), bytes };
        assert_eq!(held, [row(1, 69), row(2, 69), row(1, 69), row(9, 0)]);
        assert_eq!(rows[0].1.class, Class::Control);
        let inflight: Vec<_> = store.inflight_all().map(|row| row.unwrap()).collect();
        let inflight: Vec<_> =
            inflight.iter().map(|(key, of)| (key.0.seq, of.packet_id, of.released)).collect();
        assert_eq!(inflight, [(1, 9, false), (3, 8, true)]);
    }

    #[test]
    fn messages_are_counted_and_packet_ids_moved_wherever_it_was_cut() {
        for commits in 0.. {
            let store = format_1();
            let limited = Limited::new(&store, commits);
            let whole = run(&limited, 1, &[STEP], &mut |_| {}).is_ok();
            let disk = store.durable_copy(Crash::Process);
            let reopened = MemoryStore::on(disk, store.identity().clone()).unwrap();
            if whole {
                is_migrated(&reopened);
                break;
            }
            run(&reopened, 1, &[STEP], &mut |_| {}).unwrap();
            is_migrated(&reopened);
        }
    }
}
