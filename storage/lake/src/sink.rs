//! What a sink is: a place that stores rows and their watermark in one atomic step.

use verge_mesh_proto::uplink::StreamKey;
use verge_model::NodeId;
use verge_storage::record::OutboxRecord;

/// Consecutive rows of one log, for one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRows {
    /// The log.
    pub stream: StreamKey,
    /// Its node.
    pub origin: NodeId,
    /// The watermark this follows.
    pub after: u64,
    /// The watermark once these rows are stored; rows the node dropped count as stored.
    pub last: u64,
    /// Rows with their sequences, ascending, none above `last`.
    pub rows: Vec<(u64, OutboxRecord)>,
}

/// How far a log is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The log.
    pub stream: StreamKey,
    /// Its last row in the table.
    pub last: u64,
}

/// Why a sink did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The store refused or failed. What it has stored is known only by asking again.
    #[error("table '{table}': {detail}")]
    Store {
        /// The table.
        table: String,
        /// The store's own words, in one line.
        detail: String,
    },
    /// Other writers were faster each time. Nothing was stored.
    #[error("table '{table}': {attempts} commits in a row met another writer's")]
    Contended {
        /// The table.
        table: String,
        /// How often it was tried.
        attempts: u32,
    },
}

/// Stores the rows of many logs exactly once, whatever is sent again.
pub trait Sink: Send + 'static {
    /// The watermark of a log in a table; 0 if the table has none, or is not there.
    fn resume_point(
        &mut self,
        table: &str,
        origin: &NodeId,
        stream: StreamKey,
    ) -> impl Future<Output = Result<u64, SinkError>> + Send;

    /// Stores rows above their logs' watermarks and moves the watermarks, in one atomic step for
    /// the whole group. Returns the watermarks the table then has, one for each of `group`, at
    /// least its `last`. When it returns, they survive a power failure.
    ///
    /// # Errors
    /// The rows may or may not be stored; committing the same group again is safe.
    fn commit(
        &mut self,
        table: &str,
        group: &[StreamRows],
    ) -> impl Future<Output = Result<Vec<Mark>, SinkError>> + Send;
}
