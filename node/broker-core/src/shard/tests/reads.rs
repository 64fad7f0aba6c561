//! A store in memory that can refuse to be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use verge_storage::{
    Batch, Committed, Family, FamilySize, Identity, KeyRange, LogBounds, LogKey, MemoryStore,
    ScanPage, Store, StoreError,
};

/// What shards read.
pub(super) struct Reads {
    store: Arc<MemoryStore>,
    broken: AtomicBool,
}

impl Reads {
    pub(super) fn of(store: Arc<MemoryStore>) -> Self {
        Self { store, broken: AtomicBool::new(false) }
    }

    pub(super) fn break_all(&self, broken: bool) {
        self.broken.store(broken, Ordering::Release);
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.broken.load(Ordering::Acquire) {
            true => Err(StoreError::Io { detail: "as asked".into() }),
            false => Ok(()),
        }
    }
}

impl Store for Reads {
    fn identity(&self) -> &Identity {
        self.store.identity()
    }

    fn commit(&self, batches: &[Batch], sync: bool) -> Result<Vec<Committed>, StoreError> {
        self.store.commit(batches, sync)
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.check()?;
        self.store.get(family, key)
    }

    fn scan(&self, family: Family, range: &KeyRange, limit: usize) -> Result<ScanPage, StoreError> {
        self.check()?;
        self.store.scan(family, range, limit)
    }

    fn log_bounds(&self, log: LogKey) -> Result<LogBounds, StoreError> {
        self.store.log_bounds(log)
    }

    fn read_log(
        &self,
        log: LogKey,
        from: u64,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, StoreError> {
        self.store.read_log(log, from, rows_max, bytes_max)
    }

    fn logs(&self) -> Result<Vec<LogKey>, StoreError> {
        self.store.logs()
    }

    fn sizes(&self) -> Result<Vec<FamilySize>, StoreError> {
        self.store.sizes()
    }
}
