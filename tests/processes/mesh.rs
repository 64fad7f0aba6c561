//! Nodes that find each other, forward, and say what they know.

use serde_json::Value;
use verge_mqtt_proto::QoS;

use crate::book::{Received, Sent};
use crate::client::Client;
use crate::node::{linked, routed};
use crate::ports;
use crate::site::Site;
use crate::time::{millis, now, pause, until};

const EVERY_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

#[test]
fn messages_are_forwarded_at_every_qos_and_in_order() {
    let site = Site::new();
    let a = site.mesh_node("a", "rsu", &[]).started();
    let b = site.mesh_node("b", "rsu", &[&a]).started();
    linked(&[&a, &b]);
    let mut sub = Client::v5("sub");
    sub.connect(b.mqtt);
    sub.subscribe("far/+/#", QoS::ExactlyOnce);
    routed(&a, "far/+/#", &b);

    let mut publisher = Client::v4("pub");
    publisher.connect(a.mqtt);
    for qos in EVERY_QOS {
        let topic = format!("far/qos{}", qos.bits());
        for number in 1..=100 {
            publisher.publish(&topic, &number.to_string(), qos);
            publisher.work(millis(1));
        }
        publisher.settle();
        for number in 1..=100 {
            let message = sub.next();
            assert_eq!((&*message.topic, message.text()), (&*topic, &*number.to_string()));
            assert_eq!(message.qos, qos);
        }
    }
    assert_eq!(a.metric("verge_forward_sent_messages_total", ""), 300);
    assert!(b.metric("verge_forward_received_messages_total", "") >= 200);
    for node in [&a, &b] {
        node.balances();
    }
}

#[test]
fn a_local_subscription_gets_what_is_published_at_its_node() {
    let site = Site::new();
    let a = site.mesh_node("a", "rsu", &[]).started();
    let b = site.mesh_node("b", "rsu", &[&a]).started();
    linked(&[&a, &b]);
    let mut sub = Client::v5("sub");
    sub.connect(b.mqtt);
    sub.subscribe("$local/here", QoS::AtLeastOnce);
    sub.subscribe("both", QoS::AtLeastOnce);
    routed(&a, "both", &b);
    let mut publisher = Client::v5("pub");
    publisher.connect(a.mqtt);
    publisher.publish("here", "at a", QoS::AtLeastOnce);
    publisher.publish("both", "from a", QoS::AtLeastOnce);
    publisher.settle();
    assert_eq!(sub.next().text(), "from a", "what is published at a is not local to b");
    let mut here = Client::v5("here");
    here.connect(b.mqtt);
    here.publish("here", "at b", QoS::AtLeastOnce);
    assert_eq!(sub.next().text(), "at b");
}

#[test]
fn what_waits_in_a_forward_log_arrives_after_both_nodes_were_killed() {
    let site = Site::new();
    let mut a = site.mesh_node("a", "rsu", &[]).started();
    let mut b = site.mesh_node("b", "rsu", &[&a]).started();
    linked(&[&a, &b]);
    let mut sub = Client::v5("sub");
    sub.connect(b.mqtt);
    sub.subscribe("late/#", QoS::ExactlyOnce);
    routed(&a, "late/#", &b);
    b.kill();

    let mut publisher = Client::v5("pub");
    publisher.connect(a.mqtt);
    for number in 1..=50 {
        publisher.publish("late/1", &number.to_string(), QoS::AtLeastOnce);
        publisher.publish("late/2", &number.to_string(), QoS::ExactlyOnce);
    }
    publisher.settle();
    a.kill();
    a.start();
    b.start();
    assert!(sub.connect(b.mqtt));
    let mut received = Received::default();
    for _ in 1..=100 {
        received.add(&sub.next());
    }
    sub.work(millis(300));
    assert_eq!(sub.take(), None, "each message once");
    let sent = Sent::from(["late/1", "late/2"].map(|topic| (topic.to_owned(), 50)));
    received.against(&sent).is_none("sub");
    for node in [&a, &b] {
        node.balances();
    }
}

