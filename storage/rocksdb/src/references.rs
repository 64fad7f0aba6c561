//! Counts of references in rows of `message`, lowered without being read: a release is a merge
//! operand, added up by RocksDB when it flushes, compacts or reads.
//!
//! A merge cannot remove its row. What has no reference left becomes a row without bytes, which
//! readers do not see and the next compaction drops.

use rocksdb::compaction_filter::Decision;
use rocksdb::{MergeOperands, Options};
use verge_storage::{Family, references};

/// The operator's name is written to disk.
const NAME: &str = "verge.references";

/// Operands that may wait in the memtable for one row; more are added up when they are written. A
/// read of a message with many subscribers adds up no more than these.
const OPERANDS_MAX: usize = 16;

/// Lets rows of a family be counted.
pub(crate) fn count_in(options: &mut Options) {
    options.set_merge_operator(NAME, full, partial);
    options.set_max_successive_merges(OPERANDS_MAX);
    options.set_compaction_filter(NAME, |_level, _key, value| match value.is_empty() {
        true => Decision::Remove,
        false => Decision::Keep,
    });
}

/// What is merged into a row for so many releases.
pub(crate) fn operand(count: u32) -> [u8; 4] {
    count.to_be_bytes()
}

/// Whether a row only waits to be compacted away.
pub(crate) fn is_gone(family: Family, value: &[u8]) -> bool {
    family == Family::Message && value.is_empty()
}

fn full(_key: &[u8], value: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    // An absent row stays absent.
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Some(Vec::new()) };
    Some(references::release(value, sum(operands)).map(Vec::from).unwrap_or_default())
}

fn partial(_key: &[u8], _value: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    Some(sum(operands).to_be_bytes().to_vec())
}

fn sum(operands: &MergeOperands) -> u32 {
    let counts = operands.iter().map(|operand| operand.try_into().map_or(0, u32::from_be_bytes));
    counts.fold(0, u32::saturating_add)
}
