//! The node's side of the uplink: outbox rows on their way to the cloud tier.
//!
//! [`Outlets`] decides; this reads rows, compresses them on a thread that may take its time, and
//! waits a little so that batches are full when rows trickle in.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use verge_broker_core::rule::UPLINK_STREAM;
use verge_mesh_proto::uplink::{
    DEFAULT_STREAM_NAME, ENCODING_ZSTD_ROWS, EncodedRows, Frame, Outlets, SenderOutput,
    StreamConfig, StreamKey, encode_rows,
};
use verge_model::{Millis, NodeKey, Now};
use verge_storage::{Batch, LogBounds, LogKey, Store, StoreError};

use crate::config::sections::UplinkSection;

/// zstd's level: above it, time grows faster than the batch shrinks.
const COMPRESSION_LEVEL: i32 = 3;

/// Reads under way: one per cloud peer, and a mesh has few.
const READS_MAX: usize = 64;

/// What the mesh thread does for the uplink.
pub enum UplinkOutput {
    /// Send a frame to a cloud peer. If there is no link, say so with
    /// [`Uplink::handle_link_down`].
    Send {
        /// The peer.
        peer: NodeKey,
        /// The frame.
        frame: Bytes,
    },
    /// Commit the batch: rows that are in the cloud's table are removed.
    Trim(Batch),
}

/// Rows that were read for a peer.
pub struct RowsRead {
    peer: NodeKey,
    from: u64,
    rows: Option<EncodedRows>,
}

/// The uplink of a node. Lives on the mesh thread.
pub struct Uplink {
    outlets: Outlets,
    section: UplinkSection,
    store: Arc<dyn Store>,
    /// The end of the log as the outlets know it, and as it is.
    told: u64,
    next: u64,
    /// When the outlets hear of rows that came meanwhile.
    tell_at: Option<Millis>,
    read: mpsc::Sender<RowsRead>,
}

const LOG: LogKey = LogKey::Outbox { stream: UPLINK_STREAM };

impl Uplink {
    /// The uplink of the store's node, and where what it reads comes back.
    ///
    /// # Errors
    /// The store cannot say where the outbox stands.
    pub fn new(
        section: UplinkSection,
        store: Arc<dyn Store>,
    ) -> Result<(Self, mpsc::Receiver<RowsRead>), StoreError> {
        let identity = store.identity();
        let origin_id = identity.node_id.clone();
        let stream =
            StreamKey { origin: origin_id.key(), log_id: identity.log_id, stream: UPLINK_STREAM };
        let name = DEFAULT_STREAM_NAME.to_owned();
        let LogBounds { first, next } = store.log_bounds(LOG)?;
        let outlets = Outlets::new(StreamConfig { stream, origin_id, name }, first, next);
        let (read, rows) = mpsc::channel(READS_MAX);
        let this = Self { outlets, section, store, told: next, next, tell_at: None, read };
        Ok((this, rows))
    }

    /// A node of the cloud tier exists; it holds the outbox until it has taken it.
    pub fn add_peer(&mut self, peer: NodeKey) {
        self.outlets.add_peer(peer);
    }

    /// There is a new bulk link to a node of the cloud tier.
    pub fn handle_link_up(&mut self, peer: NodeKey, now: Now) {
        self.outlets.handle_link_up(peer, now);
    }

    /// The bulk link to a node is gone.
    pub fn handle_link_down(&mut self, peer: NodeKey) {
        self.outlets.handle_link_down(peer);
    }

    /// An uplink frame arrived.
    pub fn handle_frame(&mut self, from: NodeKey, bytes: &Bytes, now: Now) {
        match Frame::decode(bytes) {
            Ok(frame) => self.outlets.handle_frame(from, &frame, now),
            Err(error) => tracing::debug!(%from, %error, "uplink frame skipped"),
        }
    }

    /// A row was appended to the outbox.
    pub fn handle_appended(&mut self, seq: u64, now: Now) {
        self.next = self.next.max(seq + 1);
        if self.next - self.told >= self.section.batch_rows_max as u64 {
            self.tell();
        } else {
            self.tell_at.get_or_insert(now.mono + self.section.linger.0.0);
        }
    }

    /// Rows that were asked for were read.
    pub fn handle_rows(&mut self, read: RowsRead, now: Now) {
        self.outlets.handle_rows(read.peer, read.from, read.rows, now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.tell_at.is_some_and(|due| due <= now.mono) {
            self.tell();
        }
        if self.outlets.poll_timeout().is_some_and(|due| due <= now.mono) {
            self.outlets.handle_timeout(now);
        }
    }

    /// When [`Uplink::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        [self.tell_at, self.outlets.poll_timeout()].into_iter().flatten().min()
    }

