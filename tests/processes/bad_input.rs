//! What clients must not do: answered as the standard says, counted, and of no harm to others.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use bytes::BytesMut;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use verge_mqtt_proto::{Connack, DecodeLimits, Packet, ProtocolVersion, QoS, ReasonCode, decode};

use crate::client::{Client, bytes_of, connect};
use crate::node::Node;
use crate::programs::installed;
use crate::site::Site;
use crate::time::{SOON, millis, now, until};

const V4: ProtocolVersion = ProtocolVersion::V4;
const V5: ProtocolVersion = ProtocolVersion::V5;

/// More levels than any topic has.
const LEVELS: usize = 10_000;

/// Connections that send nothing.
const SILENT: u64 = 1_000;

/// A connection of bytes.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    fn open(node: &Node) -> Self {
        let stream = TcpStream::connect(node.mqtt).expect("the node listens");
        stream.set_read_timeout(Some(SOON)).expect("a timeout can be set");
        Self(stream)
    }

    /// After a CONNECT that was accepted.
    fn connected(node: &Node, version: ProtocolVersion, keep_alive_secs: u16) -> Self {
        Self::connected_as(node, version, keep_alive_secs, "rude")
    }

    /// The same, by this ClientId.
    pub(crate) fn connected_as(
        node: &Node,
        version: ProtocolVersion,
        keep_alive_secs: u16,
        id: &str,
    ) -> Self {
        let mut raw = Self::open(node);
        let packet = connect(id, version, true);
        let packet = verge_mqtt_proto::Connect { keep_alive_secs, ..packet };
        raw.send(&bytes_of(&packet, version));
        let (reason, _) = raw.connack(version);
        assert_eq!(reason, ReasonCode::Success);
        raw
    }

    /// Writes; the node may have closed before the last byte.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// The CONNACK's reason.
    fn connack(&mut self, version: ProtocolVersion) -> (ReasonCode, bool) {
        let mut input = BytesMut::new();
        loop {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("a CONNACK comes");
            input.extend_from_slice(&byte);
            if let Some((Packet::Connack(Connack { reason, session_present, .. }), _)) =
                decode(&input, version, &DecodeLimits::default()).expect("a CONNACK comes")
            {
                return (reason, session_present);
            }
        }
    }

    /// All that comes until the node closes, which it must.
    pub(crate) fn last_words(&mut self) -> Vec<u8> {
        let mut words = Vec::new();
        let mut bytes = [0; 1024];
        loop {
            match self.0.read(&mut bytes) {
                Ok(0) => return words,
                Ok(count) => words.extend_from_slice(&bytes[..count]),
                // What the node did not read before it closed makes the system reset.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return words,
                Err(error) => panic!("the node does not close: {error}, after {words:x?}"),
            }
        }
    }
}

/// A packet's name and reason, or nothing.
type Told = Option<(&'static str, ReasonCode)>;

/// The node's last words: at most one packet.
fn told(words: &[u8], version: ProtocolVersion) -> Told {
    if words.is_empty() {
        return None;
    }
    let decoded = decode(words, version, &DecodeLimits::default());
    let (packet, size) = decoded.expect("the node's packet is whole").expect("and right");
    assert_eq!(size, words.len(), "one packet: {words:x?}");
    if let Packet::Connack(connack) = &packet {
        return Some(("CONNACK", connack.reason));
    }
    if let Packet::Disconnect(disconnect) = &packet {
        return Some(("DISCONNECT", disconnect.reason));
    }
    panic!("{packet:?}");
}

/// A client that must be served whatever others do.
struct Witness {
    client: Client,
    number: u64,
}

impl Witness {
    fn new(node: &Node) -> Self {
        let mut client = Client::v5("witness");
        client.connect(node.mqtt);
        client.subscribe("witness", QoS::ExactlyOnce);
        Self { client, number: 0 }
    }

    fn is_served(&mut self) {
        self.number += 1;
        self.client.publish("witness", &self.number.to_string(), QoS::ExactlyOnce);
        assert_eq!(self.client.next().text(), self.number.to_string());
    }
}

/// A packet: its first byte, and the rest behind the length.
pub(crate) fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = rest.len();
    loop {
        let more = length >= 128;
        out.push((length % 128) as u8 | if more { 0x80 } else { 0 });
        length /= 128;
        if !more {
            break;
        }
    }
    out.extend_from_slice(rest);
    out
}

/// Text with its length before it.
pub(crate) fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("texts of these tests are short");
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

fn levels() -> String {
    vec!["a"; LEVELS].join("/")
}

