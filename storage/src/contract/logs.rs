//! Checks about logs.

use bytes::Bytes;
use verge_model::{Class, NodeKey};

use super::{Place, commit, delete, open};
use crate::batch::Batch;
use crate::error::StoreError;
use crate::family::Family;
use crate::log::{LogBounds, LogKey};
use crate::store::Store;

const OUTBOX: LogKey = LogKey::Outbox { stream: 3 };
const SAFETY: LogKey = LogKey::Forward { peer: NodeKey(9), class: Class::Safety };
const BULK: LogKey = LogKey::Forward { peer: NodeKey(9), class: Class::Bulk };
/// The last prefix there can be in its family.
const LAST: LogKey = LogKey::Forward { peer: NodeKey(u64::MAX), class: Class::Bulk };

fn value(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn append(store: &dyn Store, log: LogKey, numbers: std::ops::RangeInclusive<u64>) {
    let first = *numbers.start();
    let committed = commit(store, |batch| {
        for number in numbers.clone() {
            batch.append(log, value(number));
        }
    });
    let expected: Vec<_> = numbers.map(|number| (log, number, value(number))).collect();
    assert_eq!(committed.appended, expected, "from {first}");
}

fn bounds(store: &dyn Store, log: LogKey) -> (u64, u64) {
    let LogBounds { first, next } = store.log_bounds(log).expect("bounds are known");
    (first, next)
}

fn read(store: &dyn Store, log: LogKey, from: u64, rows: usize, bytes: usize) -> Vec<u64> {
    let rows = store.read_log(log, from, rows, bytes).expect("the log can be read");
    rows.into_iter()
        .map(|(seq, bytes)| {
            assert_eq!(bytes, value(seq));
            seq
        })
        .collect()
}

pub(super) fn numbered(place: &mut dyn Place) {
    let store = open(place);
    assert_eq!(bounds(&*store, OUTBOX), (1, 1));
    append(&*store, OUTBOX, 1..=2);
    // Two batches of one group, three logs.
    let mut batches = [Batch::new(), Batch::new()];
    batches[0].append(SAFETY, value(1));
    batches[0].append(OUTBOX, value(3));
    batches[1].append(OUTBOX, value(4));
    batches[1].append(BULK, value(1));
    batches[1].append(LAST, value(1));
    let committed = store.commit(&batches, true).expect("the commit succeeds");
    assert_eq!(committed[0].appended, [(SAFETY, 1, value(1)), (OUTBOX, 3, value(3))]);
    assert_eq!(
        committed[1].appended,
        [(OUTBOX, 4, value(4)), (BULK, 1, value(1)), (LAST, 1, value(1))]
    );
    drop(store);
    let store = open(place);
    assert_eq!(store.logs(), Ok(vec![SAFETY, BULK, LAST, OUTBOX]));
    assert_eq!(bounds(&*store, OUTBOX), (1, 5));
    append(&*store, OUTBOX, 5..=5);
    append(&*store, BULK, 2..=2);
    append(&*store, LAST, 2..=2);
    assert_eq!(read(&*store, OUTBOX, 0, 99, 9_999), [1, 2, 3, 4, 5]);
    assert_eq!(read(&*store, SAFETY, 0, 99, 9_999), [1]);
    assert_eq!(read(&*store, BULK, 0, 99, 9_999), [1, 2]);
}

pub(super) fn trimmed(place: &mut dyn Place) {
    let store = open(place);
    append(&*store, OUTBOX, 1..=1_000);
    append(&*store, SAFETY, 1..=5);
    commit(&*store, |batch| batch.trim(OUTBOX, 3));
    assert_eq!(bounds(&*store, OUTBOX), (4, 1_001));
    assert_eq!(read(&*store, OUTBOX, 1, 2, 9_999), [4, 5]);
    commit(&*store, |batch| batch.trim(OUTBOX, 2));
    assert_eq!(bounds(&*store, OUTBOX), (4, 1_001), "a trim never goes back");
    commit(&*store, |batch| batch.trim(SAFETY, u64::MAX));
    drop(store);

    let store = open(place);
    assert_eq!(bounds(&*store, OUTBOX), (4, 1_001));
    assert_eq!(bounds(&*store, SAFETY), (6, 6));
    commit(&*store, |batch| batch.trim(OUTBOX, 1_000));
    assert_eq!(read(&*store, OUTBOX, 0, 99, 9_999), [0; 0]);
    drop(store);

    let store = open(place);
    assert_eq!(bounds(&*store, OUTBOX), (1_001, 1_001));
    append(&*store, OUTBOX, 1_001..=1_002);
    append(&*store, SAFETY, 6..=6);
    assert_eq!(store.logs(), Ok(vec![SAFETY, OUTBOX]));
    // Appended and trimmed by one group.
    let committed = commit(&*store, |batch| {
        batch.append(BULK, value(1));
        batch.trim(BULK, 1);
    });
    assert_eq!(committed.appended, [(BULK, 1, value(1))]);
    drop(store);

    let store = open(place);
    assert_eq!(bounds(&*store, OUTBOX), (1_001, 1_003));
    assert_eq!(bounds(&*store, SAFETY), (6, 7));
    assert_eq!(bounds(&*store, BULK), (2, 2));
    assert_eq!(read(&*store, OUTBOX, 0, 99, 9_999), [1_001, 1_002]);
    append(&*store, BULK, 2..=2);
}

fn read_rows(store: &dyn Store) {
    let table: [(u64, usize, usize, &[u64]); 8] = [
        (0, 2, 9_999, &[3, 4]),
        (3, 2, 9_999, &[3, 4]),
        (5, 2, 9_999, &[5, 6]),
        (6, 9, 9_999, &[6]),
        (7, 9, 9_999, &[]),
        (3, 9, 1, &[3]),
        (3, 9, 16, &[3, 4]),
        (3, 9, 17, &[3, 4, 5]),
    ];
    for (from, rows, bytes, expected) in table {
        assert_eq!(read(store, OUTBOX, from, rows, bytes), expected, "{rows} from {from}");
    }
}

pub(super) fn read_bounds(place: &mut dyn Place) {
    let store = open(place);
    append(&*store, OUTBOX, 1..=6);
    append(&*store, LogKey::Outbox { stream: 4 }, 1..=1);
    commit(&*store, |batch| batch.trim(OUTBOX, 2));
    read_rows(&*store);
    drop(store);
    read_rows(&*open(place));
}

pub(super) fn hole(place: &mut dyn Place) {
    let store = open(place);
    append(&*store, OUTBOX, 1..=5);
    commit(&*store, |batch| delete(batch, Family::Outbox, &OUTBOX.row(3)));
    assert_eq!(read(&*store, OUTBOX, 1, 9, 9_999), [1, 2], "what lies before it");
    let error = store.read_log(OUTBOX, 3, 9, 9_999).expect_err("row 3 is missing");
    let StoreError::Corrupt { family: Family::Outbox, key, .. } = error else {
        panic!("the row is named, not: {error}");
    };
    assert_eq!(key[..], OUTBOX.row(3)[..]);
    assert_eq!(read(&*store, OUTBOX, 4, 9, 9_999), [4, 5], "what lies after it");
}
