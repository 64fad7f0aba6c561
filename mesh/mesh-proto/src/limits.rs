//! Bounds of the mesh, and where their numbers come from.

use std::time::Duration;

/// The wire's version. Nodes that greet with another are refused; the ALPN carries it as well.
pub const WIRE_VERSION: u16 = 1;

/// Largest frame on any lane. A forwarded record holds one MQTT message, so brokers that forward
/// keep their maximum packet size below it.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Largest SWIM packet. An initial QUIC datagram leaves 1,162 bytes at an MTU of 1,200, and all
/// nodes must agree on it.
pub const SWIM_PACKET_BYTES_MAX: usize = 1_100;

/// Most members kept, and so most peers: a region has tens to some hundreds.
pub const MEMBERS_MAX: usize = 4_096;

/// Longest region name, as a node id.
pub const REGION_BYTES_MAX: usize = 63;

/// Most listeners a node may announce.
pub const LISTENERS_MAX: usize = 16;

/// How long a peer that broke the protocol is not talked to.
pub const QUARANTINE: Duration = Duration::from_secs(60);

/// First wait before a dial is repeated.
pub const DIAL_BACKOFF_MIN: Duration = Duration::from_millis(200);

/// Longest wait before a dial is repeated.
pub const DIAL_BACKOFF_MAX: Duration = Duration::from_secs(30);

/// How long the node with the greater id leaves dialling to the other.
pub const DIAL_COURTESY: Duration = Duration::from_secs(1);

/// How often an unanswered join address is reported.
pub const JOIN_REPORT_PERIOD: Duration = Duration::from_secs(60);

/// How often a linked peer that is no member is announced to.
pub const ANNOUNCE_PERIOD: Duration = Duration::from_secs(2);

/// Own route operations kept for peers that were away; one that missed more gets a snapshot.
pub const ROUTE_OPS_KEPT: usize = 65_536;

/// Most filters of one origin, own or remote.
pub const ROUTES_PER_ORIGIN_MAX: usize = 1_000_000;

/// Size at which a frame of route operations or a snapshot chunk is full.
pub const ROUTE_FRAME_BYTES: usize = 32 * 1024;

/// Route operations a peer may have before it acknowledged the first of them.
pub const ROUTE_OPS_IN_FLIGHT: u64 = 16_384;

/// Snapshot chunks a peer may have before it acknowledged the first of them.
pub const SNAPSHOT_CHUNKS_IN_FLIGHT: u64 = 8;

/// Homes of a session.
pub const HOMES: usize = 3;

/// Groups of buckets of the registry; a group has its homes in common.
pub const REGISTRY_GROUPS: usize = 256;

/// Buckets of a group, each with a digest.
pub const BUCKETS_PER_GROUP: usize = 256;

/// Most subscriptions of one registry entry.
pub const ENTRY_SUBSCRIPTIONS_MAX: usize = 1_024;

/// Most fragments of one registry entry.
pub const ENTRY_FRAGMENTS_MAX: usize = 64;

/// Drained fragments of one registry entry that are remembered; the oldest are forgotten first.
pub const ENTRY_DRAINED_KEPT: usize = 16;

/// Largest encoded registry entry.
pub const ENTRY_BYTES_MAX: usize = 60 * 1024;

/// Most registry entries put here whose homes have not all acknowledged them.
pub const DIRTY_ENTRIES_MAX: usize = 65_536;

/// Most look-ups waiting for answers.
pub const LOOKUPS_MAX: usize = 65_536;

/// How often homes compare digests.
pub const REPAIR_PERIOD: Duration = Duration::from_secs(30);

/// Size at which a repair frame is full.
pub const REPAIR_FRAME_BYTES: usize = 64 * 1024;

/// Groups repaired in one round, so that a round is some thousand entries of a full registry.
pub const REPAIR_GROUPS_PER_ROUND: usize = 8;

/// Forwarded bytes a peer may have in one class before it took custody of the first of them.
pub const FORWARD_IN_FLIGHT_BYTES: usize = 1024 * 1024;

/// Forwarded bytes of one peer and class kept in memory for sending; the rest is read from disk.
pub const FORWARD_BACKLOG_BYTES: usize = 1024 * 1024;

/// How long a peer whose answer did not do is left alone before it is asked to flush again.
pub const FLUSH_PERIOD: Duration = Duration::from_secs(2);

/// How long a peer may take to answer before it is asked to flush again.
pub const FLUSH_PATIENCE: Duration = Duration::from_secs(30);

/// Size of one page asked for by `ReadForward`.
pub const FORWARD_PAGE_BYTES: usize = 256 * 1024;

/// Logs of one origin whose last sequence is remembered: it has a new one when it lost its disk.
pub const LOGS_PER_ORIGIN_MAX: usize = 4;

/// How often the table of members is compared with SWIM's.
pub const RECONCILE_PERIOD: Duration = Duration::from_secs(60);

/// How many lives of this node a peer may know that its disk does not: a node boots some times a day.
pub const INCARNATION_AHEAD_MAX: u32 = 1 << 20;
