//! Two homes compare what they have, and exchange what differs.
//!
//! ```text
//! smaller key                                greater key
//!   |--GroupDigests (256 of 8 bytes)----------->|
//!   |<-BucketDigests (per differing group)------|   some groups a round
//!   |--BucketKeys (per differing bucket)------->|
//!   |<-RepairEntries, RepairWants---------------|
//!   |--RepairEntries--------------------------->|
//!   |--GroupDigests (from the next group)------>|   until the end
//! ```
//!
//! Equal registries exchange one frame of some 4 kB. Begun on each link-up and once a period; it
//! carries no state from frame to frame, so that a link may end anywhere in between.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use verge_model::NodeKey;

use super::entry::RegistryEntry;
use super::registry::Registry;
use super::table::{TableRow, group_of, hashes_of};
use crate::effects::Effects;
use crate::limits::{REPAIR_FRAME_BYTES, REPAIR_GROUPS_PER_ROUND};
use crate::output::{Lane, LinkKind};
use crate::wire::{
    BucketDigests, BucketKeys, Frame, GroupDigests, RegistryItem, RepairEntries, RepairWants,
};

/// Keys of one `BucketKeys` or `RepairWants` frame: 16 bytes each.
const KEYS_PER_FRAME: usize = REPAIR_FRAME_BYTES / 16;

impl Registry {
    /// Begins a repair, if it is this side's to begin.
    pub(super) fn begin_repair(&mut self, peer: NodeKey, fx: &mut Effects) {
        if self.own < peer {
            self.send_groups(peer, 0, fx);
        }
    }

    pub(crate) fn handle_groups(&mut self, peer: NodeKey, theirs: GroupDigests, fx: &mut Effects) {
        let differs = |(group, digest): &(u8, [u8; 8])| {
            *group >= theirs.from
                && self.shared(*group, peer)
                && self.table.group_digest(*group).to_be_bytes() != *digest
        };
        let differing: BTreeSet<u8> =
            theirs.groups.iter().filter(|known| differs(known)).map(|(group, _)| *group).collect();
        let next = differing.iter().nth(REPAIR_GROUPS_PER_ROUND).copied();
        let round: Vec<u8> = differing.into_iter().take(REPAIR_GROUPS_PER_ROUND).collect();
        for (at, group) in round.iter().enumerate() {
            let buckets = self.table.bucket_digests(*group).into_iter();
            let buckets = buckets.map(|(bucket, digest)| (bucket, digest.to_be_bytes())).collect();
            let next = next.filter(|_| at + 1 == round.len());
            let frame = BucketDigests { group: *group, buckets, next };
            fx.send(peer, lane(peer, fx), &Frame::BucketDigests(frame));
        }
    }

    pub(crate) fn handle_buckets(
        &mut self,
        peer: NodeKey,
        theirs: BucketDigests,
        fx: &mut Effects,
    ) {
        let BucketDigests { group, buckets, next } = theirs;
        if self.shared(group, peer) {
            let mut differing = self.table.bucket_digests(group);
            for (bucket, digest) in buckets {
                let digest = u64::from_be_bytes(digest);
                if differing.insert(bucket, digest) == Some(digest) {
                    differing.remove(&bucket);
                }
            }
            for bucket in differing.into_keys() {
                let (first, last) = hashes_of(group, bucket);
                self.send_keys(peer, first, last, fx);
            }
        }
        if let Some(next) = next.filter(|next| *next > group) {
            self.send_groups(peer, next, fx);
        }
    }

    pub(crate) fn handle_keys(&mut self, peer: NodeKey, theirs: BucketKeys, fx: &mut Effects) {
        let BucketKeys { from, to, keys } = theirs;
        if from > to || group_of(from) != group_of(to) || !self.shared(group_of(from), peer) {
            return;
        }
        let mut differing: BTreeMap<[u8; 8], [u8; 8]> = keys.into_iter().collect();
        let mut ours = Vec::new();
        for row in self.table.range(from, to) {
            let hash = row.hash.to_be_bytes();
            if differing.get(&hash) == Some(&row.digest().to_be_bytes()) {
                differing.remove(&hash);
            } else {
                ours.push(item(row));
            }
        }
        send_items(peer, ours, fx);
        let wanted: Vec<[u8; 8]> = differing.into_keys().collect();
        for keys in wanted.chunks(KEYS_PER_FRAME) {
            let wants = Frame::RepairWants(RepairWants { keys: keys.to_vec() });
            fx.send(peer, lane(peer, fx), &wants);
        }
    }

