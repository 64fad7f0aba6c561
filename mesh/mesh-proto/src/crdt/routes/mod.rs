//! Which node wants which filter.
//!
//! Each node writes its own routes only: an *origin's* operations are numbered 1, 2, 3 … in each of
//! its lives, and an operation's dot is (life, number). A removal names the dot it takes back.
//! Operations are pushed to every peer of the region, and acknowledged when durable there. A peer
//! that missed more than the log holds gets a snapshot, in chunks.
//!
//! ```text
//! own::OwnRoutes  ──RouteOps / RouteChunk──▶  replica::Replicas  ──▶ Output::RemoteRoutes
//!                 ◀──RouteAck / RouteResync──
//! ```
//!
//! A snapshot may be made while operations go on: every row carries its dot, and the operations
//! after the snapshot's head, which follow it, put right what changed while it was made.
//!
//! A replica is kept, in memory and on disk, while its origin is down: what is published meanwhile
//! waits for it in the forward log.

mod own;
mod replica;

pub(crate) use own::OwnRoutes;
pub(crate) use replica::Replicas;
