//! Clients behind proxies: the PROXY protocol by hand, and by HAProxy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use serde_json::Value;
use verge_mqtt_proto::{ProtocolVersion, QoS};

use crate::certificates::Certificates;
use crate::client::{Client, bytes_of, connect};
use crate::node::Node;
use crate::ports;
use crate::programs::{Running, installed, output_of};
use crate::site::Site;
use crate::time::{SOON, until};

const V5: ProtocolVersion = ProtocolVersion::V5;

/// The first bytes of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// 192.0.2.7:4660 to 192.0.2.1:1883.
const ADDRESSES: &[u8] = &[192, 0, 2, 7, 192, 0, 2, 1, 0x12, 0x34, 0x07, 0x5b];

/// A header of version 2.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("headers are short").to_be_bytes();
    [SIGNATURE, &[0x20 | command, family], &length, rest].concat()
}

/// A value of version 2.
fn value(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("values are short").to_be_bytes();
    [&[kind][..], &length, bytes].concat()
}

/// Sends a header and a CONNECT in one go; gives the reason of the CONNACK and the connection.
fn connected(addr: SocketAddr, header: &[u8], id: &str) -> Option<(u8, TcpStream)> {
    let mut stream = TcpStream::connect(addr).expect("the node listens");
    stream.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    let connect = bytes_of(&connect(id, V5, true), V5);
    // The node may have closed before the last byte.
    let _ = stream.write_all(&[header, &connect].concat());
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).ok().map(|()| {
        assert_eq!(connack[0], 0x20, "a CONNACK");
        (connack[3], stream)
    })
}

fn client(node: &Node, id: &str) -> Value {
    let clients = node.list("clients");
    let of = |entry: &&Value| {
        entry["client"].as_str().is_some_and(|name| name == id || name.ends_with(&format!("/{id}")))
    };
    clients.iter().find(of).unwrap_or_else(|| panic!("no {id} in {clients:?}")).clone()
}

fn listening(site: &Site, more: &str) -> (Node, SocketAddr) {
    let (mqtt, proxied) = (ports::free(), ports::free());
    let toml = format!(
        "[[listeners]]\nurl = \"tcp://{mqtt}\"\n[[listeners]]\nurl = \"tcp://{proxied}\"\n\
         proxy_protocol = true\n{more}"
    );
    (site.configured("behind", mqtt, &toml).started(), proxied)
}

