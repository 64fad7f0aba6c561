//! One effective owner a session: the node its client is at, by the greatest claim anyone knows.

use std::collections::BTreeMap;

use verge_broker_core::shard::api::{Answer, Query};
use verge_model::{Claim, ClientKey};

use crate::world::World;

pub(super) fn unsettled(world: &mut World) -> Option<String> {
    let now = world.clock();
    let mut owners: BTreeMap<ClientKey, Vec<(usize, Claim)>> = BTreeMap::new();
    for (index, node) in world.nodes.iter_mut().enumerate() {
        let Some(process) = &mut node.process else { continue };
        for answer in process.query(&Query::Sessions, now) {
            let Answer::Sessions(sessions) = answer else { continue };
            for session in sessions.into_iter().filter(|session| !session.sealed) {
                owners.entry(session.client).or_default().push((index, session.claim));
            }
        }
    }
    for client in &world.clients {
        let key = ClientKey::anonymous(&client.name);
        let owners = owners.remove(&key).unwrap_or_default();
        let [(node, claim)] = owners[..] else {
            return Some(format!("{} has the owners {owners:?}", client.name));
        };
        if node != client.node {
            return Some(format!("{} is at {}, not at {node}", client.name, client.node));
        }
        for home in &world.nodes {
            let Some(process) = &home.process else { continue };
            let core = process.hub.core();
            let is_home = core.homes_of(&key).contains(&home.id.key());
            let known = core.registry_entry(&key).map(|entry| entry.owner_claim());
            if is_home && known != Some(claim) {
                return Some(format!(
                    "{} knows {known:?} of {}, not {claim}",
                    home.id, client.name
                ));
            }
        }
    }
    None
}
