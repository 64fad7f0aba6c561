//! Opening a directory.

use std::fs;
use std::path::{Path, PathBuf};

use rocksdb::statistics::StatsLevel;
use rocksdb::{Cache, ColumnFamilyDescriptor, DB, DBRecoveryMode, LogLevel, Options};
use verge_model::NodeId;
use verge_storage::key::MetaKey;
use verge_storage::log::LogTable;
use verge_storage::migrate::{self, Progress};
use verge_storage::{Family, Key, KeyRange, LogKey, Store, StoreError, identity};

use crate::profile::Profile;
use crate::store::RocksStore;
use crate::{column_family, error, salvage};

const MIB: usize = 1024 * 1024;

/// RocksDB's own log: a warning a line, kept for the operator.
const LOG_FILES_MAX: usize = 2;
const LOG_FILE_BYTES_MAX: usize = MIB;

/// The operating system is asked to begin writing back after so much, so that an fsync does not
/// find everything still to do.
const BYTES_PER_SYNC: u64 = MIB as u64;

/// How much of the machine a store may take. The defaults suit a roadside unit of 512 MB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The directory; made if it is not there.
    pub dir: PathBuf,
    /// What kind of disk it is on.
    pub profile: Profile,
    /// Memory of all memtables together.
    pub memtables_bytes_max: usize,
    /// Memory for blocks, indexes and filters that were read.
    pub block_cache_bytes: usize,
    /// Table files held open.
    pub open_files_max: i32,
    /// Size of the write-ahead log, after which what holds it back is written out. Bounds what a
    /// restart replays.
    pub wal_bytes_max: u64,
    /// While less is free on the file system, messages that must be stored are refused, so that
    /// what ends has room: settlements, deletions, compactions.
    pub reserve_bytes: u64,
}

impl Config {
    /// The defaults, for `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            profile: Profile::Flash,
            memtables_bytes_max: 32 * MIB,
            block_cache_bytes: 8 * MIB,
            open_files_max: 256,
            wal_bytes_max: Profile::Flash.wal_bytes_max(),
            reserve_bytes: 64 * MIB as u64,
        }
    }
}

impl RocksStore {
    /// Opens the store of `node_id`, and counts the boot. `new_log_id`, drawn at random by the
    /// caller, is used if the directory is new.
    ///
    /// # Errors
    /// One line that names the directory, what is wrong with it, and what to do.
    pub fn open(config: &Config, node_id: &NodeId, new_log_id: u64) -> Result<Self, StoreError> {
        let dir = &config.dir;
        fs::create_dir_all(dir).map_err(|error| error::create(&error, dir))?;
        refuse_unknown_families(dir)?;
        let opening = Opening::new(config);
        let db = opening.open()?;
        let get = |key: &[u8]| get_meta(&db, key);
        let boot = identity::boot(dir, node_id, new_log_id, get)?;
        let logs = load_logs(&db)?;
        let store = Self::new(opening, db, boot.identity, logs);
        if let Some(from) = boot.migrate_from {
            migrate_rows(&store, dir, from)?;
        }
        store.commit(&[boot.batch], true)?;
        Ok(store)
    }
}

/// Makes rows of an earlier format those of this version. Nobody is served meanwhile, so the log
/// says how far it is.
fn migrate_rows(store: &RocksStore, dir: &Path, from: u32) -> Result<(), StoreError> {
    let dir = dir.display().to_string();
    tracing::info!(dir, from, to = identity::FORMAT, "stored rows are of an earlier format");
    let mut report = |progress: &Progress| tracing::info!(%progress, "migrating stored rows");
    migrate::run(store, from, migrate::STEPS, &mut report)?;
    tracing::info!(dir, to = identity::FORMAT, "stored rows are migrated");
    Ok(())
}

/// How a directory is opened, also when it is opened anew.
pub(crate) struct Opening {
    pub(crate) config: Config,
    /// Holds the statistics too, which so go on.
    pub(crate) options: Options,
    cache: Cache,
}

impl Opening {
    fn new(config: &Config) -> Self {
        let cache = column_family::cache(config.block_cache_bytes);
        Self { config: config.clone(), options: options(config), cache }
    }

    /// Opens the directory.
    pub(crate) fn open(&self) -> Result<DB, StoreError> {
        if salvage::is_unfinished(&self.config.dir) {
            salvage::finish(&mut self.open_quiet()?, self)?;
        }
        self.open_families(self.families(false))
    }

    /// Opens the directory without compactions, which would come to files that are damaged.
    pub(crate) fn open_quiet(&self) -> Result<DB, StoreError> {
        self.open_families(self.families(true))
    }

