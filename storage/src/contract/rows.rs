//! Checks about rows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;
use verge_model::{Class, Hlc, MessageId, NodeKey, UnixMillis};

use super::{Place, commit, delete, get, open, put};
use crate::batch::{Batch, Op};
use crate::error::StoreError;
use crate::family::Family;
use crate::key::{Key, KeyBuf, KeyRange, LANE_IMPORTED, LANE_OWN, LinkInKey, QueueKey};
use crate::record::{
    Held, MessageRecord, QueueRecord, RouteRecord, StoredMessage, SubscriptionRecord,
};
use crate::rows::StoreRows;
use crate::store::{SCAN_BYTES_MAX, SCAN_ROWS_MAX, Store};

pub(super) fn set_read_remove(place: &mut dyn Place) {
    let store = &*open(place);
    commit(store, |batch| {
        put(batch, Family::Session, b"k", b"session");
        put(batch, Family::Registry, b"k", b"registry");
        put(batch, Family::Session, b"empty", b"");
    });
    assert_eq!(get(store, Family::Session, b"k"), Some(b"session".to_vec()));
    assert_eq!(get(store, Family::Registry, b"k"), Some(b"registry".to_vec()));
    assert_eq!(get(store, Family::Session, b"empty"), Some(Vec::new()));
    assert_eq!(get(store, Family::Session, b"other"), None);
    assert_eq!(get(store, Family::Queue, b"k"), None);
    commit(store, |batch| {
        delete(batch, Family::Session, b"k");
        delete(batch, Family::Session, b"never was");
        put(batch, Family::Registry, b"k", b"again");
    });
    assert_eq!(get(store, Family::Session, b"k"), None);
    assert_eq!(get(store, Family::Registry, b"k"), Some(b"again".to_vec()));
}

pub(super) fn order(place: &mut dyn Place) {
    let store = &*open(place);
    let mut batches = [Batch::new(), Batch::new(), Batch::new()];
    put(&mut batches[0], Family::Queue, b"a1", b"first");
    put(&mut batches[0], Family::Queue, b"a2", b"first");
    put(&mut batches[1], Family::Queue, b"a1", b"second");
    let prefix = KeyBuf::from_slice(b"a");
    batches[2].push(Op::DeletePrefix { family: Family::Queue, prefix });
    put(&mut batches[2], Family::Queue, b"a2", b"third");
    delete(&mut batches[2], Family::Queue, b"a3");
    put(&mut batches[2], Family::Queue, b"a3", b"stays");
    let committed = store.commit(&batches, true).expect("the commit succeeds");
    assert_eq!(committed.len(), 3, "one outcome per batch");
    assert_eq!(get(store, Family::Queue, b"a1"), None);
    assert_eq!(get(store, Family::Queue, b"a2"), Some(b"third".to_vec()));
    assert_eq!(get(store, Family::Queue, b"a3"), Some(b"stays".to_vec()));
}

pub(super) fn prefixes(place: &mut dyn Place) {
    let store = &*open(place);
    let numbers = [0, 1, 254, 255, 256, u64::MAX - 1, u64::MAX];
    commit(store, |batch| {
        for number in numbers {
            batch.put_received(number, 0);
            batch.put_received(number, u16::MAX);
        }
    });
    let left = |store: &dyn Store| -> Vec<u64> {
        let mut left: Vec<u64> = numbers
            .into_iter()
            .filter(|number| store.received_of(*number).next().is_some())
            .collect();
        left.dedup();
        left
    };
    commit(store, |batch| batch.delete_received_of(255));
    assert_eq!(left(store), [0, 1, 254, 256, u64::MAX - 1, u64::MAX]);
    commit(store, |batch| batch.delete_received_of(u64::MAX));
    assert_eq!(left(store), [0, 1, 254, 256, u64::MAX - 1]);
    commit(store, |batch| {
        batch.push(Op::DeletePrefix { family: Family::Received, prefix: KeyBuf::new() });
    });
    assert_eq!(left(store), []);
}

