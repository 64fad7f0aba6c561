//! Directories that are another's, newer, in use, or damaged.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use rocksdb::{DB, Options};
use tempfile::TempDir;
use verge_model::NodeId;
use verge_storage::key::{Key, MemberKey};
use verge_storage::record::MemberRecord;
use verge_storage::{Batch, Family, Store, StoreError, StoreRows};
use verge_storage_rocksdb::{Config, RocksStore};

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn open(dir: &Path) -> Result<RocksStore, StoreError> {
    RocksStore::open(&Config::new(dir), &node("rsu-1"), 7)
}

fn refusal(dir: &Path) -> StoreError {
    let error = open(dir).map(|_| ()).unwrap_err();
    let line = error.to_string();
    assert!(line.contains(dir.to_str().unwrap()), "the directory is named: {line}");
    assert!(!line.contains('\n'), "one line: {line}");
    error
}

/// A member whose row is large enough to be most of its file.
fn member(name: &str) -> MemberRecord {
    // Not compressible, so that a byte of the file is a byte of the row.
    let body: Vec<u8> =
        (1_u32..5_000).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    MemberRecord { node_id: node(name), body: body.into() }
}

fn commit(store: &RocksStore, name: &str) {
    let mut batch = Batch::new();
    batch.put_member(&member(name));
    store.commit(&[batch], true).unwrap();
}

/// Opens the directory past the store's checks.
fn raw(dir: &Path) -> DB {
    let names = DB::list_cf(&Options::default(), dir).unwrap();
    DB::open_cf(&Options::default(), dir, names).unwrap()
}

/// The newest file with this extension.
fn newest(dir: &Path, extension: &str) -> PathBuf {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files.pop().unwrap()
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x10;
    fs::write(file, bytes).unwrap();
}

#[test]
fn another_nodes_directory_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    drop(RocksStore::open(&Config::new(dir.path()), &node("rsu-2"), 7).unwrap());
    let error = refusal(dir.path());
    assert!(matches!(&error, StoreError::WrongNode { found, .. } if *found == node("rsu-2")));
    assert!(error.to_string().contains("--node-id rsu-2"));
}

#[test]
fn a_newer_versions_directory_is_refused_even_if_it_has_new_families() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()).unwrap());
    let mut db = raw(dir.path());
    db.create_cf("handover_queue", &Options::default()).unwrap();
    drop(db);
    assert!(matches!(refusal(dir.path()), StoreError::Damaged { .. }), "the format is ours");
    let db = raw(dir.path());
    let meta = db.cf_handle(Family::Meta.name()).unwrap();
    db.put_cf(meta, b"format", 9_u32.to_be_bytes()).unwrap();
    drop(db);
    assert!(matches!(refusal(dir.path()), StoreError::NewerVersion { found: 9, .. }));
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    assert!(matches!(refusal(dir.path()), StoreError::Locked { .. }));
    commit(&store, "a");
    drop(store);
    assert_eq!(open(dir.path()).unwrap().members().count(), 1);
}

#[test]
fn a_path_that_is_a_file_is_refused() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("data");
    fs::write(&file, b"not a directory").unwrap();
    assert!(matches!(refusal(&file), StoreError::Io { .. }));
}

#[test]
fn a_damaged_description_of_the_directory_is_refused() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()).unwrap());
    let current = dir.path().join("CURRENT");
    fs::write(&current, b"nonsense").unwrap();
    assert!(matches!(refusal(dir.path()), StoreError::Damaged { .. }));
}

#[test]
fn a_flipped_bit_in_a_table_file_is_a_corrupt_row_and_hides_no_other_family() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    commit(&store, "a");
    let mut batch = Batch::new();
    batch.put_received(1, 2);
    store.commit(&[batch], true).unwrap();
    drop(store);
    let db = raw(dir.path());
    db.flush_cf(db.cf_handle(Family::Member.name()).unwrap()).unwrap();
    drop(db);
    flip(&newest(dir.path(), "sst"), 2_000);

    let store = open(dir.path()).unwrap();
    let key = node("a").key();
    let error = store.member(key).unwrap_err();
    let StoreError::Corrupt { family: Family::Member, key: found, .. } = &error else {
        panic!("the row is named, not: {error}");
    };
    assert_eq!(found[..], MemberKey(key).encode()[..]);
    assert!(!error.to_string().contains('\n'), "one line: {error}");
    let rows: Vec<_> = store.members().collect();
    assert!(matches!(rows[..], [Err(StoreError::Corrupt { family: Family::Member, .. })]));
    assert_eq!(store.received_of(1).count(), 1);
    // The node goes on: the row can be written anew.
    commit(&store, "b");
    assert_eq!(store.member(node("b").key()), Ok(Some(member("b"))));
}

#[test]
fn a_log_torn_by_a_power_failure_keeps_what_came_before() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    commit(&store, "a");
    let wal = newest(dir.path(), "log");
    let whole = fs::metadata(&wal).unwrap().len();
    commit(&store, "b");
    drop(store);
    let with_second = fs::metadata(&wal).unwrap().len();
    flip(&wal, usize::try_from(whole.midpoint(with_second)).unwrap());

    let store = open(dir.path()).unwrap();
    let names: Vec<NodeId> = store.members().map(|row| row.unwrap().1.node_id).collect();
    assert_eq!(names, [node("a")]);
    commit(&store, "c");
    drop(store);
    assert_eq!(open(dir.path()).unwrap().members().count(), 2);
}
