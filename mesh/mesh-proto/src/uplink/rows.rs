//! Rows of a batch: one after the other, each its sequence and its outbox record, in postcard.
//!
//! The record keeps its own version byte, so a node forwards what it stored without reading it.

use serde::{Serialize, Serializer};
use verge_storage::Record;
use verge_storage::record::{OutboxRecord, RecordError};

/// Why bytes are not rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// A row does not follow the layout.
    #[error("row {index} of the batch is malformed: {detail}")]
    Malformed {
        /// Which row, from 0.
        index: usize,
        /// What postcard found.
        detail: postcard::Error,
    },
    /// A row's record cannot be read.
    #[error("row with sequence {seq} of the batch cannot be read: {source}")]
    Record {
        /// Its sequence.
        seq: u64,
        /// What is wrong with it.
        source: RecordError,
    },
    /// Sequences do not grow, or leave the batch's range.
    #[error("row with sequence {seq} is out of place in a batch of {first} to {last}")]
    OutOfPlace {
        /// The row's sequence.
        seq: u64,
        /// Start of the batch.
        first: u64,
        /// End of the batch.
        last: u64,
    },
}

/// Writes rows as they come from the store: sequence and encoded [`OutboxRecord`].
#[must_use]
pub fn encode_rows<B: AsRef<[u8]>>(rows: &[(u64, B)]) -> Vec<u8> {
    let bytes: usize = rows.iter().map(|(_, record)| record.as_ref().len() + 12).sum();
    let mut out = Vec::with_capacity(bytes);
    for (seq, record) in rows {
        out = postcard::to_extend(&(*seq, Raw(record.as_ref())), out)
            .expect("a number and bytes can always be written into memory that grows");
    }
    out
}

/// Bytes written at once, not one by one.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Reads the rows of a batch that covers `first..=last`.
///
/// # Errors
/// The bytes are no rows, or not of that range in ascending order.
pub fn decode_rows(
    mut bytes: &[u8],
    first: u64,
    last: u64,
) -> Result<Vec<(u64, OutboxRecord)>, RowsError> {
    // A row takes two bytes at least, so what a peer claims cannot make us reserve more than it sent.
    let mut rows = Vec::with_capacity((bytes.len() / 2).min(super::BATCH_ROWS_MAX));
    let mut least = first;
    while !bytes.is_empty() {
        let ((seq, record), rest) = postcard::take_from_bytes::<(u64, &[u8])>(bytes)
            .map_err(|detail| RowsError::Malformed { index: rows.len(), detail })?;
        if seq < least || seq > last {
            return Err(RowsError::OutOfPlace { seq, first, last });
        }
        let record =
            OutboxRecord::decode(record).map_err(|source| RowsError::Record { seq, source })?;
        rows.push((seq, record));
        least = seq.saturating_add(1);
        bytes = rest;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use verge_model::{MessageId, NodeKey, UnixMillis};

    use super::*;

    #[test]
    fn rows_survive_encoding() {
        let stored: Vec<(u64, Bytes)> = [3, 4, 9].map(|seq| (seq, record(seq).encode())).into();
        let rows = decode_rows(&encode_rows(&stored), 2, 9).unwrap();
        assert_eq!(rows, [3, 4, 9].map(|seq| (seq, record(seq))));
    }

    #[test]
    fn security_rows_out_of_the_batch_are_refused() {
        let of = |seqs: &[u64]| {
            let rows: Vec<_> = seqs.iter().map(|seq| (*seq, record(*seq).encode())).collect();
            decode_rows(&encode_rows(&rows), 2, 5).map(|rows| rows.len())
        };
        assert_eq!(of(&[]), Ok(0));
        assert_eq!(of(&[2, 5]), Ok(2));
        for (seqs, bad) in [(&[1, 2][..], 1), (&[5, 6], 6), (&[3, 3], 3), (&[4, 3], 3)] {
            assert_eq!(of(seqs), Err(RowsError::OutOfPlace { seq: bad, first: 2, last: 5 }));
        }
    }

    #[test]
    fn security_malformed_rows_are_errors() {
        let whole = encode_rows(&[(2, record(2).encode())]);
        for len in 1..whole.len() {
            let error = decode_rows(&whole[..len], 2, 2).unwrap_err();
            assert!(matches!(error, RowsError::Malformed { index: 0, .. }), "{error}");
        }
        let foreign = encode_rows(&[(2, &b"\xff"[..])]);
        assert!(matches!(decode_rows(&foreign, 2, 2), Err(RowsError::Record { seq: 2, .. })));
    }

    fn record(seq: u64) -> OutboxRecord {
        OutboxRecord {
            id: MessageId { node: NodeKey(1), incarnation: 1, seq },
            published_at: UnixMillis(1_000 + seq),
            client_id: "v".into(),
            topic: "a/b".into(),
            qos: 1,
            payload: Bytes::from_static(b"{}"),
        }
    }
}
