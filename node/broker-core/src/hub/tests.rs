//! What a hub does before and between its inputs.

use std::sync::Arc;

use verge_mesh_proto::{MeshConfig, MeshCore, Restored, RestoredRoutes, RouteHead};
use verge_model::{NodeId, NodeKey, Now, Role};
use verge_storage::Promise;

use super::{Hub, HubConfig};
use crate::router::{Matches, Origin};
use crate::rule::TopicRules;
use crate::shared::NodeShared;

#[test]
fn the_router_knows_the_routes_of_an_earlier_life_before_any_client_is_served() {
    let id: NodeId = "rsu-1".parse().unwrap();
    let config = MeshConfig {
        node_id: id.clone(),
        role: Role::Rsu,
        region: "north".into(),
        advertise: ([127, 0, 0, 1], 14_600).into(),
        position: None,
        listeners: vec![],
        admin: None,
        incarnation: 2,
        log_id: 7,
        dials_only: false,
        join: vec![],
        lookup_timeout: MeshConfig::LOOKUP_TIMEOUT,
    };
    let known = RestoredRoutes {
        origin: NodeKey(5),
        head: RouteHead { incarnation: 1, seq: 1 },
        routes: vec![("cmd/v1".into(), 1)],
    };
    let restored = Restored { routes: vec![known], ..Restored::default() };
    let core = MeshCore::new(config, restored, Now::default(), 1);
    let shared = Arc::new(NodeShared::new(id.key(), 2, TopicRules::default()));
    let config = HubConfig { shards: 1, promise: Promise::Buffered };
    let _hub = Hub::new(config, core, Arc::clone(&shared));

    let mut matches = Matches::default();
    shared.router.matches("cmd/v1", Origin::Here, &"p".into(), &mut matches);
    assert_eq!(matches.remotes.iter().map(|found| found.node).collect::<Vec<_>>(), [NodeKey(5)]);
}
