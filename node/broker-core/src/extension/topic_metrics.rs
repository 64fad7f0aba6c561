//! Counts of single topics, for whoever registered them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use serde::Serialize;
use verge_model::UnixMillis;
use verge_mqtt_proto::{QoS, TopicName};

/// Most topics that are counted. Each costs a few hundred bytes, and every message one look-up.
pub const TOPIC_METRICS_MAX: usize = 512;

/// Counts of one topic since it was registered.
#[derive(Debug, Default)]
struct Counts {
    messages_in: [AtomicU64; 3],
    bytes_in: AtomicU64,
    messages_out: [AtomicU64; 3],
    bytes_out: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Registered {
    since: UnixMillis,
    counts: Arc<Counts>,
    /// Messages in, out and dropped when rates were taken last.
    sampled: [u64; 3],
    /// Per second, between the last two samples.
    rates: [f64; 3],
}

/// The topics that are counted.
#[derive(Debug, Default)]
pub struct TopicMetrics {
    /// Whether any is: the one branch that others pay.
    active: AtomicBool,
    /// A lock, since it changes when an operator asks only.
    topics: RwLock<FxHashMap<Box<str>, Registered>>,
}

/// Why a topic is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// It is already.
    #[error("the topic is registered already")]
    Exists,
    /// There are [`TOPIC_METRICS_MAX`].
    #[error("{TOPIC_METRICS_MAX} topics are registered, which is the most")]
    Full,
}

