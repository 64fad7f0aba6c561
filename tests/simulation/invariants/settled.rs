//! Liveness and bounded state: when trouble is over, clients are served and finish what they
//! began, logs on their way out are gone, and nodes hold nothing that nobody needs.

use verge_broker_core::shard::api::{Answer, Query};
use verge_storage::StoreRows as _;

use crate::world::World;

pub(super) fn unsettled(world: &mut World) -> Option<String> {
    for client in &world.clients {
        let name = &client.name;
        if !client.up || !client.subscribed {
            return Some(format!("{name} is not served"));
        }
        if !client.is_done() {
            return Some(format!("{name} waits for acknowledgements"));
        }
        let unreleased = client.unreleased();
        if !unreleased.is_empty() {
            return Some(format!("{name} waits for PUBREL of {unreleased:?}"));
        }
    }
    if world.links() < world.nodes.len() * (world.nodes.len() - 1) {
        return Some("links are missing".into());
    }
    let now = world.clock();
    for node in &mut world.nodes {
        let id = &node.id;
        let Some(process) = &mut node.process else { return Some(format!("{id} is down")) };
        for answer in process.query(&Query::Sessions, now) {
            let Answer::Sessions(sessions) = answer else { continue };
            for session in sessions {
                let client = session.client.client_id;
                if session.sealed {
                    return Some(format!("{id} keeps the sealed log of {client}"));
                }
                if session.open_fragments > 0 {
                    return Some(format!("{id} still pulls older logs of {client}"));
                }
                if session.queued > 0 {
                    return Some(format!("{id} owes {client} {}", session.queued));
                }
            }
        }
        let pending: u64 = process.hub.core().peers().iter().map(|peer| peer.forward_pending).sum();
        if pending > 0 {
            return Some(format!("{id} has {pending} messages for others"));
        }
        let store = &process.store;
        let sessions: Vec<u64> = store.sessions().filter_map(|row| Some(row.ok()?.0.0)).collect();
        let seen: usize = sessions.iter().map(|no| store.seen_of(*no).count()).sum();
        let received: usize = sessions.iter().map(|no| store.received_of(*no).count()).sum();
        let rows = [
            ("queue", store.queues().count()),
            ("message", store.messages().count()),
            ("seen", seen),
            ("received", received),
        ];
        if let Some((name, count)) = rows.into_iter().find(|(_, count)| *count > 0) {
            return Some(format!("{id} stores {count} {name} rows"));
        }
    }
    None
}
