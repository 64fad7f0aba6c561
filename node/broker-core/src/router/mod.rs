//! Who wants which topic.
//!
//! One [`Router`] serves all shards of a node. It holds the subscriptions of the node's own
//! sessions and the routes of other nodes, and answers one question: who is to get a message
//! published to this topic?
//!
//! | part | holds | cost of a change | cost of a match |
//! |---|---|---|---|
//! | [`exact`] | filters without wildcards | one hash look-up | one hash look-up |
//! | [`trie`] | filters with `+` or `#` | the filter's levels | the topic's levels and the `+` on the way |
//! | [`shared`] | `$share/<group>/<filter>` | a search among its groups | one member per group |
//! | [`remote`] | the filters of other nodes | as a subscription | one entry per node |
//!
//! Filters may begin with one of these prefixes, or with the first and the last in this order:
//!
//! - `$share/<group>/<filter>`: one member of the group gets each message (MQTT 5.0, 4.8.2). A
//!   group spans the mesh: the node that accepts a message gives it to a member of its own or sends
//!   it to one node that has members, by the group's [`strategy`].
//! - `$exclusive/<filter>`, first: as the filter behind it. That it has one subscriber at a time is
//!   seen to where it is subscribed to.
//! - `$local/<filter>`: only what is published at this node. Other nodes are not told.

pub mod entry;
pub mod exact;
pub mod group_turns;
pub mod matches;
pub mod parts;
pub mod remote;
pub mod shared;
pub mod strategy;
pub mod subscribers;
pub mod trie;

#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use verge_model::{ClientId, NodeKey};
use verge_mqtt_proto::TopicFilter;
use verge_mqtt_proto::session::{StreamTag, Subscription};

use crate::pressure::Pressure;
use crate::shard::api::{SessionNo, ShardIndex};

use self::entry::Entry;
use self::exact::ExactFilters;
use self::matches::Sources;
pub use self::matches::{ForwardTargets, Match, Matches, Origin, RemoteMatch};
use self::parts::FilterParts;
use self::remote::RemoteNodes;
pub use self::remote::{REMOTE_FILTERS_PER_NODE_MAX, RemoteOutcome};
use self::shared::{Ask, Chosen};
pub use self::strategy::{GroupStrategy, Redeliver, ShareStrategy, SharedSettings};
use self::trie::LevelTrie;

/// One subscription of one session of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscriber {
    /// The shard that serves the session.
    pub shard: ShardIndex,
    /// The session.
    pub session: SessionNo,
    /// The stream of the session's client that the subscription was made on. Each has its own.
    pub tag: StreamTag,
    /// The session's client, where it matters who that is: its
    /// [author](verge_model::ClientKey::author) if it asked for No Local, its ClientId in a group.
    /// Boxed: for most it does not.
    pub client: Option<Box<ClientId>>,
    /// What the client asked for.
    pub options: Subscription,
    /// Whether the session outlives its connection, so that what it is owed has rows.
    pub durable: bool,
    /// Whether its client is connected. Kept up for members of groups only.
    pub online: bool,
}

/// Who may have a message of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupMember {
    /// A session of this node.
    Here(Match),
    /// A member of this node.
    Node(NodeKey),
}

/// What [`Router::subscribe`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeOutcome {
    /// Whether the session had this subscription; its options were replaced.
    pub existed: bool,
    /// The route other nodes must now be told of: the filter, with any `$share/…` prefix.
    pub advertise: Option<TopicFilter>,
}

/// What [`Router::unsubscribe`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsubscribeOutcome {
    /// Whether the session had this subscription.
    pub existed: bool,
    /// The route other nodes must now be told is gone.
    pub withdraw: Option<TopicFilter>,
}

