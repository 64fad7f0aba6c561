//! MQTT over QUIC: an independent stack (aioquic, from PyPI) with hand-made MQTT bytes, in
//! `quic_scenarios.py`, and `verge pub` and `verge sub`.

mod many;
mod streams;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::node::Node;
use crate::ports;
use crate::programs::{Running, output_of, refusal_of, run};
use crate::python::python_with;
use crate::site::Site;
use crate::time::{eventually, until};

/// What is installed from PyPI.
const AIOQUIC: &str = "aioquic==1.7.2";

/// Handshakes that are begun and left, more than the 512 that a node takes from unproven addresses.
const HALF_OPEN: u64 = 600;

/// Clients that fall silent after their handshake.
const SILENT: u64 = 50;

/// A node with a `quic://` listener, and what its clients trust.
struct Road {
    site: Site,
    node: Node,
    quic: SocketAddr,
    ca: String,
}

impl Road {
    /// A node that is not started.
    fn new() -> Self {
        let site = Site::new();
        let (ca, certs) = (text(&site, "ca"), text(&site, "certs"));
        output_of(&mut site.verge(["pki", "init", "--ca", &ca]));
        let kind = ["pki", "issue", "server", "localhost", "127.0.0.1"];
        output_of(site.verge(kind).args(["--ca", &ca, "--out", &certs]));
        let quic = ports::free();
        let mut node = site.node("road").with([
            &format!("tls.cert={certs}/localhost.pem"),
            &format!("tls.key={certs}/localhost.key"),
        ]);
        node.args(["--listen", &format!("quic://{quic}")]);
        let ca = format!("{certs}/ca.pem");
        Self { site, node, quic, ca }
    }

    /// A node whose `quic://` listener has these lines in its section, and is at `host`.
    fn configured(host: &str, lines: &str) -> Self {
        let mut road = Self::new();
        let (mqtt, port) = (road.node.mqtt, road.quic.port());
        let toml = format!(
            "[[listeners]]\nurl = \"tcp://{mqtt}\"\n[[listeners]]\nurl = \"quic://{host}:{port}\"\n\
             {lines}\n[tls]\ncert = \"{certs}/localhost.pem\"\nkey = \"{certs}/localhost.key\"\n",
            certs = text(&road.site, "certs"),
        );
        road.node = road.site.configured("road", mqtt, &toml);
        road
    }

    fn started() -> Self {
        let mut road = Self::new();
        road.node.start();
        road
    }

    /// Certificate and key of a client.
    fn identity(&self, name: &str) -> [String; 2] {
        let out = text(&self.site, "clients");
        let ca = text(&self.site, "ca");
        let issue = ["pki", "issue", "client", name, "--ca", &ca, "--out", &out];
        output_of(&mut self.site.verge(issue));
        [format!("{out}/{name}.pem"), format!("{out}/{name}.key")]
    }

    fn script(&self, script: &str, args: &[&str]) -> Command {
        let script = format!("{}/processes/{script}.py", env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(python_with(AIOQUIC));
        command.args([script, self.quic.port().to_string(), self.ca.clone()]).args(args);
        command
    }

    /// Runs a scenario to its end.
    fn scenario(&self, args: &[&str]) {
        let said = output_of(&mut self.script("quic_scenarios", args));
        assert!(said.ends_with("ok\n"), "{said}");
    }

    /// A client of our own.
    fn client<const N: usize>(&self, what: &str, args: [&str; N]) -> Command {
        let url = format!("quic://localhost:{}", self.quic.port());
        let mut command = self.site.verge([what, "--url", &url, "--ca", &self.ca]);
        command.args(args);
        command
    }
}

fn text(site: &Site, name: &str) -> String {
    site.path(name).display().to_string()
}

/// A scenario that says a line and waits to be told to go on.
struct Talk {
    child: Running,
    said: BufReader<std::process::ChildStdout>,
}

impl Talk {
    fn with(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python can be started");
        let said = BufReader::new(child.stdout.take().expect("the output is piped"));
        Self { child: Running(child), said }
    }

