//! What a node tells the mesh core about itself.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use verge_model::{Incarnation, LatLon, NodeId, NodeKey, Role};

/// Everything a [`MeshCore`](crate::MeshCore) must know before it talks to anyone.
#[derive(Debug, Clone)]
pub struct MeshConfig {
    /// This node's name, the subject of its certificate.
    pub node_id: NodeId,
    /// What this node is for. A `cloud` node takes part in membership and uplink only.
    pub role: Role,
    /// Routes and registry are shared with nodes of the same region only.
    pub region: String,
    /// The address at which peers reach this node.
    pub advertise: SocketAddr,
    /// Where the node stands, for steering.
    pub position: Option<LatLon>,
    /// Client listeners as `tcp://host:port`, for server references.
    pub listeners: Vec<String>,
    /// The admin API's address.
    pub admin: Option<SocketAddr>,
    /// The boot counter, persisted before this core was made.
    pub incarnation: Incarnation,
    /// The name of this node's forward logs, drawn when its data directory was made. Another
    /// directory, or one restored from a copy, has another.
    pub log_id: u64,
    /// Peers cannot reach `advertise` (a node behind a cellular NAT): this node dials them.
    pub dials_only: bool,
    /// Addresses of nodes to join the mesh by; dialled for as long as they do not answer.
    pub join: Vec<SocketAddr>,
    /// How long a look-up waits for homes that do not answer.
    pub lookup_timeout: Duration,
}

impl MeshConfig {
    /// The default of [`MeshConfig::lookup_timeout`] (`handover.lookup`).
    pub const LOOKUP_TIMEOUT: Duration = Duration::from_millis(300);

    /// What peers are told.
    #[must_use]
    pub fn info(&self) -> NodeInfo {
        NodeInfo {
            node_id: self.node_id.clone(),
            role: self.role,
            region: self.region.clone(),
            position: self.position,
            mesh_addr: self.advertise,
            listeners: self.listeners.clone(),
            admin: self.admin,
            incarnation: self.incarnation,
            log_id: self.log_id,
            dials_only: self.dials_only,
        }
    }
}

/// What a node says about itself in its Hello; kept by every node it ever greeted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The node's name.
    pub node_id: NodeId,
    /// What the node is for.
    pub role: Role,
    /// The node's region.
    pub region: String,
    /// Where it stands.
    pub position: Option<LatLon>,
    /// Where peers reach it.
    pub mesh_addr: SocketAddr,
    /// Its client listeners.
    pub listeners: Vec<String>,
    /// Its admin API.
    pub admin: Option<SocketAddr>,
    /// Its boot counter.
    pub incarnation: Incarnation,
    /// The name of its forward logs.
    pub log_id: u64,
    /// Whether only it can dial.
    pub dials_only: bool,
}

impl NodeInfo {
    /// The node's key.
    #[must_use]
    pub fn key(&self) -> NodeKey {
        self.node_id.key()
    }

    /// Whether the node holds sessions, and so routes and registry entries.
    #[must_use]
    pub fn serves_clients(&self) -> bool {
        match self.role {
            Role::Rsu | Role::Regional => true,
            Role::Cloud => false,
        }
    }
}
