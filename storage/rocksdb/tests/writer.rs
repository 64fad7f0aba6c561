//! The writer: groups, promises, order, refusals.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use verge_storage::memory::{Crash, MemoryStore};
use verge_storage::{
    Batch, Committed, Family, FamilySize, Identity, KeyRange, LogBounds, LogKey, Promise, ScanPage,
    Store, StoreError, StoreRows,
};
use verge_storage_rocksdb::{Completion, RefusedReason, Writer, WriterHandle};

const LOG: LogKey = LogKey::Outbox { stream: 0 };

fn row(packet_id: u16) -> Batch {
    let mut batch = Batch::new();
    batch.put_received(1, packet_id);
    batch
}

fn appending(value: &'static [u8]) -> Batch {
    let mut batch = Batch::new();
    batch.append(LOG, Bytes::from_static(value));
    batch
}

fn memory() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(&"rsu-1".parse().unwrap(), 7))
}

/// What completions said, in the order in which they were called.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    fn completion(&self, name: &str) -> Completion {
        let (said, name) = (Arc::clone(&self.0), name.to_owned());
        Box::new(move |outcome| {
            let outcome = match outcome {
                Ok(Committed { appended }) if appended.is_empty() => "ok".to_owned(),
                Ok(Committed { appended }) => format!("ok, log {}", appended[0].1),
                Err(error) => error.to_string(),
            };
            said.lock().unwrap().push(format!("{name}: {outcome}"));
        })
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// More commits than any test here makes.
const GATED_COMMITS_MAX: usize = 64;

/// A store whose commits begin when the test says so, and that says what they are.
struct Gated {
    inner: Arc<MemoryStore>,
    arrived: Mutex<SyncSender<(usize, bool)>>,
    open: Mutex<Receiver<()>>,
}

/// The test's side of the gate.
struct Gate {
    arrived: Receiver<(usize, bool)>,
    open: SyncSender<()>,
}

impl Gate {
    /// Waits for a commit and lets it go; its number of batches, and whether it syncs.
    fn pass(&self) -> (usize, bool) {
        let commit = self.arrived.recv().unwrap();
        self.open.send(()).unwrap();
        commit
    }

    /// Waits until a commit stands at the gate.
    fn arrived(&self) -> (usize, bool) {
        self.arrived.recv().unwrap()
    }
}

fn gated(inner: Arc<MemoryStore>) -> (Arc<Gated>, Gate) {
    let (said, arrived) = sync_channel(GATED_COMMITS_MAX);
    let (open, opened) = sync_channel(0);
    (
        Arc::new(Gated { inner, arrived: Mutex::new(said), open: Mutex::new(opened) }),
        Gate { arrived, open },
    )
}

impl Store for Gated {
    fn identity(&self) -> &Identity {
        self.inner.identity()
    }

    fn commit(&self, batches: &[Batch], sync: bool) -> Result<Vec<Committed>, StoreError> {
        // When the test has let go of the gate it stands open.
        let _ = self.arrived.lock().unwrap().send((batches.len(), sync));
        let _ = self.open.lock().unwrap().recv();
        self.inner.commit(batches, sync)
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(family, key)
    }

    fn scan(&self, family: Family, range: &KeyRange, limit: usize) -> Result<ScanPage, StoreError> {
        self.inner.scan(family, range, limit)
    }

    fn log_bounds(&self, log: LogKey) -> Result<LogBounds, StoreError> {
        self.inner.log_bounds(log)
    }

