//! The default sink: Delta Lake tables in one directory.
//!
//! A stream name is a table, a table a subdirectory. The watermark of a log is a `txn` action of
//! its table, app id `verge/<origin>/<log id>/<stream>`, in the same commit as the rows it covers.
//!
//! Delta itself does not refuse a version it has seen before. So: the watermarks are read from the
//! snapshot one commits from, rows they cover are left out, and the commit is a compare-and-swap on
//! that snapshot: if anything else was committed since, it fails, and all is done again from the
//! new snapshot. That makes a second writer, and our own former self whose commit went through
//! though we were told it failed, harmless.
//!
//! Files of a commit that failed stay unreferenced in the directory until the table is vacuumed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use deltalake::errors::DeltaTableError;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake::kernel::{Action, Add, Transaction};
use deltalake::operations::create::CreateBuilder;
use deltalake::parquet::basic::{Compression, ZstdLevel};
use deltalake::parquet::file::properties::WriterProperties;
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::writer::{DeltaWriter, RecordBatchWriter};
use deltalake::{DeltaTable, TableProperty};
use verge_mesh_proto::uplink::StreamKey;
use verge_model::NodeId;

use crate::lake::{Lake, one_line};
use crate::schema::{PARTITION_COLUMN, TableBuilder, delta_columns};
use crate::sink::{Mark, Sink, SinkError, StreamRows};

/// Commits after which the log is summed up in a checkpoint.
const CHECKPOINT_INTERVAL: &str = "100";

/// Columns whose least and greatest value are kept for each file; payloads would fill the log.
const STATISTICS_COLUMNS: &str =
    "origin,log_id,seq,published_at,client_id,topic,qos,lat,lon,speed,heading";

/// How often a commit is tried anew when other writers were faster.
const CONFLICTS_MAX: u32 = 8;

/// Tables kept open; beyond it the first is closed and read anew when needed.
const TABLES_MAX: usize = 64;

/// Delta tables in one directory.
pub struct DeltaSink {
    lake: Lake,
    tables: BTreeMap<String, Table>,
}

/// A table as of our last commit or load, and what we know of its watermarks as of then.
struct Table {
    table: DeltaTable,
    marks: BTreeMap<String, u64>,
}

/// Why one attempt to commit ended.
enum Attempt {
    /// Another commit came first.
    Conflict,
    /// Anything else.
    Failed(String),
}

impl DeltaSink {
    /// A sink for the tables of a lake.
    #[must_use]
    pub fn new(lake: Lake) -> Self {
        Self { lake, tables: BTreeMap::new() }
    }

    /// Makes sure the table exists, so that it can be queried before its first row.
    ///
    /// # Errors
    /// The directory cannot be written, or holds something else.
    pub async fn ensure(&mut self, name: &str) -> Result<(), SinkError> {
        self.open(name).await.map(drop)
    }

    async fn open(&mut self, name: &str) -> Result<&mut Table, SinkError> {
        if !self.tables.contains_key(name) {
            if self.tables.len() >= TABLES_MAX {
                self.tables.pop_first();
            }
            let table = load_or_create(&self.lake, name).await.map_err(|e| store(name, &e))?;
            self.tables.insert(name.to_owned(), Table { table, marks: BTreeMap::new() });
        }
        Ok(self.tables.get_mut(name).expect("it was there or was just inserted"))
    }
}

impl Sink for DeltaSink {
    async fn resume_point(
        &mut self,
        name: &str,
        origin: &NodeId,
        stream: StreamKey,
    ) -> Result<u64, SinkError> {
        let app_id = app_id(origin, stream);
        let mark = self.open(name).await?.mark(&app_id).await;
        mark.map_err(|error| {
            self.tables.remove(name);
            store(name, &error)
        })
    }

    async fn commit(&mut self, name: &str, group: &[StreamRows]) -> Result<Vec<Mark>, SinkError> {
        for _ in 0..CONFLICTS_MAX {
            let lake = self.lake.clone();
            let attempt = self.open(name).await?.commit(&lake, name, group).await;
            let failure = match attempt {
                Ok(marks) => return Ok(marks),
                Err(failure) => failure,
            };
            // The snapshot is old, or what happened is unknown: only the disk knows.
            self.tables.remove(name);
            match failure {
                Attempt::Conflict => tracing::debug!(table = name, "commit met another writer's"),
                Attempt::Failed(detail) => {
                    return Err(SinkError::Store { table: name.to_owned(), detail });
                }
            }
        }
        Err(SinkError::Contended { table: name.to_owned(), attempts: CONFLICTS_MAX })
    }
}

impl Table {
    /// The watermark of a log in the snapshot.
    async fn mark(&mut self, app_id: &str) -> Result<u64, DeltaTableError> {
        if let Some(mark) = self.marks.get(app_id) {
            return Ok(*mark);
        }
        let log_store = self.table.log_store();
        let version = self.table.snapshot()?.transaction_version(&log_store, app_id).await?;
        let mark = version.and_then(|version| u64::try_from(version).ok()).unwrap_or(0);
        self.marks.insert(app_id.to_owned(), mark);
        Ok(mark)
    }

