//! What is read before the node serves, on as many threads as help.

use std::sync::Arc;
use std::thread::{self, available_parallelism};

use verge_broker_core::shard::restore::{self, Restored};
use verge_broker_core::shared::NodeShared;
use verge_storage::StoreError;
use verge_storage_rocksdb::RocksStore;

/// More threads wait for the router, which they fill, and for the disk.
const THREADS_MAX: usize = 4;

/// Reads what must be in memory: subscriptions in parts, side by side, and the rest beside them.
pub(super) fn load(
    store: &Arc<RocksStore>,
    shared: &NodeShared,
    shards: u16,
) -> Result<Restored, StoreError> {
    let threads = available_parallelism().map_or(1, |cores| cores.get()).min(THREADS_MAX);
    let parts = restore::parts(&**store, threads)?;
    let (restored, routes) = thread::scope(|scope| {
        let read = |part| scope.spawn(move || restore::routes(&**store, shared, shards, part));
        let reading: Vec<_> = parts.into_iter().map(read).collect();
        let restored = restore::load_but_routes(&**store, shared);
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let routes: Result<u64, StoreError> = reading.into_iter().map(join).sum();
        (restored, routes)
    });
    let mut restored = restored?;
    restored.damaged += routes?;
    Ok(restored)
}
