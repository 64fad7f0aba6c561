//! Uplink: a node's outbox on its way to the cloud tier, exactly once.
//!
//! Publications selected by an uplink rule are rows of a log, the *outbox*, numbered without gaps
//! and never renumbered. The sink stores rows and the number of the last one, the *watermark*, in
//! one atomic step. Everything between is therefore free to fail and to repeat itself: a row is in
//! the table exactly when the watermark says so.
//!
//! ```text
//! node                                             cloud
//!  │── Offer{first, next} ─────────────────────────▶│  loads the watermark from the sink
//!  │◀───────────────────────────── Ack{watermark} ──│  rows up to here are in the table
//!  │◀─────────────────────────── Resume{accepted} ──│  send what comes after this
//!  │── Batch{first..=last} ────────────────────────▶│  held
//!  │── Batch{first..=last} ────────────────────────▶│  held; rows and watermark in one commit
//!  │◀────────────────────────────────── Ack{last} ──│
//!  │  trims the outbox up to the least Ack of all cloud peers
//! ```
//!
//! A batch says which range of the log it covers; a row the node dropped by its own bounds is
//! simply not among the batch's rows. The range need not be the same when it is sent again: the
//! receiver skips what it has, and the sink skips what its watermark covers.
//!
//! [`Sender`] serves one cloud peer, [`Outlets`] all of them, [`Receiver`] all nodes. Rows are
//! encoded by [`encode_rows`]; compressing is the driver's matter.

pub mod frame;
pub mod outlets;
pub mod receiver;
pub mod rows;
pub mod sender;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use verge_model::NodeKey;

pub use frame::{Batch, Frame, FrameError};
pub use outlets::Outlets;
pub use receiver::{
    Commit, HeldBatch, Part, Receiver, ReceiverConfig, ReceiverOutput, StreamStatus,
};
pub use rows::{RowsError, decode_rows, encode_rows};
pub use sender::{EncodedRows, Sender, SenderOutput, SenderState, StreamConfig};

/// [`Batch::encoding`]: rows as [`encode_rows`] writes them, compressed with zstd.
pub const ENCODING_ZSTD_ROWS: u8 = 1;

/// The table of an uplink without a name of its own.
pub const DEFAULT_STREAM_NAME: &str = "messages";

/// Longest stream name; it becomes a directory and a table.
pub const STREAM_NAME_BYTES_MAX: usize = 63;

/// Most rows of a batch: a page of the store.
pub const BATCH_ROWS_MAX: usize = 4_096;

/// Bytes at which a batch is full, before compression: a page of the store.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Most batches a sender has out without an acknowledgement.
pub const WINDOW_BATCHES_MAX: usize = 4;

/// Most compressed bytes a sender has out without an acknowledgement; one batch may exceed it.
pub const WINDOW_BYTES_MAX: usize = 2 * 1024 * 1024;

/// How long an offer waits for its answer before it is repeated.
pub const OFFER_RETRY: Duration = Duration::from_secs(5);

/// How long batches wait for an acknowledgement before the sender asks where the cloud stands.
/// Commits take tenths of a second and come every few; this is for a sink in trouble.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(30);

/// Most streams a receiver knows: every node of the largest mesh with four uplinks.
pub const STREAMS_MAX: usize = 16_384;

/// Most compressed bytes a receiver holds; beyond it batches are refused and asked for again.
pub const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One outbox log of one node: what a watermark belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamKey {
    /// The node.
    pub origin: NodeKey,
    /// Which life of its data directory; sequences of another are not comparable.
    pub log_id: u64,
    /// Which of its uplinks.
    pub stream: u16,
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}/{}", self.origin, self.log_id, self.stream)
    }
}

/// Whether `name` may become a table: 1 to [`STREAM_NAME_BYTES_MAX`] of `a-z 0-9 _`, beginning with
/// a letter. Nothing else gets near a path.
#[must_use]
pub fn is_stream_name(name: &str) -> bool {
    name.len() <= STREAM_NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_stream_names_cannot_leave_the_lake() {
        for name in ["messages", "cam_2", "a", &"x".repeat(63)] {
            assert!(is_stream_name(name), "{name}");
        }
        for name in ["", "..", "a/b", "/etc", "a.b", "A", "1a", "_delta_log", "ä", &"x".repeat(64)]
        {
            assert!(!is_stream_name(name), "{name}");
        }
    }
}
