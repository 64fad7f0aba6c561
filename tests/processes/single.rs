//! One node and Mosquitto's clients.

use std::process::Command;

use serde_json::Value;

use crate::client::Client;
use crate::node::Node;
use crate::programs::{Running, installed, output_of};
use crate::site::Site;
use crate::time::until;
use verge_mqtt_proto::QoS;

/// What `mosquitto_*` call the versions.
const VERSIONS: [&str; 2] = ["mqttv311", "mqttv5"];

/// Seconds after which a subscriber gives up.
const PATIENCE: &str = "20";

#[test]
fn a_node_says_that_it_is_ready() {
    let site = Site::new();
    let mut node = site.node("alone").started();
    let line = &node.ready_lines()[0];
    let wanted = format!("ready node=alone listeners=tcp://{}", node.mqtt);
    assert!(line.starts_with(&wanted), "{line}");
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json", "/api/v1/node"] {
        assert_eq!(node.status(path), Some(200), "{path}");
    }
    assert_eq!(node.get("/api/v1/node")["incarnation"], 1);
    assert_eq!(node.terminate().code(), Some(0), "SIGTERM drains");
    node.start();
    assert_eq!(node.get("/api/v1/node")["incarnation"], 2);
}

#[test]
fn mosquitto_publishes_and_subscribes_at_every_qos_and_version() {
    let site = Site::new();
    let node = site.node("single").started();
    for version in VERSIONS {
        for qos in ["0", "1", "2"] {
            let topic = format!("road/{version}/{qos}");
            let sub =
                subscriber(&node, version, &["-t", &topic, "-q", qos, "-C", "3", "-F", "%q %r %p"]);
            until("the subscription is there", || {
                node.list("subscriptions").iter().any(|known| known["filter"] == topic.as_str())
            });
            for text in ["one", "two", "three"] {
                publish(&node, version, &["-t", &topic, "-q", qos, "-m", text]);
            }
            let wanted = format!("{qos} 0 one\n{qos} 0 two\n{qos} 0 three\n");
            assert_eq!(sub.output(), wanted, "{version} QoS {qos}");
        }
    }
}

#[test]
fn mosquitto_gets_retained_messages_until_they_are_removed() {
    let site = Site::new();
    let mut node = site.node("single").started();
    for version in VERSIONS {
        let topic = format!("sign/{version}");
        publish(&node, version, &["-t", &topic, "-q", "1", "-r", "-m", "50 km/h"]);
        let late = ["-t", &topic, "-q", "1", "-C", "1", "-F", "%r %p"];
        assert_eq!(subscriber(&node, version, &late).output(), "1 50 km/h\n", "{version}");
    }
    node.kill();
    node.start();
    assert_eq!(node.list("retained").len(), VERSIONS.len(), "retained messages outlive SIGKILL");
    for version in VERSIONS {
        publish(&node, version, &["-t", &format!("sign/{version}"), "-q", "1", "-r", "-n"]);
    }
    assert_eq!(node.list("retained"), Vec::<Value>::new());
}

#[test]
fn mosquittos_will_is_published_when_it_is_killed() {
    let site = Site::new();
    let node = site.node("single").started();
    let mut witness = Client::v5("witness");
    witness.connect(node.mqtt);
    witness.subscribe("wills/#", QoS::ExactlyOnce);
    for version in VERSIONS {
        let (topic, id) = (format!("wills/{version}"), format!("mortal-{version}"));
        let will = ["--will-topic", &topic, "--will-payload", "gone", "--will-qos", "2"];
        let args = [&["-t", "nothing", "-i", &id], &will[..]].concat();
        let mortal = subscriber(&node, version, &args);
        until("it is connected", || {
            node.list("clients").iter().any(|client| client["client"] == id.as_str())
        });
        drop(mortal);
        let message = witness.next();
        assert_eq!((&*message.topic, message.text()), (&*topic, "gone"));
        assert_eq!(message.qos, QoS::ExactlyOnce);
    }
}

#[test]
fn mosquittos_persistent_session_gets_what_came_meanwhile() {
    let site = Site::new();
    let mut node = site.node("single").started();
    for version in VERSIONS {
        let id = format!("parked-{version}");
        let kept = ["-c", "-i", &id, "-t", "post/#", "-q", "2"];
        // An expiry of zero is the default of 5.0.
        let kept = match version {
            "mqttv5" => [&kept[..], &["-x", "3600"]].concat(),
            _ => kept.to_vec(),
        };
        output_of(client("mosquitto_sub", &node, version).args(&kept).arg("-E"));
        for text in ["first", "second", "third"] {
            publish(&node, version, &["-t", "post/box", "-q", "2", "-m", text]);
        }
        node.kill();
        node.start();
        let got = subscriber(&node, version, &[&kept[..], &["-C", "3"]].concat()).output();
        assert_eq!(got, "first\nsecond\nthird\n", "{version}");
    }
    node.balances();
}

#[test]
fn our_own_client_commands_work_like_mosquittos() {
    let site = Site::new();
    let node = site.node("single").started();
    let url = format!("tcp://{}", node.mqtt);
    let sub = subscriber(&node, "mqttv5", &["-t", "own/#", "-q", "1", "-C", "1", "-v"]);
    let filter = ["own/#", "-q", "2", "-C", "1", "-W", PATIENCE, "-F", "%t %p"];
    let mut own = site.verge(["sub", "--url", &url, "-t"]);
    let own = Running::spawn(own.args(filter));
    until("the subscriptions are there", || node.list("subscriptions").len() == 2);
    let message = ["-t", "own/way", "-m", "x", "-q", "1"];
    output_of(site.verge(["pub", "--url", &url]).args(message));
    assert_eq!(own.output(), "own/way x\n");
    assert_eq!(sub.output(), "own/way x\n");
}

fn publish(node: &Node, version: &str, args: &[&str]) {
    output_of(client("mosquitto_pub", node, version).args(args));
}

fn subscriber(node: &Node, version: &str, args: &[&str]) -> Running {
    Running::spawn(client("mosquitto_sub", node, version).args(["-W", PATIENCE]).args(args))
}

fn client(program: &str, node: &Node, version: &str) -> Command {
    let mut command = installed(program);
    command.args(["-h", "127.0.0.1", "-p", &node.mqtt.port().to_string(), "-V", version]);
    command
}
