//! How long a node starts that many parked sessions wait in, and what they cost it in memory:
//! `cargo run --release --workspace --example parked -- target/release/verge [SESSIONS…]`
//!
//! Each session has a subscription of its own, as a vehicle that is away has. Directories are written row
//! by row, as shards write them, under the directory for temporary files; resident bytes are those of
//! the process beyond those of one without sessions.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use verge_model::{Claim, ClientKey, NodeId, UnixMillis};
use verge_storage::record::{SessionRecord, SessionState, SubscriberRecord, SubscriptionRecord};
use verge_storage::{Batch, Store as _};
use verge_storage_rocksdb::{Config, RocksStore};

const NODE: &str = "parked";

/// Sessions written at once.
const BATCH: u64 = 10_000;

/// How long the node works on what it does after it serves.
const LATER: Duration = Duration::from_secs(20);

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn main() {
    let mut args = std::env::args().skip(1);
    let verge = PathBuf::from(args.next().expect("the path of verge"));
    let mut sizes: Vec<u64> = args.map(|size| size.parse().expect("a number")).collect();
    if sizes.is_empty() {
        sizes = vec![10_000, 100_000, 1_000_000];
    }
    let dir = std::env::temp_dir().join(format!("verge-parked-{}", std::process::id()));
    println!(
        "{:>9} | {:>9} {:>10} {:>10} | {:>9}",
        "sessions", "ready", "resident", "later", "B/session"
    );
    let mut empty = 0;
    for size in [0].into_iter().chain(sizes) {
        write(&dir, size);
        let begun = Instant::now();
        let (mut node, ready) = start(&verge, &dir);
        let took = begun.elapsed();
        let resident = resident_kib(&node);
        std::thread::sleep(LATER);
        let later = resident_kib(&node);
        node.kill().expect("it runs");
        node.wait().expect("it ran");
        drop(ready);
        fs::remove_dir_all(&dir).expect("it was made");
        if size == 0 {
            empty = later;
            continue;
        }
        let each = (later.saturating_sub(empty)) as f64 * 1_024.0 / size as f64;
        println!(
            "{size:>9} | {:>6.2} s {resident:>6} KiB {later:>6} KiB | {each:>9.0}",
            took.as_secs_f64()
        );
    }
}

/// A directory with these many sessions.
fn write(dir: &Path, sessions: u64) {
    let id: NodeId = NODE.parse().expect("a name");
    let store = RocksStore::open(&Config::new(dir), &id, 7).expect("a new directory");
    let life = 1 << 40;
    for first in (0..sessions).step_by(BATCH as usize) {
        let mut batch = Batch::new();
        for number in first..sessions.min(first + BATCH) {
            put_session(&mut batch, &id, life + 1 + number, number);
        }
        store.commit(&[batch], false).expect("there is room");
    }
    store.commit(&[], true).expect("there is room");
}

fn put_session(batch: &mut Batch, id: &NodeId, no: u64, number: u64) {
    let client = ClientKey::anonymous(&format!("vehicle-{number}"));
    let header = SessionRecord {
        client: client.clone(),
        claim: Claim { epoch: 1, node: id.key() },
        session_expiry_secs: Some(7 * 86_400),
        protocol_version: 5,
        will: None,
        // Long after any clock of today.
        disconnected_at: Some(UnixMillis(4_000_000_000_000)),
        state: SessionState::Open,
        open_fragments: Vec::new(),
        subscription_clock: Bytes::new(),
        confirmed_in: 1,
        written_in: (1, 0),
    };
    batch.put_session(no, &header);
    batch.put_open(&client, no);
    let due = header.attention().expect("it expires");
    batch.put_timer(no, due, client.stable_hash());
    let subscriber = SubscriberRecord { client_hash: client.stable_hash(), author: None };
    let record = SubscriptionRecord {
        qos: 1,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
        subscription_id: None,
        subscriber: Some(subscriber),
    };
    batch.put_subscription(no, &format!("vehicle/{number}/order"), &record);
}

/// Starts the node, and waits for its word that it serves.
fn start(verge: &Path, dir: &Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut node = Command::new(verge)
        .args(["run", "--node-id", NODE, "--listen", "tcp://127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("verge runs");
    let mut out = BufReader::new(node.stdout.take().expect("it is piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("it says that it is ready");
    assert!(line.starts_with("ready"), "{line}");
    (node, out)
}

fn resident_kib(node: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.id())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}
