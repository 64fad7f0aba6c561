//! Clients that want more than their share: each case is answered as the standard says and counted,
//! the node's memory stays under a ceiling, and a publisher and a subscriber who behave get all
//! their messages in order meanwhile.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use verge_mqtt_proto::{DecodeLimits, Packet, ProtocolVersion, QoS, ReasonCode, decode};

use crate::bad_input::{Raw, packet, text};
use crate::client::Client;
use crate::node::Node;
use crate::ports;
use crate::programs::installed;
use crate::site::Site;
use crate::time::{SOON, now, until};

const V5: ProtocolVersion = ProtocolVersion::V5;

const MIB: u64 = 1024 * 1024;

/// Most memory a node of these tests may ever have: it begins with some 20 MiB, and thousands of
/// connections at once bring it to 50. A roadside unit has 512.
const RESIDENT_MAX: u64 = 128 * MIB;

/// A QoS 1 publisher and its subscriber, who go on while others misbehave.
struct Traffic {
    thread: Option<JoinHandle<()>>,
    count: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
}

impl Traffic {
    fn at(node: &Node) -> Self {
        let (count, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (mut publisher, mut subscriber) = (Client::v5("good-pub"), Client::v5("good-sub"));
        subscriber.connect(node.mqtt);
        subscriber.subscribe("good", QoS::AtLeastOnce);
        publisher.connect(node.mqtt);
        let (counts, until_then) = (Arc::clone(&count), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            while !until_then.load(Ordering::Relaxed) {
                let number = counts.load(Ordering::Relaxed).to_string();
                publisher.publish("good", &number, QoS::AtLeastOnce);
                publisher.settle();
                assert_eq!(subscriber.next().text(), number, "everything, in order");
                counts.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { thread: Some(thread), count, ends }
    }

    /// Messages go on: some that are sent from now on arrive.
    fn goes_on(&self) {
        let before = self.count.load(Ordering::Relaxed);
        until("others are served", || self.count.load(Ordering::Relaxed) >= before + 3);
    }

    /// Ends it, after a last look at the node.
    fn end(mut self, node: &mut Node, what: &str) {
        self.goes_on();
        self.ends.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it ends once");
        thread.join().expect("the well-behaved got everything");
        let resident = node.resident_bytes_peak();
        eprintln!(
            "{what}: {} MiB, {} messages",
            resident / MIB,
            self.count.load(Ordering::Relaxed)
        );
        assert!(resident < RESIDENT_MAX, "{what}: {} MiB", resident / MIB);
        assert!(node.is_running());
        node.balances();
    }
}

/// Reads packets until `wanted` says it has enough.
fn read_until(raw: &mut Raw, mut enough: impl FnMut(&Packet<'_>) -> bool) {
    use std::io::Read as _;
    let (mut input, deadline) = (Vec::new(), now() + SOON);
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let mut used = 0;
        while let Some((packet, size)) =
            decode(&input[used..], V5, &DecodeLimits::default()).expect("the node's are right")
        {
            used += size;
            if enough(&packet) {
                return;
            }
        }
        input.drain(..used);
        assert!(now() < deadline, "the node answers");
        let count = raw.0.read(&mut bytes).expect("the node answers");
        assert!(count > 0, "the node stays");
        input.extend_from_slice(&bytes[..count]);
    }
}

/// The reason of the DISCONNECT that ends a connection, after whatever came before it.
fn farewell(raw: &mut Raw) -> Option<ReasonCode> {
    let words = raw.last_words();
    let (mut rest, mut last) = (&words[..], None);
    while let Ok(Some((packet, size))) = decode(rest, V5, &DecodeLimits::default()) {
        if let Packet::Disconnect(disconnect) = packet {
            last = Some(disconnect.reason);
        }
        rest = &rest[size..];
    }
    last
}

/// A SUBSCRIBE without properties.
fn subscribe(id: u16, filters: impl Iterator<Item = String>, qos: u8) -> Vec<u8> {
    let mut body = [&id.to_be_bytes()[..], &[0]].concat();
    for filter in filters {
        body.extend_from_slice(&text(&filter));
        body.push(qos);
    }
    packet(0x82, &body)
}

/// A PUBLISH at QoS 1 without properties.
fn publish(first: u8, topic: &str, id: u16, payload: &[u8]) -> Vec<u8> {
    packet(first, &[&text(topic)[..], &id.to_be_bytes(), &[0], payload].concat())
}

#[test]
fn security_a_subscriber_that_never_reads_costs_its_queue_and_no_more() {
    let site = Site::new();
    let settings = ["queue.messages_max=500", "queue.bytes_max=4194304"];
    let mut node = site.node("patient").with(settings).started();
    let traffic = Traffic::at(&node);
    let mut deaf = Vec::new();
    for qos in [0, 1] {
        let mut raw = Raw::connected_as(&node, V5, 0, &format!("deaf-{qos}"));
        raw.send(&subscribe(1, std::iter::once("flood".to_owned()), qos));
        read_until(&mut raw, |packet| matches!(packet, Packet::Suback(_)));
        deaf.push(raw);
    }
    let mut flood = Client::v5("flood");
    flood.connect(node.mqtt);
    let payload = "x".repeat(64 * 1024);
    // 100 MiB.
    for _ in 0..100 {
        for _ in 0..16 {
            flood.publish("flood", &payload, QoS::AtLeastOnce);
        }
        flood.settle();
        traffic.goes_on();
    }
    until("QoS 0 is dropped and counted", || {
        node.metric("verge_messages_dropped_qos0_total", "output_full") > 500
    });
    let dropped = node.get("/api/v1/ledger").to_string();
    assert!(node.metric("verge_ledger_dropped_debts_total", "queue_full") > 500, "{dropped}");
    traffic.end(&mut node, "deaf subscribers");
}

#[test]
fn security_many_subscribers_that_never_read_share_what_they_may_cost() {
    let site = Site::new();
    let settings = ["queue.output_bytes_high=4194304", "queue.output_bytes_total=33554432"];
    let mut node = site.node("patient").with(settings).started();
    let traffic = Traffic::at(&node);
    let mut deaf = Vec::new();
    for number in 0..200 {
        let mut raw = Raw::connected_as(&node, V5, 0, &format!("deaf-{number}"));
        raw.send(&subscribe(1, std::iter::once("flood".to_owned()), 0));
        read_until(&mut raw, |packet| matches!(packet, Packet::Suback(_)));
        deaf.push(raw);
    }
    let mut flood = Client::v5("flood");
    flood.connect(node.mqtt);
    let payload = "x".repeat(64 * 1024);
    // 20 MiB for each of them, beyond what the kernel's buffers hold: 800 MiB if each had 4 MiB.
    for _ in 0..20 {
        for _ in 0..16 {
            flood.publish("flood", &payload, QoS::AtLeastOnce);
        }
        flood.settle();
        traffic.goes_on();
    }
    until("QoS 0 is dropped and counted", || {
        node.metric("verge_messages_dropped_qos0_total", "output_full") > 10_000
    });
    traffic.end(&mut node, "many deaf subscribers");
}

#[test]
fn security_the_largest_packets_are_taken_and_one_byte_more_is_not() {
    const LARGEST: usize = 1024 * 1024;
    let site = Site::new();
    let mut node = site.node("patient").started();
    let traffic = Traffic::at(&node);
    // Behind the fixed header, the topic, the packet identifier and the length of properties.
    let payload = vec![b'x'; LARGEST - 4 - 5 - 2 - 1];
    let mut raw = Raw::connected_as(&node, V5, 0, "large");
    for id in 1..=50 {
        let bytes = publish(0x32, "big", id, &payload);
        assert_eq!(bytes.len(), LARGEST);
        raw.send(&bytes);
        read_until(&mut raw, |packet| matches!(packet, Packet::Ack(_)));
    }
    traffic.goes_on();
    for number in 1..=20 {
        let mut raw = Raw::connected_as(&node, V5, 0, "larger");
        raw.send(&publish(0x32, "big", 1, &[&payload[..], b"y"].concat()));
        assert_eq!(farewell(&mut raw), Some(ReasonCode::PacketTooLarge));
        until("it is counted", || node.closed_for("packet_too_large") == number);
    }
    // The longest topic there is.
    let mut client = Client::v5("long");
    client.connect(node.mqtt);
    let topic = "t".repeat(usize::from(u16::MAX));
    assert_eq!(client.subscribe(&topic, QoS::AtLeastOnce), ReasonCode::GrantedQos1);
    client.publish(&topic, "here", QoS::AtLeastOnce);
    assert_eq!(client.next().topic.len(), topic.len());
    traffic.end(&mut node, "large packets");
}

/// Connections of another process, which may open as many files as the system allows.
fn crowd(node: &Node, count: u64, how: &str, traffic: &Traffic) -> (u64, u64) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/processes/crowd.py");
    let mut python = installed("python3");
    python.args([script, &node.mqtt.port().to_string(), &count.to_string(), how]);
    let mut crowd = python.stdout(Stdio::piped()).spawn().expect("python can be started");
    while crowd.try_wait().expect("a child can be waited for").is_none() {
        traffic.goes_on();
    }
    let output = crowd.wait_with_output().expect("a child can be waited for");
    assert!(output.status.success(), "none hangs");
    let text = String::from_utf8(output.stdout).expect("numbers");
    let (answered, closed) = text.trim().split_once(' ').expect("two numbers");
    (answered.parse().expect("a number"), closed.parse().expect("a number"))
}

#[test]
fn security_slow_and_silent_crowds_are_bounded_and_counted() {
    let site = Site::new();
    let mqtt = ports::free();
    let toml = format!(
        "[[listeners]]\nurl = \"tcp://{mqtt}\"\nconnecting_max = 512\n\
         [session]\nconnect_timeout = \"3s\"\n"
    );
    let mut node = site.configured("bounded", mqtt, &toml).started();
    let traffic = Traffic::at(&node);
    let ended =
        |node: &Node| node.closed_for("connecting_full") + node.closed_for("connect_timeout");
    let (answered, closed) = crowd(&node, 2_000, "slow", &traffic);
    assert_eq!((answered, closed), (0, 2_000));
    until("each is counted", || ended(&node) == 2_000);
    assert!(node.closed_for("connect_timeout") > 0 && node.closed_for("connecting_full") > 0);
    let (answered, closed) = crowd(&node, 5_000, "silent", &traffic);
    assert_eq!((answered, closed), (0, 5_000));
    until("each is counted", || ended(&node) == 7_000);
    traffic.end(&mut node, "slow and silent crowds");
}

#[test]
fn security_thousands_who_connect_at_once_are_served_or_refused() {
    const COUNT: u64 = 5_000;
    let site = Site::new();
    let mut node = site.node("crowded").started();
    let traffic = Traffic::at(&node);
    let before = node.metric("verge_connections_accepted_total", "");
    let (answered, closed) = crowd(&node, COUNT, "connect", &traffic);
    assert_eq!(answered + closed, COUNT);
    assert_eq!(node.metric("verge_connections_accepted_total", "") - before, answered);
    let refused = node.closed_for("connecting_full") + node.closed_for("connecting_address_full");
    assert_eq!(refused, closed);
    traffic.end(&mut node, "a crowd that connects");
}

#[test]
fn security_aliases_and_identifiers_out_of_place_end_the_connection_or_are_told() {
    let site = Site::new();
    let mut node = site.node("patient").started();
    let traffic = Traffic::at(&node);
    let alias = |topic: &str, alias: u16| {
        let properties = [&[3, 0x23][..], &alias.to_be_bytes()].concat();
        packet(0x30, &[&text(topic)[..], &properties].concat())
    };
    for (number, (what, bytes, reason)) in (1..).zip([
        ("alias 0", alias("a", 0), ReasonCode::TopicAliasInvalid),
        ("alias beyond the maximum", alias("a", 33), ReasonCode::TopicAliasInvalid),
        // "It is a Protocol Error": no mapping was set (3.3.4).
        ("an alias that was not set", alias("", 7), ReasonCode::ProtocolError),
    ]) {
        let mut raw = Raw::connected_as(&node, V5, 0, &format!("alias-{number}"));
        raw.send(&bytes);
        assert_eq!(farewell(&mut raw), Some(reason), "{what}");
        until("it is counted", || node.closed_for("topic_alias") == number);
    }
    let mut raw = Raw::connected_as(&node, V5, 0, "ids");
    // Acknowledgements of what was never sent, and ten thousand releases of nothing.
    for id in 1..=1_000_u16 {
        raw.send(&packet(0x40, &id.to_be_bytes()));
        raw.send(&packet(0x70, &id.to_be_bytes()));
    }
    let mut answers = 0;
    for _ in 0..10 {
        let burst: Vec<u8> =
            (1..=1_000_u16).flat_map(|id| packet(0x62, &id.to_be_bytes())).collect();
        raw.send(&burst);
        let wanted = answers + 1_000;
        read_until(&mut raw, |packet| {
            if let Packet::Ack(ack) = packet {
                assert_eq!(ack.reason, ReasonCode::PacketIdentifierNotFound);
                answers += 1;
            }
            answers == wanted
        });
        traffic.goes_on();
    }
    raw.send(&packet(0x62, &[0, 0]));
    assert!(farewell(&mut raw).is_some(), "packet identifier 0");
    traffic.end(&mut node, "identifiers");
}

#[test]
fn security_a_session_with_too_many_filters_is_told_and_counted() {
    let site = Site::new();
    let mut node = site.node("patient").started();
    let traffic = Traffic::at(&node);
    let mut raw = Raw::connected_as(&node, V5, 0, "greedy");
    let (mut granted, mut refused) = (0, 0);
    for packet_id in 1..=100_u16 {
        let filters = (0..1_000).map(|number| format!("greedy/{packet_id}/{number}"));
        raw.send(&subscribe(packet_id, filters, 0));
        read_until(&mut raw, |packet| {
            let Packet::Suback(suback) = packet else { return false };
            for code in suback.reasons.iter() {
                granted += u64::from(!code.is_error());
                refused += u64::from(code == ReasonCode::QuotaExceeded);
            }
            true
        });
        if packet_id % 10 == 0 {
            traffic.goes_on();
        }
    }
    assert_eq!((granted, refused), (10_000, 90_000));
    assert_eq!(node.metric("verge_subscriptions_refused_total", "Quota exceeded"), refused);
    traffic.end(&mut node, "100,000 filters");
}

#[test]
fn security_a_flood_of_retained_messages_and_who_asks_for_all_of_them_are_bounded() {
    let site = Site::new();
    let mut node = site.node("patient").with(["retained.messages_max=2000"]).started();
    let traffic = Traffic::at(&node);
    let mut raw = Raw::connected_as(&node, V5, 0, "hoarder");
    let (mut kept, mut refused) = (0_u64, 0_u64);
    for round in 0..50 {
        let burst: Vec<u8> = (1..=100)
            .flat_map(|id| publish(0x33, &format!("hoard/{round}/{id}"), id, &[b'x'; 1_000]))
            .collect();
        raw.send(&burst);
        let mut answers = 0;
        read_until(&mut raw, |packet| {
            if let Packet::Ack(ack) = packet {
                answers += 1;
                kept += u64::from(!ack.reason.is_error());
                refused += u64::from(ack.reason == ReasonCode::QuotaExceeded);
            }
            answers == 100
        });
    }
    assert_eq!((kept, refused), (2_000, 3_000), "the node's own topics take no room");
    assert_eq!(node.metric("verge_retained_refused_messages_total", ""), refused);
    assert_eq!(node.metric("verge_retained_messages", ""), 2_000);
    traffic.goes_on();
    // Twenty who subscribe to everything again and again, and do not read.
    let storm: Vec<u8> =
        (1..=500).flat_map(|id| subscribe(id, std::iter::once("#".to_owned()), 0)).collect();
    let stormers: Vec<Raw> = (0..20)
        .map(|number| {
            let mut raw = Raw::connected_as(&node, V5, 0, &format!("storm-{number}"));
            raw.send(&storm);
            raw
        })
        .collect();
    for _ in 0..20 {
        traffic.goes_on();
    }
    until("what nobody reads is dropped and counted", || {
        node.metric("verge_messages_dropped_qos0_total", "output_full") > 0
    });
    drop(stormers);
    traffic.end(&mut node, "retained messages");
}
