//! Topic aliases (3.3.2.3.4): numbers in place of topics, for one Network Connection and one
//! direction. [MQTT-3.3.2-7]

use std::hash::BuildHasher;
use std::sync::Arc;

use rustc_hash::{FxBuildHasher, FxHashMap};
use thiserror::Error;

/// The aliases the peer has set towards us.
#[derive(Debug)]
pub struct InboundAliases {
    /// What we told the peer it may use.
    maximum: u16,
    /// Topic of alias n at n − 1; as long as the highest alias set so far, at most `maximum`. There
    /// once the peer has set one.
    #[allow(clippy::box_collection, reason = "most peers set none, and have a word for it")]
    topics: Option<Box<Vec<Option<Arc<str>>>>>,
}

/// The peer's alias cannot be resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AliasError {
    /// 0, or above the maximum we gave. [MQTT-3.3.2-8] [MQTT-3.3.2-9]
    #[error("topic alias {0} is not within the topic alias maximum [MQTT-3.3.2-9]")]
    OutOfRange(u16),
    /// An alias without a topic that was never set: a Protocol Error. (3.3.2.3.4)
    #[error("topic alias {0} was never set (3.3.2.3.4)")]
    Unknown(u16),
}

impl InboundAliases {
    /// None set; the peer may set 1 to `maximum`.
    #[must_use]
    pub const fn new(maximum: u16) -> Self {
        Self { maximum, topics: None }
    }

    /// Lets `alias` stand for `topic` from now on. "A sender can modify the Topic Alias mapping."
    ///
    /// # Errors
    ///
    /// The alias is out of range; nothing changed.
    pub fn set(&mut self, alias: u16, topic: &str) -> Result<(), AliasError> {
        let index = self.index(alias)?;
        let topics = self.topics.get_or_insert_default();
        if topics.len() <= index {
            topics.resize(index + 1, None);
        }
        if topics[index].as_deref() != Some(topic) {
            topics[index] = Some(topic.into());
        }
        Ok(())
    }

    /// The topic `alias` stands for.
    ///
    /// # Errors
    ///
    /// The alias is out of range or was never set.
    pub fn resolve(&self, alias: u16) -> Result<&Arc<str>, AliasError> {
        let index = self.index(alias)?;
        let known = self.topics.as_deref().and_then(|topics| topics.get(index)?.as_ref());
        known.ok_or(AliasError::Unknown(alias))
    }

    fn index(&self, alias: u16) -> Result<usize, AliasError> {
        if alias == 0 || alias > self.maximum {
            return Err(AliasError::OutOfRange(alias));
        }
        Ok(usize::from(alias) - 1)
    }
}

/// How to name a topic to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AliasUse {
    /// By the topic alone.
    Topic,
    /// By the topic, with this alias, which stands for it from now on.
    Set(u16),
    /// By this alias alone, with an empty topic.
    Known(u16),
}

/// Bytes that naming an alias adds to a PUBLISH: property identifier and value. A topic that is not
/// longer is cheaper spelt out.
const ALIAS_BYTES: usize = 3;

/// Bytes that setting an alias may add to a PUBLISH: the property, and a byte more in each of
/// Property Length and Remaining Length.
pub const SET_BYTES_MAX: usize = ALIAS_BYTES + 2;

/// Longest topic that is given an alias, in bytes: it bounds what a connection's table holds, and
/// is several times the longest topic seen on a road.
const TOPIC_BYTES_MAX: usize = 512;

/// Topics remembered as seen once, for each alias: a topic that comes back within that many others
/// is worth a place.
const SEEN_PER_ALIAS: usize = 4;

