//! Connections that never say who they are.

use std::io::Read;
use std::net::TcpStream;
use std::process::Stdio;

use verge_mqtt_proto::QoS;

use crate::certificates::Certificates;
use crate::client::Client;
use crate::ports;
use crate::programs::installed;
use crate::site::Site;
use crate::time::{SOON, until};

/// Connections that send nothing, by listener.
const SILENT: u64 = 1_500;

#[test]
fn security_half_open_connections_beyond_the_bound_are_refused_and_counted() {
    let site = Site::new();
    let (mqtt, bounded) = (ports::free(), ports::free());
    let toml = format!(
        "[[listeners]]\nurl = \"tcp://{mqtt}\"\n[[listeners]]\nurl = \"tcp://{bounded}\"\n\
         connecting_max = 8\n[session]\nconnect_timeout = \"4s\"\n"
    );
    let node = site.configured("bounded", mqtt, &toml).started();
    let mut known = Client::v5("known");
    known.connect(bounded);
    known.subscribe("k", QoS::AtLeastOnce);
    let silent: Vec<TcpStream> =
        (0..8).map(|_| TcpStream::connect(bounded).expect("the node listens")).collect();
    let mut beyond = TcpStream::connect(bounded).expect("the system answers");
    beyond.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    let ended = beyond.read(&mut [0]);
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    until("it is counted", || node.closed_for("connecting_full") == 1);
    // Who is connected, and who comes by another listener, notices nothing.
    known.publish("k", "here", QoS::AtLeastOnce);
    assert_eq!(known.next().text(), "here");
    let mut other = Client::v5("other");
    other.connect(mqtt);
    until("the silent are sent away", || node.closed_for("connect_timeout") == 8);
    let mut late = Client::v5("late");
    late.connect(bounded);
    drop(silent);
}

#[test]
fn security_thousands_of_silent_connections_to_tls_and_websocket_take_nothing_from_others() {
    let site = Site::new();
    let certificates = Certificates::of(&site, &["localhost"]);
    let (tls, ws) = (ports::free(), ports::free());
    let mut node = certificates.given_to(site.node("crowded")).with(["session.connect_timeout=5s"]);
    node.args(["--listen", &format!("tls://{tls}"), "--listen", &format!("ws://{ws}")]);
    node.start();
    let mut witness = Client::v5("witness");
    witness.connect(node.mqtt);
    witness.subscribe("w", QoS::ExactlyOnce);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/processes/silent.py");
    let crowds = [tls, ws].map(|addr| {
        let mut python = installed("python3");
        python.args([script, &addr.port().to_string(), &SILENT.to_string()]);
        python.stdout(Stdio::piped()).spawn().expect("python can be started")
    });
    let mut number = 0;
    until("both crowds are sent away", || {
        number += 1;
        witness.publish("w", &number.to_string(), QoS::ExactlyOnce);
        assert_eq!(witness.next().text(), number.to_string());
        let mut new = Client::v5("newcomer");
        new.connect(node.mqtt);
        new.disconnect();
        node.closed_for("connect_timeout") == 2 * SILENT
    });
    for mut crowd in crowds {
        let status = crowd.wait().expect("a child can be waited for");
        assert!(status.success(), "every connection was made and closed");
    }
}
