//! The registry entry of one session.

use std::collections::BTreeMap;

use bytes::Bytes;
use crdts::{CmRDT, CvRDT, LWWReg, Orswot, VClock};
use serde::{Deserialize, Serialize};
use verge_model::{Claim, NodeKey};

use crate::limits::{
    ENTRY_BYTES_MAX, ENTRY_DRAINED_KEPT, ENTRY_FRAGMENTS_MAX, ENTRY_SUBSCRIPTIONS_MAX,
};

/// The first byte of an encoded entry.
const VERSION: u8 = 1;

/// Beyond it an epoch or a dot's counter is not believed: no session moves or subscribes that often.
const COUNTER_MAX: u64 = 1 << 48;

/// Claims in a set's clock after which its owner starts a new generation.
const CLOCK_CLAIMS_MAX: usize = 32;

/// What a session's homes know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct RegistryEntry {
    /// How the owner owns; its marker is the owner's claim.
    pub owner: LWWReg<Owner, Claim>,
    /// The claim under which [`RegistryEntry::subscriptions`] was begun. A later generation replaces
    /// an earlier one whole: a clean start forgets what it has not seen, too, and a clock that
    /// has grown long is left behind.
    pub generation: Claim,
    /// The session's subscriptions. Its dots are (claim, count).
    pub subscriptions: Orswot<SubscriptionEntry, Claim>,
    /// Logs of the session that exist or existed, by the claim they were written under.
    pub fragments: BTreeMap<Claim, FragmentState>,
}

/// What is said of an owner beside its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The claim came from a clean start: earlier fragments are to be discarded, not imported.
    pub clean: bool,
}

/// One subscription of a session, enough to serve it where its owner cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SubscriptionEntry {
    /// The filter.
    pub filter: String,
    /// Maximum QoS.
    pub qos: u8,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Retain Handling; with 4 added, the subscription was made on a stream other than the control
    /// stream.
    pub retain_handling: u8,
    /// Subscription Identifier.
    pub id: Option<u32>,
}

/// What became of a log. The greater state wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FragmentState {
    /// It may hold what no later owner has.
    Open,
    /// A later owner has all of it durably.
    Drained,
}

