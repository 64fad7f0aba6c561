//! What an uplink selects is in the table once, whatever is killed on the way.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use verge_mqtt_proto::QoS;

use crate::client::Client;
use crate::programs::{output_of, refusal_of};
use crate::site::Site;
use crate::time::{SOON, eventually, millis, now, pause, until};

/// Kills of either side.
const KILLS: usize = 8;

/// Publications under way at once.
const WINDOW: usize = 32;

#[test]
fn every_selected_record_is_in_the_table_once() {
    let mut rng = StdRng::seed_from_u64(11);
    let site = Site::new();
    let mut node = site.mesh_node("origin", "rsu", &[]).with(["uplink.select=v2x/#"]).started();
    let mut cloud = site.cloud("cloud", &[&node]).with(["lake.commit_interval=200ms"]).started();
    let at = node.mqtt;
    let finish = AtomicBool::new(false);
    let published = thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut client = Client::v5("vehicle");
            let mut last = 0_u64;
            let mut deadline = None;
            loop {
                if !client.is_connected() && client.try_connect(at).is_err() {
                    pause(millis(10));
                }
                if finish.load(Ordering::Acquire) {
                    if client.unacknowledged() == 0 {
                        return last;
                    }
                    let deadline = *deadline.get_or_insert_with(|| now() + SOON);
                    assert!(now() < deadline, "{} unacknowledged", client.unacknowledged());
                } else if client.unacknowledged() < WINDOW {
                    last += 1;
                    let text = json!({"n": last, "lat": 48.1, "lon": 11.5, "speed": 13.9});
                    // Exactly once to the node, so that records are publications.
                    client.publish("v2x/cam/vehicle", &text.to_string(), QoS::ExactlyOnce);
                    client.publish("other/x", "not selected", QoS::AtMostOnce);
                }
                client.work(millis(1));
            }
        });
        for kill in 0..KILLS {
            pause(Duration::from_millis(rng.random_range(200..1_200)));
            let victim = if kill % 2 == 0 { &mut cloud } else { &mut node };
            victim.kill();
            pause(Duration::from_millis(rng.random_range(0..400)));
            victim.start();
        }
        finish.store(true, Ordering::Release);
        publisher.join().expect("a publisher")
    });
    println!("{published} published");
    assert!(published > 100);
    until("the outbox is empty", || node.get("/api/v1/ledger")["uplink"]["pending"] == 0);
    let uplink = &node.get("/api/v1/ledger")["uplink"];
    assert_eq!(*uplink, json!({"selected": published, "acked": published, "pending": 0}));

    let lake = site.lake().display().to_string();
    let ask = |sql: &str, format: &str| {
        output_of(&mut site.verge_cloud(["query", sql, "--lake", &lake, "--format", format]))
    };
    let sql = "SELECT origin, count(*) AS n, count(DISTINCT seq) AS seqs, min(seq) AS first, \
               max(seq) AS last FROM messages GROUP BY origin";
    let rows: Value = serde_json::from_str(&ask(sql, "json")).expect("JSON");
    let n = published;
    assert_eq!(rows, json!([{"origin": "origin", "n": n, "seqs": n, "first": 1, "last": n}]));
    assert_eq!(ask(sql, "csv"), format!("origin,n,seqs,first,last\norigin,{n},{n},1,{n}\n"));
    let table = ask(sql, "table");
    let row = table.lines().nth(3).expect("the row below the titles");
    let cells: Vec<&str> = row.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
    let n = published.to_string();
    assert_eq!(cells, ["origin", &n, &n, "1", &n], "{table}");

    let sql = "SELECT DISTINCT client_id, topic, qos, lat, lon, speed FROM messages";
    let rows: Value = serde_json::from_str(&ask(sql, "json")).expect("JSON");
    let row = json!([{"client_id": "vehicle", "topic": "v2x/cam/vehicle", "qos": 2,
        "lat": 48.1, "lon": 11.5, "speed": 13.9}]);
    assert_eq!(rows, row);
    let sql = "SELECT count(DISTINCT json) AS texts FROM messages";
    assert_eq!(ask(sql, "csv"), format!("texts\n{n}\n"), "every publication");

    // What cannot be asked is refused in one line.
    let query = |sql: &str, lake: &str| site.verge_cloud(["query", sql, "--lake", lake]);
    for (sql, says) in [
        ("SELEKT 1", "SQL"),
        ("SELECT nothing FROM messages", "nothing"),
        ("SELECT 1 FROM nowhere", "nowhere"),
        ("DROP TABLE messages", "SQL"),
        ("", "SQL"),
    ] {
        let said = refusal_of(&mut query(sql, &lake), 2);
        assert!(said.contains(says), "{sql}: {said}");
    }
    let missing = site.path("no-lake").display().to_string();
    let said = refusal_of(&mut query("SELECT 1", &missing), 2);
    assert!(said.contains("no-lake"), "{said}");
    assert_eq!(cloud.terminate().code(), Some(0));
}

#[test]
fn a_cloud_tier_that_comes_late_gets_everything() {
    let site = Site::new();
    let mut node = site.mesh_node("origin", "rsu", &[]).with(["uplink.select=v2x/#"]).started();
    let mut client = Client::v4("vehicle");
    client.connect(node.mqtt);
    for number in 0..200 {
        client.publish("v2x/x", &number.to_string(), QoS::AtLeastOnce);
        if client.unacknowledged() > WINDOW {
            client.settle();
        }
    }
    client.settle();
    node.kill();
    node.start();
    assert_eq!(node.get("/api/v1/ledger")["uplink"]["pending"], 200);
    let cloud = site.cloud("cloud", &[&node]).started();
    until("the outbox is empty", || node.get("/api/v1/ledger")["uplink"]["pending"] == 0);
    let lake = site.lake().display().to_string();
    let sql = "SELECT count(*), count(DISTINCT seq), max(seq) FROM messages";
    let mut query: Command = site.verge_cloud(["query", sql, "--lake", &lake, "--format", "csv"]);
    let said = output_of(&mut query);
    assert_eq!(said.lines().nth(1), Some("200,200,200"), "{said}");
    let lag = eventually("the cloud tier knows the node", || {
        cloud.list("uplinks").into_iter().find(|uplink| uplink["origin"] == "origin")
    });
    println!("{lag}");
}
