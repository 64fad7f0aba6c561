//! Users with passwords: `verge passwd`, User Name and Password, and SCRAM.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::BytesMut;
use ring::{digest, hmac, pbkdf2};
use verge_mqtt_proto::{
    Auth, Connect, ConnectProperties, DecodeLimits, Packet, ProtocolVersion, ReasonCode, decode,
};

use crate::node::Node;
use crate::programs::{Running, installed, output_of, refusal_of, run};
use crate::site::Site;
use crate::time::{SOON, until};

const METHOD: &str = "SCRAM-SHA-256";

#[test]
fn security_users_have_passwords_that_are_not_in_the_file() {
    let site = Site::new();
    passwd(&site, "car-7", "wunder bar");
    let file = site.path("users");
    let mode = std::fs::metadata(&file).expect("it was made").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).expect("it is text");
    assert!(text.contains("car-7:SCRAM-SHA-256$") && !text.contains("wunder"), "{text}");

    let node = node(&site).started();
    assert!(publishes(&node, "mqttv5", &["-u", "car-7", "-P", "wunder bar"]));
    assert!(publishes(&node, "mqttv311", &["-u", "car-7", "-P", "wunder bar"]));
    for version in ["mqttv5", "mqttv311"] {
        assert!(!publishes(&node, version, &["-u", "car-7", "-P", "wrong"]), "{version}");
        assert!(!publishes(&node, version, &["-u", "ghost", "-P", "wunder bar"]), "{version}");
        assert!(!publishes(&node, version, &[]), "{version}");
    }
    let failed = node.metric("verge_authentications_failed_total", "means=\"password\"");
    assert_eq!(failed, 4);
    // A user that comes later, and another password, count without a restart.
    passwd(&site, "car-8", "neu");
    until("the file is read", || publishes(&node, "mqttv5", &["-u", "car-8", "-P", "neu"]));
    assert!(publishes(&node, "mqttv5", &["-u", "car-7", "-P", "wunder bar"]));
    passwd(&site, "car-7", "anders");
    until("the file is read", || publishes(&node, "mqttv5", &["-u", "car-7", "-P", "anders"]));
    assert!(!publishes(&node, "mqttv5", &["-u", "car-7", "-P", "wunder bar"]));
}

#[test]
fn a_client_proves_that_it_knows_the_password_mqtt_4_12_0_1() {
    let site = Site::new();
    passwd(&site, "car-7", "wunderbar");
    let node = node(&site).started();
    for (password, reason) in
        [("wunderbar", ReasonCode::Success), ("wrong", ReasonCode::NotAuthorized)]
    {
        assert_eq!(scram(&node, "car-7", password), reason);
        assert_eq!(scram(&node, "ghost", password), ReasonCode::NotAuthorized);
    }
}

#[test]
fn verge_pub_and_sub_prove_a_password_and_ask_the_server_to() {
    let site = Site::new();
    passwd(&site, "car=7,b", "wunder bar");
    let node = node(&site).started();
    let url = format!("tcp://{}", node.mqtt);
    let client = |what: &str, password: &str, rest: &[&str]| {
        let mut command = site.verge([what, "--url", &url, "--scram", "-u", "car=7,b"]);
        command.args(["-P", password, "-t", "s"]).args(rest);
        command
    };
    let sub = ["-C", "1", "-W", "30", "-i", "listener"];
    let sub = Running::spawn(&mut client("sub", "wunder bar", &sub));
    until("it is subscribed", || !node.list("subscriptions").is_empty());
    let clients = node.list("clients");
    assert_eq!(clients[0]["client"], "car=7,b/listener", "{clients:?}");
    output_of(&mut client("pub", "wunder bar", &["-m", "proven", "-q", "1"]));
    assert_eq!(sub.output(), "proven\n");
    let said = refusal_of(&mut client("pub", "wrong", &["-m", "x"]), 1);
    assert!(said.contains("refused: Not authorized"), "{said}");
    // Where nobody knows the password, nobody is believed: not even a node that lets all in.
    let open = site.node("open").started();
    let url = format!("tcp://{}", open.mqtt);
    let mut command = site.verge(["pub", "--url", &url, "--scram", "-u", "car", "-P", "x"]);
    let said = refusal_of(command.args(["-t", "s", "-m", "x"]), 1);
    assert!(said.contains("Bad authentication method"), "{said}");
}

#[test]
fn a_file_of_users_that_cannot_be_used_is_named() {
    let site = Site::new();
    let start = |path: &str| {
        let setting = format!("auth.users_file={path}");
        let mut command = site.verge(["run", "--listen", "tcp://127.0.0.1:0"]);
        refusal_of(command.args(["--admin", "127.0.0.1:0", "--set", &setting]), 2)
    };
    let said = start("/no/such/users");
    assert!(said.contains("auth.users_file") && said.contains("/no/such/users"), "{said}");
    let broken = site.path("broken");
    std::fs::write(&broken, "car-7:plain\n").expect("a file can be written");
    let owner_only = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&broken, owner_only).expect("it is ours");
    let said = start("broken");
    assert!(said.contains("auth.users_file") && said.contains("line 1"), "{said}");
    let said = refusal_of(&mut site.verge(["passwd", "users", "a\u{7}"]), 2);
    assert!(said.contains("no user name"), "{said}");
    let said = refusal_of(&mut site.verge(["passwd", "users", "a"]), 2);
    assert!(said.contains("the password is empty"), "{said}");
}

