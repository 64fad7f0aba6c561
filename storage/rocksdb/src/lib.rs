//! The store traits on RocksDB, and the one thread that writes.
//!
//! One column family per [`Family`](verge_storage::Family), one write-ahead log. A commit is one
//! write batch: in the log when it returns, and so in the hands of the operating system, which
//! keeps it when the process is killed; with `sync`, on the disk.
//!
//! [`Writer`] makes groups: everything that waits when the disk becomes free is one commit and, if
//! anything in it asks for more than `buffered`, one fsync.

mod backup;
mod column_family;
mod damage;
mod details;
mod error;
mod open;
mod profile;
mod recover;
mod references;
mod salvage;
mod settling;
mod store;
mod watch;
mod writer;

pub use backup::renew;
pub use details::{FamilyDetails, StoreDetails};
pub use open::Config;
pub use profile::Profile;
pub use store::RocksStore;
pub use watch::DiskUse;
pub use writer::{Completion, Refused, RefusedReason, Writer, WriterCounts, WriterHandle};
