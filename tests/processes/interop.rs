//! Other people's clients over each transport, by the judges of `tests/conformance/judges`: those
//! that need no more than a registry and a minute. `make conformance` runs all.

use std::path::Path;
use std::process::Command;

use crate::programs::{build_dir, installed, verge};

#[test]
fn aiomqtt_is_served_over_each_transport() {
    judged_by("aiomqtt");
}

#[test]
fn mqtt_js_is_served_over_each_transport() {
    installed("npm");
    judged_by("MQTT.js");
}

#[test]
fn mosquitto_is_served_over_each_transport_and_in_single_bytes() {
    installed("mosquitto_pub");
    judged_by("mosquitto");
}

/// Runs a judge, which starts nodes of its own and bounds its own time.
fn judged_by(name: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/judges/judge.py");
    let mut command: Command = installed("python3");
    let cache = build_dir().with_file_name("judges");
    let output = command.arg(script).args([&verge(), &cache]).arg(name).output();
    let output = output.expect("python can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    let also = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{also}");
}
