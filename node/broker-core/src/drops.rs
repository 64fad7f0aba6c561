//! Drops are told: what was dropped since the last time, by reason and class; with one example, if
//! that is asked for ([`EventKind::Dropped`](crate::extension::EventKind)): ClientIds identify
//! vehicles.
//!
//! Counts are those of the books and the counters, so that no drop is left out of them. Who tells
//! them does so once a second at most for each reason and class, whatever is dropped meanwhile; the
//! first drop after that leaves its topic and client here as the example.
//!
//! ```text
//! $SYS/brokers/<node>/dropped/<reason>/<class>   {"count":17,"total":40,"clientid":…,"topic":…}
//! ```

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::Serialize;
use verge_model::{Class, UnixMillis};
use verge_mqtt_proto::{QoS, TopicName};

use crate::counters::Qos0Drop;
use crate::ledger::DropReason;
use crate::shared::NodeShared;

/// Why something was dropped, and whether it was a debt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dropped {
    /// A message that was owed at QoS 1 or 2.
    Debt(DropReason),
    /// A QoS 0 message.
    Qos0(Qos0Drop),
}

/// Kinds of [`Dropped`].
const KINDS: usize = DropReason::ALL.len() + Qos0Drop::ALL.len();

impl Dropped {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        let debts = DropReason::ALL.into_iter().map(Self::Debt);
        debts.chain(Qos0Drop::ALL.into_iter().map(Self::Qos0))
    }

    /// The level of the topic that names the reason. That of QoS 0 says so: the same reason may be
    /// one of debts.
    #[must_use]
    pub fn level(self) -> String {
        match self {
            Self::Debt(reason) => reason.as_str().to_owned(),
            Self::Qos0(reason) => format!("qos0_{}", reason.as_str()),
        }
    }

    fn place(self) -> usize {
        match self {
            Self::Debt(reason) => reason as usize,
            Self::Qos0(reason) => DropReason::ALL.len() + reason as usize,
        }
    }
}

/// A message that was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Example {
    clientid: Box<str>,
    topic: Box<str>,
    qos: u8,
}

/// Where the first drop after the last word leaves its example.
#[derive(Debug, Default)]
struct Slot {
    /// There is an example: no other is needed. A drop costs this one look.
    filled: AtomicBool,
    /// A lock, taken once by who drops and once by who tells.
    example: Mutex<Option<Example>>,
}

/// Examples of drops, by kind and class.
#[derive(Debug, Default)]
pub struct DropExamples([[Slot; Class::ALL.len()]; KINDS]);

impl DropExamples {
    /// A message was dropped, and is counted elsewhere.
    pub fn note(&self, dropped: Dropped, class: Class, client_id: &str, topic: &str, qos: QoS) {
        let slot = &self.0[dropped.place()][class as usize];
        if slot.filled.load(Ordering::Relaxed) || slot.filled.swap(true, Ordering::Relaxed) {
            return;
        }
        let (clientid, topic) = (client_id.into(), topic.into());
        *slot.example.lock() = Some(Example { clientid, topic, qos: qos.bits() });
    }

    fn take(&self, dropped: Dropped, class: Class) -> Option<Example> {
        let slot = &self.0[dropped.place()][class as usize];
        let example = slot.example.lock().take();
        slot.filled.store(false, Ordering::Relaxed);
        example
    }
}

/// What an event says.
#[derive(Debug, Serialize)]
struct Payload<'a> {
    reason: &'a str,
    class: &'a str,
    /// Drops since the event before.
    count: u64,
    /// Drops since the node began.
    total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    clientid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qos: Option<u8>,
    /// When it is said, in Unix milliseconds.
    ts: u64,
}

/// What has been told of drops.
#[derive(Debug, Default)]
pub struct DropTeller {
    told: [[u64; Class::ALL.len()]; KINDS],
}

impl DropTeller {
    /// What is to be published of the drops since the last time: topics and JSON. At most one event
    /// for each reason and class.
    pub fn tell(
        &mut self,
        node: &str,
        shared: &NodeShared,
        now: UnixMillis,
    ) -> Vec<(TopicName, String)> {
        let books = shared.ledger.by_class();
        let qos0 = shared.counters.dropped_qos0_by_class();
        let mut events = Vec::new();
        for dropped in Dropped::all() {
            for class in Class::ALL {
                let total = match dropped {
                    Dropped::Debt(reason) => books[class as usize].dropped[&reason],
                    Dropped::Qos0(reason) => qos0[reason as usize][class as usize],
                };
                let told = &mut self.told[dropped.place()][class as usize];
                let count = total.saturating_sub(std::mem::replace(told, total));
                if count == 0 {
                    continue;
                }
                let (example, reason) = (shared.drops.take(dropped, class), dropped.level());
                let payload = Payload {
                    reason: &reason,
                    class: class.as_str(),
                    count,
                    total,
                    clientid: example.as_ref().map(|example| &*example.clientid),
                    topic: example.as_ref().map(|example| &*example.topic),
                    qos: example.as_ref().map(|example| example.qos),
                    ts: now.0,
                };
                let payload = serde_json::to_string(&payload).expect("text and numbers are JSON");
                let topic = format!("$SYS/brokers/{node}/dropped/{reason}/{class}");
                events.extend(TopicName::parse(&topic).ok().map(|topic| (topic, payload)));
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use verge_model::NodeKey;

    use super::*;
    use crate::ledger::Settled;
    use crate::rule::TopicRules;

    #[test]
    fn every_drop_is_in_one_count_and_the_first_is_the_example() {
        let shared = NodeShared::new(NodeKey(1), 1, TopicRules::default());
        let mut teller = DropTeller::default();
        let mut told = |shared: &NodeShared| {
            let events = teller.tell("n", shared, UnixMillis(9)).into_iter();
            events.map(|(topic, said)| format!("{} {said}", topic.as_str())).collect::<Vec<_>>()
        };
        assert_eq!(told(&shared), Vec::<String>::new());
        let full = Dropped::Debt(DropReason::QueueFull);
        for number in 1..=3 {
            shared.ledger.settle(Settled::Dropped(DropReason::QueueFull), Class::Safety, 1);
            let topic = format!("t/{number}");
            shared.drops.note(full, Class::Safety, "v", &topic, QoS::AtLeastOnce);
        }
        shared.counters.dropped_qos0_for(Qos0Drop::Away, Class::Bulk, 7);
        let events = [
            r#"$SYS/brokers/n/dropped/queue_full/safety {"reason":"queue_full","class":"safety","count":3,"total":3,"clientid":"v","topic":"t/1","qos":1,"ts":9}"#,
            r#"$SYS/brokers/n/dropped/qos0_away/bulk {"reason":"qos0_away","class":"bulk","count":7,"total":7,"ts":9}"#,
        ];
        assert_eq!(told(&shared), events);
        assert_eq!(told(&shared), Vec::<String>::new());
        shared.ledger.settle(Settled::Dropped(DropReason::QueueFull), Class::Safety, 1);
        shared.drops.note(full, Class::Safety, "w", "again", QoS::AtLeastOnce);
        let last = r#"$SYS/brokers/n/dropped/queue_full/safety {"reason":"queue_full","class":"safety","count":1,"total":4,"clientid":"w","topic":"again","qos":1,"ts":9}"#;
        assert_eq!(told(&shared), [last]);
    }
}
