//! The links between nodes, and the certificates that make a node a node.
//!
//! Each pair of nodes has two QUIC connections: a *fast* link for membership, safety and control,
//! and a *bulk* link for the rest, so that what is many never delays what is urgent. A link carries
//! *lanes*: one long-lived stream per lane and direction, each with its own bounded queue and QUIC
//! priority. Frames of a lane arrive in order; what was queued when a link is lost may be lost too,
//! and it is for the protocol above to say where it resumes.
//!
//! Nothing here knows what frames mean. [`Links`] takes commands that never wait and gives
//! [`LinkEvent`]s; the node's mesh thread runs the protocol between the two.
//!
//! Who is at the other end is told by certificates alone, on both sides: [`MeshIdentity`] says what a
//! node presents and whom it believes, [`pki`] makes such certificates.

mod clock;
mod close;
mod config;
mod election;
mod event;
mod frame;
mod identity;
mod lanes;
mod links;
mod peer;
pub mod pem;
pub mod pki;
mod queue;
mod socket;
mod stats;
mod tls;

pub use config::{
    DATAGRAM_RECEIVE_BYTES_MAX, DATAGRAM_SEND_BYTES_MAX, DIALS_MAX, FRAME_BYTES_MAX,
    HANDSHAKES_MAX, LinksConfig, PEERS_MAX, Queues, SOCKET_BUFFER_BYTES, Timing, Windows,
};
pub use event::{BindError, DatagramError, LinkEvent, SendError};
pub use identity::{IdentityError, IdentityFiles, MeshIdentity};
pub use links::{LinkEvents, LinkInfo, Links};
pub use peer::PeerCertError;
pub use stats::LinkStats;
pub use tls::{ALPN_BULK, ALPN_FAST};
pub use verge_mesh_proto::{Lane, LinkKind};
