//! From the rows of an earlier format to those of this one, when a store opens.
//!
//! ```text
//!   format 1 ──step──▶ format 2 ──step──▶ … ──▶ FORMAT
//!
//!   a step:  format = to, migrating = from   synced
//!            its parts, page by page         committed
//!            migrating removed               synced
//! ```
//!
//! A step that did not come to its end is begun again at the next open, from its first part: so a
//! part leaves rows alone that are as it would make them. From the first commit on, an earlier
//! version refuses the directory as newer, since it would take half of the rows for damaged.
//!
//! A change that a record can bear alone, by a version byte it has not used, needs no step: both
//! versions are read ([`Record::decode_old`](crate::Record::decode_old)). Steps are for what is
//! found by its key, or counted over many rows.

mod messages;
mod rewrite;
mod sessions;

pub use rewrite::{Progress, Rewrite};

use bytes::Bytes;

use crate::batch::{Batch, Op};
use crate::error::StoreError;
use crate::family::Family;
use crate::identity::FORMAT;
use crate::key::{Key, MetaKey};
use crate::store::Store;

/// What makes the rows of one format from those of the format before.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// The format it makes.
    pub to: u32,
    /// What is to be done, in order.
    pub parts: &'static [Part],
}

/// One change that a format brought.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// What it does, for the operator's log.
    pub what: &'static str,
    /// Does it. It may have been done already, or in part.
    pub run: fn(&mut Rewrite<'_>) -> Result<(), StoreError>,
}

/// Every step, in order, from format 1 to [`FORMAT`].
pub const STEPS: &[Step] = &[Step {
    to: 2,
    parts: &[sessions::LED_TO, sessions::WHOSE, messages::COUNTED, messages::PACKET_IDS],
}];

const _: () = assert!(FORMAT as usize == 1 + STEPS.len(), "each format has the step that makes it");

/// Makes the rows of `store`, which are of format `from` or on the way from it to the next, those
/// of the last of `steps`. `report` is told how far it is, for a log.
///
/// # Errors
/// The store's. What was done stays; the next call goes on.
pub fn run(
    store: &dyn Store,
    from: u32,
    steps: &[Step],
    report: &mut dyn FnMut(&Progress),
) -> Result<(), StoreError> {
    for step in steps.iter().filter(|step| step.to > from) {
        let mut begin = Batch::new();
        put(&mut begin, MetaKey::Format, step.to);
        put(&mut begin, MetaKey::Migrating, step.to - 1);
        store.commit(&[begin], true)?;
        for part in step.parts {
            let mut rewrite = Rewrite::new(store, step.to, part.what, report);
            (part.run)(&mut rewrite)?;
            rewrite.finish();
        }
        let mut end = Batch::new();
        end.push(Op::Delete { family: Family::Meta, key: MetaKey::Migrating.encode() });
        store.commit(&[end], true)?;
    }
    Ok(())
}

fn put(batch: &mut Batch, key: MetaKey, number: u32) {
    let value = Bytes::copy_from_slice(&number.to_be_bytes());
    batch.push(Op::Put { family: Family::Meta, key: key.encode(), value });
}

#[cfg(test)]
mod tests {
    use super::rewrite::limited::Limited;
    use super::*;
    use crate::MemoryStore;
    use crate::key::KeyRange;
    use crate::memory::Crash;

    /// Rows of `retained` in these tests: a version byte and a letter.
    const ROWS: u32 = 1_000;

    /// Doubles every letter.
    const DOUBLE: Part = Part { what: "letters are doubled", run: double };
    /// Counts the rows into one of `registry`.
    const COUNT: Part = Part { what: "rows are counted", run: count };
    const TO_2: Step = Step { to: 2, parts: &[DOUBLE, COUNT] };
    const TO_3: Step = Step { to: 3, parts: &[DOUBLE] };

    fn double(rewrite: &mut Rewrite<'_>) -> Result<(), StoreError> {
        let to = u8::try_from(rewrite.to()).unwrap();
        rewrite.each_row(Family::Retained, &KeyRange::all(), |key, value, batch| {
            if value[0] < to {
                let value = [&[to], &value[1..], &value[1..]].concat().into();
                batch.push(Op::Put { family: Family::Retained, key: key.into(), value });
            }
            Ok(())
        })
    }

