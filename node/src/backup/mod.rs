//! Backups: a checkpoint of a running node's store with a manifest, and back.
//!
//! ```text
//! verge backup DIR ─▶ DIR.partial: checkpoint ─▶ checksums ─▶ manifest ─▶ synced ─▶ DIR
//! verge restore FROM --data-dir DIR
//!                  ─▶ manifest ─▶ DIR.partial: copies, checked ─▶ new life, new logs ─▶ DIR
//! ```
//!
//! Either way the directory has its name only when it is whole; a failure leaves nothing behind,
//! and nothing that was there is written over. What restoring an older state means to a mesh is
//! told in `docs/adr/0014-restored-nodes-begin-a-new-life.md`.

pub mod manifest;
pub mod restore;
pub mod take;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

pub use self::manifest::Manifest;

/// Why there is no backup, or nothing restored; one line.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Nothing is written over.
    #[error("{} is there already and is not empty: name another directory", .0.display())]
    Exists(PathBuf),
    /// Another backup is being taken.
    #[error("another backup is being taken")]
    Busy,
    /// A relative path would be the node's, not the caller's.
    #[error("'{0}' is no absolute path")]
    Relative(String),
    /// Not a backup, or not whole.
    #[error("{} is no whole backup: {detail}", dir.display())]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A newer version made it.
    #[error("{} has format {found}, newer than format {known} of this version", dir.display())]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// A file or directory.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] verge_storage::StoreError),
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |error| BackupError::Io { path, error }
}

/// A directory in the making beside where it will be. Dropped, it is gone.
#[derive(Debug)]
pub struct Partial {
    dir: PathBuf,
    target: PathBuf,
}

impl Partial {
    /// A place for what will be `target`, which must not be there, or be empty. What an earlier
    /// attempt left is removed.
    ///
    /// # Errors
    /// There is something, or it cannot be looked at.
    pub fn new(target: &Path) -> Result<Self, BackupError> {
        match fs::read_dir(target) {
            Ok(mut files) => {
                if files.next().is_some() {
                    return Err(BackupError::Exists(target.to_owned()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(target)(error)),
        }
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let dir = target.with_file_name(name);
        match fs::remove_dir_all(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(&dir)(error)),
        }
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).map_err(io_error(parent))?;
        }
        Ok(Self { dir, target: target.to_owned() })
    }

    /// Where it is made.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Everything in it is on the disk, and now under its own name.
    ///
    /// # Errors
    /// The disk's; or something is there now.
    pub fn finish(self) -> Result<(), BackupError> {
        sync_dir(&self.dir)?;
        // An empty directory gives way; one that is not empty any more does not.
        fs::rename(&self.dir, &self.target).map_err(io_error(&self.target))?;
        self.target.parent().map_or(Ok(()), sync_dir)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After `finish` there is nothing under this name.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn sync_dir(dir: &Path) -> Result<(), BackupError> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error(dir))
}