/// Why an entry is not accepted; nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// It has more than [`ENTRY_SUBSCRIPTIONS_MAX`] subscriptions.
    #[error("{0} subscriptions, more than {ENTRY_SUBSCRIPTIONS_MAX}")]
    Subscriptions(usize),
    /// It has more than [`ENTRY_FRAGMENTS_MAX`] fragments.
    #[error("{0} fragments, more than {ENTRY_FRAGMENTS_MAX}")]
    Fragments(usize),
    /// It takes more than [`ENTRY_BYTES_MAX`] bytes.
    #[error("{0} bytes, more than {ENTRY_BYTES_MAX}")]
    Bytes(usize),
    /// Its bytes are no entry, or not the canonical ones.
    #[error("not a canonical registry entry: {0}")]
    Malformed(&'static str),
    /// It and what is known contradict each other: one claim or dot stands for two things.
    #[error("it contradicts what is known: {0}")]
    Contradiction(&'static str),
}

impl RegistryEntry {
    /// The entry of a session whose first owner claims it.
    #[must_use]
    pub fn new(claim: Claim, clean: bool) -> Self {
        Self {
            owner: LWWReg { val: Owner { clean }, marker: claim },
            generation: claim,
            subscriptions: Orswot::new(),
            fragments: BTreeMap::from([(claim, FragmentState::Open)]),
        }
    }

    /// Records a claim and the log that will be written under it. With `clean`, subscriptions are
    /// begun anew; older fragments stay open until the claimant has seen to them.
    pub fn claim(&mut self, claim: Claim, clean: bool) {
        self.owner.update(Owner { clean }, claim);
        self.fragments.entry(claim).or_insert(FragmentState::Open);
        if clean && claim > self.generation {
            self.generation = claim;
            self.subscriptions = Orswot::new();
        }
        self.forget_drained();
    }

    /// Records a subscription made under `claim`; it replaces one with the same filter.
    pub fn subscribe(&mut self, claim: Claim, subscription: SubscriptionEntry) {
        let filter = subscription.filter.clone();
        self.change(claim, BTreeMap::from([(filter, Some(subscription))]));
    }

    /// Records what is subscribed to under `claim` for each of these filters, or that nothing is.
    /// The entry is looked through once, however many there are.
    pub fn change(&mut self, claim: Claim, changes: BTreeMap<String, Option<SubscriptionEntry>>) {
        let mut held: BTreeMap<String, Vec<SubscriptionEntry>> = BTreeMap::new();
        for known in self.subscriptions.iter() {
            if changes.contains_key(&known.val.filter) {
                held.entry(known.val.filter.clone()).or_default().push(known.val.clone());
            }
        }
        for (filter, wanted) in changes {
            let held = held.remove(&filter).unwrap_or_default();
            if held.len() == 1 && wanted.as_ref() == held.first() {
                continue;
            }
            for known in held {
                self.remove(known);
            }
            if let Some(subscription) = wanted {
                self.add(claim, subscription);
            }
        }
        if self.subscriptions.clock().dots.len() > CLOCK_CLAIMS_MAX && claim > self.generation {
            let kept: Vec<_> = self.subscriptions().into_values().collect();
            self.generation = claim;
            self.subscriptions = Orswot::new();
            for subscription in kept {
                self.add(claim, subscription);
            }
        }
    }

    /// Records that a filter is not subscribed to any more.
    pub fn unsubscribe(&mut self, filter: &str) {
        self.change(self.owner.marker, BTreeMap::from([(filter.to_owned(), None)]));
    }

    /// Records that a later owner has all of a log.
    pub fn mark_drained(&mut self, fragment: Claim) {
        self.fragments.insert(fragment, FragmentState::Drained);
    }

    /// Records that the session ended: nobody owes it anything, and its entry may be forgotten.
    pub fn end(&mut self) {
        for state in self.fragments.values_mut() {
            *state = FragmentState::Drained;
        }
    }

    /// Whether every log of the session is drained, the owner's too.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.open_fragments().next().is_none()
    }

    /// Takes in what another replica knows.
    ///
    /// # Errors
    /// The two contradict each other; `self` is unchanged.
    pub fn merge(&mut self, other: Self) -> Result<(), EntryError> {
        self.owner
            .validate_merge(&other.owner)
            .map_err(|_| EntryError::Contradiction("one claim, two owners"))?;
        if self.generation == other.generation {
            self.subscriptions
                .validate_merge(&other.subscriptions)
                .map_err(|_| EntryError::Contradiction("one dot, two subscriptions"))?;
            self.subscriptions.merge(other.subscriptions);
        } else if self.generation < other.generation {
            self.generation = other.generation;
            self.subscriptions = other.subscriptions;
        }
        self.owner.merge(other.owner);
        for (claim, state) in other.fragments {
            let held = self.fragments.entry(claim).or_insert(state);
            *held = state.max(*held);
        }
        self.forget_drained();
        Ok(())
    }

    /// The greatest claim: who owns the session.
    #[must_use]
    pub fn owner_claim(&self) -> Claim {
        self.owner.marker
    }

    /// The node that owns the session.
    #[must_use]
    pub fn owner_node(&self) -> NodeKey {
        self.owner.marker.node
    }

    /// Logs that may hold what the owner does not have, oldest first; its own is among them.
    pub fn open_fragments(&self) -> impl Iterator<Item = Claim> {
        self.fragments
            .iter()
            .filter(|(_, state)| **state == FragmentState::Open)
            .map(|(claim, _)| *claim)
    }

    /// The subscriptions by filter. Where two owners of a split subscribed to one filter with
    /// different options, the later claim's stand.
    #[must_use]
    pub fn subscriptions(&self) -> BTreeMap<String, SubscriptionEntry> {
        let mut newest: BTreeMap<String, (Option<Claim>, SubscriptionEntry)> = BTreeMap::new();
        for held in self.subscriptions.iter() {
            let rank = (held.rm_clock.dots.keys().next_back().copied(), held.val.clone());
            match newest.get_mut(&held.val.filter) {
                Some(best) if *best >= rank => {}
                Some(best) => *best = rank,
                None => {
                    newest.insert(held.val.filter.clone(), rank);
                }
            }
        }
        newest.into_iter().map(|(filter, (_, subscription))| (filter, subscription)).collect()
    }

    /// The canonical bytes: equal entries have equal bytes on every node.
    ///
    /// # Errors
    /// The entry exceeds a bound.
    pub fn encode(&self) -> Result<Bytes, EntryError> {
        let entries: BTreeMap<SubscriptionEntry, VClock<Claim>> =
            self.subscriptions.iter().map(|held| (held.val.clone(), held.rm_clock)).collect();
        if entries.len() > ENTRY_SUBSCRIPTIONS_MAX {
            return Err(EntryError::Subscriptions(entries.len()));
        }
        if self.fragments.len() > ENTRY_FRAGMENTS_MAX {
            return Err(EntryError::Fragments(self.fragments.len()));
        }
        let body = Written {
            owner: (self.owner.marker, self.owner.val),
            generation: self.generation,
            subscriptions: (self.subscriptions.clock(), entries, BTreeMap::new()),
            fragments: &self.fragments,
        };
        let bytes = postcard::to_extend(&body, vec![VERSION])
            .expect("entries hold only what postcard can write, into memory that grows");
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::Bytes(bytes.len()));
        }
        Ok(bytes.into())
    }

    /// The inverse of [`RegistryEntry::encode`]; accepts nothing but canonical bytes of a sound
    /// entry, so that what is merged can be trusted to be a state some replica had.
    ///
    /// # Errors
    /// The bytes are no such thing.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::Bytes(bytes.len()));
        }
        let Some((&VERSION, body)) = bytes.split_first() else {
            return Err(EntryError::Malformed("unknown version"));
        };
        let (read, rest) = postcard::take_from_bytes::<Read>(body)
            .map_err(|_| EntryError::Malformed("it does not follow its layout"))?;
        if !rest.is_empty() {
            return Err(EntryError::Malformed("it goes on after its end"));
        }
        let entry = Self {
            owner: LWWReg { val: read.owner.1, marker: read.owner.0 },
            generation: read.generation,
            subscriptions: read.subscriptions,
            fragments: read.fragments,
        };
        entry.check_claims()?;
        entry.check_dots()?;
        if entry.encode()?[..] != *bytes {
            return Err(EntryError::Malformed("it is not in order"));
        }
        Ok(entry)
    }

    fn check_claims(&self) -> Result<(), EntryError> {
        let clock = self.subscriptions.clock();
        let claims = self.fragments.keys().chain(clock.dots.keys());
        let claims = claims.chain([&self.owner.marker, &self.generation]);
        if claims.into_iter().any(|claim| claim.epoch > COUNTER_MAX) {
            return Err(EntryError::Malformed("an epoch is out of range"));
        }
        Ok(())
    }

    fn check_dots(&self) -> Result<(), EntryError> {
        let clock = self.subscriptions.clock();
        if clock.dots.values().any(|counter| *counter == 0 || *counter > COUNTER_MAX) {
            return Err(EntryError::Malformed("a counter is out of range"));
        }
        for held in self.subscriptions.iter() {
            let known = held
                .rm_clock
                .iter()
                .all(|dot| dot.counter > 0 && dot.counter <= clock.get(dot.actor));
            if held.rm_clock.is_empty() || !known {
                return Err(EntryError::Malformed("a subscription's dot is not in the clock"));
            }
        }
        Ok(())
    }

    fn add(&mut self, claim: Claim, subscription: SubscriptionEntry) {
        let context = self.subscriptions.read_ctx().derive_add_ctx(claim);
        let operation = self.subscriptions.add(subscription, context);
        self.subscriptions.apply(operation);
    }

    fn remove(&mut self, subscription: SubscriptionEntry) {
        let context = self.subscriptions.contains(&subscription).derive_rm_ctx();
        let operation = self.subscriptions.rm(subscription, context);
        self.subscriptions.apply(operation);
    }

    /// Keeps the latest drained fragments. One forgotten too early and reported open again is
    /// asked for once more and found empty.
    fn forget_drained(&mut self) {
        let drained: Vec<Claim> = self
            .fragments
            .iter()
            .filter(|(_, state)| **state == FragmentState::Drained)
            .map(|(claim, _)| *claim)
            .collect();
        let excess = drained.len().saturating_sub(ENTRY_DRAINED_KEPT);
        for claim in &drained[..excess] {
            self.fragments.remove(claim);
        }
    }
}

