//! The one thread that writes, and its groups.
//!
//! ```text
//! shard ─submit─┐
//! shard ─submit─┼─▶ bounded queue ─▶ all that waits ─▶ one commit, one fsync ─▶ completions
//! hub   ─submit─┘                    (one group)                               in order
//! ```
//!
//! While a group is on its way to the disk the next one gathers, so the slower the disk, the larger
//! the groups: what an fsync costs is shared by everyone who waited for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use verge_storage::{Batch, Committed, Op, Promise, Store, StoreError};

use crate::settling::Settling;

/// Most submissions of one group: bounds how long the first of it waits for the last.
const GROUP_SUBMISSIONS_MAX: usize = 1_024;

/// A group ends with the submission that reaches this size: bounds what one commit copies.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Called once with the outcome of a submission, on the writer's thread (or, for
/// [`Promise::Memory`], perhaps on the submitter's). Must not block: everyone's writes wait.
pub type Completion = Box<dyn FnOnce(Result<Committed, StoreError>) + Send>;

/// The thread that owns a store's write side.
#[derive(Debug)]
pub struct Writer;

/// Submits batches. Clones share one queue; the writer ends when the last is dropped.
#[derive(Clone)]
pub struct WriterHandle {
    queue: SyncSender<Submission>,
    shared: Arc<Shared>,
}

/// What a writer did since it was spawned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriterCounts {
    /// Groups committed.
    pub groups: u64,
    /// Batches in them.
    pub batches: u64,
    /// Bytes of keys and values in them.
    pub bytes: u64,
    /// Groups that were synced.
    pub fsyncs: u64,
    /// Groups the store failed to commit.
    pub failures: u64,
    /// Submissions refused.
    pub refused: u64,
}

/// A submission that was not taken. Nothing happened; the caller has everything back.
pub struct Refused {
    /// Why.
    pub reason: RefusedReason,
    /// The batch.
    pub batch: Batch,
    /// Its completion, not called.
    pub completion: Completion,
}

/// Why a submission was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedReason {
    /// The disk is slower than what is written: take less in, and try again.
    #[error("the storage writer's queue is full")]
    Full,
    /// The writer has ended.
    #[error("the storage writer has ended")]
    Ended,
}

struct Submission {
    batch: Batch,
    promise: Promise,
    /// `None`: called already, under the promise `memory`.
    completion: Option<Completion>,
}

#[derive(Default)]
struct Shared {
    /// Completions not yet called. While there are any, one under `memory` waits its turn.
    awaited: AtomicUsize,
    groups: AtomicU64,
    batches: AtomicU64,
    bytes: AtomicU64,
    fsyncs: AtomicU64,
    failures: AtomicU64,
    refused: AtomicU64,
}

impl Writer {
    /// Starts the thread. At most `capacity` submissions wait beside the group being committed.
    ///
    /// When the last handle is dropped the thread commits what waits, syncs the store, drops it and
    /// ends.
    ///
    /// # Panics
    /// When the operating system gives no thread.
    #[must_use]
    pub fn spawn(store: Arc<dyn Store>, capacity: usize) -> (WriterHandle, JoinHandle<()>) {
        Self::spawn_gathering(store, capacity, Duration::ZERO)
    }

    /// As [`spawn`](Self::spawn); after each group, what comes within `gather` waits for the next,
    /// so that a disk which wears is written in larger pieces.
    ///
    /// # Panics
    /// When the operating system gives no thread.
    #[must_use]
    pub fn spawn_gathering(
        store: Arc<dyn Store>,
        capacity: usize,
        gather: Duration,
    ) -> (WriterHandle, JoinHandle<()>) {
        let (queue, submissions) = sync_channel(capacity);
        let shared = Arc::new(Shared::default());
        let handle = WriterHandle { queue, shared: Arc::clone(&shared) };
        let thread = Builder::new()
            .name("storage".into())
            .spawn(move || write(&*store, &submissions, gather, &shared))
            .expect("a process that starts can start one more thread");
        (handle, thread)
    }
}

