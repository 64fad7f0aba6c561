//! The `$SYS` topics: a node's state for whoever has only an MQTT client.
//!
//! Under `$SYS/broker` the names are Mosquitto's where Mosquitto has one, under
//! `$SYS/brokers/<node>` EMQX's, since tools know them. Values are of this node alone and are not
//! sent to others.

use std::time::Duration;

use verge_mqtt_proto::TopicName;

use crate::ledger::{CountersSnapshot, LedgerSnapshot};

/// What the topics are made from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SysStatus {
    /// The node's name.
    pub node: String,
    /// The product's version.
    pub version: String,
    /// The time, as text.
    pub datetime: String,
    /// How long the process has been running.
    pub uptime: Duration,
    /// Clients connected now.
    pub clients_connected: u64,
    /// Most clients that were connected when the topics were made.
    pub clients_max: u64,
    /// Sessions, with and without a connection.
    pub sessions: u64,
    /// Most sessions there were when the topics were made.
    pub sessions_max: u64,
    /// Subscriptions of all sessions.
    pub subscriptions: u64,
    /// Different filters that this node's sessions or other nodes want.
    pub filters: u64,
    /// Topics with a retained message.
    pub retained: u64,
    /// Messages that wait to be published.
    pub delayed: u64,
    /// Debts held by all sessions.
    pub held: u64,
    /// What happened.
    pub counters: CountersSnapshot,
    /// The books.
    pub ledger: LedgerSnapshot,
    /// What happens in a minute, on average.
    pub loads: Loads,
}

/// Minutes over which loads are averaged.
const MINUTES: [u32; 3] = [1, 5, 15];

/// What loads are of: the middle of their topics.
const LOADS: [&str; 4] = ["publish/received", "publish/sent", "publish/dropped", "connections"];

/// Moving averages, per minute.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Loads {
    averages: [[f64; MINUTES.len()]; LOADS.len()],
    counts: [u64; LOADS.len()],
}

impl Loads {
    /// Takes note of what happened since the last time, `elapsed` ago.
    pub fn sample(&mut self, status: &SysStatus, elapsed: Duration) {
        let counts = [
            received(status),
            status.counters.sent.iter().sum(),
            dropped(status),
            status.counters.connects_accepted,
        ];
        let minutes = elapsed.as_secs_f64() / 60.0;
        if minutes <= 0.0 {
            return;
        }
        for (place, count) in counts.into_iter().enumerate() {
            let rate = count.saturating_sub(self.counts[place]) as f64 / minutes;
            for (average, over) in self.averages[place].iter_mut().zip(MINUTES) {
                let weight = (-minutes / f64::from(over)).exp();
                *average = rate + weight * (*average - rate);
            }
        }
        self.counts = counts;
    }
}

fn received(status: &SysStatus) -> u64 {
    status.counters.received.iter().sum()
}

fn dropped(status: &SysStatus) -> u64 {
    let qos0: u64 = status.counters.dropped_qos0.values().flatten().sum();
    qos0 + status.ledger.dropped.values().sum::<u64>()
}

/// Topics and what is to be published to each, always in the same order.
#[must_use]
pub fn sys_topics(status: &SysStatus) -> Vec<(TopicName, String)> {
    let mut rows = Vec::new();
    let mut row = |name: String, value: String| {
        // A node's name is part of some; all are topic names.
        rows.extend(TopicName::parse(&name).ok().map(|topic| (topic, value)));
    };
    for (name, value) in broker(status) {
        row(format!("$SYS/broker/{name}"), value);
    }
    for (load, averages) in LOADS.into_iter().zip(status.loads.averages) {
        for (over, average) in MINUTES.into_iter().zip(averages) {
            row(format!("$SYS/broker/load/{load}/{over}min"), format!("{average:.2}"));
        }
    }
    row("$SYS/brokers".to_owned(), status.node.clone());
    for (name, value) in brokers(status) {
        row(format!("$SYS/brokers/{}/{name}", status.node), value);
    }
    rows
}

