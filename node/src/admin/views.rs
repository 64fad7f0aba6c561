//! What answers look like.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use verge_broker_core::shard::api::{ClientView, SessionView, SubscriptionView};
use verge_model::{LatLon, UnixMillis};

use crate::mesh::view::MemberView;

/// `GET /api/v1/node`
#[derive(Debug, Clone, Serialize)]
pub struct NodeAnswer {
    /// Its name.
    pub node_id: String,
    /// `rsu` or `regional`.
    pub role: &'static str,
    /// Its region.
    pub region: String,
    /// Where it stands.
    pub position: Option<LatLon>,
    /// Where clients connect.
    pub listeners: Vec<String>,
    /// Where other nodes link, if it is in a mesh.
    pub mesh_addr: Option<String>,
    /// Its boot counter.
    pub incarnation: u32,
    /// Its version.
    pub version: &'static str,
    /// Shard threads.
    pub shards: usize,
    /// Whether it serves.
    pub ready: bool,
    /// What is wrong although it serves, one line each.
    pub warnings: Vec<String>,
    /// When it started.
    pub started_at: String,
    /// Its process.
    pub process_id: u32,
}

/// An entry of `GET /api/v1/nearest`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NearestAnswer {
    /// The node.
    pub node_id: String,
    /// Its role.
    pub role: String,
    /// Its region.
    pub region: String,
    /// Where it stands.
    pub position: LatLon,
    /// How far that is.
    pub distance_m: f64,
    /// Where clients connect.
    pub listeners: Vec<String>,
}

/// Nodes that are alive, serve clients and say where they stand; nearest first.
#[must_use]
pub fn nearest(members: &[MemberView], from: LatLon) -> Vec<NearestAnswer> {
    let serving = members.iter().filter(|member| member.is_alive() && member.serves_clients());
    let mut out: Vec<_> = serving
        .filter_map(|member| {
            let position = member.position?;
            Some(NearestAnswer {
                node_id: member.node_id.clone(),
                role: member.role.clone()?,
                region: member.region.clone()?,
                position,
                distance_m: (position.distance_m(from) * 10.0).round() / 10.0,
                listeners: member.listeners.clone(),
            })
        })
        .collect();
    out.sort_by(|a, b| {
        a.distance_m.total_cmp(&b.distance_m).then_with(|| a.node_id.cmp(&b.node_id))
    });
    out
}

/// An entry of `GET /api/v1/clients`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ClientAnswer {
    client: String,
    peer: String,
    listener: String,
    protocol_version: u8,
    keep_alive_secs: u16,
    clean_start: bool,
    connected_at: String,
}

impl From<ClientView> for ClientAnswer {
    fn from(view: ClientView) -> Self {
        Self {
            client: view.client.to_string(),
            peer: view.peer.to_string(),
            listener: view.listener.to_string(),
            protocol_version: view.protocol_version,
            keep_alive_secs: view.keep_alive_secs,
            clean_start: view.clean_start,
            connected_at: rfc3339(view.connected_at),
        }
    }
}

/// An entry of `GET /api/v1/sessions`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SessionAnswer {
    client: String,
    state: &'static str,
    epoch: u64,
    owner: String,
    session_expiry_secs: Option<u32>,
    subscriptions: u64,
    queued: u64,
    inflight: u64,
    open_fragments: u64,
}

impl From<SessionView> for SessionAnswer {
    fn from(view: SessionView) -> Self {
        let state = match (view.sealed, view.connected) {
            (true, _) => "sealed",
            (false, true) => "connected",
            (false, false) => "parked",
        };
        Self {
            client: view.client.to_string(),
            state,
            epoch: view.claim.epoch,
            owner: view.claim.node.to_string(),
            session_expiry_secs: view.session_expiry_secs,
            subscriptions: view.subscriptions,
            queued: view.queued,
            inflight: view.inflight,
            open_fragments: view.open_fragments,
        }
    }
}

impl SessionAnswer {
    /// Whether the session moves, or has moved, between nodes.
    #[must_use]
    pub fn is_handover(&self) -> bool {
        self.state == "sealed" || self.open_fragments > 0
    }
}

/// An entry of `GET /api/v1/subscriptions`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SubscriptionAnswer {
    client: String,
    filter: String,
    qos: u8,
}

impl From<SubscriptionView> for SubscriptionAnswer {
    fn from(view: SubscriptionView) -> Self {
        Self {
            client: view.client.to_string(),
            filter: view.filter.as_str().to_owned(),
            qos: view.qos,
        }
    }
}

/// An entry of `GET /api/v1/routes`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RouteAnswer {
    /// The filter.
    pub filter: String,
    /// The node that wants it.
    pub node: String,
}

/// An entry of `GET /api/v1/retained`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RetainedAnswer {
    /// Its topic.
    pub topic: String,
    /// QoS of its publication.
    pub qos: u8,
    /// Length of its payload.
    pub payload_bytes: usize,
    /// When it was published.
    pub published_at: String,
    /// The node that accepted it.
    pub node: String,
}

/// A stamp as people and programs read it.
#[must_use]
pub fn rfc3339(stamp: UnixMillis) -> String {
    let nanos = i128::from(stamp.0) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| stamp.0.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, lon: f64, state: &'static str, role: &str) -> MemberView {
        MemberView {
            node_id: name.to_owned(),
            role: Some(role.to_owned()),
            region: Some("r".to_owned()),
            position: Some(LatLon { lat: 48.0, lon }),
            state,
            listeners: vec!["tcp://127.0.0.1:1883".to_owned()],
            ..MemberView::default()
        }
    }

    #[test]
    fn the_nearest_are_alive_serving_and_in_order() {
        let members = [
            member("far", 11.9, "alive", "rsu"),
            member("down", 11.5, "down", "rsu"),
            member("cloud", 11.5, "alive", "cloud"),
            member("near", 11.6, "alive", "regional"),
            MemberView { position: None, ..member("nowhere", 0.0, "alive", "rsu") },
            MemberView { listeners: Vec::new(), ..member("closed", 11.5, "alive", "rsu") },
        ];
        let found = nearest(&members, LatLon { lat: 48.0, lon: 11.5 });
        let names: Vec<&str> = found.iter().map(|node| node.node_id.as_str()).collect();
        assert_eq!(names, ["near", "far"]);
        assert!((found[0].distance_m - 7_440.0).abs() < 10.0);
    }

    #[test]
    fn stamps_are_rfc_3339() {
        assert_eq!(rfc3339(UnixMillis(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
    }
}
