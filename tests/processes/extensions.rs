//! What goes beyond the standard, as its users see it.

use serde_json::json;
use verge_mqtt_proto::{QoS, ReasonCode};

use crate::client::{Client, Message};
use crate::node::{linked, routed};
use crate::site::Site;
use crate::time::{millis, now, until};

fn connected(id: &str, to: std::net::SocketAddr) -> Client {
    let mut client = Client::v5(id);
    client.connect(to);
    client
}

#[test]
fn a_group_gets_each_message_once_though_members_vanish() {
    let site = Site::new();
    let a = site.mesh_node("a", "rsu", &[]).with(["shared.redeliver=connection-lost"]).started();
    let b = site.mesh_node("b", "rsu", &[&a]).started();
    linked(&[&a, &b]);
    let filter = "$share/workers/jobs/#";
    let mut members =
        [connected("one", a.mqtt), connected("two", a.mqtt), connected("far", b.mqtt)];
    for member in &mut members {
        member.subscribe(filter, QoS::ExactlyOnce);
    }
    routed(&a, filter, &b);
    let mut publisher = connected("pub", a.mqtt);
    for number in 0..60 {
        publisher.publish("jobs/x", &number.to_string(), QoS::AtLeastOnce);
        if number == 30 {
            members[0].vanish();
        }
        publisher.work(millis(1));
    }
    publisher.settle();
    let mut got = std::collections::BTreeSet::new();
    let started = now();
    while got.len() < 60 && started.elapsed() < crate::time::SOON {
        for member in &mut members {
            if member.is_connected() {
                member.work(millis(10));
            }
            while let Some(message) = member.take() {
                got.insert(message.text().to_owned());
            }
        }
    }
    let missing: Vec<_> = (0..60).filter(|number| !got.contains(&number.to_string())).collect();
    assert!(missing.is_empty(), "nothing is lost: {missing:?}");
    for node in [&a, &b] {
        node.balances();
    }
}

#[test]
fn an_exclusive_filter_is_refused_to_a_second_client() {
    let site = Site::new();
    let node = site.node("single").started();
    let (mut first, mut second) = (connected("first", node.mqtt), connected("second", node.mqtt));
    assert_eq!(first.subscribe("$exclusive/t", QoS::AtLeastOnce), ReasonCode::GrantedQos1);
    assert_eq!(second.subscribe("$exclusive/t", QoS::AtLeastOnce), ReasonCode::QuotaExceeded);
    second.publish("t", "m", QoS::AtLeastOnce);
    second.settle();
    assert_eq!(first.next().text(), "m");
    assert_eq!(node.metric("verge_exclusive_refused_total", ""), 1);
}

#[test]
fn topics_are_rewritten_and_clients_are_subscribed_as_configured() {
    let site = Site::new();
    let rewrite = r#"rewrite=[{action="all",filter="x/#",regex="^x/(.+)$",destination="y/%c/$1"}]"#;
    let auto = r#"auto_subscribe=[{filter="inbox/${clientid}",qos=1}]"#;
    let node = site.node("single").with([rewrite, auto]).started();
    let (mut car, mut other) = (connected("car", node.mqtt), connected("other", node.mqtt));
    other.publish("inbox/car", "hello", QoS::AtLeastOnce);
    other.settle();
    assert_eq!(car.next().text(), "hello");
    car.subscribe("x/a", QoS::AtMostOnce);
    let filters: Vec<_> = node.list("subscriptions").iter().map(|s| s["filter"].clone()).collect();
    assert!(filters.contains(&json!("y/car/a")), "{filters:?}");
    car.publish("x/a", "mine", QoS::AtMostOnce);
    other.publish("x/a", "not mine", QoS::AtMostOnce);
    other.publish("y/car/a", "to it", QoS::AtMostOnce);
    let mut got = [car.next(), car.next()].map(|message| message.text().to_owned());
    got.sort();
    assert_eq!(got, ["mine", "to it"]);
}

#[test]
fn a_delayed_message_outlives_sigkill_and_is_published_once() {
    let site = Site::new();
    let mut node = site.node("single").started();
    let mut sub = connected("sub", node.mqtt);
    sub.subscribe("later/+", QoS::ExactlyOnce);
    let mut publisher = connected("pub", node.mqtt);
    publisher.publish("$delayed/3/later/a", "kept", QoS::ExactlyOnce);
    publisher.publish("$delayed/4000000/later/b", "much later", QoS::AtLeastOnce);
    publisher.settle();
    let listed = node.list("delayed");
    assert_eq!((listed.len(), &listed[0]["topic"]), (2, &json!("later/a")));
    assert_eq!(listed[0]["client_id"], "pub");
    node.kill();
    node.start();
    sub.connect(node.mqtt);
    let message = sub.next();
    assert_eq!((&*message.topic, message.text()), ("later/a", "kept"));
    until("its row is gone", || node.list("delayed").len() == 1);
    node.kill();
    node.start();
    sub.connect(node.mqtt);
    sub.work(millis(300));
    assert_eq!(sub.take(), None);
    assert_eq!(node.list("delayed")[0]["topic"], "later/b");
    node.balances();
}

