//! `verge ctl storage` as tables, and `verge restore`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::ctl::{Columns, cell, table};
use super::{Failure, print_ignoring_closed_pipe};
use crate::backup::restore::{Restored, restore};
use crate::clock;

const FAMILIES: Columns = &[
    ("FAMILY", "family"),
    ("ROWS", "rows"),
    ("LIVE BYTES", "live_bytes"),
    ("DISK BYTES", "disk_bytes"),
    ("MEMORY BYTES", "memtable_bytes"),
];
const LOGS: Columns = &[
    ("LOG", "log"),
    ("FOR NODE", "node"),
    ("CLASS", "class"),
    ("FIRST", "first"),
    ("NEXT", "next"),
    ("MESSAGES", "messages"),
    ("OLDEST", "oldest_at"),
    ("AGE SECONDS", "oldest_age_secs"),
];
const LINES: [&str; 7] = [
    "format",
    "incarnation",
    "wal_bytes",
    "directory_bytes",
    "free_bytes",
    "reserve_bytes",
    "oldest_message_at",
];

/// `GET /api/v1/storage` as text.
pub(super) fn text(answer: &Value) -> String {
    let entries = |list: &'static str| answer[list].as_array().map(Vec::as_slice).unwrap_or(&[]);
    let mut out = table(FAMILIES, entries("families"));
    if !entries("logs").is_empty() {
        let _ = write!(out, "\n{}", table(LOGS, entries("logs")));
    }
    out.push('\n');
    for name in LINES {
        let _ = writeln!(out, "{name}  {}", cell(&answer[name]));
    }
    for (name, value) in answer["written"].as_object().into_iter().flatten() {
        let _ = writeln!(out, "written.{name}  {}", cell(value));
    }
    out
}

/// Options of `verge restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FROM")]
    from: PathBuf,
    /// The new data directory; it must not be there, or be empty
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

/// Restores a backup, and says which node it is.
///
/// # Errors
/// It is no whole backup, the directory is not empty, or the disk's; one line.
pub fn run_restore(args: &RestoreArgs) -> Result<(), Failure> {
    let now = clock::wall();
    let restored =
        restore(&args.from, &args.data_dir, rand::random(), now).map_err(Failure::setup)?;
    print_ignoring_closed_pipe(&restored_text(&restored, &args.data_dir));
    Ok(())
}

fn restored_text(restored: &Restored, dir: &Path) -> String {
    let Restored { manifest, next_incarnation } = restored;
    let (node, files, bytes) = (&manifest.node_id, manifest.files.len(), manifest.bytes);
    format!(
        "restored node '{node}' as of {} ({files} files, {bytes} bytes, format {}) into {}\n\
         its next start is life {next_incarnation}, with new logs to other nodes; the node that was \
         backed up must not run again\n\
         what clients, nodes or the cloud tier took from it after the backup may come to them again\n",
        manifest.taken_at,
        manifest.format,
        dir.display()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn storage_stands_in_tables() {
        let answer = json!({
            "families": [{"family": "queue", "rows": 3, "live_bytes": 40, "disk_bytes": 90,
                "memtable_bytes": 7}],
            "logs": [{"log": "outbox", "first": 1, "next": 3, "messages": 2}],
            "free_bytes": 5,
            "written": {"fsyncs": 9},
        });
        let text = text(&answer);
        for line in [
            "queue   3     40          90          7",
            "outbox  -         -      1      3     2         -       -",
            "free_bytes  5",
            "written.fsyncs  9",
        ] {
            assert!(text.lines().any(|of| of == line), "{line}\n{text}");
        }
    }
}
