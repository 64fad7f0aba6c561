//! The bounds and times of the link layer, and the QUIC settings they become.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::LinkKind;
use crate::identity::MeshIdentity;
use crate::lanes::LANES_PER_LINK;

/// Longest frame. A snapshot's part or a batch of an uplink stays below it.
pub const FRAME_BYTES_MAX: usize = 8 << 20;

/// Dials under way at once.
pub const DIALS_MAX: usize = 256;

/// Accepted connections whose handshake is not complete, at once. Half of it must have shown that
/// their address is theirs.
pub const HANDSHAKES_MAX: usize = 256;

/// Nodes with a link to this one: far more than a region has, and regions meet at few nodes.
pub const PEERS_MAX: usize = 4096;

/// Datagrams waiting to be sent on one link; the oldest is dropped beyond it.
pub const DATAGRAM_SEND_BYTES_MAX: usize = 64 << 10;

/// Datagrams received on one link and not yet taken; the oldest is dropped beyond it.
pub const DATAGRAM_RECEIVE_BYTES_MAX: usize = 256 << 10;

/// What the socket buffers are asked to hold: bursts of several links between two turns.
pub const SOCKET_BUFFER_BYTES: usize = 8 << 20;

/// Largest UDP payload that path discovery tries: Ethernet less IP and UDP headers.
const MTU_DISCOVERY_MAX: u16 = 1452;
/// The payload every path carries. (RFC 9000, 14)
const MTU_INITIAL: u16 = 1200;
/// The round trip assumed before one was measured: a cellular backhaul.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// A peer's lanes and its greeting.
const STREAMS_MAX: u32 = LANES_PER_LINK as u32 + 1;

/// Flow control windows.
///
/// A connection's window is derived: it holds every lane's window and one more, so that a lane
/// nobody reads cannot stop the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Unread bytes of one lane of a fast link.
    pub fast_lane_bytes: u32,
    /// Unread bytes of one lane of a bulk link.
    pub bulk_lane_bytes: u32,
}

impl Default for Windows {
    fn default() -> Self {
        Self { fast_lane_bytes: 1 << 20, bulk_lane_bytes: 8 << 20 }
    }
}

/// How long links wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A link that hears nothing for so long is down. That is no statement about the node: only
    /// membership declares a death.
    pub idle: Duration,
    /// How often a silent link is kept alive.
    pub keep_alive: Duration,
    /// From the first packet to a link that may be used.
    pub handshake: Duration,
    /// How long a replaced connection may take to hand over what it has queued.
    pub drain: Duration,
    /// How long [`shutdown`](crate::Links::shutdown) may take to hand over what is queued.
    pub shutdown: Duration,
    /// First pause before a lost bulk link is dialled again.
    pub redial_first: Duration,
    /// Longest pause before a lost bulk link is dialled again.
    pub redial_last: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(10),
            keep_alive: Duration::from_secs(3),
            handshake: Duration::from_secs(5),
            drain: Duration::from_secs(1),
            shutdown: Duration::from_secs(3),
            redial_first: Duration::from_millis(200),
            redial_last: Duration::from_secs(30),
        }
    }
}

/// Bounds of the queues in front of and behind the links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queues {
    /// Bytes queued on one lane of a fast link before [`SendError::Full`](crate::SendError::Full).
    /// An empty lane takes one frame of any size.
    pub fast_lane_bytes: usize,
    /// Bytes queued on one lane of a bulk link.
    pub bulk_lane_bytes: usize,
    /// Events waiting for the node; readers of lanes wait beyond it.
    pub events: usize,
}

impl Default for Queues {
    fn default() -> Self {
        Self { fast_lane_bytes: 4 << 20, bulk_lane_bytes: 16 << 20, events: 1024 }
    }
}

impl Queues {
    pub(crate) fn lane_bytes(&self, kind: LinkKind) -> usize {
        match kind {
            LinkKind::Fast => self.fast_lane_bytes,
            LinkKind::Bulk => self.bulk_lane_bytes,
        }
    }
}

/// What [`Links::bind`](crate::Links::bind) needs.
#[derive(Debug, Clone)]
pub struct LinksConfig {
    /// UDP address to listen on and dial from.
    pub listen: SocketAddr,
    /// Who this node is.
    pub identity: MeshIdentity,
    /// Development: only loopback addresses listen, are dialled and are let in.
    pub dev: bool,
    /// Flow control windows.
    pub windows: Windows,
    /// How long links wait.
    pub timing: Timing,
    /// Bounds of queues.
    pub queues: Queues,
    /// Whether the kernel splits large writes into packets. Off for network cards that lose them.
    pub segmentation_offload: bool,
}

impl LinksConfig {
    /// The defaults, for an address and an identity.
    #[must_use]
    pub fn new(listen: SocketAddr, identity: MeshIdentity) -> Self {
        Self {
            listen,
            identity,
            dev: false,
            windows: Windows::default(),
            timing: Timing::default(),
            queues: Queues::default(),
            segmentation_offload: true,
        }
    }

    /// QUIC settings of a connection that is dialled for one kind of link.
    pub(crate) fn dial_transport(&self, kind: LinkKind) -> TransportConfig {
        let lane = match kind {
            LinkKind::Fast => self.windows.fast_lane_bytes,
            LinkKind::Bulk => self.windows.bulk_lane_bytes,
        };
        self.transport(lane)
    }

    /// QUIC settings of an accepted connection. Its kind is known only after they took effect, so
    /// they are those of the larger kind.
    pub(crate) fn accept_transport(&self) -> TransportConfig {
        self.transport(self.windows.fast_lane_bytes.max(self.windows.bulk_lane_bytes))
    }

    fn transport(&self, lane_bytes: u32) -> TransportConfig {
        let connection_bytes = u64::from(lane_bytes) * (u64::from(STREAMS_MAX) + 1);
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(MTU_DISCOVERY_MAX);
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
            .stream_receive_window(VarInt::from_u32(lane_bytes))
            .receive_window(VarInt::from_u64(connection_bytes).unwrap_or(VarInt::MAX))
            .send_window(connection_bytes)
            .max_idle_timeout(Some(idle_timeout(self.timing.idle)))
            .keep_alive_interval(Some(self.timing.keep_alive))
            .initial_mtu(MTU_INITIAL)
            .mtu_discovery_config(Some(mtu))
            .initial_rtt(INITIAL_RTT)
            .congestion_controller_factory(Arc::new(CubicConfig::default()))
            .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BYTES_MAX))
            .datagram_send_buffer_size(DATAGRAM_SEND_BYTES_MAX)
            .enable_segmentation_offload(self.segmentation_offload)
            .allow_spin(false);
        transport
    }
}

fn idle_timeout(idle: Duration) -> IdleTimeout {
    IdleTimeout::try_from(idle).unwrap_or_else(|_| IdleTimeout::from(VarInt::MAX))
}
