//! The mesh without I/O: membership, replication, forwarding, and the frames that carry them.
//!
//! Nodes of a region form a full mesh. Two connections join each pair: *fast* for what is urgent
//! or small, *bulk* for what may take its time. On them travel:
//!
//! | what | how | promise |
//! |---|---|---|
//! | membership | SWIM in datagrams ([`membership`]) | every node learns who is there, and who is not any more |
//! | routes | one operation log per origin, pushed to all ([`crdt::routes`]) | a replica equals its origin's log up to its head |
//! | session registry | state-based CRDTs on three homes ([`crdt::sessions`]) | homes converge; greatest claim wins |
//! | messages | one log per peer and class ([`forward`]) | exactly once and in order, over reconnects and crashes |
//! | handover, uplink | opaque frames | delivered at most once; their protocols are elsewhere |
//!
//! [`MeshCore`] is what a node drives. Inputs are `handle_*`, plain verbs are commands, and
//! [`MeshCore::poll_output`] says what to do next. It reads no clock, draws no randomness but from
//! the seed it is given, and so a whole mesh runs in one thread of a test (`harness`).
//!
//! What it is not: a transport (frames are handed over whole, in order, per lane), a store (it
//! asks for batches to be persisted), and a router (it reports which node wants which filter).

pub mod config;
pub mod core;
pub mod crdt;
pub mod forward;
pub mod handover;
pub mod membership;
pub mod output;
pub mod uplink;
pub mod wire;

mod effects;
#[cfg(test)]
mod harness;
mod limits;
mod persist;

pub use crate::config::{MeshConfig, NodeInfo};
pub use crate::core::{Counters, MeshCore, PeerSnapshot, PutError};
pub use crate::crdt::sessions::{
    EntryError, FragmentState, Owner, RegistryEntry, SubscriptionEntry,
};
pub use crate::forward::ForwardBounds;
pub use crate::limits::*;
pub use crate::membership::MemberSnapshot;
pub use crate::output::{Lane, LinkKind, LookupAnswer, Output, Ticket};
pub use crate::persist::{Restored, RestoredLink, RestoredRoutes};
pub use crate::wire::RouteHead;
