//! The mesh as its thread published it last, for whoever asks.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;
use verge_broker_core::counters::Metric;
use verge_mesh::LinkStats;
use verge_mesh_proto::{Counters, MemberSnapshot, NodeInfo, PeerSnapshot};
use verge_model::{LatLon, NodeKey, Role};

/// The state of a member that is believed alive.
const ALIVE: &str = "alive";

/// The state of one that is not.
const DOWN: &str = "down";

/// A node of the mesh.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MemberView {
    /// Its name.
    pub node_id: String,
    /// `rsu`, `regional` or `cloud`, once it said so.
    pub role: Option<String>,
    /// Its region, once it said so.
    pub region: Option<String>,
    /// Where it stands.
    pub position: Option<LatLon>,
    /// `alive` or `down`.
    pub state: &'static str,
    /// Where peers reach it.
    pub mesh_addr: Option<SocketAddr>,
    /// Where clients connect.
    pub listeners: Vec<String>,
    /// Its admin API.
    pub admin: Option<SocketAddr>,
    /// Its boot counter.
    pub incarnation: Option<u32>,
    /// Whether this is the node that answers.
    pub is_self: bool,
    /// Whether both links to it are up.
    pub linked: bool,
    /// Messages waiting for it.
    pub forward_pending: u64,
}

impl MemberView {
    /// The answering node.
    #[must_use]
    pub fn of_self(info: &NodeInfo) -> Self {
        // A node without links has no address.
        let mesh_addr = (info.mesh_addr.port() != 0).then_some(info.mesh_addr);
        Self { is_self: true, state: ALIVE, mesh_addr, ..Self::of_info(info) }
    }

    /// Another node.
    #[must_use]
    pub fn of_member(member: &MemberSnapshot, peer: Option<&PeerSnapshot>) -> Self {
        let base = member.info.as_ref().map(Self::of_info).unwrap_or_default();
        Self {
            node_id: member.node_id.to_string(),
            mesh_addr: Some(member.addr),
            state: if member.up { ALIVE } else { DOWN },
            linked: peer.is_some_and(|peer| peer.fast && peer.bulk),
            forward_pending: peer.map_or(0, |peer| peer.forward_pending),
            ..base
        }
    }

    fn of_info(info: &NodeInfo) -> Self {
        Self {
            node_id: info.node_id.to_string(),
            role: Some(info.role.to_string()),
            region: Some(info.region.clone()),
            position: info.position,
            mesh_addr: Some(info.mesh_addr),
            listeners: info.listeners.clone(),
            admin: info.admin,
            incarnation: Some(info.incarnation),
            ..Self::default()
        }
    }

    /// Whether it is believed alive.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.state == ALIVE
    }

    /// Whether clients may connect to it.
    #[must_use]
    pub fn serves_clients(&self) -> bool {
        self.role.as_deref().is_some_and(|role| role != Role::Cloud.as_str())
            && !self.listeners.is_empty()
    }
}

/// All of the mesh.
#[derive(Debug, Clone, Default)]
pub struct MeshView {
    /// Its nodes, the answering one included, by name.
    pub members: Vec<MemberView>,
    /// Names by key.
    pub names: BTreeMap<NodeKey, String>,
    /// What the mesh core counted.
    pub counters: Counters,
    /// What the links counted.
    pub links: LinkStats,
}

impl MeshView {
    /// The view of a node.
    #[must_use]
    pub fn new(
        own: &NodeInfo,
        members: &[MemberSnapshot],
        peers: &[PeerSnapshot],
        counters: Counters,
        links: LinkStats,
    ) -> Self {
        let peer_of =
            |member: &MemberSnapshot| peers.iter().find(|peer| peer.node_id == member.node_id);
        let others = members.iter().map(|member| MemberView::of_member(member, peer_of(member)));
        let mut views: Vec<_> = others.chain([MemberView::of_self(own)]).collect();
        views.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        let names = members.iter().map(|member| &member.node_id).chain([&own.node_id]);
        let names = names.map(|node| (node.key(), node.to_string())).collect();
        Self { members: views, names, counters, links }
    }

    /// A node's name, or its key while the name is not known.
    #[must_use]
    pub fn name_of(&self, node: NodeKey) -> String {
        self.names.get(&node).cloned().unwrap_or_else(|| node.to_string())
    }

    /// The mesh as metrics.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let Self { counters: core, links, .. } = self;
        let table = [
            ("mesh_frames_total", "Frames taken from peers", core.frames),
            (
                "mesh_frames_stray_total",
                "Frames on links that are not established",
                core.frames_stray,
            ),
            ("mesh_violations_total", "Peers closed for breaking the protocol", core.violations),
            ("mesh_refusals_total", "Greetings refused", core.refusals),
            ("link_dials_total", "Dials begun", links.dials),
            ("link_dials_failed_total", "Dials that gave no link", links.dials_failed),
            ("link_ups_total", "Links that came up", links.ups),
            ("link_downs_total", "Links that went down", links.downs),
            ("link_frames_sent_total", "Frames handed to links", links.frames_sent),
            (
                "link_frame_bytes_sent_total",
                "Bytes of frames handed to links",
                links.frame_bytes_sent,
            ),
            ("link_frames_received_total", "Frames received from links", links.frames_received),
            (
                "link_frame_bytes_received_total",
                "Bytes of frames received from links",
                links.frame_bytes_received,
            ),
            (
                "link_frames_full_total",
                "Frames refused because their lane was full",
                links.frames_full,
            ),
            ("link_datagrams_sent_total", "Datagrams handed to links", links.datagrams_sent),
            ("link_datagrams_received_total", "Datagrams received", links.datagrams_received),
        ];
        let metric = |(name, help, value)| Metric { name, help, labels: Vec::new(), value };
        table.into_iter().map(metric).collect()
    }
}
