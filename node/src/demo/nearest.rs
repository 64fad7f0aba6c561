//! Asking a node which nodes are nearest, and comparing the answer with the positions.

use std::time::Duration;

use serde::Deserialize;
use verge_model::{LatLon, Role};

use super::attach;
use super::http;
use super::world::{World, count};
use crate::client::{Address, Scheme};

/// How long an answer may take before the vehicle goes by its own map.
const WITHIN: Duration = Duration::from_secs(2);

/// A roadside unit of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Near {
    /// Its index in the list of the run.
    pub site: usize,
    /// Where it says it listens.
    listeners: Vec<String>,
}

impl Near {
    /// The first listener of a scheme.
    #[must_use]
    pub fn listener(&self, scheme: Scheme) -> Option<Address> {
        let addresses = self.listeners.iter().filter_map(|text| text.parse::<Address>().ok());
        addresses.into_iter().find(|address| address.scheme == scheme)
    }
}

/// An entry of `GET /api/v1/nearest`.
#[derive(Debug, Deserialize)]
struct Entry {
    node_id: String,
    role: String,
    #[serde(default)]
    listeners: Vec<String>,
}

/// Asks the node the vehicle was at last, or the regional node, which roadside units are nearest;
/// nearest first, or nothing if there is no answer.
pub async fn ask(world: &World, at: Option<usize>, position: LatLon) -> Option<Vec<Near>> {
    let present = at.filter(|site| world.is_up(*site)).map(|site| world.sites[site].admin);
    let path = format!("/api/v1/nearest?lat={:.6}&lon={:.6}", position.lat, position.lon);
    let were_all_up = world.are_all_up();
    count(&world.counts.nearest_asked);
    for admin in present.into_iter().chain([world.edge.admin]) {
        match http::get_json::<Vec<Entry>>(admin, &path, WITHIN).await {
            Ok(entries) => {
                let found = known(entries, |id| world.sites.iter().position(|site| site.id == id));
                let sites: Vec<LatLon> =
                    world.scenario.sites.iter().map(|site| site.position).collect();
                let (wanted, _) = attach::nearest(position, &sites);
                // While a unit is down, or just back, its absence is no disagreement.
                let agrees = found.first().is_some_and(|near| near.site == wanted);
                if agrees || !were_all_up {
                    count(&world.counts.nearest_agreed);
                }
                return Some(found);
            }
            Err(error) => tracing::debug!(%error, "no answer for the nearest node"),
        }
    }
    count(&world.counts.nearest_failed);
    None
}

/// The roadside units of an answer that the run knows.
fn known(entries: Vec<Entry>, index: impl Fn(&str) -> Option<usize>) -> Vec<Near> {
    let units = entries.into_iter().filter(|entry| entry.role == Role::Rsu.as_str());
    units
        .filter_map(|entry| Some(Near { site: index(&entry.node_id)?, listeners: entry.listeners }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roadside_units_are_taken_from_an_answer_in_its_order() {
        let answer = r#"[
            {"node_id": "regional", "role": "regional", "distance_m": 1.0, "listeners": []},
            {"node_id": "b", "role": "rsu", "distance_m": 2.5,
             "listeners": ["tcp://127.0.0.1:1", "tls://127.0.0.1:2", "quic://127.0.0.1:3"]},
            {"node_id": "stranger", "role": "rsu", "distance_m": 3.0, "listeners": []},
            {"node_id": "a", "role": "rsu", "distance_m": 4.0}
        ]"#;
        let entries: Vec<Entry> = serde_json::from_str(answer).unwrap();
        let found = known(entries, |id| ["a", "b"].iter().position(|name| *name == id));
        assert_eq!(found.iter().map(|near| near.site).collect::<Vec<_>>(), [1, 0]);
        let tls = found[0].listener(Scheme::Tls).unwrap();
        assert_eq!(tls.to_string(), "tls://127.0.0.1:2");
        assert_eq!(found[1].listener(Scheme::Tcp), None);
    }
}
