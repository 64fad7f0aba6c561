//! The store traits.

use bytes::Bytes;

use crate::batch::Batch;
use crate::error::StoreError;
use crate::family::Family;
use crate::identity::Identity;
use crate::key::KeyRange;
use crate::log::{LogBounds, LogKey};

/// Most rows of one page, whatever the caller asks: a page is a turn's work, not a family.
pub const SCAN_ROWS_MAX: usize = 4_096;

/// A page ends after the row with which its values reach this size.
pub const SCAN_BYTES_MAX: usize = 1024 * 1024;

/// Holds rows and logs. Implementations: [`MemoryStore`](crate::MemoryStore) and RocksDB's.
///
/// Every method is synchronous and may wait for a disk. One thread commits; any thread reads, and
/// sees every group that was committed before it asked, or none of it.
pub trait Store: Send + Sync {
    /// Whose store this is, and which life of its node.
    fn identity(&self) -> &Identity;

    /// Commits `batches` in order, as one atomic group. When it returns `Ok`, the group survives
    /// the process; with `sync`, it and all before it survive a power failure. An empty group
    /// with `sync` makes durable what was committed before.
    ///
    /// Returns one outcome per batch, in order.
    ///
    /// # Errors
    /// Nothing of the group is visible, now or after a restart, unless the disk failed while
    /// syncing: then it may be.
    fn commit(&self, batches: &[Batch], sync: bool) -> Result<Vec<Committed>, StoreError>;

    /// The value of one row.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] concerns this row only.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The first rows of `range`, at most `limit`, [`SCAN_ROWS_MAX`] and [`SCAN_BYTES_MAX`]. Rows
    /// that are damaged are left out and end the page.
    ///
    /// # Errors
    /// The disk's; no rows are returned.
    fn scan(&self, family: Family, range: &KeyRange, limit: usize) -> Result<ScanPage, StoreError>;

    /// Which rows of `log` there are. A log that never was is empty and begins at 1.
    ///
    /// # Errors
    /// The disk's.
    fn log_bounds(&self, log: LogKey) -> Result<LogBounds, StoreError>;

    /// Consecutive rows of `log` with a sequence of at least `from`: at most `rows_max`, ending
    /// with the row that reaches `bytes_max`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names the first row when that one is missing.
    fn read_log(
        &self,
        log: LogKey,
        from: u64,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, StoreError>;

    /// Every log that ever had a row, in order.
    ///
    /// # Errors
    /// The disk's.
    fn logs(&self) -> Result<Vec<LogKey>, StoreError>;

    /// How much each family holds, by family; estimates, for metrics.
    ///
    /// # Errors
    /// The disk's.
    fn sizes(&self) -> Result<Vec<FamilySize>, StoreError>;
}

/// What became of one batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// Its appends in order, each with the sequence the store gave it, from 1.
    pub appended: Vec<(LogKey, u64, Bytes)>,
}

/// Part of a range, in key order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScanPage {
    /// Keys and values.
    pub rows: Vec<(Bytes, Bytes)>,
    /// What is left to scan; `None` at the end.
    pub rest: Option<KeyRange>,
    /// What could not be read between the last of `rows` and `rest`; it is left out.
    pub damaged: Option<StoreError>,
}

/// How much a family holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilySize {
    /// The family.
    pub family: Family,
    /// Its rows.
    pub rows: u64,
    /// Its bytes, as stored.
    pub bytes: u64,
}
