//! What extensions did, for operators.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::Metric;

/// Something that is counted: name and help of its metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Counted {
    /// A PUBLISH, or a Will, to a topic that only the node publishes to.
    SysRefused,
    /// A rule for a topic or filter did not come to a valid one.
    RewriteFailed,
    /// A configured subscription did not come to a filter for a client.
    AutoSubscribeSkipped,
    /// A second subscriber of an exclusive filter.
    ExclusiveRefused,
    /// A message to be published later was accepted.
    DelayedAccepted,
    /// A message was published after its delay.
    DelayedPublished,
    /// A malformed `$delayed/…` topic.
    DelayedMalformed,
    /// There was no room for one more message that is published later.
    DelayedFull,
    /// An event of a client was published.
    EventsPublished,
    /// An event of a client was one too many.
    EventsDropped,
}

/// Names and helps, in the order of [`Counted`].
const METRICS: [(&str, &str); 10] = [
    ("sys_publish_refused_total", "Publications of clients to $SYS topics, which were refused"),
    (
        "rewrite_failed_total",
        "Topics and filters that a rewrite rule could not make a valid one of",
    ),
    ("auto_subscribe_skipped_total", "Configured subscriptions left out for a client"),
    ("exclusive_refused_total", "Subscriptions to exclusive filters that had a subscriber"),
    ("delayed_accepted_messages_total", "Messages accepted to be published later"),
    ("delayed_published_messages_total", "Messages published after their delay"),
    (
        "delayed_malformed_messages_total",
        "Messages to malformed $delayed topics, which were refused",
    ),
    ("delayed_full_messages_total", "Messages refused since too many wait to be published"),
    ("client_events_total", "Events of clients that were published"),
    ("client_events_dropped_total", "Events of clients beyond what is published in a second"),
];

/// Counts since this process began, shared by all threads of a node.
#[derive(Debug, Default)]
pub struct ExtensionCounts([AtomicU64; METRICS.len()]);

impl ExtensionCounts {
    /// It happened once more.
    pub fn add(&self, counted: Counted) {
        self.0[counted as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it happened.
    #[must_use]
    pub fn get(&self, counted: Counted) -> u64 {
        self.0[counted as usize].load(Ordering::Relaxed)
    }

    /// The counts as metrics.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let one = |((name, help), count): ((&'static str, &'static str), &AtomicU64)| Metric {
            name,
            help,
            labels: Vec::new(),
            value: count.load(Ordering::Relaxed),
        };
        METRICS.into_iter().zip(&self.0).map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_its_metric() {
        let counts = ExtensionCounts::default();
        counts.add(Counted::SysRefused);
        counts.add(Counted::DelayedFull);
        counts.add(Counted::DelayedFull);
        let metrics = counts.metrics();
        assert_eq!((metrics[0].name, metrics[0].value), ("sys_publish_refused_total", 1));
        let full = metrics.iter().find(|metric| metric.value == 2).unwrap();
        assert_eq!(full.name, "delayed_full_messages_total");
        counts.add(Counted::EventsDropped);
        let last = counts.metrics().pop().unwrap();
        assert_eq!((last.name, last.value), ("client_events_dropped_total", 1));
        assert_eq!(counts.get(Counted::DelayedFull), 2);
    }
}
