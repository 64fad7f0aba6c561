//! A node's backup, taken while it works, is a node with all that was acknowledged before.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};
use verge_mqtt_proto::QoS;

use crate::book::{Received, Sent};
use crate::client::Client;
use crate::programs::{output_of, refusal_of};
use crate::site::Site;
use crate::time::{SOON, millis, now, pause};

/// Messages under way at once.
const WINDOW: usize = 24;

/// Publishes numbers until told to stop; `acknowledged` is told the last one that all before it
/// and itself are acknowledged.
fn publish(at: std::net::SocketAddr, topic: &str, qos: QoS, stop: &AtomicBool) -> u64 {
    let mut client = Client::v5(&format!("publisher of {}", topic.replace('/', "-")));
    client.connect(at);
    let mut last = 0;
    while !stop.load(Ordering::Acquire) {
        if client.unacknowledged() < WINDOW {
            last += 1;
            client.publish(topic, &last.to_string(), qos);
        }
        client.work(millis(1));
    }
    client.settle();
    last
}

#[test]
fn a_backup_taken_while_messages_flow_has_all_that_was_acknowledged() {
    let site = Site::new();
    let mut node = site.node("kept").started();
    let at = node.mqtt;
    let mut subscribers = [Client::v5("s1"), Client::v4("s2")];
    for subscriber in &mut subscribers {
        subscriber.connect(at);
        subscriber.subscribe("kept/#", QoS::ExactlyOnce);
        subscriber.disconnect();
    }
    let mut publisher = Client::v5("publisher");
    publisher.connect(at);
    publisher.publish_with("sign", "50 km/h", QoS::AtLeastOnce, true);
    // Acknowledged before: all of it is in the backup.
    for number in 1..=500 {
        publisher.publish("kept/before", &number.to_string(), QoS::ExactlyOnce);
        while publisher.unacknowledged() >= WINDOW {
            publisher.work(millis(1));
        }
    }
    publisher.settle();
    let (dir, stop) = (site.path("backup"), AtomicBool::new(false));
    let during = thread::scope(|scope| {
        let flows = scope.spawn(|| publish(at, "kept/during", QoS::ExactlyOnce, &stop));
        pause(millis(300));
        let said = node.ctl(["backup", &dir.display().to_string()]);
        assert!(said.contains("node_id") && said.contains("kept"), "{said}");
        pause(millis(300));
        stop.store(true, Ordering::Release);
        flows.join().expect("a publisher")
    });
    let manifest: Value = serde_json::from_slice(
        &fs::read(dir.join("verge-backup.json")).expect("a backup has a manifest"),
    )
    .expect("JSON");
    assert_eq!((&manifest["node_id"], &manifest["incarnation"]), (&json!("kept"), &json!(1)));
    let (admin, place) = (node.admin.to_string(), dir.display().to_string());
    let again = refusal_of(&mut site.verge(["backup", "--admin", &admin, &place]), 1);
    assert!(again.contains("is not empty"), "{again}");
    assert!(!site.path("backup.partial").exists(), "nothing is left behind");
    node.kill();

    let data = site.path("kept.data");
    fs::rename(&data, site.path("lost")).expect("a directory can be renamed");
    let (from, to) = (dir.display().to_string(), data.display().to_string());
    let said = output_of(&mut site.verge(["restore", &from, "--data-dir", &to]));
    assert!(said.starts_with("restored node 'kept' as of "), "{said}");
    let full = refusal_of(&mut site.verge(["restore", &from, "--data-dir", &to]), 2);
    assert!(full.contains("is there already and is not empty"), "{full}");
    let restored = site.node("kept").started();
    let life = restored.get("/api/v1/node")["incarnation"].as_u64();
    assert!(life.is_some_and(|life| life > 4_096), "no number is given twice: {life:?}");
    restored.balances();
    assert_eq!(restored.list("retained").len(), 1);
    for subscriber in &mut subscribers {
        assert!(subscriber.connect(restored.mqtt), "{}: the session is there", subscriber.id());
        let received = all(subscriber, &Sent::from([("kept/before".to_owned(), 500)]));
        let before = Sent::from([("kept/before".to_owned(), 500)]);
        received.of("kept/before").against(&before).is_none(subscriber.id());
        // Of what was published meanwhile there is all up to some point, once.
        let until = received.of("kept/during").len();
        assert!(0 < until && until <= during, "{until} of {during}");
        let meanwhile = Sent::from([("kept/during".to_owned(), until)]);
        received.of("kept/during").against(&meanwhile).is_none(subscriber.id());
    }
    // It goes on.
    let mut publisher = Client::v5("after");
    publisher.connect(restored.mqtt);
    publisher.publish("kept/after", "1", QoS::ExactlyOnce);
    publisher.settle();
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.next().topic, "kept/after");
    }
    restored.balances();
    let storage = restored.get("/api/v1/storage");
    assert_eq!(storage["families"].as_array().map(Vec::len), Some(families()), "{storage}");
    assert!(storage["free_bytes"].as_u64() > Some(0) && storage["wal_bytes"].is_u64(), "{storage}");
    assert!(restored.ctl(["storage"]).contains("written.fsyncs"));
}