#[test]
fn clients_are_who_their_proxy_says_they_are() {
    let site = Site::new();
    let (node, addr) = listening(&site, "[auth]\nallow_anonymous = \"always\"\n");
    let six = v2(1, 0x21, &[&[0x20; 16][..], &[0; 16], &[0, 5, 0, 6]].concat());
    let checked = v2(1, 0x11, &[ADDRESSES, &value(3, &[0x64, 0x1a, 0x1d, 7])].concat());
    let name = value(0x22, b"vehicle-7");
    let ssl =
        |client: u8, verify: u8| value(0x20, &[&[client, 0, 0, 0, verify], &name[..]].concat());
    let named = |ssl: Vec<u8>| v2(1, 0x11, &[ADDRESSES, &value(2, b"edge.example"), &ssl].concat());
    for (id, header, peer, shown) in [
        ("one", b"PROXY TCP4 192.0.2.7 192.0.2.1 4660 1883\r\n".to_vec(), "192.0.2.7:4660", "one"),
        ("two", v2(1, 0x11, ADDRESSES), "192.0.2.7:4660", "two"),
        ("checked", checked, "192.0.2.7:4660", "checked"),
        ("six", six, "[2020:2020:2020:2020:2020:2020:2020:2020]:5", "six"),
        ("cert", named(ssl(3, 0)), "192.0.2.7:4660", "vehicle-7/cert"),
        ("claim", named(ssl(3, 1)), "192.0.2.7:4660", "claim"),
        ("bare", named(ssl(1, 0)), "192.0.2.7:4660", "bare"),
        ("local", v2(0, 0, &[]), "127.0.0.1:", "local"),
        ("unspec", v2(1, 0, &[]), "127.0.0.1:", "unspec"),
        ("unknown", b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1:", "unknown"),
    ] {
        let (reason, _stream) = connected(addr, &header, id).expect("a CONNACK");
        assert_eq!(reason, 0, "{id}");
        let entry = client(&node, id);
        assert_eq!(entry["client"], shown, "{id}");
        let seen = entry["peer"].as_str().expect("a peer");
        assert!(seen.starts_with(peer), "{id} is {seen}");
    }
}

#[test]
fn security_what_a_proxy_does_not_know_grants_nothing() {
    let site = Site::new();
    let (node, addr) = listening(&site, "[auth]\nallow_anonymous = \"loopback\"\n");
    for (id, header, wanted) in [
        ("far", v2(1, 0x11, ADDRESSES), 0x87),
        ("nobody", b"PROXY UNKNOWN\r\n".to_vec(), 0x87),
        ("unspec", v2(1, 0, &[]), 0x87),
        ("near", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n".to_vec(), 0),
        ("proxy", v2(0, 0, &[]), 0),
    ] {
        let (reason, _stream) = connected(addr, &header, id).expect("a CONNACK");
        assert_eq!(reason, wanted, "{id}");
    }
    drop(node);
}

#[test]
fn security_broken_headers_and_strangers_are_refused_and_counted() {
    let site = Site::new();
    let (node, addr) = listening(&site, "");
    let mut witness = Client::v5("witness");
    witness.connect(node.mqtt);
    let long = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
    let huge = [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat();
    for (what, header) in [
        ("none", Vec::new()),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a line without end", long),
        ("an address that is none", b"PROXY TCP4 a b 1 2\r\n".to_vec()),
        ("a huge header", huge),
        ("an unknown command", v2(2, 0x11, ADDRESSES)),
        ("half an address", v2(1, 0x11, &ADDRESSES[..6])),
        ("a wrong checksum", v2(1, 0x11, &[ADDRESSES, &value(3, &[0x64, 0x1a, 0x1d, 8])].concat())),
        ("a value beyond the header", v2(1, 0x11, &[ADDRESSES, &[0x20, 0xff, 0xff]].concat())),
    ] {
        let before = node.closed_for("proxy_header");
        assert!(connected(addr, &header, "x").is_none(), "{what}");
        until(&format!("{what} is counted"), || node.closed_for("proxy_header") == before + 1);
    }
    // A proxy that says nothing has less time than a client.
    let silent = TcpStream::connect(addr).expect("the node listens");
    until("silence is counted", || node.closed_for("proxy_timeout") == 1);
    drop(silent);
    drop(node);

    let (node, addr) = listening(&site, "proxy_trusted = [\"192.0.2.0/24\"]\n");
    assert!(connected(addr, &v2(1, 0x11, ADDRESSES), "x").is_none());
    until("the stranger is counted", || node.closed_for("proxy_untrusted") == 1);
    let mut client = Client::v5("direct");
    client.connect(node.mqtt);
    client.publish("x", "y", QoS::AtLeastOnce);
}

#[test]
fn haproxy_ends_tls_and_says_who_the_client_is() {
    let site = Site::new();
    let (node, addr) = listening(&site, "[auth]\nallow_anonymous = \"always\"\n");
    let server = Certificates::of(&site, &["localhost", "127.0.0.1"]);
    let car = Certificates::of_client(&site, "vehicle-7");
    let front = ports::free();
    let pem = site.path("haproxy.pem");
    let read = |path: &str| std::fs::read_to_string(path).expect("a certificate can be read");
    std::fs::write(&pem, format!("{}\n{}", read(&server.cert), read(&server.key)))
        .expect("a file can be written");
    let config = site.path("haproxy.cfg");
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n\
         frontend cars\n  bind {front} ssl crt {} ca-file {} verify optional\n  default_backend node\n\
         backend node\n  server node {addr} send-proxy-v2-ssl-cn proxy-v2-options authority,crc32c\n",
        pem.display(),
        server.authority
    );
    std::fs::write(&config, text).expect("a file can be written");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut haproxy = if std::path::Path::new("/usr/sbin/haproxy").is_file() {
        Command::new("/usr/sbin/haproxy")
    } else {
        installed("haproxy")
    };
    let _haproxy = Running::spawn(haproxy.arg("-db").arg("-f").arg(&config).env("PATH", path));
    until("HAProxy listens", || TcpStream::connect(front).is_ok());

    let port = front.port().to_string();
    let common = ["-h", "localhost", "-p", &port, "--cafile", &server.authority, "-t", "a"];
    let mut sub = installed("mosquitto_sub");
    sub.args(common).args(["-i", "car", "-C", "1", "-q", "1"]);
    let sub = Running::spawn(sub.args(["--cert", &car.cert, "--key", &car.key]));
    until("the car subscribes", || node.list("subscriptions").len() == 1);
    let entry = client(&node, "car");
    assert_eq!(entry["client"], "vehicle-7/car", "by the certificate that HAProxy verified");
    let mut publish = installed("mosquitto_pub");
    output_of(publish.args(common).args(["-i", "guest", "-m", "hello", "-q", "1"]));
    assert_eq!(sub.output(), "hello\n");
    assert_eq!(node.closed_for("proxy_header"), 0, "only HAProxy's own look at us has none");
}
