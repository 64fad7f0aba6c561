//! Convergence: a node's routes are the filters of its sessions, and every other node's replica of
//! them is equal.

use std::collections::BTreeSet;

use verge_broker_core::shard::api::{Answer, Query};

use crate::world::World;

pub(super) fn unsettled(world: &mut World) -> Option<String> {
    let now = world.clock();
    let mut routes = Vec::new();
    for node in &mut world.nodes {
        let Some(process) = &mut node.process else { return Some(format!("{} is down", node.id)) };
        let mut wanted = BTreeSet::new();
        for answer in process.query(&Query::Subscriptions, now) {
            let Answer::Subscriptions(subscriptions) = answer else { continue };
            wanted.extend(subscriptions.into_iter().map(|held| held.filter.as_str().to_owned()));
        }
        let own: BTreeSet<String> = process.hub.core().own_routes().map(str::to_owned).collect();
        if own != wanted {
            return Some(format!("{} routes {own:?}, its sessions want {wanted:?}", node.id));
        }
        routes.push((node.id.clone(), own));
    }
    for node in &world.nodes {
        let Some(process) = &node.process else { continue };
        for (origin, own) in routes.iter().filter(|(origin, _)| *origin != node.id) {
            let core = process.hub.core();
            let of = core.remote_routes().filter(|(key, _)| *key == origin.key());
            let known: BTreeSet<String> = of.map(|(_, filter)| filter.to_owned()).collect();
            if known != *own {
                return Some(format!("{} knows {known:?} of {origin}, not {own:?}", node.id));
            }
        }
    }
    None
}