    /// The next line it says.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("programs print text");
        line.trim_end().to_owned()
    }

    /// Lets it go on.
    fn go_on(&mut self) {
        let stdin = self.child.0.stdin.as_mut().expect("the input is piped");
        stdin.write_all(b"\n").expect("the scenario waits");
    }
}

#[test]
fn quic_carries_every_qos_on_one_stream() {
    let road = Road::started();
    road.scenario(&["qos"]);
    road.node.balances();
}

#[test]
fn quic_connections_end_as_mqtt_says_and_in_order() {
    let road = Road::started();
    road.scenario(&["ends"]);
    road.scenario(&["keep_alive"]);
    assert_eq!(road.node.closed_for("keep_alive_timeout"), 1);
}

#[test]
fn quic_clients_hear_that_the_node_goes_down() {
    let mut road = Road::started();
    // On whatever shard they are.
    let mut clients = ["a", "b", "c", "d"]
        .map(|name| Talk::with(road.script("quic_scenarios", &["going_down", name])));
    for client in &mut clients {
        assert_eq!(client.line(), "connected");
    }
    assert!(road.node.terminate().success());
    for client in &mut clients {
        assert_eq!(client.line(), "ok");
    }
}

#[test]
fn quic_resumes_with_early_data_once_security() {
    Road::started().scenario(&["early"]);
}

#[test]
fn quic_clients_may_move_and_not_too_often_security() {
    let road = Road::started();
    let mut roamer = Talk::with(road.script("quic_scenarios", &["migrates"]));
    let port = roamer.line();
    let port = port.strip_prefix("port ").expect("a port is said");
    let clients = road.node.list("clients");
    assert_eq!(clients[0]["peer"], format!("127.0.0.1:{port}"), "{clients:?}");
    assert_eq!(clients[0]["listener"], format!("quic://{}", road.quic));
    roamer.go_on();
    assert_eq!(roamer.line(), "ok");
    road.scenario(&["moves_too_often"]);
    assert_eq!(road.node.closed_for("quic_migrations"), 1);
}

#[test]
fn quic_clients_show_certificates_security() {
    for mode in ["required", "optional"] {
        let mut road = Road::new();
        let [car, car_key] = road.identity("car-7");
        let [thief, thief_key] = road.identity("thief");
        let ca = text(&road.site, "ca");
        output_of(&mut road.site.verge(["pki", "revoke", &thief, "--ca", &ca]));
        for setting in [
            format!("tls.client_ca={ca}/ca.pem"),
            format!("tls.client_crl={ca}/crl.pem"),
            format!("tls.client_certificate={mode}"),
        ] {
            road.node.args(["--set", &setting]);
        }
        road.node.start();
        let args = ["certificates", mode, &car, &car_key, &thief, &thief_key];
        let mut talk = Talk::with(road.script("quic_scenarios", &args));
        assert_eq!(talk.line(), "connected");
        let clients = road.node.list("clients");
        assert_eq!(clients[0]["client"], "car-7/car", "{clients:?}");
        talk.go_on();
        assert_eq!(talk.line(), "ok");
        assert!(road.node.closed_for("tls_handshake") > 0);
    }
}

#[test]
fn quic_tickets_of_revoked_certificates_are_worth_nothing_security() {
    let mut road = Road::new();
    let [car, car_key] = road.identity("car-7");
    let ca = text(&road.site, "ca");
    for setting in [
        format!("tls.client_ca={ca}/ca.pem"),
        format!("tls.client_crl={ca}/crl.pem"),
        "tls.client_certificate=required".to_owned(),
    ] {
        road.node.args(["--set", &setting]);
    }
    road.node.start();
    let mut talk = Talk::with(road.script("quic_scenarios", &["revoked_later", &car, &car_key]));
    assert_eq!(talk.line(), "connected");
    output_of(&mut road.site.verge(["pki", "revoke", &car, "--ca", &ca]));
    road.node.ctl(["reload"]);
    talk.go_on();
    assert_eq!(talk.line(), "ok");
    assert!(road.node.closed_for("tls_handshake") >= 2);
}

