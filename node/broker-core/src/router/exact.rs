//! Filters without wildcards: they match the topic that is the same text.

use rustc_hash::FxHashMap;

use super::entry::Entry;

/// Filters without wildcards.
#[derive(Debug, Default)]
pub struct ExactFilters {
    /// Entries are boxed: the table grows by moving pointers, not subscribers.
    entries: FxHashMap<Box<str>, Box<Entry>>,
}

impl ExactFilters {
    /// Who wants this topic.
    #[must_use]
    pub fn get(&self, topic: &str) -> Option<&Entry> {
        self.entries.get(topic).map(Box::as_ref)
    }

    /// As [`get`](Self::get), to change it.
    pub fn get_mut(&mut self, topic: &str) -> Option<&mut Entry> {
        self.entries.get_mut(topic).map(Box::as_mut)
    }

    /// The entry of a filter, made if there is none.
    pub fn get_or_insert(&mut self, filter: &str) -> &mut Entry {
        if !self.entries.contains_key(filter) {
            self.entries.insert(filter.into(), Box::default());
        }
        self.get_mut(filter).expect("it was there or has just been inserted")
    }

    /// Forgets a filter.
    pub fn remove(&mut self, filter: &str) {
        self.entries.remove(filter);
    }

    /// How many filters there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Visits every filter, in no order.
    pub fn for_each(&self, mut visit: impl FnMut(&str, &Entry)) {
        self.entries.iter().for_each(|(filter, entry)| visit(filter, entry));
    }
}
