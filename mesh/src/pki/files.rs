//! Files of a certificate authority: keys that only their owner reads, and nothing overwritten.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::PkiError;

/// Mode of a private key.
pub(super) const KEY_MODE: u32 = 0o600;
/// Mode of what everybody may read.
pub(super) const PUBLIC_MODE: u32 = 0o644;

/// Makes a folder (and its parents) that only its owner enters, if it is not there.
pub(super) fn ensure_private_dir(dir: &Path) -> Result<(), PkiError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| failed(dir, e))
}

/// Writes a new file; one that is there stays as it is.
pub(super) fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), PkiError> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(mode).open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(PkiError::Exists { path: path.to_owned() });
        }
        Err(error) => return Err(failed(path, error)),
    };
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| failed(path, e))
}

/// Replaces a file in one step: readers see the old text or the new one.
pub(super) fn replace(path: &Path, mode: u32, text: &str) -> Result<(), PkiError> {
    let temporary = with_suffix(path, &format!(".{}", unique()));
    write_new(&temporary, mode, text)?;
    fs::rename(&temporary, path).map_err(|e| failed(path, e))
}

/// Refuses a path that is taken.
pub(super) fn refuse_existing(path: &Path) -> Result<(), PkiError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(PkiError::Exists { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(path, error)),
    }
}

/// Refuses a key that others than its owner may read.
pub(super) fn refuse_shared(path: &Path) -> Result<(), PkiError> {
    let mode = fs::metadata(path).map_err(|e| failed(path, e))?.mode();
    if mode & 0o077 == 0 { Ok(()) } else { Err(PkiError::Shared { path: path.to_owned() }) }
}

/// Holds the authority's lock until the file is dropped.
pub(super) fn lock(path: &Path) -> Result<File, PkiError> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(false).mode(KEY_MODE);
    let file = options.open(path).map_err(|e| failed(path, e))?;
    file.lock().map_err(|e| failed(path, e))?;
    Ok(file)
}

/// Reads a text file.
pub(super) fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|e| failed(path, e))
}

/// A name that no other process or thread uses.
pub(super) fn unique() -> String {
    format!("{}-{:016x}", std::process::id(), rand::random::<u64>())
}

/// `path` with more text at its end.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(super) fn failed(path: &Path, source: io::Error) -> PkiError {
    PkiError::Io { path: path.to_owned(), source }
}