/// Subscriptions of this node and routes of others, shared by all shards.
#[derive(Debug, Default)]
pub struct Router {
    /// How groups choose.
    settings: SharedSettings,
    /// A lock, and not one copy per shard: every shard reads it for every PUBLISH, while changes
    /// are as rare as SUBSCRIBE; copies would cost each subscription once per shard.
    table: RwLock<Table>,
    /// Bumped inside the write lock by every change, so that a plan made under a generation is
    /// valid for as long as that generation is the current one.
    generation: AtomicU64,
    /// Who does not keep up: groups go past them.
    pressure: Pressure,
}

impl Router {
    /// A router that knows nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A router that knows nobody, whose groups choose as configured.
    #[must_use]
    pub fn with_shared(settings: SharedSettings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// What is configured of shared subscriptions.
    #[must_use]
    pub fn shared_settings(&self) -> &SharedSettings {
        &self.settings
    }

    /// Subscribers that do not keep up.
    #[must_use]
    pub fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    /// Adds a subscription, or replaces its options.
    pub fn subscribe(&self, filter: &TopicFilter, subscriber: Subscriber) -> SubscribeOutcome {
        let parts = FilterParts::of(filter.as_str());
        let mut table = self.table.write();
        let entry = table.entry_or_insert(&parts, || filter.shared_text());
        let change = entry.subscribe(&parts, subscriber, &self.settings);
        table.subscriptions += usize::from(!change.existed);
        self.changed();
        SubscribeOutcome {
            existed: change.existed,
            advertise: if change.edge { parts.route() } else { None },
        }
    }

    /// Adds the subscriptions a node begins with: nobody is told of them, one by one.
    pub fn fill(&self, subscriptions: impl IntoIterator<Item = (TopicFilter, Subscriber)>) {
        let mut table = self.table.write();
        for (filter, subscriber) in subscriptions {
            let parts = FilterParts::of(filter.as_str());
            let entry = table.entry_or_insert(&parts, || filter.shared_text());
            let change = entry.subscribe(&parts, subscriber, &self.settings);
            table.subscriptions += usize::from(!change.existed);
        }
        self.changed();
    }

    /// Removes a subscription.
    pub fn unsubscribe(
        &self,
        filter: &TopicFilter,
        session: SessionNo,
        tag: StreamTag,
    ) -> UnsubscribeOutcome {
        let parts = FilterParts::of(filter.as_str());
        let mut table = self.table.write();
        let who = (session, tag);
        let change = table.update(parts.filter, |entry| entry.unsubscribe(&parts, who));
        let Some(change) = change.filter(|change| change.existed) else {
            return UnsubscribeOutcome { existed: false, withdraw: None };
        };
        table.subscriptions -= 1;
        self.changed();
        UnsubscribeOutcome {
            existed: true,
            withdraw: if change.edge { parts.route() } else { None },
        }
    }

    /// Moves a session's subscription from one stream to another: a message finds either the one or
    /// the other. Returns the route other nodes must now be told of, if the one was not there.
    pub fn retag(
        &self,
        filter: &TopicFilter,
        from: StreamTag,
        subscriber: Subscriber,
    ) -> Option<TopicFilter> {
        let parts = FilterParts::of(filter.as_str());
        let session = subscriber.session;
        let mut table = self.table.write();
        let entry = table.entry_or_insert(&parts, || filter.shared_text());
        let added = entry.subscribe(&parts, subscriber, &self.settings);
        let removed = entry.unsubscribe(&parts, (session, from));
        table.subscriptions += usize::from(!added.existed);
        table.subscriptions -= usize::from(removed.existed);
        self.changed();
        (added.edge && !parts.local).then(|| filter.clone())
    }

    /// Says whether a session outlives its connection from now on, for the filters its control
    /// stream has.
    pub fn set_durable(&self, session: SessionNo, filters: &[TopicFilter], durable: bool) {
        let mut table = self.table.write();
        for filter in filters {
            let parts = FilterParts::of(filter.as_str());
            if let Some(entry) = table.entry_mut(parts.filter) {
                entry.set_durable(&parts, session, durable);
            }
        }
        self.changed();
    }

    /// Says whether a session's client is connected, to the groups it is a member of.
    pub fn set_online<'f>(
        &self,
        session: SessionNo,
        groups: impl Iterator<Item = &'f TopicFilter>,
        online: bool,
    ) {
        let mut groups = groups.peekable();
        if groups.peek().is_none() {
            return;
        }
        let mut table = self.table.write();
        for filter in groups {
            let parts = FilterParts::of(filter.as_str());
            if let Some(entry) = table.entry_mut(parts.filter) {
                entry.set_online(&parts, session, online);
            }
        }
        self.changed();
    }

