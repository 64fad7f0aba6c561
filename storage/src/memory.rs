//! The reference store: ordered maps, and a disk that can be taken away.
//!
//! What a simulated node survives with is a [`MemoryDisk`], copied out of a running store: after the
//! process died, all that was committed; after the power failed, what had reached the disk.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use verge_model::NodeId;

use crate::batch::Batch;
use crate::error::StoreError;
use crate::family::Family;
use crate::identity::{self, Identity};
use crate::key::{KeyRange, MetaKey};
use crate::log::{LogBounds, LogKey, LogTable, WriteSink};
use crate::migrate;
use crate::references;
use crate::store::{Committed, FamilySize, SCAN_BYTES_MAX, SCAN_ROWS_MAX, ScanPage, Store};

/// Commits that may wait for the disk: an operating system writes back what is old.
const UNSYNCED_COMMITS_MAX: usize = 1_024;

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// It is killed: what was committed survives.
    Process,
    /// The power fails: what was synced survives, and what was committed before it.
    Power,
}

/// What survives a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryDisk {
    families: [BTreeMap<Bytes, Bytes>; Family::ALL.len()],
}

impl MemoryDisk {
    fn family(&self, family: Family) -> &BTreeMap<Bytes, Bytes> {
        &self.families[usize::from(family.number())]
    }

    fn family_mut(&mut self, family: Family) -> &mut BTreeMap<Bytes, Bytes> {
        &mut self.families[usize::from(family.number())]
    }

    fn write(&mut self, writes: &[Write]) {
        for write in writes {
            match write {
                Write::Put(family, key, value) => {
                    self.family_mut(*family).insert(key.clone(), value.clone());
                }
                Write::Delete(family, key) => {
                    self.family_mut(*family).remove(key);
                }
                Write::Release(key, count) => {
                    let rows = self.family_mut(Family::Message);
                    let left = rows.get(key).map(|value| references::release(value, *count));
                    match left {
                        Some(Some(value)) => {
                            rows.insert(key.clone(), value);
                        }
                        Some(None) => {
                            rows.remove(key);
                        }
                        None => {}
                    }
                }
                Write::DeleteRange(family, range) => {
                    let rows = self.family_mut(*family);
                    let gone: Vec<Bytes> =
                        rows_of(rows, range).map(|(key, _)| key.clone()).collect();
                    for key in gone {
                        rows.remove(&key);
                    }
                }
            }
        }
    }
}

fn rows_of<'a>(
    rows: &'a BTreeMap<Bytes, Bytes>,
    range: &KeyRange,
) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> {
    let end = match &range.end {
        // `BTreeMap::range` panics when the end lies before the start.
        Some(end) => Bound::Excluded(end.clone().max(range.start.clone())),
        None => Bound::Unbounded,
    };
    rows.range((Bound::Included(range.start.clone()), end))
}

/// One write to a disk.
#[derive(Debug, Clone)]
enum Write {
    Put(Family, Bytes, Bytes),
    Delete(Family, Bytes),
    DeleteRange(Family, KeyRange),
    Release(Bytes, u32),
}

impl WriteSink for Vec<Write> {
    fn put(&mut self, family: Family, key: &[u8], value: &Bytes) {
        self.push(Write::Put(family, Bytes::copy_from_slice(key), value.clone()));
    }

    fn delete(&mut self, family: Family, key: &[u8]) {
        self.push(Write::Delete(family, Bytes::copy_from_slice(key)));
    }

    fn release(&mut self, key: &[u8], count: u32) {
        self.push(Write::Release(Bytes::copy_from_slice(key), count));
    }

    fn delete_range(&mut self, family: Family, range: &KeyRange) {
        self.push(Write::DeleteRange(family, range.clone()));
    }
}

/// A store in memory; the reference for every other.
#[derive(Debug)]
pub struct MemoryStore {
    identity: Identity,
    // A lock, since tests share a store between a writing and several reading threads.
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What readers see, and what survives the process.
    written: MemoryDisk,
    /// What survives a power failure.
    synced: MemoryDisk,
    /// The commits between the two, oldest first; at most [`UNSYNCED_COMMITS_MAX`].
    unsynced: VecDeque<Vec<Write>>,
    logs: LogTable,
    fail_next: Option<StoreError>,
    fault: Option<StoreError>,
}

impl MemoryStore {
    /// A store on an empty disk.
    #[must_use]
    pub fn new(node_id: &NodeId, log_id: u64) -> Self {
        Self::open(MemoryDisk::default(), node_id, log_id).expect("an empty disk is nobody else's")
    }