fn families() -> usize {
    verge_storage::Family::ALL.len()
}

/// All that comes to a client.
fn all(client: &mut Client, at_least: &Sent) -> Received {
    let (mut received, deadline) = (Received::default(), now() + SOON);
    let mut quiet = 0;
    while quiet < 5 && now() < deadline {
        client.work(millis(100));
        quiet += 1;
        while let Some(message) = client.take() {
            received.add(&message);
            quiet = 0;
        }
        if !received.has_all(at_least) {
            quiet = 0;
        }
    }
    received
}

#[test]
fn a_backup_that_was_changed_is_refused() {
    let site = Site::new();
    let node = site.node("kept").started();
    let dir = site.path("backup");
    node.ctl(["backup", &dir.display().to_string()]);
    let entries = fs::read_dir(&dir).expect("the backup is there");
    let mut names: Vec<_> = entries
        .map(|file| file.expect("a file").file_name().into_string().expect("text"))
        .collect();
    names.retain(|name| name.starts_with("MANIFEST-"));
    let changed = dir.join(&names[0]);
    let mut bytes = fs::read(&changed).expect("a file can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&changed, bytes).expect("a file can be written");
    let (from, to) = (dir.display().to_string(), site.path("new").display().to_string());
    let said = refusal_of(&mut site.verge(["restore", &from, "--data-dir", &to]), 2);
    assert!(said.contains("another checksum"), "{said}");
    assert!(!Path::new(&to).exists() && !site.path("new.partial").exists());
    let nowhere = refusal_of(&mut site.verge(["restore", &to, "--data-dir", &from]), 2);
    assert!(nowhere.contains("verge-backup.json"), "{nowhere}");
}

#[test]
fn a_backup_goes_to_an_object_store_and_back() {
    let site = Site::new();
    let mut node = site.node("kept").started();
    let mut publisher = Client::v5("publisher");
    publisher.connect(node.mqtt);
    publisher.publish_with("sign", "50 km/h", QoS::AtLeastOnce, true);
    publisher.settle();
    let text = |name: &str| site.path(name).display().to_string();
    node.ctl(["backup", &text("backup")]);
    fs::create_dir(site.path("store")).expect("a directory can be made");
    let url = format!("file://{}/nightly", text("store"));
    let put = |url: &str| site.verge_cloud(["backup", "put", &text("backup"), url]);
    let said = output_of(&mut put(&url));
    assert!(said.contains("node 'kept'"), "{said}");
    let again = refusal_of(&mut put(&url), 2);
    assert!(again.contains("a backup is there already"), "{again}");
    let get = |to: &str| site.verge_cloud(["backup", "get", &url, &text(to)]);
    output_of(&mut get("fetched"));
    assert!(refusal_of(&mut get("fetched"), 2).contains("is not empty"));
    node.kill();
    fs::rename(site.path("kept.data"), site.path("lost")).expect("a directory can be renamed");
    output_of(&mut site.verge(["restore", &text("fetched"), "--data-dir", &text("kept.data")]));
    let restored = site.node("kept").started();
    assert_eq!(restored.list("retained").len(), 1);
    let nothing =
        refusal_of(&mut site.verge_cloud(["backup", "get", &format!("{url}/x"), &text("y")]), 2);
    assert!(nothing.contains("no backup"), "{nothing}");
    let unknown = refusal_of(&mut put("nowhere://x/y"), 2);
    assert!(unknown.contains("nowhere://x/y"), "{unknown}");
}