    async fn commit(
        &mut self,
        lake: &Lake,
        name: &str,
        group: &[StreamRows],
    ) -> Result<Vec<Mark>, Attempt> {
        let rows: usize = group.iter().map(|stream| stream.rows.len()).sum();
        let mut builder = TableBuilder::with_capacity(rows);
        let mut moved: BTreeMap<String, u64> = BTreeMap::new();
        let mut marks = Vec::with_capacity(group.len());
        for stream in group {
            let app_id = app_id(&stream.origin, stream.stream);
            let before = match moved.get(&app_id) {
                Some(mark) => *mark,
                None => self.mark(&app_id).await?,
            };
            if before < stream.after {
                tracing::warn!(
                    table = name, origin = %stream.origin, before, after = stream.after,
                    "the table has lost rows that were acknowledged"
                );
            }
            builder.append(stream, before);
            let last = stream.last.max(before);
            if last > before {
                moved.insert(app_id, last);
            }
            marks.push(Mark { stream: stream.stream, last });
        }
        if !moved.is_empty() {
            self.append(lake, name, builder, &moved).await?;
            self.marks.extend(moved);
        }
        Ok(marks)
    }

    /// Writes files, then commits them with the watermarks, from our snapshot only.
    async fn append(
        &mut self,
        lake: &Lake,
        name: &str,
        rows: TableBuilder,
        marks: &BTreeMap<String, u64>,
    ) -> Result<(), Attempt> {
        let files = self.write_files(rows).await?;
        let dir = lake.local_table(name);
        if let Some(dir) = dir.clone() {
            let paths = files.iter().map(|file| dir.join(&file.path)).collect();
            sync(paths).await?;
        }
        let transactions = marks
            .iter()
            .map(|(app_id, last)| {
                Transaction::new(app_id, i64::try_from(*last).unwrap_or(i64::MAX))
            })
            .collect();
        let properties = CommitProperties::default()
            .with_max_retries(0)
            .with_application_transactions(transactions);
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: Some(vec![PARTITION_COLUMN.to_owned()]),
            predicate: None,
        };
        let snapshot = self.table.snapshot()?;
        let committed = CommitBuilder::from(properties)
            .with_actions(files.into_iter().map(Action::Add).collect())
            .build(Some(snapshot), self.table.log_store(), operation)
            .await?;
        if let Some(dir) = dir {
            sync(vec![dir.join("_delta_log").join(format!("{:020}.json", committed.version))])
                .await?;
        }
        self.table.state = Some(committed.snapshot);
        Ok(())
    }

    async fn write_files(&self, rows: TableBuilder) -> Result<Vec<Add>, Attempt> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let compression = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(compression).build();
        let mut writer =
            RecordBatchWriter::for_table(&self.table)?.with_writer_properties(properties);
        let batch = rows.finish().map_err(|error| Attempt::Failed(error.to_string()))?;
        writer.write(batch).await?;
        Ok(writer.flush().await?)
    }
}

impl From<DeltaTableError> for Attempt {
    fn from(error: DeltaTableError) -> Self {
        if let DeltaTableError::VersionAlreadyExists(_)
        | DeltaTableError::Transaction {
            source:
                TransactionError::CommitConflict(_)
                | TransactionError::MaxCommitAttempts(_)
                | TransactionError::VersionAlreadyExists(_),
        } = &error
        {
            return Self::Conflict;
        }
        Self::Failed(one_line(&error.to_string()))
    }
}

/// The name of a log's watermark in its table.
fn app_id(origin: &NodeId, stream: StreamKey) -> String {
    format!("verge/{origin}/{:016x}/{}", stream.log_id, stream.stream)
}

async fn load_or_create(lake: &Lake, name: &str) -> Result<DeltaTable, DeltaTableError> {
    let table = lake.table(name)?.build()?;
    if !table.verify_deltatable_existence().await? {
        let created = CreateBuilder::new()
            .with_log_store(table.log_store())
            .with_table_name(name)
            .with_comment("publications selected by uplinks of Verge nodes")
            .with_columns(delta_columns())
            .with_partition_columns([PARTITION_COLUMN])
            .with_configuration_property(
                TableProperty::CheckpointInterval,
                Some(CHECKPOINT_INTERVAL),
            )
            .with_configuration_property(
                TableProperty::DataSkippingStatsColumns,
                Some(STATISTICS_COLUMNS),
            )
            .with_save_mode(SaveMode::ErrorIfExists)
            .await;
        match created {
            Ok(table) => return Ok(table),
            // Another process made it in between, or it cannot be made: loading tells which.
            Err(error) => tracing::debug!(table = name, %error, "table was not created"),
        }
    }
    lake.table(name)?.load().await
}

/// Makes files and the directories that name them survive a power failure.
async fn sync(files: Vec<PathBuf>) -> Result<(), Attempt> {
    let synced = tokio::task::spawn_blocking(move || {
        let mut dirs = BTreeMap::new();
        for file in &files {
            sync_one(file)?;
            // A partition's directory may be new as well.
            for dir in file.ancestors().skip(1).take(2) {
                dirs.insert(dir.to_owned(), ());
            }
        }
        dirs.keys().try_for_each(|dir| sync_one(dir))
    });
    match synced.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Attempt::Failed(error.to_string())),
        Err(error) => Err(Attempt::Failed(error.to_string())),
    }
}

fn sync_one(path: &Path) -> io::Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn store(table: &str, error: &DeltaTableError) -> SinkError {
    SinkError::Store { table: table.to_owned(), detail: one_line(&error.to_string()) }
}

#[cfg(test)]
#[path = "delta_tests.rs"]
mod tests;
