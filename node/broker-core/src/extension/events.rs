//! What clients do, as messages: `$SYS/brokers/<node>/clients/<clientid>/<event>`.

use std::sync::Arc;

use serde::Serialize;
use verge_model::UnixMillis;
use verge_mqtt_proto::TopicName;

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// A CONNECT was accepted.
    Connected,
    /// A connection that was accepted ended.
    Disconnected,
    /// A session has a new subscription, or new options for one.
    Subscribed,
    /// A session has a subscription less.
    Unsubscribed,
    /// A session did not get a message. Not an event of its own: see [`crate::drops`].
    Dropped,
}

impl EventKind {
    /// Every event with its name.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Connected, "connected"),
        (Self::Disconnected, "disconnected"),
        (Self::Subscribed, "subscribed"),
        (Self::Unsubscribed, "unsubscribed"),
        (Self::Dropped, "dropped"),
    ];

    /// The last level of its topic.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

/// Which events are published, and how many.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventSettings {
    /// The node's name.
    pub node: Arc<str>,
    /// Those that are.
    pub on: Vec<EventKind>,
    /// Most events of one shard in one second; what is beyond is dropped and counted.
    pub shard_rate_max: u32,
}

impl EventSettings {
    /// Whether an event is published.
    #[must_use]
    pub fn is_on(&self, kind: EventKind) -> bool {
        self.on.contains(&kind)
    }

    /// The topic of a client's event. What has a meaning in topics, and `%`, is written as `%` and
    /// two digits: a ClientId is one level.
    #[must_use]
    pub fn topic(&self, kind: EventKind, client_id: &str) -> Option<TopicName> {
        let mut text = format!("$SYS/brokers/{}/clients/", self.node);
        for c in client_id.chars() {
            match c {
                '/' | '+' | '#' | '%' => text.push_str(&format!("%{:02X}", u32::from(c))),
                _ => text.push(c),
            }
        }
        text.push('/');
        text.push_str(kind.name());
        TopicName::parse(&text).ok()
    }
}

/// The payload of an event, as JSON. Fields that an event does not have are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct EventPayload<'a> {
    /// Whose it is.
    pub clientid: &'a str,
    /// The User Name, or the principal that a certificate proves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<&'a str>,
    /// The peer's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipaddress: Option<String>,
    /// The peer's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<&'a str>,
    /// `MQTT`.
    pub protocol: &'static str,
    /// 3, 4 or 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto_ver: Option<u8>,
    /// Keep alive in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<u16>,
    /// Whether the session started clean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean_start: Option<bool>,
    /// Session Expiry Interval in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry_interval: Option<u32>,
    /// When it connected, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected_at: Option<u64>,
    /// When that ended, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disconnected_at: Option<u64>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// The filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<&'a str>,
    /// Granted QoS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<u8>,
    /// When it happened, in Unix milliseconds.
    pub ts: u64,
}

impl EventPayload<'_> {
    /// The text.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers can be written as JSON")
    }
}

/// How many events a shard has published in this second.
#[derive(Debug, Default)]
pub struct EventBudget {
    second: u64,
    used: u32,
}

impl EventBudget {
    /// Whether one more may be published.
    pub fn take(&mut self, max: u32, now: UnixMillis) -> bool {
        let second = now.0 / 1_000;
        if self.second != second {
            *self = Self { second, used: 0 };
        }
        let fits = self.used < max;
        self.used += u32::from(fits);
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_a_client_id_is_one_level_of_the_topic() {
        let settings = EventSettings { node: "rsu-1".into(), ..EventSettings::default() };
        let topic = |client_id| settings.topic(EventKind::Connected, client_id).unwrap();
        assert_eq!(topic("car").as_str(), "$SYS/brokers/rsu-1/clients/car/connected");
        let odd = "$SYS/brokers/rsu-1/clients/a%2Fb%23%2B%25/connected";
        assert_eq!(topic("a/b#+%").as_str(), odd);
    }

    #[test]
    fn payloads_leave_out_what_an_event_does_not_have() {
        let payload = EventPayload {
            clientid: "a\"b",
            protocol: "MQTT",
            topic: Some("t/#"),
            qos: Some(1),
            ts: 5,
            ..EventPayload::default()
        };
        let wanted = r#"{"clientid":"a\"b","protocol":"MQTT","topic":"t/#","qos":1,"ts":5}"#;
        assert_eq!(String::from_utf8(payload.to_json()).unwrap(), wanted);
    }

    #[test]
    fn events_of_a_second_are_bounded() {
        let mut budget = EventBudget::default();
        let mut took = |at| budget.take(2, UnixMillis(at));
        assert_eq!([took(1_000), took(1_500), took(1_999), took(2_000)], [true, true, false, true]);
    }
}
