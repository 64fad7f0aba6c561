//! `GET /api/v1/storage` and `POST /api/v1/backup`: what lies on the disk, and a copy of it.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use verge_broker_core::record::ForwardRecord;
use verge_model::UnixMillis;
use verge_storage::record::OutboxRecord;
use verge_storage::{LogKey, Record, Store, StoreError, StoreRows, identity};

use super::page::ApiError;
use super::views::rfc3339;
use super::{Admin, Shared};
use crate::backup::{BackupError, Manifest, take};
use crate::clock;
use crate::mesh::view::MeshView;

/// `GET /api/v1/storage`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StorageAnswer {
    /// The node.
    pub node_id: String,
    /// Format of its rows.
    pub format: u32,
    /// Its boot counter.
    pub incarnation: u32,
    /// By family; estimates.
    pub families: Vec<FamilyAnswer>,
    /// Bytes of the write-ahead log's files.
    pub wal_bytes: u64,
    /// Bytes of all files.
    pub directory_bytes: u64,
    /// Bytes free on the file system.
    pub free_bytes: u64,
    /// Bytes that are held back.
    pub reserve_bytes: u64,
    /// Messages that wait for other nodes and for the cloud tier.
    pub logs: Vec<LogAnswer>,
    /// When the oldest message in any of them, or of those owed to several sessions, was accepted.
    pub oldest_message_at: Option<String>,
    /// What was written since the node began.
    pub written: WrittenAnswer,
}

/// A family of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FamilyAnswer {
    family: &'static str,
    rows: u64,
    live_bytes: u64,
    disk_bytes: u64,
    memtable_bytes: u64,
}

/// A log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogAnswer {
    /// `forward` or `outbox`.
    log: &'static str,
    /// The node it is for; the cloud tier's has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// The class of its messages; the cloud tier's has all.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    /// The number of its first message.
    first: u64,
    /// The number of the next one.
    next: u64,
    /// Messages that wait.
    messages: u64,
    /// When the first of them was accepted.
    oldest_at: Option<String>,
    /// How long ago that is, in seconds.
    oldest_age_secs: Option<u64>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WrittenAnswer {
    /// Groups of batches committed.
    groups: u64,
    /// Batches in them.
    batches: u64,
    /// Bytes of keys and values in them.
    bytes: u64,
    /// Groups that were synced.
    fsyncs: u64,
    /// Groups that failed.
    failures: u64,
    /// Bytes the write-ahead log took.
    wal_bytes: u64,
    /// Bytes that became table files.
    flushed_bytes: u64,
    /// Bytes that compactions wrote.
    compacted_bytes: u64,
    /// Bytes written to the disk for each byte committed; `null` before the first.
    amplification: Option<f64>,
}

/// When a log's first message was accepted.
fn oldest(store: &dyn Store, log: LogKey, first: u64) -> Result<Option<UnixMillis>, StoreError> {
    let row = store.read_log(log, first, 1, 1)?.into_iter().next();
    Ok(row.and_then(|(_, value)| match log {
        LogKey::Forward { .. } => {
            let record = ForwardRecord::decode(&value).ok()?;
            Some(record.message.stamp.wall())
        }
        LogKey::Outbox { .. } => Some(OutboxRecord::decode(&value).ok()?.published_at),
    }))
}

fn logs(
    store: &dyn Store,
    mesh: &MeshView,
    now: UnixMillis,
) -> Result<(Vec<LogAnswer>, Option<UnixMillis>), StoreError> {
    let (mut answers, mut oldest_of_all) = (Vec::new(), None::<UnixMillis>);
    for log in store.logs()? {
        let bounds = store.log_bounds(log)?;
        let at = if bounds.is_empty() { None } else { oldest(store, log, bounds.first)? };
        oldest_of_all = [oldest_of_all, at].into_iter().flatten().min();
        let (name, node, class) = match log {
            LogKey::Forward { peer, class } => {
                ("forward", Some(mesh.name_of(peer)), Some(class.to_string()))
            }
            LogKey::Outbox { .. } => ("outbox", None, None),
        };
        answers.push(LogAnswer {
            log: name,
            node,
            class,
            first: bounds.first,
            next: bounds.next,
            messages: bounds.len(),
            oldest_at: at.map(rfc3339),
            oldest_age_secs: at.map(|at| now.since(at).as_secs()),
        });
    }
    Ok((answers, oldest_of_all))
}

