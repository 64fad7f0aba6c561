//! A family rewritten without what cannot be read.
//!
//! A damaged block is passed by when rows are read ([`crate::damage`]), but a compaction that comes to
//! it fails, and with it every later write. Then the family is written anew: its readable rows into
//! one file, which takes the family's place. The damaged file is kept beside, for whoever wants to
//! look at it.
//!
//! ```text
//! salvage/<family>.sst     the readable rows
//! salvage/<family>.ready   they are all there: from here on the family is theirs
//! salvage/000012.sst       a damaged file, as it was
//! ```
//!
//! A crash before `ready` changes nothing; after it, the next start goes on from there.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rocksdb::{DB, IngestExternalFileOptions, SstFileWriter};
use verge_storage::{Family, KeyRange, StoreError};

use crate::open::{Opening, family};
use crate::{damage, error};

/// Where it happens, in the data directory.
const DIR: &str = "salvage";

/// The family and the path of the damaged file that an error names.
pub(crate) fn damaged(db: &DB, detail: &str) -> Option<(Family, PathBuf)> {
    let path =
        detail.split_whitespace().find(|word| word.trim_end_matches(':').ends_with(".sst"))?;
    let path = PathBuf::from(path.trim_end_matches(':'));
    let name = path.file_name()?.to_str()?;
    let files = db.live_files().ok()?;
    let file = files.iter().find(|file| file.name.trim_start_matches('/') == name)?;
    Some((Family::from_name(&file.column_family_name)?, path))
}

/// Writes a family anew without the damaged file.
pub(crate) fn rewrite(
    db: &mut DB,
    opening: &Opening,
    of: Family,
    damaged: &Path,
) -> Result<(), StoreError> {
    let dir = opening.config.dir.join(DIR);
    let failed = |error: io::Error| error::create(&error, &dir);
    fs::create_dir_all(&dir).map_err(failed)?;
    let rows = copy_rows(db, opening, of, &dir)?;
    if let Some(name) = damaged.file_name() {
        // It may be kept from an earlier try.
        let _ = fs::hard_link(damaged, dir.join(name));
    }
    let ready = dir.join(format!("{of}.ready"));
    File::create(&ready).and_then(|file| file.sync_all()).map_err(failed)?;
    File::open(&dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    replace(db, opening, of)?;
    tracing::error!(
        family = %of,
        rows,
        kept = %dir.display(),
        "a family was written anew without the rows of a damaged file; a backup may have them"
    );
    Ok(())
}

/// Whether a crash interrupted one.
pub(crate) fn is_unfinished(dir: &Path) -> bool {
    Family::ALL.into_iter().any(|of| dir.join(DIR).join(format!("{of}.ready")).exists())
}

/// Ends what a crash interrupted.
pub(crate) fn finish(db: &mut DB, opening: &Opening) -> Result<(), StoreError> {
    let dir = opening.config.dir.join(DIR);
    for of in Family::ALL {
        if dir.join(format!("{of}.ready")).exists() {
            replace(db, opening, of)?;
        }
    }
    Ok(())
}

/// Puts the readable rows of a family into one file; how many they are.
fn copy_rows(db: &DB, opening: &Opening, of: Family, dir: &Path) -> Result<u64, StoreError> {
    let path = rows_file(dir, of);
    // Of an earlier try.
    let _ = fs::remove_file(&path);
    let options = opening.family(of, true);
    let mut file = SstFileWriter::create(&options);
    file.open(&path).map_err(|error| error::disk(&error))?;
    let mut count = 0;
    let mut left = Some(KeyRange::all());
    while let Some(range) = left.take() {
        let mut last = range.start.to_vec();
        let mut rows = db.raw_iterator_cf(family(db, of));
        rows.seek(&range.start);
        while let Some((key, value)) = rows.item() {
            file.put(key, value).map_err(|error| error::disk(&error))?;
            count += 1;
            last.clear();
            last.extend_from_slice(key);
            rows.next();
        }
        if rows.status().is_err() {
            left = damage::beyond(db, of, &last, &range);
            let to = left.as_ref().map(|left| &left.start[..]);
            damage::within(db, of, &last, to, |key, value| {
                count += 1;
                file.put(key, value).map_err(|error| error::disk(&error))
            })?;
        }
    }
    if count > 0 {
        file.finish().map_err(|error| error::disk(&error))?;
    } else {
        drop(file);
        let _ = fs::remove_file(&path);
    }
    Ok(count)
}

/// Gives the family its rows. Done again, it comes to the same.
fn replace(db: &mut DB, opening: &Opening, of: Family) -> Result<(), StoreError> {
    let dir = opening.config.dir.join(DIR);
    let rows = rows_file(&dir, of);
    let ready = dir.join(format!("{of}.ready"));
    let failed = |error: &rocksdb::Error| error::disk(error);
    // Without the file it has been taken over: only the mark is left.
    if rows.exists() || !has_rows(db, of) {
        db.drop_cf(of.name()).map_err(|error| failed(&error))?;
        db.create_cf(of.name(), &opening.family(of, true)).map_err(|error| failed(&error))?;
    }
    if rows.exists() {
        let options = IngestExternalFileOptions::default();
        db.ingest_external_file_cf_opts(family(db, of), &options, vec![&rows])
            .map_err(|error| failed(&error))?;
        fs::remove_file(&rows).map_err(|error| error::create(&error, &dir))?;
    }
    fs::remove_file(&ready).map_err(|error| error::create(&error, &dir))
}

fn has_rows(db: &DB, of: Family) -> bool {
    let mut rows = db.raw_iterator_cf(family(db, of));
    rows.seek_to_first();
    rows.valid()
}

fn rows_file(dir: &Path, of: Family) -> PathBuf {
    dir.join(format!("{of}.sst"))
}
