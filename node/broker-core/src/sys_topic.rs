//! The `$SYS` topics: a node's state for whoever has only an MQTT client.
//!
//! The names are Mosquitto's where Mosquitto has one, since tools know them. Values are of this
//! node alone and are not sent to others.

use std::time::Duration;

use verge_mqtt_proto::TopicName;

use crate::ledger::{CountersSnapshot, LedgerSnapshot};

/// What the topics are made from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SysStatus {
    /// The product's version.
    pub version: String,
    /// How long the process has been running.
    pub uptime: Duration,
    /// Clients connected now.
    pub clients_connected: u64,
    /// Sessions, with and without a connection.
    pub sessions: u64,
    /// Subscriptions of all sessions.
    pub subscriptions: u64,
    /// Topics with a retained message.
    pub retained: u64,
    /// Debts held by all sessions.
    pub held: u64,
    /// What happened.
    pub counters: CountersSnapshot,
    /// The books.
    pub ledger: LedgerSnapshot,
}

/// Topics and what is to be published to each, always in the same order.
#[must_use]
pub fn sys_topics(status: &SysStatus) -> Vec<(TopicName, String)> {
    let counters = &status.counters;
    let ledger = &status.ledger;
    let received: u64 = counters.received.iter().sum();
    let sent: u64 = counters.sent.iter().sum();
    let dropped_qos0: u64 = counters.dropped_qos0.values().sum();
    let dropped: u64 = ledger.dropped.values().sum();
    let rows = [
        ("version", format!("verge {}", status.version)),
        ("uptime", format!("{} seconds", status.uptime.as_secs())),
        ("clients/connected", status.clients_connected.to_string()),
        ("clients/disconnected", {
            status.sessions.saturating_sub(status.clients_connected).to_string()
        }),
        ("clients/total", status.sessions.max(status.clients_connected).to_string()),
        ("subscriptions/count", status.subscriptions.to_string()),
        ("retained messages/count", status.retained.to_string()),
        ("publish/messages/received", received.to_string()),
        ("publish/messages/sent", sent.to_string()),
        ("publish/messages/dropped", (dropped_qos0 + dropped).to_string()),
        ("ledger/opened", ledger.opened().to_string()),
        ("ledger/settled", ledger.settled().to_string()),
        ("ledger/held", status.held.to_string()),
        ("ledger/balance", ledger.balance(status.held).to_string()),
    ];
    let topic = |name: &str| {
        TopicName::parse(&format!("$SYS/broker/{name}")).expect("the names above are topic names")
    };
    rows.into_iter().map(|(name, value)| (topic(name), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Counters, DropReason, Ledger, Opened, Settled};

    #[test]
    fn a_status_as_topics() {
        let counters = Counters::default();
        counters.received(verge_mqtt_proto::QoS::AtMostOnce);
        counters.received(verge_mqtt_proto::QoS::ExactlyOnce);
        counters.dropped_qos0(3);
        let ledger = Ledger::default();
        ledger.open(Opened::Accepted, 10);
        ledger.settle(Settled::Delivered, 4);
        ledger.settle(Settled::Dropped(DropReason::QueueFull), 1);
        let status = SysStatus {
            version: "1.2.3".into(),
            uptime: Duration::from_millis(90_500),
            clients_connected: 2,
            sessions: 5,
            subscriptions: 7,
            retained: 1,
            held: 4,
            counters: counters.snapshot(),
            ledger: ledger.snapshot(),
        };
        let topics = sys_topics(&status);
        let shown: Vec<_> = topics.iter().map(|(name, value)| (name.as_str(), &**value)).collect();
        let expected = [
            ("$SYS/broker/version", "verge 1.2.3"),
            ("$SYS/broker/uptime", "90 seconds"),
            ("$SYS/broker/clients/connected", "2"),
            ("$SYS/broker/clients/disconnected", "3"),
            ("$SYS/broker/clients/total", "5"),
            ("$SYS/broker/subscriptions/count", "7"),
            ("$SYS/broker/retained messages/count", "1"),
            ("$SYS/broker/publish/messages/received", "2"),
            ("$SYS/broker/publish/messages/sent", "0"),
            ("$SYS/broker/publish/messages/dropped", "4"),
            ("$SYS/broker/ledger/opened", "10"),
            ("$SYS/broker/ledger/settled", "5"),
            ("$SYS/broker/ledger/held", "4"),
            ("$SYS/broker/ledger/balance", "1"),
        ];
        assert_eq!(shown, expected);
    }
}
