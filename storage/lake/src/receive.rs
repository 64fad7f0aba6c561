//! The task that owns the sink.
//!
//! The receiver decides what is committed and when; this task unpacks the rows and gives them to
//! the sink, table by table. Requests and answers go through bounded channels, so that a slow disk
//! is felt as unanswered commits and never as memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use verge_mesh_proto::uplink::{
    Batch, Commit, ENCODING_ZSTD_ROWS, Part, RowsError, StreamKey, decode_rows,
};
use verge_model::NodeId;

use crate::sink::{Mark, Sink, SinkError, StreamRows};

/// Requests waiting for the sink: a start with hundreds of nodes asks for each one's watermark.
/// Beyond it they are refused, and asked for again.
const REQUESTS_MAX: usize = 1_024;

/// What the sink is asked.
#[derive(Debug)]
pub enum Request {
    /// The watermark of a log.
    Load {
        /// The log.
        stream: StreamKey,
        /// Its node.
        origin_id: NodeId,
        /// The table.
        table: String,
    },
    /// To store rows.
    Commit(Commit),
}

/// What the sink answers, in order.
#[derive(Debug)]
pub enum Answer {
    /// To [`Request::Load`].
    Loaded {
        /// The log.
        stream: StreamKey,
        /// Its watermark; `None`: the sink failed, which was logged.
        last: Option<u64>,
    },
    /// To [`Request::Commit`].
    Committed {
        /// The commit.
        id: u64,
        /// The watermarks of the logs that could be read; `None`: the sink failed, which was logged.
        marks: Option<Vec<(StreamKey, u64)>>,
    },
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct SinkCounters {
    /// Commits that succeeded, a table each.
    pub commits: AtomicU64,
    /// Commits that failed.
    pub commit_failures: AtomicU64,
    /// Rows in commits that succeeded.
    pub rows: AtomicU64,
    /// Sequences of committed ranges whose rows the node had dropped.
    pub rows_missing: AtomicU64,
    /// Batches that could not be read.
    pub batches_unreadable: AtomicU64,
}

/// The way to the task, and back.
#[derive(Debug)]
pub struct SinkHandle {
    /// Questions. Try, and treat a full channel as a failed sink.
    pub requests: mpsc::Sender<Request>,
    /// Answers.
    pub answers: mpsc::Receiver<Answer>,
    /// Counts.
    pub counters: Arc<SinkCounters>,
}

/// Starts the task. It ends when the handle is dropped, after what it is doing.
pub fn spawn(mut sink: impl Sink) -> SinkHandle {
    let (requests, mut inbox) = mpsc::channel(REQUESTS_MAX);
    let (outbox, answers) = mpsc::channel(REQUESTS_MAX);
    let counters = Arc::new(SinkCounters::default());
    let counts = Arc::clone(&counters);
    tokio::spawn(async move {
        while let Some(request) = inbox.recv().await {
            let answer = match request {
                Request::Load { stream, origin_id, table } => {
                    load(&mut sink, stream, &origin_id, &table).await
                }
                Request::Commit(commit) => store(&mut sink, commit, &counts).await,
            };
            if outbox.send(answer).await.is_err() {
                break;
            }
        }
    });
    SinkHandle { requests, answers, counters }
}

async fn load(sink: &mut impl Sink, stream: StreamKey, origin_id: &NodeId, table: &str) -> Answer {
    let last = match sink.resume_point(table, origin_id, stream).await {
        Ok(last) => Some(last),
        Err(error) => {
            tracing::error!(origin = %origin_id, %error, "watermark was not read");
            None
        }
    };
    Answer::Loaded { stream, last }
}

async fn store(sink: &mut impl Sink, commit: Commit, counts: &SinkCounters) -> Answer {
    let id = commit.id;
    let mut tables: BTreeMap<String, Vec<StreamRows>> = BTreeMap::new();
    for part in commit.parts {
        match unpack(&part) {
            Ok(rows) => tables.entry(part.name).or_default().push(rows),
            Err(error) => {
                counts.batches_unreadable.fetch_add(1, Ordering::Relaxed);
                tracing::error!(origin = %part.origin_id, %error, "uplink batch cannot be read");
            }
        }
    }
    let mut marks = Vec::new();
    for (table, group) in tables {
        match store_table(sink, &table, &group, counts).await {
            Ok(stored) => marks.extend(stored.into_iter().map(|mark| (mark.stream, mark.last))),
            Err(error) => {
                counts.commit_failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "commit failed; it is tried again");
                return Answer::Committed { id, marks: None };
            }
        }
    }
    Answer::Committed { id, marks: Some(marks) }
}

async fn store_table(
    sink: &mut impl Sink,
    table: &str,
    group: &[StreamRows],
    counts: &SinkCounters,
) -> Result<Vec<Mark>, SinkError> {
    let marks = sink.commit(table, group).await?;
    let rows: u64 = group.iter().map(|stream| stream.rows.len() as u64).sum();
    let sequences: u64 = group.iter().map(|stream| stream.last - stream.after).sum();
    counts.commits.fetch_add(1, Ordering::Relaxed);
    counts.rows.fetch_add(rows, Ordering::Relaxed);
    counts.rows_missing.fetch_add(sequences.saturating_sub(rows), Ordering::Relaxed);
    tracing::debug!(table, rows, logs = group.len(), "committed");
    Ok(marks)
}

/// Why a batch cannot be read. Its node is newer, or wrong.
#[derive(Debug, thiserror::Error)]
enum UnpackError {
    #[error("encoding {0} is not known")]
    Encoding(u8),
    #[error("decompressing: {0}")]
    Compression(#[from] std::io::Error),
    #[error("{found} bytes instead of {said}")]
    Length { said: u32, found: usize },
    #[error("{0}")]
    Rows(#[from] RowsError),
}

/// The rows of a part that are wanted.
fn unpack(part: &Part) -> Result<StreamRows, UnpackError> {
    let mut rows = Vec::new();
    for held in &part.batches {
        let batch_rows = decode_rows(&decompress(&held.batch)?, held.batch.first, held.batch.last)?;
        rows.extend(batch_rows.into_iter().filter(|(seq, _)| *seq > held.after));
    }
    Ok(StreamRows {
        stream: part.stream,
        origin: part.origin_id.clone(),
        after: part.after,
        last: part.last,
        rows,
    })
}

/// Never more than the receiver let the batch say it has.
fn decompress(batch: &Batch) -> Result<Vec<u8>, UnpackError> {
    if batch.encoding != ENCODING_ZSTD_ROWS {
        return Err(UnpackError::Encoding(batch.encoding));
    }
    let said = usize::try_from(batch.raw_len).unwrap_or(usize::MAX);
    let raw = zstd::bulk::decompress(&batch.bytes, said)?;
    if raw.len() != said {
        return Err(UnpackError::Length { said: batch.raw_len, found: raw.len() });
    }
    Ok(raw)
}

#[cfg(test)]
#[path = "receive_tests.rs"]
mod tests;
