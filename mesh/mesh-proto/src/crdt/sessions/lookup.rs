//! Asking all homes of a session what they know.

use std::collections::BTreeMap;

use smallvec::SmallVec;
use verge_model::{ClientKey, Millis, NodeKey};

use super::entry::RegistryEntry;
use super::registry::Registry;
use crate::effects::Effects;
use crate::limits::{HOMES, LOOKUPS_MAX};
use crate::output::{Lane, LookupAnswer, Output};
use crate::wire::{Frame, LookupAsk, LookupReply};

/// Look-ups that wait. All wait equally long, so the oldest is the next to time out.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    next: u64,
    pending: BTreeMap<u64, Pending>,
}

#[derive(Debug)]
struct Pending {
    ticket: u64,
    client: ClientKey,
    found: Option<RegistryEntry>,
    waiting: SmallVec<[NodeKey; HOMES]>,
    complete: bool,
    deadline: Millis,
}

impl Registry {
    /// Asks every linked home, this node included, and answers when all did or at `deadline`.
    pub(crate) fn lookup(
        &mut self,
        ticket: u64,
        client: ClientKey,
        deadline: Millis,
        fx: &mut Effects,
    ) {
        self.lookups.next += 1;
        let id = self.lookups.next;
        let mut pending = Pending {
            ticket,
            found: self.entry(&client),
            waiting: SmallVec::new(),
            complete: true,
            deadline,
            client: client.clone(),
        };
        let full = self.lookups.pending.len() >= LOOKUPS_MAX;
        let ask = Frame::LookupAsk(LookupAsk { id, client: client.clone() });
        for home in self.homes_of(&client).iter().filter(|home| **home != self.own) {
            if !full && fx.send(*home, Lane::Control, &ask) {
                pending.waiting.push(*home);
            } else {
                pending.complete = false;
            }
        }
        self.lookups.pending.insert(id, pending);
        self.answer_if_done(id, fx);
    }

    pub(crate) fn handle_ask(&mut self, peer: NodeKey, ask: LookupAsk, fx: &mut Effects) {
        let entry = self.table.get(&ask.client).map(|row| bytes::Bytes::copy_from_slice(row.entry));
        fx.send(peer, Lane::Control, &Frame::LookupReply(LookupReply { id: ask.id, entry }));
    }

    pub(crate) fn handle_reply(&mut self, peer: NodeKey, reply: LookupReply, fx: &mut Effects) {
        let LookupReply { id, entry } = reply;
        let Some(pending) = self.lookups.pending.get_mut(&id) else { return };
        let Some(at) = pending.waiting.iter().position(|home| *home == peer) else { return };
        pending.waiting.remove(at);
        if let Some(entry) = entry {
            let merged = RegistryEntry::decode(&entry).and_then(|entry| {
                match &mut pending.found {
                    Some(found) => found.merge(entry)?,
                    None => pending.found = Some(entry),
                }
                Ok(())
            });
            if merged.is_err() {
                pending.complete = false;
                self.refused += 1;
            }
        }
        self.answer_if_done(id, fx);
    }