pub(super) fn pages(place: &mut dyn Place) {
    let store = &*open(place);
    let keys: Vec<[u8; 2]> = (0..1_000_u16).map(u16::to_be_bytes).collect();
    commit(store, |batch| {
        for key in keys.iter().rev() {
            put(batch, Family::Retained, key, key);
        }
    });
    for limit in [1, 7, 999, 1_000, 1_001, usize::MAX] {
        let (mut found, mut rest) = (Vec::new(), Some(KeyRange::all()));
        while let Some(range) = rest {
            let page = store.scan(Family::Retained, &range, limit).expect("the range scans");
            assert!(page.rows.len() <= limit.min(SCAN_ROWS_MAX));
            assert!(page.rest.is_none() || !page.rows.is_empty(), "a page makes progress");
            found.extend(page.rows.into_iter().map(|(key, value)| {
                assert_eq!(key, value);
                key
            }));
            rest = page.rest;
        }
        assert!(found.iter().map(|key| &key[..]).eq(keys.iter().map(|key| &key[..])));
    }
    let page = store.scan(Family::Retained, &KeyRange::prefix(&[1]), 4).expect("scans");
    assert!(page.rows.iter().map(|(key, _)| &key[..]).eq([[1, 0], [1, 1], [1, 2], [1, 3]]));
    let empty = KeyRange { start: Bytes::from_static(&[2]), end: Some(Bytes::from_static(&[1])) };
    let page = store.scan(Family::Retained, &empty, 4).expect("an empty range scans");
    assert!(page.rows.is_empty() && page.rest.is_none());

    commit(store, |batch| {
        for key in 0..5 {
            put(batch, Family::Message, &[key], &vec![key; SCAN_BYTES_MAX / 2]);
        }
    });
    let page = store.scan(Family::Message, &KeyRange::all(), 5).expect("large rows scan");
    assert_eq!(page.rows.len(), 2, "a page ends with the row that fills it");
    assert!(page.rest.is_some_and(|rest| rest.contains(&[2]) && !rest.contains(&[1])));
}

pub(super) fn typed(place: &mut dyn Place) {
    let store = &*open(place);
    let id = |seq| MessageId { node: NodeKey(1), incarnation: 1, seq };
    let message = MessageRecord {
        id: id(1),
        publisher: "v".into(),
        stamp: Hlc(5),
        expires_at: None,
        topic: "a/b".into(),
        qos: 2,
        retain: false,
        class: Class::Control,
        properties: Bytes::new(),
        payload: Bytes::from_static(b"stop"),
    };
    let queued = |seq| QueueRecord {
        held: Held::Row { row: id(seq), bytes: 70 },
        qos: 2,
        retain: false,
        class: Class::Control,
        subscription_ids: Vec::new(),
        enqueued_at: UnixMillis(9),
        share: None,
    };
    let key = |lane, seq| QueueKey { session_no: 4, lane, seq };
    let subscription = SubscriptionRecord {
        qos: 1,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
        subscription_id: Some(3),
        subscriber: None,
    };
    let link = LinkInKey { origin: NodeKey(8), log_id: 2, class: Class::Bulk };
    commit(store, |batch| {
        batch.put_message(id(1), 2, &message.view());
        batch.put_queue(key(LANE_OWN, 1), &queued(1));
        batch.put_queue(key(LANE_OWN, 2), &queued(2));
        batch.put_queue(key(LANE_IMPORTED, 9), &queued(3));
        batch.put_queue(QueueKey { session_no: 5, lane: LANE_OWN, seq: 1 }, &queued(4));
        batch.put_subscription(4, "a/+", &subscription);
        batch.put_seen(4, id(7), UnixMillis(1));
        batch.put_link_in(link, 77);
        batch.put_route(NodeKey(8), "x/#", RouteRecord { incarnation: 1, seq: 2 });
    });
    assert_eq!(store.message(id(1)), Ok(Some(StoredMessage { references: 2, message })));
    assert_eq!(store.message(id(2)), Ok(None));
    assert_eq!(store.subscription(4, "a/+"), Ok(Some(subscription)));
    assert_eq!(store.subscription(4, "a"), Ok(None));
    assert_eq!((store.is_seen(4, id(7)), store.is_seen(5, id(7))), (Ok(true), Ok(false)));
    assert_eq!(store.link_in(NodeKey(8), 2, Class::Bulk), Ok(77));
    assert_eq!(store.link_in(NodeKey(8), 3, Class::Bulk), Ok(0));
    assert_eq!(store.routes_of(NodeKey(8)).count(), 1);
    assert_eq!(store.session(1), Ok(None));
    let queue: Result<Vec<_>, _> = store.queue_of(4).collect();
    let expected = [
        (key(LANE_IMPORTED, 9), queued(3)),
        (key(LANE_OWN, 1), queued(1)),
        (key(LANE_OWN, 2), queued(2)),
    ];
    assert_eq!(queue, Ok(expected.to_vec()));

    // One record of another version, and one key of another length.
    let bad_record = key(LANE_OWN, 1).encode();
    let bad_key = [&key(LANE_OWN, 1).encode()[..], &[0]].concat();
    commit(store, |batch| {
        put(batch, Family::Queue, &bad_record, &[9, 9, 9]);
        put(batch, Family::Queue, &bad_key, &[1]);
    });
    let queue: Vec<_> = store.queue_of(4).collect();
    assert_eq!(queue.len(), 4);
    assert_eq!(queue[0], Ok((key(LANE_IMPORTED, 9), queued(3))));
    assert_eq!(queue[3], Ok((key(LANE_OWN, 2), queued(2))));
    for (at, bad) in [(1, &bad_record[..]), (2, &bad_key[..])] {
        let Err(StoreError::Corrupt { family: Family::Queue, key, .. }) = &queue[at] else {
            panic!("row {at} is corrupt, not {:?}", queue[at]);
        };
        assert_eq!(&key[..], bad);
    }
    assert!(matches!(store.queued(key(LANE_OWN, 1)), Err(StoreError::Corrupt { .. })));
}