    /// Another member for a message of a group: one that is `awake`, connected here or of a node in
    /// reach, or else any.
    #[must_use]
    pub fn choose(
        &self,
        group: &TopicFilter,
        topic: &str,
        publisher: &ClientId,
        awake: bool,
    ) -> Option<GroupMember> {
        let parts = FilterParts::of(group.as_str());
        let table = self.table.read();
        let found = table.entry(parts.filter)?.group(parts.text)?;
        let (nodes, settings) = (&table.remotes, &self.settings);
        let (anywhere, pressure) = (!parts.local, &self.pressure);
        let ask = Ask { topic, publisher, nodes, settings, pressure, anywhere, awake };
        match found.choose(&ask)? {
            Chosen::Member(member) => {
                let share = Some(Arc::clone(&found.tag));
                Some(GroupMember::Here(Match { share, ..Match::of(member) }))
            }
            Chosen::Node(node) => Some(GroupMember::Node(node)),
        }
    }

    /// Takes note of what another node wants, and wants no more. Applying a change twice is the
    /// same as once.
    pub fn set_remote<S: AsRef<str>>(
        &self,
        node: NodeKey,
        added: &[S],
        removed: &[S],
    ) -> RemoteOutcome {
        let mut table = self.table.write();
        for filter in removed {
            table.remove_remote(node, filter.as_ref());
        }
        let mut outcome = RemoteOutcome::default();
        for filter in added {
            outcome.count(table.add_remote(node, filter.as_ref(), &self.settings));
        }
        self.changed();
        outcome
    }

    /// Forgets a node that is gone for good, with all it wanted.
    pub fn clear_remote(&self, node: NodeKey) {
        let mut table = self.table.write();
        for filter in table.remotes.take(node) {
            table.remove_remote_filter(node, &filter);
        }
        self.changed();
    }

    /// Says whether a node can be reached now. What is for all of its subscribers is sent to it in
    /// any case; a shared group's message goes rather to a node in reach.
    pub fn set_reachable(&self, node: NodeKey, reachable: bool) {
        self.table.write().remotes.set_reachable(node, reachable);
        self.changed();
    }

    /// Adds everyone who is to get a message published to `topic` to `out`, which it clears first.
    pub fn matches(
        &self,
        topic: &str,
        origin: Origin<'_>,
        publisher: &ClientId,
        out: &mut Matches,
    ) {
        out.clear();
        let table = self.table.read();
        let mut sources = Sources::default();
        let (nodes, settings) = (&table.remotes, &self.settings);
        let (anywhere, pressure) = (origin == Origin::Here, &self.pressure);
        let ask = Ask { topic, publisher, nodes, settings, pressure, anywhere, awake: false };
        let mut collect = |entry: &Entry| sources += entry.collect(origin, &ask, out);
        if let Some(entry) = table.exact.get(topic) {
            collect(entry);
        }
        table.wild.filters_matching(topic, |entry| collect(entry));
        drop(table);
        out.finish(origin, sources);
        out.take_turns(&self.pressure);
    }

