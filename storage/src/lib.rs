//! What a node keeps: the catalogue of its rows, and the traits of a store that holds them.
//!
//! Rows are grouped into [families](Family) by lifetime. A row's key is a type in [`key`], whose
//! byte order is the order in which rows are read; its value is a [`Record`] in [`record`], one
//! version byte and then postcard. Callers speak in these types: they fill a [`Batch`] and read
//! through [`StoreRows`]; bytes appear only between this crate and a store.
//!
//! A [`Store`] commits groups of batches atomically, reads rows and bounded pages, and keeps
//! *logs*: row sequences whose numbers the store itself gives at commit, so that they have no gaps
//! however many threads fill batches (forward logs to peers, the outbox to the cloud).
//!
//! ```text
//! shard ──Batch──┐                      ┌── memory::MemoryStore   reference, simulation
//! shard ──Batch──┼─▶ one writer ─▶ Store┤
//! hub   ──Batch──┘   group commit       └── verge-storage-rocksdb  disk
//! ```
//!
//! Nothing here does I/O. [`contract`] holds the suite that judges every store.

pub mod batch;
pub mod contract;
pub mod error;
pub mod family;
pub mod health;
pub mod identity;
pub mod key;
pub mod log;
pub mod memory;
pub mod migrate;
pub mod promise;
pub mod record;
pub mod references;
pub mod rows;
pub mod store;

pub use batch::{Batch, Op};
pub use error::StoreError;
pub use family::Family;
pub use health::{Health, Trouble};
pub use identity::Identity;
pub use key::{Key, KeyBuf, KeyRange};
pub use log::{LogBounds, LogKey};
pub use memory::MemoryStore;
pub use promise::Promise;
pub use record::Record;
pub use rows::StoreRows;
pub use store::{Committed, FamilySize, ScanPage, Store};
