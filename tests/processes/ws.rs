//! MQTT in WebSocket: our own commands over it, and what no WebSocket client may do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use verge_mqtt_proto::{ProtocolVersion, QoS};

use crate::certificates::Certificates;
use crate::client::{Client, bytes_of, connect};
use crate::node::Node;
use crate::ports;
use crate::programs::{Running, output_of};
use crate::site::Site;
use crate::time::{SOON, until};

const V5: ProtocolVersion = ProtocolVersion::V5;

/// A request that is granted.
const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

/// A WebSocket client made of bytes.
struct Web(TcpStream);

impl Web {
    fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("the node listens");
        stream.set_read_timeout(Some(SOON)).expect("a timeout can be set");
        Self(stream)
    }

    /// After the HTTP exchange.
    fn granted(addr: SocketAddr) -> Self {
        let mut web = Self::open(addr);
        web.send(REQUEST.as_bytes());
        let head = web.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        web
    }

    /// After a CONNECT that was accepted.
    fn connected(addr: SocketAddr) -> Self {
        let mut web = Self::granted(addr);
        web.send(&frame(0x82, &bytes_of(&connect("web", V5, true), V5)));
        let (opcode, payload) = web.frame();
        assert_eq!((opcode, payload[0], payload[3]), (0x82, 0x20, 0), "CONNACK");
        web
    }

    /// Writes; the node may have closed before the last byte.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).expect("a byte comes");
        byte[0]
    }

    /// The answer to a request, to its empty line.
    fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.byte());
        }
        String::from_utf8(head).expect("answers are text")
    }

    /// A short frame of the node: its first byte and its payload.
    fn frame(&mut self) -> (u8, Vec<u8>) {
        let (first, length) = (self.byte(), self.byte());
        assert!(length < 126, "short, and without a mask");
        let mut payload = vec![0; usize::from(length)];
        self.0.read_exact(&mut payload).expect("a frame is whole");
        (first, payload)
    }

    /// The node's Close, and the end.
    fn close_code(&mut self) -> u16 {
        let (opcode, payload) = self.frame();
        assert_eq!(opcode, 0x88, "a Close: {payload:x?}");
        assert_eq!(self.rest(), b"", "nothing follows a Close");
        u16::from_be_bytes([payload[0], payload[1]])
    }

    /// All that comes until the node closes, which it must.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => rest,
            // What the node did not read before it closed makes the system reset.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("the node does not close: {error}, after {rest:x?}"),
        }
    }
}

/// A short frame of a client: its first byte and its payload.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("frames of these tests are short");
    assert!(length < 126);
    let mask = [0x11, 0x22, 0x33, 0x44];
    let mut out = vec![first, 0x80 | length];
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

fn started(site: &Site, settings: [&str; 1]) -> (Node, SocketAddr) {
    let ws = ports::free();
    let mut node = site.node("web").with(settings);
    node.args(["--listen", &format!("ws://{ws}")]);
    node.start();
    (node, ws)
}

#[test]
fn our_commands_speak_websocket() {
    let site = Site::new();
    let certificates = Certificates::of(&site, &["localhost", "127.0.0.1"]);
    let (ws, wss) = (ports::free(), ports::free());
    let mut node = certificates.given_to(site.node("web"));
    node.args(["--listen", &format!("ws://{ws}/a/b"), "--listen", &format!("wss://{wss}")]);
    node.start();
    assert!(node.ready_lines()[0].contains(&format!("ws://{ws}/a/b,wss://{wss}/mqtt")));
    let ca = ["--ca", &certificates.authority];
    let (plain, secure) = (format!("ws://{ws}/a/b"), format!("wss://{wss}"));
    let mut sub = site.verge(["sub", "--url", &plain, "-t", "a/#", "-q", "2", "-C", "3"]);
    let sub = Running::spawn(&mut sub);
    until("the subscription is there", || node.list("subscriptions").len() == 1);
    let text = "z".repeat(40_000);
    for message in ["one", &text] {
        let args = ["pub", "--url", &secure, "-t", "a/b", "-q", "2", "-m", message];
        output_of(site.verge(args).args(ca));
    }
    let mut client = Client::v5("plain");
    client.connect(node.mqtt);
    client.publish("a/c", "three", QoS::AtLeastOnce);
    let said = sub.output();
    let ends: Vec<&str> = said.lines().map(|line| &line[line.len() - 3..]).collect();
    assert_eq!(ends, ["one", "zzz", "ree"]);
    node.balances();
}

#[test]
fn a_connection_lives_and_ends_as_websocket_wants_it() {
    let site = Site::new();
    let (node, ws) = started(&site, ["session.connect_timeout=20s"]);
    let mut web = Web::connected(ws);
    let clients = node.list("clients");
    assert_eq!(clients[0]["listener"], format!("ws://{ws}/mqtt"));
    // PINGREQ, cut into three fragments with a ping between them [MQTT-6.0.0-2].
    web.send(&frame(0x02, &[0xC0]));
    web.send(&frame(0x89, b"there?"));
    assert_eq!(web.frame(), (0x8A, b"there?".to_vec()));
    web.send(&frame(0x00, &[]));
    web.send(&frame(0x80, &[0]));
    assert_eq!(web.frame(), (0x82, vec![0xD0, 0]), "PINGRESP");
    // Two packets in one frame.
    web.send(&frame(0x82, &[0xC0, 0, 0xC0, 0]));
    let mut answer = web.frame().1;
    while answer.len() < 4 {
        answer.extend(web.frame().1);
    }
    assert_eq!(answer, [0xD0, 0, 0xD0, 0]);
    web.send(&frame(0x88, &[0x03, 0xE8]));
    assert_eq!(web.close_code(), 1_000);
    until("the client is gone", || node.list("clients").is_empty());

    // DISCONNECT is answered by the node's Close.
    let mut web = Web::connected(ws);
    web.send(&frame(0x82, &[0xE0, 0]));
    assert_eq!(web.close_code(), 1_000);
}

