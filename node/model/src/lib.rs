//! The words every layer of Verge shares: who a node is, which message this is, when it happened,
//! where a vehicle drives, and how large anything may grow.
//!
//! Nothing here does I/O, reads a clock or draws a random number.

pub mod claim;
pub mod class;
pub mod client;
pub mod geo;
pub mod hlc;
pub mod limits;
pub mod message_id;
pub mod node_id;
pub mod time;

pub use claim::{Claim, Epoch};
pub use class::Class;
pub use client::{ClientId, ClientKey, client_id_of};
pub use geo::LatLon;
pub use hlc::{Hlc, HlcClock};
pub use message_id::{Incarnation, MessageId};
pub use node_id::{NodeId, NodeKey, Role};
pub use time::{Millis, Now, UnixMillis};
