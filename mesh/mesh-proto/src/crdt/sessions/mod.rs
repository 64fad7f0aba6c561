//! The session registry: who owns a session, what it subscribes to, and which logs of it exist.
//!
//! An entry is put by the owner and kept by the session's *homes*, [`HOMES`](crate::HOMES) nodes of
//! the region. Entries are merged, never replaced, so homes need no coordinator: after any exchange
//! they agree, and the greatest claim owns the session.
//!
//! | file | idea |
//! |---|---|
//! | `entry` | the CRDT of one session, its merge and its canonical bytes |
//! | `homes` | which nodes keep it |
//! | `table` | entries in order of their hash, with digests by bucket and group |
//! | `registry` | putting, acknowledging, superseding |
//! | `lookup` | asking all homes |
//! | `repair` | comparing two homes' tables and exchanging what differs |

mod entry;
mod homes;
mod lookup;
mod registry;
mod repair;
mod table;

pub use entry::{EntryError, FragmentState, Owner, RegistryEntry, SubscriptionEntry};
pub(crate) use homes::Candidate;
pub use registry::PutError;
pub(crate) use registry::Registry;