#[test]
fn security_frames_that_no_client_may_send_end_the_connection_and_are_counted() {
    let site = Site::new();
    let (node, ws) = started(&site, ["session.packet_bytes_max=4096"]);
    let mut witness = Client::v5("witness");
    witness.connect(node.mqtt);
    witness.subscribe("w", QoS::AtLeastOnce);
    let huge = [&[0x82, 0xFF][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    let large = [&[0x82, 0xFF][..], &100_000_u64.to_be_bytes(), &[0; 4]].concat();
    for (what, bytes, code, label) in [
        ("text", frame(0x81, b"hello"), 1_003, "websocket_text_frame"),
        ("no mask", vec![0x82, 2, 0xC0, 0], 1_002, "websocket_unmasked_frame"),
        ("a frame of 2^64", huge, 1_009, "websocket_frame_too_large"),
        ("a frame above the packet limit", large, 1_009, "websocket_frame_too_large"),
        ("a reserved bit", frame(0xC2, b""), 1_002, "websocket_malformed_frame"),
        ("a reserved opcode", frame(0x83, b""), 1_002, "websocket_malformed_frame"),
        ("half a close code", frame(0x88, &[3]), 1_002, "websocket_malformed_frame"),
    ] {
        for before_connect in [true, false] {
            let before = node.closed_for(label);
            let mut web = if before_connect { Web::granted(ws) } else { Web::connected(ws) };
            web.send(&bytes);
            assert_eq!(web.close_code(), code, "{what}, before CONNECT: {before_connect}");
            until(&format!("{what} is counted"), || node.closed_for(label) == before + 1);
        }
    }
    until("only the witness is left", || node.list("clients").len() == 1);
    witness.publish("w", "still served", QoS::AtLeastOnce);
    assert_eq!(witness.next().text(), "still served");
}

#[test]
fn security_what_is_no_websocket_request_is_refused_with_one_line() {
    let site = Site::new();
    let (node, ws) = started(&site, ["session.connect_timeout=2s"]);
    let headers: String = (0..10_000).map(|number| format!("X-{number}: y\r\n")).collect();
    let after = |line: &str, text: &str| REQUEST.replacen(line, &format!("{line}{text}"), 1);
    for (what, request, status) in [
        ("another path", REQUEST.replace("/mqtt", "/other"), "404"),
        ("no subprotocol", REQUEST.replace("Protocol: mqtt", "Protocol: chat"), "400"),
        ("an old version", REQUEST.replace("Version: 13", "Version: 7"), "426"),
        ("a web page", "GET /mqtt HTTP/1.1\r\nHost: broker\r\n\r\n".to_owned(), "400"),
        ("a POST", REQUEST.replace("GET", "POST"), "400"),
        ("MQTT", "\x10\x0f\0\x04MQTT\x05\x02\0\x3c\0\0\x02me".to_owned(), "400"),
        ("10,000 headers", after("HTTP/1.1\r\n", &headers), "431"),
        ("a header of 64 KiB", after("Host: ", &"h".repeat(65_536)), "431"),
    ] {
        let before = node.closed_for("websocket_handshake");
        let mut web = Web::open(ws);
        web.send(request.as_bytes());
        // The node may have answered and gone already.
        let _ = web.0.shutdown(std::net::Shutdown::Write);
        let head = web.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {head}");
        let body = String::from_utf8(web.rest()).expect("it is text");
        assert!(body.ends_with('\n') && body.lines().count() == 1, "{what}: {body}");
        until(&format!("{what} is counted"), || {
            node.closed_for("websocket_handshake") == before + 1
        });
    }
    // A request that never ends is left when its time is over.
    let mut slow = Web::open(ws);
    slow.send(&REQUEST.as_bytes()[..60]);
    assert_eq!(slow.rest(), b"");
    until("it is counted", || node.closed_for("connect_timeout") == 1);
}

#[test]
fn security_a_page_of_another_machine_is_no_client_of_this_one() {
    let site = Site::new();
    let (node, ws) = started(&site, ["session.connect_timeout=20s"]);
    for (origin, reason) in [("http://localhost:8000", 0), ("https://evil.example", 0x87)] {
        let mut web = Web::open(ws);
        let host = format!("Origin: {origin}\r\nHost:");
        web.send(REQUEST.replace("Host:", &host).as_bytes());
        assert!(web.head().starts_with("HTTP/1.1 101 "));
        web.send(&frame(0x82, &bytes_of(&connect("page", V5, true), V5)));
        let connack = web.frame().1;
        assert_eq!(connack[..1], [0x20]);
        assert_eq!(connack[3], reason, "a page of {origin}");
    }
    drop(node);
}