    /// Opens what survived, and counts the boot. `log_id` is used if the disk is empty.
    ///
    /// # Errors
    /// The disk is another node's, or damaged.
    pub fn open(disk: MemoryDisk, node_id: &NodeId, log_id: u64) -> Result<Self, StoreError> {
        let get = |key: &[u8]| Ok(disk.family(Family::Meta).get(key).cloned());
        let boot = identity::boot(Path::new("(memory)"), node_id, log_id, get)?;
        let store = Self::on(disk, boot.identity)?;
        if let Some(from) = boot.migrate_from {
            migrate::run(&store, from, migrate::STEPS, &mut |_| {})?;
        }
        store.commit(&[boot.batch], true)?;
        Ok(store)
    }

    /// A store on `disk` as it is.
    pub(crate) fn on(disk: MemoryDisk, identity: Identity) -> Result<Self, StoreError> {
        let logs = logs_of(&disk)?;
        let state =
            RwLock::new(State { synced: disk.clone(), written: disk, logs, ..State::default() });
        Ok(Self { identity, state })
    }

    /// What would survive if the node ended now.
    #[must_use]
    pub fn durable_copy(&self, crash: Crash) -> MemoryDisk {
        let state = self.read();
        match crash {
            Crash::Process => state.written.clone(),
            Crash::Power => state.synced.clone(),
        }
    }

    /// Makes the next commit fail with `error`.
    pub fn fail_next(&self, error: StoreError) {
        self.write().fail_next = Some(error);
    }

    /// Makes every commit fail until this is called with `None`.
    pub fn set_fault(&self, fault: Option<StoreError>) {
        self.write().fault = fault;
    }

    // A panic under the lock leaves the state as it was: commits change it last.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn commit(&self, batches: &[Batch], sync: bool) -> Result<Vec<Committed>, StoreError> {
        let mut state = self.write();
        if let Some(error) = state.fail_next.take().or_else(|| state.fault.clone()) {
            return Err(error);
        }
        let mut writes = Vec::new();
        let applied = state.logs.apply(batches, &mut writes);
        state.written.write(&writes);
        state.unsynced.push_back(writes);
        let kept = if sync { 0 } else { UNSYNCED_COMMITS_MAX };
        while state.unsynced.len() > kept {
            if let Some(writes) = state.unsynced.pop_front() {
                state.synced.write(&writes);
            }
        }
        Ok(state.logs.adopt(applied))
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.read().written.family(family).get(key).cloned())
    }

    fn scan(&self, family: Family, range: &KeyRange, limit: usize) -> Result<ScanPage, StoreError> {
        let state = self.read();
        let mut page = ScanPage::default();
        let mut bytes = 0;
        for (key, value) in rows_of(state.written.family(family), range) {
            if page.rows.len() >= limit.clamp(1, SCAN_ROWS_MAX) || bytes >= SCAN_BYTES_MAX {
                page.rest = Some(KeyRange { start: key.clone(), end: range.end.clone() });
                break;
            }
            bytes += value.len();
            page.rows.push((key.clone(), value.clone()));
        }
        Ok(page)
    }

    fn log_bounds(&self, log: LogKey) -> Result<LogBounds, StoreError> {
        Ok(self.read().logs.bounds(log))
    }

    fn read_log(
        &self,
        log: LogKey,
        from: u64,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let state = self.read();
        let bounds = state.logs.bounds(log);
        let family = state.written.family(log.family());
        let mut rows = Vec::new();
        let mut bytes = 0;
        for seq in from.max(bounds.first)..bounds.next {
            if rows.len() >= rows_max || bytes >= bytes_max {
                break;
            }
            let key = log.row(seq);
            match family.get(&key[..]) {
                Some(value) => {
                    bytes += value.len();
                    rows.push((seq, value.clone()));
                }
                None if rows.is_empty() => return Err(StoreError::missing_row(log, seq)),
                None => break,
            }
        }
        Ok(rows)
    }

    fn logs(&self) -> Result<Vec<LogKey>, StoreError> {
        Ok(self.read().logs.logs())
    }

    fn sizes(&self) -> Result<Vec<FamilySize>, StoreError> {
        let state = self.read();
        let size = |family| {
            let rows = state.written.family(family);
            let bytes = rows.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
            FamilySize { family, rows: rows.len() as u64, bytes: bytes as u64 }
        };
        Ok(Family::ALL.into_iter().map(size).collect())
    }
}

