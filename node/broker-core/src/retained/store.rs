//! Values by topic, and what is to be done with them when.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use verge_model::UnixMillis;
use verge_mqtt_proto::TopicName;

use super::{RetainedValue, is_own};
use crate::router::trie::LevelTrie;

/// Values by topic.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// Boxed, since most nodes of the trie hold none.
    slots: LevelTrie<Box<Slot>>,
    /// Bytes of all messages, the node's own left out.
    bytes: usize,
    /// Topics with a message of the node's own.
    own: usize,
    /// Messages not kept for lack of room.
    pub(super) refused: u64,
    /// Topics whose message expires, by [`Slot::due`].
    expiring: BTreeSet<(UnixMillis, Box<str>)>,
    /// Topics without message, by [`Slot::due`].
    tombstones: BTreeSet<(UnixMillis, Box<str>)>,
}

#[derive(Debug)]
struct Slot {
    value: RetainedValue,
    /// When the message expires, or the tombstone has served.
    due: Option<UnixMillis>,
}

impl Store {
    pub(super) fn get(&self, topic: &str) -> Option<&RetainedValue> {
        self.slots.get(topic).map(|slot| &slot.value)
    }

    /// Replaces what is known of a topic.
    pub(super) fn set(&mut self, topic: &str, value: RetainedValue, tombstone_ttl: Duration) {
        let due = match &value.message {
            Some(message) => message.expires_at,
            None => Some(value.stamp.wall() + tombstone_ttl),
        };
        self.replace(topic, Slot { value, due });
    }

    /// Makes tombstones of messages that have expired, at most `limit`.
    pub(super) fn expire(&mut self, wall: UnixMillis, tombstone_ttl: Duration, limit: usize) {
        for _ in 0..limit {
            let Some((at, topic)) = self.expiring.first().cloned() else { return };
            if at > wall {
                return;
            }
            let value = self.get(&topic).expect("what expires is there");
            // The stamp stays, so that a value older than the expired one does not take its place.
            let value = RetainedValue { message: None, ..value.clone() };
            self.replace(&topic, Slot { value, due: Some(at + tombstone_ttl) });
        }
    }

    /// Forgets tombstones that have served or that are more than `count_max`, at most `limit`, and
    /// gives their topics.
    pub(super) fn forget_tombstones(
        &mut self,
        wall: UnixMillis,
        count_max: usize,
        limit: usize,
    ) -> Vec<TopicName> {
        let mut forgotten = Vec::new();
        while forgotten.len() < limit {
            let full = self.tombstones.len() > count_max;
            let Some((at, _)) = self.tombstones.first() else { break };
            if *at > wall && !full {
                break;
            }
            let (_, topic) = self.tombstones.pop_first().expect("it is not empty");
            self.slots.remove(&topic);
            forgotten.push(TopicName::try_from(topic).expect("it was given as a topic name"));
        }
        forgotten
    }

    /// When something expires or has served; at once, if there are more tombstones than
    /// `count_max`.
    pub(super) fn next_due(&self, count_max: usize) -> Option<UnixMillis> {
        if self.tombstones.len() > count_max {
            return Some(UnixMillis(0));
        }
        let expiring = self.expiring.first().map(|(at, _)| *at);
        let tombstone = self.tombstones.first().map(|(at, _)| *at);
        expiring.into_iter().chain(tombstone).min()
    }

    /// Visits the values of the topics a filter wants, in the order of their levels.
    pub(super) fn topics_matching(
        &self,
        filter: &str,
        mut visit: impl FnMut(&RetainedValue) -> ControlFlow<()>,
    ) {
        self.slots.topics_matching(filter, |slot| visit(&slot.value));
    }

    pub(super) fn message_count(&self) -> usize {
        self.slots.len() - self.tombstones.len() - self.own
    }

    pub(super) fn tombstone_count(&self) -> usize {
        self.tombstones.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn replace(&mut self, topic: &str, slot: Slot) {
        let is_own = is_own(topic);
        if let Some(old) = self.slots.remove(topic) {
            match is_own {
                true => self.own -= usize::from(old.value.message.is_some()),
                false => self.bytes -= bytes(&old.value),
            }
            if let Some(due) = old.due {
                let removed = self.due_set(&old.value).remove(&(due, topic.into()));
                debug_assert!(removed, "what is due is in its set");
            }
        }
        match is_own {
            true => self.own += usize::from(slot.value.message.is_some()),
            false => self.bytes += bytes(&slot.value),
        }
        if let Some(due) = slot.due {
            self.due_set(&slot.value).insert((due, topic.into()));
        }
        self.slots.get_or_insert_with(topic, || Box::new(slot));
    }

    fn due_set(&mut self, value: &RetainedValue) -> &mut BTreeSet<(UnixMillis, Box<str>)> {
        if value.message.is_some() { &mut self.expiring } else { &mut self.tombstones }
    }
}

fn bytes(value: &RetainedValue) -> usize {
    value.message.as_ref().map_or(0, |message| message.queue_bytes())
}
