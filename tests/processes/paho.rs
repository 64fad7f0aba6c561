//! Eclipse Paho's Python client, which many fleets use. The scenarios are in `paho_scenarios.py`.

use std::process::Command;

use crate::certificates::Certificates;
use crate::node::Node;
use crate::ports;
use crate::programs::output_of;
use crate::python::python_with;
use crate::site::Site;

/// What is installed from PyPI.
const PAHO: &str = "paho-mqtt==2.1.0";

#[test]
fn paho_sends_and_receives_qos_2() {
    on_one_node(&["qos2"]);
}

#[test]
fn paho_resumes_a_session_with_queued_messages() {
    on_one_node(&["resume"]);
}

#[test]
fn paho_shares_a_subscription() {
    on_one_node(&["shared"]);
}

#[test]
fn paho_gets_the_properties_that_were_published() {
    on_one_node(&["properties"]);
}

#[test]
fn paho_does_not_get_what_expired_and_hears_of_delayed_wills() {
    on_one_node(&["expiry", "will_delay"]);
}

#[test]
fn paho_trusts_our_authority_over_tls_and_no_other() {
    let site = Site::new();
    let certificates = Certificates::of(&site, &["localhost", "127.0.0.1"]);
    let other = site.path("other-ca").display().to_string();
    output_of(&mut site.verge(["pki", "init", "--ca", &other]));
    let tls = ports::free();
    let mut node = certificates.given_to(site.node("tls"));
    node.args(["--listen", &format!("tls://{tls}")]);
    node.start();
    let other = format!("{other}/ca.pem");
    paho(&node, &["tls", &tls.port().to_string(), &certificates.authority, &other]);
    assert!(node.closed_for("tls_handshake") > 0, "the stranger is counted");
}

#[test]
fn paho_speaks_websocket_plain_and_over_tls() {
    let site = Site::new();
    let certificates = Certificates::of(&site, &["localhost", "127.0.0.1"]);
    let (ws, wss) = (ports::free(), ports::free());
    let mut node = certificates.given_to(site.node("web"));
    node.args(["--listen", &format!("ws://{ws}/mqtt"), "--listen", &format!("wss://{wss}/")]);
    node.start();
    paho(&node, &["ws", &ws.port().to_string(), "/mqtt"]);
    paho(&node, &["ws", &wss.port().to_string(), "/", &certificates.authority]);
    assert_eq!(node.closed_for("websocket_handshake"), 2, "another path is counted");
    node.balances();
}

/// Runs scenarios, for both versions where both have what is tried.
fn on_one_node(scenarios: &[&str]) {
    let site = Site::new();
    let node = site.node("single").started();
    for scenario in scenarios {
        paho(&node, &[scenario]);
    }
    node.balances();
}

fn paho(node: &Node, args: &[&str]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/processes/paho_scenarios.py");
    let mut command = Command::new(python_with(PAHO));
    command.args([script, &node.mqtt.port().to_string()]).args(args);
    let said = output_of(&mut command);
    assert!(said.ends_with("ok\n"), "{said}");
}
