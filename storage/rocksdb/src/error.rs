//! RocksDB's errors, by whose fault they are.
//!
//! RocksDB tells a full disk, a read-only one and a lock apart only in its messages.

use std::io;
use std::path::Path;

use bytes::Bytes;
use rocksdb::ErrorKind;
use verge_storage::{Family, StoreError};

/// What the operating system says for ENOSPC and EDQUOT.
const FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// What the operating system says for EROFS, EACCES and EPERM.
const READ_ONLY: [&str; 3] =
    ["Read-only file system", "Permission denied", "Operation not permitted"];

/// What RocksDB says when this or another process has the directory open.
const LOCKED: [&str; 2] = ["While lock file: ", "lock hold by current process"];

/// A commit failed, or a read for a reason that is not in the rows.
pub(crate) fn disk(error: &rocksdb::Error) -> StoreError {
    by_words(one_line(error.as_ref()))
}

/// Reading at `key` failed.
pub(crate) fn read(error: &rocksdb::Error, family: Family, key: &[u8]) -> StoreError {
    if error.kind() == ErrorKind::Corruption {
        let detail = one_line(error.as_ref());
        StoreError::Corrupt { family, key: Bytes::copy_from_slice(key), detail }
    } else {
        disk(error)
    }
}

/// The directory could not be opened.
pub(crate) fn open(error: &rocksdb::Error, dir: &Path) -> StoreError {
    let detail = one_line(error.as_ref());
    if says(&detail, &LOCKED) {
        StoreError::Locked { dir: dir.into() }
    } else if matches!(error.kind(), ErrorKind::IOError) {
        disk(error)
    } else {
        StoreError::Damaged { dir: dir.into(), detail }
    }
}

/// The directory could not be made.
pub(crate) fn create(error: &io::Error, dir: &Path) -> StoreError {
    by_words(format!("cannot make {}: {error}", dir.display()))
}

fn by_words(detail: String) -> StoreError {
    if says(&detail, &FULL) {
        StoreError::Full { detail }
    } else if says(&detail, &READ_ONLY) {
        StoreError::ReadOnly { detail }
    } else {
        StoreError::Io { detail }
    }
}

fn says(detail: &str, words: &[&str]) -> bool {
    words.iter().any(|word| detail.contains(word))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