/// The layout as written: maps in order.
#[derive(Serialize)]
struct Written<'a> {
    owner: (Claim, Owner),
    generation: Claim,
    subscriptions: WrittenSet,
    fragments: &'a BTreeMap<Claim, FragmentState>,
}

/// As `Orswot` lays itself out: clock, entries, deferred removals. There are never any deferred:
/// removals name only what their replica has seen.
type WrittenSet = (VClock<Claim>, BTreeMap<SubscriptionEntry, VClock<Claim>>, BTreeMap<(), ()>);

/// The same layout as read.
#[derive(Deserialize)]
struct Read {
    owner: (Claim, Owner),
    generation: Claim,
    subscriptions: Orswot<SubscriptionEntry, Claim>,
    fragments: BTreeMap<Claim, FragmentState>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(epoch: u64, node: u64) -> Claim {
        Claim { epoch, node: NodeKey(node) }
    }

    fn subscription(filter: &str, qos: u8) -> SubscriptionEntry {
        SubscriptionEntry {
            filter: filter.into(),
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
            id: None,
        }
    }

    fn filters(entry: &RegistryEntry) -> Vec<(String, u8)> {
        entry.subscriptions().into_values().map(|held| (held.filter, held.qos)).collect()
    }

    fn merged(a: &RegistryEntry, b: &RegistryEntry) -> RegistryEntry {
        let mut out = a.clone();
        out.merge(b.clone()).unwrap();
        out
    }

