//! Looking after the disk: how much is free, and whether it works again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rocksdb::properties::ESTIMATE_NUM_KEYS;
use rocksdb::statistics::Ticker;
use verge_storage::{Family, Health, StoreError, Trouble};

use crate::open::family;
use crate::store::{RocksStore, number};
use crate::{column_family, error};

/// While less is free than is held back, room is made when the rows deleted since are this part of
/// those left: each row is rewritten a few times at most.
const ROOM_PART: u64 = 4;

/// Fewer deletions make no room worth the while.
const ROOM_ROWS_LEAST: u64 = 200;

/// What the disk and the database say of themselves, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskUse {
    /// Bytes free on the file system of the data directory, to this process.
    pub free_bytes: u64,
    /// Bytes that are held back.
    pub reserve_bytes: u64,
    /// Bytes written to the write-ahead log.
    pub wal_bytes: u64,
    /// Bytes written when memtables became files.
    pub flushed_bytes: u64,
    /// Bytes read by compactions.
    pub compaction_read_bytes: u64,
    /// Bytes written by compactions.
    pub compaction_written_bytes: u64,
    /// Microseconds for which writes were held up by flushes and compactions.
    pub stalled_micros: u64,
}

impl RocksStore {
    /// How the store is, for everyone who would write.
    #[must_use]
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Looks at the disk. Call it about every second, from a thread that may wait: it refuses and
    /// accepts by what is free, and opens a store that had failed anew when the disk works again.
    pub fn look_after(&self) {
        let free = match self.free_bytes() {
            Ok(free) => free,
            Err(error) => return tracing::warn!(%error, "the free space is not known"),
        };
        if self.committing.lock().is_some() {
            match self.recover(free) {
                Ok(()) => tracing::info!(free, "the store takes writes again"),
                Err(error) => tracing::debug!(%error, "the store does not take writes yet"),
            }
            return;
        }
        let reserve = self.opening.config.reserve_bytes;
        if free < reserve {
            if self.health.refuse(Trouble::Reserve) {
                self.health.count(Trouble::Reserve);
                let advice = Trouble::Reserve.advice();
                tracing::error!(
                    free,
                    reserve,
                    "messages that must be stored are refused: {advice}"
                );
            }
            self.make_room();
        } else if self.health.trouble() == Some(Trouble::Reserve)
            && free >= reserve + reserve / 4
            && self.health.accept()
        {
            tracing::info!(free, reserve, "messages that must be stored are taken again");
        }
    }

    /// Gives the disk back what deleted rows take, once they are a good part of all: a row that is
    /// deleted lies in its file until that is compacted.
    fn make_room(&self) {
        let Ok(db) = self.db() else { return };
        let families =
            Family::ALL.into_iter().filter(|family| column_family::is_short_lived(*family));
        let families: Vec<Family> = families.collect();
        let rows: u64 = families.iter().map(|of| number(&db, *of, ESTIMATE_NUM_KEYS)).sum();
        if self.deleted.load(Ordering::Relaxed) < (rows / ROOM_PART).max(ROOM_ROWS_LEAST) {
            return;
        }
        self.deleted.store(0, Ordering::Relaxed);
        for of in families {
            db.compact_range_cf::<&[u8], &[u8]>(family(&db, of), None, None);
        }
    }

    /// What the disk and the database say of themselves.
    #[must_use]
    pub fn disk_use(&self) -> DiskUse {
        let count = |ticker| self.opening.options.get_ticker_count(ticker);
        DiskUse {
            free_bytes: self.free_bytes().unwrap_or(0),
            reserve_bytes: self.opening.config.reserve_bytes,
            wal_bytes: count(Ticker::WalFileBytes),
            flushed_bytes: count(Ticker::FlushWriteBytes),
            compaction_read_bytes: count(Ticker::CompactReadBytes),
            compaction_written_bytes: count(Ticker::CompactWriteBytes),
            stalled_micros: count(Ticker::StallMicros),
        }
    }

    fn free_bytes(&self) -> Result<u64, StoreError> {
        let dir = &self.opening.config.dir;
        let system = rustix::fs::statvfs(dir).map_err(|error| error::create(&error.into(), dir))?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }
}
