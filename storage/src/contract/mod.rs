//! What every store must do, as checks that any store can be put through.
//!
//! A store's tests implement [`Place`] and call [`run`]:
//!
//! ```
//! # use std::sync::Arc;
//! # use verge_model::NodeId;
//! # use verge_storage::{MemoryStore, Store, StoreError, contract, memory::{Crash, MemoryDisk}};
//! #[derive(Default)]
//! struct Memory(Option<Arc<MemoryStore>>);
//!
//! impl contract::Place for Memory {
//!     fn open(&mut self, node: &NodeId, log_id: u64) -> Result<Arc<dyn Store>, StoreError> {
//!         let disk = self.0.as_ref().map(|store| store.durable_copy(Crash::Process));
//!         let store = Arc::new(MemoryStore::open(disk.unwrap_or_default(), node, log_id)?);
//!         self.0 = Some(Arc::clone(&store));
//!         Ok(store)
//!     }
//! }
//!
//! contract::run(|| Box::new(Memory::default()));
//! ```
//!
//! The checks assert, and name what they hold in the panic's message.

mod history;
mod logs;
mod place;
mod rows;
mod sessions;

use std::sync::Arc;

use bytes::Bytes;
use verge_model::NodeId;

use crate::batch::{Batch, Op};
use crate::error::StoreError;
use crate::family::Family;
use crate::key::KeyBuf;
use crate::store::{Committed, Store};

/// Where a store keeps its rows: a directory, or what a test holds in its place.
pub trait Place {
    /// Opens the store here. Whatever was opened here before was dropped, as by a process that
    /// ended without a farewell.
    ///
    /// # Errors
    /// The store's own.
    fn open(&mut self, node: &NodeId, log_id: u64) -> Result<Arc<dyn Store>, StoreError>;
}

/// A check, on a place nobody used before.
pub type Check = fn(&mut dyn Place);

/// Every check, by name.
pub const CHECKS: [(&str, Check); 18] = [
    ("a new place has no rows and the identity asked for", place::new),
    ("boots are counted and the log id stays", place::boots),
    ("another node's place is refused and unharmed", place::wrong_node),
    ("a newer format's place is refused", place::newer_format),
    ("every family keeps its rows over a restart", place::restart),
    ("rows are set, read and removed, family by family", rows::set_read_remove),
    ("the writes of a group happen in order", rows::order),
    ("a prefix is removed and its neighbours stay", rows::prefixes),
    ("pages are bounded and lead to each other", rows::pages),
    ("typed rows read back, and one that is corrupt hides no other", rows::typed),
    ("sessions are found by their clients, and as they are due", sessions::found),
    ("a message goes with its last reference", rows::references),
    ("a reader sees whole groups", rows::whole_groups),
    ("a log is numbered from 1 without gaps", logs::numbered),
    ("a trimmed log goes on counting over restarts", logs::trimmed),
    ("a log is read within bounds", logs::read_bounds),
    ("a log with a hole says where", logs::hole),
    ("any history leaves what the reference store has", history::agrees_with_reference),
];

/// Puts a store through every check, each on a place of its own made by `place`.
///
/// # Panics
/// When the store breaks the contract.
pub fn run(mut place: impl FnMut() -> Box<dyn Place>) {
    for (name, check) in CHECKS {
        eprintln!("store contract: {name}");
        check(&mut *place());
    }
}

/// The node of the checks.
fn node() -> NodeId {
    "rsu-1".parse().expect("this is a node id")
}

fn open(place: &mut dyn Place) -> Arc<dyn Store> {
    place.open(&node(), 7).expect("the place opens")
}

/// Commits one batch, filled by `fill`.
fn commit(store: &dyn Store, fill: impl FnOnce(&mut Batch)) -> Committed {
    let mut batch = Batch::new();
    fill(&mut batch);
    let mut committed = store.commit(&[batch], false).expect("the commit succeeds");
    assert_eq!(committed.len(), 1, "one outcome per batch");
    committed.remove(0)
}

/// Sets a row by its bytes.
fn put(batch: &mut Batch, family: Family, key: &[u8], value: &[u8]) {
    let value = Bytes::copy_from_slice(value);
    batch.push(Op::Put { family, key: KeyBuf::from_slice(key), value });
}

/// Removes a row by its bytes.
fn delete(batch: &mut Batch, family: Family, key: &[u8]) {
    batch.push(Op::Delete { family, key: KeyBuf::from_slice(key) });
}

/// Reads a row by its bytes.
fn get(store: &dyn Store, family: Family, key: &[u8]) -> Option<Vec<u8>> {
    store.get(family, key).expect("the row can be read").map(|value| value.to_vec())
}
