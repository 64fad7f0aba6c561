//! More CONNECTs than a listener takes in a second, and more clients of one address on their way.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};

use verge_mqtt_proto::{QoS, ReasonCode};

use crate::certificates::Certificates;
use crate::client::{Client, NoConnection};
use crate::ports;
use crate::programs::run;
use crate::site::Site;
use crate::time::{SOON, until};

/// What the metrics call it.
const REFUSED: &str = "Connection rate exceeded";

/// Connects one after the other until one is refused; the reason.
fn until_refused(of: fn(&str) -> Client, at: SocketAddr) -> ReasonCode {
    for number in 0..10_000 {
        let mut client = of(&format!("c-{number}"));
        match client.try_connect(at) {
            Ok(_) => client.disconnect(),
            Err(NoConnection::Refused(reason)) => return reason,
            Err(NoConnection::Gone) => panic!("it is told why"),
        }
    }
    panic!("ten thousand connected");
}

#[test]
fn security_connects_beyond_a_listeners_rate_are_told_and_counted() {
    let site = Site::new();
    let (mqtt, slow, ws, tls) = (ports::free(), ports::free(), ports::free(), ports::free());
    let certificates = Certificates::of(&site, &["localhost"]);
    let limited = |url: &str| format!("[[listeners]]\nurl = \"{url}\"\nconnect_rate_max = 1\n");
    let toml = format!(
        "[[listeners]]\nurl = \"tcp://{mqtt}\"\n{}{}{}",
        limited(&format!("tcp://{slow}")),
        limited(&format!("ws://{ws}/mqtt")),
        limited(&format!("tls://{tls}")),
    );
    let node = certificates.given_to(site.configured("slow", mqtt, &toml)).started();
    let mut stays = Client::v5("stays");
    until("one in a second is served", || stays.try_connect(slow).is_ok());
    stays.subscribe("s", QoS::AtLeastOnce);
    let before = node.metric("verge_connections_refused_total", REFUSED);
    assert_eq!(until_refused(Client::v5, slow), ReasonCode::ConnectionRateExceeded);
    // 0x03: 3.1.1 has no other word for it.
    assert_eq!(until_refused(Client::v4, slow), ReasonCode::ServerUnavailable);
    let refused = || node.metric("verge_connections_refused_total", REFUSED);
    assert!(refused() >= before + 2, "{}", refused());
    // Their connections are closed when they have read that, or a moment later.
    until("each is closed", || node.closed_for("connection_rate") == refused());

    // Over other transports, in their framing.
    for url in
        [format!("ws://localhost:{}/mqtt", ws.port()), format!("tls://localhost:{}", tls.port())]
    {
        until("one is refused", || {
            let mut command = site.verge(["pub", "--url", &url, "--ca", &certificates.authority]);
            let output = run(command.args(["-t", "a", "-m", "x"]));
            let said = String::from_utf8_lossy(&output.stderr);
            !output.status.success() && said.contains(REFUSED)
        });
    }

    // Who is served, and who comes by another listener, notices nothing.
    stays.publish("s", "here", QoS::AtLeastOnce);
    assert_eq!(stays.next().text(), "here");
    for number in 0..50 {
        Client::v5(&format!("other-{number}")).connect(mqtt);
    }
    let mut late = Client::v5("late");
    until("a second is over", || late.try_connect(slow).is_ok());
    node.balances();
}

#[test]
fn security_one_address_cannot_take_all_places_of_clients_on_their_way() {
    let site = Site::new();
    let mqtt = ports::free();
    let toml = format!(
        "[[listeners]]\nurl = \"tcp://{mqtt}\"\nconnecting_max = 8\n\
         connecting_per_address_max = 4\n[session]\nconnect_timeout = \"5m\"\n"
    );
    let node = site.configured("shared", mqtt, &toml).started();
    let silent: Vec<TcpStream> =
        (0..4).map(|_| TcpStream::connect(mqtt).expect("the node listens")).collect();
    let mut beyond = TcpStream::connect(mqtt).expect("the system answers");
    beyond.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    let ended = beyond.read(&mut [0]);
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    until("it is counted", || node.closed_for("connecting_address_full") == 1);
    drop(silent);
    let mut late = Client::v5("late");
    until("places are given back", || late.try_connect(mqtt).is_ok());
}