fn answer(admin: &Admin) -> Result<StorageAnswer, StoreError> {
    let details = admin.disk.details()?;
    let disk = admin.disk.disk_use();
    let writer = admin.writer.counts();
    let (logs, in_logs) = logs(&*admin.store, &admin.mesh.load(), clock::wall())?;
    // Names of messages grow with time within a life of their node: the first is among the oldest.
    let owed = admin.store.messages().next().and_then(Result::ok);
    let owed = owed.map(|(_, stored)| stored.message.stamp.wall());
    let oldest = [in_logs, owed].into_iter().flatten().min();
    let on_disk = disk.wal_bytes + disk.flushed_bytes + disk.compaction_written_bytes;
    Ok(StorageAnswer {
        node_id: admin.node.node_id.clone(),
        format: identity::FORMAT,
        incarnation: admin.node.incarnation,
        families: details
            .families
            .into_iter()
            .map(|of| FamilyAnswer {
                family: of.family.name(),
                rows: of.rows,
                live_bytes: of.live_bytes,
                disk_bytes: of.disk_bytes,
                memtable_bytes: of.memtable_bytes,
            })
            .collect(),
        wal_bytes: details.wal_bytes,
        directory_bytes: details.directory_bytes,
        free_bytes: disk.free_bytes,
        reserve_bytes: disk.reserve_bytes,
        logs,
        oldest_message_at: oldest.map(rfc3339),
        written: WrittenAnswer {
            groups: writer.groups,
            batches: writer.batches,
            bytes: writer.bytes,
            fsyncs: writer.fsyncs,
            failures: writer.failures,
            wal_bytes: disk.wal_bytes,
            flushed_bytes: disk.flushed_bytes,
            compacted_bytes: disk.compaction_written_bytes,
            amplification: (writer.bytes > 0).then(|| on_disk as f64 / writer.bytes as f64),
        },
    })
}

/// `GET /api/v1/storage`
pub(super) async fn storage(State(admin): Shared) -> Result<Json<StorageAnswer>, ApiError> {
    on_a_thread(move || answer(&admin))
        .await?
        .map(Json)
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// Where a backup is wanted.
#[derive(Debug, Deserialize)]
pub(super) struct BackupRequest {
    dir: PathBuf,
}

/// `POST /api/v1/backup`
pub(super) async fn backup(
    State(admin): Shared,
    Json(request): Json<BackupRequest>,
) -> Result<Json<Manifest>, ApiError> {
    let disk = Arc::clone(&admin.disk);
    let taken = on_a_thread(move || {
        let taken = take::take(&disk, &request.dir, clock::wall());
        match &taken {
            Ok(manifest) => tracing::info!(
                dir = %request.dir.display(), bytes = manifest.bytes,
                files = manifest.files.len(), "backup taken"
            ),
            Err(error) => tracing::warn!(%error, "no backup was taken"),
        }
        taken
    });
    taken.await?.map(Json).map_err(|error| {
        let status = match &error {
            BackupError::Exists(_) | BackupError::Busy => StatusCode::CONFLICT,
            BackupError::Relative(_) => StatusCode::UNPROCESSABLE_ENTITY,
            BackupError::Damaged { .. }
            | BackupError::Newer { .. }
            | BackupError::Io { .. }
            | BackupError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        ApiError::new(status, error.to_string())
    })
}

/// Waits for a disk on another thread than the API's.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}
