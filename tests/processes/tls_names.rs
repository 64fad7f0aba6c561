//! Certificates by the name that a client asks for, and both versions of TLS and of IP.

use verge_mqtt_proto::QoS;

use crate::certificates::Certificates;
use crate::client::Client;
use crate::ports;
use crate::programs::{installed, output_of, run};
use crate::site::Site;
use crate::time::until;

/// A publication by Mosquitto over TLS. Whether it succeeded.
fn publishes(host: &str, port: u16, more: &[&str]) -> bool {
    let port = port.to_string();
    let mut command = installed("mosquitto_pub");
    command.args(["-h", host, "-p", &port, "-t", "t", "-m", "x", "-q", "1"]).args(more);
    run(&mut command).status.success()
}

#[test]
fn mosquitto_gets_the_certificate_of_the_name_it_asks_for() {
    let site = Site::new();
    let default = Certificates::of(&site, &["127.0.0.1"]);
    let named = Certificates::of(&site, &["localhost"]);
    let (tls, mqtt) = (ports::free(), ports::free());
    let listeners = format!("listeners = [\"tcp://{mqtt}\", \"tls://{tls}\"]\n");
    let section = format!("[tls]\ncert = \"{}\"\nkey = \"{}\"\n", default.cert, default.key);
    let entry = format!(
        "[[tls.certificates]]\nnames = [\"LocalHost\", \"*.cars.example\"]\ncert = \"{}\"\nkey = \"{}\"\n",
        named.cert, named.key
    );
    let ca = ["--cafile", default.authority.as_str()];
    let without = site.configured("plain", mqtt, &format!("{listeners}{section}"));
    let mut without = without.started();
    assert!(publishes("127.0.0.1", tls.port(), &ca));
    assert!(!publishes("localhost", tls.port(), &ca), "the certificate is of another name");
    without.terminate();
    drop(without);

    let node = site.configured("named", mqtt, &format!("{listeners}{section}{entry}")).started();
    for version in ["tlsv1.2", "tlsv1.3"] {
        let with = [&ca[..], &["--tls-version", version]].concat();
        assert!(publishes("127.0.0.1", tls.port(), &with), "no name is asked for, {version}");
        assert!(publishes("localhost", tls.port(), &with), "{version}");
    }
    assert_eq!(node.closed_for("tls_handshake"), 0);
    let explained = output_of(
        &mut site
            .verge(["check", &site.configure("named", &format!("{listeners}{section}{entry}"))]),
    );
    assert!(explained.contains("[[tls.certificates]]"), "{explained}");
}

#[test]
fn listeners_on_ipv6_take_clients_of_both_versions_where_they_say_all() {
    let site = Site::new();
    let (six, all) = (ports::free().port(), ports::free().port());
    let mut node = site.node("six");
    node.args([
        "--listen",
        &format!("tcp://[::1]:{six}"),
        "--listen",
        &format!("tcp://[::]:{all}"),
    ]);
    node.start();
    let ready = node.ready_lines().remove(0);
    assert!(ready.contains(&format!("tcp://[::1]:{six},tcp://[::]:{all}")), "{ready}");
    for (name, addr, peer) in [
        ("a", format!("[::1]:{six}"), "[::1]:"),
        ("b", format!("[::1]:{all}"), "[::1]:"),
        // An IPv4 client of an IPv6 socket: shown by its IPv4 address, and of this machine.
        ("c", format!("127.0.0.1:{all}"), "127.0.0.1:"),
    ] {
        let mut client = Client::v5(name);
        client.connect(addr.parse().expect("an address"));
        client.publish("x", "y", QoS::AtLeastOnce);
        until("the client is shown by its address", || {
            let clients = node.list("clients");
            clients.iter().any(|entry| {
                entry["client"] == name
                    && entry["peer"].as_str().is_some_and(|shown| shown.starts_with(peer))
            })
        });
        client.disconnect();
    }
}
