//! `$exclusive/<filter>`: one subscriber at a time on this node.

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::shard::api::SessionNo;

/// Who holds which filter.
#[derive(Debug, Default)]
pub struct ExclusiveFilters {
    /// A lock, since sessions of all shards compete; it is taken for such subscriptions only.
    /// Bounded by the subscriptions of the node.
    holders: Mutex<FxHashMap<Box<str>, SessionNo>>,
}

impl ExclusiveFilters {
    /// Whether the session holds the filter now: it did, or nobody did.
    #[must_use]
    pub fn claim(&self, filter: &str, session: SessionNo) -> bool {
        let mut holders = self.holders.lock();
        match holders.get(filter) {
            Some(holder) => *holder == session,
            None => {
                holders.insert(filter.into(), session);
                true
            }
        }
    }

    /// Lets go of a filter, if the session holds it.
    pub fn release(&self, filter: &str, session: SessionNo) {
        let mut holders = self.holders.lock();
        if holders.get(filter) == Some(&session) {
            holders.remove(filter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_one_holder_until_that_lets_go() {
        let filters = ExclusiveFilters::default();
        assert!(filters.claim("a", SessionNo(1)) && filters.claim("a", SessionNo(1)));
        assert!(!filters.claim("a", SessionNo(2)) && filters.claim("b", SessionNo(2)));
        filters.release("a", SessionNo(2));
        assert!(!filters.claim("a", SessionNo(2)));
        filters.release("a", SessionNo(1));
        assert!(filters.claim("a", SessionNo(2)));
    }
}
