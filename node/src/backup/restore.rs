//! Restoring a backup into a new data directory.

use std::fs;
use std::path::Path;

use verge_model::{Incarnation, UnixMillis};
use verge_storage_rocksdb::renew;

use super::manifest::Manifest;
use super::{BackupError, Partial, io_error};

/// How often a node may have been started since its backup beside one start in
/// [`SECS_PER_START`]: numbers up to there are not given again.
const STARTS_MIN: u64 = 4_096;

/// A node that was started again more often than once a minute all the time did not serve.
const SECS_PER_START: u64 = 60;

/// Lives a node can have: its numbers have 24 bits for them.
const INCARNATION_MAX: u64 = (1 << 24) - 1;

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the backup says of itself.
    pub manifest: Manifest,
    /// The life of the node that begins with the next start.
    pub next_incarnation: Incarnation,
}

/// Makes `target`, which must not be there or be empty, a data directory with what the backup `from`
/// has. The node in it begins a life that none of its earlier lives, those after the backup included,
/// had; and its logs get the id `log_id`, drawn at random.
///
/// # Errors
/// One line. `target` is as it was.
pub fn restore(
    from: &Path,
    target: &Path,
    log_id: u64,
    now: UnixMillis,
) -> Result<Restored, BackupError> {
    let manifest = Manifest::read(from)?;
    let partial = Partial::new(target)?;
    fs::create_dir(&partial.dir).map_err(io_error(&partial.dir))?;
    for file in &manifest.files {
        let (source, copy) = (from.join(&file.name), partial.dir.join(&file.name));
        // A link would let the node write into its backup.
        fs::copy(&source, &copy).map_err(io_error(&source))?;
        file.check(&partial.dir)?;
        fs::File::open(&copy).and_then(|file| file.sync_all()).map_err(io_error(&copy))?;
    }
    let boots = boots_after(&manifest, now);
    renew(&partial.dir, &manifest.node_id, boots, log_id)?;
    partial.finish()?;
    Ok(Restored { manifest, next_incarnation: boots.saturating_add(1) })
}

/// A life that the node has not come to, however it went on after the backup.
fn boots_after(manifest: &Manifest, now: UnixMillis) -> Incarnation {
    let since = now.since(manifest.taken_at_millis).as_secs();
    let spare = STARTS_MIN + since / SECS_PER_START;
    let boots = (u64::from(manifest.incarnation) + spare).min(INCARNATION_MAX);
    u32::try_from(boots).expect("it has 24 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::tests::manifest;

    #[test]
    fn a_restored_node_lives_beyond_all_lives_since_the_backup() {
        let backup = manifest(Vec::new());
        let after = |millis| boots_after(&backup, UnixMillis(millis));
        assert_eq!(after(5), 3 + 4_096);
        assert_eq!(after(0), 3 + 4_096, "the clock went back");
        assert_eq!(after(5 + 3_600_000), 3 + 4_096 + 60);
        assert_eq!(after(u64::MAX), (1 << 24) - 1);
    }

    #[test]
    fn what_is_there_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let (from, target) = (dir.path().join("from"), dir.path().join("target"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(target.join("mine"), b"x").unwrap();
        let said = restore(&from, &target, 1, UnixMillis(5)).unwrap_err().to_string();
        assert!(said.contains("verge-backup.json"), "{said}");
        fs::write(from.join("verge-backup.json"), manifest(Vec::new()).text()).unwrap();
        let said = restore(&from, &target, 1, UnixMillis(5)).unwrap_err().to_string();
        assert!(said.contains("is there already and is not empty"), "{said}");
        fs::remove_file(target.join("mine")).unwrap();
        // A backup without files is no store; nothing of the attempt is left.
        restore(&from, &target, 1, UnixMillis(5)).unwrap_err();
        let left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }
}
