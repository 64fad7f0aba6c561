//! Topic aliases (3.3.2.3.4): numbers in place of topics, for one Network Connection and one
//! direction. [MQTT-3.3.2-7]

use std::sync::Arc;

use rustc_hash::FxHashMap;
use thiserror::Error;

/// The aliases the peer has set towards us.
#[derive(Debug)]
pub struct InboundAliases {
    /// What we told the peer it may use.
    maximum: u16,
    /// Topic of alias n at n − 1; as long as the highest alias set so far, at most `maximum`.
    topics: Vec<Option<Arc<str>>>,
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
        Self { maximum, topics: Vec::new() }
    }

    /// Lets `alias` stand for `topic` from now on. "A sender can modify the Topic Alias mapping."
    ///
    /// # Errors
    ///
    /// The alias is out of range; nothing changed.
    pub fn set(&mut self, alias: u16, topic: &str) -> Result<(), AliasError> {
        let index = self.index(alias)?;
        if self.topics.len() <= index {
            self.topics.resize(index + 1, None);
        }
        if self.topics[index].as_deref() != Some(topic) {
            self.topics[index] = Some(topic.into());
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
        self.topics.get(index).and_then(Option::as_ref).ok_or(AliasError::Unknown(alias))
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

/// The aliases we have set towards the peer.
///
/// When all are in use, the one that has gone longest without use is given to the new topic, by the
/// clock algorithm: each use marks an alias, the hand takes marks away until it finds none.
#[derive(Debug)]
pub struct OutboundAliases {
    /// What the peer accepts, and we are willing to keep.
    maximum: u16,
    by_topic: FxHashMap<Arc<str>, u16>,
    /// The use of alias n at n − 1; as long as the highest alias given, at most `maximum`.
    slots: Vec<Slot>,
    hand: usize,
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
        Self { maximum, by_topic: FxHashMap::default(), slots: Vec::new(), hand: 0 }
    }

    /// How to name `topic` in the PUBLISH that is sent next.
    ///
    /// The caller must send that PUBLISH: an alias that was set is taken for known afterwards.
    pub fn choose(&mut self, topic: &str) -> AliasUse {
        if self.maximum == 0 {
            return AliasUse::Topic;
        }
        if let Some(&alias) = self.by_topic.get(topic) {
            self.slots[usize::from(alias) - 1].used = true;
            return AliasUse::Known(alias);
        }
        let slot = Slot { topic: topic.into(), used: true };
        let shared_topic = Arc::clone(&slot.topic);
        let index = self.slots.len();
        let index = if index < usize::from(self.maximum) {
            self.slots.push(slot);
            index
        } else {
            let index = self.take_unused();
            let previous = std::mem::replace(&mut self.slots[index], slot);
            self.by_topic.remove(&previous.topic);
            index
        };
        let alias = u16::try_from(index + 1).expect("there are at most `maximum` slots");
        self.by_topic.insert(shared_topic, alias);
        AliasUse::Set(alias)
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
        assert_eq!(OutboundAliases::new(0).choose("a"), AliasUse::Topic);
    }

    #[test]
    fn the_alias_longest_without_use_is_given_anew() {
        let mut aliases = OutboundAliases::new(2);
        let transcript = [
            ("a", AliasUse::Set(1)),
            ("b", AliasUse::Set(2)),
            ("a", AliasUse::Known(1)),
            ("b", AliasUse::Known(2)),
            ("c", AliasUse::Set(1)),
            ("c", AliasUse::Known(1)),
            ("a", AliasUse::Set(2)),
        ];
        for (step, (topic, expected)) in transcript.into_iter().enumerate() {
            assert_eq!(aliases.choose(topic), expected, "step {step}");
            aliases.check_invariants();
        }
    }

    #[test]
    fn what_one_side_chooses_the_other_resolves() {
        let (mut sender, mut receiver) = (OutboundAliases::new(3), InboundAliases::new(3));
        for step in 0..200_usize {
            let topic = format!("t/{}", step * step % 7);
            let seen = match sender.choose(&topic) {
                AliasUse::Topic => topic.clone(),
                AliasUse::Set(alias) => {
                    receiver.set(alias, &topic).unwrap();
                    topic.clone()
                }
                AliasUse::Known(alias) => receiver.resolve(alias).unwrap().to_string(),
            };
            assert_eq!(seen, topic);
            sender.check_invariants();
        }
    }
}