#[test]
fn quic_refuses_other_protocols_and_garbage_security() {
    let road = Road::started();
    road.scenario(&["wrong_alpn"]);
    assert_eq!(road.node.closed_for("tls_handshake"), 2);
    road.scenario(&["garbage"]);
    assert_eq!(road.node.closed_for("connect_expected"), 2);
    road.scenario(&["qos"]);
}

#[test]
fn quic_clients_that_fall_silent_are_closed_security() {
    let mut road = Road::new();
    road.node.args(["--set", "session.connect_timeout=1s"]);
    road.node.start();
    road.scenario(&["silent", &SILENT.to_string()]);
    assert_eq!(road.node.closed_for("connect_timeout"), SILENT);
    road.scenario(&["qos"]);
}

#[test]
fn quic_asks_for_addresses_when_many_handshakes_are_open_security() {
    let mut road = Road::new();
    // None of them times out before there are enough.
    road.node.args(["--set", "session.connect_timeout=5m"]);
    road.node.start();
    road.scenario(&["half_open", &HALF_OPEN.to_string()]);
}

#[test]
fn quic_handshakes_are_bounded_and_counted_security() {
    let mut road = Road::configured("127.0.0.1", "connecting_max = 20");
    road.node.args(["--set", "session.connect_timeout=5m"]);
    road.node.start();
    road.scenario(&["too_many", "20"]);
    // A client that is refused may ask more than once.
    assert!(road.node.closed_for("connecting_full") > 0);
}

#[test]
fn quic_clients_of_one_address_are_bounded_and_told_security() {
    let mut road = Road::configured("127.0.0.1", "connecting_per_address_max = 3");
    road.node.start();
    road.scenario(&["overloaded", "3"]);
    assert_eq!(road.node.closed_for("connecting_address_full"), 1);
}

#[test]
fn quic_clients_beyond_the_rate_are_told_and_counted_security() {
    let mut road = Road::configured("127.0.0.1", "connect_rate_max = 1");
    road.node.start();
    road.scenario(&["too_fast"]);
    let refused = road.node.metric("verge_connections_refused_total", "Connection rate exceeded");
    assert_eq!(refused, 2);
    assert_eq!(road.node.closed_for("connection_rate"), 2);
}

#[test]
fn quic_serves_both_families_of_addresses_on_one_socket() {
    let mut road = Road::configured("[::]", "");
    road.node.start();
    let mut talk = Talk::with(road.script("quic_scenarios", &["families"]));
    assert_eq!(talk.line(), "connected");
    let mut peers: Vec<String> = road.node.list("clients").iter().map(peer_of).collect();
    peers.sort();
    assert!(peers[0].starts_with("127.0.0.1:") && peers[1].starts_with("[::1]:"), "{peers:?}");
    talk.go_on();
    assert_eq!(talk.line(), "ok");
}

fn peer_of(client: &serde_json::Value) -> String {
    client["peer"].as_str().expect("a client has an address").to_owned()
}

#[test]
fn quic_clients_outlive_a_reload_that_closes_their_listener() {
    let mut road = Road::configured("127.0.0.1", "");
    road.node.start();
    let mut stays = Talk::with(road.script("quic_scenarios", &["reloaded"]));
    assert_eq!(stays.line(), "connected");
    let (mqtt, quic) = (road.node.mqtt, road.quic);
    let certs = text(&road.site, "certs");
    let tls = format!("[tls]\ncert = \"{certs}/localhost.pem\"\nkey = \"{certs}/localhost.key\"\n");
    // Other terms first, for clients to come.
    let listener = format!("[[listeners]]\nurl = \"tcp://{mqtt}\"\n");
    let again = format!("[[listeners]]\nurl = \"quic://{quic}\"\nconnections_max = 1\n");
    road.site.configure("road", &format!("{listener}{again}{tls}"));
    road.node.ctl(["reload"]);
    assert!(road.node.log().contains(&format!("listener quic://{quic}: other limits")));
    let client = || run(&mut road.client("pub", ["-t", "r", "-m", "x"]));
    assert!(!client().status.success(), "the one place is taken");
    road.site.configure("road", &format!("{listener}{tls}"));
    road.node.ctl(["reload"]);
    let closed = format!("listener quic://{quic}: closed, its clients stay");
    assert!(road.node.log().contains(&closed));
    assert!(!client().status.success(), "nobody else comes in");
    stays.go_on();
    assert_eq!(stays.line(), "served");
    stays.go_on();
    assert_eq!(stays.line(), "ok");
    // The port is free with the last of them.
    road.site
        .configure("road", &format!("{listener}[[listeners]]\nurl = \"quic://{quic}\"\n{tls}"));
    let admin = road.node.admin.to_string();
    eventually("it listens again", || {
        let done = run(&mut road.site.verge(["ctl", "reload", "--admin", &admin]));
        done.status.success().then_some(())
    });
    assert!(client().status.success());
}