    #[test]
    fn replicas_that_merge_in_any_order_have_equal_bytes() {
        let mut a = RegistryEntry::new(claim(1, 1), false);
        a.subscribe(claim(1, 1), subscription("cam/#", 0));
        a.subscribe(claim(1, 1), subscription("denm/#", 1));
        let mut b = a.clone();
        a.unsubscribe("cam/#");
        b.claim(claim(2, 2), false);
        b.subscribe(claim(2, 2), subscription("denm/#", 2));
        let mut c = b.clone();
        c.mark_drained(claim(1, 1));

        let abc = merged(&merged(&a, &b), &c);
        let cba = merged(&merged(&c, &b), &a);
        assert_eq!(abc.encode(), cba.encode());
        assert_eq!(abc.owner_claim(), claim(2, 2));
        assert_eq!(filters(&abc), [("denm/#".to_owned(), 2)]);
        assert_eq!(abc.open_fragments().collect::<Vec<_>>(), [claim(2, 2)]);
        assert_eq!(RegistryEntry::decode(&abc.encode().unwrap()), Ok(abc));
    }

    #[test]
    fn an_addition_wins_over_a_removal_that_had_not_seen_it() {
        let mut a = RegistryEntry::new(claim(1, 1), false);
        a.subscribe(claim(1, 1), subscription("x", 0));
        let mut b = a.clone();
        a.unsubscribe("x");
        b.claim(claim(2, 2), false);
        b.unsubscribe("x");
        b.subscribe(claim(2, 2), subscription("x", 0));
        assert_eq!(filters(&merged(&a, &b)), [("x".to_owned(), 0)]);
    }

