//! Putting entries at their homes.
//!
//! ```text
//! putter                      each home
//!   | merge, commit              |
//!   |--RegistryPut-------------->| merge, commit
//!   |<-RegistryAck (winner)------|            --Superseded--> the owner that lost
//! ```
//!
//! The putter keeps the entry, on disk too, until every home has acknowledged it, so that a claim is
//! not lost with a link or a process. A node that is no home of it any more keeps an entry likewise
//! until the new homes have it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use smallvec::SmallVec;
use verge_model::{Claim, ClientKey, NodeKey};
use verge_storage::record::RegistryRecord;

use super::entry::{EntryError, RegistryEntry};
use super::homes::{Candidate, Homes};
use super::lookup::Lookups;
use super::table::{Table, group_of};
use crate::effects::Effects;
use crate::limits::{DIRTY_ENTRIES_MAX, HOMES};
use crate::output::{Lane, LinkKind, Output};
use crate::wire::{Frame, RegistryAck, RegistryForget, RegistryItem, RegistryPut, Superseded};

#[derive(Debug)]
pub(crate) struct Registry {
    pub(super) own: NodeKey,
    pub(super) homes: Homes,
    pub(super) table: Table,
    pub(super) lookups: Lookups,
    candidates: Vec<Candidate>,
    /// Entries here that some home may lack.
    dirty: BTreeMap<ClientKey, Dirty>,
    /// Entries of ended sessions; their first homes see to them.
    ended: BTreeSet<ClientKey>,
    next_put: u64,
    pub(super) refused: u64,
}

#[derive(Debug)]
struct Dirty {
    /// The put the acknowledgements must name.
    id: u64,
    acked: SmallVec<[NodeKey; HOMES]>,
}

/// Why an entry was not put; nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// The entry itself.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// [`DIRTY_ENTRIES_MAX`] entries wait for their homes.
    #[error("{DIRTY_ENTRIES_MAX} registry entries wait for their homes; try again later")]
    Full,
}

/// What a merge did.
pub(super) struct Merged {
    /// The owner's claim before.
    before: Option<Claim>,
    winner: Claim,
    clean: bool,
}

impl Registry {
    pub(crate) fn new(own: NodeKey) -> Self {
        Self {
            own,
            homes: Homes::default(),
            table: Table::default(),
            lookups: Lookups::default(),
            candidates: Vec::new(),
            dirty: BTreeMap::new(),
            ended: BTreeSet::new(),
            next_put: 0,
            refused: 0,
        }
    }

    /// Takes in entries as they were on disk.
    pub(crate) fn restore(&mut self, entries: Vec<(ClientKey, Bytes)>) {
        for (client, entry) in entries {
            match RegistryEntry::decode(&entry) {
                Ok(known) => {
                    self.table.insert(&client, &entry);
                    if known.is_ended() {
                        self.ended.insert(client);
                    }
                }
                Err(_) => self.refused += 1,
            }
        }
    }

    /// These nodes may be homes. If they changed, every linked peer is told what it may lack, and
    /// `true` is returned.
    pub(crate) fn set_candidates(&mut self, candidates: Vec<Candidate>, fx: &mut Effects) -> bool {
        if candidates == self.candidates {
            return false;
        }
        self.homes = Homes::among(&candidates);
        self.candidates = candidates;
        let dirty: Vec<ClientKey> = self.dirty.keys().cloned().collect();
        for client in dirty {
            self.finish_if_acked(&client, fx);
        }
        self.sweep(fx);
        let peers: Vec<NodeKey> = fx.peers(LinkKind::Fast).collect();
        for peer in peers {
            self.send_dirty(peer, fx);
            self.begin_repair(peer, fx);
        }
        true
    }

    /// Merges an entry here and at its homes.
    pub(crate) fn put(
        &mut self,
        client: &ClientKey,
        entry: RegistryEntry,
        fx: &mut Effects,
    ) -> Result<(), PutError> {
        if self.dirty.len() >= DIRTY_ENTRIES_MAX && !self.dirty.contains_key(client) {
            return Err(PutError::Full);
        }
        let claim = entry.owner_claim();
        let merged = self.merge(client, entry, fx)?;
        if merged.winner > claim {
            report(client, &merged, fx);
        }
        self.notify_loser(client, &merged, fx);
        self.mark_dirty(client.clone(), fx);
        Ok(())
    }

