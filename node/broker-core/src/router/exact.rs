//! Filters without wildcards: they match the topic that is the same text.

use std::hash::BuildHasher;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

use super::entry::Entry;
use crate::spread::Spread;

/// Filters without wildcards.
#[derive(Debug, Default)]
pub struct ExactFilters(Spread<Box<Exact>>);

/// A filter, and who wants it. Boxed: tables grow by moving pointers, and their empty places cost
/// no more than one.
#[derive(Debug)]
struct Exact {
    /// Shared with the session that subscribed first, if its filter has no prefix.
    text: Arc<str>,
    entry: Entry,
}

impl ExactFilters {
    /// Who wants this topic.
    #[must_use]
    pub fn get(&self, topic: &str) -> Option<&Entry> {
        self.0.get(hash(topic), |exact| *exact.text == *topic).map(|exact| &exact.entry)
    }

    /// As [`get`](Self::get), to change it.
    pub fn get_mut(&mut self, topic: &str) -> Option<&mut Entry> {
        self.0.get_mut(hash(topic), |exact| *exact.text == *topic).map(|exact| &mut exact.entry)
    }

    /// The entry of a filter, made if there is none; `text` gives the filter's text to keep.
    pub fn get_or_insert(&mut self, filter: &str, text: impl FnOnce() -> Arc<str>) -> &mut Entry {
        let exact = self.0.get_or_insert_with(
            hash(filter),
            |exact| *exact.text == *filter,
            |exact| hash(&exact.text),
            || Box::new(Exact { text: text(), entry: Entry::default() }),
        );
        &mut exact.entry
    }

    /// Changes the entry of a filter, and forgets the filter if nobody wants it then.
    pub fn update<R>(&mut self, filter: &str, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        self.0.update(
            hash(filter),
            |exact| *exact.text == *filter,
            |exact| {
                let result = change(&mut exact.entry);
                (result, exact.entry.is_empty())
            },
        )
    }

    /// How many filters there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Visits every filter, in no order.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<str>, &Entry)) {
        self.0.iter().for_each(|exact| visit(&exact.text, &exact.entry));
    }
}

fn hash(filter: &str) -> u64 {
    FxBuildHasher.hash_one(filter)
}