#[test]
fn the_node_says_how_it_is_and_what_its_clients_do() {
    let site = Site::new();
    let on = r#"events.on=["connected","disconnected","subscribed","unsubscribed"]"#;
    let node = site.node("single").with(["sys.interval=1s", on]).started();
    let mut watcher = connected("watcher", node.mqtt);
    watcher.subscribe("$SYS/brokers/single/clients/car/#", QoS::AtMostOnce);
    let mut car = connected("car", node.mqtt);
    car.subscribe("t/#", QoS::AtLeastOnce);
    car.disconnect();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let message = watcher.next();
        let payload: serde_json::Value = serde_json::from_str(message.text()).expect("JSON");
        assert_eq!(payload["clientid"], "car");
        seen.push((message.topic.rsplit('/').next().expect("a level").to_owned(), payload));
    }
    let names: Vec<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["connected", "subscribed", "disconnected"]);
    assert_eq!(seen[0].1["proto_ver"], 5);
    assert_eq!((&seen[1].1["topic"], &seen[1].1["qos"]), (&json!("t/#"), &json!(1)));
    assert_eq!(node.metric("verge_client_events_total", ""), 5);

    let mut late = connected("late", node.mqtt);
    late.subscribe("$SYS/broker/clients/connected", QoS::AtMostOnce);
    let first = late.next();
    assert!(first.text().parse::<u64>().is_ok(), "{}", first.text());
    until("the next value counts this client", || {
        late.work(millis(100));
        std::iter::from_fn(|| late.take()).any(|message| message.text() == "2")
    });
    late.publish("$SYS/broker/clients/connected", "99", QoS::AtMostOnce);
    until("it is refused", || node.metric("verge_sys_publish_refused_total", "") == 1);
    assert!(!node.list("retained").iter().any(|kept| kept["topic"] == "$SYS/broker/version"));
}

#[test]
fn topics_are_counted_for_who_asks() {
    let site = Site::new();
    let node = site.node("single").with(["topic_metrics.topics=from/file"]).started();
    assert_eq!(node.send("POST", "/api/v1/topic-metrics", &json!({"topic": "a/b"})), 201);
    assert_eq!(node.send("POST", "/api/v1/topic-metrics", &json!({"topic": "a/b"})), 409);
    assert_eq!(node.send("POST", "/api/v1/topic-metrics", &json!({"topic": "a/#"})), 400);
    let mut client = connected("c", node.mqtt);
    client.subscribe("a/b", QoS::AtLeastOnce);
    client.publish("a/b", "12345", QoS::AtLeastOnce);
    client.publish("a/b", "123", QoS::AtMostOnce);
    client.publish("a/c", "1", QoS::AtLeastOnce);
    client.settle();
    // What is stored first comes after what is not.
    let mut got = [client.next(), client.next()];
    got.sort_by_key(|message| message.payload.len());
    let stored = Message { qos: QoS::AtLeastOnce, ..Message::of("a/b", "12345") };
    assert_eq!(got, [Message::of("a/b", "123"), stored]);
    let one = node.get("/api/v1/topic-metrics/a%2Fb");
    assert_eq!((&one["messages_in"], &one["bytes_in"]), (&json!([1, 1, 0]), &json!(8)));
    assert_eq!((&one["messages_out"], &one["bytes_out"]), (&json!([1, 1, 0]), &json!(8)));
    let topics: Vec<_> = node.list("topic-metrics").iter().map(|t| t["topic"].clone()).collect();
    assert_eq!(topics, [json!("a/b"), json!("from/file")]);
    let nothing = serde_json::Value::Null;
    assert_eq!(node.send("DELETE", "/api/v1/topic-metrics/a%2Fb", &nothing), 200);
    assert_eq!(node.send("DELETE", "/api/v1/topic-metrics/a%2Fb", &nothing), 404);
    assert_eq!(node.status("/api/v1/topic-metrics/a%2Fb"), Some(404));
}

#[test]
fn what_is_promised_follows_whose_session_it_is() {
    let site = Site::new();
    let mqtt = crate::ports::free();
    let toml = format!(
        "[[listeners]]\nurl = \"tcp://{mqtt}\"\n\
         [[sessions]]\nclients = \"light-*\"\npromise = \"synced\"\n"
    );
    let node = site.configured("promising", mqtt, &toml).started();
    let mut owed = Client::v5("owed");
    owed.connect(mqtt);
    owed.subscribe("p", QoS::AtLeastOnce);
    owed.disconnect();
    let fsyncs = || node.metric("verge_storage_fsyncs_total", "");
    let published = |name: &str| {
        let mut client = Client::v5(name);
        client.connect(mqtt);
        let before = fsyncs();
        for number in 1..=5 {
            client.publish("p", &number.to_string(), QoS::AtLeastOnce);
            client.settle();
        }
        fsyncs() - before
    };
    assert_eq!(published("camera-1"), 0, "buffered, as the node's storage");
    assert_eq!(published("light-1"), 5, "each acknowledgement waits for the disk");
}
