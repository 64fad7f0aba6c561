//! `$delayed/<seconds>/<topic>`: published later.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use verge_model::UnixMillis;
use verge_mqtt_proto::TopicName;

/// Before the seconds.
pub const DELAYED_PREFIX: &str = "$delayed/";

/// Longest delay in seconds, almost 50 days. A greater number is taken for a moment in Unix seconds.
pub const DELAY_SECS_MAX: u64 = 4_294_967;

/// What a topic that begins with `$delayed/` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayedTopic {
    /// How long from now.
    pub delay: Duration,
    /// Where it is published then.
    pub topic: TopicName,
}

impl DelayedTopic {
    /// Reads what stands behind `$delayed/`; `None` if it is malformed: no number, a moment too far
    /// away, no topic behind it, or one that is not published to by clients.
    #[must_use]
    pub fn parse(rest: &str, now: UnixMillis) -> Option<Self> {
        let (number, topic) = rest.split_once('/')?;
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let secs: u64 = number.parse().ok()?;
        let longest = Duration::from_secs(DELAY_SECS_MAX);
        let delay = if secs <= DELAY_SECS_MAX {
            Duration::from_secs(secs)
        } else {
            UnixMillis(secs.checked_mul(1_000)?).since(now)
        };
        if delay > longest || topic.starts_with(DELAYED_PREFIX) || is_reserved(topic) {
            return None;
        }
        Some(Self { delay, topic: TopicName::parse(topic).ok()? })
    }
}

/// Before topics that only the node itself publishes to.
const SYS_PREFIX: &str = "$SYS/";

/// Whether only the node itself publishes to a topic.
#[must_use]
pub fn is_reserved(topic: &str) -> bool {
    topic.starts_with(SYS_PREFIX) || topic == "$SYS"
}

/// How much waits to be published, on all shards.
#[derive(Debug)]
pub struct DelayedBounds {
    messages_max: u64,
    bytes_max: u64,
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Default for DelayedBounds {
    /// Nothing may wait.
    fn default() -> Self {
        Self::new(0, 0)
    }
}

impl DelayedBounds {
    /// At most so many messages, and bytes by
    /// [`Message::queue_bytes`](verge_mqtt_proto::message::Message::queue_bytes).
    #[must_use]
    pub fn new(messages_max: u64, bytes_max: u64) -> Self {
        Self { messages_max, bytes_max, messages: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Takes one more; false if there is no room.
    #[must_use]
    pub fn take(&self, bytes: usize) -> bool {
        let more = |max: u64, by: u64| move |now: u64| now.checked_add(by).filter(|n| *n <= max);
        let bytes = bytes as u64;
        let fits = |counter: &AtomicU64, max, by| {
            counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more(max, by)).is_ok()
        };
        if !fits(&self.messages, self.messages_max, 1) {
            return false;
        }
        if !fits(&self.bytes, self.bytes_max, bytes) {
            self.messages.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Takes one that was accepted in an earlier life, whatever the bounds are now.
    pub fn take_stored(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// One was published, or could not be stored.
    pub fn give_back(&self, bytes: usize) {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// Messages that wait, and their bytes.
    #[must_use]
    pub fn waiting(&self) -> (u64, u64) {
        (self.messages.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_or_a_moment_then_a_topic() {
        let now = UnixMillis(1_000_000_000_500);
        let parsed = |rest| DelayedTopic::parse(rest, now).map(|topic| topic.delay.as_millis());
        for (rest, delay) in [
            ("0/a", Some(0)),
            ("5/a/b", Some(5_000)),
            ("0005/a", Some(5_000)),
            ("5//a", Some(5_000)),
            ("4294967/a", Some(4_294_967_000)),
            // Unix seconds: half a second ahead of a whole one, in the past, and too far ahead.
            ("1000000010/a", Some(9_500)),
            ("999999999/a", Some(0)),
            ("1004294969/a", None),
            ("99999999999999999999999/a", None),
            ("", None),
            ("5", None),
            ("5/", None),
            ("/a", None),
            ("x/a", None),
            ("-1/a", None),
            ("+5/a", None),
            ("1.5/a", None),
            ("5/$delayed/5/a", None),
            ("5/$SYS/a", None),
        ] {
            assert_eq!(parsed(rest), delay, "{rest}");
        }
        assert_eq!(DelayedTopic::parse("5//a/", now).unwrap().topic.as_str(), "/a/");
    }

    #[test]
    fn messages_and_bytes_are_bounded() {
        let bounds = DelayedBounds::new(2, 100);
        assert!(bounds.take(60) && !bounds.take(60) && bounds.take(40));
        assert!(!bounds.take(0));
        assert_eq!(bounds.waiting(), (2, 100));
        bounds.give_back(60);
        assert!(bounds.take(60));
        assert!(!DelayedBounds::default().take(1));
    }
}
