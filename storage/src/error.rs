//! What a store can fail with, and whose fault it is.

use std::path::PathBuf;

use bytes::Bytes;
use verge_model::NodeId;

use crate::family::Family;
use crate::key::KeyError;
use crate::log::LogKey;
use crate::record::RecordError;

/// Why a store did not do what it was asked. A failed commit changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk is full. What is stored stays readable; writes succeed again when space returns.
    #[error("the disk of the data directory is full ({detail}): free space, or move --data-dir")]
    Full {
        /// The store's own words.
        detail: String,
    },
    /// The disk failed.
    #[error("the disk of the data directory failed: {detail}")]
    Io {
        /// The store's own words.
        detail: String,
    },
    /// The disk takes no writes. What is stored stays readable.
    #[error("the data directory takes no writes ({detail}): make it writable, or move --data-dir")]
    ReadOnly {
        /// The store's own words.
        detail: String,
    },
    /// One row cannot be read; all others can.
    #[error("row {} of family '{family}' is corrupt: {detail}", hex(key))]
    Corrupt {
        /// The row's family.
        family: Family,
        /// The row's key.
        key: Bytes,
        /// What is wrong with it.
        detail: String,
    },
    /// The directory's own description is damaged, so nothing in it may be believed.
    #[error(
        "data directory {} is damaged ({detail}): restore it from a backup, or move it away to \
         start empty", dir.display()
    )]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The directory is another node's.
    #[error(
        "data directory {} belongs to node '{found}', not to '{wanted}': start with \
         --node-id {found}, or give '{wanted}' another --data-dir", dir.display()
    )]
    WrongNode {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who asked for it.
        wanted: NodeId,
    },
    /// The directory was written by a newer Verge.
    #[error(
        "data directory {} has format {found}, newer than format {known} of this version: run the \
         version that wrote it, or give this one another --data-dir", dir.display()
    )]
    NewerVersion {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// Another process has the directory open.
    #[error(
        "data directory {} is in use by another process: stop it, or give this node another \
         --data-dir", dir.display()
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
}

impl StoreError {
    /// The key of this row is not one of its family.
    pub(crate) fn corrupt_key(family: Family, key: &[u8], error: &KeyError) -> Self {
        Self::Corrupt { family, key: Bytes::copy_from_slice(key), detail: error.to_string() }
    }

    /// A log has no row where its bounds say that there is one.
    #[must_use]
    pub fn missing_row(log: LogKey, seq: u64) -> Self {
        let key = Bytes::copy_from_slice(&log.row(seq));
        Self::Corrupt { family: log.family(), key, detail: format!("row {seq} is missing") }
    }

    /// The value of this row is not a record of its family.
    pub(crate) fn corrupt_record(family: Family, key: &[u8], error: &RecordError) -> Self {
        Self::Corrupt { family, key: Bytes::copy_from_slice(key), detail: error.to_string() }
    }
}

/// A key as an operator can quote it; keys with topics can be long, and their start identifies them.
fn hex(key: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 48;
    let mut text: String =
        key.iter().take(SHOWN_BYTES_MAX).map(|byte| format!("{byte:02x}")).collect();
    if key.len() > SHOWN_BYTES_MAX {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_one_line_that_names_the_place() {
        let dir = PathBuf::from("/var/lib/verge");
        let node = |name: &str| name.parse().unwrap();
        let transcript = [
            (
                StoreError::WrongNode { dir: dir.clone(), found: node("a"), wanted: node("b") },
                "data directory /var/lib/verge belongs to node 'a', not to 'b': start with \
                 --node-id a, or give 'b' another --data-dir",
            ),
            (
                StoreError::NewerVersion { dir: dir.clone(), found: 7, known: 1 },
                "data directory /var/lib/verge has format 7, newer than format 1 of this version: \
                 run the version that wrote it, or give this one another --data-dir",
            ),
            (
                StoreError::Locked { dir: dir.clone() },
                "data directory /var/lib/verge is in use by another process: stop it, or give this \
                 node another --data-dir",
            ),
            (
                StoreError::Damaged { dir, detail: "no CURRENT".into() },
                "data directory /var/lib/verge is damaged (no CURRENT): restore it from a backup, \
                 or move it away to start empty",
            ),
            (
                StoreError::Corrupt {
                    family: Family::Queue,
                    key: Bytes::from_static(&[0, 0xab]),
                    detail: "record has version 9".into(),
                },
                "row 00ab of family 'queue' is corrupt: record has version 9",
            ),
        ];
        for (error, line) in transcript {
            assert_eq!(error.to_string(), line);
        }
    }
}