/// The bounds of the logs on a disk.
fn logs_of(disk: &MemoryDisk) -> Result<LogTable, StoreError> {
    let mut logs = LogTable::default();
    for (key, value) in
        rows_of(disk.family(Family::Meta), &KeyRange::prefix(MetaKey::trimmed_prefix()))
    {
        logs.load_mark(key, value)?;
    }
    for family in LogKey::FAMILIES {
        for key in disk.family(family).keys() {
            logs.load_last_key(family, key)?;
        }
    }
    Ok(logs)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::contract::{self, Place};
    use crate::key::KeyBuf;
    use crate::rows::StoreRows;

    fn node() -> NodeId {
        "rsu-1".parse().unwrap()
    }

    #[derive(Default)]
    struct Memory(Option<Arc<MemoryStore>>);

    impl Place for Memory {
        fn open(&mut self, node: &NodeId, log_id: u64) -> Result<Arc<dyn Store>, StoreError> {
            let disk = self.0.as_ref().map(|store| store.durable_copy(Crash::Process));
            let store = Arc::new(MemoryStore::open(disk.unwrap_or_default(), node, log_id)?);
            self.0 = Some(Arc::clone(&store));
            Ok(store)
        }
    }

    #[test]
    fn keeps_the_contract() {
        contract::run(|| Box::new(Memory::default()));
    }

    fn received(packet_id: u16) -> [Batch; 1] {
        let mut batch = Batch::new();
        batch.put_received(1, packet_id);
        [batch]
    }

    fn survivors(store: &MemoryStore, crash: Crash) -> Vec<u16> {
        let store = MemoryStore::open(store.durable_copy(crash), &node(), 0).unwrap();
        store.received_of(1).map(|row| row.unwrap().0.packet_id).collect()
    }

    #[test]
    fn a_crash_takes_what_its_kind_takes() {
        let store = MemoryStore::new(&node(), 7);
        store.commit(&received(1), false).unwrap();
        store.commit(&received(2), true).unwrap();
        store.commit(&received(3), false).unwrap();
        assert_eq!(survivors(&store, Crash::Process), [1, 2, 3]);
        assert_eq!(survivors(&store, Crash::Power), [1, 2]);
        store.commit(&[], true).unwrap();
        assert_eq!(survivors(&store, Crash::Power), [1, 2, 3]);
    }

    #[test]
    fn what_waits_for_the_disk_is_bounded() {
        let store = MemoryStore::new(&node(), 7);
        for packet_id in 0..UNSYNCED_COMMITS_MAX as u16 + 2 {
            store.commit(&received(packet_id), false).unwrap();
        }
        assert_eq!(survivors(&store, Crash::Power), [0, 1]);
    }

    #[test]
    fn a_copy_goes_its_own_way() {
        let store = MemoryStore::new(&node(), 7);
        let copy = MemoryStore::open(store.durable_copy(Crash::Process), &node(), 0).unwrap();
        store.commit(&received(1), true).unwrap();
        assert_eq!(copy.received_of(1).count(), 0);
        assert_eq!((store.identity().incarnation, copy.identity().incarnation), (1, 2));
        assert_eq!(copy.identity().log_id, 7);
    }

    #[test]
    fn a_fault_fails_commits_and_changes_nothing() {
        let store = MemoryStore::new(&node(), 7);
        let log = LogKey::Outbox { stream: 0 };
        let full = StoreError::Full { detail: "test".into() };
        let mut batch = Batch::new();
        batch.append(log, Bytes::from_static(b"a"));
        let batch = [batch];

        store.fail_next(full.clone());
        assert_eq!(store.commit(&batch, true), Err(full.clone()));
        assert_eq!(store.log_bounds(log), Ok(LogBounds::NEW));
        assert_eq!(store.commit(&batch, true).unwrap()[0].appended[0].1, 1);

        store.set_fault(Some(full.clone()));
        for _ in 0..2 {
            assert_eq!(store.commit(&batch, false), Err(full.clone()));
        }
        assert_eq!(store.read_log(log, 1, 9, 9).unwrap().len(), 1, "reads go on");
        store.set_fault(None);
        assert_eq!(store.commit(&batch, false).unwrap()[0].appended[0].1, 2);
    }

    #[test]
    fn a_disk_with_an_unreadable_trim_mark_is_refused() {
        let store = MemoryStore::new(&node(), 7);
        let mut batch = Batch::new();
        let mut key = KeyBuf::from_slice(MetaKey::trimmed_prefix());
        key.push(99);
        let value = Bytes::new();
        batch.push(crate::batch::Op::Put { family: Family::Meta, key, value });
        store.commit(&[batch], true).unwrap();
        let error = MemoryStore::open(store.durable_copy(Crash::Process), &node(), 0);
        assert!(matches!(error, Err(StoreError::Corrupt { family: Family::Meta, .. })));
    }
}
