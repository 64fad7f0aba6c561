//! The broker without I/O.
//!
//! A node is a few [shards](shard::Shard), each with its share of sessions and connections, and one
//! [hub](hub::Hub), which speaks for the node in the mesh. Both turn inputs into rows to store,
//! bytes to write and mail to each other; nothing here opens a socket, reads a clock or waits.
//!
//! ```text
//!  connections ──▶ Shard ──mail──▶ Shard ──▶ connections
//!                   │  ▲
//!             HubMail  Mail           NodeShared: Router, Retained, Ledger, rules
//!                   ▼  │
//!  links ─────────▶ Hub (MeshCore) ──────────▶ links
//! ```
//!
//! What a PUBLISH causes is decided in one place, the [`planner`]; it fills the batch of whoever
//! accepted the message with the rows of every debt, on whatever shard, so that an acknowledgement
//! never speaks for more than is durable.

pub mod authn;
pub mod counters;
mod debts;
pub mod drops;
pub mod extension;
pub mod hub;
pub mod ledger;
pub mod meter;
pub mod parked;
pub mod planner;
pub mod pressure;
pub mod record;
pub mod retained;
pub mod router;
pub mod rule;
pub mod shard;
pub mod shared;
mod spread;
pub mod sys_topic;
mod topics;