impl WriterHandle {
    /// Queues `batch`. When `promise` holds, or cannot, `completion` is called; completions of one
    /// submitter are called in the order of its submissions.
    ///
    /// Under [`Promise::Memory`] it is called before this returns, unless an earlier completion is
    /// still awaited or the batch appends to a log, whose numbers only the commit knows.
    ///
    /// # Errors
    /// The queue is full, or the writer has ended. Everything comes back.
    pub fn submit(
        &self,
        batch: Batch,
        promise: Promise,
        completion: Completion,
    ) -> Result<(), Box<Refused>> {
        let at_once = promise == Promise::Memory
            && self.shared.awaited.load(Ordering::Acquire) == 0
            && !appends(&batch);
        let (waiting, called) =
            if at_once { (None, Some(completion)) } else { (Some(completion), None) };
        // Counted before it is queued: the writer may complete it before this thread goes on.
        if waiting.is_some() {
            self.shared.awaited.fetch_add(1, Ordering::AcqRel);
        }
        let submission = Submission { batch, promise, completion: waiting };
        let (reason, submission) = match self.queue.try_send(submission) {
            Ok(()) => {
                if let Some(completion) = called {
                    completion(Ok(Committed::default()));
                }
                return Ok(());
            }
            Err(TrySendError::Full(submission)) => (RefusedReason::Full, submission),
            Err(TrySendError::Disconnected(submission)) => (RefusedReason::Ended, submission),
        };
        if submission.completion.is_some() {
            self.shared.awaited.fetch_sub(1, Ordering::AcqRel);
        }
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        let completion = submission.completion.or(called).expect("it is in one of the two");
        Err(Box::new(Refused { reason, batch: submission.batch, completion }))
    }

    /// What the writer did until now.
    #[must_use]
    pub fn counts(&self) -> WriterCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WriterCounts {
            groups: get(&self.shared.groups),
            batches: get(&self.shared.batches),
            bytes: get(&self.shared.bytes),
            fsyncs: get(&self.shared.fsyncs),
            failures: get(&self.shared.failures),
            refused: get(&self.shared.refused),
        }
    }
}

/// The writer's thread.
#[expect(clippy::disallowed_methods, reason = "this thread has nothing else to do meanwhile")]
fn write(store: &dyn Store, submissions: &Receiver<Submission>, pause: Duration, shared: &Shared) {
    let mut settling = Settling::default();
    while let Ok(first) = submissions.recv() {
        commit(store, gather(first, submissions), &mut settling, shared);
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
    if let Err(error) = store.commit(&settling.take(), true) {
        tracing::error!(%error, "what was written last may not survive a power failure");
    }
}

/// A group: all that waits, within bounds.
fn gather(first: Submission, submissions: &Receiver<Submission>) -> Vec<Submission> {
    let mut bytes = first.batch.bytes();
    let mut group = vec![first];
    while group.len() < GROUP_SUBMISSIONS_MAX && bytes < GROUP_BYTES_MAX {
        let Ok(next) = submissions.try_recv() else { break };
        bytes += next.batch.bytes();
        group.push(next);
    }
    group
}

fn commit(store: &dyn Store, group: Vec<Submission>, settling: &mut Settling, shared: &Shared) {
    let sync = group.iter().any(|submission| submission.promise == Promise::Synced);
    let (mut batches, completions): (Vec<Batch>, Vec<Option<Completion>>) =
        group.into_iter().map(|submission| (submission.batch, submission.completion)).unzip();
    // Debts that ended while nothing could be written go first.
    let settled = settling.take();
    let before = settled.len();
    if before > 0 {
        batches.splice(0..0, settled);
    }
    let bytes = batches.iter().map(Batch::bytes).sum::<usize>();
    let outcome = store.commit(&batches, sync);
    match &outcome {
        Ok(_) => {
            shared.groups.fetch_add(1, Ordering::Relaxed);
            shared.batches.fetch_add(batches.len() as u64, Ordering::Relaxed);
            shared.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            shared.fsyncs.fetch_add(u64::from(sync), Ordering::Relaxed);
        }
        Err(error) => {
            shared.failures.fetch_add(1, Ordering::Relaxed);
            let promised = completions.iter().filter(|completion| completion.is_none()).count();
            if promised > 0 {
                tracing::error!(%error, promised, "batches that were promised in memory are lost");
            } else {
                tracing::debug!(%error, batches = batches.len(), "commit failed");
            }
        }
    }
    let mut outcomes = outcome.map(|committed| committed.into_iter().skip(before));
    let mut batches = batches.into_iter();
    if outcomes.is_err() {
        for settled in batches.by_ref().take(before) {
            settling.keep(settled);
        }
    }
    for completion in completions {
        let outcome = match &mut outcomes {
            Ok(committed) => Ok(committed.next().expect("a store answers every batch")),
            // An end needs no promise: it is written later.
            Err(_) if batches.next().is_some_and(|batch| settling.keep(batch)) => {
                Ok(Committed::default())
            }
            Err(error) => Err(error.clone()),
        };
        if let Some(completion) = completion {
            completion(outcome);
            shared.awaited.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn appends(batch: &Batch) -> bool {
    batch.ops().iter().any(|op| matches!(op, Op::Append { .. }))
}

impl fmt::Debug for WriterHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriterHandle").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("reason", &self.reason)
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}