#[test]
fn security_a_client_that_publishes_too_fast_is_told_and_counted() {
    let site = Site::new();
    let node = site.node("strict").with(["session.publish_rate_max=2"]).started();
    assert!(publishes(&node, "mqttv5", &[]));
    let args = ["-h", "127.0.0.1", "-p", &node.mqtt.port().to_string(), "-t", "t", "-m", "m"];
    let mut command: Command = installed("mosquitto_pub");
    // A message every millisecond, as often as it may connect again.
    command.args(args).args(["--repeat", "50", "--repeat-delay", "0.001"]);
    run(&mut command);
    until("it was counted", || node.closed_for("server") > 0);
}

fn node(site: &Site) -> Node {
    let path = site.path("users").display().to_string();
    site.node("users").with([&format!("auth.users_file={path}"), "auth.allow_anonymous=never"])
}

/// Runs `verge passwd` with the password on standard input.
fn passwd(site: &Site, user: &str, password: &str) {
    let mut command = site.verge(["passwd", "users", user, "--iterations", "4096"]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("verge can be started");
    let mut stdin = child.stdin.take().expect("it is piped");
    writeln!(stdin, "{password}").expect("a line fits into a pipe");
    drop(stdin);
    assert!(child.wait().expect("a child can be waited for").success());
}

fn publishes(node: &Node, version: &str, credentials: &[&str]) -> bool {
    let mut command: Command = installed("mosquitto_pub");
    let port = node.mqtt.port().to_string();
    command.args(["-h", "127.0.0.1", "-p", &port, "-V", version, "-t", "t", "-m", "m", "-q", "1"]);
    run(command.args(credentials)).status.success()
}

/// Connects by SCRAM; the reason of CONNACK.
fn scram(node: &Node, user: &str, password: &str) -> ReasonCode {
    let bare = format!("n={user},r=rOprNGfwEbeRWgbNEkqO");
    let first = format!("n,,{bare}");
    let mut stream = TcpStream::connect(node.mqtt).expect("the node listens");
    stream.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    let properties = ConnectProperties {
        authentication_method: Some(METHOD),
        authentication_data: Some(first.as_bytes()),
        ..ConnectProperties::default()
    };
    let connect = Connect {
        version: ProtocolVersion::V5,
        is_bridge: false,
        clean_start: true,
        keep_alive_secs: 60,
        client_id: "scram",
        will: None,
        username: None,
        password: None,
        properties,
    };
    send(&mut stream, &Packet::Connect(connect));
    let mut input = Vec::new();
    let (size, last) = receive(&mut stream, &mut input, |packet| {
        let Packet::Auth(auth) = packet else { panic!("no challenge but {packet:?}") };
        assert_eq!(auth.reason, ReasonCode::ContinueAuthentication);
        client_final(password, &bare, auth.authentication_data.expect("a challenge"))
    });
    input.drain(..size);
    let auth = Auth {
        authentication_method: Some(METHOD),
        authentication_data: Some(last.as_bytes()),
        ..Auth::new(ReasonCode::ContinueAuthentication)
    };
    send(&mut stream, &Packet::Auth(auth));
    let (_, reason) = receive(&mut stream, &mut input, |packet| {
        let Packet::Connack(connack) = packet else { panic!("no CONNACK but {packet:?}") };
        let proof = connack.properties.authentication_data;
        let is_proved = proof.is_some_and(|data| data.starts_with(b"v="));
        assert_eq!(is_proved, connack.reason == ReasonCode::Success);
        connack.reason
    });
    reason
}

fn send(stream: &mut TcpStream, packet: &Packet<'_>) {
    let mut out = BytesMut::new();
    packet.encode(ProtocolVersion::V5, &mut out).expect("a valid packet");
    stream.write_all(&out).expect("the node reads");
}

/// What `look` makes of the next packet, and the packet's size.
fn receive<T>(
    stream: &mut TcpStream,
    input: &mut Vec<u8>,
    look: impl Fn(&Packet<'_>) -> T,
) -> (usize, T) {
    loop {
        let decoded = decode(input, ProtocolVersion::V5, &DecodeLimits::default());
        if let Some((packet, size)) = decoded.expect("the node writes valid packets") {
            return (size, look(&packet));
        }
        let mut piece = [0; 1_024];
        let count = stream.read(&mut piece).expect("the node answers");
        assert!(count > 0, "the connection ended");
        input.extend_from_slice(&piece[..count]);
    }
}

/// The client's last message (RFC 5802, 3).
fn client_final(password: &str, bare: &str, challenge: &[u8]) -> String {
    let challenge = std::str::from_utf8(challenge).expect("SCRAM is text");
    let values: Vec<&str> = challenge.split(',').map(|attribute| &attribute[2..]).collect();
    let &[nonce, salt, iterations] = &values[..] else { panic!("{challenge}") };
    let key = |bytes: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
    let mut salted = [0; 32];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        iterations.parse().expect("a number"),
        &BASE64.decode(salt).expect("base64"),
        password.as_bytes(),
        &mut salted,
    );
    let client_key = hmac::sign(&key(&salted), b"Client Key");
    let stored = digest::digest(&digest::SHA256, client_key.as_ref());
    let unproved = format!("c=biws,r={nonce}");
    let signed = format!("{bare},{challenge},{unproved}");
    let signature = hmac::sign(&key(stored.as_ref()), signed.as_bytes());
    let both = client_key.as_ref().iter().zip(signature.as_ref());
    let proof: Vec<u8> = both.map(|(a, b)| a ^ b).collect();
    format!("{unproved},p={}", BASE64.encode(proof))
}
