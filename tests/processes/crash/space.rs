//! What the store holds when everybody has got everything: nothing of what was on its way.

use std::path::Path;

use verge_storage::{Family, KeyRange, Store};
use verge_storage_rocksdb::{Config, RocksStore};

/// Families whose rows are each owed to somebody, or named by one that is.
const OWED: [Family; 4] = [Family::Queue, Family::Message, Family::Received, Family::Delayed];

/// Reads the store of a node that has ended. The rows it has, for a test's own log.
pub(super) fn nothing_is_left(dir: &Path, node: &str) -> String {
    let node = node.parse().expect("a node's name");
    let store = RocksStore::open(&Config::new(dir), &node, 1).expect("a store that was closed");
    let rows = Family::ALL.map(|family| (family, rows(&store, family)));
    for (family, count) in rows {
        assert!(count == 0 || !OWED.contains(&family), "{count} rows of {family}: {rows:?}");
    }
    let some = rows.into_iter().filter(|(_, count)| *count > 0);
    let some: Vec<_> = some.map(|(family, count)| format!("{family} {count}")).collect();
    format!("rows that are left: {}; {} bytes of files", some.join(", "), bytes(dir))
}

fn rows(store: &RocksStore, family: Family) -> usize {
    let (mut rest, mut count) = (Some(KeyRange::all()), 0);
    while let Some(range) = rest {
        let page = store.scan(family, &range, usize::MAX).expect("rows can be read");
        count += page.rows.len();
        rest = page.rest;
    }
    count
}

fn bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).expect("a folder can be listed").flatten();
    files.filter_map(|file| file.metadata().ok()).map(|about| about.len()).sum()
}
