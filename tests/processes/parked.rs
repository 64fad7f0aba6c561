//! Sessions without connections are on the disk, not in memory, and are there when they are touched.

use verge_mqtt_proto::QoS;

use crate::client::Client;
use crate::node::Node;
use crate::programs::{installed, output_of};
use crate::site::Site;
use crate::time::{millis, until};

/// Sessions of these tests.
const VEHICLES: usize = 40;

#[test]
fn sessions_leave_memory_and_are_there_again_over_a_restart() {
    let site = Site::new();
    let mut node = site.node("parked").with(["session.park_after=200ms"]).started();
    let mut vehicles: Vec<Client> =
        (0..VEHICLES).map(|number| Client::v5(&format!("vehicle-{number}"))).collect();
    for vehicle in &mut vehicles {
        assert!(!vehicle.connect(node.mqtt));
        let own = format!("to/{}", vehicle.id());
        vehicle.subscribe(&own, QoS::ExactlyOnce);
        vehicle.subscribe("to/all", QoS::AtLeastOnce);
        vehicle.disconnect();
    }
    until("all have left memory", || {
        node.metric("verge_sessions_parked_total", "") >= VEHICLES as u64
    });
    assert_eq!(states(&node), ["parked"; VEHICLES]);
    assert_eq!(node.list("subscriptions").len(), 2 * VEHICLES);

    let mut office = Client::v5("office");
    office.connect(node.mqtt);
    office.publish("to/vehicle-0", "1", QoS::ExactlyOnce);
    office.settle();
    // Its return, from disk, with what it was owed.
    assert!(vehicles[0].connect(node.mqtt));
    assert_eq!(vehicles[0].next().text(), "1");
    vehicles[0].settle();

    node.kill();
    node.start();
    let woken = || node.metric("verge_sessions_woken_total", "");
    until("only who was connected is looked at", || woken() <= 3);
    until("all are counted", || node.list("sessions").len() >= VEHICLES);
    assert_eq!(node.list("subscriptions").len(), 2 * VEHICLES);
    office.connect(node.mqtt);
    office.publish("to/all", "1", QoS::AtLeastOnce);
    office.settle();
    for vehicle in &mut vehicles {
        vehicle.work(millis(0));
        assert!(vehicle.connect(node.mqtt), "{} is known", vehicle.id());
        assert_eq!(vehicle.next().topic, "to/all");
        vehicle.settle();
    }
    until("everything is settled", || node.get("/api/v1/ledger")["held"] == 0);
    node.balances();
}

#[test]
fn a_parked_session_expires_over_a_restart() {
    let site = Site::new();
    let mut node = site.node("parked").with(["session.park_after=100ms"]).started();
    let mortal =
        ["-x", "4", "-c", "-i", "mortal", "-t", "nothing", "-q", "1", "-V", "mqttv5", "-E"];
    let mut command = installed("mosquitto_sub");
    output_of(command.args(["-h", "127.0.0.1", "-p", &node.mqtt.port().to_string()]).args(mortal));
    until("it left memory", || node.metric("verge_sessions_parked_total", "") >= 1);
    assert!(states(&node).contains(&"parked".to_owned()));
    node.kill();
    node.start();
    until("it expired", || !states(&node).contains(&"parked".to_owned()));
    node.balances();
}

fn states(node: &Node) -> Vec<String> {
    let sessions = node.list("sessions").into_iter();
    sessions.map(|session| session["state"].as_str().expect("a text").to_owned()).collect()
}
