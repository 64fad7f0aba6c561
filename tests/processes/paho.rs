//! Eclipse Paho's Python client, which many fleets use. The scenarios are in `paho_scenarios.py`.

use std::process::Command;

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
    let made = |name: &str| site.path(name).display().to_string();
    let (ca, certs, other) = (made("ca"), made("certs"), made("other-ca"));
    output_of(&mut site.verge(["pki", "init", "--ca", &ca]));
    output_of(&mut site.verge(["pki", "init", "--ca", &other]));
    let names = ["localhost", "127.0.0.1"];
    let [host, addr] = names;
    let issued = output_of(
        &mut site.verge(["pki", "issue", "server", host, addr, "--ca", &ca, "--out", &certs]),
    );
    let file = |title: &str| {
        let line = issued.lines().find_map(|line| line.strip_prefix(title));
        line.unwrap_or_else(|| panic!("no {title} in {issued}")).trim().to_owned()
    };
    let tls = ports::free();
    let mut node = site.node("tls").with([
        &format!("tls.cert={}", file("certificate")),
        &format!("tls.key={}", file("private key")),
    ]);
    node.args(["--listen", &format!("tls://{tls}")]);
    node.start();
    let other = format!("{other}/ca.pem");
    paho(&node, &["tls", &tls.port().to_string(), &file("authority"), &other]);
    assert!(node.closed_for("tls_handshake") > 0, "the stranger is counted");
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