#[test]
fn quic_keep_alives_are_what_its_idle_timeout_holds() {
    let mut road = Road::new();
    road.node.args(["--set", "session.keep_alive_max=2h"]);
    road.node.start();
    road.scenario(&["longest_keep_alive"]);
}

#[test]
fn quic_clients_of_a_restarted_node_learn_at_once_that_their_connection_is_gone() {
    let mut road = Road::started();
    let secret = || std::fs::read(road.site.path("road.data/quic.key")).expect("there is a key");
    let before = secret();
    let mut sub = road.client("sub", ["-t", "a", "-k", "4"]);
    let sub = Running::spawn(&mut sub);
    until("it is subscribed", || !road.node.list("subscriptions").is_empty());
    road.node.kill();
    road.node.start();
    assert_eq!(secret(), before);
    // At its next ping, by the token that only this node can make.
    let said = sub.complaint();
    assert!(said.contains("reset by peer"), "{said}");
}

#[test]
fn verge_pub_and_sub_speak_quic() {
    let road = Road::started();
    let sub = ["-t", "quic/#", "-q", "2", "-C", "4", "-W", "30", "-v"];
    let sub = Running::spawn(&mut road.client("sub", sub));
    until("it is subscribed", || !road.node.list("subscriptions").is_empty());
    for qos in ["0", "1", "2"] {
        output_of(&mut road.client("pub", ["-t", "quic/a", "-m", qos, "-q", qos]));
    }
    // Over TCP comes the same.
    let url = format!("tcp://{}", road.node.mqtt);
    output_of(&mut road.site.verge(["pub", "--url", &url, "-t", "quic/tcp", "-m", "3", "-q", "1"]));
    assert_eq!(sub.output(), "quic/a 0\nquic/a 1\nquic/a 2\nquic/tcp 3\n");

    // A large message, in many packets.
    let large = "x".repeat(60_000);
    std::fs::write(road.site.path("large"), &large).expect("a file can be written");
    let sub = ["-t", "large", "-q", "1", "-C", "1", "-W", "30"];
    let sub = Running::spawn(&mut road.client("sub", sub));
    until("it is subscribed", || !road.node.list("subscriptions").is_empty());
    let file = text(&road.site, "large");
    output_of(&mut road.client("pub", ["-t", "large", "-f", &file, "-q", "1"]));
    assert_eq!(sub.output().trim_end(), large);
    road.node.balances();
}

#[test]
fn verge_trusts_no_stranger_over_quic_security() {
    let road = Road::started();
    let other = text(&road.site, "other");
    output_of(&mut road.site.verge(["pki", "init", "--ca", &other]));
    let (url, ca) = (format!("quic://{}", road.quic), format!("{other}/ca.pem"));
    let line = ["pub", "--url", &url, "--ca", &ca, "-t", "a", "-m", "x"];
    let said = refusal_of(&mut road.site.verge(line), 1);
    assert!(said.contains("UnknownIssuer"), "{said}");
    assert!(run(&mut road.client("pub", ["-t", "a", "-m", "x"])).status.success());
}