    /// A peer greeted.
    pub(crate) fn peer_up(&mut self, peer: NodeKey, fx: &mut Effects) {
        self.send_dirty(peer, fx);
        self.begin_repair(peer, fx);
    }

    /// Once per [`REPAIR_PERIOD`](crate::REPAIR_PERIOD).
    pub(crate) fn tick(&mut self, fx: &mut Effects) {
        self.sweep(fx);
        self.forget_ended(fx);
        let peers: Vec<NodeKey> = fx.peers(LinkKind::Fast).collect();
        for peer in peers {
            self.begin_repair(peer, fx);
        }
    }

    pub(crate) fn handle_put(&mut self, peer: NodeKey, put: RegistryPut, fx: &mut Effects) {
        let RegistryPut { id, item: RegistryItem { client, entry } } = put;
        let merged = RegistryEntry::decode(&entry).and_then(|entry| self.merge(&client, entry, fx));
        let Ok(merged) = merged else {
            // Not the peer's fault alone: it may carry what another node made.
            self.refused += 1;
            return;
        };
        if merged.before.is_some_and(|before| before.node != peer) {
            self.notify_loser(&client, &merged, fx);
        }
        let Merged { winner, clean, .. } = merged;
        let ack = RegistryAck { id, client: client.clone(), winner, clean };
        fx.send_committed(peer, Lane::Control, &Frame::RegistryAck(ack));
        // If the putter sees other homes than this node does, the next sweep passes it on: at once,
        // two such nodes would do so for ever.
    }

    pub(crate) fn handle_ack(&mut self, peer: NodeKey, ack: RegistryAck, fx: &mut Effects) {
        let RegistryAck { id, client, winner, clean } = ack;
        let known = self.entry(&client).map(|entry| entry.owner_claim());
        if winner.node != self.own && known.is_some_and(|known| winner > known) {
            fx.push(Output::Superseded { client: client.clone(), winner, clean });
        }
        let homes = self.homes.of(group_of(client.stable_hash()));
        let Some(dirty) = self.dirty.get_mut(&client) else { return };
        if dirty.id == id && homes.contains(&peer) && !dirty.acked.contains(&peer) {
            dirty.acked.push(peer);
            self.finish_if_acked(&client, fx);
        }
    }

    pub(crate) fn handle_superseded(&mut self, superseded: Superseded, fx: &mut Effects) {
        let Superseded { client, winner, clean } = superseded;
        if winner.node != self.own {
            fx.push(Output::Superseded { client, winner, clean });
        }
    }

    pub(crate) fn handle_forget(&mut self, forget: &RegistryForget, fx: &mut Effects) {
        let Some(row) = self.table.get(&forget.client) else { return };
        let same = row.digest().to_be_bytes() == forget.digest;
        if same && self.entry(&forget.client).is_some_and(|entry| entry.is_ended()) {
            self.drop_entry(&forget.client, fx);
        }
    }

