//! Logs: row sequences whose numbers the store gives.
//!
//! A batch only says *append*; the number is given when the group commits, so the rows of a log are
//! numbered 1, 2, 3 … without gaps, in commit order, however many threads fill batches and whatever
//! commits fail. Trimming leaves the last trimmed number in `meta`, in the same commit, so that a
//! log goes on counting after a restart even when all its rows are gone.
//!
//! [`LogTable`] does this accounting for every store.

use std::collections::BTreeMap;

use bytes::Bytes;
use verge_model::{Class, NodeKey};

use crate::batch::{Batch, Op};
use crate::error::StoreError;
use crate::family::Family;
use crate::key::{ForwardKey, Key, KeyBuf, KeyError, KeyRange, MetaKey, OutboxKey};
use crate::store::Committed;

/// Up to this many rows, trimming deletes row by row; beyond, by range, whose tombstones cost a
/// log-structured store more on every read that crosses them.
const TRIM_BY_ROW_MAX: u64 = 256;

/// The name of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogKey {
    /// What a peer must still take, of one class.
    Forward {
        /// The peer.
        peer: NodeKey,
        /// The class.
        class: Class,
    },
    /// What the cloud tier must still take, of one uplink stream.
    Outbox {
        /// The stream.
        stream: u16,
    },
}

impl LogKey {
    /// The families that hold logs.
    pub const FAMILIES: [Family; 2] = [Family::Forward, Family::Outbox];

    /// The log of the rows that begin with `prefix`.
    ///
    /// # Errors
    /// `family` holds no logs, or `prefix` is not one of its.
    pub fn from_prefix(family: Family, prefix: &[u8]) -> Result<Self, KeyError> {
        let key = [prefix, &0_u64.to_be_bytes()].concat();
        Self::from_row(family, &key).map(|(log, _)| log)
    }

    /// The log and sequence of a row.
    ///
    /// # Errors
    /// `family` holds no logs, or `key` is not one of its.
    pub fn from_row(family: Family, key: &[u8]) -> Result<(Self, u64), KeyError> {
        if family == Family::Forward {
            let ForwardKey { peer, class, seq } = ForwardKey::decode(key)?;
            Ok((Self::Forward { peer, class }, seq))
        } else if family == Family::Outbox {
            let OutboxKey { stream, seq } = OutboxKey::decode(key)?;
            Ok((Self::Outbox { stream }, seq))
        } else {
            Err(KeyError::NoName)
        }
    }

    /// The family of its rows.
    #[must_use]
    pub fn family(self) -> Family {
        match self {
            Self::Forward { .. } => Family::Forward,
            Self::Outbox { .. } => Family::Outbox,
        }
    }

    /// The key of one of its rows.
    #[must_use]
    pub fn row(self, seq: u64) -> KeyBuf {
        match self {
            Self::Forward { peer, class } => ForwardKey { peer, class, seq }.encode(),
            Self::Outbox { stream } => OutboxKey { stream, seq }.encode(),
        }
    }

    /// What the keys of all its rows begin with.
    #[must_use]
    pub fn prefix(self) -> KeyBuf {
        let mut prefix = self.row(0);
        prefix.truncate(prefix.len() - size_of::<u64>());
        prefix
    }

    /// The keys of all its rows.
    #[must_use]
    pub fn range(self) -> KeyRange {
        KeyRange::prefix(&self.prefix())
    }
}

/// Which rows of a log there are: `first..next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// The first row not trimmed, or `next` if there is none.
    pub first: u64,
    /// The sequence the next appended row gets.
    pub next: u64,
}

impl LogBounds {
    /// A log without a past.
    pub const NEW: Self = Self { first: 1, next: 1 };

    /// How many rows there are.
    #[must_use]
    pub fn len(self) -> u64 {
        self.next - self.first
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.first == self.next
    }
}

/// Where the writes of a group go: a store's own kind of batch.
pub trait WriteSink {
    /// Sets a row.
    fn put(&mut self, family: Family, key: &[u8], value: &Bytes);
    /// Removes a row, if it is there.
    fn delete(&mut self, family: Family, key: &[u8]);
    /// Lowers the count of references of a message's row.
    fn release(&mut self, key: &[u8], count: u32);
    /// Removes the rows of a range.
    fn delete_range(&mut self, family: Family, range: &KeyRange);
}

