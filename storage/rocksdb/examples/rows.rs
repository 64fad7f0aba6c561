//! What messages cost on a disk: CPU and bytes a message, by work and profile.
//!
//! ```text
//! cargo run --release --workspace --example rows -- [--profile flash|ssd|server] [--messages N]
//!     [--payload BYTES] [--text] [--synced] [--group N] [--behind N] [--memory BYTES] [--dir DIR]
//! ```
//!
//! Each work begins with an empty directory. Bytes are those the process handed to the disk
//! (`/proc/self/io`), and, by RocksDB's count, those of the log, of flushes and of compactions.

#![expect(clippy::unwrap_used, reason = "a measurement ends where it fails")]

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use tempfile::TempDir;
use verge_storage::key::{LANE_OWN, QueueKey};
use verge_storage::{Batch, Family, KeyRange, Op, Store};
use verge_storage_rocksdb::{Config, DiskUse, Profile, RocksStore};

/// Bytes of a message's row beside its payload: id, publisher, topic, stamp.
const MESSAGE_ROW_BYTES: usize = 70;
/// Bytes of a queue row's value.
const QUEUE_ROW_BYTES: usize = 24;
/// Ticks of `/proc/self/stat` per second; the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

struct Args {
    profile: Profile,
    messages: u64,
    payload: usize,
    text: bool,
    synced: bool,
    group: u64,
    behind: u64,
    memory: usize,
    dir: PathBuf,
}

fn args() -> Args {
    let mut args = Args {
        profile: Profile::Flash,
        messages: 500_000,
        payload: 256,
        text: false,
        synced: false,
        group: 100,
        behind: 5_000,
        memory: 32 * 1024 * 1024,
        dir: std::env::temp_dir(),
    };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let mut value = || given.next().expect("a value");
        match name.as_str() {
            "--profile" => args.profile = value().parse().unwrap(),
            "--messages" => args.messages = value().parse().unwrap(),
            "--payload" => args.payload = value().parse().unwrap(),
            "--group" => args.group = value().parse().unwrap(),
            "--behind" => args.behind = value().parse().unwrap(),
            "--memory" => args.memory = value().parse().unwrap(),
            "--dir" => args.dir = value().into(),
            "--text" => args.text = true,
            "--synced" => args.synced = true,
            _ => panic!("{name} is not an option"),
        }
    }
    args
}

fn main() {
    let args = args();
    println!(
        "profile {}, {} messages of {} B {}, groups of {}{}",
        args.profile,
        args.messages,
        args.payload,
        if args.text { "of JSON" } else { "of noise" },
        args.group,
        if args.synced { ", synced" } else { "" }
    );
    let soon = Work::begin(&args);
    soon.flow(&args);
    soon.says(&format!("queued, drained {} messages later", args.behind), args.messages);

    let long = Work::begin(&args);
    long.put(&args, 0..args.messages);
    long.says("queued (two rows put)", args.messages);
    let long = Work { from: Meter::read(&long.store), ..long };
    let found = long.drain(&args);
    long.says("drained (scanned, read, deleted)", found);

    let many = Work::begin(&args);
    let sessions = args.messages.min(100_000);
    let mut batch = Batch::new();
    batch.push(message(&args, 1));
    for session_no in 0..sessions {
        batch.push(queue(session_no, 1));
    }
    many.commit(&args, &[batch]);
    many.says("one message queued for many sessions", sessions);
}

/// A store, and what was spent when its work began.
struct Work {
    store: RocksStore,
    from: Meter,
    _dir: TempDir,
}

impl Work {
    fn begin(args: &Args) -> Self {
        let dir = TempDir::new_in(&args.dir).unwrap();
        let config = Config {
            profile: args.profile,
            memtables_bytes_max: args.memory,
            wal_bytes_max: args.profile.wal_bytes_max(),
            ..Config::new(dir.path())
        };
        let store = RocksStore::open(&config, &"rows".parse().unwrap(), 7).unwrap();
        let from = Meter::read(&store);
        Self { store, from, _dir: dir }
    }

    fn commit(&self, args: &Args, batches: &[Batch]) {
        self.store.commit(batches, args.synced).unwrap();
    }

    /// Puts messages and settles each some messages later.
    fn flow(&self, args: &Args) {
        for first in (1..=args.messages).step_by(args.group as usize) {
            let mut puts = Batch::new();
            let mut settles = Batch::new();
            for seq in first..first + args.group {
                puts.push(message(args, seq));
                puts.push(queue(seq % 100, seq));
                if let Some(settled) = seq.checked_sub(args.behind).filter(|settled| *settled > 0) {
                    settle(&mut settles, settled % 100, settled);
                }
            }
            self.commit(args, &[puts, settles]);
        }
    }