#[test]
fn security_what_is_no_connect_is_refused_and_counted() {
    let site = Site::new();
    let node = site.node("patient").with(["session.packet_bytes_max=65536"]).started();
    let mut witness = Witness::new(&node);
    let connack = |reason| Some(("CONNACK", reason));
    let v5 = bytes_of(&connect("x", V5, true), V5);
    let edited = |place: usize, byte: u8| {
        let mut bytes = v5.clone();
        bytes[place] = byte;
        bytes
    };
    let large = [packet(0x10, &[0; 4])[..1].to_vec(), vec![0xff, 0xff, 0x7f]].concat();
    // What is sent, what comes back, what it is counted as.
    let transcript: Vec<(&str, Vec<u8>, Told, &str)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), None, "connect_expected"),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), None, "malformed_packet"),
        ("zeros", vec![0; 64], None, "malformed_packet"),
        ("PINGREQ first", vec![0xC0, 0], None, "connect_expected"),
        ("PUBLISH first", packet(0x30, &text("a")), None, "connect_expected"),
        ("flags of CONNECT", edited(0, 0x11), None, "malformed_packet"),
        ("protocol name", edited(4, b'X'), None, "protocol_version"),
        (
            "protocol level 6",
            edited(8, 6),
            connack(ReasonCode::UnsupportedProtocolVersion),
            "protocol_version",
        ),
        ("a larger CONNECT than allowed", large, None, "packet_too_large"),
        (
            "a length of five bytes",
            vec![0x10, 0xff, 0xff, 0xff, 0xff, 0x7f],
            None,
            "malformed_packet",
        ),
        (
            "reserved connect flag",
            edited(9, 0x03),
            connack(ReasonCode::MalformedPacket),
            "malformed_packet",
        ),
    ];
    for (what, bytes, answer, label) in transcript {
        let before = node.closed_for(label);
        let mut raw = Raw::open(&node);
        raw.send(&bytes);
        assert_eq!(told(&raw.last_words(), V5), answer, "{what}");
        witness.is_served();
        until(&format!("{what} is counted as {label}"), || node.closed_for(label) == before + 1);
    }
}

#[test]
fn security_what_a_connected_client_must_not_send_ends_its_connection() {
    let site = Site::new();
    let node = site.node("patient").with(["session.packet_bytes_max=65536"]).started();
    let mut witness = Witness::new(&node);
    let publish =
        |first: u8, topic: &str, rest: &[u8]| packet(first, &[&text(topic)[..], rest].concat());
    let of = |version: ProtocolVersion, properties: &[u8]| {
        if version.is_v5() { properties.to_vec() } else { Vec::new() }
    };
    for version in [V4, V5] {
        let none = of(version, &[0]);
        let transcript: Vec<(&str, Vec<u8>, ReasonCode, &str)> = vec![
            (
                "a second CONNECT",
                bytes_of(&connect("rude", version, true), version),
                ReasonCode::ProtocolError,
                "second_connect",
            ),
            (
                "QoS 3",
                publish(0x36, "a", &[&[0, 1], &none[..]].concat()),
                ReasonCode::MalformedPacket,
                "malformed_packet",
            ),
            (
                "a wildcard in a topic",
                publish(0x30, "a/#", &none),
                ReasonCode::TopicNameInvalid,
                "topic_name",
            ),
            (
                "a topic with 10,000 levels",
                publish(0x30, &levels(), &none),
                ReasonCode::TopicNameInvalid,
                "topic_name",
            ),
            (
                "packet identifier 0",
                publish(0x32, "a", &[&[0, 0], &none[..]].concat()),
                ReasonCode::ProtocolError,
                "protocol_error",
            ),
            (
                "a topic that is not UTF-8",
                packet(0x30, &[&[0, 2, 0xC0, 0x80], &none[..]].concat()),
                ReasonCode::MalformedPacket,
                "malformed_packet",
            ),
            (
                "a string longer than its packet",
                packet(0x30, &[0xff, 0xff, b'a']),
                ReasonCode::MalformedPacket,
                "malformed_packet",
            ),
            (
                "flags of SUBSCRIBE",
                packet(0x80, &[&[0, 1], &none[..], &text("a"), &[0]].concat()),
                ReasonCode::MalformedPacket,
                "malformed_packet",
            ),
            (
                "a SUBSCRIBE for nothing",
                packet(0x82, &[&[0, 1], &none[..]].concat()),
                ReasonCode::ProtocolError,
                "protocol_error",
            ),
            (
                "a larger packet than allowed",
                vec![0x30, 0xff, 0xff, 0x7f],
                ReasonCode::PacketTooLarge,
                "packet_too_large",
            ),
            (
                "a packet that only a server sends",
                packet(0xD0, &[]),
                ReasonCode::ProtocolError,
                "protocol_error",
            ),
            ("packet type 0", packet(0x00, &[]), ReasonCode::MalformedPacket, "malformed_packet"),
        ];
        for (what, bytes, reason, label) in transcript {
            let before = node.closed_for(label);
            let mut raw = Raw::connected(&node, version, 0);
            raw.send(&bytes);
            let answer = told(&raw.last_words(), version);
            let wanted = version.is_v5().then_some(("DISCONNECT", reason));
            assert_eq!(answer, wanted, "{what}, {}", version.name());
            witness.is_served();
            if !label.is_empty() {
                until(&format!("{what} is counted as {label}"), || node.closed_for(label) > before);
            }
        }
    }
}