/// The aliases we have set towards the peer, chosen by use.
///
/// While there are free ones, each new topic is given one. When all are in use, a topic takes the
/// place of another only at its second sight, so that topics that pass once leave the table as it
/// is. Then the alias that has gone longest without use is given away, by the clock algorithm: each
/// use marks an alias, the hand takes marks away until it finds none.
///
/// | bound | value |
/// |---|---|
/// | aliases | `maximum`: what the peer accepts and we are willing to keep |
/// | bytes of topics | `maximum` times 512 |
#[derive(Debug)]
pub struct OutboundAliases {
    maximum: u16,
    by_topic: FxHashMap<Arc<str>, u16>,
    /// The use of alias n at n − 1; as long as the highest alias given, at most `maximum`.
    slots: Vec<Slot>,
    hand: usize,
    /// Hashes of topics without an alias that were seen; empty until all aliases are in use.
    seen: Box<[u32]>,
}

#[derive(Debug)]
struct Slot {
    topic: Arc<str>,
    used: bool,
}

impl OutboundAliases {
    /// None set; 1 to `maximum` may be. [MQTT-3.3.2-11]
    #[must_use]
    pub fn new(maximum: u16) -> Self {
        Self {
            maximum,
            by_topic: FxHashMap::default(),
            slots: Vec::new(),
            hand: 0,
            seen: Box::default(),
        }
    }

    /// How to name `topic` in the PUBLISH that is sent next; it has room for [`SET_BYTES_MAX`] more
    /// bytes if `may_set`.
    ///
    /// The caller must send that PUBLISH: an alias that was set is taken for known afterwards. If it
    /// cannot, it calls [`forget_all`](Self::forget_all).
    pub fn choose(&mut self, topic: &str, may_set: bool) -> AliasUse {
        if topic.len() <= ALIAS_BYTES || topic.len() > TOPIC_BYTES_MAX || self.maximum == 0 {
            return AliasUse::Topic;
        }
        if let Some(&alias) = self.by_topic.get(topic) {
            self.slots[usize::from(alias) - 1].used = true;
            return AliasUse::Known(alias);
        }
        let is_full = self.slots.len() >= usize::from(self.maximum);
        if !may_set || is_full && !self.was_seen(topic) {
            return AliasUse::Topic;
        }
        let slot = Slot { topic: topic.into(), used: true };
        let shared_topic = Arc::clone(&slot.topic);
        let index = if is_full {
            let index = self.take_unused();
            let previous = std::mem::replace(&mut self.slots[index], slot);
            self.by_topic.remove(&previous.topic);
            index
        } else {
            self.slots.push(slot);
            self.slots.len() - 1
        };
        let alias = u16::try_from(index + 1).expect("there are at most `maximum` slots");
        self.by_topic.insert(shared_topic, alias);
        AliasUse::Set(alias)
    }

    /// Begins anew: what is set from now on replaces what the peer has.
    pub fn forget_all(&mut self) {
        *self = Self::new(self.maximum);
    }

    /// Whether the topic was seen a while ago; from now on it was.
    fn was_seen(&mut self, topic: &str) -> bool {
        if self.seen.is_empty() {
            self.seen = vec![0; usize::from(self.maximum) * SEEN_PER_ALIAS].into_boxed_slice();
        }
        let hash = FxBuildHasher.hash_one(topic);
        // 0 stands for no topic.
        let mark = ((hash >> 32) as u32).max(1);
        let place = usize::try_from(hash % self.seen.len() as u64).unwrap_or_default();
        std::mem::replace(&mut self.seen[place], mark) == mark
    }

    /// Moves the hand to the next slot without a mark; at most once around.
    fn take_unused(&mut self) -> usize {
        loop {
            let index = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            if !self.slots[index].used {
                return index;
            }
            self.slots[index].used = false;
        }
    }