    /// What is known here of a session.
    pub(crate) fn entry(&self, client: &ClientKey) -> Option<RegistryEntry> {
        let row = self.table.get(client)?;
        Some(RegistryEntry::decode(row.entry).expect("the table holds encoded entries only"))
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    pub(crate) fn homes_of(&self, client: &ClientKey) -> &[NodeKey] {
        self.homes.of(group_of(client.stable_hash()))
    }

    pub(super) fn is_home(&self, client: &ClientKey) -> bool {
        self.homes_of(client).contains(&self.own)
    }

    /// Merges into the table and the batch.
    pub(super) fn merge(
        &mut self,
        client: &ClientKey,
        entry: RegistryEntry,
        fx: &mut Effects,
    ) -> Result<Merged, EntryError> {
        let known = self.entry(client);
        let before = known.as_ref().map(RegistryEntry::owner_claim);
        let now = match known {
            Some(mut known) => {
                known.merge(entry)?;
                known
            }
            None => entry,
        };
        let bytes = now.encode()?;
        let changed = self.table.get(client).is_none_or(|row| *row.entry != bytes[..]);
        if changed {
            self.table.insert(client, &bytes);
            fx.batch.put_registry(client, &RegistryRecord { body: bytes });
        }
        if now.is_ended() {
            self.ended.insert(client.clone());
        } else {
            self.ended.remove(client);
        }
        Ok(Merged { before, winner: now.owner_claim(), clean: now.owner.val.clean })
    }

    /// Tells the node that lost a session, if this merge is how its loss came to be known here.
    pub(super) fn notify_loser(&self, client: &ClientKey, merged: &Merged, fx: &mut Effects) {
        let Some(before) = merged.before else { return };
        if merged.winner <= before || merged.winner.node == before.node {
            return;
        }
        if before.node == self.own {
            report(client, merged, fx);
        } else if self.is_home(client) {
            let Merged { winner, clean, .. } = *merged;
            let superseded = Superseded { client: client.clone(), winner, clean };
            fx.send(before.node, Lane::Control, &Frame::Superseded(superseded));
        }
    }

    fn mark_dirty(&mut self, client: ClientKey, fx: &mut Effects) {
        self.next_put += 1;
        let dirty = Dirty { id: self.next_put, acked: SmallVec::new() };
        self.dirty.insert(client.clone(), dirty);
        let homes: SmallVec<[NodeKey; HOMES]> = self.homes_of(&client).into();
        for home in homes {
            self.send_put(home, &client, fx);
        }
        self.finish_if_acked(&client, fx);
    }

    fn send_put(&self, home: NodeKey, client: &ClientKey, fx: &mut Effects) {
        if home == self.own || !fx.established(home, LinkKind::Fast) {
            return;
        }
        let (Some(dirty), Some(row)) = (self.dirty.get(client), self.table.get(client)) else {
            return;
        };
        let entry = Bytes::copy_from_slice(row.entry);
        let item = RegistryItem { client: client.clone(), entry };
        let put = Frame::RegistryPut(RegistryPut { id: dirty.id, item });
        fx.send_committed(home, Lane::Control, &put);
    }

    fn send_dirty(&self, peer: NodeKey, fx: &mut Effects) {
        for (client, dirty) in &self.dirty {
            if self.homes_of(client).contains(&peer) && !dirty.acked.contains(&peer) {
                self.send_put(peer, client, fx);
            }
        }
    }

    fn finish_if_acked(&mut self, client: &ClientKey, fx: &mut Effects) {
        let homes = self.homes_of(client);
        let Some(dirty) = self.dirty.get(client) else { return };
        let has = |home: &NodeKey| *home == self.own || dirty.acked.contains(home);
        if homes.is_empty() || !homes.iter().all(has) {
            return;
        }
        self.dirty.remove(client);
        if !self.is_home(client) {
            self.drop_entry(client, fx);
        }
    }

    /// Finds entries this node is no home of, and offers them to those that are.
    fn sweep(&mut self, fx: &mut Effects) {
        let mut strays = Vec::new();
        for group in (0..=u8::MAX).filter(|group| !self.homes.holds(*group, self.own)) {
            let room = DIRTY_ENTRIES_MAX.saturating_sub(self.dirty.len() + strays.len());
            let found = self.table.group(group).filter(|row| !self.dirty.contains_key(row.client));
            strays.extend(found.take(room).map(|row| row.client.clone()));
        }
        for client in strays {
            self.mark_dirty(client, fx);
        }
    }

    /// Drops ended sessions' entries at all homes, while all are there and nothing is on its way.
    fn forget_ended(&mut self, fx: &mut Effects) {
        for client in std::mem::take(&mut self.ended) {
            let homes: SmallVec<[NodeKey; HOMES]> = self.homes_of(&client).into();
            let linked =
                |home: &NodeKey| *home == self.own || fx.established(*home, LinkKind::Fast);
            let Some(row) = self.table.get(&client) else { continue };
            let digest = row.digest().to_be_bytes();
            if homes.first() != Some(&self.own)
                || !homes.iter().all(linked)
                || self.dirty.contains_key(&client)
            {
                self.ended.insert(client);
                continue;
            }
            let forget = Frame::RegistryForget(RegistryForget { client: client.clone(), digest });
            for home in homes.into_iter().filter(|home| *home != self.own) {
                fx.send(home, Lane::Control, &forget);
            }
            self.drop_entry(&client, fx);
        }
    }

    fn drop_entry(&mut self, client: &ClientKey, fx: &mut Effects) {
        self.ended.remove(client);
        self.dirty.remove(client);
        if self.table.remove(client) {
            fx.batch.delete_registry(client);
        }
    }
}

fn report(client: &ClientKey, merged: &Merged, fx: &mut Effects) {
    let Merged { winner, clean, .. } = *merged;
    fx.push(Output::Superseded { client: client.clone(), winner, clean });
}
