//! Debts that ended while the store took no writes.
//!
//! A client that acknowledges a message is not asked again because a disk is full: the debt is
//! settled, and its rows go when the store takes writes again, before anything else is written. Only
//! batches in which nothing begins are kept so: what is deleted together with a new row, such as a
//! message that moves from one queue to another, would be lost with a crash between the two.

use verge_storage::{Batch, Family, Op};

/// Most bytes of keys kept, about a quarter of a million settlements. Rows beyond are deleted when
/// their messages are settled again, after a restart.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Batches that only settle debts, in order.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    batches: Vec<Batch>,
    bytes: usize,
}

impl Settling {
    /// The batches to write before all others.
    pub(crate) fn take(&mut self) -> Vec<Batch> {
        self.bytes = 0;
        std::mem::take(&mut self.batches)
    }

    /// Keeps a batch that was not written, if all it does is settle and there is room.
    pub(crate) fn keep(&mut self, batch: Batch) -> bool {
        let kept = only_settles(&batch) && self.bytes + batch.bytes() <= KEPT_BYTES_MAX;
        if kept {
            self.bytes += batch.bytes();
            self.batches.push(batch);
        }
        kept
    }
}

fn only_settles(batch: &Batch) -> bool {
    !batch.is_empty() && batch.ops().iter().all(settles)
}

fn settles(op: &Op) -> bool {
    match op {
        Op::Delete { family, .. } => {
            matches!(family, Family::Queue | Family::Message | Family::Inflight)
        }
        Op::Release { .. } => true,
        Op::Put { .. } | Op::DeletePrefix { .. } | Op::Append { .. } | Op::Trim { .. } => false,
    }
}
