//! Taking a backup of a running node.

use std::fs;
use std::path::Path;

use parking_lot::Mutex;
use verge_model::UnixMillis;
use verge_storage::{Store, identity};
use verge_storage_rocksdb::RocksStore;

use super::manifest::{FileEntry, MANIFEST, Manifest};
use super::{BackupError, Partial, io_error};
use crate::admin::views::rfc3339;

/// One backup at a time: a second would only be in the first's way.
static TURN: Mutex<()> = Mutex::new(());

/// Makes `target` a backup of `store`. Everything that was acknowledged before, at the promises
/// `buffered` and `synced`, is in it.
///
/// # Errors
/// One line. Nothing is left behind, and nothing is written over.
pub fn take(store: &RocksStore, target: &Path, now: UnixMillis) -> Result<Manifest, BackupError> {
    if !target.is_absolute() {
        return Err(BackupError::Relative(target.display().to_string()));
    }
    let Some(_turn) = TURN.try_lock() else { return Err(BackupError::Busy) };
    let partial = Partial::new(target)?;
    store.checkpoint(&partial.dir)?;
    let mut names = Vec::new();
    for file in fs::read_dir(&partial.dir).map_err(io_error(&partial.dir))? {
        let file = file.map_err(io_error(&partial.dir))?;
        names.push(file.file_name().to_string_lossy().into_owned());
    }
    // Settings and logs for people are not read at open.
    names.retain(|name| !name.starts_with("OPTIONS-") && !name.starts_with("LOG"));
    names.sort();
    let files = names
        .iter()
        .map(|name| FileEntry::of(&partial.dir, name))
        .collect::<Result<Vec<_>, _>>()?;
    let identity = store.identity();
    let manifest = Manifest {
        manifest: Manifest::version(),
        node_id: identity.node_id.clone(),
        format: identity::FORMAT,
        log_id: format!("{:016x}", identity.log_id),
        incarnation: identity.incarnation,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        taken_at: rfc3339(now),
        taken_at_millis: now,
        bytes: files.iter().map(|file| file.bytes).sum(),
        files,
    };
    let path = partial.dir.join(MANIFEST);
    fs::write(&path, manifest.text()).map_err(io_error(&path))?;
    fs::File::open(&path).and_then(|file| file.sync_all()).map_err(io_error(&path))?;
    partial.finish()?;
    Ok(manifest)
}
