//! Passwords found right a moment ago, so that a client that connects often costs a hash.

use std::time::Duration;

use rustc_hash::FxHashMap;
use verge_model::Millis;

use super::verifier::KEY_BYTES;

/// How long a right password is remembered. A changed file of users ends it at once.
pub const CACHED: Duration = Duration::from_secs(300);

/// Most passwords remembered: the clients of a large node, at some hundred bytes each.
const ENTRIES_MAX: usize = 100_000;

/// Until when each is remembered, by a keyed hash of name and password.
#[derive(Debug, Default)]
pub(super) struct Cache(FxHashMap<[u8; KEY_BYTES], Millis>);

impl Cache {
    pub(super) fn contains(&self, key: &[u8; KEY_BYTES], now: Millis) -> bool {
        self.0.get(key).is_some_and(|until| now < *until)
    }

    pub(super) fn insert(&mut self, key: [u8; KEY_BYTES], now: Millis) {
        if self.0.len() >= ENTRIES_MAX {
            self.0.retain(|_, until| now < *until);
        }
        if self.0.len() < ENTRIES_MAX {
            self.0.insert(key, now + CACHED);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
