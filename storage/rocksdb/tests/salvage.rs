//! A damaged file that a compaction comes to.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tempfile::TempDir;
use verge_storage::{Batch, Family, KeyRange, Op, Store, Trouble};
use verge_storage_rocksdb::{Config, Profile, RocksStore};

/// Bytes of a row: some rows to a block.
const ROW_BYTES: usize = 700;
/// Most rows written until a compaction came to a file; it comes to each in turn.
const ROWS_MAX: u64 = 200_000;

fn open(dir: &Path) -> RocksStore {
    let config = Config {
        profile: Profile::Ssd,
        memtables_bytes_max: 1024 * 1024,
        reserve_bytes: 0,
        ..Config::new(dir)
    };
    RocksStore::open(&config, &"rsu-1".parse().unwrap(), 7).unwrap()
}

fn row(number: u64) -> Batch {
    let mut batch = Batch::new();
    // Not compressible, so that rows fill files.
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let value: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(ROW_BYTES)
    .collect();
    // Everywhere in the family, so that files overlap and compactions must read them.
    let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[..].into();
    batch.push(Op::Put { family: Family::Registry, key, value: value.into() });
    batch
}

/// The keys of all rows that can be read.
fn rows(store: &RocksStore) -> Vec<u64> {
    let mut found = Vec::new();
    let mut rest = Some(KeyRange::all());
    while let Some(range) = rest {
        let page = store.scan(Family::Registry, &range, 1_000).unwrap();
        let key_of = |(key, _): &(Bytes, Bytes)| u64::from_be_bytes(key[..].try_into().unwrap());
        found.extend(page.rows.iter().map(key_of));
        rest = page.rest;
    }
    found
}

fn oldest(dir: &Path) -> PathBuf {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let large = |path: &PathBuf| fs::metadata(path).unwrap().len() > 50_000;
    let tables = paths.filter(|path| path.extension().is_some_and(|found| found == "sst"));
    tables.filter(large).min().unwrap()
}

#[test]
fn a_family_is_written_anew_when_a_compaction_comes_to_a_damaged_file() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let mut next = 0;
    for _ in 0..300 {
        store.commit(&[row(next)], false).unwrap();
        next += 1;
    }
    drop(store);
    // The start makes a file of the log; the next leaves it alone.
    drop(open(dir.path()));
    let file = oldest(dir.path());
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&file, bytes).unwrap();

    let store = open(dir.path());
    let error = loop {
        assert!(next < ROWS_MAX, "no compaction came to the file");
        match store.commit(&[row(next)], false) {
            Ok(_) => next += 1,
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains(file.file_name().unwrap().to_str().unwrap()), "{error}");
    assert_eq!(store.health().trouble(), Some(Trouble::Corrupt));
    assert!(store.commit(&[row(next)], false).is_err(), "until it is looked after");
    store.look_after();
    assert_eq!(store.health().trouble(), None);

    let left = rows(&store);
    let lost = next - left.len() as u64;
    assert!((1..=20).contains(&lost), "{lost} rows were in the block");
    assert!(left.is_sorted());
    let kept = dir.path().join("salvage").join(file.file_name().unwrap());
    assert!(kept.is_file(), "for whoever wants to look at it");
    // Compactions come to every file again.
    let until = next + 3_000;
    while next < until {
        store.commit(&[row(next)], false).unwrap();
        next += 1;
    }
    drop(store);
    let store = open(dir.path());
    assert_eq!(rows(&store).len() as u64, next - lost);
    assert_eq!(store.health().left_out(), 0, "nothing unreadable is left");
}

#[test]
fn a_salvage_that_a_crash_interrupted_is_finished_at_the_next_start() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    for number in 0..20 {
        store.commit(&[row(number)], false).unwrap();
    }
    drop(store);
    // The mark without the rows: they were taken over before the crash.
    let salvage = dir.path().join("salvage");
    fs::create_dir(&salvage).unwrap();
    fs::write(salvage.join("registry.ready"), b"").unwrap();
    assert_eq!(rows(&open(dir.path())).len(), 20);
    assert!(!salvage.join("registry.ready").exists());
}