    /// What to do next. Reading begins by itself; its result comes through the receiver.
    pub fn poll_output(&mut self) -> Option<UplinkOutput> {
        loop {
            match self.outlets.poll_output()? {
                SenderOutput::Send { peer, frame } => {
                    return Some(UplinkOutput::Send { peer, frame });
                }
                SenderOutput::Read { peer, from, rows_max, bytes_max } => {
                    let rows_max = rows_max.min(self.section.batch_rows_max);
                    let bytes_max = bytes_max.min(self.section.batch_bytes_max);
                    self.begin_read(peer, from, rows_max, bytes_max);
                }
                SenderOutput::Trim { upto } => {
                    let mut batch = Batch::new();
                    batch.trim(LOG, upto);
                    return Some(UplinkOutput::Trim(batch));
                }
                SenderOutput::LogBehind { peer, last } => {
                    tracing::error!(
                        %peer, last,
                        "the cloud tier has rows of this outbox that this disk has not: the data \
                         directory was restored from a copy; move it away to start anew"
                    );
                }
            }
        }
    }

    fn tell(&mut self) {
        self.tell_at = None;
        if self.told < self.next {
            self.told = self.next;
            // The outlets know how far they trimmed.
            self.outlets.handle_bounds(1, self.next);
        }
    }

    fn begin_read(&self, peer: NodeKey, from: u64, rows_max: usize, bytes_max: usize) {
        let (store, done) = (Arc::clone(&self.store), self.read.clone());
        tokio::task::spawn_blocking(move || {
            let rows = match read_rows(&*store, from, rows_max, bytes_max) {
                Ok(rows) => rows,
                Err(error) => {
                    tracing::warn!(from, %error, "outbox cannot be read, will be tried again");
                    None
                }
            };
            // The receiver is gone only when the node goes down.
            let _ = done.blocking_send(RowsRead { peer, from, rows });
        });
    }
}

/// Reads and compresses rows; `None` if there are none.
fn read_rows(
    store: &dyn Store,
    from: u64,
    rows_max: usize,
    bytes_max: usize,
) -> Result<Option<EncodedRows>, StoreError> {
    let rows = store.read_log(LOG, from, rows_max, bytes_max)?;
    let Some((last, _)) = rows.last() else { return Ok(None) };
    let last = *last;
    let raw = encode_rows(&rows);
    let io = |detail: String| StoreError::Io { detail };
    let raw_len = u32::try_from(raw.len()).map_err(|error| io(error.to_string()))?;
    let packed =
        zstd::bulk::compress(&raw, COMPRESSION_LEVEL).map_err(|error| io(error.to_string()))?;
    let bytes = Bytes::from(packed);
    Ok(Some(EncodedRows { last, encoding: ENCODING_ZSTD_ROWS, raw_len, bytes }))
}

#[cfg(test)]
mod tests {
    use verge_mesh_proto::uplink::decode_rows;
    use verge_model::{MessageId, UnixMillis};
    use verge_storage::MemoryStore;
    use verge_storage::record::OutboxRecord;

    use super::*;

    #[test]
    fn rows_are_read_in_order_and_unpack_as_written() {
        let store = MemoryStore::new(&"r-1".parse().unwrap(), 7);
        let mut batch = Batch::new();
        let record = |seq| OutboxRecord {
            id: MessageId { node: NodeKey(1), incarnation: 1, seq },
            published_at: UnixMillis(seq),
            client_id: "v".into(),
            topic: "a".into(),
            qos: 1,
            payload: Bytes::from_static(b"x"),
        };
        for seq in 1..=5 {
            batch.append_outbox(UPLINK_STREAM, &record(seq));
        }
        store.commit(&[batch], false).unwrap();
        let read = read_rows(&store, 2, 3, 1 << 20).unwrap().unwrap();
        assert_eq!(read.last, 4);
        let raw = zstd::bulk::decompress(&read.bytes, read.raw_len as usize).unwrap();
        let rows = decode_rows(&raw, 2, 4).unwrap();
        assert_eq!(rows, [2, 3, 4].map(|seq| (seq, record(seq))));
        assert_eq!(read_rows(&store, 6, 3, 1 << 20).unwrap(), None);
    }
}
