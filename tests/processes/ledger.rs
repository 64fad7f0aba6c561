//! The books that a node and a mesh show.

use serde_json::{Value, json};
use verge_mqtt_proto::QoS;

use crate::client::Client;
use crate::node::{linked, routed};
use crate::site::Site;
use crate::time::until;

#[test]
fn the_ledger_tells_classes_holders_and_what_waits() {
    let site = Site::new();
    let mqtt = crate::ports::free();
    let toml = format!(
        "[[listeners]]\nurl = \"tcp://{mqtt}\"\n[queue]\nmessages_max = 20\n\
         [[topics]]\nfilter = \"warn/#\"\nclass = \"safety\"\n\
         [uplink]\nselect = [\"up/#\"]\n"
    );
    let node = site.configured("books", mqtt, &toml).started();
    for (name, filter) in [("many", "warn/#"), ("large", "large"), ("none", "other")] {
        let mut client = Client::v5(name);
        client.connect(mqtt);
        client.subscribe(filter, QoS::AtLeastOnce);
        client.disconnect();
    }
    let mut publisher = Client::v5("publisher");
    publisher.connect(mqtt);
    for number in 1..=25 {
        publisher.publish("warn/a", &number.to_string(), QoS::AtLeastOnce);
        publisher.settle();
    }
    publisher.publish("large", &"x".repeat(50_000), QoS::AtLeastOnce);
    publisher.publish("up/x", "1", QoS::AtLeastOnce);
    publisher.publish("$delayed/3600/later", "1", QoS::AtLeastOnce);
    publisher.settle();
    node.balances();

    let ledger = node.get("/api/v1/ledger");
    let safety = &ledger["classes"]["safety"];
    assert_eq!((&safety["held"], &safety["balance"]), (&20.into(), &0.into()), "{ledger}");
    assert_eq!(safety["settled"]["dropped"]["queue_full"], 5, "{ledger}");
    assert_eq!(ledger["classes"]["telemetry"]["held"], 1, "{ledger}");
    assert_eq!((&ledger["held"], &ledger["imbalance"]), (&21.into(), &Value::Null), "{ledger}");
    let first = |list: &str| ledger["holders"][list][0]["client"].clone();
    assert_eq!((first("by_messages"), first("by_bytes")), (json!("many"), json!("large")));
    assert_eq!(ledger["holders"]["by_messages"].as_array().map(Vec::len), Some(2), "{ledger}");
    let waiting = &ledger["waiting"];
    let waits = ["forward_messages", "uplink_messages", "delayed_messages"];
    assert_eq!(waits.map(|name| waiting[name].as_u64()), [Some(0), Some(1), Some(1)], "{ledger}");
    assert_eq!(node.metric("verge_ledger_dropped_debts_total", "class=\"safety\""), 5);
    assert_eq!(node.metric("verge_ledger_imbalance_debts", ""), 0);
    assert_eq!(node.get("/api/v1/node")["warnings"], json!([]));
    assert!(node.ctl(["ledger"]).contains("most bytes:"), "{}", node.ctl(["ledger"]));
}

#[test]
fn the_ledger_of_a_mesh_is_that_of_all_nodes() {
    let site = Site::new();
    let a = site.mesh_node("a", "rsu", &[]).started();
    let mut b = site.mesh_node("b", "rsu", &[&a]).started();
    linked(&[&a, &b]);
    let mut vehicle = Client::v5("vehicle");
    vehicle.connect(a.mqtt);
    vehicle.subscribe("v", QoS::ExactlyOnce);
    vehicle.disconnect();
    let mut other = Client::v5("other");
    other.connect(b.mqtt);
    other.subscribe("o", QoS::AtLeastOnce);
    other.disconnect();
    routed(&b, "v", &a);
    routed(&a, "o", &b);
    let mut publisher = Client::v5("publisher");
    publisher.connect(a.mqtt);
    for number in 1..=5 {
        publisher.publish("v", &number.to_string(), QoS::ExactlyOnce);
    }
    publisher.publish("o", "1", QoS::AtLeastOnce);
    publisher.settle();
    vehicle.connect(b.mqtt);
    for number in 1..=5 {
        assert_eq!(vehicle.next().text(), number.to_string());
    }
    until("the session has moved with all it was owed", || {
        let mesh = a.get("/api/v1/ledger?scope=mesh");
        let handover = &mesh["handover"];
        let moved = ["handed_over", "imported", "unconfirmed", "in_transit"];
        moved.map(|name| handover[name].as_i64()) == [Some(5), Some(5), Some(0), Some(0)]
            && mesh["balance"] == 0
            && mesh["held"] == 1
    });
    let mesh = b.get("/api/v1/ledger?scope=mesh");
    let names: Vec<_> =
        mesh["nodes"].as_array().expect("nodes").iter().map(|n| &n["node_id"]).collect();
    assert_eq!(names, ["a", "b"], "{mesh}");
    assert_eq!(mesh["holders"]["by_messages"][0]["node"], "b", "{mesh}");
    let text = a.ctl(["ledger", "--mesh"]);
    assert!(text.contains("handover.imported  5"), "{text}");

    b.kill();
    publisher.publish("o", "2", QoS::AtLeastOnce);
    publisher.settle();
    until("what cannot be asked is named", || {
        let mesh = a.get("/api/v1/ledger?scope=mesh");
        let waiting = &mesh["waiting"]["forward"][0];
        mesh["unanswered"][0]["node_id"] == "b"
            && (&waiting["node"], &waiting["messages"]) == (&json!("b"), &json!(1))
    });
}

#[test]
fn drops_are_told_by_reason_and_class() {
    let site = Site::new();
    let mqtt = crate::ports::free();
    let toml = format!(
        "[[listeners]]\nurl = \"tcp://{mqtt}\"\n[queue]\nmessages_max = 5\n\
         [[topics]]\nfilter = \"warn/#\"\nclass = \"safety\"\n\
         [events]\non = [\"dropped\"]\n"
    );
    let node = site.configured("drops", mqtt, &toml).started();
    let mut witness = Client::v5("witness");
    witness.connect(mqtt);
    witness.subscribe("$SYS/brokers/drops/dropped/#", QoS::AtLeastOnce);
    let mut away = Client::v5("away");
    away.connect(mqtt);
    away.subscribe("warn/#", QoS::AtLeastOnce);
    away.disconnect();
    let mut publisher = Client::v5("publisher");
    publisher.connect(mqtt);
    for number in 1..=8 {
        publisher.publish("warn/owed", &number.to_string(), QoS::AtLeastOnce);
        publisher.publish("warn/not-owed", &number.to_string(), QoS::AtMostOnce);
        publisher.settle();
    }
    let mut told = std::collections::BTreeMap::new();
    until("every drop is told", || {
        witness.work(crate::time::millis(50));
        while let Some(message) = witness.take() {
            let said: Value = serde_json::from_slice(&message.payload).expect("JSON");
            assert_eq!((&said["clientid"], &said["class"]), (&json!("away"), &json!("safety")));
            *told.entry(message.topic).or_insert(0) += said["count"].as_u64().expect("a count");
        }
        told.get("$SYS/brokers/drops/dropped/queue_full/safety") == Some(&3)
            && told.get("$SYS/brokers/drops/dropped/qos0_away/safety") == Some(&8)
    });
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(node.metric("verge_messages_dropped_qos0_total", "reason=\"away\""), 8);
    assert_eq!(node.metric("verge_ledger_dropped_debts_total", "class=\"safety\""), 3);
}
