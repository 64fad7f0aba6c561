//! How each family lies on the disk.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompactionStyle,
    DBCompressionType, LruCacheOptions, Options,
};
use verge_storage::Family;

use crate::open::Config;
use crate::references;

/// A memtable's memory is taken in steps of this size. RocksDB's own choice, an eighth of the
/// memtable, would cost an idle node several megabytes over all families.
const ARENA_BLOCK_BYTES: usize = 32 * 1024;

/// Bits per key of the filters that keep reads of absent rows off the disk: 1 % false positives.
const BLOOM_BITS_PER_KEY: f64 = 10.0;

/// Indexes and filters are cut into pieces of this size. One filter of a whole table file is larger
/// than a small cache can keep beside blocks, and would be read again for every row.
const METADATA_BLOCK_BYTES: usize = 4 * 1024;

/// A small cache is one whole: shards of it would be too small to hold what is read often.
const CACHE_SHARD_BITS: i32 = 0;

/// A table file in which this many of [`TOMBSTONE_WINDOW`] consecutive entries are deletions is
/// compacted: queues and logs are written at one end and deleted at the other.
const TOMBSTONES: usize = 1_024;
const TOMBSTONE_WINDOW: usize = 4_096;

/// The part of the memory for writing that a family has of which little is written.
const SMALL_PART: usize = 8;

/// The family that RocksDB cannot do without; it holds nothing.
pub(crate) const DEFAULT: &str = "default";

/// The one cache of a store.
pub(crate) fn cache(bytes: usize) -> Cache {
    let mut options = LruCacheOptions::default();
    options.set_capacity(bytes);
    options.set_num_shard_bits(CACHE_SHARD_BITS);
    Cache::new_lru_cache_opts(&options)
}

/// The column families of a store, each with its options.
pub(crate) fn descriptors(
    options_of: impl Fn(Family) -> Options,
    cache: &Cache,
    config: &Config,
) -> Vec<ColumnFamilyDescriptor> {
    let default = ColumnFamilyDescriptor::new(DEFAULT, options(cache, config, SMALL_PART));
    let ours = Family::ALL
        .into_iter()
        .map(|family| ColumnFamilyDescriptor::new(family.name(), options_of(family)));
    std::iter::once(default).chain(ours).collect()
}

/// How a family lies on the disk.
pub(crate) fn of(family: Family, cache: &Cache, config: &Config) -> Options {
    let mut options = options(cache, config, memtable_part(family));
    if is_short_lived(family) {
        options.add_compact_on_deletion_collector_factory(TOMBSTONE_WINDOW, TOMBSTONES, 0.0);
        options.set_compaction_style(DBCompactionStyle::Universal);
    }
    if family == Family::Message {
        references::count_in(&mut options);
    }
    options
}

/// The memory for writing is divided by this for one family's memtable. Together they may have more
/// than all: the largest is then written out first. A message that is settled while it is still in
/// the memtable is never written to a file, so that messages have the most.
fn memtable_part(family: Family) -> usize {
    match family {
        Family::Message | Family::Queue | Family::Outbox | Family::Forward => 2,
        Family::Received
        | Family::Seen
        | Family::Delayed
        | Family::Retained
        | Family::Inflight
        | Family::Client
        | Family::Timer
        | Family::Meta
        | Family::Session
        | Family::Subscription
        | Family::LinkIn
        | Family::Route
        | Family::RouteHead
        | Family::Registry
        | Family::Member => SMALL_PART,
    }
}

fn options(cache: &Cache, config: &Config, memtable_part: usize) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_metadata_block_size(METADATA_BLOCK_BYTES);
    table.set_pin_top_level_index_and_filter(true);
    // Indexes and filters count against the cache, so that memory does not grow with what is stored.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);

    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_bottommost_compression_type(config.profile.oldest());
    options.set_write_buffer_size(config.memtables_bytes_max / memtable_part);
    options.set_arena_block_size(ARENA_BLOCK_BYTES);
    options
}

/// Whether most rows are deleted soon after they were written.
pub(crate) fn is_short_lived(family: Family) -> bool {
    match family {
        Family::Queue
        | Family::Received
        | Family::Seen
        | Family::Message
        | Family::Forward
        | Family::Outbox
        | Family::Delayed
        | Family::Inflight
        | Family::Timer => true,
        Family::Meta
        | Family::Session
        | Family::Subscription
        | Family::Retained
        | Family::LinkIn
        | Family::Route
        | Family::RouteHead
        | Family::Registry
        | Family::Member
        | Family::Client => false,
    }
}