/// Mosquitto's names.
fn broker(status: &SysStatus) -> Vec<(&'static str, String)> {
    let ledger = &status.ledger;
    let disconnected = status.sessions.saturating_sub(status.clients_connected);
    vec![
        ("version", format!("verge {}", status.version)),
        ("uptime", format!("{} seconds", status.uptime.as_secs())),
        ("clients/connected", status.clients_connected.to_string()),
        ("clients/disconnected", disconnected.to_string()),
        ("clients/maximum", status.clients_max.to_string()),
        ("clients/total", status.sessions.max(status.clients_connected).to_string()),
        ("subscriptions/count", status.subscriptions.to_string()),
        ("retained messages/count", status.retained.to_string()),
        ("store/messages/count", status.held.to_string()),
        ("publish/messages/received", received(status).to_string()),
        ("publish/messages/sent", status.counters.sent.iter().sum::<u64>().to_string()),
        ("publish/messages/dropped", dropped(status).to_string()),
        ("ledger/opened", ledger.opened().to_string()),
        ("ledger/settled", ledger.settled().to_string()),
        ("ledger/held", status.held.to_string()),
        ("ledger/balance", ledger.balance(status.held).to_string()),
    ]
}

/// EMQX's names.
fn brokers(status: &SysStatus) -> Vec<(&'static str, String)> {
    let counters = &status.counters;
    let [in0, in1, in2] = counters.received;
    let [out0, out1, out2] = counters.sent;
    let texts = [
        ("version", status.version.clone()),
        ("sysdescr", "Verge".to_owned()),
        ("uptime", status.uptime.as_secs().to_string()),
        ("datetime", status.datetime.clone()),
    ];
    let numbers = [
        ("stats/connections/count", status.clients_connected),
        ("stats/connections/max", status.clients_max),
        ("stats/sessions/count", status.sessions),
        ("stats/sessions/max", status.sessions_max),
        ("stats/subscriptions/count", status.subscriptions),
        ("stats/topics/count", status.filters),
        ("stats/retained/count", status.retained),
        ("stats/delayed/count", status.delayed),
        ("metrics/client/connected", counters.connects_accepted),
        ("metrics/messages/received", received(status)),
        ("metrics/messages/sent", out0 + out1 + out2),
        ("metrics/messages/dropped", dropped(status)),
        ("metrics/messages/qos0/received", in0),
        ("metrics/messages/qos1/received", in1),
        ("metrics/messages/qos2/received", in2),
        ("metrics/messages/qos0/sent", out0),
        ("metrics/messages/qos1/sent", out1),
        ("metrics/messages/qos2/sent", out2),
        ("metrics/messages/forward", counters.forwarded),
    ];
    let numbers = numbers.into_iter().map(|(name, number)| (name, number.to_string()));
    texts.into_iter().chain(numbers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Counters, DropReason, Ledger, Opened, Qos0Drop, Settled};
    use verge_model::Class;

    fn status() -> SysStatus {
        let counters = Counters::default();
        counters.received(verge_mqtt_proto::QoS::AtMostOnce, 1);
        counters.received(verge_mqtt_proto::QoS::ExactlyOnce, 1);
        counters.dropped_qos0_for(Qos0Drop::OutputFull, Class::Bulk, 3);
        let ledger = Ledger::default();
        ledger.open(Opened::Accepted, Class::Bulk, 10);
        ledger.settle(Settled::Delivered, Class::Bulk, 4);
        ledger.settle(Settled::Dropped(DropReason::QueueFull), Class::Bulk, 1);
        SysStatus {
            node: "rsu-1".into(),
            version: "1.2.3".into(),
            datetime: "2026-01-01T00:00:00Z".into(),
            uptime: Duration::from_millis(90_500),
            clients_connected: 2,
            clients_max: 3,
            sessions: 5,
            sessions_max: 6,
            subscriptions: 7,
            filters: 8,
            retained: 1,
            delayed: 9,
            held: 4,
            counters: counters.snapshot(),
            ledger: ledger.snapshot(),
            loads: Loads::default(),
        }
    }

    #[test]
    fn a_status_as_topics() {
        let topics = sys_topics(&status());
        let shown: Vec<String> =
            topics.iter().map(|(name, value)| format!("{} {value}", name.as_str())).collect();
        let expected = "\
$SYS/broker/version verge 1.2.3
$SYS/broker/uptime 90 seconds
$SYS/broker/clients/connected 2
$SYS/broker/clients/disconnected 3
$SYS/broker/clients/maximum 3
$SYS/broker/clients/total 5
$SYS/broker/subscriptions/count 7
$SYS/broker/retained messages/count 1
$SYS/broker/store/messages/count 4
$SYS/broker/publish/messages/received 2
$SYS/broker/publish/messages/sent 0
$SYS/broker/publish/messages/dropped 4
$SYS/broker/ledger/opened 10
$SYS/broker/ledger/settled 5
$SYS/broker/ledger/held 4
$SYS/broker/ledger/balance 1
$SYS/broker/load/publish/received/1min 0.00
$SYS/broker/load/publish/received/5min 0.00
$SYS/broker/load/publish/received/15min 0.00
$SYS/broker/load/publish/sent/1min 0.00
$SYS/broker/load/publish/sent/5min 0.00
$SYS/broker/load/publish/sent/15min 0.00
$SYS/broker/load/publish/dropped/1min 0.00
$SYS/broker/load/publish/dropped/5min 0.00
$SYS/broker/load/publish/dropped/15min 0.00
$SYS/broker/load/connections/1min 0.00
$SYS/broker/load/connections/5min 0.00
$SYS/broker/load/connections/15min 0.00
$SYS/brokers rsu-1
$SYS/brokers/rsu-1/version 1.2.3
$SYS/brokers/rsu-1/sysdescr Verge
$SYS/brokers/rsu-1/uptime 90
$SYS/brokers/rsu-1/datetime 2026-01-01T00:00:00Z
$SYS/brokers/rsu-1/stats/connections/count 2
$SYS/brokers/rsu-1/stats/connections/max 3
$SYS/brokers/rsu-1/stats/sessions/count 5
$SYS/brokers/rsu-1/stats/sessions/max 6
$SYS/brokers/rsu-1/stats/subscriptions/count 7
$SYS/brokers/rsu-1/stats/topics/count 8
$SYS/brokers/rsu-1/stats/retained/count 1
$SYS/brokers/rsu-1/stats/delayed/count 9
$SYS/brokers/rsu-1/metrics/client/connected 0
$SYS/brokers/rsu-1/metrics/messages/received 2
$SYS/brokers/rsu-1/metrics/messages/sent 0
$SYS/brokers/rsu-1/metrics/messages/dropped 4
$SYS/brokers/rsu-1/metrics/messages/qos0/received 1
$SYS/brokers/rsu-1/metrics/messages/qos1/received 0
$SYS/brokers/rsu-1/metrics/messages/qos2/received 1
$SYS/brokers/rsu-1/metrics/messages/qos0/sent 0
$SYS/brokers/rsu-1/metrics/messages/qos1/sent 0
$SYS/brokers/rsu-1/metrics/messages/qos2/sent 0
$SYS/brokers/rsu-1/metrics/messages/forward 0";
        assert_eq!(shown.join("\n"), expected);
    }

    #[test]
    fn loads_come_near_what_goes_on_and_forget_what_is_over() {
        let mut status = status();
        let mut loads = Loads::default();
        for _ in 0..60 {
            status.counters.received[0] += 100;
            loads.sample(&status, Duration::from_secs(60));
        }
        let [one, five, fifteen] = loads.averages[0];
        assert!((99.0..=101.0).contains(&one) && (99.0..=101.0).contains(&five), "{one} {five}");
        assert!((90.0..=101.0).contains(&fifteen), "{fifteen}");
        loads.sample(&status, Duration::from_secs(600));
        assert!(loads.averages[0][0] < 1.0 && loads.averages[0][2] > 40.0);
    }
}