    fn count(rewrite: &mut Rewrite<'_>) -> Result<(), StoreError> {
        let mut rows = 0_u32;
        rewrite.each_row(Family::Retained, &KeyRange::all(), |_, _, _| {
            rows += 1;
            Ok(())
        })?;
        let mut batch = Batch::new();
        let value = Bytes::copy_from_slice(&rows.to_be_bytes());
        batch.push(Op::Put { family: Family::Registry, key: b"rows"[..].into(), value });
        rewrite.commit(batch)
    }

    fn store_of_format_1() -> MemoryStore {
        let store = MemoryStore::new(&"rsu-1".parse().unwrap(), 7);
        let mut batch = Batch::new();
        put(&mut batch, MetaKey::Format, 1);
        for row in 0..ROWS {
            let (key, value) = (row.to_be_bytes(), Bytes::from_static(b"\x01a"));
            batch.push(Op::Put { family: Family::Retained, key: key[..].into(), value });
        }
        store.commit(&[batch], true).unwrap();
        store
    }

    fn meta(store: &MemoryStore, key: MetaKey) -> Option<u32> {
        let value = store.get(Family::Meta, &key.encode()).unwrap()?;
        Some(u32::from_be_bytes((*value).try_into().unwrap()))
    }

    fn is_whole(store: &MemoryStore, value: &[u8]) {
        for row in 0..ROWS {
            let found = store.get(Family::Retained, &row.to_be_bytes()).unwrap();
            assert_eq!(found.as_deref(), Some(value), "row {row}");
        }
        let counted = store.get(Family::Registry, b"rows").unwrap();
        assert_eq!(counted.as_deref(), Some(&ROWS.to_be_bytes()[..]));
        assert_eq!(meta(store, MetaKey::Migrating), None);
    }

    #[test]
    fn steps_follow_one_another_and_say_what_they_did() {
        let store = store_of_format_1();
        let mut said = Vec::new();
        let mut report = |progress: &Progress| said.push(progress.to_string());
        run(&store, 1, &[TO_2, TO_3], &mut report).unwrap();
        is_whole(&store, b"\x03aaaa");
        assert_eq!(meta(&store, MetaKey::Format), Some(3));
        let wanted = [
            "format 2: letters are doubled: 1000 rows read, 1000 written",
            "format 2: rows are counted: 1000 rows read, 1 written",
            "format 3: letters are doubled: 1000 rows read, 1000 written",
        ];
        assert_eq!(said, wanted);
    }

    #[test]
    fn a_store_of_the_last_format_is_left_alone() {
        let store = store_of_format_1();
        let before = store.durable_copy(Crash::Process);
        run(&store, 2, &[TO_2], &mut |_| panic!("nothing is done")).unwrap();
        assert_eq!(store.durable_copy(Crash::Process), before);
    }

    #[test]
    fn a_migration_that_was_cut_anywhere_goes_on_where_the_next_open_finds_it() {
        let mut cuts = 0;
        for commits in 0.. {
            let store = store_of_format_1();
            let limited = Limited::new(&store, commits);
            let outcome = run(&limited, 1, &[TO_2, TO_3], &mut |_| {});
            if outcome.is_ok() {
                is_whole(&store, b"\x03aaaa");
                break;
            }
            cuts += 1;
            // A power failure, which takes with it what was not synced.
            let disk = store.durable_copy(Crash::Power);
            let reopened = MemoryStore::on(disk, store.identity().clone()).unwrap();
            let format = meta(&reopened, MetaKey::Format).unwrap();
            let from = meta(&reopened, MetaKey::Migrating).unwrap_or(format);
            assert_eq!(commits == 0, format == 1, "the format is raised first");
            run(&reopened, from, &[TO_2, TO_3], &mut |_| {}).unwrap();
            is_whole(&reopened, b"\x03aaaa");
        }
        assert!(cuts > 8, "each commit is a place to be cut at");
    }
}