    fn put(&self, args: &Args, seqs: std::ops::Range<u64>) {
        for first in seqs.step_by(args.group as usize) {
            let mut puts = Batch::new();
            for seq in first..first + args.group {
                puts.push(message(args, seq));
                puts.push(queue(seq % 100, seq));
            }
            self.commit(args, &[puts]);
        }
    }

    fn drain(&self, args: &Args) -> u64 {
        let mut drained = 0;
        for session_no in 0..100 {
            let mut rest = Some(QueueKey::of(session_no));
            while let Some(range) = rest {
                let range: KeyRange = range;
                let page = self.store.scan(Family::Queue, &range, 256).unwrap();
                let mut settles = Batch::new();
                for (key, _) in &page.rows {
                    let seq = u64::from_be_bytes(key[key.len() - 8..].try_into().unwrap());
                    let row = self.store.get(Family::Message, &message_key(seq)).unwrap();
                    assert!(row.is_some(), "the message of row {seq} is there");
                    settle(&mut settles, session_no, seq);
                }
                drained += page.rows.len() as u64;
                self.commit(args, &[settles]);
                rest = page.rest;
            }
        }
        drained
    }

    /// Prints what was spent, with all that is in memory written out.
    fn says(&self, what: &str, messages: u64) {
        let now = Meter::read(&self.store);
        let per = |now: u64, from: u64| (now - from) as f64 / messages as f64;
        let (disk, from) = (now.disk, self.from.disk);
        println!(
            "{what:>40}: {:5.2} us CPU, {:6.0} B to the disk (log {:.0}, flushed {:.0}, compacted {:.0})",
            (now.cpu_seconds - self.from.cpu_seconds) * 1e6 / messages as f64,
            per(now.written, self.from.written),
            per(disk.wal_bytes, from.wal_bytes),
            per(disk.flushed_bytes, from.flushed_bytes),
            per(disk.compaction_written_bytes, from.compaction_written_bytes),
        );
    }
}

struct Meter {
    cpu_seconds: f64,
    written: u64,
    disk: DiskUse,
}

impl Meter {
    fn read(store: &RocksStore) -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
        let io = fs::read_to_string("/proc/self/io").unwrap();
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
        Self {
            cpu_seconds: (ticks(11) + ticks(12)) / TICKS_PER_SECOND,
            written: line.parse().unwrap(),
            disk: store.disk_use(),
        }
    }
}

fn message_key(seq: u64) -> Vec<u8> {
    [&[7; 8][..], &1_u32.to_be_bytes(), &seq.to_be_bytes()].concat()
}

fn message(args: &Args, seq: u64) -> Op {
    let mut value =
        b"roadside-unit-17 vehicles/bavaria/munich/17/position 1769000000 ...........".to_vec();
    value.resize(MESSAGE_ROW_BYTES, b'.');
    let mut state = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut noise = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    while value.len() < MESSAGE_ROW_BYTES + args.payload {
        if args.text {
            let (lat, lon) = (noise() % 1_000_000, noise() % 1_000_000);
            let text = format!(
                "{{\"station\":{seq},\"lat\":48.{lat:06},\"lon\":11.{lon:06},\"speed\":{},\"heading\":{}}}",
                noise() % 200,
                noise() % 360
            );
            value.extend_from_slice(text.as_bytes());
        } else {
            value.extend_from_slice(&noise().to_be_bytes());
        }
    }
    value.truncate(MESSAGE_ROW_BYTES + args.payload);
    let key = message_key(seq)[..].into();
    Op::Put { family: Family::Message, key, value: value.into() }
}

fn queue(session_no: u64, seq: u64) -> Op {
    let key = verge_storage::Key::encode(&QueueKey { session_no, lane: LANE_OWN, seq });
    let mut value = message_key(seq);
    value.resize(QUEUE_ROW_BYTES, 1);
    Op::Put { family: Family::Queue, key, value: Bytes::from(value) }
}

fn settle(batch: &mut Batch, session_no: u64, seq: u64) {
    batch.delete_queue(QueueKey { session_no, lane: LANE_OWN, seq });
    batch.push(Op::Delete { family: Family::Message, key: message_key(seq)[..].into() });
}