    fn open_families(&self, families: Vec<ColumnFamilyDescriptor>) -> Result<DB, StoreError> {
        let dir = &self.config.dir;
        DB::open_cf_descriptors(&self.options, dir, families)
            .map_err(|error| error::open(&error, dir))
    }

    /// Opens the directory without writing to it.
    pub(crate) fn open_read_only(&self) -> Result<DB, StoreError> {
        let dir = &self.config.dir;
        DB::open_cf_descriptors_read_only(&self.options, dir, self.families(true), false)
            .map_err(|error| error::open(&error, dir))
    }

    /// How a family lies on the disk.
    pub(crate) fn family(&self, of: Family, quiet: bool) -> Options {
        let mut options = column_family::of(of, &self.cache, &self.config);
        options.set_disable_auto_compactions(quiet);
        options
    }

    fn families(&self, quiet: bool) -> Vec<ColumnFamilyDescriptor> {
        column_family::descriptors(|of| self.family(of, quiet), &self.cache, &self.config)
    }
}

fn options(config: &Config) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_db_write_buffer_size(config.memtables_bytes_max);
    options.set_max_open_files(config.open_files_max);
    options.set_max_total_wal_size(config.wal_bytes_max);
    options.set_wal_bytes_per_sync(BYTES_PER_SYNC);
    options.set_bytes_per_sync(BYTES_PER_SYNC);
    config.profile.set(&mut options);
    // There is one writer: nobody to insert beside, or to yield to.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);
    // A torn tail is what a power failure leaves; what came before it is whole, and is kept.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_paranoid_checks(true);
    // Opening must not read every table file.
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    // What is written and rewritten, for metrics; times would cost every write.
    options.enable_statistics();
    options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(LOG_FILES_MAX);
    options.set_max_log_file_size(LOG_FILE_BYTES_MAX);
    options
}

/// RocksDB opens a directory only if every family in it is named. One that has others was written
/// by a newer version, which its format says, or is not a store of ours.
fn refuse_unknown_families(dir: &Path) -> Result<(), StoreError> {
    if !dir.join("CURRENT").exists() {
        return Ok(());
    }
    let names = DB::list_cf(&Options::default(), dir).map_err(|error| error::open(&error, dir))?;
    let unknown = names
        .iter()
        .find(|name| *name != column_family::DEFAULT && Family::from_name(name).is_none());
    let Some(unknown) = unknown else { return Ok(()) };
    let readable = [column_family::DEFAULT, Family::Meta.name()];
    let db = DB::open_cf_for_read_only(&Options::default(), dir, readable, false)
        .map_err(|error| error::open(&error, dir))?;
    let format = get_meta(&db, &MetaKey::Format.encode())?;
    let format = format.and_then(|format| Some(u32::from_be_bytes((*format).try_into().ok()?)));
    match format {
        Some(found) if found > identity::FORMAT => {
            Err(StoreError::NewerVersion { dir: dir.into(), found, known: identity::FORMAT })
        }
        Some(_) | None => Err(StoreError::Damaged {
            dir: dir.into(),
            detail: format!("it has a column family '{unknown}' that no version of Verge writes"),
        }),
    }
}

fn get_meta(db: &DB, key: &[u8]) -> Result<Option<bytes::Bytes>, StoreError> {
    let value = db
        .get_pinned_cf(family(db, Family::Meta), key)
        .map_err(|error| error::read(&error, Family::Meta, key))?;
    Ok(value.map(|value| bytes::Bytes::copy_from_slice(&value)))
}

/// The bounds of every log: its trim mark, and its last row. Costs two seeks a log, whatever is in
/// it.
fn load_logs(db: &DB) -> Result<LogTable, StoreError> {
    let mut logs = LogTable::default();
    let marks = KeyRange::prefix(MetaKey::trimmed_prefix());
    let mut rows = db.raw_iterator_cf(family(db, Family::Meta));
    rows.seek(&marks.start);
    while let Some((key, value)) = rows.item().filter(|(key, _)| marks.contains(key)) {
        logs.load_mark(key, value)?;
        rows.next();
    }
    rows.status().map_err(|error| error::read(&error, Family::Meta, &marks.start))?;

    for in_family in LogKey::FAMILIES {
        let mut rows = db.raw_iterator_cf(family(db, in_family));
        // From the family's end, so that each log is met at its last row.
        rows.seek_to_last();
        while let Some(last) = rows.key() {
            let log = logs.load_last_key(in_family, last)?;
            // The greatest key before the log's first is the last row of the log before it.
            rows.seek_for_prev(log.prefix());
        }
        rows.status().map_err(|error| error::read(&error, in_family, &[]))?;
    }
    Ok(logs)
}

pub(crate) fn family(db: &DB, family: Family) -> &rocksdb::ColumnFamily {
    db.cf_handle(family.name()).expect("open names every family")
}
