//! The cloud tier of a mesh of Verge nodes: what nodes select, in Delta Lake tables, exactly once,
//! and SQL on them.
//!
//! ```text
//! nodes ══ mesh links ══▶ member ─▶ uplinks (receiver) ─▶ receive (task) ─▶ sink: delta ─▶ lake
//!                                      │ status                                             ▲
//!                                      ▼                                              query │
//!                                    admin
//! ```
//!
//! A node numbers the publications it selects and sends them in batches. A sink stores rows and the
//! number of the last one in one atomic step, and only then is the batch acknowledged; after any
//! crash, of either side, sending goes on where the table says. [`sink::Sink`] states that contract,
//! [`delta`] keeps it with Delta Lake tables, and `verge_mesh_proto::uplink` has the protocol.

pub mod admin;
pub mod app;
pub mod backup;
pub mod cli;
pub mod delta;
pub mod json;
pub mod lake;
pub mod log;
pub mod member;
pub mod query;
pub mod receive;
pub mod schema;
pub mod sink;
pub mod status;
pub mod uplinks;