#[test]
fn security_filters_that_are_not_valid_are_refused_one_by_one() {
    let site = Site::new();
    let node = site.node("patient").started();
    let mut client = Client::v5("asking");
    client.connect(node.mqtt);
    let deep = levels();
    for filter in ["a/#/b", "a#", "+a", "", "$share/group", "$share//a", "$share/g+/a", &deep] {
        let granted = client.subscribe(filter, QoS::AtLeastOnce);
        let shown: String = filter.chars().take(20).collect();
        assert_eq!(granted, ReasonCode::TopicFilterInvalid, "{shown}");
    }
    let mut client = Client::v4("asking-too");
    client.connect(node.mqtt);
    assert!(client.subscribe("a/#/b", QoS::AtLeastOnce).is_error());
    assert_eq!(client.subscribe("a/#", QoS::AtLeastOnce), ReasonCode::GrantedQos1);
    assert_eq!(node.list("subscriptions").len(), 1);
}

#[test]
fn security_a_client_that_stops_in_the_middle_is_not_waited_for() {
    let site = Site::new();
    let node = site.node("patient").with(["session.connect_timeout=1s"]).started();
    let mut witness = Witness::new(&node);
    let whole = bytes_of(&connect("halting", V5, true), V5);
    let mut halting = Raw::open(&node);
    halting.send(&whole[..whole.len() / 2]);
    witness.is_served();
    assert!(halting.last_words().is_empty(), "no CONNECT, no answer");
    until("it is counted", || node.closed_for("connect_timeout") == 1);

    for (version, wanted) in [(V5, Some(("DISCONNECT", ReasonCode::KeepAliveTimeout))), (V4, None)]
    {
        let mut raw = Raw::connected(&node, version, 1);
        raw.send(&packet(0x30, &[0; 200])[..100]);
        witness.is_served();
        assert_eq!(told(&raw.last_words(), version), wanted);
    }
    until("they are counted", || node.closed_for("keep_alive_timeout") == 2);
    let mut gone = Raw::connected(&node, V5, 1);
    gone.send(&packet(0x30, &[0; 200])[..100]);
    drop(gone);
    until("the client is gone", || node.list("clients").len() == 1);
}

#[test]
fn security_garbage_from_a_seed_never_ends_the_node() {
    let mut rng = StdRng::seed_from_u64(5);
    let site = Site::new();
    let mut node = site.node("patient").with(["session.connect_timeout=1s"]).started();
    let mut witness = Witness::new(&node);
    for round in 0..400 {
        let mut raw = if round % 2 == 0 { Raw::open(&node) } else { Raw::connected(&node, V5, 1) };
        let length = rng.random_range(1..600);
        let mut bytes: Vec<u8> = (0..length).map(|_| rng.random()).collect();
        if round % 4 > 1 {
            // A right fixed header, so that garbage comes further.
            bytes = packet(rng.random(), &bytes);
        }
        raw.send(&bytes);
        let _ = raw.0.shutdown(std::net::Shutdown::Write);
        if round % 20 == 0 {
            witness.is_served();
        }
    }
    witness.is_served();
    assert!(node.is_running());
    until("every connection is given up", || node.list("clients").len() == 1);
    assert!(node.metric("verge_connections_closed_total", "") > 200);
}

#[test]
fn security_a_thousand_silent_connections_take_nothing_from_others() {
    let site = Site::new();
    let node = site.node("patient").with(["session.connect_timeout=4s"]).started();
    let mut witness = Witness::new(&node);
    // A process of its own, since this one may not have so many files open.
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/processes/silent.py");
    let mut python = installed("python3");
    python.args([script, &node.mqtt.port().to_string(), &SILENT.to_string()]);
    let mut crowd = python.stdout(Stdio::piped()).spawn().expect("python can be started");
    let end = now() + millis(3_000);
    while now() < end {
        witness.is_served();
        let mut new = Client::v5("newcomer");
        new.connect(node.mqtt);
        new.disconnect();
    }
    until("the crowd is sent away", || node.closed_for("connect_timeout") == SILENT);
    let status = crowd.wait().expect("a child can be waited for");
    assert!(status.success(), "every connection was made and closed");
    witness.is_served();
}

#[test]
fn security_more_than_the_receive_maximum_ends_the_connection() {
    let site = Site::new();
    let node = site.node("patient").with(["session.receive_maximum=8"]).started();
    let mut witness = Witness::new(&node);
    let mut raw = Raw::connected(&node, V5, 0);
    // QoS 2 messages that are never released.
    for id in 1..=9_u8 {
        raw.send(&packet(0x34, &[&text("a")[..], &[0, id, 0]].concat()));
    }
    let words = raw.last_words();
    let mut rest = &words[..];
    let mut last = None;
    while let Ok(Some((packet, size))) = decode(rest, V5, &DecodeLimits::default()) {
        if let Packet::Disconnect(disconnect) = packet {
            last = Some(disconnect.reason);
        }
        rest = &rest[size..];
    }
    assert_eq!(last, Some(ReasonCode::ReceiveMaximumExceeded));
    assert_eq!(node.closed_for("receive_maximum"), 1);
    witness.is_served();
}