    #[test]
    fn a_clean_start_forgets_subscriptions_it_never_saw() {
        let mut split = RegistryEntry::new(claim(1, 1), false);
        let mut clean = split.clone();
        split.subscribe(claim(1, 1), subscription("unseen", 1));
        clean.claim(claim(2, 2), true);
        clean.subscribe(claim(2, 2), subscription("mine", 1));
        let both = merged(&split, &clean);
        assert_eq!(filters(&both), [("mine".to_owned(), 1)]);
        assert!(both.owner.val.clean);
        assert_eq!(both.encode(), merged(&clean, &split).encode());
    }

    #[test]
    fn a_session_that_moves_for_ever_stays_small() {
        let mut entry = RegistryEntry::new(claim(1, 1), false);
        for epoch in 2..2_000 {
            let own = claim(epoch, epoch % 7);
            entry.claim(own, false);
            for lane in 0..4 {
                entry.unsubscribe(&format!("lane/{lane}"));
                entry.subscribe(own, subscription(&format!("lane/{lane}"), 1));
            }
            let earlier: Vec<_> = entry.open_fragments().filter(|open| *open < own).collect();
            for fragment in earlier {
                entry.mark_drained(fragment);
            }
        }
        assert_eq!(filters(&entry).len(), 4);
        assert!(entry.encode().unwrap().len() < 1_200, "{}", entry.encode().unwrap().len());
    }

    #[test]
    fn what_no_replica_can_have_is_refused_and_changes_nothing() {
        let mut entry = RegistryEntry::new(claim(1, 1), false);
        entry.subscribe(claim(1, 1), subscription("a", 0));
        let before = entry.clone();
        let other_owner = RegistryEntry::new(claim(1, 1), true);
        assert!(matches!(entry.merge(other_owner), Err(EntryError::Contradiction(_))));
        let mut other_dot = RegistryEntry::new(claim(1, 1), false);
        other_dot.subscribe(claim(1, 1), subscription("b", 0));
        assert!(matches!(entry.merge(other_dot), Err(EntryError::Contradiction(_))));
        assert_eq!(entry, before);

        let bytes = entry.encode().unwrap();
        for len in 0..bytes.len() {
            assert!(RegistryEntry::decode(&bytes[..len]).is_err());
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 0x55;
            if let Ok(read) = RegistryEntry::decode(&changed) {
                assert_eq!(read.encode().unwrap(), changed);
            }
        }
    }

    #[test]
    fn security_epochs_that_could_not_grow_any_more_are_refused() {
        let absurd = RegistryEntry::new(claim(u64::MAX, 1), false);
        let bytes = absurd.encode().unwrap();
        assert!(matches!(RegistryEntry::decode(&bytes), Err(EntryError::Malformed(_))));
    }

    #[test]
    fn bounds_are_errors() {
        let mut entry = RegistryEntry::new(claim(1, 1), false);
        for number in 0..=ENTRY_SUBSCRIPTIONS_MAX {
            entry.add(claim(1, 1), subscription(&number.to_string(), 0));
        }
        assert_eq!(entry.encode(), Err(EntryError::Subscriptions(ENTRY_SUBSCRIPTIONS_MAX + 1)));
        let mut entry = RegistryEntry::new(claim(1, 1), false);
        entry.subscribe(claim(1, 1), subscription(&"f".repeat(ENTRY_BYTES_MAX), 0));
        assert!(matches!(entry.encode(), Err(EntryError::Bytes(_))));
    }
}
