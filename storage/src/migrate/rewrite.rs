//! What a part of a migration works with: pages of rows in, batches out.

use std::fmt;

use bytes::Bytes;

use crate::batch::Batch;
use crate::error::StoreError;
use crate::family::Family;
use crate::key::KeyRange;
use crate::store::{SCAN_ROWS_MAX, Store};

/// Rows read between two words to the operator: a few seconds' work on a roadside unit.
const REPORT_ROWS: u64 = 500_000;

/// How far a part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The format that is made.
    pub to: u32,
    /// What the part does.
    pub what: &'static str,
    /// Rows it has read.
    pub read: u64,
    /// Writes it has committed.
    pub written: u64,
    /// Rows it could not understand, and left as they are.
    pub left: u64,
    /// Whether the part has ended.
    pub done: bool,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to, what, read, written, left, done } = self;
        write!(f, "format {to}: {what}: {read} rows read, {written} written")?;
        if *left > 0 {
            write!(f, ", {left} not understood and left")?;
        }
        f.write_str(if *done { "" } else { " so far" })
    }
}

/// One part at work on a store.
pub struct Rewrite<'a> {
    store: &'a dyn Store,
    progress: Progress,
    report: &'a mut dyn FnMut(&Progress),
}

impl<'a> Rewrite<'a> {
    pub(super) fn new(
        store: &'a dyn Store,
        to: u32,
        what: &'static str,
        report: &'a mut dyn FnMut(&Progress),
    ) -> Self {
        let progress = Progress { to, what, read: 0, written: 0, left: 0, done: false };
        Self { store, progress, report }
    }

    /// The store, as far as it is changed.
    #[must_use]
    pub fn store(&self) -> &'a dyn Store {
        self.store
    }

    /// The format that is made.
    #[must_use]
    pub fn to(&self) -> u32 {
        self.progress.to
    }

    /// Shows every row of a range to `change`, in key order, and commits after each page what it
    /// put into the batch, which may change any family. Rows that `change` puts behind the page in
    /// the same range are shown too.
    ///
    /// A row for which `change` returns [`StoreError::Corrupt`] is counted and stays as it is.
    ///
    /// # Errors
    /// The store's; and any other of `change`.
    pub fn each_row(
        &mut self,
        family: Family,
        range: &KeyRange,
        mut change: impl FnMut(&[u8], &Bytes, &mut Batch) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut rest = Some(range.clone());
        while let Some(range) = rest {
            let page = self.store.scan(family, &range, SCAN_ROWS_MAX)?;
            let mut batch = Batch::new();
            for (key, value) in &page.rows {
                match change(key, value, &mut batch) {
                    Ok(()) => {}
                    Err(StoreError::Corrupt { .. }) => self.progress.left += 1,
                    Err(error) => return Err(error),
                }
            }
            let before = self.progress.read / REPORT_ROWS;
            self.progress.read += page.rows.len() as u64;
            self.commit(batch)?;
            if self.progress.read / REPORT_ROWS > before {
                (self.report)(&self.progress);
            }
            rest = page.rest;
        }
        Ok(())
    }

    /// Commits a batch. It is synced with the end of the step.
    ///
    /// # Errors
    /// The store's.
    pub fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        let count = batch.len() as u64;
        if count > 0 {
            self.store.commit(&[batch], false)?;
            self.progress.written += count;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) {
        self.progress.done = true;
        (self.report)(&self.progress);
    }
}

impl fmt::Debug for Rewrite<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rewrite").field("progress", &self.progress).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod limited {
    //! A store that can be written so often, and then no more.

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::identity::Identity;
    use crate::log::{LogBounds, LogKey};
    use crate::store::{Committed, FamilySize, ScanPage};

    /// Small pages, so that a family has many.
    const PAGE_ROWS: usize = 300;

    pub(crate) struct Limited<'a> {
        store: &'a dyn Store,
        commits: AtomicUsize,
    }

    impl<'a> Limited<'a> {
        pub(crate) fn new(store: &'a dyn Store, commits: usize) -> Self {
            Self { store, commits: AtomicUsize::new(commits) }
        }
    }

    impl Store for Limited<'_> {
        fn identity(&self) -> &Identity {
            self.store.identity()
        }

        fn commit(&self, batches: &[Batch], sync: bool) -> Result<Vec<Committed>, StoreError> {
            let spent = |left: usize| left.checked_sub(1);
            if self.commits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent).is_err() {
                return Err(StoreError::Io { detail: "it was cut".into() });
            }
            self.store.commit(batches, sync)
        }

        fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
            self.store.get(family, key)
        }

        fn scan(&self, family: Family, range: &KeyRange, _: usize) -> Result<ScanPage, StoreError> {
            self.store.scan(family, range, PAGE_ROWS)
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
}
