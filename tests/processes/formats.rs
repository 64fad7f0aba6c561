//! Data directories of earlier versions, opened by this one.
//!
//! `tests/golden/make.py` made them and says what is in them; they are opened as copies. Payloads
//! are numbers in their topic, as everywhere in these tests.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use bytes::BytesMut;
use verge_mqtt_proto::{
    Ack, AckKind, DecodeLimits, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS,
    ReasonCode, decode,
};

use crate::book::{Received, Sent};
use crate::client::{Client, bytes_of, connect};
use crate::node::linked;
use crate::site::Site;
use crate::time::{SOON, millis, now, until};

/// Every format before this version's, and this version's as it first was.
const FORMATS: [&str; 1] = ["format-1"];

/// What [`FORMATS`]' `alone` owes `q1` and `q2`, by topic.
const OWED: [(&str, u64); 8] = [
    ("a/first", 20),
    ("a/half", 1),
    ("a/lasting", 1),
    ("a/large", 1),
    ("a/later", 1),
    ("a/properties", 1),
    ("a/urgent", 1),
    ("a/will", 1),
];

#[test]
fn every_message_in_a_directory_of_an_earlier_format_is_delivered_once() {
    for format in FORMATS {
        let site = Site::new();
        copy(format, "alone", &site);
        let mut node = site.node("alone").started();
        let at = node.mqtt;
        assert_eq!(node.get("/api/v1/node")["incarnation"], 3, "{format}");
        node.balances();
        assert_eq!(node.get("/api/v1/ledger")["uplink"]["pending"], 5, "{format}");

        finish_half(at);

        let owed = Sent::from(OWED.map(|(topic, last)| (topic.to_owned(), last)));
        let clients = [Client::v5("q1"), Client::v4("q2")];
        for mut client in clients {
            received(&mut client, at, &owed).against(&owed).is_none(&format!("{format} q"));
        }

        // 1 and 2 come again under their ids; of 3 only PUBREL was owed.
        let again: Sent = [1, 2, 4, 5, 6].map(|n| (format!("busy/{n}"), n)).into();
        let mut busy = Client::v5("busy");
        assert!(busy.connect(at));
        for (topic, number) in &again {
            let message = busy.next();
            assert_eq!((&message.topic, message.text()), (topic, &*number.to_string()), "{format}");
        }
        let (mut g1, mut g2) = (Client::v5("g1"), Client::v5("g2"));
        let mut jobs = Vec::new();
        for member in [&mut g1, &mut g2] {
            assert!(member.connect(at));
            member.work(millis(300));
            while let Some(job) = member.take() {
                jobs.push(job.text().parse::<u64>().expect("a number"));
            }
        }
        jobs.sort_unstable();
        assert_eq!(jobs, [1, 2, 3, 4, 5, 6], "{format}: a group's jobs, to either");

        let mut late = Client::v5("late");
        late.connect(at);
        late.subscribe("r/#", QoS::AtLeastOnce);
        let mut retained: Vec<_> =
            (0..4).map(|_| late.next()).map(|m| format!("{} {}", m.topic, m.text())).collect();
        retained.sort();
        let wanted = ["r/1 retained again", "r/3 retained 3", "r/4 retained 4", "r/5 retained 5"];
        assert_eq!(retained, wanted, "{format}");

        until("everything is settled", || node.get("/api/v1/ledger")["held"] == 0);
        node.balances();
        assert_eq!(node.get("/api/v1/ledger")["settled"]["expired"], 2, "{format}: a/stale, twice");
        // It is of the present format now.
        node.kill();
        node.start();
        node.balances();
        assert_eq!(node.get("/api/v1/ledger")["held"], 0, "{format}");
    }
}

#[test]
fn a_handover_that_an_earlier_format_interrupted_comes_to_its_end() {
    for format in FORMATS {
        let site = Site::new();
        copy(format, "road-a", &site);
        copy(format, "road-b", &site);
        let b = site.mesh_node("road-b", "regional", &[]).started();
        let a = site.mesh_node("road-a", "rsu", &[&b]).started();
        linked(&[&a, &b]);
        let mut mover = Client::v5("mover");
        assert!(mover.connect(b.mqtt), "{format}");
        let owed = Sent::from([("move/x".to_owned(), 200)]);
        received(&mut mover, b.mqtt, &owed).against(&owed).is_none("mover");
        let mut waiter = Client::v5("waiter");
        let owed = Sent::from([("to-b/x".to_owned(), 10)]);
        received(&mut waiter, b.mqtt, &owed).against(&owed).is_none("waiter");
        let retained = |node: &crate::node::Node| node.list("retained").len() == 1;
        until("the retained message is everywhere", || retained(&a) && retained(&b));
        a.balances();
        b.balances();
    }
}

/// Sends the publication again for which `half` had no PUBREC, and then its PUBREL: it is known by its
/// packet id. [MQTT-4.3.3-10]
fn finish_half(at: SocketAddr) {
    const V5: ProtocolVersion = ProtocolVersion::V5;
    let packet_id = PacketId::new(77).expect("a packet id");
    let again = Publish {
        dup: true,
        qos: QoS::ExactlyOnce,
        retain: false,
        topic: "a/half",
        packet_id: Some(packet_id),
        properties: PublishProperties::default(),
        payload: b"1",
    };
    let release = Ack::new(AckKind::Pubrel, packet_id, ReasonCode::Success);
    let mut stream = TcpStream::connect(at).expect("the node listens");
    stream.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    for bytes in
        [bytes_of(&connect("half", V5, false), V5), bytes_of(&again, V5), bytes_of(&release, V5)]
    {
        stream.write_all(&bytes).expect("the node listens");
    }
    let mut input = BytesMut::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the node answers");
        input.extend_from_slice(&byte);
        match decode(&input, V5, &DecodeLimits::default()).expect("the node keeps the protocol") {
            Some((Packet::Connack(connack), _)) => assert!(connack.session_present, "half's"),
            Some((Packet::Ack(ack), _)) => {
                assert_eq!((ack.packet_id, ack.reason), (packet_id, ReasonCode::Success));
                if ack.kind == AckKind::Pubcomp {
                    return;
                }
            }
            Some((packet, _)) => panic!("half does not expect {packet:?}"),
            None => continue,
        }
        input.clear();
    }
}

/// All that comes to a client whose session is there.
fn received(client: &mut Client, at: SocketAddr, owed: &Sent) -> Received {
    let mut received = Received::default();
    assert!(client.is_connected() || client.connect(at), "{}: the session is gone", client.id());
    let deadline = now() + SOON;
    while !received.has_all(owed) && now() < deadline {
        client.work(millis(50));
        while let Some(message) = client.take() {
            received.add(&message);
        }
    }
    // What should not come has time to.
    client.work(millis(300));
    while let Some(message) = client.take() {
        received.add(&message);
    }
    received
}

/// Copies a directory to where the node of its name has its own.
fn copy(format: &str, name: &str, site: &Site) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format).join(name);
    let to = site.path(&format!("{name}.data"));
    fs::create_dir(&to).expect("a directory can be made");
    for file in fs::read_dir(from).expect("the directory of the format is there") {
        let file = file.expect("a directory can be read").path();
        let name = file.file_name().expect("a file has a name");
        fs::copy(&file, to.join(name)).expect("a file can be copied");
    }
}
