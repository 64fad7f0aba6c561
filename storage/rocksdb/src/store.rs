//! The store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};
use rocksdb::properties::{CUR_SIZE_ALL_MEM_TABLES, ESTIMATE_NUM_KEYS, LIVE_SST_FILES_SIZE};
use rocksdb::{ColumnFamily, DB, DBRawIterator, ErrorKind, ReadOptions, WriteBatch, WriteOptions};
use verge_storage::log::{LogTable, WriteSink};
use verge_storage::store::{SCAN_BYTES_MAX, SCAN_ROWS_MAX};
use verge_storage::{
    Batch, Committed, Family, FamilySize, Health, Identity, KeyRange, LogBounds, LogKey, ScanPage,
    Store, StoreError, Trouble,
};

use crate::open::{Opening, family};
use crate::recover::Failed;
use crate::{damage, error, references};

/// Bytes a write takes in RocksDB's batch beside its key and value, about.
const WRITE_BYTES: usize = 16;

/// A store in a directory. Open it with [`RocksStore::open`]; dropping it closes the directory, and
/// what was committed is safe without.
pub struct RocksStore {
    pub(crate) opening: Opening,
    pub(crate) health: Arc<Health>,
    // Written only while the database is opened anew; `None` if that failed even for reading.
    pub(crate) db: RwLock<Option<DB>>,
    identity: Identity,
    // Held for a whole commit: the numbers of logs are given and become true in one order. After a
    // failed commit it says why there are no more.
    pub(crate) committing: Mutex<Option<Failed>>,
    /// Rows deleted since the last time that room was made.
    pub(crate) deleted: AtomicU64,
    // Apart from `committing`, so that readers of bounds do not wait for an fsync.
    logs: RwLock<LogTable>,
}

impl RocksStore {
    pub(crate) fn new(opening: Opening, db: DB, identity: Identity, logs: LogTable) -> Self {
        Self {
            opening,
            health: Arc::default(),
            db: RwLock::new(Some(db)),
            identity,
            committing: Mutex::new(None),
            deleted: AtomicU64::new(0),
            logs: RwLock::new(logs),
        }
    }

    /// The database, for as long as it is not opened anew.
    pub(crate) fn db(&self) -> Result<MappedRwLockReadGuard<'_, DB>, StoreError> {
        RwLockReadGuard::try_map(self.db.read(), Option::as_ref)
            .map_err(|_| StoreError::Io { detail: "the data directory cannot be opened".into() })
    }

    /// Notes a failed read.
    fn unread(&self, error: StoreError) -> StoreError {
        if let StoreError::Corrupt { .. } = &error {
            self.health.count(Trouble::Corrupt);
        } else {
            self.health.count(Trouble::Read);
            tracing::error!(%error, "a read failed");
        }
        error
    }

    /// Notes a failed commit: there are no more until the store was opened anew.
    fn uncommitted(&self, error: &rocksdb::Error, batches: &[Batch]) -> Failed {
        let is_damage = error.kind() == ErrorKind::Corruption;
        let error = error::disk(error);
        // Of a damaged file that a compaction came to, the next write tells.
        let trouble = if is_damage { Some(Trouble::Corrupt) } else { Trouble::of(&error) };
        if let Some(trouble) = trouble {
            self.health.count(trouble);
            if self.health.refuse(trouble) {
                let advice = trouble.advice();
                tracing::error!(%error, "messages that must be stored are refused: {advice}");
            }
        }
        Failed::new(error, batches, &self.logs.read())
    }
}

/// The rows of `range`, from its start, as long as `rows` lasts.
fn iterator<'db>(db: &'db DB, in_family: Family, range: &KeyRange) -> DBRawIterator<'db> {
    let mut options = ReadOptions::default();
    if let Some(end) = &range.end {
        options.set_iterate_upper_bound(&end[..]);
    }
    let mut rows = db.raw_iterator_cf_opt(family(db, in_family), options);
    rows.seek(&range.start);
    rows
}

pub(crate) fn number(db: &DB, in_family: Family, name: &rocksdb::properties::PropName) -> u64 {
    // A property that cannot be read is a metric missing, not a failure.
    db.property_int_value_cf(family(db, in_family), name).ok().flatten().unwrap_or(0)
}

impl Store for RocksStore {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn commit(&self, batches: &[Batch], sync: bool) -> Result<Vec<Committed>, StoreError> {
        let mut failed = self.committing.lock();
        if let Some(failed) = &*failed {
            return Err(failed.error.clone());
        }
        let db = self.db()?;
        let mut group = Group::new(&db, batches);
        let applied = self.logs.read().apply(batches, &mut group);
        let deleted = group.deleted;
        let written = if !group.batch.is_empty() {
            let mut options = WriteOptions::default();
            options.set_sync(sync);
            // Keys of one batch lie beside each other: messages by number, queues by position.
            options.set_memtable_insert_hint_per_batch(true);
            db.write_opt(group.batch, &options)
        } else if sync {
            db.flush_wal(true)
        } else {
            Ok(())
        };
        match written {
            Ok(()) => {
                self.deleted.fetch_add(deleted, Ordering::Relaxed);
                Ok(self.logs.write().adopt(applied))
            }
            Err(error) => {
                let failure = self.uncommitted(&error, batches);
                let error = failure.error.clone();
                *failed = Some(failure);
                Err(error)
            }
        }
    }