/// The bounds of every log of a store. Bounded by peers × classes and by uplink streams.
#[derive(Debug, Clone, Default)]
pub struct LogTable {
    logs: BTreeMap<LogKey, LogBounds>,
}

/// What a group of batches comes to; the table changes only when the group has committed.
#[derive(Debug)]
pub struct Applied {
    /// The outcome of each batch.
    pub committed: Vec<Committed>,
    changed: BTreeMap<LogKey, LogBounds>,
}

impl LogTable {
    /// Learns, when a store opens, a trim mark: a row of `meta` that begins with
    /// [`MetaKey::trimmed_prefix`].
    ///
    /// # Errors
    /// [`StoreError::Corrupt`]: without the mark the log would give numbers twice.
    pub fn load_mark(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let corrupt = |error| StoreError::corrupt_key(Family::Meta, key, &error);
        match MetaKey::decode(key).map_err(corrupt)? {
            MetaKey::Trimmed(log) => {
                let trimmed = value.try_into().map_err(|_| corrupt(KeyError::Short))?;
                self.load_trimmed(log, u64::from_be_bytes(trimmed));
                Ok(())
            }
            MetaKey::Boots
            | MetaKey::Format
            | MetaKey::LogId
            | MetaKey::Migrating
            | MetaKey::Node => Err(corrupt(KeyError::NoName)),
        }
    }

    /// Learns, when a store opens, the key of the last row of a log, and says which log it is.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`]: the key is no log's.
    pub fn load_last_key(&mut self, family: Family, key: &[u8]) -> Result<LogKey, StoreError> {
        let (log, seq) = LogKey::from_row(family, key)
            .map_err(|error| StoreError::corrupt_key(family, key, &error))?;
        self.load_last(log, seq);
        Ok(log)
    }

    fn load_trimmed(&mut self, log: LogKey, trimmed: u64) {
        let bounds = self.logs.entry(log).or_insert(LogBounds::NEW);
        bounds.first = bounds.first.max(trimmed.saturating_add(1));
        bounds.next = bounds.next.max(bounds.first);
    }

    fn load_last(&mut self, log: LogKey, last: u64) {
        let bounds = self.logs.entry(log).or_insert(LogBounds::NEW);
        bounds.next = bounds.next.max(last.saturating_add(1));
    }

    /// Writes `batches` into `sink` in order, giving every appended row its sequence.
    pub fn apply(&self, batches: &[Batch], sink: &mut impl WriteSink) -> Applied {
        let mut changed = BTreeMap::new();
        let mut committed = Vec::with_capacity(batches.len());
        for batch in batches {
            let mut appended = Vec::new();
            for op in batch.ops() {
                match op {
                    Op::Put { family, key, value } => sink.put(*family, key, value),
                    Op::Delete { family, key } => sink.delete(*family, key),
                    Op::Release { key, count } => sink.release(key, *count),
                    Op::DeletePrefix { family, prefix } => {
                        sink.delete_range(*family, &KeyRange::prefix(prefix));
                    }
                    Op::Append { log, value } => {
                        let bounds = changed.entry(*log).or_insert_with(|| self.bounds(*log));
                        sink.put(log.family(), &log.row(bounds.next), value);
                        appended.push((*log, bounds.next, value.clone()));
                        bounds.next += 1;
                    }
                    Op::Trim { log, upto } => {
                        let bounds = changed.entry(*log).or_insert_with(|| self.bounds(*log));
                        trim(*log, *upto, bounds, sink);
                    }
                }
            }
            committed.push(Committed { appended });
        }
        Applied { committed, changed }
    }

    /// Takes over what a group changed, once it has committed.
    pub fn adopt(&mut self, applied: Applied) -> Vec<Committed> {
        self.logs.extend(applied.changed);
        applied.committed
    }

    /// The bounds of one log.
    #[must_use]
    pub fn bounds(&self, log: LogKey) -> LogBounds {
        self.logs.get(&log).copied().unwrap_or(LogBounds::NEW)
    }

    /// Every log that ever had a row.
    #[must_use]
    pub fn logs(&self) -> Vec<LogKey> {
        self.logs.iter().filter(|(_, bounds)| bounds.next > 1).map(|(log, _)| *log).collect()
    }
}