impl TopicMetrics {
    /// Whether any topic is counted.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Counts a topic from now on.
    ///
    /// # Errors
    /// It is counted already, or too many are.
    pub fn register(&self, topic: &TopicName, now: UnixMillis) -> Result<(), RegisterError> {
        let mut topics = self.topics.write();
        if topics.contains_key(topic.as_str()) {
            return Err(RegisterError::Exists);
        }
        if topics.len() >= TOPIC_METRICS_MAX {
            return Err(RegisterError::Full);
        }
        let (counts, sampled, rates) = (Arc::default(), [0; 3], [0.0; 3]);
        let registered = Registered { since: now, counts, sampled, rates };
        topics.insert(topic.as_str().into(), registered);
        self.active.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Counts a topic no more; false if it was not counted.
    pub fn deregister(&self, topic: &str) -> bool {
        let mut topics = self.topics.write();
        let existed = topics.remove(topic).is_some();
        self.active.store(!topics.is_empty(), Ordering::Relaxed);
        existed
    }

    /// A client published to it.
    pub fn received(&self, topic: &str, qos: QoS, bytes: usize) {
        if let Some(counts) = self.counts(topic) {
            counts.messages_in[qos as usize].fetch_add(1, Ordering::Relaxed);
            counts.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// A message of it was sent to a client for the first time.
    pub fn sent(&self, topic: &str, qos: QoS, bytes: usize) {
        if let Some(counts) = self.counts(topic) {
            counts.messages_out[qos as usize].fetch_add(1, Ordering::Relaxed);
            counts.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// A message of it was dropped.
    pub fn dropped(&self, topic: &str) {
        if let Some(counts) = self.counts(topic) {
            counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes rates: call it every `secs`.
    #[expect(clippy::iter_over_hash_type, reason = "the rates of a topic depend on no other's")]
    pub fn sample(&self, secs: f64) {
        for registered in self.topics.write().values_mut() {
            let counts = &registered.counts;
            let sum = |by_qos: &[AtomicU64; 3]| by_qos.iter().map(read).sum();
            let now = [sum(&counts.messages_in), sum(&counts.messages_out), read(&counts.dropped)];
            for (place, count) in now.into_iter().enumerate() {
                let more = count.saturating_sub(registered.sampled[place]);
                registered.rates[place] = more as f64 / secs;
            }
            registered.sampled = now;
        }
    }

    /// One topic's counts.
    #[must_use]
    pub fn view(&self, topic: &str) -> Option<TopicView> {
        self.topics.read().get(topic).map(|registered| TopicView::of(topic, registered))
    }

    /// All counts, by topic.
    #[must_use]
    pub fn views(&self) -> Vec<TopicView> {
        let topics = self.topics.read();
        let sorted: BTreeMap<&str, &Registered> =
            topics.iter().map(|(topic, registered)| (&**topic, registered)).collect();
        sorted.into_iter().map(|(topic, registered)| TopicView::of(topic, registered)).collect()
    }

    fn counts(&self, topic: &str) -> Option<Arc<Counts>> {
        self.topics.read().get(topic).map(|registered| Arc::clone(&registered.counts))
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Counts of one topic, at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopicView {
    /// The topic.
    pub topic: String,
    /// Since when it is counted, in Unix milliseconds.
    pub since: u64,
    /// Messages clients published, by QoS.
    pub messages_in: [u64; 3],
    /// Bytes of their payloads.
    pub bytes_in: u64,
    /// Messages sent to clients, repetitions left out, by QoS.
    pub messages_out: [u64; 3],
    /// Bytes of their payloads.
    pub bytes_out: u64,
    /// Messages dropped: for a slow or full session, or without a subscriber.
    pub messages_dropped: u64,
    /// Messages in per second.
    pub rate_in: f64,
    /// Messages out per second.
    pub rate_out: f64,
    /// Messages dropped per second.
    pub rate_dropped: f64,
}

impl TopicView {
    fn of(topic: &str, registered: &Registered) -> Self {
        let counts = &registered.counts;
        let [rate_in, rate_out, rate_dropped] = registered.rates;
        Self {
            topic: topic.to_owned(),
            since: registered.since.0,
            messages_in: counts.messages_in.each_ref().map(read),
            bytes_in: read(&counts.bytes_in),
            messages_out: counts.messages_out.each_ref().map(read),
            bytes_out: read(&counts.bytes_out),
            messages_dropped: read(&counts.dropped),
            rate_in,
            rate_out,
            rate_dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> TopicName {
        TopicName::parse(text).unwrap()
    }

    #[test]
    fn registered_topics_are_counted_and_no_others() {
        let metrics = TopicMetrics::default();
        assert!(!metrics.is_active());
        metrics.register(&topic("a"), UnixMillis(5)).unwrap();
        assert!(metrics.is_active());
        for name in ["a", "b"] {
            metrics.received(name, QoS::AtMostOnce, 10);
            metrics.received(name, QoS::ExactlyOnce, 20);
            metrics.sent(name, QoS::AtLeastOnce, 7);
            metrics.dropped(name);
        }
        metrics.sample(2.0);
        let view = metrics.view("a").unwrap();
        assert_eq!((view.messages_in, view.bytes_in), ([1, 0, 1], 30));
        assert_eq!((view.messages_out, view.bytes_out), ([0, 1, 0], 7));
        assert_eq!((view.messages_dropped, view.since), (1, 5));
        assert_eq!((view.rate_in, view.rate_out, view.rate_dropped), (1.0, 0.5, 0.5));
        metrics.sample(2.0);
        assert_eq!(metrics.view("a").unwrap().rate_in, 0.0);
        assert_eq!(metrics.view("b"), None);
        assert!(metrics.deregister("a") && !metrics.deregister("a") && !metrics.is_active());
    }

    #[test]
    fn security_the_number_of_topics_is_bounded() {
        let metrics = TopicMetrics::default();
        for number in 0..TOPIC_METRICS_MAX {
            metrics.register(&topic(&format!("t/{number}")), UnixMillis(0)).unwrap();
        }
        let full = metrics.register(&topic("one/more"), UnixMillis(0));
        assert_eq!(full, Err(RegisterError::Full));
        let again = metrics.register(&topic("t/1"), UnixMillis(0));
        assert_eq!(again, Err(RegisterError::Exists));
        assert_eq!(metrics.views().len(), TOPIC_METRICS_MAX);
    }
}