#[test]
fn ctl_shows_nodes_clients_sessions_routes_and_the_ledger() {
    let site = Site::new();
    let mut a = site.mesh_node("rsu-a", "rsu", &[]);
    a.args(["--position", "48.10,11.50", "--region", "south"]);
    a.start();
    let mut b = site.mesh_node("region-b", "regional", &[&a]);
    b.args(["--region", "south"]);
    b.start();
    linked(&[&a, &b]);
    let mut sub = Client::v5("vehicle-1");
    sub.connect(a.mqtt);
    sub.subscribe("road/#", QoS::AtLeastOnce);
    let mut parked = Client::v4("vehicle-2");
    parked.connect(a.mqtt);
    parked.subscribe("parking", QoS::ExactlyOnce);
    parked.disconnect();
    let mut publisher = Client::v5("pub");
    publisher.connect(a.mqtt);
    publisher.publish_with("parking", "ticket", QoS::AtLeastOnce, true);
    publisher.settle();
    routed(&b, "road/#", &a);
    until("the vehicle is parked", || a.list("clients").len() == 2);

    let rows = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let nodes = a.ctl(["nodes"]);
    assert!(nodes.starts_with("NODE"), "{nodes}");
    assert_eq!(rows(&nodes).len(), 2, "{nodes}");
    let own = nodes.lines().find(|line| line.starts_with("rsu-a")).expect("its own row");
    for word in ["rsu", "south", "alive", "48.1", &a.mqtt.to_string()] {
        assert!(own.contains(word), "{word}: {own}");
    }
    let clients = a.ctl(["clients"]);
    assert!(clients.contains("vehicle-1") && !clients.contains("vehicle-2"), "{clients}");
    let sessions = a.ctl(["sessions"]);
    let row = |name: &str| rows(&sessions).into_iter().find(|row| row.starts_with(name));
    assert!(row("vehicle-1").is_some_and(|row| row.contains("connected")), "{sessions}");
    assert!(row("vehicle-2").is_some_and(|row| row.contains("parked")), "{sessions}");
    let routes = b.ctl(["routes"]);
    assert!(rows(&routes).iter().any(|row| row.contains("road/#") && row.contains("rsu-a")));
    let subscriptions = a.ctl(["subscriptions"]);
    assert!(subscriptions.contains("parking"), "{subscriptions}");
    assert!(a.ctl(["retained"]).contains("parking"));
    let ledger = a.ctl(["ledger"]);
    let value = |name: &str| {
        let line = ledger.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().last()).map(str::to_owned)
    };
    assert_eq!(value("balance").as_deref(), Some("0"), "{ledger}");
    assert_eq!(value("held").as_deref(), Some("1"), "{ledger}");
    assert_eq!(value("opened.accepted").as_deref(), Some("1"), "{ledger}");

    for what in ["nodes", "clients", "sessions", "subscriptions", "routes", "retained"] {
        let json: Value = serde_json::from_str(&a.ctl([what, "--json"])).expect("JSON");
        let items = json["items"].as_array().expect("items");
        assert_eq!(json["total"], items.len(), "{what}");
        assert_eq!(items.len(), rows(&a.ctl([what])).len(), "{what}");
    }
    let json: Value = serde_json::from_str(&a.ctl(["ledger", "--json"])).expect("JSON");
    assert_eq!(json, a.get("/api/v1/ledger"));
    let nearest = b.get("/api/v1/nearest?lat=48.1&lon=11.5");
    assert_eq!(nearest[0]["node_id"], "rsu-a", "{nearest}");

    a.ctl(["kick", "vehicle-1"]);
    sub.work(millis(50));
    until("the vehicle is sent away", || {
        sub.work(millis(50));
        !sub.is_connected()
    });
    assert!(sub.connect(a.mqtt), "and may come back");
    a.ctl(["drain"]);
    until("the node has ended", || !a.is_running());
}

#[test]
fn joining_keeps_trying_an_address_that_does_not_answer() {
    let site = Site::new();
    let mut seed = site.mesh_node("seed", "rsu", &[]);
    let node = site.mesh_node("eager", "rsu", &[&seed]).started();
    let addr = seed.mesh_addr().to_string();
    until("it says that nobody answers there", || node.log().contains(&addr));
    assert_eq!(node.list("members").len(), 1);
    let mut client = Client::v5("local");
    client.connect(node.mqtt);
    client.subscribe("x", QoS::AtLeastOnce);
    client.publish("x", "served alone", QoS::AtLeastOnce);
    assert_eq!(client.next().text(), "served alone");
    seed.start();
    linked(&[&seed, &node]);
}

#[test]
fn security_a_node_of_another_authority_is_refused() {
    let site = Site::new();
    let node = site.mesh_node("ours", "rsu", &[]).started();
    let stranger = site.mesh_node("stranger", "rsu", &[&node]).at_home(site.path("elsewhere"));
    let stranger = stranger.started();
    let addr = node.mesh_addr().to_string();
    until("the stranger says so", || stranger.log().contains(&addr));
    let end = now() + millis(3_000);
    while now() < end {
        for each in [&node, &stranger] {
            assert_eq!(each.list("members").len(), 1, "{}", each.name);
        }
        pause(millis(100));
    }
    assert_eq!(node.metric("verge_link_ups_total", ""), 0);
}

#[test]
fn security_a_datagram_of_garbage_does_not_disturb_a_mesh() {
    let site = Site::new();
    let a = site.mesh_node("a", "rsu", &[]).started();
    let b = site.mesh_node("b", "rsu", &[&a]).started();
    linked(&[&a, &b]);
    let socket = std::net::UdpSocket::bind(ports::free()).expect("a port that is free");
    for length in [0_usize, 1, 20, 100, 1_200, 9_000] {
        for fill in [0_u8, 0x40, 0xC3, 0xFF] {
            let sent = socket.send_to(&vec![fill; length], a.mesh_addr());
            sent.expect("loopback takes datagrams");
        }
    }
    linked(&[&a, &b]);
    assert_eq!(a.metric("verge_link_downs_total", ""), 0);
}