    pub(crate) fn handle_wants(&mut self, peer: NodeKey, wants: &RepairWants, fx: &mut Effects) {
        let mut items = Vec::new();
        for hash in &wants.keys {
            let hash = u64::from_be_bytes(*hash);
            if self.shared(group_of(hash), peer) {
                items.extend(self.table.range(hash, hash).map(item));
            }
        }
        send_items(peer, items, fx);
    }

    pub(crate) fn handle_entries(&mut self, theirs: RepairEntries, fx: &mut Effects) {
        for RegistryItem { client, entry } in theirs.items {
            if !self.is_home(&client) {
                continue;
            }
            let merged =
                RegistryEntry::decode(&entry).and_then(|entry| self.merge(&client, entry, fx));
            match merged {
                Ok(merged) => self.notify_loser(&client, &merged, fx),
                Err(_) => self.refused += 1,
            }
        }
    }

    fn send_groups(&self, peer: NodeKey, from: u8, fx: &mut Effects) {
        let shared = (from..=u8::MAX).filter(|group| self.shared(*group, peer));
        let groups: Vec<_> =
            shared.map(|group| (group, self.table.group_digest(group).to_be_bytes())).collect();
        if !groups.is_empty() {
            fx.send(peer, lane(peer, fx), &Frame::GroupDigests(GroupDigests { from, groups }));
        }
    }

    fn send_keys(&self, peer: NodeKey, first: u64, last: u64, fx: &mut Effects) {
        let rows: Vec<_> = self
            .table
            .range(first, last)
            .map(|row| (row.hash.to_be_bytes(), row.digest().to_be_bytes()))
            .collect();
        let mut from = first;
        let mut chunks = rows.chunks(KEYS_PER_FRAME).peekable();
        loop {
            let keys = chunks.next().map(<[_]>::to_vec).unwrap_or_default();
            let to = match (chunks.peek(), keys.last()) {
                (Some(_), Some((hash, _))) => u64::from_be_bytes(*hash),
                (Some(_) | None, _) => last,
            };
            fx.send(peer, lane(peer, fx), &Frame::BucketKeys(BucketKeys { from, to, keys }));
            if to == last {
                break;
            }
            from = to + 1;
        }
    }

    /// Both are homes of the group, as far as this node knows.
    fn shared(&self, group: u8, peer: NodeKey) -> bool {
        self.homes.holds(group, self.own) && self.homes.holds(group, peer)
    }
}

/// The bulk link if there is one: repair is patient.
fn lane(peer: NodeKey, fx: &Effects) -> Lane {
    if fx.established(peer, LinkKind::Bulk) { Lane::Bulk } else { Lane::Control }
}

fn item(row: TableRow<'_>) -> RegistryItem {
    RegistryItem { client: row.client.clone(), entry: Bytes::copy_from_slice(row.entry) }
}

fn send_items(peer: NodeKey, items: Vec<RegistryItem>, fx: &mut Effects) {
    let mut frame = RepairEntries { items: Vec::new() };
    let mut bytes = 0;
    for item in items {
        let len = item.entry.len() + item.client.client_id.len() + item.client.principal.len() + 16;
        if bytes + len > REPAIR_FRAME_BYTES && bytes > 0 {
            let full = std::mem::replace(&mut frame, RepairEntries { items: Vec::new() });
            fx.send(peer, lane(peer, fx), &Frame::RepairEntries(full));
            bytes = 0;
        }
        bytes += len;
        frame.items.push(item);
    }
    if !frame.items.is_empty() {
        fx.send(peer, lane(peer, fx), &Frame::RepairEntries(frame));
    }
}
