//! How much each family holds, for the operator.

use std::fs;

use rocksdb::properties::{
    CUR_SIZE_ALL_MEM_TABLES, ESTIMATE_LIVE_DATA_SIZE, ESTIMATE_NUM_KEYS, TOTAL_SST_FILES_SIZE,
};
use verge_storage::{Family, StoreError};

use crate::store::{RocksStore, number};

/// How much a family holds; estimates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyDetails {
    /// The family.
    pub family: Family,
    /// Its rows.
    pub rows: u64,
    /// Bytes of those that were not deleted or written over, in table files.
    pub live_bytes: u64,
    /// Bytes of its table files.
    pub disk_bytes: u64,
    /// Bytes in memory that are not in table files yet.
    pub memtable_bytes: u64,
}

/// How much a store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreDetails {
    /// By family.
    pub families: Vec<FamilyDetails>,
    /// Bytes of the write-ahead log's files.
    pub wal_bytes: u64,
    /// Bytes of all files of the directory.
    pub directory_bytes: u64,
}

impl RocksStore {
    /// How much the store holds.
    ///
    /// # Errors
    /// It could not be opened anew after a failure.
    pub fn details(&self) -> Result<StoreDetails, StoreError> {
        let db = self.db()?;
        let of = |family| FamilyDetails {
            family,
            rows: number(&db, family, ESTIMATE_NUM_KEYS),
            live_bytes: number(&db, family, ESTIMATE_LIVE_DATA_SIZE),
            disk_bytes: number(&db, family, TOTAL_SST_FILES_SIZE),
            memtable_bytes: number(&db, family, CUR_SIZE_ALL_MEM_TABLES),
        };
        let (mut wal_bytes, mut directory_bytes) = (0, 0);
        // Files come and go meanwhile; one that cannot be looked at is left out.
        for file in fs::read_dir(&self.opening.config.dir).into_iter().flatten().flatten() {
            let bytes = file.metadata().map_or(0, |about| about.len());
            directory_bytes += bytes;
            if file.path().extension().is_some_and(|extension| extension == "log") {
                wal_bytes += bytes;
            }
        }
        Ok(StoreDetails { families: Family::ALL.map(of).to_vec(), wal_bytes, directory_bytes })
    }
}
