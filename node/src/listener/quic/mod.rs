//! MQTT over QUIC: the listener `quic://host:port`, ALPN `mqtt`.
//!
//! ```text
//! UDP socket ─▶ endpoint (one task) ─▶ accept loop ─▶ short task: handshake, stream 0, CONNECT
//!                                                        │ hash(client)
//!                                                        ▼
//!                                              shard's arrivals: Transport::Quic
//! ```
//!
//! The endpoint, and the task that quinn gives each connection, run on the thread of one shard.
//! The handles of a connection may be polled from any thread, so the session's shard reads and
//! writes streams itself; nothing is copied between threads but the packets in quinn's buffers.
//!
//! There is no standard of MQTT over QUIC; `docs/quic.md` has the rules of the wire.
//!
//! | file | holds |
//! |---|---|
//! | [`endpoint`] | the socket and every number QUIC is configured with |
//! | [`accept`] | from a first datagram to a CONNECT |
//! | [`transport`] | a connection as its shard sees it |
//! | [`streams`] | its streams beside the control stream |
//! | [`keys`] | the secrets that survive a restart |
//! | [`connection_id`] | connection ids that name the node |
//! | [`tickets`] | TLS tickets for resumption and 0-RTT |
//! | [`close`] | the codes a connection is closed with |

pub(super) mod accept;
pub mod close;
pub mod connection_id;
pub mod endpoint;
pub mod keys;
pub mod streams;
pub mod tickets;
pub mod transport;

pub use self::transport::QuicTransport;

/// The ALPN of MQTT over QUIC.
pub const ALPN: &[u8] = b"mqtt";

/// The UDP port that brokers and clients of MQTT over QUIC agree on.
pub const PORT: u16 = 14_567;
