//! The store.

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rocksdb::properties::{CUR_SIZE_ALL_MEM_TABLES, ESTIMATE_NUM_KEYS, LIVE_SST_FILES_SIZE};
use rocksdb::{ColumnFamily, DB, DBRawIterator, ReadOptions, WriteBatch, WriteOptions};
use verge_storage::log::{LogTable, WriteSink};
use verge_storage::store::{SCAN_BYTES_MAX, SCAN_ROWS_MAX};
use verge_storage::{
    Batch, Committed, Family, FamilySize, Identity, KeyRange, LogBounds, LogKey, ScanPage, Store,
    StoreError,
};

use crate::error;
use crate::open::family;

/// Bytes a write takes in RocksDB's batch beside its key and value, about.
const WRITE_BYTES: usize = 16;

/// A store in a directory. Open it with [`RocksStore::open`]; dropping it closes the directory, and
/// what was committed is safe without.
pub struct RocksStore {
    db: DB,
    identity: Identity,
    // Held for a whole commit: the numbers of logs are given and become true in one order.
    committing: Mutex<()>,
    // Apart from `committing`, so that readers of bounds do not wait for an fsync.
    logs: RwLock<LogTable>,
}

impl RocksStore {
    pub(crate) fn new(db: DB, identity: Identity, logs: LogTable) -> Self {
        Self { db, identity, committing: Mutex::new(()), logs: RwLock::new(logs) }
    }

    /// The rows of `range`, from its start, as long as `rows` lasts.
    fn iterator(&self, in_family: Family, range: &KeyRange) -> DBRawIterator<'_> {
        let mut options = ReadOptions::default();
        if let Some(end) = &range.end {
            options.set_iterate_upper_bound(&end[..]);
        }
        let mut rows = self.db.raw_iterator_cf_opt(family(&self.db, in_family), options);
        rows.seek(&range.start);
        rows
    }

    fn number(&self, in_family: Family, name: &rocksdb::properties::PropName) -> u64 {
        // A property that cannot be read is a metric missing, not a failure.
        self.db.property_int_value_cf(family(&self.db, in_family), name).ok().flatten().unwrap_or(0)
    }
}

impl Store for RocksStore {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn commit(&self, batches: &[Batch], sync: bool) -> Result<Vec<Committed>, StoreError> {
        let _turn = self.committing.lock();
        let mut group = Group::new(&self.db, batches);
        let applied = self.logs.read().apply(batches, &mut group);
        if !group.batch.is_empty() {
            let mut options = WriteOptions::default();
            options.set_sync(sync);
            self.db.write_opt(group.batch, &options).map_err(|error| error::disk(&error))?;
        } else if sync {
            self.db.flush_wal(true).map_err(|error| error::disk(&error))?;
        }
        Ok(self.logs.write().adopt(applied))
    }

    fn get(&self, in_family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self
            .db
            .get_pinned_cf(family(&self.db, in_family), key)
            .map_err(|error| error::read(&error, in_family, key))?;
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
        let mut rows = self.iterator(in_family, range);
        while let Some((key, value)) = rows.item() {
            if page.rows.len() >= limit.clamp(1, SCAN_ROWS_MAX) || bytes >= SCAN_BYTES_MAX {
                let start = Bytes::copy_from_slice(key);
                page.rest = Some(KeyRange { start, end: range.end.clone() });
                break;
            }
            bytes += value.len();
            page.rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            rows.next();
        }
        rows.status().map_err(|error| {
            // The row after the last one read is somewhere in the block that failed.
            let key = page.rows.last().map_or(&range.start, |(key, _)| key);
            error::read(&error, in_family, key)
        })?;
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
        let mut rows = self.iterator(log.family(), &range);
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
                    rows.status().map_err(|error| error::read(&error, log.family(), &key))?;
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
        let size = |family| FamilySize {
            family,
            rows: self.number(family, ESTIMATE_NUM_KEYS),
            bytes: self.number(family, LIVE_SST_FILES_SIZE)
                + self.number(family, CUR_SIZE_ALL_MEM_TABLES),
        };
        Ok(Family::ALL.into_iter().map(size).collect())
    }
}

/// A group on its way into one write batch.
struct Group<'db> {
    families: [&'db ColumnFamily; Family::ALL.len()],
    batch: WriteBatch,
}

impl<'db> Group<'db> {
    fn new(db: &'db DB, batches: &[Batch]) -> Self {
        let bytes =
            batches.iter().map(|batch| batch.bytes() + WRITE_BYTES * batch.len()).sum::<usize>();
        Self {
            families: Family::ALL.map(|of| family(db, of)),
            batch: WriteBatch::with_capacity_bytes(bytes),
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
        self.batch.delete_cf(self.handle(family), key);
    }

    fn delete_range(&mut self, family: Family, range: &KeyRange) {
        self.batch.delete_range_cf(self.handle(family), &range.start, &range.end_or_last());
    }
}
