//! RocksDB keeps the store contract.

use std::sync::Arc;

use tempfile::TempDir;
use verge_model::NodeId;
use verge_storage::{Store, StoreError, contract};
use verge_storage_rocksdb::{Config, RocksStore};

struct Directory(TempDir);

impl contract::Place for Directory {
    fn open(&mut self, node: &NodeId, log_id: u64) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(RocksStore::open(&Config::new(self.0.path()), node, log_id)?))
    }
}

#[test]
fn keeps_the_contract() {
    contract::run(|| Box::new(Directory(TempDir::new().unwrap())));
}

/// The same with memtables so small that most rows are read from table files.
struct Cramped(TempDir);

impl contract::Place for Cramped {
    fn open(&mut self, node: &NodeId, log_id: u64) -> Result<Arc<dyn Store>, StoreError> {
        let config = Config {
            memtables_bytes_max: 256 * 1024,
            wal_bytes_max: 64 * 1024,
            ..Config::new(self.0.path())
        };
        Ok(Arc::new(RocksStore::open(&config, node, log_id)?))
    }
}

#[test]
fn keeps_the_contract_when_rows_are_in_table_files() {
    contract::run(|| Box::new(Cramped(TempDir::new().unwrap())));
}
