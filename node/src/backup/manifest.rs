//! What a backup says of itself.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use verge_model::{Incarnation, NodeId, UnixMillis};

use super::{BackupError, io_error};

/// The manifest's name in a backup.
pub const MANIFEST: &str = "verge-backup.json";

/// The manifest's own version.
const VERSION: u32 = 1;

/// Largest manifest that is read: some hundred thousand files.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// A backup's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The manifest's version.
    pub manifest: u32,
    /// The node that was backed up.
    pub node_id: NodeId,
    /// The format of its rows.
    pub format: u32,
    /// The id of its logs.
    pub log_id: String,
    /// Its life when the backup was taken.
    pub incarnation: Incarnation,
    /// The version of Verge that took it.
    pub version: String,
    /// When it was taken, for people.
    pub taken_at: String,
    /// When it was taken, in Unix milliseconds.
    pub taken_at_millis: UnixMillis,
    /// Bytes of all files.
    pub bytes: u64,
    /// The files.
    pub files: Vec<FileEntry>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name; a backup has no folders.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// The version written.
    #[must_use]
    pub const fn version() -> u32 {
        VERSION
    }

    /// Reads the manifest of a backup. Its files are checked as they are copied.
    ///
    /// # Errors
    /// There is none, it cannot be understood, or a newer version wrote it.
    pub fn read(dir: &Path) -> Result<Self, BackupError> {
        let path = dir.join(MANIFEST);
        let mut text = Vec::new();
        let file = File::open(&path).map_err(io_error(&path))?;
        file.take(MANIFEST_BYTES_MAX).read_to_end(&mut text).map_err(io_error(&path))?;
        Self::parse(dir, &text)
    }

    /// Understands the text of the manifest of `dir`.
    ///
    /// # Errors
    /// It is no manifest, a newer version's, or names files that lie elsewhere.
    pub fn parse(dir: &Path, text: &[u8]) -> Result<Self, BackupError> {
        let damaged = |detail: String| BackupError::Damaged { dir: dir.to_owned(), detail };
        let manifest: Self = serde_json::from_slice(text)
            .map_err(|error| damaged(format!("{MANIFEST}: {error}")))?;
        if manifest.manifest != VERSION {
            return Err(damaged(format!("{MANIFEST} has version {}", manifest.manifest)));
        }
        let known = verge_storage::identity::FORMAT;
        if manifest.format > known {
            return Err(BackupError::Newer { dir: dir.to_owned(), found: manifest.format, known });
        }
        for FileEntry { name, .. } in &manifest.files {
            let plain =
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            if !plain || name.starts_with('.') || name.is_empty() || name == MANIFEST {
                return Err(damaged(format!("{MANIFEST} names a file '{}'", name.escape_debug())));
            }
        }
        Ok(manifest)
    }

    /// The text of it.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("text and numbers are JSON");
        text.push(b'\n');
        text
    }
}

impl FileEntry {
    /// Describes a file, once it is on the disk.
    pub(super) fn of(dir: &Path, name: &str) -> Result<Self, BackupError> {
        let path = dir.join(name);
        let (bytes, sha256) = digest(&path)?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(io_error(&path))?;
        Ok(Self { name: name.to_owned(), bytes, sha256 })
    }

    /// Whether the file in `dir` is the one described.
    ///
    /// # Errors
    /// It is not, or cannot be read.
    pub fn check(&self, dir: &Path) -> Result<(), BackupError> {
        let damaged = |what: &str| BackupError::Damaged {
            dir: dir.to_owned(),
            detail: format!("{} {what}", self.name),
        };
        let path = dir.join(&self.name);
        let found = fs::metadata(&path).map_err(|_| damaged("is missing"))?;
        if found.len() != self.bytes {
            return Err(damaged("has another length than when it was backed up"));
        }
        if digest(&path)?.1 != self.sha256 {
            return Err(damaged("has another checksum than when it was backed up"));
        }
        Ok(())
    }
}

/// Length and SHA-256 of a file.
fn digest(path: &Path) -> Result<(u64, String), BackupError> {
    let mut file = File::open(path).map_err(io_error(path))?;
    let (mut context, mut bytes) = (Context::new(&SHA256), 0);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = file.read(&mut buffer).map_err(io_error(path))?;
        if count == 0 {
            break;
        }
        context.update(&buffer[..count]);
        bytes += count as u64;
    }
    let hex = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((bytes, hex))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn manifest(files: Vec<FileEntry>) -> Manifest {
        Manifest {
            manifest: VERSION,
            node_id: "a".parse().unwrap(),
            format: 1,
            log_id: "07".to_owned(),
            incarnation: 3,
            version: "0".to_owned(),
            taken_at: "then".to_owned(),
            taken_at_millis: UnixMillis(5),
            bytes: 0,
            files,
        }
    }

    #[test]
    fn security_a_manifest_names_files_of_its_own_directory_only() {
        let dir = Path::new("/b");
        let file =
            |name: &str| FileEntry { name: name.to_owned(), bytes: 0, sha256: String::new() };
        let good = manifest(vec![file("000008.sst"), file("MANIFEST-000016"), file("CURRENT")]);
        assert_eq!(Manifest::parse(dir, &good.text()).unwrap(), good);
        for name in ["", ".", "..", "a/b", "/etc/passwd", ".hidden", "a\0", "a\nb", MANIFEST] {
            let bad = manifest(vec![file(name)]);
            let said = Manifest::parse(dir, &bad.text()).unwrap_err().to_string();
            assert!(said.contains("names a file") && !said.contains('\n'), "{name:?}: {said}");
        }
    }

    #[test]
    fn manifests_of_newer_versions_are_refused() {
        let newer = Manifest { format: u32::MAX, ..manifest(Vec::new()) };
        let said = Manifest::parse(Path::new("/b"), &newer.text()).unwrap_err().to_string();
        assert!(said.starts_with("/b has format 4294967295, newer than format "), "{said}");
        let newer = Manifest { manifest: 2, ..manifest(Vec::new()) };
        let said = Manifest::parse(Path::new("/b"), &newer.text()).unwrap_err().to_string();
        assert!(said.contains("has version 2"), "{said}");
        let said = Manifest::parse(Path::new("/b"), b"{}").unwrap_err().to_string();
        assert!(said.starts_with("/b is no whole backup: "), "{said}");
    }

    #[test]
    fn a_file_that_has_changed_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), b"abc").unwrap();
        let entry = FileEntry::of(dir.path(), "f").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((entry.bytes, entry.sha256.as_str()), (3, abc));
        entry.check(dir.path()).unwrap();
        for (content, says) in [("abd", "f has another checksum"), ("ab", "f has another length")] {
            fs::write(dir.path().join("f"), content).unwrap();
            let said = entry.check(dir.path()).unwrap_err().to_string();
            assert!(said.contains(says), "{said}");
        }
        fs::remove_file(dir.path().join("f")).unwrap();
        assert!(entry.check(dir.path()).unwrap_err().to_string().contains("f is missing"));
    }
}
