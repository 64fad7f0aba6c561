//! Many clients on one socket.

use serde_json::Value;

use crate::programs::{self, output_of};
use crate::site::Site;

/// Clients of the bench's quick round, and those that connect before they are counted.
const CLIENTS: f64 = 2_200.0;

/// Most that the node may hold for one: what it is documented to, and a quarter.
const BYTES_MAX: f64 = 40.0 * 1024.0;

#[test]
fn thousands_of_quic_clients_share_one_socket_and_each_is_served() {
    let site = Site::new();
    let json = site.path("held.json").display().to_string();
    let mut command = std::process::Command::new(programs::verge());
    command.args(["bench", "--quick", "--peers", "verge", "--only", "idle-quic", "--json", &json]);
    output_of(&mut command);
    let text = std::fs::read_to_string(&json).expect("the bench wrote it");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let round = &all["results"]["works"][0][1]["verge"]["rounds"][0];
    assert_eq!(round["faults"], 0, "{round}");
    let value = |name: &str| {
        let values = round["values"].as_array().expect("a list");
        let found = values.iter().find(|pair| pair[0] == name).expect("it is measured");
        found[1].as_f64().expect("a number")
    };
    assert_eq!(value("messages returned"), CLIENTS);
    let bytes = value("bytes/connection");
    assert!(bytes > 0.0 && bytes < BYTES_MAX, "{bytes}");
}