    /// Asserts what holds between two calls.
    pub fn check_invariants(&self) {
        assert!(self.slots.len() <= usize::from(self.maximum), "no more aliases than accepted");
        assert_eq!(self.slots.len(), self.by_topic.len(), "every slot is found by its topic");
        for (index, slot) in self.slots.iter().enumerate() {
            let alias = self.by_topic.get(&slot.topic).copied().map(usize::from);
            assert_eq!(alias, Some(index + 1), "a topic leads to its slot");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_stands_for_the_topic_it_was_last_set_to() {
        let mut aliases = InboundAliases::new(2);
        assert_eq!(aliases.resolve(1), Err(AliasError::Unknown(1)));
        aliases.set(2, "a").unwrap();
        assert_eq!(aliases.resolve(2).map(|topic| &**topic), Ok("a"));
        aliases.set(2, "b").unwrap();
        assert_eq!(aliases.resolve(2).map(|topic| &**topic), Ok("b"));
    }

    #[test]
    fn aliases_outside_of_the_maximum_are_refused_mqtt_3_3_2_8_mqtt_3_3_2_9() {
        let mut aliases = InboundAliases::new(2);
        for alias in [0, 3, u16::MAX] {
            assert_eq!(aliases.set(alias, "a"), Err(AliasError::OutOfRange(alias)));
            assert_eq!(aliases.resolve(alias), Err(AliasError::OutOfRange(alias)));
        }
        assert_eq!(InboundAliases::new(0).set(1, "a"), Err(AliasError::OutOfRange(1)));
    }

    #[test]
    fn no_alias_is_used_towards_a_peer_that_accepts_none_mqtt_3_3_2_11() {
        assert_eq!(OutboundAliases::new(0).choose("road", true), AliasUse::Topic);
    }

    #[test]
    fn an_alias_is_used_only_where_it_saves_bytes() {
        let mut aliases = OutboundAliases::new(8);
        assert_eq!(aliases.choose("abc", true), AliasUse::Topic);
        assert_eq!(aliases.choose("abcd", true), AliasUse::Set(1));
        let long = "a".repeat(TOPIC_BYTES_MAX + 1);
        assert_eq!(aliases.choose(&long, true), AliasUse::Topic);
        assert_eq!(aliases.choose("road", false), AliasUse::Topic, "the packet has no room");
        assert_eq!(aliases.choose("abcd", false), AliasUse::Known(1), "which makes it smaller");
    }

    #[test]
    fn the_alias_longest_without_use_is_given_anew_to_a_topic_that_comes_back() {
        let mut aliases = OutboundAliases::new(2);
        let transcript = [
            ("road/a", AliasUse::Set(1)),
            ("road/b", AliasUse::Set(2)),
            ("road/a", AliasUse::Known(1)),
            ("road/b", AliasUse::Known(2)),
            ("road/c", AliasUse::Topic),
            ("road/b", AliasUse::Known(2)),
            ("road/c", AliasUse::Set(1)),
            ("road/c", AliasUse::Known(1)),
            ("road/b", AliasUse::Known(2)),
            ("road/a", AliasUse::Topic),
            ("road/a", AliasUse::Set(2)),
        ];
        for (step, (topic, expected)) in transcript.into_iter().enumerate() {
            assert_eq!(aliases.choose(topic, true), expected, "step {step}");
            aliases.check_invariants();
        }
        aliases.forget_all();
        assert_eq!(aliases.choose("road/a", true), AliasUse::Set(1));
    }

    #[test]
    fn topics_that_pass_once_leave_the_table_as_it_is() {
        let mut aliases = OutboundAliases::new(4);
        for name in ["road/a", "road/b", "road/c", "road/d"] {
            aliases.choose(name, true);
        }
        let set = (0..1_000)
            .filter(|number| aliases.choose(&format!("once/{number}"), true) != AliasUse::Topic);
        assert_eq!(set.count(), 0);
        assert_eq!(aliases.choose("road/d", true), AliasUse::Known(4));
    }

    #[test]
    fn what_one_side_chooses_the_other_resolves() {
        let (mut sender, mut receiver) = (OutboundAliases::new(3), InboundAliases::new(3));
        let mut known = 0;
        for step in 0..400_usize {
            let topic = format!("topic/{}", step * step % 7);
            let seen = match sender.choose(&topic, true) {
                AliasUse::Topic => topic.clone(),
                AliasUse::Set(alias) => {
                    receiver.set(alias, &topic).unwrap();
                    topic.clone()
                }
                AliasUse::Known(alias) => {
                    known += 1;
                    receiver.resolve(alias).unwrap().to_string()
                }
            };
            assert_eq!(seen, topic);
            sender.check_invariants();
        }
        assert!(known > 0);
    }
}