pub(super) fn references(place: &mut dyn Place) {
    let id = |seq| MessageId { node: NodeKey(1), incarnation: 1, seq };
    let message = MessageRecord {
        id: id(1),
        publisher: "v".into(),
        stamp: Hlc(5),
        expires_at: None,
        topic: "a".into(),
        qos: 1,
        retain: false,
        class: Class::Control,
        properties: Bytes::new(),
        payload: Bytes::from_static(b"stop"),
    };
    let left = |store: &dyn Store, seq| {
        store.message(id(seq)).expect("it can be read").map(|stored| {
            assert_eq!(stored.message, message);
            stored.references
        })
    };
    let all = |store: &dyn Store| -> Vec<u64> {
        store.messages().map(|row| row.expect("it can be read").0.0.seq).collect()
    };
    let before = open(place);
    let store = &*before;
    commit(store, |batch| {
        batch.put_message(id(1), 3, &message.view());
        batch.put_message(id(2), 2, &message.view());
        batch.put_message(id(3), 1, &message.view());
        batch.release_message(id(2));
        batch.release_message(id(9));
    });
    commit(store, |batch| {
        batch.release_message(id(1));
        batch.release_message(id(3));
        batch.release_message(id(1));
        assert_eq!(batch.len(), 2, "releases of one message are one write");
    });
    assert_eq!([1, 2, 3, 9].map(|seq| left(store, seq)), [Some(1), Some(1), None, None]);
    assert_eq!(all(store), [1, 2]);
    drop(before);
    let store = &*open(place);
    assert_eq!([1, 2, 3, 9].map(|seq| left(store, seq)), [Some(1), Some(1), None, None]);
    commit(store, |batch| {
        batch.release_message(id(1));
        batch.release_message(id(2));
    });
    assert!(all(store).is_empty());
}

pub(super) fn whole_groups(place: &mut dyn Place) {
    const GROUPS: u64 = 300;
    let store = &*open(place);
    let done = AtomicBool::new(false);
    let both = |number: u64| {
        let mut batches = [Batch::new(), Batch::new()];
        put(&mut batches[0], Family::Session, b"a", &number.to_be_bytes());
        put(&mut batches[1], Family::Session, b"z", &number.to_be_bytes());
        store.commit(&batches, false).expect("the commit succeeds");
    };
    both(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            (1..GROUPS).for_each(both);
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let page = store.scan(Family::Session, &KeyRange::all(), 2).expect("scans");
            let [(_, a), (_, z)] = &page.rows[..] else { panic!("two rows, not {page:?}") };
            assert_eq!(a, z, "both rows of one group");
        }
    });
}