    /// A home that is gone does not answer.
    pub(crate) fn peer_down(&mut self, peer: NodeKey, fx: &mut Effects) {
        let mut touched = Vec::new();
        for (id, pending) in &mut self.lookups.pending {
            if let Some(at) = pending.waiting.iter().position(|home| *home == peer) {
                pending.waiting.remove(at);
                pending.complete = false;
                touched.push(*id);
            }
        }
        for id in touched {
            self.answer_if_done(id, fx);
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Millis, fx: &mut Effects) {
        while let Some(mut oldest) = self.lookups.pending.first_entry() {
            if oldest.get().deadline > now {
                break;
            }
            let id = *oldest.key();
            oldest.get_mut().waiting.clear();
            oldest.get_mut().complete = false;
            self.answer_if_done(id, fx);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        self.lookups.pending.first_key_value().map(|(_, pending)| pending.deadline)
    }

    fn answer_if_done(&mut self, id: u64, fx: &mut Effects) {
        if !self.lookups.pending.get(&id).is_some_and(|pending| pending.waiting.is_empty()) {
            return;
        }
        let Some(pending) = self.lookups.pending.remove(&id) else { return };
        let Pending { ticket, client, found: entry, complete, .. } = pending;
        fx.push(Output::Lookup(LookupAnswer { ticket, client, entry, complete }));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use verge_model::Claim;

    use super::super::homes::Candidate;
    use super::*;
    use crate::effects::LinkState;
    use crate::output::LinkKind;

    const OWN: NodeKey = NodeKey(1);
    const HOMES: [NodeKey; 2] = [NodeKey(2), NodeKey(3)];

    fn registry() -> (Registry, Effects, ClientKey) {
        let mut fx = Effects::default();
        let mut registry = Registry::new(OWN);
        let all = [OWN, HOMES[0], HOMES[1]];
        let candidates = all.map(|node| Candidate { node, regional: false });
        registry.set_candidates(candidates.to_vec(), &mut fx);
        for home in HOMES {
            fx.set_link(home, LinkKind::Fast, LinkState::Established);
        }
        (registry, fx, ClientKey::anonymous("obu"))
    }

    fn entry(epoch: u64, node: NodeKey) -> Option<Bytes> {
        Some(RegistryEntry::new(Claim { epoch, node }, false).encode().unwrap())
    }

    /// Owners and completeness of the answers so far.
    fn answers(fx: &mut Effects) -> Vec<(Option<u64>, bool)> {
        std::iter::from_fn(|| fx.poll())
            .filter_map(
                |output| if let Output::Lookup(answer) = output { Some(answer) } else { None },
            )
            .map(|answer| (answer.entry.map(|entry| entry.owner_claim().epoch), answer.complete))
            .collect()
    }

    #[test]
    fn the_greatest_claim_of_all_homes_is_the_answer() {
        let (mut registry, mut fx, client) = registry();
        registry.lookup(1, client, Millis(300), &mut fx);
        assert_eq!(answers(&mut fx), []);
        registry.handle_reply(HOMES[0], LookupReply { id: 1, entry: entry(4, OWN) }, &mut fx);
        registry.handle_reply(HOMES[0], LookupReply { id: 1, entry: entry(9, OWN) }, &mut fx);
        assert_eq!(answers(&mut fx), [], "a home answers once");
        registry.handle_reply(HOMES[1], LookupReply { id: 1, entry: entry(5, HOMES[0]) }, &mut fx);
        assert_eq!(answers(&mut fx), [(Some(5), true)]);
    }

    #[test]
    fn homes_that_do_not_answer_make_the_answer_incomplete() {
        let (mut registry, mut fx, client) = registry();
        registry.lookup(1, client.clone(), Millis(300), &mut fx);
        registry.handle_reply(HOMES[0], LookupReply { id: 1, entry: None }, &mut fx);
        assert_eq!(registry.poll_timeout(), Some(Millis(300)));
        registry.handle_timeout(Millis(299), &mut fx);
        assert_eq!(answers(&mut fx), []);
        registry.handle_timeout(Millis(300), &mut fx);
        assert_eq!(answers(&mut fx), [(None, false)], "late");

        registry.lookup(2, client.clone(), Millis(900), &mut fx);
        registry.handle_reply(HOMES[1], LookupReply { id: 2, entry: entry(1, OWN) }, &mut fx);
        registry.peer_down(HOMES[0], &mut fx);
        assert_eq!(answers(&mut fx), [(Some(1), false)], "gone");

        let junk = Some(Bytes::from_static(b"junk"));
        registry.lookup(3, client, Millis(900), &mut fx);
        registry.handle_reply(HOMES[0], LookupReply { id: 3, entry: junk }, &mut fx);
        registry.handle_reply(HOMES[1], LookupReply { id: 3, entry: None }, &mut fx);
        assert_eq!(answers(&mut fx), [(None, false)], "makes no sense");
    }
}