/// Removes the rows up to `upto`, and marks in `meta` that they existed.
fn trim(log: LogKey, upto: u64, bounds: &mut LogBounds, sink: &mut impl WriteSink) {
    let upto = upto.min(bounds.next - 1);
    if upto < bounds.first {
        return;
    }
    if upto - bounds.first < TRIM_BY_ROW_MAX {
        for seq in bounds.first..=upto {
            sink.delete(log.family(), &log.row(seq));
        }
    } else {
        let range = KeyRange {
            start: Bytes::copy_from_slice(&log.row(bounds.first)),
            end: Some(Bytes::copy_from_slice(&log.row(upto + 1))),
        };
        sink.delete_range(log.family(), &range);
    }
    let mark = Bytes::copy_from_slice(&upto.to_be_bytes());
    sink.put(Family::Meta, &MetaKey::Trimmed(log).encode(), &mark);
    bounds.first = upto + 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogKey = LogKey::Outbox { stream: 7 };

    /// Writes as lines.
    #[derive(Default)]
    struct Lines(Vec<String>);

    impl WriteSink for Lines {
        fn put(&mut self, family: Family, key: &[u8], _value: &Bytes) {
            self.0.push(format!("put {family} {}", name(family, key)));
        }

        fn delete(&mut self, family: Family, key: &[u8]) {
            self.0.push(format!("delete {family} {}", name(family, key)));
        }

        fn release(&mut self, _key: &[u8], count: u32) {
            self.0.push(format!("release {count}"));
        }

        fn delete_range(&mut self, family: Family, range: &KeyRange) {
            let end = range.end.as_ref().unwrap();
            let (start, end) = (name(family, &range.start), name(family, end));
            self.0.push(format!("delete {family} {start}..{end}"));
        }
    }

    fn name(family: Family, key: &[u8]) -> String {
        LogKey::from_row(family, key).map_or("mark".into(), |(_, seq)| seq.to_string())
    }

    #[test]
    fn a_group_is_numbered_across_its_batches_and_trims_what_it_appended() {
        let mut table = LogTable::default();
        let (mut first, mut second) = (Batch::new(), Batch::new());
        first.append(LOG, Bytes::from_static(b"a"));
        first.append(LOG, Bytes::from_static(b"b"));
        second.append(LOG, Bytes::from_static(b"c"));
        second.trim(LOG, 2);
        let mut lines = Lines::default();
        let applied = table.apply(&[first, second], &mut lines);
        assert_eq!(table.bounds(LOG), LogBounds::NEW, "nothing is true before the commit");
        let committed = table.adopt(applied);
        assert_eq!(
            lines.0,
            [
                "put outbox 1",
                "put outbox 2",
                "put outbox 3",
                "delete outbox 1",
                "delete outbox 2",
                "put meta mark"
            ]
        );
        let seqs: Vec<Vec<u64>> = committed
            .iter()
            .map(|one| one.appended.iter().map(|(_, seq, _)| *seq).collect())
            .collect();
        assert_eq!(seqs, [vec![1, 2], vec![3]]);
        assert_eq!(table.bounds(LOG), LogBounds { first: 3, next: 4 });
        assert_eq!(table.logs(), [LOG]);
    }

    #[test]
    fn trimming_stays_within_the_log() {
        let mut table = LogTable::default();
        table.load_trimmed(LOG, 4);
        table.load_last(LOG, 9);
        let table_of = [(3, 5, 0), (4, 5, 0), (6, 7, 3), (u64::MAX, 10, 6)];
        for (upto, first, writes) in table_of {
            let (mut lines, mut bounds) = (Lines::default(), table.bounds(LOG));
            trim(LOG, upto, &mut bounds, &mut lines);
            assert_eq!((bounds.first, bounds.next), (first, 10), "up to {upto}");
            assert_eq!(lines.0.len(), writes, "up to {upto}: {:?}", lines.0);
        }
    }

    #[test]
    fn a_long_trim_is_one_range() {
        let mut lines = Lines::default();
        let mut bounds = LogBounds { first: 1, next: 1_000 };
        trim(LOG, 900, &mut bounds, &mut lines);
        assert_eq!(lines.0, ["delete outbox 1..901", "put meta mark"]);
    }

    #[test]
    fn a_log_that_lost_all_rows_goes_on_counting() {
        let mut table = LogTable::default();
        table.load_trimmed(LOG, 12);
        assert_eq!(table.bounds(LOG), LogBounds { first: 13, next: 13 });
        assert!(table.bounds(LOG).is_empty());
        assert_eq!(table.logs(), [LOG]);
    }
}
