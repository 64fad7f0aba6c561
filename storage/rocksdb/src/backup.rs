//! A copy of a store while it is written to, and what makes a copy a store of its own.

use std::path::Path;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{DB, Options, WriteOptions};
use verge_model::{Incarnation, NodeId};
use verge_storage::key::MetaKey;
use verge_storage::{Family, Key, StoreError};

use crate::error;
use crate::open::family;
use crate::store::RocksStore;

impl RocksStore {
    /// Makes `dir`, which must not be there, a copy of the store as it is at one moment: every
    /// group that was committed before the call is in it, and each group is in it whole. Files that
    /// do not change are linked, not copied, where the file system can.
    ///
    /// # Errors
    /// The disk's. `dir` may then be there in part.
    pub fn checkpoint(&self, dir: &Path) -> Result<(), StoreError> {
        let db = self.db()?;
        let checkpoint = Checkpoint::new(&*db).map_err(|error| error::disk(&error))?;
        checkpoint.create_checkpoint(dir).map_err(|error| error::disk(&error))
    }
}

/// Makes a copy of a node's directory one that may go on in its place: lives of the node begin
/// after `boots`, and its logs are others than those of the directory that was copied.
///
/// # Errors
/// It is no directory of `node`, or the disk's.
pub fn renew(dir: &Path, node: &NodeId, boots: Incarnation, log_id: u64) -> Result<(), StoreError> {
    let damaged = |detail: &str| StoreError::Damaged { dir: dir.into(), detail: detail.into() };
    let names = DB::list_cf(&Options::default(), dir).map_err(|error| error::open(&error, dir))?;
    if !names.iter().any(|name| name == Family::Meta.name()) {
        return Err(damaged("it is no store of a node"));
    }
    let db =
        DB::open_cf(&Options::default(), dir, names).map_err(|error| error::open(&error, dir))?;
    let meta = family(&db, Family::Meta);
    let key = MetaKey::Node.encode();
    let found = db.get_cf(meta, &key).map_err(|error| error::read(&error, Family::Meta, &key))?;
    if found.as_deref() != Some(node.as_str().as_bytes()) {
        return Err(damaged("it is not of the node that its manifest names"));
    }
    let mut batch = rocksdb::WriteBatch::default();
    batch.put_cf(meta, MetaKey::Boots.encode(), boots.to_be_bytes());
    batch.put_cf(meta, MetaKey::LogId.encode(), log_id.to_be_bytes());
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    db.write_opt(batch, &synced).map_err(|error| error::disk(&error))
}
