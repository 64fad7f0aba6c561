//! What a session owes and is owed, whatever connection serves it (MQTT 5.0, 4.1 and 4.3).
//!
//! [`Outbound`] holds the messages owed to the client: queued, and in flight with their packet ids.
//! [`Inbound`] holds the packet ids of QoS 2 messages received and not yet released.
//! Both outlive connections, move between nodes, and do no I/O: their owner writes what they
//! decide to storage before it acts on it.

pub mod inbound;
mod inflight;
pub mod outbound;
pub mod packet_id;
pub mod stream_tag;
pub mod subscription;
pub mod will;

pub use inbound::{Inbound, Receipt};
pub use outbound::{
    Entry, Held, Hold, Inflight, InflightState, OrderKey, Outbound, OutboundLimits, Place,
    Received, Refusal, Step, Stored, Waiting, Wanted,
};
pub use packet_id::PacketIds;
pub use stream_tag::StreamTag;
pub use subscription::Subscription;
pub use will::Will;
