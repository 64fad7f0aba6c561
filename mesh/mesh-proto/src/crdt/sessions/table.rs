//! Entries in the order of their clients' hashes, with digests.
//!
//! ```text
//! hash of the client   gg bb .. .. .. .. .. ..
//!                      group (256)
//!                         bucket (256 in each group)
//! ```
//!
//! A bucket's digest is the exclusive or of its entries' digests, a group's that of its buckets':
//! both follow each change at once, and equal content has equal digests whatever the history.

use std::collections::BTreeMap;

use verge_model::ClientKey;

use super::homes::mix;
use crate::limits::{BUCKETS_PER_GROUP, REGISTRY_GROUPS};

#[derive(Debug)]
pub(crate) struct Table {
    /// Canonical bytes by (hash, client); two clients with one hash are two rows.
    rows: BTreeMap<(u64, ClientKey), Box<[u8]>>,
    groups: Vec<Group>,
}

#[derive(Debug, Default, Clone)]
struct Group {
    digest: u64,
    /// Made with the first entry: an empty group costs nothing.
    buckets: Option<Box<[u64; BUCKETS_PER_GROUP]>>,
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableRow<'a> {
    pub(crate) hash: u64,
    pub(crate) client: &'a ClientKey,
    pub(crate) entry: &'a [u8],
}

impl TableRow<'_> {
    pub(crate) fn digest(&self) -> u64 {
        digest(self.hash, self.entry)
    }
}

pub(crate) fn group_of(hash: u64) -> u8 {
    hash.to_be_bytes()[0]
}

fn bucket_of(hash: u64) -> u8 {
    hash.to_be_bytes()[1]
}

/// The hashes of a bucket: first and last.
pub(crate) fn hashes_of(group: u8, bucket: u8) -> (u64, u64) {
    let first = u64::from_be_bytes([group, bucket, 0, 0, 0, 0, 0, 0]);
    (first, first | (u64::MAX >> 16))
}

/// FNV-1a of the entry, mixed with the client's hash: the same on every node.
fn digest(hash: u64, entry: &[u8]) -> u64 {
    let mut out = 0xcbf2_9ce4_8422_2325_u64;
    for byte in entry {
        out = (out ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(out ^ mix(hash))
}

impl Default for Table {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), groups: vec![Group::default(); REGISTRY_GROUPS] }
    }
}

impl Table {
    pub(crate) fn insert(&mut self, client: &ClientKey, entry: &[u8]) {
        let hash = client.stable_hash();
        let old = self.rows.insert((hash, client.clone()), entry.into());
        if let Some(old) = old {
            self.toggle(hash, &old);
        }
        self.toggle(hash, entry);
    }

    pub(crate) fn remove(&mut self, client: &ClientKey) -> bool {
        let hash = client.stable_hash();
        let Some(old) = self.rows.remove(&(hash, client.clone())) else { return false };
        self.toggle(hash, &old);
        true
    }

    pub(crate) fn get(&self, client: &ClientKey) -> Option<TableRow<'_>> {
        let hash = client.stable_hash();
        let ((_, client), entry) = self.rows.get_key_value(&(hash, client.clone()))?;
        Some(TableRow { hash, client, entry })
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn group_digest(&self, group: u8) -> u64 {
        self.groups[usize::from(group)].digest
    }

    /// Digests of the buckets that hold anything.
    pub(crate) fn bucket_digests(&self, group: u8) -> BTreeMap<u8, u64> {
        let Some(buckets) = &self.groups[usize::from(group)].buckets else {
            return BTreeMap::new();
        };
        (0..=u8::MAX).zip(buckets.iter().copied()).filter(|(_, digest)| *digest != 0).collect()
    }

    /// Rows whose hashes lie between `first` and `last`, both included.
    pub(crate) fn range(&self, first: u64, last: u64) -> impl Iterator<Item = TableRow<'_>> {
        let least = ClientKey { principal: "".into(), client_id: "".into() };
        self.rows
            .range((first, least)..)
            .take_while(move |((hash, _), _)| *hash <= last)
            .map(|((hash, client), entry)| TableRow { hash: *hash, client, entry })
    }

    /// Rows of a group.
    pub(crate) fn group(&self, group: u8) -> impl Iterator<Item = TableRow<'_>> {
        let (first, _) = hashes_of(group, 0);
        let (_, last) = hashes_of(group, u8::MAX);
        self.range(first, last)
    }

    fn toggle(&mut self, hash: u64, entry: &[u8]) {
        let group = &mut self.groups[usize::from(group_of(hash))];
        let digest = digest(hash, entry);
        group.digest ^= digest;
        let buckets = group.buckets.get_or_insert_with(|| Box::new([0; BUCKETS_PER_GROUP]));
        buckets[usize::from(bucket_of(hash))] ^= digest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_depend_on_content_only() {
        let clients: Vec<_> = (0..500).map(|n| ClientKey::anonymous(&format!("obu-{n}"))).collect();
        let (mut a, mut b) = (Table::default(), Table::default());
        for client in &clients {
            a.insert(client, b"old");
            a.insert(client, b"new");
        }
        for client in clients.iter().rev() {
            b.insert(client, b"new");
        }
        let other = ClientKey::anonymous("other");
        b.insert(&other, b"x");
        let group = group_of(other.stable_hash());
        assert_ne!(a.group_digest(group), b.group_digest(group));
        assert!(b.remove(&other));
        for group in 0..=255 {
            assert_eq!(a.group_digest(group), b.group_digest(group));
            assert_eq!(a.bucket_digests(group), b.bucket_digests(group));
        }
        assert_eq!(a.len(), 500);
    }

    #[test]
    fn ranges_of_all_buckets_hold_every_row_once() {
        let mut table = Table::default();
        for n in 0..300 {
            table.insert(&ClientKey::anonymous(&n.to_string()), b"e");
        }
        let mut seen = 0;
        for group in 0..=255 {
            let rows: Vec<u64> = table.group(group).map(|row| row.hash).collect();
            let mut by_bucket = Vec::new();
            for (bucket, digest) in table.bucket_digests(group) {
                let (first, last) = hashes_of(group, bucket);
                by_bucket.extend(table.range(first, last).map(|row| row.hash));
                let sum = table.range(first, last).fold(0, |sum, row| sum ^ row.digest());
                assert_eq!(sum, digest);
            }
            assert_eq!(rows, by_bucket);
            seen += rows.len();
        }
        assert_eq!(seen, 300);
    }
}