    /// Grows with every change of what [`matches`](Self::matches) may answer.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The routes of this node: what other nodes are to know, sorted.
    #[must_use]
    pub fn routes(&self) -> Vec<TopicFilter> {
        let mut texts = Vec::new();
        let table = self.table.read();
        table.exact.for_each(|filter, entry| entry.routes(filter, &mut texts));
        table.wild.for_each(|filter, entry| entry.routes(&filter.into(), &mut texts));
        drop(table);
        texts.sort_unstable();
        let filter =
            |text: Arc<str>| TopicFilter::try_from(text).expect("it was given as a valid filter");
        texts.into_iter().map(filter).collect()
    }

    /// Whether this node wants a route to be known now.
    ///
    /// Shards tell the hub of edges through separate mailboxes, so that it may hear of them in
    /// another order than they happened; what it tells other nodes is this.
    #[must_use]
    pub fn advertises(&self, route: &TopicFilter) -> bool {
        let parts = FilterParts::of(route.as_str());
        let table = self.table.read();
        table.entry(parts.filter).is_some_and(|entry| entry.has_route(&parts))
    }

    /// The routes of other nodes, by node and filter.
    #[must_use]
    pub fn remote_routes(&self) -> Vec<(NodeKey, Vec<String>)> {
        self.table.read().remotes.list()
    }

    /// Subscriptions of sessions of this node.
    #[must_use]
    pub fn subscription_count(&self) -> usize {
        self.table.read().subscriptions
    }

    /// Different filters that this node's sessions or other nodes want, without their prefixes.
    #[must_use]
    pub fn filter_count(&self) -> usize {
        let table = self.table.read();
        table.exact.len() + table.wild.len()
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }
}

/// What the lock guards.
#[derive(Debug, Default)]
struct Table {
    exact: ExactFilters,
    wild: LevelTrie<Box<Entry>>,
    remotes: RemoteNodes,
    /// Local subscriptions in `exact` and `wild`.
    subscriptions: usize,
}

impl Table {
    /// The entry of a filter, made if there is none; `text` gives the whole text.
    fn entry_or_insert(
        &mut self,
        parts: &FilterParts<'_>,
        text: impl FnOnce() -> Arc<str>,
    ) -> &mut Entry {
        let filter = parts.filter;
        if parts::has_wildcard(filter) {
            return self.wild.get_or_insert_with(filter, Default::default);
        }
        let has_prefix = filter.len() < parts.text.len();
        self.exact.get_or_insert(filter, || if has_prefix { filter.into() } else { text() })
    }

    fn entry(&self, filter: &str) -> Option<&Entry> {
        if parts::has_wildcard(filter) {
            self.wild.get(filter).map(Box::as_ref)
        } else {
            self.exact.get(filter)
        }
    }

    fn entry_mut(&mut self, filter: &str) -> Option<&mut Entry> {
        if parts::has_wildcard(filter) {
            self.wild.get_mut(filter).map(Box::as_mut)
        } else {
            self.exact.get_mut(filter)
        }
    }

    /// Changes the entry of a filter, and forgets the filter if nobody wants it then.
    fn update<R>(&mut self, filter: &str, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        if !parts::has_wildcard(filter) {
            return self.exact.update(filter, change);
        }
        self.wild.update(filter, |entry| {
            let result = change(entry);
            (result, entry.is_empty())
        })
    }

    /// Whether the route was taken: it is valid and within the node's bound.
    fn add_remote(&mut self, node: NodeKey, text: &str, settings: &SharedSettings) -> bool {
        if TopicFilter::try_from(Arc::from(text)).is_err() {
            return false;
        }
        let parts = FilterParts::of(text);
        if parts.local || !self.remotes.add(node, text) {
            return false;
        }
        self.entry_or_insert(&parts, || text.into()).add_remote(&parts, node, settings);
        true
    }

    fn remove_remote(&mut self, node: NodeKey, text: &str) {
        if self.remotes.remove(node, text) {
            self.remove_remote_filter(node, text);
        }
    }

    fn remove_remote_filter(&mut self, node: NodeKey, text: &str) {
        let parts = FilterParts::of(text);
        self.update(parts.filter, |entry| entry.remove_remote(&parts, node));
    }
}