    fn get(&self, in_family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let db = self.db()?;
        let value = db
            .get_pinned_cf(family(&db, in_family), key)
            .map_err(|error| self.unread(error::read(&error, in_family, key)))?;
        let value = value.filter(|value| !references::is_gone(in_family, value));
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        in_family: Family,
        range: &KeyRange,
        limit: usize,
    ) -> Result<ScanPage, StoreError> {
        let mut page = ScanPage::default();
        if range.is_empty() {
            return Ok(page);
        }
        let mut bytes = 0;
        let db = self.db()?;
        let mut rows = iterator(&db, in_family, range);
        while let Some((key, value)) = rows.item() {
            if page.rows.len() >= limit.clamp(1, SCAN_ROWS_MAX) || bytes >= SCAN_BYTES_MAX {
                let start = Bytes::copy_from_slice(key);
                page.rest = Some(KeyRange { start, end: range.end.clone() });
                break;
            }
            if references::is_gone(in_family, value) {
                rows.next();
                continue;
            }
            bytes += value.len();
            page.rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            rows.next();
        }
        let Err(error) = rows.status() else { return Ok(page) };
        // The row after the last one read is somewhere in the block that failed.
        let key = page.rows.last().map_or(&range.start, |(key, _)| key).clone();
        let error = self.unread(error::read(&error, in_family, &key));
        if !matches!(error, StoreError::Corrupt { .. }) {
            return Err(error);
        }
        page.rest = damage::beyond(&db, in_family, &key, range);
        let to = page.rest.as_ref().map(|rest| rest.start.clone()).or(range.end.clone());
        damage::within(&db, in_family, &key, to.as_deref(), |key, value| {
            if !references::is_gone(in_family, value) {
                page.rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            }
            Ok(())
        })?;
        self.health.count_left_out();
        tracing::error!(%error, "rows that cannot be read are left out");
        page.damaged = Some(error);
        Ok(page)
    }

    fn log_bounds(&self, log: LogKey) -> Result<LogBounds, StoreError> {
        Ok(self.logs.read().bounds(log))
    }

    fn read_log(
        &self,
        log: LogKey,
        from: u64,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let bounds = self.logs.read().bounds(log);
        let (from, mut found) = (from.max(bounds.first), Vec::new());
        if from >= bounds.next {
            return Ok(found);
        }
        let range = KeyRange {
            start: Bytes::copy_from_slice(&log.row(from)),
            end: Some(Bytes::copy_from_slice(&log.row(bounds.next))),
        };
        let db = self.db()?;
        let mut rows = iterator(&db, log.family(), &range);
        let mut bytes = 0;
        for seq in from..bounds.next {
            if found.len() >= rows_max || bytes >= bytes_max {
                break;
            }
            match rows.item().filter(|(key, _)| **key == log.row(seq)[..]) {
                Some((_, value)) => {
                    bytes += value.len();
                    found.push((seq, Bytes::copy_from_slice(value)));
                    rows.next();
                }
                None => {
                    let key = log.row(seq);
                    rows.status()
                        .map_err(|error| self.unread(error::read(&error, log.family(), &key)))?;
                    // Another thread may have trimmed the row since `bounds` was read.
                    if found.is_empty() && self.logs.read().bounds(log).first <= seq {
                        return Err(StoreError::missing_row(log, seq));
                    }
                    break;
                }
            }
        }
        Ok(found)
    }

    fn logs(&self) -> Result<Vec<LogKey>, StoreError> {
        Ok(self.logs.read().logs())
    }

    fn sizes(&self) -> Result<Vec<FamilySize>, StoreError> {
        let db = self.db()?;
        let size = |family| FamilySize {
            family,
            rows: number(&db, family, ESTIMATE_NUM_KEYS),
            bytes: number(&db, family, LIVE_SST_FILES_SIZE)
                + number(&db, family, CUR_SIZE_ALL_MEM_TABLES),
        };
        Ok(Family::ALL.into_iter().map(size).collect())
    }
}

/// A group on its way into one write batch.
struct Group<'db> {
    families: [&'db ColumnFamily; Family::ALL.len()],
    batch: WriteBatch,
    deleted: u64,
}

impl<'db> Group<'db> {
    fn new(db: &'db DB, batches: &[Batch]) -> Self {
        let bytes =
            batches.iter().map(|batch| batch.bytes() + WRITE_BYTES * batch.len()).sum::<usize>();
        Self {
            families: Family::ALL.map(|of| family(db, of)),
            batch: WriteBatch::with_capacity_bytes(bytes),
            deleted: 0,
        }
    }

    fn handle(&self, family: Family) -> &'db ColumnFamily {
        self.families[usize::from(family.number())]
    }
}

impl WriteSink for Group<'_> {
    fn put(&mut self, family: Family, key: &[u8], value: &Bytes) {
        self.batch.put_cf(self.handle(family), key, value);
    }

    fn delete(&mut self, family: Family, key: &[u8]) {
        self.deleted += 1;
        self.batch.delete_cf(self.handle(family), key);
    }

    fn release(&mut self, key: &[u8], count: u32) {
        self.batch.merge_cf(self.handle(Family::Message), key, references::operand(count));
    }

    fn delete_range(&mut self, family: Family, range: &KeyRange) {
        self.batch.delete_range_cf(self.handle(family), &range.start, &range.end_or_last());
    }
}
