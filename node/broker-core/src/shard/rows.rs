//! The rows that lead to a session: its header, its client's, and its timer's.
//!
//! A session that is not in memory is found by its client
//! ([`Family::Client`](verge_storage::Family::Client)), and when something about it is due
//! ([`Family::Timer`](verge_storage::Family::Timer)). Both rows follow from the header, and are
//! written in its batches.

use verge_model::Incarnation;
use verge_storage::Batch;

use super::due::Moment;
use super::session::Session;

/// Which rows stand for a session beside its timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::shard) struct Stored {
    /// Whether its client's row names it.
    pub(in crate::shard) named: bool,
    /// Whether it has a header.
    pub(in crate::shard) header: bool,
}

/// In which life of the node rows are written, and how often its wall clock has leapt in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::shard) struct Life {
    pub(in crate::shard) incarnation: Incarnation,
    pub(in crate::shard) leaps: u32,
}

impl Session {
    /// Puts the header, and what follows from it.
    pub(in crate::shard) fn put(&mut self, life: Life, batch: &mut Batch) {
        let mut record = self.record();
        record.confirmed_in = if self.moving.unconfirmed { 0 } else { life.incarnation };
        record.written_in = (life.incarnation, life.leaps);
        batch.put_session(self.no.0, &record);
        let timer = Moment::from(record.attention());
        if timer != self.timer {
            self.delete_timer(batch);
            if let Some(due) = timer.at() {
                batch.put_timer(self.no.0, due, self.client.stable_hash());
            }
            self.timer = timer;
        }
        let open = !self.is_sealed();
        match (open, self.stored.named) {
            (true, false) => batch.put_open(&self.client, self.no.0),
            (false, true) => batch.delete_open(&self.client),
            (true, true) | (false, false) => {}
        }
        self.stored = Stored { named: open, header: true };
    }

    /// Removes every row of the session.
    pub(in crate::shard) fn delete(&self, batch: &mut Batch) {
        batch.delete_session_rows(self.no.0);
        self.delete_timer(batch);
        if self.stored.named {
            batch.delete_open(&self.client);
        }
    }

    fn delete_timer(&self, batch: &mut Batch) {
        if let Some(due) = self.timer.at() {
            batch.delete_timer(self.no.0, due);
        }
    }
}
