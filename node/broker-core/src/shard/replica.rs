//! What the homes of a session are told of it, and when.
//!
//! A put carries the whole entry: its owner, its logs, its subscriptions. A session with many
//! subscriptions that makes one more does not put them all for that: it puts them when a good part
//! has changed, or when the change has waited for as long as there are many. So a SUBSCRIBE costs the
//! same however many came before, and the homes hear of it soon. Who takes the session over hears of
//! all from the session's own node, and its rows are stored before SUBACK in any case.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use verge_mesh_proto::crdt::sessions::RegistryEntry;
use verge_mesh_proto::handover::SealedHeader;
use verge_model::{Millis, Now};
use verge_mqtt_proto::TopicFilter;

use super::Shard;
use super::api::SessionNo;
use super::session::Session;
use crate::record::subscription_to_entry;

/// Up to so many subscriptions are put with every change: an entry of some kilobytes.
const AT_ONCE_MAX: usize = 32;

/// More are put when one of so many has changed: each change carries as many with it.
const PART: usize = 16;

/// For each subscription, how long a change waits at most: a thousand are put once a second.
const WAIT_EACH: Duration = Duration::from_millis(1);

/// The registry entry of a session of this node.
#[derive(Debug)]
pub(crate) struct Replica {
    entry: RegistryEntry,
    /// Filters whose subscriptions may differ from the entry's. Bounded by the session's
    /// subscriptions, and by those that were changed since the last put, one of [`PART`].
    unsaid: BTreeSet<TopicFilter>,
    /// When the homes are told of them at the latest.
    due: Option<Millis>,
}

impl Replica {
    /// An entry that says what the session is.
    pub(crate) fn new(entry: RegistryEntry) -> Box<Self> {
        Box::new(Self { entry, unsaid: BTreeSet::new(), due: None })
    }

    /// The entry, to be told to others.
    pub(crate) fn entry(&self) -> Box<RegistryEntry> {
        Box::new(self.entry.clone())
    }

    /// Notes that the session's subscription to a filter may have changed.
    pub(crate) fn note(&mut self, filter: TopicFilter) {
        self.unsaid.insert(filter);
    }

    /// Whether the homes were told of all, and the header holds it.
    pub(crate) fn is_said(&self) -> bool {
        self.unsaid.is_empty() && self.due.is_none() && self.entry.encode().is_ok()
    }

    /// When the homes are to be told.
    pub(crate) fn due(&self) -> Option<Millis> {
        self.due
    }
}

impl Deref for Replica {
    type Target = RegistryEntry;

    fn deref(&self) -> &RegistryEntry {
        &self.entry
    }
}

impl DerefMut for Replica {
    fn deref_mut(&mut self) -> &mut RegistryEntry {
        &mut self.entry
    }
}

impl Session {
    /// Brings the registry entry up to date with the session's subscriptions.
    pub(crate) fn say_all(&mut self) {
        let Some(replica) = &mut self.entry else { return };
        replica.due = None;
        let unsaid = std::mem::take(&mut replica.unsaid);
        if unsaid.is_empty() {
            return;
        }
        let change = |filter: &TopicFilter| {
            let kept = self.kept(filter);
            kept.map(|(kept, on_stream)| subscription_to_entry(filter, &kept, on_stream))
        };
        let changes: BTreeMap<_, _> =
            unsaid.iter().map(|filter| (filter.as_str().to_owned(), change(filter))).collect();
        if let Some(replica) = &mut self.entry {
            replica.entry.change(self.claim, changes);
        }
    }

    /// Notes that the entry, as it was stored, may be behind the rows of the session's
    /// subscriptions.
    pub(crate) fn doubt_entry(&mut self) {
        let Some(replica) = &mut self.entry else { return };
        let said = replica.entry.subscriptions().into_keys();
        replica.unsaid.extend(said.filter_map(|text| TopicFilter::try_from(Arc::from(text)).ok()));
        replica.unsaid.extend(self.subscriptions.keys().cloned());
    }
}

impl Shard {
    /// Tells a session's homes what is stored of it; what the entry lacked is stored first.
    pub(super) fn tell_of(&mut self, no: SessionNo) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let Some(before) = session.entry.as_ref().map(|replica| replica.entry()) else { return };
        session.say_all();
        let Some(entry) = session.entry.as_ref().map(|replica| replica.entry()) else { return };
        if *entry != *before {
            return self.put_registry(no);
        }
        let client = session.client.clone();
        self.register(client, entry);
    }

    /// Tells a session's homes of changed subscriptions, now or soon.
    pub(super) fn put_subscriptions(&mut self, no: SessionNo, now: Now) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let count = session.subscription_count();
        let Some(replica) = &mut session.entry else { return };
        if replica.unsaid.is_empty() {
            return;
        }
        if count <= AT_ONCE_MAX || replica.unsaid.len() * PART >= count {
            return self.put_registry(no);
        }
        if replica.due.is_none() {
            let wait = WAIT_EACH * u32::try_from(count).unwrap_or(u32::MAX);
            replica.due = Some(now.mono + wait);
            self.arm(no);
        }
    }
}

/// Joins what the giver knew of the session's subscriptions with what is known here; a removal
/// that either has seen wins.
pub(super) fn merge_entry(session: &mut Session, header: &SealedHeader) {
    let theirs = match RegistryEntry::decode(&header.subscriptions) {
        Ok(entry) => entry,
        Err(error) => return tracing::warn!(%error, "a session's subscriptions were not read"),
    };
    session.say_all();
    let Some(entry) = &mut session.entry else { return };
    if let Err(error) = entry.merge(theirs) {
        tracing::warn!(%error, "a session's subscriptions were not merged");
    }
}
