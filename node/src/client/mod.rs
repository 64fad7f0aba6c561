//! An MQTT client, for the commands `verge pub` and `verge sub` and for the vehicles of `verge demo`.
//!
//! | module | is |
//! |---|---|
//! | [`event`] | what a session and its application say to each other |
//! | [`session`] | the client's side of the protocol, without I/O: packets in, packets and events out |
//! | [`outgoing`] | the publications of a session, from the application's hand to the last acknowledgement |
//! | [`net`] | the driver: one connection that serves a session |
//! | [`quic`] | streams of a QUIC connection |
//! | [`streams`] | a connection with further streams |
//! | `web` | WebSocket as a stream of bytes |
//! | [`address`] | where a server is: `tcp://host:port`, `wss://host:port/path` |
//! | [`tls`] | whom a client trusts, and who it says it is |
//! | [`command`] | `verge pub` and `verge sub` |
//!
//! What sets it apart from other clients is that the session is a value of its own: it outlives its
//! connections, and the next one may go to another server. Messages in flight are then sent again
//! with the packet identifiers they had, and a QoS 2 message that was received before is not
//! received twice, which is what a vehicle needs of its client when it drives from node to node.

pub mod address;
pub mod command;
pub mod event;
pub mod net;
pub mod outgoing;
pub mod quic;
pub mod session;
pub mod streams;
pub mod tls;
mod web;

pub use address::{Address, Scheme};
pub use event::{Event, Fault, Incoming, SessionOptions};
pub use net::{Connection, NetError};
pub use outgoing::{Publication, Ticket};
pub use session::ClientSession;
