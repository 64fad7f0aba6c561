//! What a failed write leaves behind, and the way back.
//!
//! After a failed write RocksDB takes no more, and after a failed fsync nobody knows what of the log
//! is on the disk: the operating system says so once and forgets. So the database is opened anew
//! when the disk works again, which replays the log into fresh, synced files. Reads go on until
//! then, by the old handle.
//!
//! The group that failed may be in the log all the same, whole. Its callers were told that it is
//! not, so the rows it touched are set back to what they were.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rocksdb::{DB, ErrorKind, WriteBatch, WriteOptions};
use verge_storage::log::{LogTable, WriteSink};
use verge_storage::{Batch, Family, KeyBuf, KeyRange, StoreError, Trouble};

use crate::open::family;
use crate::store::RocksStore;
use crate::{error, salvage};

/// What is written to see whether the disk works: more than a file system keeps in its metadata.
const PROBE_BYTES: usize = 64 * 1024;

/// The file of the probe, in the data directory.
const PROBE_FILE: &str = "probe.tmp";

/// Most bytes of rows set back after a failed group that deleted ranges; a group itself is bounded
/// by the writer. What is beyond stays as the log has it, and is reported.
const SET_BACK_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Least free bytes for opening anew, whatever is held back: the log's rows become files.
const REOPEN_BYTES_LEAST: u64 = 1024 * 1024;

/// A store that takes no writes.
#[derive(Debug)]
pub(crate) struct Failed {
    /// Why.
    pub(crate) error: StoreError,
    /// What the group that failed would have changed.
    touched: Touched,
    /// What those rows were, once that was read.
    before: Option<Vec<SetBack>>,
}

/// The rows of a group.
#[derive(Debug, Default)]
struct Touched {
    keys: Vec<(Family, KeyBuf)>,
    ranges: Vec<(Family, KeyRange)>,
}

/// A row as it was.
type SetBack = (Family, Bytes, Option<Bytes>);

impl Failed {
    /// A group that was not committed, numbered by `logs`.
    pub(crate) fn new(error: StoreError, batches: &[Batch], logs: &LogTable) -> Self {
        let mut touched = Touched::default();
        logs.apply(batches, &mut touched);
        Self { error, touched, before: None }
    }

    /// Reads the rows as they are without the group.
    fn remember(&mut self, db: &DB) -> Result<(), StoreError> {
        if self.before.is_some() {
            return Ok(());
        }
        let mut before = Vec::with_capacity(self.touched.keys.len());
        for (in_family, key) in &self.touched.keys {
            let value = match db.get_pinned_cf(family(db, *in_family), key) {
                Ok(value) => value.map(|value| Bytes::copy_from_slice(&value)),
                // It cannot be set back to what nobody can read.
                Err(error) if error.kind() == ErrorKind::Corruption => continue,
                Err(error) => return Err(error::read(&error, *in_family, key)),
            };
            before.push((*in_family, Bytes::copy_from_slice(key), value));
        }
        let mut bytes = 0;
        for (in_family, range) in &self.touched.ranges {
            let mut rows = db.raw_iterator_cf(family(db, *in_family));
            rows.seek(&range.start);
            while let Some((key, value)) = rows.item().filter(|(key, _)| range.contains(key)) {
                bytes += key.len() + value.len();
                if bytes > SET_BACK_BYTES_MAX {
                    tracing::error!(family = %in_family, "a deletion that failed may have happened");
                    break;
                }
                let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                before.push((*in_family, key, Some(value)));
                rows.next();
            }
        }
        self.before = Some(before);
        Ok(())
    }
}

impl WriteSink for Touched {
    fn put(&mut self, family: Family, key: &[u8], _value: &Bytes) {
        self.delete(family, key);
    }

    fn delete(&mut self, family: Family, key: &[u8]) {
        self.keys.push((family, KeyBuf::from_slice(key)));
    }

    fn release(&mut self, key: &[u8], _count: u32) {
        self.delete(Family::Message, key);
    }

    fn delete_range(&mut self, family: Family, range: &KeyRange) {
        self.ranges.push((family, range.clone()));
    }
}

impl RocksStore {
    /// Opens the database anew if a write failed and the disk works again. True if the store takes
    /// writes.
    ///
    /// # Errors
    /// The disk does not work yet. What is stored stays readable as far as the disk lets it.
    pub(crate) fn recover(&self, free_bytes: u64) -> Result<(), StoreError> {
        let mut failed = self.committing.lock();
        let Some(state) = failed.as_mut() else { return Ok(()) };
        let config = &self.opening.config;
        let wanted = (config.reserve_bytes / 2).max(REOPEN_BYTES_LEAST);
        if free_bytes < wanted {
            let detail = format!("{free_bytes} bytes are free, {wanted} are needed to go on");
            return Err(StoreError::Full { detail });
        }
        probe(&config.dir).map_err(|error| error::create(&error, &config.dir))?;
        let mut db = self.db.write();
        let mut damaged = None;
        if let Some(db) = db.as_ref() {
            state.remember(db)?;
            damaged = salvage::damaged(db, &state.error.to_string());
        }
        // The directory is locked until the old handle is gone.
        *db = None;
        let before = state.before.as_deref().unwrap_or_default();
        let opened = self.reopen(damaged, before);
        match opened {
            Ok(opened) => {
                *db = Some(opened);
                *failed = None;
                self.health.count_recovery();
                self.health.accept();
                Ok(())
            }
            Err(error) => {
                // So that reads go on.
                *db = self.opening.open_read_only().ok();
                state.error = error.clone();
                if let Some(trouble) = Trouble::of(&error) {
                    self.health.refuse(trouble);
                }
                Err(error)
            }
        }
    }
}

impl RocksStore {
    fn reopen(
        &self,
        damaged: Option<(Family, PathBuf)>,
        before: &[SetBack],
    ) -> Result<DB, StoreError> {
        if let Some((of, file)) = damaged {
            salvage::rewrite(&mut self.opening.open_quiet()?, &self.opening, of, &file)?;
        }
        let db = self.opening.open()?;
        set_back(&db, before)?;
        Ok(db)
    }
}

/// Writes, syncs and removes a file.
fn probe(dir: &Path) -> io::Result<()> {
    let path = dir.join(PROBE_FILE);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&[0x5a; PROBE_BYTES])?;
        file.sync_all()
    });
    let removed = fs::remove_file(&path);
    written.and(removed)
}

fn set_back(db: &DB, rows: &[SetBack]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut batch = WriteBatch::default();
    for (in_family, key, value) in rows {
        match value {
            Some(value) => batch.put_cf(family(db, *in_family), key, value),
            None => batch.delete_cf(family(db, *in_family), key),
        }
    }
    let mut options = WriteOptions::default();
    options.set_sync(true);
    db.write_opt(batch, &options).map_err(|error| error::disk(&error))
}
