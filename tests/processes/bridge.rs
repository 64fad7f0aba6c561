//! A Mosquitto that bridges to a node: it speaks 3.1 or 3.1.1 with the bridge's bit in its Protocol
//! Level, and counts on being sent nothing of its own, and retained messages as they are.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use verge_mqtt_proto::QoS;

use crate::client::Client;
use crate::ports;
use crate::programs::Running;
use crate::site::Site;
use crate::time::{millis, until};

/// Where Debian has it; it is on the path of root alone.
const MOSQUITTO: &str = "/usr/sbin/mosquitto";

/// A Mosquitto whose topics below `b/` are those of the node at `to`.
fn bridging(site: &Site, version: &str, to: SocketAddr) -> (Running, SocketAddr) {
    let at = ports::free();
    let config = format!(
        "listener {} 127.0.0.1\nallow_anonymous true\nconnection to-node\naddress {to}\n\
         bridge_protocol_version {version}\ntopic b/# both 1\nnotifications false\n\
         restart_timeout 1\n",
        at.port()
    );
    let path = site.path(version);
    std::fs::write(&path, config).expect("a file can be written");
    let mut command = Command::new(MOSQUITTO);
    command.arg("-c").arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn();
    (Running(child.expect("mosquitto is missing: run `make test-deps`")), at)
}

#[test]
fn a_mosquitto_bridges_both_ways_without_loops() {
    for version in ["mqttv31", "mqttv311"] {
        let site = Site::new();
        let node = site.node("bridged").started();
        let (_mosquitto, there) = bridging(&site, version, node.mqtt);
        until("the bridge is there", || !node.list("subscriptions").is_empty());
        let refused = "Unsupported Protocol Version";
        assert_eq!(node.metric("verge_connections_refused_total", refused), 0, "{version}");

        let (mut here, mut far) = (Client::v5("here"), Client::v4("far"));
        here.connect(node.mqtt);
        until("Mosquitto listens", || far.try_connect(there).is_ok());
        for client in [&mut here, &mut far] {
            client.subscribe("b/#", QoS::AtLeastOnce);
        }
        for number in 0..20 {
            let (one, other) = (format!("here {number}"), format!("far {number}"));
            here.publish("b/t", &one, QoS::AtLeastOnce);
            far.publish("b/t", &other, QoS::AtLeastOnce);
            here.settle();
            far.settle();
            for client in [&mut here, &mut far] {
                let mut got = [client.next().text().to_owned(), client.next().text().to_owned()];
                got.sort();
                assert_eq!(got, [other.as_str(), one.as_str()], "{version}: each once");
            }
        }
        // What would have come twice has had its time: the last went both ways after it.
        for client in [&mut here, &mut far] {
            client.work(millis(200));
            assert_eq!(client.take().map(|message| message.text().to_owned()), None, "{version}");
        }

        // Kept on both sides.
        here.publish_with("b/kept", "from here", QoS::AtLeastOnce, true);
        assert_eq!(far.next().text(), "from here");
        far.publish_with("b/kept/too", "from far", QoS::AtLeastOnce, true);
        while here.next().text() != "from far" {}
        for (at, name) in [(node.mqtt, "new here"), (there, "new far")] {
            let mut late = Client::v4(name);
            late.connect(at);
            late.subscribe("b/kept/#", QoS::AtLeastOnce);
            let mut got = [late.next().text().to_owned(), late.next().text().to_owned()];
            got.sort();
            assert_eq!(got, ["from far", "from here"], "{version}, {name}");
        }
    }
}