    fn read_log(
        &self,
        log: LogKey,
        from: u64,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, StoreError> {
        self.inner.read_log(log, from, rows_max, bytes_max)
    }

    fn logs(&self) -> Result<Vec<LogKey>, StoreError> {
        self.inner.logs()
    }

    fn sizes(&self) -> Result<Vec<FamilySize>, StoreError> {
        self.inner.sizes()
    }
}

fn submit(writer: &WriterHandle, said: &Said, name: &str, batch: Batch, promise: Promise) {
    writer.submit(batch, promise, said.completion(name)).unwrap();
}

#[test]
fn what_waits_for_the_disk_is_one_group_and_one_fsync() {
    let (store, gate) = gated(memory());
    let said = Said::default();
    let (writer, thread) = Writer::spawn(store, 16);
    submit(&writer, &said, "a", row(1), Promise::Buffered);
    assert_eq!(gate.arrived(), (1, false));
    submit(&writer, &said, "b", row(2), Promise::Buffered);
    submit(&writer, &said, "c", appending(b"c"), Promise::Synced);
    submit(&writer, &said, "d", appending(b"d"), Promise::Buffered);
    assert_eq!(said.take(), [""; 0], "nothing is promised before its commit");
    gate.open.send(()).unwrap();
    assert_eq!(gate.pass(), (3, true));
    let other = writer.clone();
    drop(writer);
    submit(&other, &said, "e", row(3), Promise::Buffered);
    assert_eq!(gate.pass(), (1, false), "a handle was left");
    drop(other);
    assert_eq!(gate.pass(), (0, true), "the last handle is gone: the store is synced");
    thread.join().unwrap();
    assert_eq!(said.take(), ["a: ok", "b: ok", "c: ok, log 1", "d: ok, log 2", "e: ok"]);
}

#[test]
fn a_promise_of_memory_is_kept_at_once_but_never_out_of_turn() {
    let (store, gate) = gated(memory());
    let said = Said::default();
    let (writer, thread) = Writer::spawn(store, 16);
    submit(&writer, &said, "a", row(1), Promise::Memory);
    assert_eq!(said.take(), ["a: ok"], "before the commit");
    submit(&writer, &said, "b", appending(b"b"), Promise::Memory);
    submit(&writer, &said, "c", row(2), Promise::Memory);
    assert_eq!(said.take(), [""; 0], "b waits for its number, and c for b");
    gate.pass();
    // b and c are a group of their own, or two, or joined a's.
    drop(gate);
    drop(writer);
    thread.join().unwrap();
    assert_eq!(said.take(), ["b: ok, log 1", "c: ok"]);
}

#[test]
fn a_full_queue_gives_everything_back() {
    let (store, gate) = gated(memory());
    let said = Said::default();
    let (writer, thread) = Writer::spawn(store, 2);
    submit(&writer, &said, "a", row(1), Promise::Synced);
    gate.arrived();
    submit(&writer, &said, "b", row(2), Promise::Synced);
    submit(&writer, &said, "c", row(3), Promise::Synced);
    for promise in Promise::ALL {
        let refused = writer.submit(row(4), promise, said.completion("d")).unwrap_err();
        assert_eq!((refused.reason, &refused.batch), (RefusedReason::Full, &row(4)));
        assert_eq!(said.take(), [""; 0]);
        (refused.completion)(Ok(Committed::default()));
        assert_eq!(said.take(), ["d: ok"], "the completion is the caller's again");
    }
    assert_eq!(writer.counts().refused, 3);
    drop(gate);
    drop(writer);
    thread.join().unwrap();
    assert_eq!(said.take(), ["a: ok", "b: ok", "c: ok"]);
}

#[test]
fn a_failed_commit_is_told_to_each_of_its_group_and_to_no_other() {
    let inner = memory();
    let (store, gate) = gated(Arc::clone(&inner));
    let said = Said::default();
    let (writer, thread) = Writer::spawn(store, 16);
    submit(&writer, &said, "a", row(1), Promise::Buffered);
    gate.arrived();
    submit(&writer, &said, "b", appending(b"b"), Promise::Buffered);
    submit(&writer, &said, "c", row(2), Promise::Synced);
    gate.open.send(()).unwrap();
    gate.arrived();
    inner.fail_next(StoreError::Io { detail: "torn".into() });
    submit(&writer, &said, "d", appending(b"d"), Promise::Buffered);
    gate.open.send(()).unwrap();
    gate.pass();
    let failed = "the disk of the data directory failed: torn";
    drop((gate, writer));
    thread.join().unwrap();
    assert_eq!(
        said.take(),
        ["a: ok".to_owned(), format!("b: {failed}"), format!("c: {failed}"), "d: ok, log 1".into()]
    );
    assert_eq!(inner.received_of(1).count(), 1, "only a's row");
}

#[test]
fn the_last_handle_leaves_everything_on_the_disk() {
    let store = memory();
    let (writer, thread) = Writer::spawn(Arc::clone(&store) as Arc<dyn Store>, 1_024);
    for packet_id in 0..1_000 {
        writer.submit(row(packet_id), Promise::Memory, Box::new(|_| ())).unwrap();
    }
    drop(writer);
    thread.join().unwrap();
    let disk = store.durable_copy(Crash::Power);
    let survived = MemoryStore::open(disk, &"rsu-1".parse().unwrap(), 0).unwrap();
    assert_eq!(survived.received_of(1).count(), 1_000);
}

#[test]
fn many_submitters_get_contiguous_numbers_each_in_its_order() {
    const THREADS: usize = 4;
    const EACH: usize = 200;
    let (writer, thread) = Writer::spawn(memory(), THREADS * EACH);
    let seen: Vec<Arc<Mutex<Vec<u64>>>> = (0..THREADS).map(|_| Arc::default()).collect();
    thread::scope(|scope| {
        for seen in &seen {
            let writer = writer.clone();
            scope.spawn(move || {
                for number in 0..EACH {
                    let seen = Arc::clone(seen);
                    let promise = Promise::ALL[number % 3];
                    let completion: Completion = Box::new(move |outcome| {
                        seen.lock().unwrap().push(outcome.unwrap().appended[0].1);
                    });
                    writer.submit(appending(b"x"), promise, completion).unwrap();
                }
            });
        }
    });
    let counts = writer.clone();
    drop(writer);
    while counts.counts().batches < (THREADS * EACH) as u64 {
        thread::yield_now();
    }
    let after = counts.counts();
    assert!(after.groups <= after.batches && after.fsyncs <= after.groups);
    assert_eq!((after.failures, after.refused), (0, 0));
    drop(counts);
    thread.join().unwrap();
    let mut all = Vec::new();
    for seen in seen {
        let seen = seen.lock().unwrap();
        assert!(seen.is_sorted(), "completions in order of submission");
        all.extend_from_slice(&seen);
    }
    all.sort_unstable();
    assert!(all.into_iter().eq(1..=(THREADS * EACH) as u64));
}
